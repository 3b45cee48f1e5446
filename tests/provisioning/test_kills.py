from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import GENERATIONS
from tests.provisioning.kills import MODES, Killer, killer, run


@pytest.fixture(scope="module")
def process() -> Iterator[Killer]:
    with killer() as made:
        yield made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", GENERATIONS)
def test_a_task_that_is_killed_again_and_again_ends_as_if_it_had_not(
    process: Killer, tmp_path: Path, version: str, mode: str
) -> None:
    assert run(process, 1, tmp_path, version, mode, kills=8) >= 3

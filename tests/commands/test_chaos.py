"""The stories of ``make soak``, a few of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.chaos import play


@pytest.mark.parametrize("seed", range(2))
def test_whatever_goes_wrong_each_device_gets_one_command_and_has_one_outcome(
    version: str, seed: int, tmp_path: Path
) -> None:
    play(seed, version, tmp_path)

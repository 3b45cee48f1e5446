from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.conftest import GENERATIONS
from tests.provisioning.kills import MODES, Killer, killer, run

RULE = {"topic": "devices/d/#", "permission": "allow"}


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


def attempt(process: Killer, broker: FakeEmqx, mode: str, count: int, until: int) -> int:
    """Run a task whose users have rules, as :meth:`Killer.kill_at_write` does."""
    source = [{"user_id": f"d{i}", "password": "new", "acl": [RULE]} for i in range(count)]
    job = {
        "environment": {"AIRFLOW_CONN_EMQX_DEFAULT": json.dumps(broker.connection())},
        "arguments": {"source": source, "mode": mode},
        "store": "",
        "at": None,
    }
    return process.kill_at_write(broker, job, until)


@pytest.mark.parametrize("mode", ["create", "upsert"])
@pytest.mark.parametrize(
    ("version", "count"),
    [
        ("4.4.19", 5),
        ("5.3.0", 5),
        ("5.8.9", 5),
        ("5.8.9", 90),  # more than two chunks: the users are listed and imported
    ],
)
def test_whoever_a_killed_task_has_made_has_its_rules(
    process: Killer, version: str, count: int, mode: str
) -> None:
    def prepared() -> FakeEmqx:
        broker = FakeEmqx(version)
        broker.add_user("d1", "old")
        return broker

    with prepared() as broker:
        writes = attempt(process, broker, mode, count, 0)
        expected = broker.acl_rules("username", "d0")
        assert expected
    for until in range(1, writes + 1, max(1, writes // 10)):
        with prepared() as broker:
            attempt(process, broker, mode, count, until)
            for i in range(count):
                if broker.verify(f"d{i}", "new"):
                    assert broker.acl_rules("username", f"d{i}") == expected, (until, i)
            attempt(process, broker, mode, count, 0)
            for i in range(count):
                kept = mode == "create" and i == 1
                assert broker.verify(f"d{i}", "old" if kept else "new")
                assert broker.acl_rules("username", f"d{i}") == ([] if kept else expected), (until, i)

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.plans.account import Account, Mark, mark_of
from airflow_provider_emqx.plans.file import Change, Head, Plan, draft
from tests.operators.run import execute, sent
from tests.plans.made import resealed

ROWS = [{"user_id": name, "password": "p"} for name in ("a", "b", 'ü"\n€')]
HEAD = Head("users", {"origin": "http://b"}, {"mode": "upsert"}, datetime.now(UTC), [])


def written(path: Path, changes: list[Change]) -> Path:
    with draft(path, HEAD) as file:
        file.add(changes)
        file.finish({"read": len(changes)})
    return path


@pytest.mark.parametrize("name", ["plan.jsonl", "plan.jsonl.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    changes = [Change("create", row["user_id"]) for row in ROWS] + [Change("set_rules", "all", "abc")]
    plan = Plan(written(tmp_path / name, changes))
    assert plan.head == HEAD
    assert [change for block in plan.changes() for change in block] == changes
    assert (plan.kinds, plan.facts) == ({"create": 3, "set_rules": 1}, {"read": 4})
    assert len(plan.digest) == 64


Edit = Callable[[list[bytes]], bytes]
SPOILT: dict[str, tuple[Edit, str]] = {
    "no end": (lambda lines: b"".join(lines[:-1]), "it is cut: its end is missing"),
    "in a line": (lambda lines: b"".join(lines)[:-40], "it is cut: its end is missing"),
    "only a head": (lambda lines: lines[0], "it is cut: its end is missing"),
    "a line less": (lambda lines: b"".join(lines[:1] + lines[2:]), "it was changed after it was written"),
    "another id": (lambda lines: b"".join(lines).replace(b'"b"', b'"c"'), "it was changed after"),
    "another kind": (lambda lines: b"".join(lines).replace(b"create", b"delete", 1), "it was changed after"),
    "another fact": (lambda lines: b"".join(lines).replace(b'"read": 3', b'"read": 4'), "it was changed"),
    "a line twice": (lambda lines: b"".join([lines[0], lines[1], *lines[1:]]), "'a' is in it twice"),
    "twice, resealed": (lambda lines: resealed([lines[0], lines[1], *lines[1:]]), "'a' is in it twice"),
    "a line too many": (
        lambda lines: resealed([*lines[:-1], b'{"kind": "create", "id": "z"}\n', lines[-1]]),
        r"the broker has changed since it was made: 1 of its 4 .* 'z' \(create, now nothing\)",
    ),
    "more after the end": (lambda lines: b"".join([*lines, lines[1]]), "line 6 follows its end"),
    "no change": (lambda lines: b"".join([lines[0], b"[]\n", *lines[1:]]), "line 2 is damaged"),
    "no JSON": (lambda lines: b"".join([lines[0], b"\x00\xff\n", *lines[1:]]), "line 2 is damaged"),
    "a strange change": (lambda lines: b"".join([lines[0], b'{"id": 3}\n', *lines[1:]]), "line 2 is not a"),
    "a number for an id": (
        lambda lines: b"".join([lines[0], b'{"kind": "create", "id": 3}\n', *lines[1:]]),
        "line 2 is not a change",
    ),
    "another version": (
        lambda lines: b"".join(lines).replace(b'"emqx_plan": 1', b'"emqx_plan": 2'),
        "is of version 2, and this provider reads version 1",
    ),
    "a head without a time": (lambda lines: b"".join(lines).replace(b'"made"', b'"x"', 1), "first line is"),
    "a report": (lambda lines: b'{"id": "a", "line": 1, "outcome": "rejected"}\n', "is not a plan"),
    "nothing": (lambda lines: b"", "is not a plan"),
    "CSV": (lambda lines: b"user_id,password\na,b\n", "is not a plan"),
    "half a gzip": (lambda lines: gzip.compress(b"".join(lines))[:-20], "cut or damaged"),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_spoilt_plan_is_refused(broker: Any, tmp_path: Path, how: str) -> None:
    edit, told = SPOILT[how]
    path = tmp_path / "plan.jsonl"
    execute(EmqxProvisionUsersOperator, source=ROWS, dry_run=True, plan_path=path)
    path.write_bytes(edit(path.read_bytes().splitlines(keepends=True)))
    with pytest.raises(EmqxConfigError, match=told):
        execute(EmqxProvisionUsersOperator, source=ROWS, plan_path=path)
    assert sent(broker) == []


def test_a_missing_plan_is_refused(broker: Any, tmp_path: Path) -> None:
    with pytest.raises(EmqxConfigError, match="plan.jsonl' not found"):
        execute(EmqxProvisionUsersOperator, source=ROWS, plan_path=tmp_path / "plan.jsonl")
    assert sent(broker) == []


def test_an_age_without_a_plan_is_refused() -> None:
    with pytest.raises(EmqxConfigError, match="plan_max_age goes with plan_path"):
        EmqxProvisionUsersOperator(task_id="task", source=ROWS, plan_max_age=3)


@pytest.mark.parametrize("rendered", ["", "None"])
def test_a_template_without_a_value_does_not_take_the_plan_away(rendered: str) -> None:
    with pytest.raises(EmqxConfigError, match="plan_path has no value; expected a path or URL"):
        EmqxProvisionUsersOperator(task_id="task", source=ROWS, plan_path=rendered)


def test_what_was_begun_may_be_done_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path / "plan.jsonl", [Change("create", str(number)) for number in range(6)])
    account = Account(Plan(path))
    account.begin("write", ["0", "1"])
    account.check_off("write", ["0", "1"])
    account.begin("write", ["2", "3"])
    assert json.loads(Path(mark_of(path)).read_bytes()) == {
        "plan": account.plan.digest,
        "begun": 4,
        "done": 2,
    }
    account.close()

    def compared(*now: str) -> str:
        again = Account(Plan(path))
        again.expect([Change(kind, str(number)) for number, kind in enumerate(now) if kind])
        return again.compare()

    assert compared("write", "write", "write", "create", "create", "create") == ""
    assert "'4' (create, now write)" in compared("write", "", "", "create", "write", "create")
    assert "'5' (create, now nothing)" in compared("write", "write", "", "create", "create")


def test_a_damaged_mark_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "plan.jsonl", [Change("create", "a")])
    Path(mark_of(path)).write_text("{")
    with pytest.raises(EmqxConfigError, match=r"plan.jsonl.progress' is damaged"):
        Account(Plan(path))


def test_the_mark_of_another_plan_does_not_count(tmp_path: Path) -> None:
    path = written(tmp_path / "plan.jsonl", [Change("create", "a")])
    Path(mark_of(path)).write_text(json.dumps(Mark("another", 1, 1)._asdict()))
    assert Account(Plan(path)).before.begun == 0

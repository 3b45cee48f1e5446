from __future__ import annotations

import json
import logging
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.testing import FakeEmqx
from tests.operators.run import TI, execute, sent
from tests.plans.made import changes, lines

SECRET = "S3cret-of-a-device"
SYNC: dict[str, Any] = {"mode": "sync", "scope": "d*", "max_deletes": 2}


def users(**arguments: Any) -> Any:
    return execute(EmqxProvisionUsersOperator, **arguments)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "devices.csv"
    rows = [f"d{number},{SECRET}-{number}" for number in range(5)]
    path.write_text("\n".join(["user_id,password", *rows, "bad,", ""]))
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plans" / "plan.jsonl"


@pytest.fixture
def filled(broker: Any) -> Any:
    """Users of which one is in the source, and two in scope are not."""
    for name in ("d1", "d-gone", "d-lost", "other"):
        broker.add_user(name, "old")
    return broker


def test_exactly_the_plan_is_carried_out(filled: Any, source: Path, plan: Path) -> None:
    made = users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    assert sent(filled) == []
    assert changes(plan)[:5] == [
        ("create", "d0"),
        ("write", "d1"),
        ("create", "d2"),
        ("create", "d3"),
        ("create", "d4"),
    ]
    assert sorted(changes(plan)[5:]) == [("delete", "d-gone"), ("delete", "d-lost")]
    assert made["plan"]["changes"] == {"create": 4, "write": 1, "delete": 2}
    assert made["plan"]["path"] == str(plan)
    done = users(source=str(source), plan_path=plan, **SYNC)
    assert sorted(filled.users) == ["d0", "d1", "d2", "d3", "d4", "other"]
    assert done["plan"] == {**made["plan"], "done": 7, "not_done": {}}
    assert (done["written"], done["pruned"], done["rejected"]) == (5, 2, 1)


def test_a_plan_is_private_and_holds_no_secret(filled: Any, source: Path, plan: Path) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    assert stat.S_IMODE(plan.stat().st_mode) == 0o600
    assert SECRET not in plan.read_text()
    head, *_, end = lines(plan)
    assert head["emqx_plan"] == 1
    assert head["broker"]["origin"] == filled.url
    assert head["options"]["scope"] == "d*"
    assert end["facts"]["rejected"] == 1
    assert end["facts"]["reasons"][0]["id"] == "bad"
    [guard] = end["facts"]["guards"]
    assert (guard["count"], guard["allowed"], guard["of"]) == (2, 2, 3)


def created(broker: Any) -> None:
    broker.add_user("d3", "somebody's")


def deleted(broker: Any) -> None:
    broker.users.pop("d1")


def one_more_to_delete(broker: Any) -> None:
    broker.users.pop("d-lost")
    broker.add_user("d-new", "x")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (created, r"1 of its 7 changes would now differ, and 0 would be new: 'd3' \(create, now write\)"),
        (deleted, r"1 of its 7 changes would now differ, and 0 would be new: 'd1' \(write, now create\)"),
        (
            one_more_to_delete,
            r"1 of its 7 .*, and 1 would be new: 'd-lost' \(delete, now nothing\), 'd-new' \(new: delete\)",
        ),
    ],
)
def test_a_broker_that_has_changed_is_left_alone(
    filled: Any, source: Path, plan: Path, change: Any, told: str
) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    change(filled)
    before = dict(filled.users)
    with pytest.raises(EmqxConfigError, match=f"the broker has changed since it was made: {told}"):
        users(source=str(source), plan_path=plan, **SYNC)
    assert (sent(filled), dict(filled.users)) == ([], before)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda text: text.replace("-3\n", "-33\n"), "although the changes are the same"),
        (lambda text: text.replace("d3,", "d33,"), "'d3' (create, now nothing), 'd33' (new: create)"),
        (lambda text: text.replace("bad,", "bad,x"), "'bad' (new: create)"),
    ],
)
def test_a_source_that_has_changed_is_not_written(
    filled: Any, source: Path, plan: Path, edit: Any, told: str
) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    source.write_text(edit(source.read_text()))
    with pytest.raises(EmqxConfigError, match="the source has changed since it was made") as error:
        users(source=str(source), plan_path=plan, **SYNC)
    assert told in str(error.value)
    assert sent(filled) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"mode": "upsert"}, 'mode was "sync" and is "upsert"; scope was'),
        ({**SYNC, "max_deletes": 3}, "other options: max_deletes was 2 and is 3"),
        ({**SYNC, "columns": {"user_id": "user_id"}}, "columns was {} and is"),
    ],
)
def test_other_options_are_another_plan(
    filled: Any, source: Path, plan: Path, arguments: dict[str, Any], told: str
) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    with pytest.raises(EmqxConfigError) as error:
        users(source=str(source), plan_path=plan, **arguments)
    assert told in str(error.value)
    assert sent(filled) == []


def test_the_plan_of_another_broker_is_refused(
    filled: Any, source: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    with FakeEmqx(filled.version) as other:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(other.connection()))
        with pytest.raises(EmqxConfigError, match="it is for another broker: origin was"):
            users(source=str(source), plan_path=plan, **SYNC)
        assert sent(other) == []


def test_an_old_plan_is_refused_unless_it_has_begun(filled: Any, source: Path, plan: Path) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    with pytest.raises(EmqxConfigError, match="it was made .* s ago, at .* UTC, and plan_max_age is 0 s"):
        users(source=str(source), plan_path=plan, plan_max_age=1e-6, **SYNC)
    assert sent(filled) == []
    assert users(source=str(source), plan_path=plan, plan_max_age=timedelta(hours=1), **SYNC)["pruned"] == 2


def test_a_plan_that_was_carried_out_does_nothing_more(
    filled: Any, source: Path, plan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    users(source=str(source), plan_path=plan, **SYNC)
    filled.requests.clear()
    again = users(source=str(source), plan_path=plan, **SYNC)
    assert (again["plan"]["done"], again["plan"]["not_done"]) == (0, {"before": 7})
    assert sent(filled) == []
    assert any("was carried out before" in message for message in caplog.messages)


@pytest.mark.parametrize("mode", ["upsert", "create", "delete"])
def test_the_other_modes_have_plans(broker: Any, source: Path, plan: Path, mode: str) -> None:
    broker.add_user("d1", "old")
    made = users(source=str(source), dry_run=True, plan_path=plan, mode=mode)
    expected = {
        "upsert": {"create": 4, "write": 1},
        "create": {"create": 4},
        "delete": {"delete": 1},
    }[mode]
    assert made["plan"]["changes"] == expected
    done = users(source=str(source), plan_path=plan, mode=mode)
    assert done["plan"]["done"] == sum(expected.values())
    assert len(broker.users) == (0 if mode == "delete" else 5)


def test_who_was_absent_when_a_deletion_was_planned_is_not_deleted(
    broker: Any, source: Path, plan: Path
) -> None:
    broker.add_user("d1", "old")
    users(source=str(source), dry_run=True, plan_path=plan, mode="delete")
    broker.add_user("d2", "new")
    with pytest.raises(EmqxConfigError, match=r"'d2' \(new: delete\)"):
        users(source=str(source), plan_path=plan, mode="delete")
    assert sorted(broker.users) == ["d1", "d2"]


def test_a_failed_attempt_is_taken_up_by_the_next(broker: Any, plan: Path, tmp_path: Path) -> None:
    rows = [{"user_id": f"d{number}", "password": SECRET} for number in range(1_200)]
    broker.add_user("d-gone", "old")
    users(source=rows, dry_run=True, plan_path=plan, **SYNC)
    seen = 0

    def stop(method: str, path: str) -> None:
        nonlocal seen
        seen += method != "GET"
        if method != "GET" and seen == 2:
            broker.order_fault("status", status=403, times=9)

    broker.before_each_request(stop)
    ti = TI()
    with pytest.raises(EmqxError):
        users(source=rows, plan_path=plan, ti=ti, **SYNC)
    broker.before_each_request(None)
    broker.clear_faults()
    begun = ti.pushed["return_value"]["plan"]
    assert begun["done"] > 0
    assert begun["not_done"]["left"] > 0
    assert 0 < len(broker.users) < 1_201
    done = users(source=rows, plan_path=plan, **SYNC)
    assert done["plan"]["done"] + done["plan"]["not_done"].get("before", 0) == 1_201
    assert len(broker.users) == 1_200
    assert "d-gone" not in broker.users


def test_an_attempt_that_was_interrupted_does_not_excuse_changes_by_others(broker: Any, plan: Path) -> None:
    rows = [{"user_id": f"d{number}", "password": SECRET} for number in range(1_200)]
    users(source=rows, dry_run=True, plan_path=plan)
    broker.order_fault("status", status=403, match=lambda method, path: method != "GET", times=9)
    with pytest.raises(EmqxError):
        users(source=rows, plan_path=plan)
    broker.clear_faults()
    broker.add_user("d1199", "somebody's")
    with pytest.raises(EmqxConfigError, match=r"'d1199' \(create, now write\)"):
        users(source=rows, plan_path=plan)


def test_an_iterator_cannot_be_compared_with_a_plan(broker: Any, plan: Path) -> None:
    rows = [{"user_id": "d0", "password": SECRET}]
    with EmqxHook() as hook:
        list(hook.provision_users(iter(rows), dry_run=True, plan_path=plan))
        with pytest.raises(EmqxConfigError, match="which an iterator cannot be"):
            list(hook.provision_users(iter(rows), plan_path=plan))
        assert [row.outcome for row in hook.provision_users(rows, plan_path=plan)] == ["written"]


def test_a_source_that_changes_after_the_comparison_is_not_written(broker: Any, plan: Path) -> None:
    class Moving(list[Any]):
        passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            return iter([{"user_id": "d0", "password": "p" if self.passes < 3 else "other"}])

    rows = Moving()
    with EmqxHook() as hook:
        list(hook.provision_users(rows, dry_run=True, plan_path=plan))
        with pytest.raises(EmqxError, match="the source was changed after it was compared"):
            list(hook.provision_users(rows, plan_path=plan))
    assert sent(broker) == []


def test_a_plan_that_cannot_be_made_leaves_the_former_one(filled: Any, source: Path, plan: Path) -> None:
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    before = plan.read_bytes()
    with pytest.raises(EmqxConfigError, match="the limit is 1"):
        users(source=str(source), dry_run=True, plan_path=plan, **{**SYNC, "max_deletes": 1})
    with pytest.raises(EmqxConfigError, match="max_rejected is 0"):
        users(source=str(source), dry_run=True, plan_path=plan, max_rejected=0)
    assert plan.read_bytes() == before


def test_a_plan_beside_the_files_of_the_source_is_refused(broker: Any, source: Path) -> None:
    with pytest.raises(EmqxConfigError, match="the plan_path .* is one of the files of the source"):
        users(source=f"{source.parent}/", dry_run=True, plan_path=source.parent / "plan.jsonl")


def test_a_state_file_tells_update_from_unchanged(
    broker: Any, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", json.dumps({"conn_type": "http", "password": "x" * 40}))
    state: dict[str, Any] = {"state_path": tmp_path / "state", "pepper_conn_id": "pepper"}
    rows = [{"user_id": f"d{number}", "password": SECRET} for number in range(3)]
    users(source=rows, **state)
    broker.add_user("d9", "old")
    rows[1] = {"user_id": "d1", "password": "new"}
    rows += [{"user_id": "d8", "password": SECRET}, {"user_id": "d9", "password": SECRET}]
    users(source=rows, dry_run=True, plan_path=plan, **state)
    assert changes(plan) == [
        ("unchanged", "d0"),
        ("update", "d1"),
        ("unchanged", "d2"),
        ("create", "d8"),
        ("write", "d9"),
    ]
    done = users(source=rows, plan_path=plan, **state)
    assert (done["plan"]["done"], done["written"], done["unchanged"]) == (
        5,
        5,
        2 if done["unchanged"] else None,
    )


def test_rules_are_part_of_the_plan(broker: Any, plan: Path) -> None:
    rule = {"topic": "a/#", "permission": "allow"}
    rows = [
        {"user_id": "d0", "password": SECRET, "acl": [rule]},
        {"user_id": "d1", "password": SECRET, "acl": []},
        {"user_id": "d2", "password": SECRET},
    ]
    with EmqxHook() as hook:
        hook.set_acl_rules("username:d1", [rule])
    everybody = [{"topic": "all/#", "permission": "deny"}]
    made = users(source=rows, dry_run=True, plan_path=plan, acl_rules=everybody)
    assert made["acl_changed"] is True
    assert changes(plan) == [
        ("set_rules", "all"),
        ("set_rules", "username:d0"),
        ("create", "d0"),
        ("remove_rules", "username:d1"),
        ("create", "d1"),
        ("create", "d2"),
    ]
    with EmqxHook() as hook:
        hook.set_acl_rules("username:d1", [{**rule, "permission": "deny"}])
    with pytest.raises(EmqxConfigError, match=r"'username:d1' \(remove_rules, now .* of another state\)"):
        users(source=rows, plan_path=plan, acl_rules=everybody)
    with EmqxHook() as hook:
        hook.set_acl_rules("username:d1", [rule])
        done = users(source=rows, plan_path=plan, acl_rules=everybody)
        assert done["plan"]["done"] == 6
        assert hook.list_acl_rules("username:d1") == []


def test_times_of_plans_are_utc(broker: Any, source: Path, plan: Path) -> None:
    before = datetime.now(UTC)
    users(source=str(source), dry_run=True, plan_path=plan)
    assert before <= datetime.fromisoformat(lines(plan)[0]["made"]) <= datetime.now(UTC)


def test_nothing_secret_is_logged(
    filled: Any, source: Path, plan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    users(source=str(source), dry_run=True, plan_path=plan, **SYNC)
    users(source=str(source), plan_path=plan, **SYNC)
    assert SECRET not in caplog.text


def test_a_plan_by_archive_is_exact_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tmp_path / "plan.jsonl"
    archive: dict[str, Any] = {"bulk": "archive", "mode": "sync", "scope": "d*"}
    rows = [{"user_id": f"d{number}", "password": SECRET} for number in range(3)]
    with FakeEmqx("5.8.9") as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        users(source=rows, **archive)
        broker.add_user("d-gone", "old")
        rows[1] = {"user_id": "d1", "password": "new"}
        rows.append({"user_id": "d3", "password": SECRET})
        users(source=rows, dry_run=True, plan_path=plan, **archive)
        assert changes(plan) == [
            ("unchanged", "d0"),
            ("update", "d1"),
            ("unchanged", "d2"),
            ("create", "d3"),
            ("delete", "d-gone"),
        ]
        broker.add_user("d2", "somebody's")
        with pytest.raises(EmqxConfigError, match=r"'d2' \(unchanged, now update\)"):
            users(source=rows, plan_path=plan, **archive)
        users(source=rows, dry_run=True, plan_path=plan, **archive)
        done = users(source=rows, plan_path=plan, **archive)
        assert (done["plan"]["done"], done["plan"]["not_done"]) == (5, {})
        assert (done["updated"], done["unchanged"], done["created"], done["pruned"]) == (2, 1, 1, 1)
        assert broker.verify("d1", "new")

"""What was done before a failure, or beside one, is in the task's result and in its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxConnectionError,
    EmqxError,
    EmqxForbiddenError,
    EmqxServerError,
)
from airflow_provider_emqx.operators.affected import Affected
from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
    EmqxUnbanOperator,
)
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator, EmqxSubscribeOperator
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator, EmqxSetRuleStateOperator
from airflow_provider_emqx.operators.topics import (
    EmqxClearRetainedOperator,
    EmqxPublishOperator,
    EmqxTopicMetricsOperator,
)
from tests.operators.run import TI, ban, execute

V4, V5 = "4.4.19", "5.8.9"
IDS = [f"d{number:02}" for number in range(40)]
#: the one with which it goes wrong
BAD = "d17"


def fails(
    operator_class: type, error: type[EmqxError] = EmqxForbiddenError, **arguments: Any
) -> dict[str, Any]:
    """Execute an operator that fails, and return the result that it has pushed all the same."""
    ti = TI()
    with pytest.raises(error):
        execute(operator_class, ti, **arguments)
    return ti.pushed["return_value"]  # type: ignore[no-any-return]


def lines(report: Path) -> dict[Any, str]:
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    return {row.get("clientid") or row.get("topic") or row["who"]: row["outcome"] for row in rows}


def expected(done: str) -> dict[str, str]:
    return {name: "failed" if name == BAD else done for name in IDS}


def refuse(broker: Any, method: str) -> None:
    """Let every request of a method about one of them be refused."""
    broker.order_fault(
        "status", status=403, body="{}", times=99, match=lambda verb, path: verb == method and BAD in path
    )


def test_who_was_banned_beside_a_failure(broker: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    broker.order_fault("status", status=403, body="{}", match="POST", after=17)
    told = fails(EmqxBanOperator, who=IDS, until="infinity", report_path=report)
    assert (told["counts"]["banned"], told["counts"]["failed"], told["selected"]) == (39, 1, 40)
    assert {row["who"] for row in told["banned"]} == {who for _, who in broker.bans}
    assert {who for who, outcome in lines(report).items() if outcome == "banned"} == {
        who for _, who in broker.bans
    }


def test_whose_ban_ended_beside_a_failure(broker: Any, tmp_path: Path) -> None:
    ban(broker, *IDS)
    report = tmp_path / "report.jsonl"
    refuse(broker, "DELETE")
    told = fails(EmqxUnbanOperator, kind="username", report_path=report)
    assert (told["counts"]["unbanned"], told["failed"]) == (39, [{"as": "username", "who": BAD}])
    assert lines(report) == expected("unbanned")
    assert [who for _, who in broker.bans] == [BAD]


@pytest.mark.parametrize("version", [V4, "5.0.26", V5])
def test_who_was_kicked_one_by_one_beside_a_failure(broker: Any, tmp_path: Path) -> None:
    broker.connect_many(IDS)
    report = tmp_path / "report.jsonl"
    refuse(broker, "DELETE")
    told = fails(EmqxKickClientsOperator, clientids=IDS, report_path=report, rate_limit=1_000)
    assert (told["counts"]["kicked"], told["failed"]) == (39, [BAD])
    assert lines(report) == expected("kicked")
    assert list(broker.clients) == [BAD]


@pytest.mark.parametrize("version", [V5])
def test_what_was_cleared_beside_a_failure(broker: Any, tmp_path: Path) -> None:
    for name in IDS:
        broker.publish(name, b"x", retain=True)
    report = tmp_path / "report.jsonl"
    refuse(broker, "DELETE")
    told = fails(EmqxClearRetainedOperator, topic_filter="+", report_path=report)
    assert (told["counts"]["deleted"], told["failed"]) == (39, [BAD])
    assert lines(report) == expected("deleted")
    assert list(broker.retained) == [BAD]


def test_who_was_subscribed_before_the_broker_went_away_and_nobody_is_tried_after(
    broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(attempts=1)))
    ids = [f"d{number}" for number in range(500)]
    broker.connect_many(ids)
    report = tmp_path / "report.jsonl"
    broker.order_fault("reset", match="POST", after=100, times=10_000)
    told = fails(EmqxSubscribeOperator, EmqxConnectionError, clientids=ids, topics="t", report_path=report)
    subscribed = {name for name, client in broker.clients.items() if client.subscriptions}
    assert len(subscribed) == 100
    assert {row["clientid"] for row in told["subscribed"]} == subscribed
    assert 0 < told["counts"]["failed"] + told["counts"]["unknown"] <= 32
    assert len(lines(report)) < 133


@pytest.mark.parametrize("version", [V5])
def test_that_the_only_request_of_a_publish_failed_is_told(broker: Any) -> None:
    broker.order_fault("status", status=403, body="{}", match="POST", times=9)
    messages = [{"topic": "a", "payload": "1"}, {"topic": "b", "payload": "2"}]
    told = fails(EmqxPublishOperator, messages=messages)
    assert told["counts"] == {"failed": 2}
    assert [row["topic"] for row in told["results"]] == ["a", "b"]


def test_what_was_measured_before_a_failure(broker: Any) -> None:
    topics = [f"t/{number}" for number in range(9)]
    broker.order_fault("status", status=403, body="{}", match="POST", after=5, times=9)
    told = fails(EmqxTopicMetricsOperator, action="register", topics=topics)
    assert told["topics"] == dict.fromkeys(topics[:5], True)
    assert sorted(broker.topic_metrics) == topics[:5]


def test_which_rules_were_switched_before_a_failure(broker: Any) -> None:
    for name in ("r1", "r2"):
        broker.add_rule(name, 'SELECT * FROM "t/#"')
    told = fails(EmqxSetRuleStateOperator, EmqxError, names=["r1", "none", "r2"], state="disabled")
    assert list(told) == ["r1"]


@pytest.mark.parametrize("version", [V5])
def test_what_a_backup_has_written_and_deleted_before_a_failure(broker: Any, tmp_path: Path) -> None:
    for _ in range(2):
        execute(EmqxBackupOperator, backup_dir=tmp_path)
    broker.order_fault("status", status=403, body="{}", match="DELETE", after=1, times=9)
    told = fails(EmqxBackupOperator, backup_dir=tmp_path, keep=1, keep_on_broker=1)
    assert Path(told["backup_path"]).exists()
    assert (len(told["deleted"]), len(told["deleted_on_broker"])) == (2, 1)


def test_whose_rules_were_written_beside_a_failure(broker: Any) -> None:
    rows = [{"username": name, "topic": "t", "permission": "allow"} for name in IDS]
    broker.order_fault(
        "status",
        status=403,
        body="{}",
        times=99,
        match=(lambda verb, path: BAD in path and verb in ("PUT", "GET", "POST"))
        if broker.version == V5
        else "POST",
        after=0 if broker.version == V5 else 39,
    )
    told = fails(EmqxProvisionAclOperator, source=rows)
    assert (told["read"], told["written"], told["subjects"]) == (40, 39, 39)


def test_who_was_deleted_of_a_chunk_beside_a_failure(broker: Any) -> None:
    for name in IDS:
        broker.add_user(name, "p")
    refuse(broker, "DELETE")
    told = fails(EmqxProvisionUsersOperator, source=[{"user_id": name} for name in IDS], mode="delete")
    assert (told["read"], told["deleted"], told["rejected"]) == (40, 39, 0)
    assert list(broker.users) == [BAD]


def test_who_was_pruned_beside_a_failure(broker: Any, tmp_path: Path) -> None:
    for name in IDS:
        broker.add_user(name, "p")
    report = tmp_path / "report.jsonl"
    refuse(broker, "DELETE")
    told = fails(
        EmqxProvisionUsersOperator,
        source=[{"user_id": "other"}],
        mode="prune",
        scope="d*",
        max_deletes="100%",
        report_path=report,
    )
    assert told["pruned"] == 39
    assert {json.loads(line)["id"] for line in report.read_text().splitlines()} == {*IDS} - {BAD}


@pytest.mark.parametrize("version", [V5])
def test_a_lost_answer_is_told_as_not_known(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(attempts=1)))
    broker.connect_many(["a", "b"])
    broker.order_fault("reset_after", match="POST")
    told = fails(EmqxKickClientsOperator, EmqxConnectionError, clientids=["a", "b"])
    assert told["unknown"] == ["a", "b"]


@pytest.mark.parametrize("version", [V5])
def test_a_crash_of_the_broker_over_one_ends_nothing_for_the_others(broker: Any) -> None:
    broker.order_fault(
        "status", status=500, times=2, match=lambda verb, path: verb == "DELETE" and BAD in path
    )
    ban(broker, *IDS)
    told = fails(EmqxUnbanOperator, EmqxServerError, kind="username")
    assert (told["counts"]["unbanned"], len(told["failed"] + told["unknown"])) == (39, 1)


def test_the_report_is_written_as_things_happen(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    with Affected({}, "clientid", ("kicked",), report) as affected:
        affected.add("kicked", ["a", "b"])
        # as much is left of a task that is killed
        assert len(report.read_text().splitlines()) == 2


def test_nothing_is_stored_where_nothing_was_done(broker: Any) -> None:
    ti = TI()
    with pytest.raises(EmqxConfigError):
        execute(EmqxKickClientsOperator, ti, clientids=["a", ""])
    assert ti.pushed == {}

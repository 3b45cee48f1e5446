from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxForbiddenError, EmqxServerError
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from tests.operators.run import TI, execute, sent

V4, V5 = "4.4.19", "5.8.9"
NASTY = ["a/b", "dev %25", "#?", "ümlaut", "a..b", "..a"]


def kick(**arguments: Any) -> dict[str, Any]:
    return execute(EmqxKickClientsOperator, **arguments)


def lists(result: dict[str, Any]) -> dict[str, list[str]]:
    return {name: result[name] for name in ("kicked", "absent", "still_connected", "changed")}


def counts(result: dict[str, Any]) -> dict[str, int]:
    return {outcome: count for outcome, count in result["counts"].items() if count}


def test_who_was_there_is_told_from_who_was_not(broker: Any) -> None:
    broker.connect("dev-1")
    broker.connect("dev-2", clean_start=False, session_expiry=3600)
    broker.disconnect("dev-2")
    broker.connect("stays")
    result = kick(clientids=["dev-1", "ghost", "dev-2", "dev-1"])
    assert lists(result) == {
        "kicked": ["dev-1", "dev-2"],
        "absent": ["ghost"],
        "still_connected": [],
        "changed": [],
    }
    assert counts(result) == {"kicked": 2, "absent": 1}
    assert sorted(broker.clients) == ["stays"]


def test_a_client_that_connects_again_at_once_is_named(broker: Any) -> None:
    broker.connect("stubborn", reconnects=True)
    broker.connect("dev-1")
    result = kick(clientids=["stubborn", "dev-1"])
    assert (result["kicked"], result["still_connected"]) == (["dev-1"], ["stubborn"])


@pytest.mark.parametrize("version", [V5, "5.0.26", "serverless", V4])
def test_many_are_kicked_whatever_the_broker_has_for_it(broker: Any, version: str) -> None:
    ids = [f"dev-{i}" for i in range(1_200)]
    broker.connect_many(ids)
    result = kick(clientids=[*ids, *NASTY])
    assert counts(result) == {"kicked": 1_200, "absent": len(NASTY)}
    assert len(result["kicked"]) == 1_000
    assert not broker.clients
    assert len(sent(broker)) == (2 if version == V5 else 1_200)


@pytest.mark.parametrize("clientid", NASTY)
def test_any_id_is_kicked_and_nothing_else(broker: Any, clientid: str) -> None:
    broker.connect(clientid)
    broker.connect("stays")
    assert kick(clientids=clientid)["kicked"] == [clientid]
    assert list(broker.clients) == ["stays"]


@pytest.mark.parametrize("clientid", ["", ".", "..", "\ud800", "x" * 65_536, None, 7])
def test_an_impossible_id_is_refused_before_anybody_is_kicked(broker: Any, clientid: Any) -> None:
    broker.connect("dev-1")
    with pytest.raises(EmqxConfigError):
        kick(clientids=["dev-1", clientid])
    assert broker.requests == []


@pytest.mark.parametrize("arguments", [{}, {"clientids": ["a"], "username_pattern": "x"}, {"filters": {}}])
def test_it_must_be_clear_who_is_meant(broker: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError, match="either clientids or filters"):
        kick(**arguments)
    assert broker.requests == []


@pytest.mark.parametrize(
    "filters", [{"colour": "red"}, {"conn_state": "flying"}, {"node": "nope@x"}, {"clean_start": "perhaps"}]
)
def test_an_impossible_filter_kicks_nobody(broker: Any, filters: dict[str, str]) -> None:
    broker.connect("dev-1")
    with pytest.raises(EmqxConfigError):
        kick(filters=filters)
    assert sent(broker) == []


def test_stale_sessions_are_selected_by_how_long_they_are_away(broker: Any) -> None:
    for name in ("old", "young", "on"):
        broker.connect(name, clean_start=False, session_expiry=1_000_000)
    broker.advance(-7_200)
    broker.disconnect("old")
    broker.advance(7_200)
    broker.disconnect("young")
    result = kick(disconnected_for=timedelta(hours=1))
    assert result["kicked"] == ["old"]
    assert sorted(broker.clients) == ["on", "young"]


def test_clients_are_selected_and_excluded_by_patterns(broker: Any) -> None:
    for name in ("pump-1", "pump-2", "pump-vip-1", "pump-vip-2", "lamp"):
        broker.connect(name, username=f"u-{name}")
    result = kick(username_pattern="u-pump*", exclude=["pump-vip-*", "pump-2"])
    assert (result["kicked"], result["excluded"], result["selected"]) == (["pump-1"], 3, 1)
    assert sorted(broker.clients) == ["lamp", "pump-2", "pump-vip-1", "pump-vip-2"]


@pytest.mark.parametrize("version", ["serverless"])
def test_a_pattern_works_where_the_broker_has_no_such_filter(broker: Any) -> None:
    for name in ("pump-1", "lamp"):
        broker.connect(name)
    assert kick(clientid_pattern="pump*")["kicked"] == ["pump-1"]


def test_a_dry_run_touches_nobody(broker: Any, tmp_path: Path) -> None:
    broker.connect_many(["a1", "a2", "b"])
    report = tmp_path / "kicked.jsonl"
    result = kick(clientid_pattern="*a*", dry_run="True", report_path=str(report))
    assert sorted(result["kicked"]) == ["a1", "a2"]
    assert result["dry_run"] is True
    assert sent(broker) == []
    assert len(report.read_text().splitlines()) == 2


@pytest.mark.parametrize("limit", [1, "1", "40%", 0.4, 0])
def test_more_clients_than_allowed_and_nobody_is_touched(broker: Any, limit: Any) -> None:
    broker.connect_many(["a1", "a2", "b", "c"])
    with pytest.raises(EmqxConfigError, match=r"2.* clients are selected, more than max_affected"):
        kick(clientid_pattern="*a*", max_affected=limit)
    assert sent(broker) == []
    assert len(broker.clients) == 4


@pytest.mark.parametrize("limit", [2, "50%", None])
def test_as_many_as_allowed_are_kicked(broker: Any, limit: Any) -> None:
    broker.connect_many(["a1", "a2", "b", "c"])
    assert sorted(kick(clientid_pattern="*a*", max_affected=limit)["kicked"]) == ["a1", "a2"]


def test_a_client_that_has_come_back_since_the_selection_is_left_alone(broker: Any) -> None:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    broker.connect("back", clean_start=False, session_expiry=1000)
    with EmqxHook() as hook:
        result = hook.kick_clients(["back"], {"conn_state": "disconnected"})
    assert {outcome: found for outcome, found in result.items() if found} == {"changed": ["back"]}
    assert sent(broker) == []


def test_the_report_names_everybody_and_is_for_its_owner_only(broker: Any, tmp_path: Path) -> None:
    broker.connect_many([f"dev-{i}" for i in range(1_100)])
    report = tmp_path / "kicked.jsonl"
    result = kick(clientid_pattern="dev*", report_path=str(report))
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(rows) == 1_100
    assert rows[0].keys() == {"clientid", "outcome"}
    assert len(result["kicked"]) == 1_000
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_a_report_that_cannot_be_written_is_found_out_before_anybody_is_kicked(
    broker: Any, tmp_path: Path
) -> None:
    broker.connect("dev-1")
    with pytest.raises(EmqxConfigError, match="cannot be written"):
        kick(clientids="dev-1", report_path=str(tmp_path))
    assert sent(broker) == []


def test_with_a_rate_limit_clients_are_kicked_one_by_one(broker: Any) -> None:
    broker.connect_many(["a", "b", "c"])
    assert sorted(kick(clientids=["a", "b", "c"], rate_limit=200)["kicked"]) == ["a", "b", "c"]
    assert [line.split()[0] for line in sent(broker)] == ["DELETE"] * 3


@pytest.mark.parametrize("version", [V5])
def test_a_kick_whose_answer_was_lost_is_repeated(broker: Any) -> None:
    broker.connect_many(["a", "b"])
    broker.order_fault("reset_after", match="kickout")
    assert kick(clientids=["a", "b"])["counts"]["kicked"] == 2


@pytest.mark.parametrize("version", [V5])
def test_a_broker_that_fails_fails_the_task(broker: Any) -> None:
    broker.connect("a")
    broker.order_fault("status", status=500, match="DELETE", times=9)
    with pytest.raises(EmqxServerError):
        kick(clientids=["a"])


def test_a_dag_kicks_whom_its_parameters_name(run_dag: Any, broker: Any) -> None:
    broker.connect_many(["dev-1", "dev-2", "dev-3"])
    with DAG(
        "kick", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params={"ids": ["dev-1", "dev-2"]}
    ) as dag:
        EmqxKickClientsOperator(task_id="kick", clientids="{{ params.ids }}")
        EmqxKickClientsOperator.partial(task_id="mapped").expand(clientids=["dev-3", "ghost"])
    run = run_dag(dag)
    assert run.state == "success"
    assert run.get_task_instance("kick").xcom_pull(task_ids="kick")["kicked"] == ["dev-1", "dev-2"]
    assert not broker.clients


def test_filters_by_a_part_of_an_id_count_in_either_spelling(broker: Any) -> None:
    for clientid in ("pump-1", "pump-2", "valve-1"):
        broker.connect(clientid, session_expiry=3600)
        broker.disconnect(clientid)
    both = {"clientid_pattern": "pump-*", "conn_state": "disconnected"}
    assert sorted(kick(filters=both, dry_run=True)["kicked"]) == ["pump-1", "pump-2"]
    result = kick(filters={"conn_state": "disconnected"}, clientid_pattern="pump-*")
    assert sorted(result["kicked"]) == ["pump-1", "pump-2"]
    assert set(broker.clients) == {"valve-1"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"clientid_pattern": "", "disconnected_for": 60},
        {"clientid_pattern": "*"},
        {"filters": {"conn_state": "disconnected", "username": ""}},
        {"filters": {"conn_state": "disconnected", "username": None}},
    ],
)
def test_a_filter_without_a_value_selects_nobody(broker: Any, arguments: dict[str, Any]) -> None:
    broker.connect("dev-1", session_expiry=3600)
    broker.disconnect("dev-1")
    with pytest.raises(EmqxConfigError, match="has no value"):
        kick(**arguments)
    assert set(broker.clients) == {"dev-1"}


@pytest.mark.parametrize("version", [V5])
def test_who_was_kicked_before_a_failure_is_in_report_and_result(broker: Any, tmp_path: Path) -> None:
    ids = [f"dev-{number}" for number in range(2_500)]
    broker.connect_many(ids)
    broker.order_fault("status", match="POST /api/v5/clients/kickout/bulk", after=2, times=9, status=500)
    report, ti = tmp_path / "kicked.jsonl", TI()
    with pytest.raises(EmqxServerError):
        execute(EmqxKickClientsOperator, ti, clientids=ids, report_path=str(report))
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["kicked"] * 2_000 + ["unknown"] * 500
    assert {row["clientid"] for row in rows if row["outcome"] == "kicked"} == set(ids) - set(broker.clients)
    assert counts(ti.pushed["return_value"]) == {"kicked": 2_000, "unknown": 500}


def test_the_limit_and_why_clients_were_not_kicked_are_in_log_and_result(
    broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker.connect_many(f"dev-{number}" for number in range(10))
    ti = TI()
    with pytest.raises(EmqxConfigError, match="more than max_affected='20%' allows"):
        execute(EmqxKickClientsOperator, ti, clientid_pattern="dev-*", max_affected="20%")
    result = ti.pushed["return_value"]
    assert counts(result) == {}
    assert result["guards"] == [
        {"name": "max_affected", "count": 10, "allowed": 2, "of": 10, "exceeded": True}
    ]
    broker.order_fault("status", status=403, match=lambda method, path: method != "GET", times=999)
    with pytest.raises(EmqxForbiddenError):
        execute(EmqxKickClientsOperator, ti, clientids=["dev-1", "dev-2"], max_affected=5)
    result = ti.pushed["return_value"]
    assert [(one["outcome"], one["count"], one["id"]) for one in result["reasons"]] == [
        ("failed", 2, "dev-1")
    ]
    assert "Limit max_affected: 2, 5 allowed" in caplog.messages
    assert any(
        line.startswith("2 failed: ") and line.endswith("for example 'dev-1'") for line in caplog.messages
    )

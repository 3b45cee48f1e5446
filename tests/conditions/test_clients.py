"""What "met" means for clients, and how they are asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_emqx.api.base import Broker, Reply
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.conditions import clients
from airflow_provider_emqx.conditions.base import Outcome
from airflow_provider_emqx.conditions.clients import ClientsOffline, ClientsOnline
from airflow_provider_emqx.conditions.ids import finish
from airflow_provider_emqx.conditions.kinds import KINDS, load
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx

V5, OLD_V5, V4 = Broker("v5", (5, 8, 9)), Broker("v5", (5, 5, 1)), Broker("v4", (4, 4, 19))
NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def row(clientid: str, connected: Any = True, **more: Any) -> dict[str, Any]:
    return {"clientid": clientid, "connected": connected, **more}


@pytest.mark.parametrize(
    ("state", "is_online"),
    [
        (None, False),
        (row("a"), True),
        (row("a", False), False),
        (row("a", None), False),
        ({"clientid": "a"}, False),
    ],
)
def test_online_is_known_and_connected(state: Any, is_online: bool) -> None:
    assert ClientsOnline("a").judge({"a": state}, NOW).met is is_online
    assert ClientsOffline("a").judge({"a": state}, NOW).met is not is_online


@pytest.mark.parametrize(
    ("since", "met"),
    [
        ("2026-11-22T23:59:30Z", True),
        ("2026-11-22T23:59:30.001+00:00", False),
        ("2026-11-23T00:59:30+01:00", True),
        ("2026-11-23T00:00:10Z", False),
        (None, False),
        ("undefined", False),
    ],
)
def test_stable_is_connected_for_so_long(since: Any, met: bool) -> None:
    condition = ClientsOnline("a", stable_for="30")
    assert condition.judge({"a": row("a", connected_at=since)}, NOW).met is met


@pytest.mark.parametrize(
    ("quorum", "among", "needed"),
    [
        ("all", 7, 7),
        ("any", 7, 1),
        (" ALL ", 7, 7),
        (3, 7, 3),
        ("3", 7, 3),
        (3.0, 7, 3),
        ("95%", 20, 19),
        ("95%", 21, 20),
        ("7%", 100, 7),
        ("0.1%", 10, 1),
        ("99.5%", 1000, 995),
        ("100%", 3, 3),
    ],
)
def test_a_quorum_is_a_number_of_clients(quorum: Any, among: int, needed: int) -> None:
    condition = ClientsOnline([str(number) for number in range(among)], quorum=quorum)
    assert condition.goal == needed
    assert json.loads(json.dumps(condition.parameters())) == condition.parameters()


@given(percent=st.integers(1, 1000).map(lambda tenth: Fraction(tenth, 10)), among=st.integers(1, 100_000))
def test_a_share_is_rounded_up(percent: Fraction, among: int) -> None:
    needed = clients.needed(f"{float(percent):g}%", among)
    assert 1 <= needed <= among
    assert needed - 1 < percent * among / 100 <= needed


@given(
    connected=st.lists(st.booleans(), min_size=1, max_size=30),
    quorum=st.one_of(st.sampled_from(["all", "any", "50%"]), st.just(1)),
)
def test_the_details_add_up(connected: list[bool], quorum: Any) -> None:
    ids = [f"device-{number}" for number in range(len(connected))]
    states: clients.States = {name: row(name, state) for name, state in zip(ids, connected, strict=True)}
    outcome = ClientsOnline(ids, quorum=quorum).judge(states, NOW)
    details = outcome.details
    assert details["awaited"] == details["online"] + details["missing_count"]
    assert details["missing"] == [name for name, state in zip(ids, connected, strict=True) if not state]
    assert outcome.met is (details["online"] >= details["needed"])


@pytest.mark.parametrize(
    ("broker", "awaited", "size", "sweep"),
    [
        (V5, 10, 10_000, False),
        (V5, 1_000, 10_000, False),
        (V5, 1_500, 10_000, True),
        (V5, 10_000, 10_000, True),
        (V5, 100, 100_000, False),
        (V5, 10_000, 100_000, False),
        (V4, 900, 10_000, False),
        (V4, 1_000, 10_000, True),
        (V4, 100, 100_000, False),
        # before EMQX 5.6 a listing sends whole rows
        (OLD_V5, 10_000, 10_000, False),
        (Broker("v5", None), 10_000, 10_000, False),
        # of a few nothing is worth an extra question
        (V5, 32, 1, False),
        # where the number of clients is not told
        (V5, 1_000, None, False),
        (V5, 1_001, None, True),
    ],
)
def test_the_way_that_costs_the_broker_less_is_taken(
    broker: Broker, awaited: int, size: int | None, sweep: bool
) -> None:
    assert clients.sweep_is_cheaper(api_of(broker), awaited, size) is sweep


def play(operation: Any, *replies: Any) -> tuple[Any, list[str]]:
    """Answer the requests of an operation one after another; gives its result and what it asked."""
    asked = []
    waiting = iter(replies)
    try:
        request = next(operation)
        while True:
            asked.append(str(request))
            request = operation.send(next(waiting))
    except StopIteration as done:
        return done.value, asked


def page(*rows: dict[str, Any], more: bool) -> Reply:
    return Reply(200, list(rows), {"hasnext": more, "page": 1, "limit": 5_000})


def test_an_empty_page_is_not_the_end_of_a_listing() -> None:
    (states, size), asked = play(
        clients.sweep(api_of(V5), ["a", "b", "c"], ("clientid", "connected")),
        page(row("a"), row("x"), more=True),
        page(more=True),
        page(row("b"), row("x"), row("c", False), more=False),
    )
    assert len(asked) == 3
    # of several pages only who was seen connected is sure
    assert states == {"a": row("a"), "b": row("b")}
    assert size == 4


def test_one_page_tells_of_all() -> None:
    (states, _), _ = play(
        clients.sweep(api_of(V5), ["a", "b", "c"], ("clientid", "connected")),
        page(row("a"), row("c", False), more=False),
    )
    assert states == {"a": row("a"), "b": None, "c": row("c", False)}


def test_who_is_offline_is_asked_for_again_when_the_pages_may_have_shifted() -> None:
    ids = [f"device-{number}" for number in range(40)]
    condition = ClientsOffline(ids, quorum=39)
    stats = Reply(200, {"connections.count": 50})
    pages = [page(row("x"), more=True), page(row("device-0"), more=False)]
    alone = [Reply(200, row(name, name in ("device-7", "device-8"))) for name in ids[1:]]
    outcome, asked = play(condition.ask(api_of(V5), NOW), stats, *pages, *alone)
    assert len(asked) == 3 + 39
    assert not outcome.met
    assert outcome.details["missing"] == ["device-0", "device-7", "device-8"]


def test_a_broker_that_tells_no_number_is_asked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEmqx("serverless") as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        ids = [f"device-{number}" for number in range(40)]
        broker.connect_many(ids[:39])
        hook = EmqxHook()
        outcome = hook.run(ClientsOnline(ids, quorum=39).ask(hook.api, NOW))
    assert outcome.met
    assert outcome.details["missing"] == ["device-39"]


def test_a_long_list_of_missing_ids_is_cut_off_or_written(tmp_path: Path) -> None:
    missing = [f"device-{number}" for number in range(1_500)]
    outcome = Outcome(True, {"missing": missing, "missing_count": 1_500})
    assert len(finish(outcome, None)["missing"]) == 1_000
    path = str(tmp_path / "missing.txt")
    details = finish(outcome, path)
    assert (len(details["missing"]), details["missing_path"]) == (1_000, path)
    assert Path(path).read_text().split() == missing
    assert finish(Outcome(True, {"missing": ["a"]}), path) == {"missing": ["a"]}


def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    outcome = Outcome(True, {"missing": [f"device-{number}" for number in range(1_500)]})
    # folders are made, but not where a file is
    (tmp_path / "file").touch()
    with pytest.raises(EmqxError, match="missing.txt"):
        finish(outcome, str(tmp_path / "file" / "folder" / "missing.txt"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_argument_that_does_not_exist_is_refused(kind: str) -> None:
    with pytest.raises(EmqxConfigError):
        load(kind, {"color": "red"})


def test_a_kind_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(EmqxConfigError, match="clients_online"):
        load("client_online", {})


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("clients_online", {"clientids": ["a"], "quorum": "95%", "stable_for": 3}),
        ("clients_offline", {"path": "/a", "quorum": 3}),
        ("topic_subscribed", {"topic": "t", "min_subscribers": 3, "wildcards": False}),
        ("topic_metric", {"topic": "t", "metric": "messages.in.count", "threshold": 3, "comparison": "<="}),
        ("message_retained", {"topic": "t", "json_field": "a.b", "value_hash": "x"}),
        ("cluster_healthy", {"nodes": 3, "no_alarms": ["a"]}),
        ("cluster_metric", {"metric": "m", "threshold": 0.5, "comparison": ">=", "baseline": 7}),
        ("rule_healthy", {"rule_id": "r", "connector_id": "c"}),
        ("node_evacuated", {"node": "n"}),
    ],
)
def test_a_condition_survives_its_way_to_the_triggerer(kind: str, parameters: dict[str, Any]) -> None:
    condition = load(kind, parameters)
    assert condition.parameters() == parameters
    assert load(condition.kind, json.loads(json.dumps(parameters))).parameters() == parameters

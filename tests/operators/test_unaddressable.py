"""Names that the broker has and no path can carry: selected ones are left and told, those that a user gives refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxBanOperator, EmqxUnbanOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.operators.topics import EmqxClearRetainedOperator
from tests.operators.run import ban, execute, sent

ODD = [".", ".."]


def counts(result: dict[str, Any]) -> dict[str, int]:
    return {outcome: count for outcome, count in result["counts"].items() if count}


def both(operator_class: type, **arguments: Any) -> dict[str, Any]:
    """Execute a dry run and a run, which must tell the same."""
    dry = execute(operator_class, dry_run=True, **arguments)
    real = execute(operator_class, **arguments)
    assert counts(dry) == counts(real)
    assert dry["selected"] == real["selected"]
    return real


@pytest.mark.parametrize("rate_limit", [None, 1_000])
@pytest.mark.parametrize("version", ["4.4.19", "5.0.26", "5.8.9", "serverless"])
def test_clients_without_an_address_are_kicked_by_a_body_or_left(
    broker: Any, tmp_path: Path, rate_limit: float | None
) -> None:
    for name in (*ODD, "a", "b"):
        broker.connect(name, username="u")
    report = tmp_path / "report.jsonl"
    result = both(
        EmqxKickClientsOperator, filters={"username": "u"}, report_path=str(report), rate_limit=rate_limit
    )
    if broker.version == "5.8.9":
        assert counts(result) == {"kicked": 4}
        assert not broker.clients
    else:
        assert counts(result) == {"kicked": 2, "unaddressable": 2}
        assert sorted(result["unaddressable"]) == ODD
        assert sorted(broker.clients) == ODD
    assert len(report.read_text().splitlines()) == 4


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_client_without_an_address_is_looked_at_before_and_after(broker: Any) -> None:
    broker.connect("..", username="u", reconnects=True)
    broker.connect(".", username="other")
    with EmqxHook() as hook:
        result = hook.kick_clients(["..", "."], {"username": "u"})
    assert (result["still_connected"], result["changed"]) == ([".."], ["."])


def test_who_cannot_be_kicked_does_not_count_against_the_limit(broker: Any) -> None:
    for name in (*ODD, "a"):
        broker.connect(name, username="u")
    allowed = 3 if broker.version == "5.8.9" else 1
    result = execute(EmqxKickClientsOperator, username_pattern="*u*", max_affected=allowed)
    assert result["counts"]["kicked"] == allowed


def test_a_ban_by_username_kicks_whom_it_can(broker: Any) -> None:
    for name in ("..", "a"):
        broker.connect(name, username="u")
    result = execute(EmqxBanOperator, kind="username", who="u", duration=60, kick=True)
    if broker.version == "5.8.9":
        assert sorted(result["kicked"]) == ["..", "a"]
    else:
        assert (result["kicked"], result["unaddressable"]) == (["a"], [".."])
    assert len(broker.bans) == 1


def test_bans_without_an_address_are_left_and_the_others_end(broker: Any, tmp_path: Path) -> None:
    ban(broker, *ODD, "a", "b")
    report = tmp_path / "report.jsonl"
    result = both(EmqxUnbanOperator, kind="username", report_path=str(report))
    assert counts(result) == {"unbanned": 2, "unaddressable": 2}
    assert sorted(who for _, who in broker.bans) == ODD
    told = {row["who"]: row["outcome"] for row in map(json.loads, report.read_text().splitlines())}
    assert told == {"a": "unbanned", "b": "unbanned", ".": "unaddressable", "..": "unaddressable"}


@pytest.mark.parametrize("version", ["5.8.9"])
def test_retained_messages_without_an_address_are_left_and_the_others_deleted(broker: Any) -> None:
    for topic in (*ODD, "a", "b"):
        broker.publish(topic, b"x", retain=True)
    result = both(EmqxClearRetainedOperator, topic_filter="+", exclude="b")
    assert counts(result) == {"deleted": 1, "unaddressable": 2}
    assert sorted(broker.retained) == [*ODD, "b"]


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (EmqxKickClientsOperator, {"clientids": ["a", ".."]}),
        (EmqxClearRetainedOperator, {"topics": ["a", ".."]}),
        (EmqxUnbanOperator, {"kind": "username", "who": ["a", ".."]}),
        (EmqxBanOperator, {"kind": "username", "who": ["a", ".."], "duration": 60}),
    ],
)
@pytest.mark.parametrize("version", ["5.8.9"])
def test_what_a_user_gives_is_refused_before_anything_is_sent(
    broker: Any, operator: type, arguments: dict[str, Any]
) -> None:
    broker.connect("a")
    broker.publish("a", b"x", retain=True)
    with pytest.raises(EmqxConfigError):
        execute(operator, **arguments)
    assert sent(broker) == []

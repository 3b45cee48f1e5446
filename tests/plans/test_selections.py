"""Plans of the operators that act on what they select, and of ACL rules and bans."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxBanOperator, EmqxProvisionAclOperator, EmqxUnbanOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.operators.topics import EmqxClearRetainedOperator
from airflow_provider_emqx.plans.approval import approval_body
from tests.operators.run import TI, execute, sent
from tests.plans.made import changes, resealed

UNTIL = "2099-01-01T00:00:00Z"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plan.jsonl"


def connect(broker: Any, *names: str, username: str = "pump") -> None:
    for name in names:
        broker.connect(name, username=username)


KICK: dict[str, Any] = {"filters": {"username": "pump"}, "exclude": "keep*", "max_affected": 5}


def test_exactly_the_planned_clients_are_kicked(broker: Any, plan: Path) -> None:
    connect(broker, "a", "b", "keep-c")
    made = execute(EmqxKickClientsOperator, dry_run=True, plan_path=plan, **KICK)
    assert sorted(changes(plan)) == [("kick", "a"), ("kick", "b")]
    assert made["plan"]["changes"] == {"kick": 2}
    done = execute(EmqxKickClientsOperator, plan_path=plan, **KICK)
    assert (sorted(done["kicked"]), done["plan"]["done"], done["plan"]["not_done"]) == (["a", "b"], 2, {})
    assert sorted(broker.clients) == ["keep-c"]
    broker.requests.clear()
    connect(broker, "a")
    again = execute(EmqxKickClientsOperator, plan_path=plan, **KICK)
    assert (again["kicked"], again["plan"]["not_done"]) == ([], {"before": 2})
    assert sent(broker) == []


def test_a_client_more_or_less_is_another_plan(broker: Any, plan: Path) -> None:
    connect(broker, "a", "b")
    execute(EmqxKickClientsOperator, dry_run=True, plan_path=plan, **KICK)
    broker.disconnect("a")
    connect(broker, "d")
    with pytest.raises(
        EmqxConfigError,
        match=r"1 of its 2 changes .* and 1 would be new: 'a' \(kick, now nothing\), 'd' \(new: kick\)",
    ):
        execute(EmqxKickClientsOperator, plan_path=plan, **KICK)
    assert sent(broker) == []


def away(broker: Any, name: str, hours: int) -> None:
    broker.advance(-3_600 * hours)
    broker.disconnect(name)
    broker.advance(3_600 * hours)


def test_ages_count_from_the_time_of_the_plan(broker: Any, plan: Path) -> None:
    for name in ("old", "young"):
        broker.connect(name, clean_start=False, session_expiry=1_000_000)
    away(broker, "old", 5)
    stale: dict[str, Any] = {"disconnected_for": timedelta(hours=1)}
    execute(EmqxKickClientsOperator, dry_run=True, plan_path=plan, **stale)
    head, *others = plan.read_bytes().splitlines(keepends=True)
    made = {**json.loads(head), "made": (datetime.now(UTC) - timedelta(hours=2)).isoformat()}
    plan.write_bytes(resealed([json.dumps(made).encode() + b"\n", *others]))
    # that one was connected an hour before the plan was made
    away(broker, "young", 2)
    assert execute(EmqxKickClientsOperator, plan_path=plan, **stale)["kicked"] == ["old"]


def test_what_a_failed_attempt_has_kicked_is_not_kicked_again(broker: Any, plan: Path) -> None:
    names = [f"c{number:04}" for number in range(1_500)]
    connect(broker, *names)
    everybody: dict[str, Any] = {"filters": {"username": "pump"}}
    execute(EmqxKickClientsOperator, dry_run=True, plan_path=plan, **everybody)
    planned = [name for _, name in changes(plan)]
    writes = 0

    def stop(method: str, path: str) -> None:
        nonlocal writes
        writes += method != "GET"
        if planned[0] not in broker.clients and planned[1_200] in broker.clients and method == "GET":
            broker.order_fault("status", status=403, match=lambda method, path: method != "GET", times=2_000)

    broker.before_each_request(stop)
    ti = TI()
    with pytest.raises(EmqxError):
        execute(EmqxKickClientsOperator, plan_path=plan, ti=ti, **everybody)
    broker.before_each_request(None)
    broker.clear_faults()
    assert ti.pushed["return_value"]["plan"]["done"] >= 1
    connect(broker, planned[0])
    done = execute(EmqxKickClientsOperator, plan_path=plan, **everybody)
    assert done["plan"]["done"] + done["plan"]["not_done"]["before"] == 1_500
    if writes < 1_000:  # the first part was done at once, so that it is known to be done
        assert list(broker.clients) == [planned[0]]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_message_that_was_replaced_is_another_plan(broker: Any, plan: Path) -> None:
    with EmqxHook() as hook:
        hook.publish([{"topic": f"state/{name}", "payload": "x", "retain": True} for name in "abc"])
        clear: dict[str, Any] = {"topic_filter": "state/#", "exclude": "state/c"}
        execute(EmqxClearRetainedOperator, dry_run=True, plan_path=plan, **clear)
        assert sorted(changes(plan)) == [("clear", "state/a"), ("clear", "state/b")]
        hook.publish([{"topic": "state/a", "payload": "y", "retain": True}])
        with pytest.raises(EmqxConfigError, match=r"'state/a' \(clear, now clear of another state\)"):
            execute(EmqxClearRetainedOperator, plan_path=plan, **clear)
        execute(EmqxClearRetainedOperator, dry_run=True, plan_path=plan, **clear)
        done = execute(EmqxClearRetainedOperator, plan_path=plan, **clear)
        assert (done["plan"]["done"], sorted(broker.retained)) == (2, ["state/c"])


def test_named_topics_have_a_plan_on_every_broker(broker: Any, plan: Path) -> None:
    execute(EmqxClearRetainedOperator, topics=["a", "b"], dry_run=True, plan_path=plan)
    done = execute(EmqxClearRetainedOperator, topics=["a", "b"], plan_path=plan)
    assert done["plan"]["done"] + done["plan"]["not_done"].get("absent", 0) == 2


def test_bans_are_made_and_ended_as_planned(broker: Any, plan: Path, tmp_path: Path) -> None:
    connect(broker, "a1", "a2", username="alice")
    with EmqxHook() as hook:
        hook.ban("username", "bob", UNTIL)
    ban: dict[str, Any] = {"kind": "username", "who": ["alice", "bob"], "duration": 60, "kick": True}
    made = execute(EmqxBanOperator, dry_run=True, plan_path=plan, **ban)
    assert changes(plan)[:2] == [("ban", "username:alice"), ("change_ban", "username:bob")]
    assert sorted(changes(plan)[2:]) == [("kick", "a1"), ("kick", "a2")]
    assert made["plan"]["changes"] == {"ban": 1, "change_ban": 1, "kick": 2}
    connect(broker, "a3", username="alice")
    with pytest.raises(EmqxConfigError, match=r"'a3' \(new: kick\)"):
        execute(EmqxBanOperator, plan_path=plan, **ban)
    assert sent(broker) == ["POST /api/v4/banned" if hook.api_version == "v4" else "POST /api/v5/banned"]
    broker.disconnect("a3")
    done = execute(EmqxBanOperator, plan_path=plan, **ban)
    assert (done["plan"]["done"], done["plan"]["not_done"]) == (4, {})
    assert sorted(done["kicked"]) == ["a1", "a2"]
    ends = tmp_path / "ends.jsonl"
    execute(EmqxUnbanOperator, kind="username", dry_run=True, plan_path=ends)
    assert sorted(changes(ends)) == [("unban", "username:alice"), ("unban", "username:bob")]
    ended = execute(EmqxUnbanOperator, kind="username", plan_path=ends)
    assert (ended["plan"]["done"], ended["plan"]["not_done"]) == (2, {})
    assert broker.bans == {}


def test_a_ban_that_has_changed_is_another_plan(broker: Any, plan: Path) -> None:
    with EmqxHook() as hook:
        hook.ban("username", "bob", UNTIL)
        execute(EmqxUnbanOperator, kind="username", dry_run=True, plan_path=plan)
        hook.ban("username", "bob", UNTIL, reason="again")
    with pytest.raises(EmqxConfigError, match=r"'username:bob' \(unban, now unban of another state\)"):
        execute(EmqxUnbanOperator, kind="username", plan_path=plan)


def test_bans_of_a_file_depend_on_its_rows(broker: Any, plan: Path, tmp_path: Path) -> None:
    source = tmp_path / "bans.csv"
    source.write_text("who,reason\na,x\nb,y\n")
    bans: dict[str, Any] = {"source": str(source), "duration": 60}
    execute(EmqxBanOperator, dry_run=True, plan_path=plan, **bans)
    source.write_text("who,reason\na,x\nb,z\n")
    with pytest.raises(EmqxConfigError, match="the source has changed .* although the changes are the same"):
        execute(EmqxBanOperator, plan_path=plan, **bans)
    source.write_text("who,reason\na,x\nb,y\n")
    assert execute(EmqxBanOperator, plan_path=plan, **bans)["plan"]["done"] == 2
    assert execute(EmqxBanOperator, plan_path=plan, **bans)["plan"]["not_done"] == {"before": 2}


RULE = {"topic": "a/#", "permission": "allow", "action": "all"}


def rules(*subjects: str) -> list[dict[str, Any]]:
    return [{"username": subject, **RULE} for subject in subjects]


def test_rules_are_set_as_planned(broker: Any, plan: Path) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules("username:same", [RULE])
        hook.set_acl_rules("username:other", [{**RULE, "permission": "deny"}])
        given = [*rules("new", "other", "same"), {"username": "bad", "topic": "", "permission": "allow"}]
        made = execute(EmqxProvisionAclOperator, source=given, dry_run=True, plan_path=plan)
        assert changes(plan) == [("set_rules", "username:new"), ("set_rules", "username:other")]
        assert made["plan"]["changes"] == {"set_rules": 2}
        hook.set_acl_rules("username:other", [{**RULE, "action": "publish"}])
        broker.requests.clear()
        with pytest.raises(EmqxConfigError, match=r"'username:other' \(set_rules, now set_rules of another"):
            execute(EmqxProvisionAclOperator, source=given, plan_path=plan)
        assert sent(broker) == []
        execute(EmqxProvisionAclOperator, source=given, dry_run=True, plan_path=plan)
        done = execute(EmqxProvisionAclOperator, source=given, plan_path=plan)
        assert (done["written"], done["rejected"], done["plan"]["done"]) == (3, 1, 2)
        assert [rule["topic"] for rule in hook.list_acl_rules("username:new")] == ["a/#"]
        again = execute(EmqxProvisionAclOperator, source=given, plan_path=plan)
        assert (again["read"], again["plan"]["not_done"]) == (0, {"before": 2})


def test_rules_are_deleted_as_planned(broker: Any, plan: Path) -> None:
    given = [{"username": "there"}, {"username": "absent"}]
    with EmqxHook() as hook:
        hook.set_acl_rules("username:there", [RULE])
        execute(EmqxProvisionAclOperator, source=given, mode="delete", dry_run=True, plan_path=plan)
        assert changes(plan) == [("remove_rules", "username:there")]
        done = execute(EmqxProvisionAclOperator, source=given, mode="delete", plan_path=plan)
        assert (done["plan"]["done"], hook.list_acl_rules("username:there")) == (1, [])


OPERATORS: dict[str, tuple[type, dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "kick": (EmqxKickClientsOperator, KICK, lambda given: {**given, "max_affected": 4}),
    "unban": (EmqxUnbanOperator, {"kind": "username"}, lambda given: {"kind": "clientid"}),
    "ban": (
        EmqxBanOperator,
        {"who": "x", "duration": 60},
        lambda given: {**given, "duration": 61},
    ),
    "clear": (EmqxClearRetainedOperator, {"topics": "x"}, lambda given: {"topics": "y"}),
    "rules": (
        EmqxProvisionAclOperator,
        {"source": rules("x")},
        lambda given: {**given, "mode": "delete"},
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("version", ["5.8.9"])
def test_other_options_and_other_jobs_are_other_plans(broker: Any, plan: Path, name: str) -> None:
    operator, given, other = OPERATORS[name]
    execute(operator, dry_run=True, plan_path=plan, **given)
    assert approval_body(plan).startswith("### ")
    with pytest.raises(EmqxConfigError, match="it was made with other options"):
        execute(operator, plan_path=plan, **other(given))
    operator, given, _ = next(OPERATORS[one] for one in OPERATORS if one != name)
    with pytest.raises(EmqxConfigError, match="it is a plan to"):
        execute(operator, plan_path=plan, **given)
    assert sent(broker) == []

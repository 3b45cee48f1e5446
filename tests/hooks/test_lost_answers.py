"""What was carried out although its answer got lost ends, and is told, as if it had not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange
from tests.archives.made import renamed


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.01)


RULES = [{"topic": "a", "permission": "allow"}, {"topic": "b", "permission": "deny"}]
CALLS: dict[str, Callable[[EmqxHook], Any]] = {
    "kick_clients": lambda hook: hook.kick_clients(["d", "ghost"]),
    "kick_in_parts": lambda hook: list(hook.kick_in_parts(["d", "ghost"])),
    "subscribe": lambda hook: hook.subscribe("d", ["t/1", "t/2"]),
    "unsubscribe": lambda hook: hook.unsubscribe("d", "old"),
    "clean_authorization_cache": lambda hook: hook.clean_authorization_cache("d"),
    "set_keepalive": lambda hook: hook.set_keepalive("d", 10),
    "register_topic_metrics": lambda hook: hook.register_topic_metrics("t/1"),
    "reset_topic_metrics": lambda hook: hook.reset_topic_metrics("measured"),
    "unregister_topic_metrics": lambda hook: hook.unregister_topic_metrics("measured"),
    "delete_retained": lambda hook: hook.delete_retained("kept"),
    "set_acl_rules": lambda hook: hook.set_acl_rules("clientid:d", RULES),
    "add_acl_rules": lambda hook: hook.add_acl_rules("clientid:d", RULES),
    "delete_acl_rules": lambda hook: hook.delete_acl_rules("clientid:d"),
    "ban": lambda hook: {**hook.ban("username", "u", "2099-01-01T00:00:00+00:00", "r"), "at": None},
    "ban again": lambda hook: {**hook.ban("clientid", "banned", "infinity", "new"), "at": None},
    "unban": lambda hook: hook.unban("clientid", "banned"),
    "clear_bans": lambda hook: hook.clear_bans(),
    "deactivate_alarm": lambda hook: hook.deactivate_alarm("high_cpu_usage"),
    "clear_alarms": lambda hook: hook.clear_alarms(),
    "set_rule_enabled": lambda hook: hook.set_rule_enabled("r1", False)["enable"],
    "restart_listener": lambda hook: hook.restart_listener(
        next(row["id"] for row in hook.list_listeners() if row["type"] == "tcp")
    ),
    "upload_backup": lambda hook: hook.upload_backup(*upload(hook)),
    "delete_backup": lambda hook: hook.delete_backup(hook.export_backup()["filename"]),
}


def upload(hook: EmqxHook) -> tuple[str, bytes]:
    """Return a backup under another name."""
    (row,) = hook.list_backups()
    content = hook.download_backup(row["filename"], row["node"])
    if hook.api_version == "v4":
        return "uploaded.json", content
    return "uploaded.tar.gz", renamed(content, "uploaded")


def state(broker: Any) -> dict[str, Any]:
    """What the calls change."""
    with EmqxHook() as hook:
        return {
            "clients": {name: sorted(client.subscriptions) for name, client in broker.clients.items()},
            "retained": sorted(broker.retained),
            "measured": sorted(row["topic"] for row in hook.list_topic_metrics()),
            "rules": hook.list_acl_rules("clientid:d"),
            "bans": sorted((ban["as"], ban["who"], ban["until"], ban["reason"]) for ban in hook.list_bans()),
            "alarms": [row["name"] for row in hook.list_alarms()],
            "rule": (hook.get_rule("r1") or {}).get("enable"),
            "uploaded": [name for name in broker.state.backups if name.startswith("uploaded")],
        }


@pytest.mark.parametrize("kind", ["reset_after", "reset", "truncated"])
@pytest.mark.parametrize("name", CALLS)
def test_the_outcome_is_that_of_a_good_line(
    monkeypatch: pytest.MonkeyPatch, version: str, name: str, kind: str
) -> None:
    outcomes = []
    for fault in (None, kind):
        with FakeEmqx(version=version) as broker:
            monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
            prepare(broker)
            if fault:
                broker.order_fault(fault, match=lambda method, _: method != "GET")
            with EmqxHook() as hook:
                outcomes.append((CALLS[name](hook), state(broker)))
            assert broker.pending_faults == 0
    assert outcomes[0] == outcomes[1]


def prepare(broker: Any) -> None:
    """Give the broker something of everything."""
    broker.connect("d")
    broker.subscribe("d", "old")
    broker.publish("kept", b"x", retain=True)
    broker.add_rule("r1", 'SELECT * FROM "t/#"')
    broker.raise_alarm("high_cpu_usage")
    broker.export_backup()
    with EmqxHook() as hook:
        hook.register_topic_metrics("measured")
        hook.set_acl_rules("clientid:d", [{"topic": "a", "permission": "deny"}])
        hook.ban("clientid", "banned", "infinity")

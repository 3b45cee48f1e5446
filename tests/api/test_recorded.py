"""What the operations make of the answers of real brokers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api.generations import api_of
from tests.api.recorded import BROKERS, play

BOTH = pytest.mark.parametrize("generation", ["v4", "v5"])
Call = Callable[..., Any]


def run(generation: str, path: str, *names: str, **arguments: Any) -> Any:
    area, _, name = path.partition(".")
    operation = getattr(getattr(api_of(BROKERS[generation]), area), name)
    return play(generation, operation(**arguments), *names)


NASTY = "dev/a b%#ü"


@BOTH
def test_clients_are_listed_with_the_same_fields(generation: str) -> None:
    page = run(generation, "clients.list", "clients-all")
    assert sorted(row["clientid"] for row in page.rows) == ["dev-1", "dev-2", NASTY]
    row = next(row for row in page.rows if row["clientid"] == "dev-1")
    assert {
        "connected",
        "connected_at",
        "disconnected_at",
        "mqueue_max",
        "inflight_cnt",
        "subscriptions_max",
    } <= set(row)
    assert row["connected_at"].endswith("+00:00")
    assert row["mountpoint"] is None
    assert row["disconnected_at"] is None
    assert page.next is None


@BOTH
def test_the_next_page_is_known_from_the_answer(generation: str) -> None:
    first = run(generation, "clients.list", "clients-page", limit=2)
    assert first.next is not None
    second = play(generation, first.next(), "clients-page-2")
    assert second.next is None
    assert len(first.rows) + len(second.rows) == 3


@BOTH
def test_filters_are_spelt_as_the_broker_has_them_and_rows_checked_again(generation: str) -> None:
    filtered = run(generation, "clients.list", "clients-fuzzy", filters={"clientid_pattern": "*dev*"})
    assert len(filtered.rows) == 3
    one = run(generation, "clients.list", "clients-by-id-filter", filters={"clientid": "dev-1"})
    assert [row["clientid"] for row in one.rows] == ["dev-1"]
    name = {"v4": "bob", "v5": "labuser"}[generation]
    by_name = run(generation, "clients.list", "clients-by-username-filter", filters={"username": name})
    assert {row["username"] for row in by_name.rows} == {name}
    # an answer that ignores the filter
    leaked = run(generation, "clients.list", "~clients-all", filters={"clientid": "dev-1"})
    assert [row["clientid"] for row in leaked.rows] == ["dev-1"]


@BOTH
def test_a_kept_session_is_found_and_not_connected(generation: str) -> None:
    row = run(generation, "clients.get", "client-disconnected-session", clientid="dev-2")
    assert row["connected"] is False
    assert row["disconnected_at"].startswith("2026-11-23T04:")
    away = run(generation, "clients.list", "clients-after-disconnect", filters={"conn_state": "disconnected"})
    assert [row["clientid"] for row in away.rows] == ["dev-2"]


@BOTH
def test_what_is_not_there_is_none(generation: str) -> None:
    assert run(generation, "clients.get", "client-unknown", clientid="ghost") is None
    assert run(generation, "clients.get", "client-one-special", clientid=NASTY)["clientid"] == NASTY
    assert run(generation, "topics.get_metrics", "topic-metrics-unknown", topic="nope") is None
    assert run(generation, "clients.list_subscriptions", "subscriptions-of-unknown", clientid="ghost") == []
    assert (
        run(
            generation,
            "clients.clean_authorization_cache",
            "client-acl-cache-clean-unknown" if generation == "v4" else "client-cache-clean-unknown",
            clientid="ghost",
        )
        is False
    )


@BOTH
def test_removing_what_is_absent_is_told_where_the_broker_tells(generation: str) -> None:
    expected = None if generation == "v4" else False
    assert run(generation, "clients.kick", "kick-unknown", clientid="ghost") is expected
    assert (
        run(generation, "topics.unregister_metrics", "topic-metrics-delete-unknown", topic="nope") is expected
    )
    name = "banned-delete-unknown" if generation == "v4" else "banned-delete-again"
    who = "ghost" if generation == "v4" else "dev-3"
    assert run(generation, "bans.delete", name, kind="clientid", who=who) is expected


@BOTH
def test_subscriptions_have_the_same_fields(generation: str) -> None:
    page = run(generation, "topics.list_subscriptions", "subscriptions")
    rows = {row["clientid"]: row for row in page.rows}
    assert rows["dev-1"].keys() == {"clientid", "topic", "qos", "nl", "rap", "rh", "node", "durable"}
    assert (rows["dev-2"]["topic"], rows["dev-2"]["qos"]) == ("cmd/dev-2", 2)
    one = run(
        generation, "topics.list_subscriptions", "subscriptions-by-topic", filters={"topic": "cmd/dev-2"}
    )
    assert [row["clientid"] for row in one.rows] == ["dev-2"]
    (mine,) = run(generation, "clients.list_subscriptions", "subscriptions-of", clientid="dev-1")
    assert (mine["topic"], mine["qos"]) == ("sensors/+/temp", 1)
    reached = run(
        generation, "topics.list_subscriptions", "~subscriptions", filters={"receiving": "sensors/x/temp"}
    )
    assert [row["clientid"] for row in reached.rows] == ["dev-1"]


@BOTH
def test_topics_are_routes(generation: str) -> None:
    page = run(generation, "topics.list", "routes" if generation == "v4" else "topics")
    assert sorted(row["topic"] for row in page.rows) == ["cmd/dev-2", "sensors/+/temp"]


@BOTH
def test_messages_are_accounted_for_one_by_one(generation: str) -> None:
    message = {"topic": "cmd/dev-2", "payload": "hello", "qos": 1}
    one = run(generation, "messages.publish", "publish", message=message)
    assert one["status"] == {"v4": "accepted", "v5": "delivered"}[generation]
    if generation == "v5":
        assert run("v5", "messages.publish", "publish-nobody", message=message)["status"] == "no_subscribers"
        many = run("v5", "messages.publish_many", "publish-bulk", messages=[message, message])
        assert [row["status"] for row in many] == ["delivered", "no_subscribers"]
        # the broker refuses all for one: each is tried alone
        many = run(
            "v5",
            "messages.publish_many",
            "publish-bulk-one-bad",
            "~publish",
            "~publish-wildcard",
            messages=[message, message],
        )
        assert [row["status"] for row in many] == ["delivered", "failed"]
        assert many[1]["reason"] == "topic_name_invalid"
    else:
        many = run("v4", "messages.publish_many", "publish-batch", messages=[message, message])
        assert [(row["status"], row["reason"]) for row in many] == [
            ("accepted", None),
            ("failed", "bad topic"),
        ]


@BOTH
def test_subscribing_tells_of_every_topic_and_of_a_client_that_is_not_there(generation: str) -> None:
    if generation == "v4":
        with pytest.raises(errors.EmqxNotFoundError):
            run("v4", "clients.subscribe", "subscribe-batch", clientid="dev-1", topics=["e", "f"])
        with pytest.raises(errors.EmqxNotFoundError):
            run("v4", "clients.unsubscribe", "unsubscribe-batch", clientid="dev-1", topics=["e", "f"])
    else:
        made = run(
            "v5",
            "clients.subscribe",
            "subscribe-bulk",
            clientid="dev-1",
            topics=[{"topic": "e", "qos": 1}, "f"],
        )
        assert [(row["topic"], row["qos"], row["subscribed"]) for row in made] == [
            ("e", 1, True),
            ("f", 0, True),
        ]
        ended = run("v5", "clients.unsubscribe", "unsubscribe-bulk", clientid="dev-1", topics=["e", "f"])
        assert [row["unsubscribed"] for row in ended] == [True, True]
        with pytest.raises(errors.EmqxNotFoundError):
            run("v5", "clients.subscribe", "~subscribe-unknown-client", clientid="ghost", topics="d")


@BOTH
def test_topic_metrics_have_the_same_names(generation: str) -> None:
    (row,) = run(generation, "topics.list_metrics", "topic-metrics-list")
    assert row["topic"] == "cmd/dev-2"
    assert (row["metrics"]["messages.in.count"], row["metrics"]["messages.out.count"]) == (1, 1)
    one = run(generation, "topics.get_metrics", "topic-metrics-one", topic="cmd/dev-2")
    assert one["metrics"]["messages.qos1.in.count"] == 1


def test_registering_a_topic_tells_whether_it_is_new() -> None:
    v5_names = ("topic-metrics-add", "topic-metrics-add-again")
    assert [run("v5", "topics.register_metrics", name, topic="cmd/dev-2") for name in v5_names] == [
        True,
        False,
    ]
    script = ("~topic-metrics-unknown", "topic-metrics-add", "topic-metrics-one")
    assert run("v4", "topics.register_metrics", *script, topic="cmd/dev-2") is True
    assert run("v4", "topics.register_metrics", "topic-metrics-one", topic="cmd/dev-2") is False
    # accepted, and not done: the limit is silent
    silent = ("~topic-metrics-unknown", "topic-metrics-add", "~topic-metrics-unknown", "topic-metrics-list")
    with pytest.raises(errors.EmqxError, match="does not measure it"):
        run("v4", "topics.register_metrics", *silent, topic="cmd/dev-2")


def test_retained_messages_are_read_where_the_broker_shows_them() -> None:
    page = run("v5", "messages.list_retained", "retained-filter", pattern="state/+")
    assert [row["topic"] for row in page.rows] == ["state/dev-1"]
    assert run("v5", "messages.get_retained", "retained-one", topic="state/dev-1")["payload"] == "b24="
    assert run("v5", "messages.get_retained", "retained-unknown", topic="nope") is None
    assert run("v5", "messages.delete_retained", "retained-delete", topic="state/dev-1") is True
    assert run("v5", "messages.delete_retained", "retained-delete-again", topic="state/dev-1") is False
    assert run("v4", "messages.delete_retained", "~publish", topic="state/dev-1") is None


@BOTH
def test_figures_of_the_cluster_are_sums(generation: str) -> None:
    name = {"v4": "stats", "v5": "stats-aggregate"}[generation]
    stats = run(generation, "nodes.get_stats", name)
    assert stats["live_connections.count"] == 0
    assert "node" not in stats
    assert run(generation, "nodes.list_stats", "stats")[0]["node"].endswith("@127.0.0.1")
    metrics = run(generation, "nodes.get_metrics", {"v4": "metrics", "v5": "metrics-aggregate"}[generation])
    assert metrics["messages.received"] == 0


@BOTH
def test_nodes_have_the_same_fields(generation: str) -> None:
    (node,) = run(generation, "nodes.list", "nodes")
    assert node["node_status"] == "running"
    assert node["version"] in ("4.4.19", "5.8.9")
    assert (node["connections"], node["live_connections"]) == (0, 0)
    assert node["uptime"] == {"v4": (13 * 60 + 59) * 1_000, "v5": 3261}[generation]
    assert isinstance(node["load1"], float)


@BOTH
def test_listeners_have_the_same_fields(generation: str) -> None:
    rows = run(generation, "listeners.list", "listeners")
    tcp = next(row for row in rows if row["id"] in ("mqtt:tcp:external", "tcp:default"))
    assert (tcp["type"], tcp["status"]["running"], tcp["status"]["current_connections"]) == ("tcp", True, 0)
    assert tcp["node_status"][0]["node"].endswith("@127.0.0.1")


def test_v4_alarms_are_written_as_v5_does() -> None:
    page = run("v4", "alarms.list", "~alarms", activated=False)
    (alarm,) = page.rows
    assert alarm["name"] == "high_cpu_usage"
    assert alarm["duration"] == 300_006
    assert alarm["activate_at"] == "2026-11-23T04:04:19.746+00:00"
    assert run("v4", "alarms.list", "alarms-activated").rows == []
    assert run("v5", "alarms.list", "alarms").rows == []


@BOTH
def test_acl_rules_have_one_meaning(generation: str) -> None:
    if generation == "v4":
        rules = run("v4", "acl.list", "acl-username-one", subject="username:alice")
        assert [(rule["topic"], rule["permission"], rule["action"]) for rule in rules] == [
            ("t/2", "deny", "all")
        ]
        assert run("v4", "acl.list", "acl-all", subject="all")[0]["action"] == "subscribe"
        assert run("v4", "acl.list", "acl-clientid-unknown", subject="clientid:ghost") == []
    else:
        rules = run("v5", "acl.list", "rules-user-one", subject="username:alice")
        assert rules == [
            {"topic": "t/1", "permission": "allow", "action": "all", "qos": [0, 1, 2], "retain": "all"}
        ]
        assert run("v5", "acl.list", "rules-all", subject="all")[0]["topic"] == "t/#"
        assert run("v5", "acl.list", "rules-client-unknown", subject="clientid:ghost") == []
        assert run("v5", "acl.delete", "rules-client-delete-again", subject="clientid:dev-1") is False


@BOTH
def test_bans_have_the_same_fields(generation: str) -> None:
    rows = {row["who"]: row for row in run(generation, "bans.list", "banned-list").rows}
    assert rows["dev-3"].keys() == {"as", "who", "by", "reason", "at", "until"}
    assert rows["dev-3"]["at"].startswith("2026-11-23T04:")
    assert rows["dev-3"]["until"] == {"v4": "2026-11-23T04:28:30+00:00", "v5": "infinity"}[generation]


@BOTH
def test_a_ban_in_force_is_replaced(generation: str) -> None:
    arguments = {"kind": "clientid", "who": "dev-3", "until": None, "reason": "spam", "by": "ops"}
    names = (
        ["banned-create"] if generation == "v4" else ["banned-create-again", "banned-delete", "banned-create"]
    )
    row = run(generation, "bans.create", *names, **arguments)
    assert (row["as"], row["who"], row["until"]) == ("clientid", "dev-3", "infinity")


@BOTH
def test_backups_are_described_alike(generation: str) -> None:
    made = run(generation, "backups.export", "data-export")
    assert made.keys() == {"filename", "node", "size", "created_at"}
    assert made["created_at"].startswith("2026-11-23T04:")


def test_names_of_nodes_are_sent_as_they_are() -> None:
    node = "emqx41@127.0.0.1"
    page = run("v4", "clients.list", "brokers", "node-clients", filters={"node": node})
    assert len(page.rows) == 3


def test_a_listener_of_v4_is_named_undecoded() -> None:
    operation = api_of(BROKERS["v4"]).listeners.restart("mqtt:tcp:external")
    assert str(next(operation)) == "GET /listeners"
    from airflow_provider_emqx.api.base import Reply

    listeners = [{"node": "n", "listeners": [{"identifier": "mqtt:tcp:external", "protocol": "mqtt:tcp"}]}]
    assert str(operation.send(Reply(200, listeners))) == "PUT /listeners/mqtt:tcp:external/restart"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (True, "connected"),
        (False, "disconnected"),
        ([{"is_alive": True}, {"is_alive": False}], "inconsistent"),
        ([], None),
        (None, None),
    ],
)
def test_a_resource_of_v4_tells_its_health_in_either_shape(status: Any, expected: str | None) -> None:
    from airflow_provider_emqx.api.base import Reply

    operation = api_of(BROKERS["v4"]).rule_engine.list_connectors()
    next(operation)
    with pytest.raises(StopIteration) as done:
        operation.send(Reply(200, [{"id": "resource:1", "type": "web_hook", "status": status}]))
    assert done.value.value[0]["status"] == expected


def test_editions_without_evacuation_say_what_it_needs() -> None:
    with pytest.raises(errors.EmqxUnsupportedError, match=r"EMQX Enterprise, or EMQX 5\.9"):
        run("v5", "rebalance.get_status", "~load-rebalance-status")


def test_authenticators_are_listed() -> None:
    assert (
        run("v5", "users.list_authenticators", "authenticators")[0]["id"]
        == "password_based:built_in_database"
    )
    (row,) = run("v4", "users.list_authenticators", "auth_username-list-empty")
    assert row["user_id_type"] == "username"

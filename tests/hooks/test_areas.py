"""The hook's methods of all four areas, against brokers of many versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook

V4, V5 = "4.4.19", "5.8.9"
NASTY = ["a/b", "50%", "#?&=+", "ümlaut ✓", "..a", "a/../b", "$x", "a@b", "a:b"]
IMPOSSIBLE = ["", ".", "..", "\ud800", "x" * 65_536]


@pytest.fixture
def hook(broker: Any) -> Iterator[EmqxHook]:
    with EmqxHook() as made:
        yield made


def sent(broker: Any) -> list[str]:
    return [f"{served.method} {served.path}" for served in broker.requests if served.method != "GET"]


# every method that takes an id, with an id that cannot be one

TAKE_AN_ID = {
    "get_client": lambda hook, x: hook.get_client(x),
    "kick_clients": lambda hook, x: hook.kick_clients([x]),
    "kick_in_parts": lambda hook, x: list(hook.kick_in_parts([x])),
    "list_client_subscriptions": lambda hook, x: list(hook.list_client_subscriptions(x)),
    "subscribe": lambda hook, x: hook.subscribe(x, "t"),
    "unsubscribe": lambda hook, x: hook.unsubscribe(x, "t"),
    "get_authorization_cache": lambda hook, x: hook.get_authorization_cache(x),
    "clean_authorization_cache": lambda hook, x: hook.clean_authorization_cache(x),
    "set_keepalive": lambda hook, x: hook.set_keepalive(x, 30),
    "get_user": lambda hook, x: hook.get_user(x),
    "create_user": lambda hook, x: hook.create_user(x, "p"),
    "update_user": lambda hook, x: hook.update_user(x, "p"),
    "delete_user": lambda hook, x: hook.delete_user(x),
    "list_acl_rules": lambda hook, x: hook.list_acl_rules({"username": x}),
    "set_acl_rules": lambda hook, x: hook.set_acl_rules(
        {"clientid": x}, [{"topic": "t", "permission": "deny"}]
    ),
    "delete_acl_rules": lambda hook, x: hook.delete_acl_rules({"clientid": x}),
    "ban": lambda hook, x: hook.ban("clientid", x, "infinity"),
    "unban": lambda hook, x: hook.unban("clientid", x),
    "get_rule": lambda hook, x: hook.get_rule(x),
    "set_rule_enabled": lambda hook, x: hook.set_rule_enabled(x, True),
    "get_rule_metrics": lambda hook, x: hook.get_rule_metrics(x),
    "reset_rule_metrics": lambda hook, x: hook.reset_rule_metrics(x),
    "get_integration": lambda hook, x: hook.get_integration("connector", x),
    "restart_integration": lambda hook, x: hook.restart_integration("connector", x),
    "restart_listener": lambda hook, x: hook.restart_listener(x),
    "download_backup": lambda hook, x: hook.download_backup(x),
    "delete_backup": lambda hook, x: hook.delete_backup(x),
    "import_backup": lambda hook, x: hook.import_backup(x),
    "upload_backup": lambda hook, x: hook.upload_backup(x, b"{}"),
    "get_stats": lambda hook, x: hook.get_stats(x),
    "get_metrics": lambda hook, x: hook.get_metrics(x),
    "start_evacuation": lambda hook, x: hook.start_evacuation(x),
    "stop_evacuation": lambda hook, x: hook.stop_evacuation(x),
    "start_rebalance": lambda hook, x: hook.start_rebalance(x),
}


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=["empty", "dot", "dots", "surrogate", "64 KB"])
@pytest.mark.parametrize("method", TAKE_AN_ID)
def test_an_impossible_id_is_refused_before_anything_is_sent(
    broker: Any, hook: EmqxHook, method: str, value: str
) -> None:
    with pytest.raises(EmqxConfigError):
        TAKE_AN_ID[method](hook, value)
    assert sent(broker) == []


TAKE_A_TOPIC = {
    "get_topic_metrics": lambda hook, x: hook.get_topic_metrics(x),
    "register_topic_metrics": lambda hook, x: hook.register_topic_metrics(x),
    "reset_topic_metrics": lambda hook, x: hook.reset_topic_metrics(x),
    "unregister_topic_metrics": lambda hook, x: hook.unregister_topic_metrics(x),
    "get_retained": lambda hook, x: hook.get_retained(x),
    "delete_retained": lambda hook, x: hook.delete_retained(x),
    "publish": lambda hook, x: hook.publish({"topic": x, "payload": "p"}),
}


@pytest.mark.parametrize("topic", ["", "a/#", "+/b", "a+", "a\x00", "\ud800", "x" * 65_536, None, 7])
@pytest.mark.parametrize("method", TAKE_A_TOPIC)
def test_a_wildcard_or_broken_topic_is_refused_before_anything_is_sent(
    broker: Any, hook: EmqxHook, method: str, topic: Any
) -> None:
    if method == "reset_topic_metrics" and topic is None:
        return
    with pytest.raises(EmqxConfigError):
        TAKE_A_TOPIC[method](hook, topic)
    assert sent(broker) == []


TAKE_A_NODE = {
    "list_clients": lambda hook, x: list(hook.list_clients(node=x)),
    "list_subscriptions": lambda hook, x: list(hook.list_subscriptions(node=x)),
    "list_topics": lambda hook, x: list(hook.list_topics(node=x)),
    "get_stats": lambda hook, x: hook.get_stats(x),
    "get_metrics": lambda hook, x: hook.get_metrics(x),
    "start_evacuation": lambda hook, x: hook.start_evacuation(x),
    "import_backup": lambda hook, x: hook.import_backup("f.json", x),
}


@pytest.mark.parametrize("method", TAKE_A_NODE)
def test_an_unknown_node_is_told_at_once_with_those_there_are(
    broker: Any, hook: EmqxHook, method: str
) -> None:
    with pytest.raises(EmqxConfigError, match="no running node 'nope@x'; it has emqx@127"):
        TAKE_A_NODE[method](hook, "nope@x")
    assert sent(broker) == []


# ids and topics of any kind


@pytest.mark.parametrize("clientid", NASTY)
def test_a_client_of_any_id_is_served_by_every_method(broker: Any, hook: EmqxHook, clientid: str) -> None:
    broker.connect(clientid, username=clientid)
    broker.connect("other")
    broker.subscribe(clientid, f"t/{clientid}".replace("#", "").replace("+", ""))
    client = hook.get_client(clientid)
    assert client is not None
    assert client["clientid"] == clientid
    assert [row["clientid"] for row in hook.list_clients(clientid=clientid)] == [clientid]
    assert [row["clientid"] for row in hook.list_clients(username=clientid)] == [clientid]
    assert [row["clientid"] for row in hook.list_clients(clientid_pattern="*" + clientid[1:])] == [clientid]
    assert [row["clientid"] for row in hook.list_client_subscriptions(clientid)] == [clientid]
    assert [row["clientid"] for row in hook.list_subscriptions(clientid=clientid)] == [clientid]
    hook.subscribe(clientid, "plain")
    hook.unsubscribe(clientid, "plain")
    hook.set_acl_rules({"clientid": clientid}, [{"topic": "x", "permission": "allow"}])
    assert len(hook.list_acl_rules({"clientid": clientid})) == 1
    assert hook.delete_acl_rules({"clientid": clientid}) is True
    hook.ban("clientid", clientid, "infinity")
    assert [ban["who"] for ban in hook.list_bans()] == [clientid]
    hook.unban("clientid", clientid)
    assert list(hook.list_bans()) == []
    assert sorted(broker.clients) == ["other"]  # the ban has ended the session
    broker.connect(clientid)
    assert hook.kick_clients(clientid)["kicked"] == [clientid]
    assert sorted(broker.clients) == ["other"]


@pytest.mark.parametrize("topic", ["a/b", "50%", "ü ✓", "?&=", "a//b", "/", "$share-not"])
def test_a_topic_of_any_kind_is_served_by_every_method(broker: Any, hook: EmqxHook, topic: str) -> None:
    broker.connect("d")
    broker.subscribe("d", topic)
    assert hook.register_topic_metrics(topic) is True
    hook.publish({"topic": topic, "payload": "x", "retain": True})
    metrics = hook.get_topic_metrics(topic)
    assert metrics is not None
    assert metrics["metrics"]["messages.in.count"] == 1
    assert [row["topic"] for row in hook.list_topics(topic=topic)] == [topic]
    assert [row["clientid"] for row in hook.list_subscriptions(topic=topic)] == ["d"]
    assert [row["clientid"] for row in hook.list_subscriptions(receiving=topic)] == ["d"]
    hook.unregister_topic_metrics(topic)
    assert hook.get_topic_metrics(topic) is None
    hook.delete_retained(topic)
    assert not broker.retained


# filters


@pytest.mark.parametrize("version", [V4, V5, "5.4.1", "5.0.26", "6.1.0", "serverless"])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {"pump-1", "pump-2", "away", "lamp"}),
        ({"clientid": "pump-1"}, {"pump-1"}),
        ({"clientid": ["pump-1", "lamp", "ghost"]}, {"pump-1", "lamp"}),
        ({"clientid": [f"ghost-{i:03}" for i in range(500)] + ["lamp"]}, {"lamp"}),
        ({"username": ["u1", "u2"]}, {"pump-1", "pump-2"}),
        ({"clientid_pattern": "pump*"}, {"pump-1", "pump-2"}),
        ({"clientid_pattern": "p*-2"}, {"pump-2"}),
        ({"clientid_pattern": "*"}, {"pump-1", "pump-2", "away", "lamp"}),
        ({"username_pattern": "u*"}, {"pump-1", "pump-2", "away"}),
        ({"conn_state": "connected"}, {"pump-1", "pump-2", "lamp"}),
        ({"conn_state": "disconnected"}, {"away"}),
        ({"ip_address": "10.0.0.1"}, {"lamp"}),
        ({"proto_ver": 4}, {"lamp"}),
        ({"proto_ver": "5", "clean_start": "false"}, {"away"}),
        ({"clientid": None}, {"pump-1", "pump-2", "away", "lamp"}),
        ({"gte_mqueue_len": 1}, set()),
        ({"lte_disconnected_at": datetime.now(UTC) + timedelta(days=1)}, {"away"}),
        ({"lte_connected_at": "2020-01-01T00:00:00Z"}, {"lamp"}),
        ({"gte_connected_at": "2020-01-01T00:00:00+08:00"}, {"pump-1", "pump-2", "away"}),
    ],
)
def test_a_filter_means_the_same_on_every_broker(
    broker: Any, hook: EmqxHook, filters: dict[str, Any], expected: set[str]
) -> None:
    broker.connect("pump-1", username="u1")
    broker.connect("pump-2", username="u2")
    broker.connect("away", username="u3", clean_start=False, session_expiry=1000)
    broker.disconnect("away")
    broker.connect(
        "lamp", ip_address="10.0.0.1", version=4, connected_at=datetime(2019, 1, 1, tzinfo=UTC).timestamp()
    )
    assert {row["clientid"] for row in hook.list_clients(**filters)} == expected
    assert {row["clientid"] for row in hook.list_clients(fields="username", **filters)} == expected


@pytest.mark.parametrize("pattern", ["pump-*", "*pump-", "p*pump-*"])
def test_the_broker_is_asked_for_a_part_of_the_name(broker: Any, hook: EmqxHook, pattern: str) -> None:
    list(hook.list_clients(clientid_pattern=pattern))
    assert "like_clientid=pump-&" in broker.requests[-1].path + "&"


@pytest.mark.parametrize(
    "filters",
    [
        {"colour": "red"},
        {"like_clientid": "a"},
        {"limit": 5},
        {"conn_state": "up"},
        {"clean_start": "maybe"},
        {"proto_ver": "five"},
        {"ip_address": "10.0.0"},
        {"gte_connected_at": "yesterday"},
        {"gte_connected_at": "2026-01-01 00:00:00"},
        {"gte_connected_at": 1_700_000_000},
        {"clientid": []},
        {"clientid": ["a", ""]},
        {"clientid_pattern": ""},
        {"gte_mqueue_len": -1},
    ],
)
def test_an_impossible_filter_of_clients_is_refused(
    broker: Any, hook: EmqxHook, filters: dict[str, Any]
) -> None:
    known = hook.broker
    before = len(broker.requests)
    with pytest.raises(EmqxConfigError, match="filter"):
        list(hook.list_clients(**filters))
    assert len(broker.requests) == before, known


@pytest.mark.parametrize(
    "filters",
    [
        {"colour": 1},
        {"qos": 3},
        {"match_topic": "a/#/b"},
        {"match_topic": "$share/g/a"},
        {"receiving": "a/#"},
    ],
)
def test_an_impossible_filter_of_subscriptions_is_refused(
    broker: Any, hook: EmqxHook, filters: dict[str, Any]
) -> None:
    with pytest.raises(EmqxConfigError, match="filter"):
        list(hook.list_subscriptions(**filters))


def test_topics_of_shared_subscriptions_are_listed_once_and_without_their_group(
    broker: Any, hook: EmqxHook
) -> None:
    broker.connect("d")
    for topic in ("t", "$share/g/t", "$share/h/t", "$share/g/only/shared", "$queue/also/shared"):
        broker.subscribe("d", topic)
    node = next(hook.list_topics())["node"]
    for filters in ({}, {"node": node}):
        assert sorted(row["topic"] for row in hook.list_topics(**filters)) == [
            "also/shared",
            "only/shared",
            "t",
        ]
    for topic in ("t", "only/shared", "also/shared"):
        for filters in ({"topic": topic}, {"topic": topic, "node": node}):
            assert [row["topic"] for row in hook.list_topics(**filters)] == [topic]


@pytest.mark.parametrize("topic", ["$share/g/t/#", "$queue/t/#", "$share/g/50%/+"])
def test_a_shared_subscription_is_found_by_its_topic_as_subscribed(
    broker: Any, hook: EmqxHook, topic: str
) -> None:
    plain = topic.split("/", 1 if topic.startswith("$queue") else 2)[-1]
    for clientid, subscribed in (("meant", topic), ("plain", plain), ("other", f"$share/other/{plain}")):
        broker.connect(clientid)
        broker.subscribe(clientid, subscribed)
    found = list(hook.list_subscriptions(topic=topic))
    assert [(row["clientid"], row["topic"]) for row in found] == [("meant", topic)]
    assert [row["clientid"] for row in hook.list_subscriptions(topic=plain)] == ["plain"]
    assert list(hook.list_subscriptions(topic=topic, share_group="another")) == []
    assert [row["topic"] for row in hook.list_client_subscriptions("meant")] == [topic]


def test_subscriptions_are_filtered(broker: Any, hook: EmqxHook) -> None:
    for clientid, topic, qos in (("a", "t/1", 0), ("b", "t/+", 1), ("c", "$share/g/t/#", 2), ("d", "u", 0)):
        broker.connect(clientid)
        broker.subscribe(clientid, topic, qos)

    def found(**filters: Any) -> list[str]:
        return sorted(row["clientid"] for row in hook.list_subscriptions(**filters))

    assert found() == ["a", "b", "c", "d"]
    assert found(qos=1) == ["b"]
    assert found(topic="t/+") == ["b"]
    assert found(share_group="g") == ["c"]
    assert found(match_topic="t/+") == ["a", "b", "c"]
    assert found(match_topic="t/1") == ["a"]
    assert found(receiving="t/1") == ["a", "b", "c"]
    assert found(receiving="t/1/2") == ["c"]


def test_a_part_of_each_row_is_the_same_part_everywhere(broker: Any, hook: EmqxHook) -> None:
    broker.connect("d", username="u")
    (row,) = hook.list_clients(fields=["username", "disconnected_at"], conn_state="connected")
    assert row == {"clientid": "d", "username": "u", "disconnected_at": None}


@pytest.mark.parametrize("version", [V5, V4])
def test_a_listing_is_read_page_by_page(broker: Any, hook: EmqxHook) -> None:
    broker.connect_many([f"d{i:05}" for i in range(10_050)])
    rows = hook.list_clients(fields=["connected"])
    before = len(broker.requests)
    next(rows)
    assert len(broker.requests) == before + 1
    assert sum(1 for _ in rows) == 10_049


# what a broker lacks

LACKS = {
    V4: [
        lambda hook: list(hook.list_retained()),
        lambda hook: hook.get_retained("a"),
        lambda hook: list(hook.list_delayed()),
        lambda hook: hook.get_rates(),
        lambda hook: list(hook.list_actions()),
        lambda hook: list(hook.list_sources()),
        lambda hook: hook.get_integration("action", "a"),
        lambda hook: hook.set_integration_enabled("connector", "a", True),
        lambda hook: hook.count_sessions(),
        lambda hook: list(hook.list_queued_messages("a")),
        lambda hook: hook.get_license(),
        lambda hook: hook.get_rebalance_status(),
        lambda hook: hook.ban("clientid_re", "a", "infinity"),
        lambda hook: list(hook.list_subscriptions(durable=True)),
    ],
    "5.3.2": [
        lambda hook: list(hook.list_actions()),
        lambda hook: hook.export_backup(),
        lambda hook: hook.ban("peerhost_net", "10.0.0.0/8", "infinity"),
        lambda hook: hook.count_sessions(),
        lambda hook: hook.deactivate_alarm("a"),
        lambda hook: list(hook.list_clients(zone="external")),
    ],
    V5: [lambda hook: hook.get_rebalance_status(), lambda hook: hook.get_license()],
}


@pytest.mark.parametrize(
    ("version", "number"),
    [(version, number) for version, calls in LACKS.items() for number in range(len(calls))],
)
def test_what_a_broker_lacks_is_refused_with_what_it_needs(
    broker: Any, hook: EmqxHook, version: str, number: int
) -> None:
    with pytest.raises(EmqxUnsupportedError, match=r"need|only|licence"):
        LACKS[version][number](hook)
    assert sent(broker) == []


# the rest of the methods


def test_rights_are_looked_up_anew_and_keepalive_changed(broker: Any, hook: EmqxHook) -> None:
    broker.connect("d")
    assert hook.get_authorization_cache("d") == []
    assert hook.clean_authorization_cache("d") is True
    assert hook.clean_authorization_cache("ghost") is False
    assert hook.clean_authorization_cache() is None
    hook.set_keepalive("d", 77)
    client = hook.get_client("d")
    assert client is not None
    assert client["keepalive"] == 77
    with pytest.raises(EmqxNotFoundError):
        hook.set_keepalive("ghost", 77)
    for seconds in (-1, 65_536, 1.5, "soon", True):
        with pytest.raises(EmqxConfigError):
            hook.set_keepalive("d", seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [V5])
def test_queued_delayed_and_sessions_are_shown(broker: Any, hook: EmqxHook) -> None:
    broker.connect("d", clean_start=False, session_expiry=1000)
    broker.subscribe("d", "t", 1)
    broker.disconnect("d")
    for i in range(3):
        broker.publish("t", str(i).encode(), 1)
    assert len(list(hook.list_queued_messages("d"))) == 3
    assert hook.count_sessions() == 1
    hook.publish({"topic": "$delayed/600/later", "payload": "x"})
    (row,) = hook.list_delayed()
    message = hook.get_delayed(row["node"], row["msgid"])
    assert message is not None
    assert (message["topic"], message["payload"]) == ("later", "eA==")
    hook.publish({"topic": "$delayed/600/big", "payload": "x" * 2049})
    (big,) = [found for found in hook.list_delayed() if found["topic"] == "big"]
    assert "payload" not in (hook.get_delayed(big["node"], big["msgid"]) or {"payload": "none found"})
    assert hook.delete_delayed(row["node"], row["msgid"]) is True
    assert hook.delete_delayed(row["node"], row["msgid"]) is False
    assert hook.get_delayed(row["node"], row["msgid"]) is None


@pytest.mark.parametrize("version", [V5])
def test_no_queued_message_is_lost_where_payloads_make_a_page_too_large(broker: Any, hook: EmqxHook) -> None:
    broker.connect("d", session_expiry=1000)
    broker.subscribe("d", "t", 1)
    broker.disconnect("d")
    for number in range(5):
        broker.publish("t", str(number) * 400_000, 1)
    rows = list(hook.list_queued_messages("d", payload="plain"))
    assert [row["payload"][0] for row in rows] == ["0", "1", "2", "3", "4"]


def test_retained_messages_are_listed_without_those_of_the_system(broker: Any, hook: EmqxHook) -> None:
    for topic in ("a", "a/b", "$x/a"):
        broker.publish(topic, b"x", retain=True)
    if broker.version == V5:
        assert sorted(row["topic"] for row in hook.list_retained()) == ["a", "a/b"]
        assert sorted(row["topic"] for row in hook.list_retained("a/#")) == ["a", "a/b"]
        message = hook.get_retained("a/b")
        assert message is not None
        assert message["payload"] == "eA=="


def test_listeners_and_alarms(broker: Any, hook: EmqxHook) -> None:
    listener = next(row["id"] for row in hook.list_listeners() if row["type"] == "tcp")
    hook.restart_listener(listener)
    assert sum(broker.restarts.values()) == 1
    with pytest.raises(EmqxNotFoundError):
        hook.restart_listener("tcp:nope")
    broker.raise_alarm("high_cpu_usage", "busy")
    (alarm,) = hook.list_alarms()
    assert (alarm["name"], alarm["message"], alarm["deactivate_at"]) == ("high_cpu_usage", "busy", None)
    assert hook.deactivate_alarm("high_cpu_usage") is True
    assert hook.deactivate_alarm("high_cpu_usage") is False
    assert [row["name"] for row in hook.list_alarms(activated=False)] == ["high_cpu_usage"]
    hook.clear_alarms()
    assert list(hook.list_alarms(activated=False)) == []


def test_a_backup_travels_back(broker: Any, hook: EmqxHook) -> None:
    hook.create_user("before", "p")
    made = hook.export_backup()
    content = hook.download_backup(made["filename"], made["node"])
    assert len(content) == made["size"]
    assert [row["filename"] for row in hook.list_backups()] == [made["filename"]]
    assert hook.delete_backup(made["filename"], made["node"]) is True
    assert hook.delete_backup(made["filename"], made["node"]) is False
    with pytest.raises(EmqxNotFoundError):
        hook.download_backup(made["filename"], made["node"])
    hook.upload_backup(made["filename"], content)
    hook.import_backup(made["filename"])
    assert broker.state.imported == [made["filename"]]


@pytest.mark.parametrize("version", ["5.9.1"])
def test_rebalancing_and_licence(broker: Any, hook: EmqxHook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hook.get_rebalance_status() == {"evacuations": [], "purges": [], "rebalances": []}
    with pytest.raises(EmqxError):
        hook.stop_evacuation("emqx@127.0.0.1")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, version: str) -> Iterator[Any]:
    """Two nodes of an edition that can rebalance, with 20 clients on one of them."""
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx(version=version, edition="Enterprise", nodes=["emqx@n1", "emqx@n2"]) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        broker.connect_many([f"d{i}" for i in range(20)], node="emqx@n1")
        yield broker


@pytest.mark.parametrize("version", [V5, "5.9.1", "6.1.0", V4])
def test_nodes_are_evacuated_and_the_cluster_rebalanced(cluster: Any) -> None:
    with EmqxHook() as hook:
        hook.start_evacuation("emqx@n1", conn_evict_rate=5)
        (row,) = hook.get_rebalance_status()["evacuations"]
        assert row["node"] == "emqx@n1"
        with pytest.raises(EmqxError):
            hook.start_evacuation("emqx@n1")
        hook.stop_evacuation("emqx@n1")
        assert hook.get_rebalance_status()["evacuations"] == []
        hook.start_rebalance("emqx@n2", conn_evict_rate=5, abs_conn_threshold=1)
        assert len(hook.get_rebalance_status()["rebalances"]) == 1
        hook.stop_rebalance("emqx@n2")
        assert hook.get_rebalance_status()["rebalances"] == []
        with pytest.raises(EmqxConfigError, match="unknown setting 'colour'"):
            hook.start_rebalance("emqx@n2", colour="red")


@pytest.mark.parametrize("version", [V4])
def test_emqx_4_begins_an_evacuation_at_once(cluster: Any) -> None:
    with EmqxHook() as hook:
        before = len(cluster.requests)
        with pytest.raises(EmqxConfigError, match="unknown setting 'wait_health_check'"):
            hook.start_evacuation("emqx@n1", wait_health_check="60s")
        assert not any(request.method == "POST" for request in cluster.requests[before:])


@pytest.mark.parametrize("version", [V4, V5])
def test_a_stopped_node_is_listed_and_figures_are_told_per_node(cluster: Any) -> None:
    with EmqxHook() as hook:
        assert hook.get_stats()["live_connections.count"] == 20
        assert hook.get_stats("emqx@n2")["live_connections.count"] == 0
        assert {row["node"]: row["live_connections.count"] for row in hook.list_stats()} == {
            "emqx@n1": 20,
            "emqx@n2": 0,
        }
        assert {row["node"] for row in hook.list_metrics()} == {"emqx@n1", "emqx@n2"}
        assert {row["node"] for row in hook.list_clients(node="emqx@n1")} == {"emqx@n1"}
        assert sorted(hook.get_cluster()["nodes"]) == ["emqx@n1", "emqx@n2"]
        cluster.stop_node("emqx@n2")
        assert {row["node"]: row["node_status"] for row in hook.list_nodes()} == {
            "emqx@n1": "running",
            "emqx@n2": "stopped",
        }


@pytest.mark.parametrize("version", [V4, V5, "5.0.26"])
def test_all_bans_end(broker: Any, hook: EmqxHook) -> None:
    for who in ("a", "b", "c/d"):
        hook.ban("clientid", who, datetime.now(UTC) + timedelta(days=1), "x")
    assert {ban["until"] != "infinity" for ban in hook.list_bans()} == {True}
    hook.clear_bans()
    assert list(hook.list_bans()) == []


@pytest.mark.parametrize("version", [V4, V5, "5.7.2"])
def test_a_ban_for_ever_is_one_on_every_version(broker: Any, hook: EmqxHook) -> None:
    hook.ban("username", "u", "infinity")
    (ban,) = hook.list_bans()
    assert (ban["as"], ban["who"], ban["until"], ban["by"]) == ("username", "u", "infinity", "airflow")


def test_authenticators_are_shown(broker: Any, hook: EmqxHook) -> None:
    found = hook.get_authenticator()
    assert found is not None
    assert found["user_id_type"] == "username"
    assert [row["id"] for row in hook.list_authenticators()] == [found["id"]]


def test_rules_are_measured(broker: Any, hook: EmqxHook) -> None:
    broker.add_rule("r1", 'SELECT * FROM "t/#"')
    assert isinstance(hook.get_rule_metrics("r1"), dict)
    hook.reset_rule_metrics("r1")
    with pytest.raises(EmqxNotFoundError):
        hook.get_rule_metrics("ghost")
    assert hook.get_rule("ghost") is None
    assert hook.get_integration("connector", "ghost:x") is None


@pytest.mark.parametrize("version", [V4])
def test_times_of_a_broker_in_another_zone_are_utc(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx(version=version, utc_offset=5.5) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        broker.connect("d")
        with EmqxHook() as hook:
            client = hook.get_client("d")
            assert client is not None
            age = datetime.now(UTC) - datetime.fromisoformat(client["connected_at"])
            assert abs(age) < timedelta(minutes=1)
            recent = datetime.now(UTC) - timedelta(minutes=5)
            assert [row["clientid"] for row in hook.list_clients(gte_connected_at=recent)] == ["d"]


def test_a_flag_may_be_text_and_is_never_taken_for_its_opposite(
    broker: Any, hook: EmqxHook, version: str
) -> None:
    off: Any = "False"
    broker.add_rule("r", 'SELECT * FROM "t/#"')
    assert hook.set_rule_enabled("r", off)["enable"] is False
    assert hook.get_rule("r")["enable"] is False  # type: ignore[index]
    broker.raise_alarm("over")
    broker.end_alarm("over")
    assert [row["name"] for row in hook.list_alarms(off)] == ["over"]
    assert hook.create_user("u", "p", off)["is_superuser"] is (None if version == V4 else False)
    assert hook.update_user("u", "q", off)["is_superuser"] is (None if version == V4 else False)
    assert [row["user_id"] for row in hook.list_users(off)] == ["u"]
    for call in (
        lambda: hook.set_rule_enabled("r", "perhaps"),  # type: ignore[arg-type]
        lambda: list(hook.list_alarms("")),  # type: ignore[arg-type]
        lambda: hook.create_user("v", "p", 2),  # type: ignore[arg-type]
        lambda: hook.update_user("u", "p", "maybe"),  # type: ignore[arg-type]
        lambda: list(hook.list_users("")),  # type: ignore[arg-type]
        lambda: hook.request("POST", "/x", idempotent="never"),  # type: ignore[arg-type]
    ):
        before = sent(broker)
        with pytest.raises(EmqxConfigError, match="(must be|has no value; expected) true or false"):
            call()
        assert sent(broker) == before


@pytest.mark.parametrize("idempotent", [False, "false", None])
def test_a_post_that_is_not_said_to_be_idempotent_is_sent_once(
    broker: Any, hook: EmqxHook, idempotent: Any
) -> None:
    assert hook.broker
    broker.order_fault("status", match="POST", status=502, times=2)
    with pytest.raises(EmqxError):
        hook.request("POST", "/anything", json={}, idempotent=idempotent)
    assert len(sent(broker)) == 1


@pytest.mark.parametrize("version", ["5.3.2"])
def test_durable_subscriptions_are_not_told_apart_before_emqx_5_7(broker: Any, hook: EmqxHook) -> None:
    broker.connect("d")
    broker.subscribe("d", "t")
    with pytest.raises(EmqxUnsupportedError, match="needs EMQX 5.7"):
        list(hook.list_subscriptions(durable=False))
    assert [row["durable"] for row in hook.list_subscriptions()] == [None]
    assert [row["durable"] for row in hook.list_client_subscriptions("d")] == [None]


@pytest.mark.parametrize("version", [V4, "5.1.0"])
def test_bans_are_cleared_one_by_one_where_there_is_nothing_shorter(broker: Any, hook: EmqxHook) -> None:
    for who in ("a", "b/c", "50%"):
        hook.ban("clientid", who, "infinity")
    hook.ban("peerhost", "::1", "infinity")
    hook.clear_bans()
    assert broker.bans == {}


@pytest.mark.parametrize("version", [V4])
def test_an_answer_without_content_is_not_taken_for_absent(broker: Any, hook: EmqxHook) -> None:
    assert hook.broker
    broker.order_fault("status", status=200, body=b'{"code":0}', times=3)
    for call in (hook.get_user, hook.get_client, hook.get_topic_metrics):
        with pytest.raises(EmqxError, match="not what EMQX answers to this"):
            call("a")


def test_rows_have_the_same_fields_on_both_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_emqx.testing import FakeEmqx

    def fields(version: str) -> dict[str, set[str]]:
        with FakeEmqx(version) as broker, monkeypatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
            broker.connect("d", username="u")
            broker.subscribe("d", "t")
            broker.add_rule("r", 'SELECT * FROM "t"')
            broker.raise_alarm("a")
            with EmqxHook() as hook:
                hook.create_user("u", "p")
                hook.ban("clientid", "x", "infinity")
                hook.register_topic_metrics("t")
                rows = {
                    "client": hook.get_client("d"),
                    "listed client": next(hook.list_clients()),
                    "subscription": next(hook.list_subscriptions()),
                    "topic": next(hook.list_topics()),
                    "metrics": next(hook.list_topic_metrics()),
                    "user": next(hook.list_users()),
                    "ban": next(hook.list_bans()),
                    "node": next(hook.list_nodes()),
                    "alarm": next(hook.list_alarms()),
                    "rule": next(hook.list_rules()),
                    "rule metrics": hook.get_rule_metrics("r"),
                }
        return {name: set(row or ()) for name, row in rows.items()}

    # how a socket, a queue or a build is made
    internal = {"auth_expire_at", "peersni", "disconn_props", "recv_msg.dropped.await_pubrel_timeout"}
    old, middle, new = fields(V4), fields("5.0.4"), fields(V5)
    for name, expected in new.items():
        missing = {field for field in expected - internal if not field.startswith("actions.")}
        assert missing <= old[name], name
        assert missing <= middle[name], name


def test_no_error_is_its_own_cause(broker: Any, hook: EmqxHook) -> None:
    """Whoever follows the causes of such an error, as a logger does, never comes to an end."""
    hook.create_user("u", "p")
    broker.order_fault("status", match="/data/", status=400, body=b"Bad Request", times=2)
    file = "f.json" if hook.api_version == "v4" else "f.tar.gz"
    for call in (
        lambda: hook.create_user("u", "p"),
        lambda: hook.download_backup(file),
        lambda: hook.import_backup(file),
    ):
        with pytest.raises(EmqxError) as caught:
            call()
        error: BaseException | None = caught.value
        met: list[BaseException] = []
        while error is not None:
            assert not any(error is other for other in met)
            met.append(error)
            error = error.__cause__


def test_metrics_of_a_rule_that_is_not_there_cannot_be_set_to_0(broker: Any, hook: EmqxHook) -> None:
    with pytest.raises(EmqxNotFoundError):
        hook.reset_rule_metrics("ghost")
    assert [line for line in sent(broker) if "reset_metrics" in line] == []


@pytest.mark.parametrize("version", ["5.3.2"])
def test_backups_need_emqx_5_4(broker: Any, hook: EmqxHook) -> None:
    for call in (
        hook.export_backup,
        lambda: list(hook.list_backups()),
        lambda: hook.download_backup("f.tar.gz"),
        lambda: hook.delete_backup("f.tar.gz"),
        lambda: hook.upload_backup("f.tar.gz", b"x"),
        lambda: hook.import_backup("f.tar.gz"),
    ):
        with pytest.raises(EmqxUnsupportedError, match="needs EMQX 5.4 or newer; this is EMQX 5.3.2"):
            call()


@pytest.mark.parametrize("version", [V5])
def test_messages_of_an_unknown_kind_are_refused(broker: Any, hook: EmqxHook) -> None:
    with pytest.raises(EmqxConfigError, match="kind must be one of mqueue, inflight"):
        list(hook.list_queued_messages("d", "../authorization"))


@pytest.mark.parametrize("version", [V5])
def test_a_method_that_a_path_does_not_take_is_told(broker: Any, hook: EmqxHook) -> None:
    with pytest.raises(EmqxError, match="HTTP 405: this path takes no PATCH"):
        hook.request("PATCH", "/nodes")
    with pytest.raises(EmqxConfigError, match="method must be one of"):
        hook.request("HEAD", "/nodes")


@pytest.mark.parametrize("subject", ["all", "username:alice"])
def test_placeholders_of_acl_rules_mean_the_same_on_both_generations(
    broker: Any, hook: EmqxHook, version: str, subject: str
) -> None:
    rules = [
        {"topic": "d/${clientid}/${username}/#", "permission": "allow", "action": "publish"},
        {"topic": "${username}", "permission": "deny", "action": "all"},
    ]
    hook.set_acl_rules(subject, rules)
    stored = {rule["topic"] for rule in broker.acl_rules(*subject.split(":"))}
    assert stored == ({"d/%c/%u/#", "%u"} if version == V4 else {rule["topic"] for rule in rules})
    found = hook.list_acl_rules(subject)
    assert [(rule["topic"], rule["action"]) for rule in found] == [(r["topic"], r["action"]) for r in rules]
    if subject != "all":
        assert [row["rules"] for row in hook.list_acl_subjects("username")] == [found]
    added = hook.add_acl_rules(subject, [{"topic": "x/${clientid}", "permission": "deny"}], "last")
    assert added[:2] == found
    before = sent(broker)
    hook.add_acl_rules(subject, rules[:1])
    if version == V4:
        # all of it stands there already
        assert sent(broker) == before
    assert hook.delete_acl_rules(subject) is True
    assert broker.acl_rules(*subject.split(":")) == []


def test_placeholders_of_emqx_4_are_taken_for_the_newer_ones(
    broker: Any, hook: EmqxHook, version: str
) -> None:
    """EMQX 5 and 6 store %c and %u as they are, and such a rule matches nobody."""
    hook.set_acl_rules("all", [{"topic": "d/%c/%u/%c3%a9/#", "permission": "deny"}])
    stored = "d/%c/%u/%c3%a9/#" if version == V4 else "d/${clientid}/${username}/%c3%a9/#"
    assert {rule["topic"] for rule in broker.acl_rules("all")} == {stored}
    assert [rule["topic"] for rule in hook.list_acl_rules("all")] == ["d/${clientid}/${username}/%c3%a9/#"]
    part = [{"topic": "dev-%c/#", "permission": "deny"}]
    if version == V4:
        with pytest.raises(EmqxUnsupportedError, match="level of its own"):
            hook.set_acl_rules("all", part)
    else:
        hook.set_acl_rules("all", part)
        assert [rule["topic"] for rule in hook.list_acl_rules("all")] == ["dev-${clientid}/#"]


@pytest.mark.parametrize(
    "topic", ["d/${client_id}/#", "${clientId}", "${user}/a", "d-${", "${client_attrs}/x", "${}"]
)
def test_a_placeholder_that_no_broker_fills_in_is_refused_before_anything_is_sent(
    broker: Any, hook: EmqxHook, topic: str
) -> None:
    for write in (hook.set_acl_rules, hook.add_acl_rules):
        with pytest.raises(EmqxConfigError, match=r"ACL rule 2: .*expected \$\{clientid\}, \$\{username\}"):
            write("all", [{"topic": "a", "permission": "allow"}, {"topic": topic, "permission": "deny"}])
    assert sent(broker) == []


@pytest.mark.parametrize("version", [V5])
def test_a_topic_taken_as_it_is_may_look_like_a_placeholder(broker: Any, hook: EmqxHook) -> None:
    topics = ["eq d/%c", "eq d/${client_id}"]
    hook.set_acl_rules("all", [{"topic": topic, "permission": "deny"} for topic in topics])
    assert [rule["topic"] for rule in broker.acl_rules("all")] == topics


@pytest.mark.parametrize("topic", ["eq a/#", "d/dev-${clientid}", "${client_attrs.group}/#"])
def test_a_topic_of_an_acl_rule_that_emqx_4_would_take_literally_is_refused_there(
    broker: Any, hook: EmqxHook, version: str, topic: str
) -> None:
    rules = [{"topic": "a", "permission": "allow"}, {"topic": topic, "permission": "deny"}]
    if version == V4:
        with pytest.raises(EmqxUnsupportedError, match="for plain text"):
            hook.set_acl_rules("all", rules)
        assert sent(broker) == []
    else:
        hook.set_acl_rules("all", rules)
        assert [rule["topic"] for rule in hook.list_acl_rules("all")] == ["a", topic]


@pytest.mark.parametrize("version", [V4])
@pytest.mark.parametrize("topic", [".", "..", "x" * 8_000])
def test_a_rule_that_emqx_4_would_store_and_never_delete_is_refused_before_anything_is_sent(
    broker: Any, hook: EmqxHook, topic: str
) -> None:
    rules = [{"topic": "a", "permission": "allow"}, {"topic": topic, "permission": "deny"}]
    for write in (hook.set_acl_rules, hook.add_acl_rules):
        with pytest.raises(EmqxUnsupportedError, match="cannot delete the ACL rule"):
            write("username:alice", rules)
    assert sent(broker) == []


@pytest.mark.parametrize("version", [V4])
def test_a_rule_of_somebody_else_that_cannot_be_deleted_leaves_all_rules_as_they_are(
    broker: Any, hook: EmqxHook
) -> None:
    # the broker lists the newest first: the one that fails comes last, and its name sorts so, too
    for topic in ("x" * 8_000, "a", "b"):
        rule = {"username": "alice", "topic": topic, "action": "pub", "access": "deny"}
        hook.request("POST", "/acl", json=rule)
    before = broker.acl_rules("username", "alice")
    for write in (
        lambda: hook.delete_acl_rules("username:alice"),
        lambda: hook.set_acl_rules("username:alice", [{"topic": "c", "permission": "allow"}]),
    ):
        with pytest.raises(EmqxUnsupportedError):
            write()
    assert broker.acl_rules("username", "alice") == before


@pytest.mark.parametrize("version", [V4])
def test_old_literal_rules_of_emqx_4_can_still_be_deleted(broker: Any, hook: EmqxHook, version: str) -> None:
    for topic in ("eq a/#", "d/${clientid}"):
        row = {"topic": topic, "action": "pub", "access": "allow"}
        hook.request("POST", "/acl", json=row)
    assert len(hook.list_acl_rules("all")) == 2
    hook.delete_acl_rules("all")
    assert broker.acl_rules("all") == []


@pytest.mark.parametrize("version", [V4, V5, "6.0.2", "serverless"])
def test_a_namespace_that_the_broker_would_ignore_is_refused(
    broker: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.add_user("of-all", "p")
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(namespace="ns1")))
    with EmqxHook() as hook:
        for call in (lambda: hook.delete_user("of-all"), lambda: list(hook.list_users())):
            with pytest.raises(
                EmqxUnsupportedError, match="namespace 'ns1' needs EMQX 6.1 or newer; this is"
            ):
                call()
        works, said = hook.test_connection()
    assert not works
    assert "namespace 'ns1'" in said
    assert list(broker.users) == ["of-all"]


def test_a_namespace_on_a_broker_of_unknown_version_needs_it_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx("6.1.0") as broker:
        broker.add_key("few", "secret", allow=lambda method, path: "nodes" not in path)
        asked = {**broker.connection(namespace="ns1"), "login": "few"}
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(asked))
        with EmqxHook() as hook, pytest.raises(EmqxUnsupportedError, match="state its version"):
            hook.get_user("u")
        asked["extra"] = {"namespace": "ns1", "emqx_version": "6.1.0"}
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(asked))
        with EmqxHook() as hook:
            hook.create_user("u", "p")
            assert hook.get_user("u") == {"user_id": "u", "is_superuser": False}
        assert not broker.users


@pytest.mark.parametrize("version", ["6.1.0"])
def test_rules_of_a_namespace_are_its_own(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx(version=version) as broker:
        rule = [{"topic": "t", "permission": "deny"}]
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(namespace="ns1")))
        with EmqxHook() as hook:
            hook.set_acl_rules("clientid:d", rule)
            assert len(hook.list_acl_rules("clientid:d")) == 1
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        with EmqxHook() as hook:
            assert hook.list_acl_rules("clientid:d") == []


@pytest.mark.parametrize("version", ["5.9.0", "6.1.0"])
def test_the_licence_tells_when_it_ends(hook: EmqxHook, broker: Any) -> None:
    licence = hook.get_license()
    assert licence["expiry"] is False
    assert licence["expiry_at"] > datetime.now(UTC).date().isoformat()


@pytest.mark.parametrize("version", ["5.9.0", "6.3.0"])
def test_rules_limited_to_some_clients_are_others_than_rules_for_all(broker: Any, hook: EmqxHook) -> None:
    """A rule that denies guests must not pass for one that denies everybody, nor be lost beside it."""
    guests = {"topic": "#", "permission": "deny", "username_re": "^guest-"}
    near = {
        "topic": "#",
        "permission": "allow",
        "ipaddr": "10.0.0.0/8",
        "zone": "z",
        "listener": "tcp:default",
    }
    everybody = {"topic": "#", "permission": "deny"}
    hook.set_acl_rules("all", [guests, near])
    found = hook.list_acl_rules("all")
    assert [
        {name: rule.get(name) for name in given} for rule, given in zip(found, [guests, near], strict=True)
    ] == [
        guests,
        near,
    ]
    hook.set_acl_rules("all", found)
    assert hook.list_acl_rules("all") == found
    added = hook.add_acl_rules("all", [everybody], "last")
    assert added[:2] == found
    assert [rule.get("username_re") for rule in added] == ["^guest-", None, None]
    # the same one again is moved and not kept twice
    assert hook.add_acl_rules("all", [guests], "last") == [*added[1:], added[0]]


@pytest.mark.parametrize("version", ["6.3.0"])
def test_a_field_of_a_rule_that_only_the_broker_knows_survives(broker: Any, hook: EmqxHook) -> None:
    from airflow_provider_emqx.api.base import Broker, Reply
    from airflow_provider_emqx.api.generations import api_of

    new = {
        "topic": "a",
        "permission": "deny",
        "action": "all",
        "qos": [0, 1, 2],
        "retain": "all",
        "colour": "red",
    }
    operation = api_of(Broker("v5", (7, 0, 0))).acl.add("all", [{"topic": "a", "permission": "deny"}])
    next(operation)
    written = operation.send(Reply(200, {"rules": [new]}))
    assert written.json["rules"][1] == new
    assert "colour" not in written.json["rules"][0]


@pytest.mark.parametrize("version", [V4, V5])
@pytest.mark.parametrize(
    "name", ["username_re", "clientid_re", "ipaddr", "zone", "zone_re", "listener", "listener_re"]
)
def test_rules_limited_to_some_clients_are_refused_where_the_broker_cannot_limit_them(
    broker: Any, hook: EmqxHook, name: str
) -> None:
    hook.set_acl_rules("all", [{"topic": "kept", "permission": "deny"}])
    before = len(broker.requests)
    rules = [{"topic": "#", "permission": "deny", name: "x"}]
    for write in (hook.set_acl_rules, hook.add_acl_rules):
        with pytest.raises(EmqxUnsupportedError, match="limit"):
            write("all", rules)
    assert all(request.method == "GET" for request in broker.requests[before:])
    with pytest.raises(EmqxConfigError, match=f"{name} has no value"):
        hook.set_acl_rules("all", [{"topic": "#", "permission": "deny", name: ""}])


@pytest.mark.parametrize("version", ["6.1.0", "6.3.0"])
def test_rules_in_a_namespace_name_it_in_the_query_only(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = [{"topic": "t", "permission": "deny"}]
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(namespace="ns1")))
    subjects = ("username:u", "clientid:d", "all")
    with EmqxHook() as hook:
        for subject in subjects:
            hook.set_acl_rules(subject, rule)
            assert len(hook.add_acl_rules(subject, [{"topic": "u", "permission": "allow"}])) == 2
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
    with EmqxHook() as hook:
        assert [hook.list_acl_rules(subject) for subject in subjects] == [[], [], []]

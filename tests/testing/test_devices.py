from __future__ import annotations

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import call

VERSIONS = ("4.4.19", "5.8.9")


def publish(broker: FakeEmqx, topic: str, payload: str = "x", **options: object) -> int:
    path = "/mqtt/publish" if broker.version.startswith("4") else "/publish"
    return call(broker, "POST", path, {"topic": topic, "payload": payload, **options}).status


def online(broker: FakeEmqx, clientid: str) -> bool | None:
    reply = call(broker, "GET", f"/clients/{clientid}")
    if broker.version.startswith("4"):
        rows = reply.body["data"]
        return rows[0]["connected"] if rows else None
    return reply.body["connected"] if reply.status == 200 else None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("topic_filter", "topic", "arrives"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/b", "a/c", False),
    ],
)
def test_messages_reach_who_subscribed(version: str, topic_filter: str, topic: str, arrives: bool) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("d")
        broker.subscribe("d", topic_filter, qos=1)
        assert publish(broker, topic, "hello", qos=2) in ({200} if arrives or version < "5" else {202})
        received = [(message.topic, message.payload, message.qos) for message in broker.received("d")]
        assert received == ([(topic, b"hello", 1)] if arrives else [])


def test_one_member_of_a_shared_subscription_gets_each_message() -> None:
    with FakeEmqx() as broker:
        for clientid in ("a", "b", "c"):
            broker.connect(clientid)
            broker.subscribe(clientid, "$share/g/t")
        for _ in range(6):
            publish(broker, "t")
        assert [len(broker.received(clientid)) for clientid in ("a", "b", "c")] == [2, 2, 2]


@pytest.mark.parametrize("version", VERSIONS)
def test_retained_messages_wait_for_subscribers_and_an_empty_one_clears(version: str) -> None:
    with FakeEmqx(version) as broker:
        publish(broker, "state/d", "on", retain=True)
        broker.connect("d")
        broker.subscribe("d", "state/+")
        assert [(message.payload, message.retain) for message in broker.received("d")] == [(b"on", True)]
        publish(broker, "state/d", "", retain=True)
        assert "state/d" not in broker.retained


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_outlives_its_connection_and_keeps_messages(version: str) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("d", session_expiry=60)
        broker.subscribe("d", "t", qos=1)
        broker.disconnect("d")
        assert online(broker, "d") is False
        publish(broker, "t", "kept", qos=1)
        assert broker.clients["d"].mqueue[0].payload == b"kept"
        assert not broker.received("d")
        broker.connect("d", clean_start=False, session_expiry=60)
        assert [message.payload for message in broker.received("d")] == [b"kept"]
        assert online(broker, "d") is True


def test_messages_in_the_queue_are_shown() -> None:
    with FakeEmqx() as broker:
        broker.connect("d", session_expiry=60)
        broker.subscribe("d", "t", qos=1)
        broker.disconnect("d")
        for number in range(3):
            publish(broker, "t", str(number), qos=1)
        first = call(broker, "GET", "/clients/d/mqueue_messages?limit=2&payload=plain").body
        rest = call(
            broker, "GET", f"/clients/d/mqueue_messages?limit=2&position={first['meta']['position']}"
        ).body
        end = call(
            broker, "GET", f"/clients/d/mqueue_messages?limit=2&position={rest['meta']['position']}"
        ).body
        assert [row["payload"] for row in first["data"]] == ["0", "1"]
        assert [row["payload"] for row in rest["data"]] == ["Mg=="]
        assert (end["data"], end["meta"]["position"]) == ([], rest["meta"]["position"])


def test_payloads_that_make_a_page_too_large_are_left_out_and_skipped() -> None:
    with FakeEmqx() as broker:
        broker.connect("d", session_expiry=60)
        broker.subscribe("d", "t")
        broker.disconnect("d")
        for number in range(3):
            broker.publish("t", str(number) * 100)
        path = "/clients/d/mqueue_messages?payload=plain&max_payload_bytes=200"
        page = call(broker, "GET", path).body
        assert [row["payload"][0] for row in page["data"]] == ["0", "1"]
        assert call(broker, "GET", f"{path}&position={page['meta']['position']}").body["data"] == []
        last = page["data"][-1]
        rest = call(broker, "GET", f"{path}&position={last['inserted_at']}_{last['mqueue_priority']}").body
        assert [row["payload"][0] for row in rest["data"]] == ["2"]
        assert call(broker, "GET", f"{path}&position=here").body["code"] == "INVALID_PARAMETER"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_ends_when_its_time_is_up(version: str) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("d", session_expiry=60)
        broker.disconnect("d")
        broker.advance(59)
        assert online(broker, "d") is False
        broker.advance(2)
        assert online(broker, "d") is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_of_mqtt_3_1_1_lasts_two_hours_and_says_so(version: str) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("kept", version=4, clean_start=False)
        broker.connect("clean", version=4, session_expiry=60)  # which MQTT 3.1.1 cannot ask for
        rows = {row["clientid"]: row for row in call(broker, "GET", "/clients").body["data"]}
        assert [rows[name]["expiry_interval"] for name in ("kept", "clean")] == [7200, 0]
        for name in rows:
            broker.disconnect(name)
        assert (online(broker, "kept"), online(broker, "clean")) == (False, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_clean_client_is_gone_when_it_disconnects(version: str) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("d")
        assert broker.disconnect("d")
        assert online(broker, "d") is None
        assert not broker.disconnect("d")


@pytest.mark.parametrize("version", VERSIONS)
def test_devices_come_and_go_later(version: str) -> None:
    with FakeEmqx(version) as broker:
        broker.connect_later("d", 30, username="u")
        broker.disconnect_later("d", 60)
        assert online(broker, "d") is None
        broker.advance(31)
        assert online(broker, "d") is True
        assert broker.clients["d"].username == "u"
        broker.advance(30)
        assert online(broker, "d") is None


@pytest.mark.parametrize("version", VERSIONS)
def test_what_becomes_due_does_so_at_its_own_time_however_far_the_clock_moves(version: str) -> None:
    with FakeEmqx(version) as broker:
        started = broker.now()
        broker.connect_later("d", 30, session_expiry=60)
        broker.disconnect_later("d", 40)
        broker.connect_later("e", 50)
        broker.advance(80)
        assert online(broker, "d") is False  # its session has 20 seconds left
        assert broker.clients["e"].connected_at == pytest.approx(started + 50, abs=5)
        broker.advance(3600)
        assert online(broker, "d") is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_kicked_device_may_be_back_at_once_unless_it_is_banned(version: str) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("shy")
        broker.connect("stubborn", reconnects=True)
        for clientid in ("shy", "stubborn"):
            call(broker, "DELETE", f"/clients/{clientid}")
        assert (online(broker, "shy"), online(broker, "stubborn")) == (None, True)
        call(broker, "POST", "/banned", {"as": "clientid", "who": "stubborn", "reason": "x"})
        assert online(broker, "stubborn") is None
        assert not broker.connect("stubborn")
        broker.advance(301)
        assert broker.connect("stubborn") is (version == "4.4.19")  # 5 minutes there, for ever here


@pytest.mark.parametrize(
    ("kind", "who"),
    [
        ("clientid", "d1"),
        ("username", "u1"),
        ("peerhost", "10.0.0.7"),
        ("clientid_re", "^d[0-9]$"),
        ("username_re", "^u"),
        ("peerhost_net", "10.0.0.0/8"),
    ],
)
def test_every_kind_of_ban_keeps_devices_out(kind: str, who: str) -> None:
    with FakeEmqx() as broker:
        assert call(broker, "POST", "/banned", {"as": kind, "who": who}).status == 200
        assert not broker.connect("d1", "u1", ip_address="10.0.0.7")
        assert broker.connect("other", "other", ip_address="11.0.0.7")


def test_a_wrong_password_keeps_a_device_out() -> None:
    with FakeEmqx() as broker:
        broker.add_user("u", "p")
        assert broker.connect("d", "u", "p")
        assert not broker.connect("e", "u", "wrong")
        status = call(broker, "GET", "/authentication/password_based:built_in_database/status").body
        assert (status["metrics"]["success"], status["metrics"]["failed"]) == (1, 1)


def test_delayed_messages_are_listed_and_come_when_they_are_due() -> None:
    with FakeEmqx() as broker:
        broker.connect("d")
        broker.subscribe("d", "t")
        assert publish(broker, "$delayed/30/t", "late") == 202
        publish(broker, "$delayed/60/t", "never")
        waiting = call(broker, "GET", "/mqtt/delayed/messages").body["data"]
        assert [row["delayed_interval"] for row in waiting] == [30, 60]
        path = f"/mqtt/delayed/messages/{waiting[1]['node']}/{waiting[1]['msgid']}"
        assert call(broker, "GET", path).body["payload"] == "bmV2ZXI="
        publish(broker, "$delayed/60/big", "x" * 2049)
        big = call(broker, "GET", "/mqtt/delayed/messages").body["data"][-1]
        big_path = f"/mqtt/delayed/messages/{big['node']}/{big['msgid']}"
        assert call(broker, "GET", big_path).body["payload"] == "PAYLOAD_TOO_LARGE"
        assert call(broker, "DELETE", path).status == 204
        assert call(broker, "DELETE", path).body["code"] == "MESSAGE_ID_NOT_FOUND"
        broker.advance(61)
        assert [message.payload for message in broker.received("d")] == [b"late"]
        broker.forget_received("d")
        assert broker.received("d") == []


@pytest.mark.parametrize(("version", "status"), [("5.8.9", 202), ("5.9.0", 200)])
def test_what_a_delayed_publish_answers(version: str, status: int) -> None:
    with FakeEmqx(version) as broker:
        assert publish(broker, "$delayed/30/t") == status


def test_without_delayed_publish_the_topic_is_one_like_any_other() -> None:
    with FakeEmqx() as broker:
        broker.connect("d")
        broker.subscribe("d", "$delayed/#")
        assert call(broker, "PUT", "/mqtt/delayed", {"enable": "maybe"}).status == 400
        assert call(broker, "PUT", "/mqtt/delayed", {"enable": False}).body["enable"] is False
        assert publish(broker, "$delayed/30/t", "now") == 200
        assert [message.topic for message in broker.received("d")] == ["$delayed/30/t"]
        assert call(broker, "DELETE", "/mqtt/delayed/messages/a%2F%23").body["code"] == "INVALID_TOPIC_NAME"
    with FakeEmqx("4.4.19", modules=False) as broker:
        broker.connect("d")
        broker.subscribe("d", "$delayed/30/t")
        broker.publish("$delayed/30/t", "now")
        assert len(broker.received("d")) == 1


@pytest.mark.parametrize(
    "query", ["clean_start=maybe", "proto_ver=five", "ip_address=here", "_gte_mqueue_len=x"]
)
def test_v4_filters_of_the_wrong_type(query: str) -> None:
    with FakeEmqx("4.4.19") as broker:
        assert call(broker, "GET", f"/clients?{query}").body["code"] == 108


@pytest.mark.parametrize("version", VERSIONS)
def test_nodes_have_their_own_clients_and_may_stop(version: str) -> None:
    with FakeEmqx(version, nodes=["emqx@a", "emqx@b"]) as broker:
        broker.connect("d1", node="emqx@a")
        broker.connect("d2", node="emqx@b")
        path = "/nodes/emqx@b/clients" if version == "4.4.19" else "/clients?node=emqx@b"
        assert [row["clientid"] for row in call(broker, "GET", path).body["data"]] == ["d2"]
        broker.stop_node("emqx@b")
        down = call(broker, "GET", path)
        assert down.body["code"] == (101 if version == "4.4.19" else "NODE_DOWN")
        rows = call(broker, "GET", "/nodes").body
        stopped = (rows["data"] if version == "4.4.19" else rows)[1]
        assert stopped.get("name", stopped.get("node")) == "emqx@b"
        assert stopped["node_status"] == ("Stopped" if version == "4.4.19" else "stopped")
        broker.start_node("emqx@b")
        assert call(broker, "GET", path).body["data"] == []


def test_clients_by_cursor() -> None:
    with FakeEmqx("5.7.0") as broker:
        broker.connect_many(f"d{number}" for number in range(5))
        seen, cursor = [], ""
        while True:
            body = call(broker, "GET", f"/clients_v2?limit=2{cursor}").body
            seen += [row["clientid"] for row in body["data"]]
            if "cursor" not in body["meta"]:
                break
            cursor = f"&cursor={body['meta']['cursor']}"
        assert seen == ["d4", "d3", "d2", "d1", "d0"]

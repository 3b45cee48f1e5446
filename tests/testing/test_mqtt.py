"""FakeEmqx speaks MQTT as other brokers do: the same tests run against mosquitto."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.testing.state import AclRow, Ban
from tests.conftest import GENERATIONS
from tests.live.devices import eventually
from tests.mqtt.cases import *  # noqa: F403
from tests.mqtt.mosquitto import mosquitto
from tests.mqtt.peer import Peer
from tests.mqtt.world import World


@pytest.fixture(scope="module", params=[*GENERATIONS, "mosquitto"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if request.param == "mosquitto":
        with mosquitto(tmp_path_factory.mktemp("mosquitto")) as url:
            yield World("mosquitto", url)
    else:
        with FakeEmqx(request.param, log_requests=False) as broker:
            yield World("emqx", broker.mqtt_url, pass_time=broker.advance)


@pytest.fixture
def world(server: World) -> Iterator[World]:
    world = World(server.kind, server.url, pass_time=server.pass_time)
    with world.clients:
        yield world


# what only the double can be asked


@pytest.fixture(params=GENERATIONS)
def broker(request: pytest.FixtureRequest) -> Iterator[FakeEmqx]:
    with FakeEmqx(request.param, log_requests=False) as broker:
        yield broker


@pytest.fixture
def own(broker: FakeEmqx) -> Iterator[World]:
    world = World("emqx", broker.mqtt_url)
    with world.clients:
        yield world


def test_rules_decide_what_a_client_may_publish_and_subscribe(broker: FakeEmqx, own: World) -> None:
    broker.add_user("alice", "pw-a")
    name = own.name("device")
    if broker.state.generation == "v4":
        for topic, action, access in (
            ("secret/#", "pub", "deny"),
            ("secret/#", "sub", "deny"),
            ("own/%c", "pub", "allow"),
        ):
            broker.state.acl_rows["username", "alice", topic, action] = AclRow(
                "username", "alice", topic, action, access
            )
        broker.state.acl_rows["clientid", name, "secret/mine", "pub"] = AclRow(
            "clientid", name, "secret/mine", "pub", "allow"
        )
    else:
        broker.state.acl_users["alice"] = [
            {"topic": "own/${clientid}", "action": "publish", "permission": "allow"},
            {"topic": "secret/#", "action": "all", "permission": "deny"},
            {"topic": "eq only/+", "action": "subscribe", "permission": "deny"},
            {"topic": "once", "action": "publish", "permission": "deny", "qos": [1], "retain": "all"},
        ]
        broker.state.acl_clients[name] = [
            {"topic": "secret/mine", "action": "publish", "permission": "allow"}
        ]
    device = own.client("device", login=("alice", "pw-a"))
    watcher = own.client("watcher")
    watcher.subscribe("secret/#", 1)
    watcher.subscribe("own/#", 1)
    assert device.publish("secret/other", b"x") == 0x87
    assert device.publish("secret/mine", b"mine") == 0
    assert device.publish(f"own/{name}", b"own") == 0
    assert own.payloads(watcher) == [b"mine", b"own"]
    assert device.subscribe("secret/+") == 0x87
    assert device.subscribe("open/+") == 0
    old = own.client("old", version=4, login=("alice", "pw-a"))
    assert old.publish("secret/other", b"x") == 0  # which 3.1.1 has no code for
    assert old.subscribe("secret/+") == 0x80
    assert own.payloads(watcher) == []
    if broker.state.generation == "v5":
        assert device.subscribe("only/+") == 0x87
        assert device.subscribe("only/a") == 0
        assert (device.publish("once", b"x", 1), device.publish("once", b"x", 2)) == (0x87, 0)
        broker.users["alice"].is_superuser = True
        assert device.subscribe("secret/+") == 0


def test_the_broker_tells_who_comes_and_goes(broker: FakeEmqx, own: World) -> None:
    watcher = own.client("watcher")
    assert watcher.subscribe("$SYS/brokers/+/clients/+/connected", 1) == 1
    assert watcher.subscribe("$SYS/brokers/emqx@127.0.0.1/clients/+/disconnected", 1) == 1
    before = dict(broker.state.mqtt.metrics)
    broker.connect("dev-1", "alice", connected_at=1_700_000_000.25)
    told = watcher.receive()
    assert told.topic == "$SYS/brokers/emqx@127.0.0.1/clients/dev-1/connected"
    assert told.qos == (1 if broker.state.generation == "v4" else 0)
    content = json.loads(told.payload)
    assert (content["clientid"], content["username"], content["connected_at"]) == (
        "dev-1",
        "alice",
        1_700_000_000_250,
    )
    broker.connect("dev-1")
    assert json.loads(watcher.receive().payload)["reason"] == "discarded"
    assert watcher.receive().topic.endswith("/dev-1/connected")
    broker.state.kick("dev-1")
    told = watcher.receive()
    assert (told.topic.rpartition("/")[2], json.loads(told.payload)["reason"]) == ("disconnected", "kicked")
    broker.connect("dev-2", session_expiry=60)
    broker.disconnect("dev-2")
    watcher.receive()
    assert json.loads(watcher.receive().payload)["reason"] == "normal"
    # what it says of itself is none of its clients' messages
    assert broker.state.mqtt.metrics["messages.publish"] == before.get("messages.publish", 0)
    broker.announce_presence(False)
    broker.connect("dev-3")
    assert own.payloads(watcher) == []


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9", "6.3.0"])
def test_what_the_broker_says_of_itself_is_not_for_everybody(version: str) -> None:
    with FakeEmqx(version) as broker:
        world = World("emqx", broker.mqtt_url)
        with world.clients:
            here = world.client("here")
            # EMQX 6.3 has taken out the exception for clients on the broker's own machine
            denied = version == "6.3.0"
            topics = ["$SYS/brokers/+/clients/a/connected", "$SYS/#", "#"]
            assert [here.subscribe(topic) == 0x87 for topic in topics] == [denied] * 3
            broker.add_user("alice", "pw-a")
            with broker.state.lock:
                for client in broker.state.mqtt.clients.values():
                    client.ip_address = "192.0.2.1"
            assert [here.subscribe(topic) for topic in topics] == [0x87] * 3
            topic = "$SYS/brokers/+/clients/+/connected"
            if version == "4.4.19":
                broker.state.acl_rows["username", "alice", topic, "sub"] = AclRow(
                    "username", "alice", topic, "sub", "allow"
                )
            else:
                broker.state.acl_users["alice"] = [
                    {"topic": topic, "action": "subscribe", "permission": "allow"}
                ]
            account = world.client("account", login=("alice", "pw-a"))
            assert account.subscribe(topics[0]) == 0
            assert account.subscribe(topic) == 0


def test_who_is_not_let_in_is_told_why(broker: FakeEmqx, own: World) -> None:
    broker.add_user("alice", "pw-a")
    own.client("fine", login=("alice", "pw-a"))
    assert own.client("wrong", login=("alice", "pw-b")).code.value == 0x86
    assert own.client("nobody", login=("bob", "pw-b")).code.value == 0x87
    assert own.client("old", version=4, login=("bob", "pw-b")).code.getName() == "Not authorized"
    broker.state.ban(Ban("clientid", own.name("fine"), "me", "", broker.now(), None))
    assert own.client("fine").code.value == 0x8A


def test_a_ban_a_kick_and_a_stop_end_connections(broker: FakeEmqx, own: World) -> None:
    kicked, dropped, stopped = own.client("kicked"), own.client("dropped", expiry=60), own.client("stopped")
    broker.state.kick(own.name("kicked"))
    assert kicked.closed.wait(10)
    assert own.name("kicked") not in broker.clients
    assert broker.disconnect(own.name("dropped"))
    assert dropped.closed.wait(10)
    assert not broker.clients[own.name("dropped")].connected
    broker.stop()
    assert stopped.closed.wait(10)
    assert own.name("stopped") not in broker.clients
    broker.start()
    assert own.client("stopped").code == 0


def test_the_api_and_devices_in_memory_meet_clients_on_the_wire(broker: FakeEmqx, own: World) -> None:
    name = own.name("wired")
    wired = own.client("wired")
    assert broker.clients[name].connected
    broker.subscribe(name, "from/api", 1)
    broker.publish("from/api", "hello", 1)
    assert wired.receive().payload == b"hello"
    broker.connect("memory", on_message=lambda message: broker.reply(message, b"done", clientid="memory"))
    broker.subscribe("memory", "command", 1)
    wired.subscribe("reply", 1)
    wired.publish("command", b"do", ResponseTopic="reply", CorrelationData=b"1")
    reply = wired.receive()
    assert (reply.payload, reply.properties.CorrelationData) == (b"done", b"1")
    assert [message.payload for message in broker.received(name)] == [b"hello", b"done"]


def test_a_late_reply_comes_by_the_brokers_clock_without_a_request(broker: FakeEmqx, own: World) -> None:
    broker.connect("memory", on_message=lambda message: broker.reply(message, b"done", seconds=0.05))
    broker.subscribe("memory", "command", 1)
    asker = own.client("asker")
    asker.subscribe("reply", 1)
    asker.publish("command", b"do", ResponseTopic="reply", CorrelationData=b"1")
    assert asker.receive().payload == b"done"


def test_a_session_expires(broker: FakeEmqx, own: World) -> None:
    def leave(name: str, **options: Any) -> None:
        own.client(name, clean=False, **options).close()
        assert eventually(lambda: not broker.clients[own.name(name)].connected)

    leave("here", expiry=30)
    leave("old", version=4)
    broker.advance(60)
    assert own.name("here") not in broker.clients
    assert own.client("old", version=4, clean=False).resumed
    leave("old", version=4)
    broker.advance(7201)
    assert own.name("old") not in broker.clients


def test_a_queue_that_is_full_drops_its_oldest_messages(broker: FakeEmqx, own: World) -> None:
    here = own.client("here", clean=False, expiry=60)
    here.subscribe("a", 1)
    here.close()
    assert eventually(lambda: not broker.clients[own.name("here")].connected)
    for number in range(1005):
        broker.publish("a", str(number), 1)
    again = own.client("here", clean=False)
    assert [int(again.receive().payload) for _ in range(1000)] == list(range(5, 1005))


def test_an_empty_client_id_is_replaced(broker: FakeEmqx) -> None:
    five = Peer(broker.mqtt_url, "")
    assert five.granted.AssignedClientIdentifier in broker.clients
    five.close()
    old = Peer(broker.mqtt_url, "", version=4)
    assert old.code == 0
    old.close()


def test_clients_connect_over_websocket(broker: FakeEmqx) -> None:
    world = World("emqx", broker.ws_url)
    with world.clients:
        here, there = world.client("here", will=("gone", b"bye", {})), world.client("there", version=4)
        here.subscribe("a", 1)
        there.publish("a", b"x" * 100_000)
        assert here.receive().payload == b"x" * 100_000
        there.subscribe("gone")
        here.drop()
        assert there.receive().payload == b"bye"


CONNECT = bytes.fromhex("10 0e 0004 4d515454 05 02 0000 00 0001 61")


def talk(broker: FakeEmqx, *packets: bytes) -> bytes:
    """Send bytes, and return what comes until the broker hangs up."""
    with socket.create_connection(("127.0.0.1", broker.mqtt_port), 10) as connection:
        connection.sendall(b"".join(packets))
        found = b""
        while part := connection.recv(4096):
            found += part
        return found


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        ("3000", 0x81),  # PUBLISH without a topic
        ("30 04 0001 61 01", 0x81),  # properties longer than the packet
        ("30 04 0000 00 78", 0x90),  # no topic and no alias
        ("30 05 0001 2b 00 78", 0x90),  # wildcard
        ("30 07 0001 61 03 23 0000", 0x94),  # alias 0
        ("36 05 0001 61 0001", 0x81),  # QoS 3
        ("32 07 0001 61 0000 00 78", 0x81),  # packet identifier 0
        ("82 03 0001 00", 0x82),  # SUBSCRIBE to nothing
        ("80 07 0001 00 0001 61 00", 0x81),  # wrong flags
        ("82 08 0001 00 0002 c328 00", 0x81),  # no UTF-8
        ("30 ffffffff 7f", 0x81),  # endless length
        ("30 ffffff7f", 0x95),  # too long
        ("f000", 0x81),  # no such packet
        (CONNECT.hex(), 0x82),
    ],
)
def test_what_is_no_mqtt_ends_the_connection(broker: FakeEmqx, packet: str, reason: int) -> None:
    found = talk(broker, CONNECT, bytes.fromhex(packet))
    assert found[-4:] == bytes([0xE0, 2, reason, 0])
    assert found[0] == 0x20
    assert "a" not in broker.clients


def test_only_mqtt_that_is_known_gets_in(broker: FakeEmqx) -> None:
    assert talk(broker, bytes.fromhex("10 0e 0004 4d515454 07 02 0000 00 0001 61")) == bytes.fromhex(
        "20020001"
    )
    assert talk(broker, b"GET / HTTP/1.1\r\n\r\n") == b""
    assert talk(broker, bytes.fromhex("c000")) == b""


@given(st.lists(st.binary(max_size=40), max_size=3), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_harm_the_broker(fuzzed: FakeEmqx, parts: list[bytes], connected: bool) -> None:
    with socket.create_connection(("127.0.0.1", fuzzed.mqtt_port), 10) as connection:
        connection.sendall((CONNECT if connected else b"") + b"".join(parts))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert "a" not in fuzzed.clients


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[FakeEmqx]:
    with FakeEmqx(log_requests=False) as broker:
        yield broker


def test_a_topic_alias_stands_for_its_topic(broker: FakeEmqx, own: World) -> None:
    here = own.client("here")
    here.subscribe("long/topic", 0)
    first = bytes.fromhex("30 11 000a 6c6f6e672f746f706963 03 23 0007 78".replace(" ", ""))
    second = bytes.fromhex("30 07 0000 03 23 0007 79")
    talk(broker, CONNECT, first, second, bytes.fromhex("e000"))
    assert [here.receive().payload, here.receive().payload] == [b"x", b"y"]


def test_a_message_of_quality_2_that_is_sent_twice_is_delivered_once(broker: FakeEmqx, own: World) -> None:
    here = own.client("here")
    here.subscribe("a", 2)
    publish = bytes.fromhex("34 07 0001 61 0001 00 78")
    found = talk(
        broker,
        CONNECT,
        publish,
        b"\x3c" + publish[1:],
        *map(bytes.fromhex, ("62 02 0001", "62 02 0001", "e000")),
    )
    assert found.endswith(bytes.fromhex("50 02 0001  50 03 0001 91  70 02 0001  70 03 0001 92"))
    assert own.payloads(here) == [b"x"]


def test_a_client_that_is_silent_for_too_long_is_taken_for_lost(broker: FakeEmqx) -> None:
    silent = CONNECT[:10] + b"\x00\x01" + CONNECT[12:]  # keep alive of a second, the shortest that there is
    assert talk(broker, silent)[-4:] == bytes([0xE0, 2, 0x8D, 0])

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport.mqtt import IN_FLIGHT, MqttClient, Outgoing
from airflow_provider_emqx.transport.settings import MqttSettings
from tests.faults.certificates import Authority
from tests.live.devices import eventually
from tests.mqtt.mosquitto import mosquitto
from tests.mqtt.tls import tls_before

PASSWORD = "pw-that-nobody-may-see"


def settings(broker: FakeEmqx, **more: Any) -> MqttSettings:
    return MqttSettings(**{"host": "127.0.0.1", "port": broker.mqtt_port, "read_timeout": 10.0, **more})


def test_a_command_is_answered(broker: FakeEmqx) -> None:
    broker.connect("device", on_message=lambda message: broker.reply(message, b"done"))
    broker.subscribe("device", "command", 1)

    async def main() -> None:
        async with MqttClient(settings(broker), "asker") as client:
            assert not client.resumed
            await client.subscribe(["reply/+", "other"])
            assert await client.publish("command", b"do", response_topic="reply/1", correlation_data=b"\xff1")
            message = await client.receive()
            assert (message.topic, message.payload, message.correlation_data) == (
                "reply/1",
                b"done",
                b"\xff1",
            )
            assert (message.qos, message.retain, message.duplicate) == (1, False, False)
            client.acknowledge(message)
            assert await client.publish("nobody", b"x") is False
            assert await client.publish("nobody", b"x", qos=0)
        assert eventually(lambda: "asker" not in broker.clients)

    asyncio.run(main())
    assert broker.received("device")[0].properties == {
        "response_topic": "reply/1",
        "correlation_data": b"\xff1",
    }


def test_whoever_has_unsubscribed_hears_nothing_more(broker: FakeEmqx) -> None:
    async def main() -> list[str]:
        async with MqttClient(settings(broker), "here") as client:
            topics = [f"t/{number}" for number in range(150)]
            await client.subscribe([*topics, "fence"])
            await client.unsubscribe([*topics, "never"])
            broker.publish("t/149", b"x")
            broker.publish("fence", b"x")
            return [(await client.receive()).topic]

    assert asyncio.run(main()) == ["fence"]


@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss", "mqtt"])
def test_every_way_to_the_broker_is_the_same(
    broker: FakeEmqx, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    behind = broker.port if scheme.startswith("ws") else broker.mqtt_port
    with tls_before(behind, authority.server()) as port:
        where = port if scheme.endswith("s") and scheme != "ws" else behind
        url = f"{scheme}://127.0.0.1:{where}"
        connection = broker.connection(mqtt_url=url, verify=str(authority.file))
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))

        async def main() -> None:
            async with EmqxHook().mqtt() as client:
                await client.subscribe(["loop/#"])
                # larger than one TLS record and than a socket's buffer
                payloads = [bytes([number]) * 300_000 for number in range(3)] + [b""] * 50
                for payload in payloads:
                    await client.publish("loop/a", payload)
                found = []
                for _ in payloads:
                    message = await client.receive()
                    client.acknowledge(message)
                    found.append(message.payload)
                assert found == payloads

        asyncio.run(main())
        works, said = EmqxHook().test_connection()
        assert works
        path = "/mqtt" if scheme.startswith("ws") else ""
        assert said.splitlines()[1:] == [f"MQTT 5 at {url}{path}"]


def test_a_certificate_that_does_not_verify_is_no_matter_of_patience(
    broker: FakeEmqx, tmp_path: Path
) -> None:
    with tls_before(broker.mqtt_port, Authority(tmp_path).server()) as port:
        for host, verify, why in (
            ("127.0.0.1", True, "local issuer"),
            ("localhost", str(Authority(tmp_path, "another").file), "certificate"),
        ):
            with pytest.raises(errors.EmqxConnectionError, match=why) as caught:
                asyncio.run(connect(settings(broker, host=host, port=port, tls=True, verify=verify)))
            assert not caught.value.transient
        asyncio.run(connect(settings(broker, port=port, tls=True, verify=False)))


async def connect(given: MqttSettings) -> None:
    async with MqttClient(given, "somebody"):
        pass


def test_who_is_not_let_in_is_told_so_without_the_password(broker: FakeEmqx) -> None:
    broker.add_user("alice", "right")
    asyncio.run(connect(settings(broker, username="alice", password="right")))
    for username in ("alice", "bob"):
        with pytest.raises(errors.EmqxAuthError, match="MQTT username") as caught:
            asyncio.run(connect(settings(broker, username=username, password=PASSWORD)))
        assert PASSWORD not in repr(caught.value) + str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert PASSWORD not in repr(settings(broker, password=PASSWORD))


def test_what_the_account_may_not_do_names_the_topic(version: str, broker: FakeEmqx) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules(
            {"clientid": "asker"}, [{"topic": "secret/#", "permission": "deny", "action": "all"}]
        )

    async def main() -> None:
        async with MqttClient(settings(broker), "asker") as client:
            with pytest.raises(errors.EmqxForbiddenError, match=r"SUBSCRIBE secret/\+.*ACL rule"):
                await client.subscribe(["open", "secret/+"])
            with pytest.raises(errors.EmqxForbiddenError, match="PUBLISH secret/a.*0x87"):
                await client.publish("secret/a", b"x")

    asyncio.run(main())


def test_bad_input_is_refused_before_anything_is_sent(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with MqttClient(settings(broker), "asker") as client:
            for topic in ("a/+", "a/#", ""):
                with pytest.raises(errors.EmqxConfigError):
                    await client.publish(topic, b"x")
            with pytest.raises(errors.EmqxConfigError):
                await client.subscribe(["a/#/b"])
            with pytest.raises(errors.EmqxConfigError, match="takes at most 1,048,576"):
                await client.publish("a", b"x" * 1_048_570)
        async with MqttClient(settings(broker, read_only=True), "asker") as client:
            with pytest.raises(errors.EmqxConfigError, match="read-only"):
                await client.publish("a", b"x")

    asyncio.run(main())
    assert broker.state.mqtt.metrics["messages.publish"] == 0


def test_no_broker_no_name_no_answer_and_no_mqtt_are_told_apart(broker: FakeEmqx) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(errors.EmqxTimeoutError, match="no answer from mqtt://127.0.0.1"):
            asyncio.run(connect(settings(broker, port=port, read_timeout=0.1)))
        with pytest.raises(errors.EmqxTimeoutError, match="no connection to mqtts://127.0.0.1"):
            asyncio.run(connect(settings(broker, port=port, tls=True, connect_timeout=0.1)))
    with pytest.raises(errors.EmqxConnectionError, match="no connection to mqtt://127.0.0.1:.*refused"):
        asyncio.run(connect(settings(broker, port=port)))
    with pytest.raises(errors.EmqxConnectionError, match="no connection to mqtt://no-such-host.invalid"):
        asyncio.run(connect(settings(broker, host="no-such-host.invalid")))
    with pytest.raises(errors.EmqxConnectionError):
        asyncio.run(connect(settings(broker, port=broker.port)))
    with pytest.raises(errors.EmqxConnectionError):
        asyncio.run(connect(settings(broker, path="/mqtt")))


def test_a_broken_connection_leaves_what_was_not_acknowledged_unknown(broker: FakeEmqx) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"asker")
        writer.write(bytes.fromhex("2003000000"))
        # it hangs up when it has the message, and acknowledges nothing
        await reader.readuntil(b"command")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with (
            server,
            MqttClient(settings(broker, port=server.sockets[0].getsockname()[1]), "asker") as client,
        ):
            with pytest.raises(errors.EmqxOutcomeUnknownError, match="PUBLISH command"):
                await client.publish("command", b"do")
            with pytest.raises(errors.EmqxConnectionError, match="has ended the connection"):
                await client.receive()
            with pytest.raises(errors.EmqxConnectionError):
                await client.publish("command", b"do")
            with pytest.raises(errors.EmqxConnectionError):
                await client.subscribe(["a"])

    asyncio.run(main())


def test_a_connection_that_breaks_under_a_message_is_known_at_once(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with MqttClient(settings(broker, read_timeout=600.0), "asker") as client:
            client._socket.shutdown(socket.SHUT_RDWR)
            with pytest.raises(errors.EmqxOutcomeUnknownError, match="PUBLISH command"):
                await client.publish("command", b"do")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_whoever_waits_for_others_to_be_acknowledged_learns_that_the_connection_broke(
    broker: FakeEmqx,
) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"asker")
        # CONNACK: one message at a time
        writer.write(bytes.fromhex("2006000003210001"))
        await reader.readuntil(b"command")
        await asyncio.sleep(0.1)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        given = settings(broker, port=server.sockets[0].getsockname()[1], read_timeout=600.0)
        async with server, MqttClient(given, "asker") as client:
            told = await asyncio.gather(
                *(client.publish("command", b"do") for _ in range(20)), return_exceptions=True
            )
            assert [type(one) for one in told] == [
                errors.EmqxOutcomeUnknownError,
                *[errors.EmqxConnectionError] * 19,
            ]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_one_message_that_cannot_be_sent_costs_the_others_nothing(broker: FakeEmqx) -> None:
    broker.connect("device")
    broker.subscribe("device", "a/#", 1)

    async def main() -> list[Any]:
        async with MqttClient(settings(broker), "asker") as client:
            topics = ["a/1", "a/+", "nobody", "a/2"]
            messages = [Outgoing(topic, b"x") for topic in topics] + [Outgoing("a/3", b"x" * 2_000_000)]
            return await client.publish_all(messages)

    told = asyncio.run(main())
    assert [type(one) if isinstance(one, Exception) else one for one in told] == [
        True,
        errors.EmqxConfigError,
        False,
        True,
        errors.EmqxConfigError,
    ]
    assert [message.topic for message in broker.received("device")] == ["a/1", "a/2"]


def test_a_session_goes_on_in_another_process(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with MqttClient(settings(broker), "asker", session_expiry=60) as client:
            await client.subscribe(["a"])
        for number in range(3):
            broker.publish("a", str(number), 1)
        async with MqttClient(settings(broker), "asker", clean_start=False, session_expiry=60) as client:
            assert client.resumed
            first = await client.receive()
            await client.receive()
            client.acknowledge(first)
        async with MqttClient(settings(broker), "asker", clean_start=False) as client:
            again = await client.receive()
            assert (again.payload, again.duplicate) == (b"1", True)
        assert eventually(lambda: "asker" not in broker.clients)

    asyncio.run(main())


def test_many_messages_are_on_their_way_at_once_and_not_too_many(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with MqttClient(settings(broker), "asker") as client:
            await client.subscribe(["many"])
            answers = await asyncio.gather(
                *(client.publish("many", b"%d" % n) for n in range(10 * IN_FLIGHT))
            )
            assert all(answers)
            found = set()
            for _ in range(10 * IN_FLIGHT):
                message = await client.receive()
                client.acknowledge(message)
                found.add(int(message.payload))
            assert found == set(range(10 * IN_FLIGHT))

    asyncio.run(main())


def test_a_cancelled_connect_leaves_no_connection(broker: FakeEmqx) -> None:
    async def main() -> None:
        for _ in range(20):
            task = asyncio.create_task(connect(settings(broker)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await connect(settings(broker))

    asyncio.run(main())


def test_mosquitto_is_spoken_to_the_same_way(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as url:
        given = MqttSettings("127.0.0.1", int(url.rsplit(":", 1)[1]))

        async def main() -> None:
            async with MqttClient(given, "asker", session_expiry=60) as client:
                await client.subscribe(["loop"])
                assert await client.publish("loop", b"x", correlation_data=b"1")
                message = await client.receive()
                client.acknowledge(message)
                assert (message.payload, message.correlation_data) == (b"x", b"1")
                assert not await client.publish("nobody", b"x")
                with pytest.raises(errors.EmqxForbiddenError):
                    await client.publish("forbidden/a", b"x")

        asyncio.run(main())


def test_without_the_library_the_error_names_the_extra(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(errors.EmqxConfigError, match=r"airflow-provider-emqx\[mqtt\]"):
        asyncio.run(connect(settings(broker)))


def test_without_an_address_the_error_asks_for_it(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with EmqxHook().mqtt():
            pass

    with pytest.raises(errors.EmqxConfigError, match="has no MQTT address"):
        asyncio.run(main())

"""Messages that start DAGs: none is lost between broker and Airflow, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import mqtt
from airflow_provider_emqx.triggers import messages
from airflow_provider_emqx.triggers.messages import EmqxMessageTrigger
from tests.live.devices import eventually
from tests.mqtt.brokers import any_broker, connected_fake
from tests.mqtt.peer import Peer
from tests.needs import needs, older

SECRET = "payload-that-nobody-may-see"
SHARED = not older("apache-airflow", "3.3")


@pytest.fixture(params=["4.4.19", "5.8.9", "mosquitto"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an MQTT broker of each kind, which the connection ``emqx_default`` leads to."""
    with any_broker(version, tmp_path, monkeypatch) as address:
        yield address


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    """A broker that the test does things to."""
    with connected_fake(monkeypatch) as broker:
        yield broker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries nothing is learnt from waiting."""
    monkeypatch.setattr("airflow_provider_emqx.messages.feed._LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(messages, "HANDED_OVER", 0.01)


class Triggerer:
    """
    What Airflow's triggerer does with a watcher: it reads its events, stores them, and says so.

    :param trigger: as the DAG has it.
    :param stores: whether events are stored.
    """

    def __init__(self, trigger: EmqxMessageTrigger, stores: bool = True) -> None:
        path, arguments = trigger.serialize()
        assert path == "airflow_provider_emqx.triggers.messages.EmqxMessageTrigger"
        self.trigger = EmqxMessageTrigger(**json.loads(json.dumps(arguments)))
        assert self.trigger.serialize() == trigger.serialize()
        self.stores = stores
        self.events: list[dict[str, Any]] = []
        self.stored: list[dict[str, Any]] = []

    async def work(self) -> None:
        if SHARED:
            await self._work_shared()
        else:
            async for event in self.trigger.run():
                self._take(event.payload)

    async def _work_shared(self) -> None:
        from airflow.triggers.shared_stream import SharedStreamManager

        manager = SharedStreamManager(ack_timeout=30)
        key = self.trigger.shared_stream_key()
        stream = manager.subscribe(trigger_id=1, trigger=self.trigger, key=key)
        try:
            async for event in self.trigger.filter_shared_stream(stream):
                seq = manager.bind_pending_event(trigger_id=1, key=key)
                assert seq is not None
                self._take(event.payload)
                if self.stores:
                    asyncio.get_running_loop().call_later(0.01, manager.confirm_persisted, [seq])
        finally:
            await manager.unsubscribe(1, key)

    def _take(self, payload: dict[str, Any]) -> None:
        self.events.append(payload)
        if self.stores:
            self.stored.append(payload)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the end of the ``with`` statement, or die there."""
        task = asyncio.create_task(self.work())
        try:
            yield
            assert not task.done(), task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def topics(self) -> list[str]:
        return [message["topic"] for event in self.stored for message in event["messages"]]


async def until(holds: Callable[[], object]) -> None:
    assert await asyncio.to_thread(eventually, holds)


async def send(url: str, *sent: tuple[str, Any], qos: int = 1) -> None:
    """Publish over MQTT once somebody has subscribed."""

    def publish() -> None:
        peer = Peer(url, "sender")
        for topic, payload in sent:
            data = payload if isinstance(payload, bytes) else str(payload).encode()
            assert eventually(lambda topic=topic, data=data: peer.publish(topic, data, qos) == 0)
        peer.close()

    await asyncio.to_thread(publish)


def subscribed(fake: FakeEmqx) -> bool:
    return any(client.connected and client.subscriptions for client in fake.clients.values())


# ------------------------------------------------------------------ events


def test_messages_become_events(url: str) -> None:
    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="devices/+/done"))
        async with triggerer.running():
            await send(url, ("devices/1/done", "x"), ("devices/2/done", b"\xff"))
            await until(lambda: len(triggerer.topics()) == 2)
        assert triggerer.topics() == ["devices/1/done", "devices/2/done"]
        first = triggerer.events[0]
        assert (first["event"], first["passed_over"]) == ("messages", 0)
        assert first["emqx_conn_id"] == "emqx_default"
        assert first["messages"][0] == {
            "topic": "devices/1/done",
            "qos": 1,
            "retained": False,
            "size": 1,
        }
        assert [event["count"] for event in triggerer.events] == [
            len(event["messages"]) for event in triggerer.events
        ]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "others", "awaited"),
    [
        ({"payload": "done"}, ["undone", b"\xff"], "done"),
        ({"json_field": "ok", "json_value": True}, ["{", '{"ok": 0}'], '{"ok": true}'),
        ({"json_field": "t", "threshold": 80, "comparison": "<="}, ['{"t": 81}', "8"], '{"t": 79.5}'),
    ],
)
def test_only_messages_with_the_content_become_events(
    url: str, arguments: dict[str, Any], others: list[Any], awaited: str
) -> None:
    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/#", keep_payload=True, **arguments))
        async with triggerer.running():
            await send(url, *(("a/other", one) for one in others), ("a/awaited", awaited))
            await until(triggerer.topics)
        assert triggerer.topics() == ["a/awaited"]
        assert triggerer.events[0]["messages"][0]["payload"] == awaited

    asyncio.run(main())


def test_a_shared_subscription_divides_the_messages_among_watchers(url: str) -> None:
    async def main() -> None:
        watchers = [
            Triggerer(EmqxMessageTrigger(topic="$share/airflow/jobs/+", clientid=f"watcher-{number}"))
            for number in range(2)
        ]
        async with watchers[0].running(), watchers[1].running():
            await send(url, *((f"jobs/{number}", "x") for number in range(60)))
            await until(lambda: sum(len(each.topics()) for each in watchers) >= 60)
        shares = [set(watcher.topics()) for watcher in watchers]
        assert shares[0] | shares[1] == {f"jobs/{number}" for number in range(60)}

    asyncio.run(main())


@pytest.mark.parametrize("retained", [True, False])
def test_retained_messages_count_if_they_are_to(url: str, retained: bool) -> None:
    async def main() -> None:
        device = await asyncio.to_thread(Peer, url, "device")
        device.publish("r/1", b"on", 1, retain=True)
        try:
            triggerer = Triggerer(EmqxMessageTrigger(topic="r/+", retained=retained))
            async with triggerer.running():
                await send(url, ("r/2", "x"))
                await until(lambda: "r/2" in triggerer.topics())
            assert triggerer.topics() == (["r/1", "r/2"] if retained else ["r/2"])
        finally:
            device.publish("r/1", b"", 1, retain=True)
            device.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"topic": "$share/group"}, "not a shared subscription"),
        ({"topic": "$share/group/a", "retained": True}, "gets no retained messages"),
        ({"topic": "a", "batch_size": 0}, "batch_size"),
        ({"topic": "a", "session_expiry": 0}, "session_expiry"),
        ({"topic": "a", "clientid": ""}, "clientid"),
        ({"topic": "a", "json_value": 1}, "json_value needs json_field"),
    ],
)
def test_invalid_arguments_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(EmqxConfigError, match=words):
        EmqxMessageTrigger(**arguments)


def test_equal_watchers_are_one_and_others_are_not() -> None:
    """Airflow knows a watcher by its arguments, and shares the stream of those with an equal key."""
    one = EmqxMessageTrigger(topic="a")
    key, session = one.shared_stream_key(), one.feed()._clientid
    assert EmqxMessageTrigger(topic="a").shared_stream_key() == key
    for more in ({"payload": "x"}, {"threshold": 1}, {"retained": True}, {"emqx_conn_id": "other"}):
        other = EmqxMessageTrigger(topic="a", **more)
        assert other.shared_stream_key() != key
        assert other.feed()._clientid != session
    given = EmqxMessageTrigger(topic="a", clientid="mine", batch_size=7)
    assert given.feed()._clientid == "mine"


# ------------------------------------------------------------------ none is lost


def test_messages_are_kept_while_no_triggerer_runs(url: str) -> None:
    async def main() -> None:
        trigger = EmqxMessageTrigger(topic="a/+")
        first = Triggerer(trigger)
        async with first.running():
            await send(url, ("a/0", "x"))
            await until(first.topics)
            await asyncio.sleep(0.1)  # the confirmation is on its way to the broker
        await send(url, *((f"a/{number}", "x") for number in range(1, 50)))
        second = Triggerer(trigger)
        async with second.running():
            await until(lambda: len(second.topics()) >= 49)
        assert second.topics() == [f"a/{number}" for number in range(1, 50)]

    asyncio.run(main())


@needs("apache-airflow", "3.3", "says when it has stored an event")
def test_what_airflow_has_not_stored_comes_again(url: str) -> None:
    """The triggerer dies between delivery and storing, again and again."""

    async def main() -> None:
        trigger = EmqxMessageTrigger(topic="a/+", batch_size=5)
        for number in range(3):
            dying = Triggerer(trigger, stores=False)
            async with dying.running():
                await send(url, *((f"a/{number}-{one}", "x") for one in range(4)))
                await until(lambda dying=dying: dying.events)
        last = Triggerer(trigger)
        async with last.running():
            await until(lambda: len(last.topics()) >= 12)
            await asyncio.sleep(0.1)
        assert set(last.topics()) == {f"a/{number}-{one}" for number in range(3) for one in range(4)}
        # what was stored is not sent again
        third = Triggerer(trigger)
        async with third.running():
            await send(url, ("a/end", "x"))
            await until(third.topics)
        assert third.topics() == ["a/end"]

    asyncio.run(main())


@needs("apache-airflow", "3.3", "says when it has stored an event")
def test_the_broker_holds_messages_back_until_airflow_has_stored_the_event(fake: FakeEmqx) -> None:
    async def main() -> None:
        busy = Triggerer(EmqxMessageTrigger(topic="a/+", batch_size=25), stores=False)
        async with busy.running():
            await until(lambda: subscribed(fake))
            for number in range(500):
                fake.publish(f"a/{number}", "x", qos=1)
            [client] = fake.clients.values()
            await until(lambda: len(client.inflight) == 25 and busy.events)
            assert len(busy.events) == 1
            assert len(client.mqueue) == 475

    asyncio.run(main())


def test_ten_thousand_messages_come_in_batches(fake: FakeEmqx) -> None:
    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/+", batch_size=1_000))
        async with triggerer.running():
            await until(lambda: subscribed(fake))
            # QoS 0: the broker's queue of 1,000 does not limit them
            await asyncio.to_thread(lambda: [fake.publish(f"a/{number}", "x") for number in range(10_000)])
            await until(lambda: len(triggerer.topics()) == 10_000)
        assert triggerer.topics() == [f"a/{number}" for number in range(10_000)]
        assert 10 <= len(triggerer.events) <= 2_000
        assert max(len(json.dumps(event)) for event in triggerer.events) < 65_000

    asyncio.run(main())


# ------------------------------------------------------------------ faults


def test_a_watcher_outlives_restarts_of_the_broker(fake: FakeEmqx, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/+"))
        async with triggerer.running():
            for number in range(3):
                await until(lambda: subscribed(fake))
                fake.publish(f"a/{number}", "x", qos=1)
                await until(lambda number=number: f"a/{number}" in triggerer.topics())
                await asyncio.to_thread(fake.restart)

    asyncio.run(main())
    assert "lost the session" in caplog.text


def test_a_watcher_waits_for_a_broker_and_for_the_right_to_subscribe(
    fake: FakeEmqx, caplog: pytest.LogCaptureFixture
) -> None:
    rule = {"topic": "a/+", "permission": "deny", "action": "subscribe"}
    with EmqxHook() as hook:
        hook.set_acl_rules("all", [rule])
    fake.stop()

    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/+"))
        async with triggerer.running():
            await until(lambda: "no connection to" in caplog.text)
            await asyncio.to_thread(fake.start)
            await until(lambda: "Not authorized" in caplog.text)
            await asyncio.to_thread(allow)
            await until(lambda: subscribed(fake))
            fake.publish("a/1", "x", qos=1)
            await until(triggerer.topics)

    def allow() -> None:
        with EmqxHook() as hook:
            hook.delete_acl_rules("all")

    asyncio.run(main())


@pytest.mark.parametrize("keep_payload", [True, False])
def test_messages_that_no_event_can_hold_are_reported_and_passed_over(
    fake: FakeEmqx, caplog: pytest.LogCaptureFixture, keep_payload: bool
) -> None:
    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/#", keep_payload=keep_payload))
        async with triggerer.running():
            await until(lambda: subscribed(fake))
            fake.publish("a/before", "x", qos=1)
            for _ in range(3):
                fake.publish("a/" + "x" * 65_000, SECRET, qos=1)
            fake.publish("a/large", "y" * 10_000_000, qos=1)
            fake.publish("a/nul", "\0", qos=1)
            fake.publish("a/text", "ü" * 20_000, qos=1)
            await until(lambda: "a/text" in triggerer.topics())
            # all that was handed on or passed over is acknowledged
            await until(lambda: [client.inflight for client in fake.clients.values()] == [{}])
        assert triggerer.topics() == ["a/before", "a/large", "a/nul", "a/text"]
        assert sum(event["passed_over"] for event in triggerer.events) == 3
        assert all(len(json.dumps(event)) < 65_000 for event in triggerer.events)
        assert "\\u0000" not in json.dumps(triggerer.events)

    asyncio.run(main())
    assert "Passed over 1 messages on a/#" in caplog.text
    assert "topic is too long" in caplog.text
    assert SECRET not in caplog.text


def test_a_message_that_cannot_be_processed_holds_up_no_other(
    fake: FakeEmqx, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with it, and with this code."""
    real = messages.MessageArrived.judge

    def judge(self: Any, message: Any) -> Any:
        if message.topic == "a/poison":
            raise RuntimeError(SECRET)
        return real(self, message)

    monkeypatch.setattr(messages.MessageArrived, "judge", judge)

    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/#"))
        async with triggerer.running():
            await until(lambda: subscribed(fake))
            for topic in ("a/1", "a/poison", "a/2", "a/poison", "a/3"):
                fake.publish(topic, "x", qos=1)
            await until(lambda: "a/3" in triggerer.topics())
        assert triggerer.topics() == ["a/1", "a/2", "a/3"]
        assert sum(event["passed_over"] for event in triggerer.events) == 2

    asyncio.run(main())
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_messages_of_qos_0_that_come_too_fast_are_counted(
    fake: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_emqx.transport.mqtt._MOST_WAITING", 1_000_000)

    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/#", batch_size=1))
        async with triggerer.running():
            await until(lambda: subscribed(fake))
            for number in range(100):
                fake.publish(f"a/{number}", "x" * 100_000)
            await until(lambda: sum(each["count"] + each["passed_over"] for each in triggerer.events) == 100)
        assert triggerer.events[-1]["count"] == 1
        assert 0 < sum(event["passed_over"] for event in triggerer.events) < 95

    asyncio.run(main())


def test_no_payload_is_stored_or_logged_unasked(fake: FakeEmqx, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "airflow_provider_emqx")

    async def main() -> None:
        triggerer = Triggerer(EmqxMessageTrigger(topic="a/#", payload=SECRET))
        assert SECRET not in f"{triggerer.trigger.serialize()} {vars(triggerer.trigger)}"
        async with triggerer.running():
            await until(lambda: subscribed(fake))
            fake.publish("a/1", f"{SECRET}-1", qos=1)
            fake.publish("a/2", SECRET, qos=1)
            await until(triggerer.topics)
        assert triggerer.topics() == ["a/2"]
        assert SECRET not in json.dumps(triggerer.events)

    asyncio.run(main())
    assert SECRET not in caplog.text


def test_pauses_grow_and_end_at_their_longest() -> None:
    assert [mqtt.pause(number, 600.0) for number in (1, 2, 5, 10, 11, 10**6)] == [1, 2, 16, 512, 600, 600]

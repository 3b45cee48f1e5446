"""Waits for messages over MQTT, and watchers, in sessions of the real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

from airflow_provider_emqx.exceptions import EmqxForbiddenError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.sensors.messages import EmqxMessageSensor
from airflow_provider_emqx.triggers import messages
from airflow_provider_emqx.triggers.messages import EmqxMessageArrivedTrigger, EmqxMessageTrigger
from tests.live.devices import eventually
from tests.mqtt.peer import Peer
from tests.triggers.conftest import only_event_of

pytestmark = pytest.mark.live
CONNECTION = "emqx_messages"


class Listening:
    """
    An account, a device that logs in with it, and topics of this test.

    :param prefix: of client ids and topics, and the account's name.
    :param peer: the device.
    """

    dag_id, run_id, map_index = "live", "run", -1

    def __init__(self, prefix: str, peer: Peer) -> None:
        self.prefix, self.peer = prefix, peer
        self.task_id = prefix

    def topic(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def sensor(self, **arguments: Any) -> EmqxMessageSensor:
        given = {"topic": self.topic("+"), "timeout": 20, "emqx_conn_id": CONNECTION, **arguments}
        return EmqxMessageSensor(task_id="task", **given)

    def context(self) -> Any:
        return {"ti": self, "dag_run": None}

    def deferred(self, **arguments: Any) -> tuple[EmqxMessageSensor, EmqxMessageArrivedTrigger]:
        task = self.sensor(deferrable=True, **arguments)
        with pytest.raises(TaskDeferred) as ending:
            task.execute(self.context())
        return task, EmqxMessageArrivedTrigger(**ending.value.trigger.serialize()[1])


@pytest.fixture
def listening(
    mqtt: str, hook: EmqxHook, account: Callable[[str], tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Listening]:
    prefix, password = account("messages")
    monkeypatch.setattr(messages, "SOONEST", 0.0)
    monkeypatch.setattr(messages, "HANDED_OVER", 0.0)
    peer = Peer(mqtt, f"{prefix}-device", login=(prefix, password))
    yield Listening(prefix, peer)
    peer.close()
    # a watcher leaves its session, a wait leaves nothing
    assert eventually(
        lambda: all(row["clientid"].endswith("-watcher") for row in hook.list_clients(username=prefix))
    )
    left = [row["clientid"] for row in hook.list_clients(username=prefix)]
    if left:
        hook.kick_clients(left)
    assert eventually(lambda: not list(hook.list_clients(username=prefix)))


def test_a_wait_is_carried_from_worker_to_triggerer(listening: Listening) -> None:
    task, trigger = listening.deferred(json_field="n", threshold=2, keep_payload=True)
    for number in range(4):
        assert listening.peer.publish(listening.topic("a"), b'{"n": %d}' % number, 1) == 0
    event = asyncio.run(only_event_of(trigger))
    # not acknowledged: a triggerer that takes over finds it again
    assert asyncio.run(only_event_of(trigger)) == event
    result = task.resume_execution("execute_complete", {"event": event}, listening.context())
    assert (result["topic"], result["payload"]) == (listening.topic("a"), '{"n": 2}')
    # the session has ended with the task
    assert listening.peer.publish(listening.topic("a"), b'{"n": 9}', 1) == 0x10


def test_a_wait_on_the_worker_times_out_and_leaves_nothing(listening: Listening) -> None:
    with pytest.raises(AirflowSensorTimeout, match="0 messages"):
        listening.sensor(timeout=1).execute(listening.context())
    assert listening.peer.publish(listening.topic("a"), b"x", 1) == 0x10


@pytest.mark.parametrize("retained", [True, False])
def test_a_retained_message_counts_if_it_is_to(listening: Listening, retained: bool) -> None:
    topic = listening.topic("state")
    listening.peer.publish(topic, b"on", 1, retain=True)
    try:
        task = listening.sensor(topic=topic, retained=retained, timeout=2)
        if retained:
            assert task.execute(listening.context())["retained"] is True
        else:
            with pytest.raises(AirflowSensorTimeout):
                task.execute(listening.context())
    finally:
        listening.peer.publish(topic, b"", 1, retain=True)


def test_a_subscription_that_is_not_permitted_ends_the_wait(listening: Listening, hook: EmqxHook) -> None:
    subject = {"username": listening.prefix}
    rule = {"topic": listening.topic("secret"), "permission": "deny", "action": "subscribe"}
    hook.set_acl_rules(subject, [rule])
    try:
        with pytest.raises(EmqxForbiddenError):
            listening.sensor(topic=listening.topic("secret")).execute(listening.context())
    finally:
        hook.delete_acl_rules(subject)


def test_a_watcher_gets_again_what_was_not_acknowledged(listening: Listening) -> None:
    trigger = EmqxMessageTrigger(
        topic=f"$share/group/{listening.topic('+')}",
        emqx_conn_id=CONNECTION,
        batch_size=5,
        clientid=f"{listening.prefix}-watcher",
        session_expiry=60,
    )

    async def main() -> list[str]:
        async with aclosing(trigger.feed().batches()) as batches:
            first = asyncio.create_task(anext(batches))
            await asyncio.to_thread(
                eventually, lambda: listening.peer.publish(listening.topic("0"), b"x", 1) == 0
            )
            assert [message["topic"] for message in (await first).messages] == [listening.topic("0")]
        for number in range(1, 20):
            assert listening.peer.publish(listening.topic(str(number)), b"x", 1) == 0
        seen: list[str] = []
        async with aclosing(trigger.feed().batches()) as batches:
            async for batch in batches:
                seen += [message["topic"] for message in batch.messages]
                batch.acknowledge()
                if len(seen) >= 20:
                    return seen
        raise AssertionError("the feed ended")

    assert sorted(asyncio.run(main())) == sorted(listening.topic(str(number)) for number in range(20))

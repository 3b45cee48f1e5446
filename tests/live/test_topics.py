"""Publishing, retained messages, topic metrics."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from tests.live.devices import Device, eventually

pytestmark = pytest.mark.live


def test_a_message_that_nobody_waits_for_is_no_error(hook: EmqxHook, name: Callable[..., str]) -> None:
    [result] = hook.publish({"topic": name("/x"), "payload": "hello"})
    assert result["status"] == ("accepted" if hook.api_version == "v4" else "no_subscribers")


@pytest.mark.parametrize(
    "payload",
    ["text", "", "ä€😀", bytes(range(256)), "x" * 100_000],
    ids=["text", "empty", "utf8", "bytes", "long"],
)
def test_a_payload_arrives_as_it_was(
    hook: EmqxHook, device: Callable[..., Device], name: Callable[..., str], payload: str | bytes
) -> None:
    listener, topic = device(), name("/ä b")
    assert listener.subscribe(topic, 1)
    [result] = hook.publish({"topic": topic, "payload": payload, "qos": 1})
    assert result["status"] in ("delivered", "accepted")
    assert listener.receive() == (payload.encode() if isinstance(payload, str) else payload)


def test_messages_of_one_call_arrive_in_their_order(
    hook: EmqxHook, device: Callable[..., Device], name: Callable[..., str]
) -> None:
    listener, topic = device(), name()
    assert listener.subscribe(f"{topic}/#", 1)
    numbers = [str(number) for number in range(30)]
    hook.publish([{"topic": f"{topic}/{number}", "payload": number, "qos": 1} for number in numbers])
    assert [listener.receive().decode() for _ in numbers] == numbers


def test_a_retained_message_greets_later_subscribers_until_it_is_deleted(
    hook: EmqxHook, device: Callable[..., Device], undo: ExitStack, name: Callable[..., str]
) -> None:
    topic = name("/state")
    undo.callback(hook.delete_retained, topic)
    hook.publish({"topic": topic, "payload": "on", "retain": True})
    early = device()
    assert early.subscribe(topic)
    assert early.receive() == b"on"
    assert hook.delete_retained(topic) is not False
    late = device()
    assert late.subscribe(topic)
    hook.publish({"topic": topic, "payload": "the next one", "qos": 1})
    assert late.receive() == b"the next one"


def test_retained_messages_are_read_and_listed(
    hook: EmqxHook, retained: None, undo: ExitStack, name: Callable[..., str]
) -> None:
    base = name()
    topics = [f"{base}/1", f"{base}/ä b"]
    for topic in topics:
        undo.callback(hook.delete_retained, topic)
        hook.publish({"topic": topic, "payload": topic, "retain": True})
    assert eventually(lambda: {row["topic"] for row in hook.list_retained(f"{base}/+")} == set(topics))
    found = hook.get_retained(topics[1])
    assert found is not None
    assert base64.b64decode(found["payload"]).decode() == topics[1]
    assert hook.delete_retained(topics[1]) is True
    assert hook.get_retained(topics[1]) is None
    assert hook.delete_retained(topics[1]) is False


def test_a_measured_topic_counts(
    hook: EmqxHook, topic_metrics: None, undo: ExitStack, name: Callable[..., str]
) -> None:
    topic = name("/measured")
    undo.callback(hook.unregister_topic_metrics, topic)
    assert hook.register_topic_metrics(topic) is True
    assert topic in {row["topic"] for row in hook.list_topic_metrics()}

    def messages() -> float:
        found = hook.get_topic_metrics(topic)
        assert found is not None
        return float(found["metrics"]["messages.in.count"])

    hook.publish([{"topic": topic, "payload": str(number)} for number in range(3)])
    assert eventually(lambda: messages() == 3)
    hook.reset_topic_metrics(topic)
    assert eventually(lambda: messages() == 0)
    assert hook.unregister_topic_metrics(topic) is not False
    assert hook.get_topic_metrics(topic) is None

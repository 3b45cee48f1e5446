"""Retained messages are sent no faster than the broker stores them."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from airflow_provider_emqx.api.messages import batches, message_row, read_rate
from airflow_provider_emqx.exceptions import EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.transport.stopping import Stop


@pytest.fixture
def pauses(broker: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the hook waits; meanwhile only the broker's clock moves."""
    pauses: list[float] = []

    def sleep(stop: Stop, seconds: float) -> None:
        pauses.append(seconds)
        broker.advance(seconds)

    monkeypatch.setattr(Stop, "sleep", sleep)
    return pauses


def messages(count: int, retain: bool = True) -> list[dict[str, Any]]:
    return [{"topic": f"state/{i}", "payload": "on", "retain": retain} for i in range(count)]


def asked(broker: Any) -> int:
    """Return how often the hook asked for the limit."""
    return sum(served.path.endswith("/mqtt/retainer") for served in broker.requests)


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
@pytest.mark.parametrize(("rate", "count"), [(1_000, 4_500), (30, 100)])
def test_all_are_stored(broker: Any, pauses: list[float], rate: int, count: int) -> None:
    broker.limit_retained(rate)
    with EmqxHook() as hook:
        results = hook.publish(messages(count))
    assert {result["status"] for result in results} == {"no_subscribers"}
    assert len(broker.retained) == count
    assert count / rate - 1 < sum(pauses) < 1.2 * count / rate


@pytest.mark.parametrize("version", ["5.8.9"])
def test_calls_of_one_hook_share_the_pace(broker: Any, pauses: list[float]) -> None:
    broker.limit_retained(10)
    with EmqxHook() as hook:
        for message in messages(25):
            hook.publish(message)
        hook.publish([*messages(40)[25:], *messages(100, retain=False)])
    assert len(broker.retained) == 40
    assert asked(broker) == 1


@pytest.mark.parametrize("version", ["5.8.9"])
def test_less_than_one_in_a_second(broker: Any, pauses: list[float]) -> None:
    broker.order_fault(
        "status",
        status=200,
        body='{"max_publish_rate": "6/m"}',
        match="GET /api/v5/mqtt/retainer",
        headers={"Content-Type": "application/json"},
    )
    with EmqxHook() as hook:
        hook.publish(messages(3))
    assert [round(pause) for pause in pauses] == [10, 10]
    assert len(broker.retained) == 3


@pytest.mark.parametrize("version", ["5.8.9"])
def test_one_message_asks_for_no_limit(broker: Any, pauses: list[float]) -> None:
    with EmqxHook() as hook:
        hook.publish(messages(1))
        hook.publish(messages(50, retain=False))
    assert not asked(broker)
    assert not pauses


@pytest.mark.parametrize("version", ["4.4.19", "5.8.4", "5.8.9"])
def test_no_limit_is_no_wait(broker: Any, pauses: list[float]) -> None:
    if broker.version == "5.8.9":
        broker.limit_retained(None)
    with EmqxHook() as hook:
        hook.publish(messages(2_500))
    assert len(broker.retained) == 2_500
    assert not pauses


@pytest.mark.parametrize(("version", "role"), [("5.8.9", "publisher"), ("serverless", "administrator")])
def test_where_the_limit_cannot_be_seen_it_is_taken_to_be_the_default(
    broker: Any,
    pauses: list[float],
    role: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    broker.add_key("other", "secret", role=role)
    monkeypatch.setenv(
        "AIRFLOW_CONN_EMQX_DEFAULT",
        json.dumps({**broker.connection(), "login": "other", "password": "secret"}),
    )
    with EmqxHook() as hook:
        hook.publish(messages(1_500))
        hook.publish(messages(1_500))
    assert len(broker.retained) == 1_500
    assert len(pauses) >= 2
    assert caplog.text.count("How many messages the broker retains per second is not known") == 1


def test_a_request_has_no_more_retained_messages_than_a_second_takes() -> None:
    rows = [message_row(message) for message in messages(7)]
    rows[2:2] = [message_row(message) for message in messages(5, retain=False)]
    assert [len(part) for part in batches(rows, 3)] == [8, 3, 1]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000/s", 1_000),
        ("infinity", None),
        ("1000", 1_000),
        ("100/10s", 10),
        ("6000/m", 100),
        ("5/500ms", 10),
        ("3600/1h", 1),
    ],
)
def test_rates_are_read_as_the_broker_writes_them(text: str, rate: float | None) -> None:
    assert read_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0/s", "1MB/s", "fast", "10/", "None"])
def test_what_is_not_a_rate_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(EmqxUnsupportedError, match="not a rate"):
        read_rate(text)

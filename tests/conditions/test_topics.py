"""What is retained for a topic, and what a wait for it expects."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from airflow_provider_emqx.conditions.kinds import load
from airflow_provider_emqx.conditions.topics import MessageRetained
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx


def met(payload: str | bytes, **expected: Any) -> bool:
    """Retain a payload and look."""
    with FakeEmqx("5.8.9") as broker, pytest.MonkeyPatch.context() as patch, EmqxHook() as hook:
        patch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        broker.publish("t", payload, retain=True)
        condition = MessageRetained("t", **expected)
        return hook.run(condition.ask(hook.api, time.time())).met


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("true", True),
        ("true", "true"),
        # what a template makes of it
        ("true", "True"),
        ("false", "False"),
        ("null", "None"),
        ("null", None),
        ("7.0", "7"),
        ("7", 7.0),
        ('"7"', "7"),
        ("1.5", "1.5"),
    ],
)
def test_a_value_is_the_same_as_text(written: str, expected: Any) -> None:
    assert met(f'{{"a": {written}}}', json_field="a", json_value=expected)
    assert not met('{"a": "other"}', json_field="a", json_value=expected)


@pytest.mark.parametrize("payload", [b"[" * 200_000, b"\xff", b'{"a": '])
def test_what_a_device_retains_breaks_no_wait(payload: bytes) -> None:
    assert not met(payload, json_field="a", json_value=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"json_value": 1},
        {"payload": "x", "json_field": "a"},
        {"payload": "x", "json_value": 1},
        {"payload": 5},
    ],
)
def test_what_is_expected_must_be_told_whole(arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        load("message_retained", {"topic": "t", **arguments})


@pytest.mark.parametrize("arguments", [{"payload": "sesame"}, {"json_field": "door", "json_value": "sesame"}])
def test_a_condition_carries_digests_and_is_made_again_of_them(arguments: dict[str, Any]) -> None:
    parameters = load("message_retained", {"topic": "t", **arguments}).parameters()
    assert "sesame" not in json.dumps(parameters)
    assert load("message_retained", parameters).parameters() == parameters

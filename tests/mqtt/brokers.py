"""Brokers that the connection ``emqx_default`` leads to, with MQTT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.mqtt.mosquitto import mosquitto

TIMEOUTS = {"connect_timeout": 5, "read_timeout": 5}


@contextmanager
def any_broker(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run FakeEmqx of a version, or ``mosquitto`` beside one whose API is asked; gives the address of its MQTT."""
    with ExitStack() as stack:
        is_fake = name[0].isdecimal()
        fake = stack.enter_context(FakeEmqx(name if is_fake else "5.8.9"))
        address = fake.mqtt_url if is_fake else stack.enter_context(mosquitto(folder))
        connection = fake.connection(mqtt_url=address, **TIMEOUTS)
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
        yield address


@contextmanager
def connected_fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    """Run a broker that the test does things to."""
    with FakeEmqx("5.8.9") as broker:
        connection = broker.connection(mqtt_url=broker.mqtt_url, **TIMEOUTS)
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
        yield broker

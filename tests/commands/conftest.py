"""A fleet that answers commands, for the tests of commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.commands.fleet import Fleet


@pytest.fixture
def broker(version: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    with FakeEmqx(version=version) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection(mqtt_url=fake.mqtt_url)))
        yield fake


@pytest.fixture
def fleet(broker: FakeEmqx) -> Fleet:
    """Return a function that connects devices, which answer as a function says."""

    def connect(names: Any, answer: Any = '{"ok": true}') -> list[str]:
        clientids = [f"dev-{name}" for name in (range(names) if isinstance(names, int) else names)]
        for clientid in clientids:
            said = answer if callable(answer) else lambda message, _=clientid: broker.reply(message, answer)
            broker.connect(clientid, on_message=said)
            broker.subscribe(clientid, f"devices/{clientid}/command", 1)
        return clientids

    return connect

"""MQTT as FakeEmqx speaks it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from tests.mqtt.cases import *  # noqa: F403
from tests.mqtt.world import World

pytestmark = pytest.mark.live


@pytest.fixture
def world(
    mqtt: str, hook: EmqxHook, undo: ExitStack, name: Callable[..., str], users: None
) -> Iterator[World]:
    who, password = name("-mqtt"), secrets.token_hex(8)
    undo.callback(hook.delete_user, who)
    hook.create_user(who, password)
    world = World("emqx", mqtt, prefix=name("-w"), login=(who, password))
    with world.clients:
        yield world

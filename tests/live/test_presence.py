"""The broker announces devices that connect and disconnect, and wakes who waits for them."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.triggers import polls
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger
from tests.live.devices import PATIENCE, Device
from tests.triggers.conftest import until

pytestmark = pytest.mark.live

#: seconds between two checks of a wait, which must not end by one of them
NEVER = 3600.0


@pytest.fixture
def presence(hook: EmqxHook, acl: None, undo: ExitStack, account: Callable[[str], tuple[str, str]]) -> str:
    """An Airflow connection whose account may subscribe to announcements, as the documentation says; gives its id."""
    username, _ = account("presence")
    undo.callback(hook.delete_acl_rules, {"username": username})
    hook.set_acl_rules(
        {"username": username},
        [
            {"topic": f"$SYS/brokers/+/clients/+/{event}", "action": "subscribe", "permission": "allow"}
            for event in ("connected", "disconnected")
        ],
    )
    return "emqx_presence"


def test_a_wait_is_woken_by_the_device(
    presence: str, mqtt: str, hook: EmqxHook, undo: ExitStack, name: Callable[..., str]
) -> None:
    who, password = name("-woken"), secrets.token_hex(8)
    undo.callback(hook.delete_user, who)
    hook.create_user(who, password)

    def is_listening() -> bool:
        watches = [watch for poll in polls._polls.values() for watch in poll._watches]
        return any(watch.news and math.isfinite(watch.news.since) and watch.outcome for watch in watches)

    async def wait(kind: str, change: Callable[[], Any]) -> Any:
        trigger = EmqxConditionTrigger(
            kind=kind,
            parameters={"clientids": [who], "quorum": "all"},
            poll_interval=NEVER,
            emqx_conn_id=presence,
        )
        going = asyncio.ensure_future(anext(trigger.run()))
        try:
            # what was announced before the first check is not what the test is about
            await until(is_listening)
            await asyncio.to_thread(change)
            async with asyncio.timeout(PATIENCE):
                return (await going).payload
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)

    device = Device(mqtt, who, who, password)
    undo.callback(device.close)
    assert asyncio.run(wait("clients_online", device.connect))["details"]["online"] == 1
    assert asyncio.run(wait("clients_offline", device.close))["details"]["offline"] == 1

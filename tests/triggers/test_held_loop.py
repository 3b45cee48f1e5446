"""The event loop of a triggerer is held by whatever else runs in it; no wait may hang because of that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from asyncio import events
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger, EmqxEventTrigger
from tests.triggers.conftest import event_of

#: seconds until a wait is given up, and between two of its checks: a held loop finds both timers due at once
DEADLINE, INTERVAL = 0.2, 0.1
HOLD = 0.25
#: places of one wait at which the loop is held, of all its steps
PLACES = 24


class Steps:
    """Counts the steps of an event loop, and holds it at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.hold_at = -1
        real: Callable[[Any], None] = events.Handle._run

        def step(handle: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                # the broker's own loop
                return real(handle)
            if self.count == self.hold_at:
                # holding the loop is what the test is about
                time.sleep(HOLD)
            self.count += 1
            return real(handle)

        monkeypatch.setattr(events.Handle, "_run", step)

    def run(self, make: Callable[[], Any], hold_at: int) -> Any:
        self.count, self.hold_at = 0, hold_at
        return asyncio.run(asyncio.wait_for(make(), 10))


async def a_wait() -> Any:
    trigger = EmqxConditionTrigger(
        kind="clients_online",
        parameters={"clientids": ["nobody"]},
        poll_interval=INTERVAL,
        deadline=time.time() + DEADLINE,
    )
    return await event_of(trigger)


async def a_cancelled_wait() -> Any:
    """End a trigger twice, as Airflow may: the second time must not cut the clean-up short."""
    trigger = EmqxConditionTrigger(
        kind="cluster_healthy", parameters={"nodes": 99}, poll_interval=INTERVAL, deadline=time.time() + 60
    )
    task = asyncio.create_task(event_of(trigger))
    await asyncio.sleep(DEADLINE)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return {"status": "cancelled"}


async def a_watcher() -> Any:
    """Let a watcher make a few checks, and end it."""
    watcher = EmqxEventTrigger(event="client_online", poll_interval=INTERVAL).run()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(anext(watcher), 2 * DEADLINE)
    await watcher.aclose()
    return {"status": "ended"}


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
@pytest.mark.parametrize(
    ("make", "status"),
    [(a_wait, "timeout"), (a_cancelled_wait, "cancelled"), (a_watcher, "ended")],
    ids=["wait", "cancelled", "watcher"],
)
def test_it_ends_wherever_the_loop_is_held(
    version: str, make: Any, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEmqx(version) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        steps = Steps(monkeypatch)
        assert steps.run(make, -1)["status"] == status
        total = steps.count
        assert total > PLACES
        for place in range(PLACES):
            at = place * total // PLACES
            assert steps.run(make, at)["status"] == status, f"held at step {at} of {total}"

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange
from airflow_provider_emqx.triggers.polls import _polls


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the attempts of one exchange nothing is learnt from waiting."""
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.01)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every poll ends with its last wait."""
    yield
    assert not _polls


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Start FakeEmqx in a process of its own, so that its work does not hold our event loop; gives its address."""
    started = []

    def start(version: str, clients: int) -> str:
        command = [sys.executable, "-m", "airflow_provider_emqx.testing"]
        server = subprocess.Popen(
            [*command, "--version", version, "--clients", str(clients)], stdout=subprocess.PIPE, text=True
        )
        started.append(server)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        monkeypatch.setenv(
            "AIRFLOW_CONN_EMQX_DEFAULT",
            f'{{"conn_type": "emqx", "host": "{address}", "login": "key", "password": "secret"}}',
        )
        return address

    yield start
    for server in started:
        server.terminate()
        server.wait()


class Held:
    """The longest time for which the event loop was held, in seconds, and how many turns others got."""

    longest = 0.0
    turns = 0


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Held]:
    """
    Measure how long the loop's thread works before a coroutine gets its turn that asks for one all the time.

    Time of this thread: what else the machine does at the moment is not held against us.
    """
    held = Held()

    async def tick() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.002)
            held.longest = max(held.longest, time.thread_time() - before)
            held.turns += 1

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    held.longest = 0.0
    try:
        yield held
    finally:
        ticker.cancel()


async def event_of(trigger: Any, within: float = 30) -> Any:
    """The payload of a trigger's first event."""
    async with asyncio.timeout(within):
        events = trigger.run()
        try:
            return (await anext(events)).payload
        finally:
            await events.aclose()


async def only_event_of(trigger: Any) -> Any:
    """The payload of a trigger's event, after which it ends."""
    [payload] = [event.payload async for event in trigger.run()]
    return payload


async def until(check: Any, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 it is a thread that changes
            await asyncio.sleep(0.02)


async def looks(broker: FakeEmqx, count: int = 3) -> None:
    """Wait until so many more requests have come, and one look at the least has ended."""
    before = len(broker.requests)

    def done() -> bool:
        new = [served.path.split("?")[0] for served in broker.requests[before:]]
        # what identifies the broker is asked once
        return len(new) >= count and len(set(new)) < len(new) - 1

    await until(done)


def shift_pages(monkeypatch: pytest.MonkeyPatch, size: int, hidden: set[str], *, once: bool = False) -> None:
    """
    Let pages of clients shift while they are read: who moves to a page already read is on none.

    :param size: rows of a page.
    :param hidden: who is on no page.
    :param once: only until a listing has missed somebody.
    """
    from airflow_provider_emqx.api.base import Page
    from airflow_provider_emqx.api.v4.clients import Clients as ClientsV4
    from airflow_provider_emqx.api.v5.clients import Clients

    for each in (ClientsV4, Clients):

        def shifting(
            self: Any,
            page: int = 1,
            limit: Any = None,
            *rest: Any,
            real: Any = each.list,
            **others: Any,
        ) -> Any:
            found = yield from real(self, page, size, *rest, **others)
            rows = [row for row in found.rows if row["clientid"] not in hidden]
            if once and len(rows) < len(found.rows):
                hidden.clear()
            return Page(rows, found.next, found.key)

        monkeypatch.setattr(each, "list", shifting)

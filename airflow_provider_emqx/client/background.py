"""Runs many operations at once for callers that wait for them, in a running event loop or without one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeVar

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.client.aio import AsyncClient
from airflow_provider_emqx.client.settings import Settings
from airflow_provider_emqx.exceptions import EmqxError

T = TypeVar("T")


class Background:
    """
    An asynchronous client on an event loop in a thread of its own: the caller's may have a loop that runs already.

    :param settings: address, credentials, limits.
    :param api: the broker's operations.
    :param base: the API's path below the origin.
    """

    def __init__(self, settings: Settings, api: Api, base: str) -> None:
        self._client = AsyncClient(settings)
        self._client.adopt(api, base)
        self._stop = asyncio.Event()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(started)), name="emqx-run-many", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    def run_many(self, operations: Sequence[Operation[T]]) -> list[T | EmqxError]:
        """Run operations at once; an error stands in its result's place."""
        running = asyncio.run_coroutine_threadsafe(self._client.run_many(operations), self._loop)
        try:
            return running.result()
        except BaseException:
            # a timeout or signal of the caller: nothing more is sent
            running.cancel()
            raise

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        async with self._client:
            started.set_result(asyncio.get_running_loop())
            await self._stop.wait()

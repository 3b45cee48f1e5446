"""Runs many operations at once for callers that wait for them, in a running event loop or without one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.transport.aio import AsyncClient
from airflow_provider_emqx.transport.settings import Settings
from airflow_provider_emqx.transport.stopping import Stop

T = TypeVar("T")

#: seconds after which available results are yielded
_SOON = 0.05
#: seconds that requests under way get to be answered when the caller is interrupted
_LAST = 3.0


class Background:
    """
    An asynchronous client on an event loop in a thread of its own: the caller's may have a loop that runs already.

    :param settings: address, credentials, limits.
    :param base: the API's path below the origin.
    :param stop: asked before each operation.
    """

    def __init__(self, settings: Settings, api: Api, base: str, stop: Stop) -> None:
        self._client = AsyncClient(settings, stop=stop)
        self._client.adopt(api, base)
        self._stop = asyncio.Event()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(started)), name="emqx-run-many", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    def run_each(
        self, operations: Sequence[Operation[T]], is_last: Callable[[T | EmqxError], bool]
    ) -> Generator[tuple[int, T | EmqxError]]:
        """
        Run operations at once.

        :param operations: to be run.
        :param is_last: tells of a result whether no further operation is to begin.
        :return: an iterator over the operations' places and results, as they happen; an error stands in its result's
            place. If the caller is interrupted, it still gets what was under way, and then its exception.
        """
        batch = _Batch(operations, is_last)
        done = batch.done
        running: Future[None] | None = None
        interruption: BaseException | None = None
        try:
            running = asyncio.run_coroutine_threadsafe(self._client.run_each(batch, batch.tell), self._loop)
            while not running.done():
                wait([running], _SOON)
                while done:
                    yield done.popleft()
        except GeneratorExit:
            raise
        except BaseException as error:
            # a timeout or signal of the caller: nothing more is sent, but the results of what was sent are yielded
            batch.ended, interruption = True, error
            if running is not None:
                wait([running], _LAST)
        finally:
            if running is not None:
                running.cancel()
        while done:
            yield done.popleft()
        if interruption is not None:
            raise interruption
        if running is not None:
            running.result()

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        async with self._client:
            started.set_result(asyncio.get_running_loop())
            await self._stop.wait()


class _Batch(Generic[T]):
    """Operations that run at once, until one of their results is the last, and the results that nobody has yet."""

    def __init__(self, operations: Sequence[Operation[T]], is_last: Callable[[T | EmqxError], bool]) -> None:
        self._operations = operations
        self._is_last = is_last
        self.done: deque[tuple[int, T | EmqxError]] = deque()
        self.ended = False

    def __iter__(self) -> Iterator[Operation[T]]:
        for operation in self._operations:
            if self.ended:
                return
            yield operation

    def tell(self, index: int, result: T | EmqxError) -> None:
        self.done.append((index, result))
        self.ended = self.ended or self._is_last(result)

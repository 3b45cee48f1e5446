"""Runs a coroutine for a caller that has no event loop, or one that runs already."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Work(Generic[T]):
    """
    A coroutine in an event loop of its own thread: the caller's may have one that runs already, and a signal that ends
    the task is an exception in the caller's thread, which a loop in it would swallow.

    :param coroutine: to be run; it begins at once.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

        async def main() -> T:
            task = asyncio.create_task(coroutine)
            started.set_result((asyncio.get_running_loop(), task))
            return await task

        self._thread = ThreadPoolExecutor(1)
        self._done = self._thread.submit(asyncio.run, main())
        self._loop, self._task = started.result()

    def result(self) -> T:
        """
        Wait for the end and return the result; if the caller is interrupted meanwhile, the coroutine is cancelled.

        :raises CancelledError: if it was cancelled.
        """
        with self._thread:
            try:
                return self._done.result()
            except BaseException:
                self.cancel()
                raise

    def cancel(self) -> None:
        """Cancel the coroutine; for signal handlers and other threads too."""
        # the loop is closed where the coroutine has just ended
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)

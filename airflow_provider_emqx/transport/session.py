"""Run operations: for blocking callers, in event loops, and many at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Self, TypeGuard, TypeVar

from airflow_provider_emqx.api.base import Broker, Operation, Page, R
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxConnectionError,
    EmqxError,
    EmqxNotReadyError,
    EmqxRateLimitError,
    EmqxServerError,
    EmqxStoppedError,
)
from airflow_provider_emqx.transport.stopping import Stop

if TYPE_CHECKING:
    from airflow_provider_emqx.api.v5.api import Api
    from airflow_provider_emqx.transport.aio import AsyncClient
    from airflow_provider_emqx.transport.background import Background
    from airflow_provider_emqx.transport.settings import Settings
    from airflow_provider_emqx.transport.sync import SyncClient

T = TypeVar("T")
K = TypeVar("K")

#: up to so many operations the thread and the connections of run_many() cost more time than they save
_FEW = 8
#: operations of run_many() that are handed to the event loop at a time
_BLOCK = 1_000


class Session:
    """
    A session with one broker. The hook is one; it reads the connection.

    Everything below the hook that needs a broker takes a session.
    """

    #: table of users if the broker has two: ``"username"`` or ``"clientid"``
    user_id_type: str | None
    #: maximum requests per second, instead of the connection's
    rate_limit: float | None
    #: whether to repeat publishes that the broker could not process
    retry_unsafe: bool

    def __init__(self) -> None:
        self.stopping = Stop()
        self._client: SyncClient | None = None
        self._background: Background | None = None
        self._async_client: AsyncClient | None = None

    @property
    @abstractmethod
    def settings(self) -> Settings:
        """The validated settings of the connection."""

    @property
    def identity(self) -> dict[str, str | None]:
        """Facts that distinguish the broker, and the part of it that is meant, from others."""
        broker = self.broker
        return {
            "origin": self.settings.origin,
            "api": broker.generation,
            "authenticator": broker.authenticator,
            "user_id_type": broker.user_id_type,
            "namespace": broker.namespace,
        }

    @abstractmethod
    async def async_settings(self) -> Settings:
        """Look up the connection without blocking the event loop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def stop(self) -> None:
        """
        Send nothing more: after the request in progress every method raises
        :class:`~airflow_provider_emqx.exceptions.EmqxStoppedError`. May be called from a signal handler.
        """
        self.stopping.asked = True

    def close(self) -> None:
        """Close the session's connections. The next call opens a new one."""
        if self._background is not None:
            self._background.close()
            self._background = None
        if self._client is not None:
            self._client.close()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of :meth:`arun` and :meth:`arows`, and those of the session."""
        client, self._async_client = self._async_client, None
        if client is not None:
            await client.close()
        self.close()

    def get_conn(self) -> SyncClient:
        """Return the client that the hook's methods use."""
        if self._client is None:
            from airflow_provider_emqx.transport.sync import SyncClient

            self._client = SyncClient(self.settings, self.stopping)
        return self._client

    @property
    def broker(self) -> Broker:
        """Facts about the broker: generation, version, authenticator. Read once."""
        return self.api.broker

    @property
    def api(self) -> Api:
        """
        The broker's operations by area. Run them with :meth:`run`, or await them with :meth:`arun`.

        The first use detects the broker's version; ``async with`` has done so already.
        """
        client = self._async_client
        return client.api if client is not None and client.is_identified else self.get_conn().api

    def run(self, operation: Operation[T]) -> T:
        """
        Run an operation of :attr:`api`.

        :param operation: as ``hook.api.clients.get("dev-1")``.
        :return: the operation's result.
        """
        return self.get_conn().run(operation)

    async def arun(self, operation: Operation[T]) -> T:
        """
        Run an operation of :attr:`api` in an event loop, for ``async`` tasks and triggers.

        .. code-block:: python

            async with EmqxHook() as hook:
                user = await hook.arun(hook.api.users.get("dev-1"))

        Any number of coroutines may do so at the same time; at most 32 requests are in flight.

        :param operation: as of :meth:`run`.
        :return: the operation's result.
        """
        client = await self._opened()
        return await client.run(operation)

    async def arows(self, operation: Operation[Page[R]]) -> AsyncIterator[R]:
        """
        Walk a listing operation of :attr:`api` in an event loop:
        ``async for user in hook.arows(hook.api.users.list())``.

        :param operation: as of :meth:`rows`.
        :return: an iterator over the rows, each one once.
        """
        client = await self._opened()
        async for row in client.rows(operation):
            yield row

    async def _opened(self) -> AsyncClient:
        """Return the client of this event loop, with the broker's version detected."""
        if self._async_client is None:
            from airflow_provider_emqx.transport.aio import AsyncClient

            settings = await self.async_settings()
            # another coroutine may have been here in the meantime
            if self._async_client is None:
                self._async_client = AsyncClient(settings)
        await self._async_client.identify()
        return self._async_client

    def rows(self, operation: Operation[Page[R]]) -> Iterator[R]:
        """
        Walk a listing operation of :attr:`api`, page by page.

        :param operation: reads the first page.
        :return: a lazy iterator over the rows, each one once.
        """
        return self.get_conn().rows(operation)

    def settled_rows(self, make: Callable[[], Operation[Page[R]]]) -> Iterator[R]:
        """
        Walk a listing operation of :attr:`api` until two passes agree, at most five times; one of a single
        page is read once. For operations that delete, kick or exclude by a listing: while others delete, rows
        move to pages that were read already.

        :param make: makes the operation that reads the first page.
        :return: a lazy iterator over all rows that were met, each one once.
        """
        return self.get_conn().settled_rows(make)

    @property
    def listing_moved(self) -> bool | None:
        """
        Whether a listing changed while it was read, so that rows may be missing from it. ``None``
        if that is unknown: filtered rows on several pages, which the broker does not count.
        """
        return self.get_conn().listing_moved

    def run_many(self, operations: Iterable[Operation[T]]) -> Generator[T | EmqxError]:
        """
        Run many operations, 32 at a time, over connections that the hook keeps. This also works in a running event
        loop, which it blocks as every method of the hook does.

        :param operations: any number of operations; read as they are run.
        :return: results in the order of the operations; an error stands in its result's place. A generator: close it if
            it is not read to its end.
        """
        waiting = iter(operations)
        while block := list(islice(waiting, _BLOCK)):
            early: dict[int, T | EmqxError] = {}
            due = 0
            with closing(self._in_background().run_each(block, lambda result: False)) as results:
                for index, result in results:
                    early[index] = result
                    while due in early:
                        yield early.pop(due)
                        due += 1

    def run_each(self, operations: Iterable[tuple[K, Operation[T]]]) -> Generator[tuple[K, T | EmqxError]]:
        """
        Run many operations as :meth:`run_many` does, and yield each result as soon as it is available.

        :param operations: any number of operations, each with a key to know it by; read as they are run.
        :return: an iterator over keys and results, in any order; an error stands in its result's place. A generator:
            close it if it is not read to its end.
        :raises EmqxError: an error that affects all operations, such as an unavailable broker or a key
            that is refused; no further operation starts, and it is raised after the running ones are yielded.
        :raises EmqxStoppedError: in the same way, if the hook was stopped.
        """
        waiting = iter(operations)
        failure: EmqxError | None = None
        while failure is None and (block := list(islice(waiting, _BLOCK))):
            keys = [key for key, _ in block]
            if len(block) > _FEW:
                results = self._in_background().run_each([operation for _, operation in block], _ends_all)
            else:
                results = self._one_by_one(operation for _, operation in block)
            with closing(results):
                for index, result in results:
                    if _ends_all(result):
                        failure = failure or result
                    if not isinstance(result, EmqxStoppedError):
                        yield keys[index], result
        if failure is not None:
            raise failure

    def _one_by_one(self, operations: Iterable[Operation[T]]) -> Generator[tuple[int, T | EmqxError]]:
        for index, operation in enumerate(operations):
            try:
                result: T | EmqxError = self.run(operation)
            except EmqxError as error:
                result = error
            yield index, result
            if _ends_all(result):
                return

    def _in_background(self) -> Background:
        from airflow_provider_emqx.transport.background import Background

        if self._background is None:
            self._background = Background(self.settings, self.api, self.get_conn().base, self.stopping)
        return self._background

    def run_all(self, operations: Iterable[Operation[T]]) -> list[T]:
        """
        Run operations that must all succeed, several at a time if there are many.

        :param operations: any number of operations.
        :return: results in the order of the operations.
        :raises EmqxError: the first error; if there are many, the others have been tried as well.
        """
        waiting = list(operations)
        if len(waiting) <= _FEW:
            return [self.run(operation) for operation in waiting]
        results = []
        failure: EmqxError | None = None
        for result in self.run_many(waiting):
            if isinstance(result, EmqxError):
                failure = failure or result
            else:
                results.append(result)
        if failure is not None:
            raise failure
        return results


def _ends_all(result: object) -> TypeGuard[EmqxError]:
    """Return whether a result is an error that would affect the next operation as well."""
    if isinstance(result, EmqxServerError):
        # a 500 may be caused by a single operation
        return result.status in (502, 503, 504)
    return isinstance(
        result, (EmqxStoppedError, EmqxConnectionError, EmqxNotReadyError, EmqxRateLimitError, EmqxAuthError)
    )

"""Runs operations over aiohttp, for triggers and for many operations at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_emqx.api.base import Broker, Operation, Page, R, Reply, Request
from airflow_provider_emqx.api.generations import api_of, reader_of
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.exceptions import EmqxConnectionError, EmqxError
from airflow_provider_emqx.transport import exchange as wire
from airflow_provider_emqx.transport.identity import identify
from airflow_provider_emqx.transport.listing import Walk
from airflow_provider_emqx.transport.settings import Settings
from airflow_provider_emqx.transport.sockets import tls_context
from airflow_provider_emqx.transport.stopping import Stop

if TYPE_CHECKING:
    from aiohttp import ClientSession

T = TypeVar("T")


class AsyncClient:
    """
    One session with one broker, for one event loop; ``async with`` closes it.

    :param settings: address, credentials, limits.
    :param connections: how many requests may be in flight at once.
    :param stop: asked before each operation; by default work never ends early.
    """

    def __init__(self, settings: Settings, connections: int = 32, stop: Stop | None = None) -> None:
        self.settings = settings
        self._stop = stop or Stop()
        self.connections = connections
        self._api: Api | None = None
        self.base = settings.base or ""
        self._sessions: dict[float, ClientSession] = {}
        self._headers = wire.headers(settings)
        self._rate = wire.RateLimit(settings.rate_limit)
        self._identifying = asyncio.Lock()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def identify(self) -> Broker:
        """Learn the broker's generation and version, asked once."""
        async with self._identifying:
            if self._api is None:
                broker = await self.run(identify(self.settings, self.set_base, datetime.now(UTC)))
                self._api = api_of(broker)
        return self._api.broker

    @property
    def is_identified(self) -> bool:
        """Whether :attr:`api` is known."""
        return self._api is not None

    @property
    def api(self) -> Api:
        """The broker's operations, once :meth:`identify` has been awaited."""
        if self._api is None:
            raise RuntimeError("await identify() first")
        return self._api

    @property
    def broker(self) -> Broker:
        """Facts about the broker, once :meth:`identify` has been awaited."""
        return self.api.broker

    def adopt(self, api: Api, base: str) -> None:
        """Take over what another client knows about the same broker."""
        self._api, self.base = api, base

    def set_base(self, base: str) -> None:
        """State the API's path below the origin."""
        self.base = base

    async def run(self, operation: Operation[T]) -> T:
        """
        Run one operation to its result.

        :raises EmqxError: as the operation says.
        :raises EmqxStoppedError: if nothing more is to be sent.
        """
        self._stop.check()
        return await self._run(operation, self._exchange)

    async def _run(self, operation: Operation[T], send: Callable[[Request], Awaitable[Reply]]) -> T:
        run = wire.Run(operation)
        for request in run:
            with run:
                run.reply = await send(request)
        return run.result

    async def run_many(self, operations: Sequence[Operation[T]]) -> list[T | EmqxError]:
        """Run operations at once, as many in flight as there are connections; an error stands in its result's place."""
        results: list[Any] = [None] * len(operations)
        await self.run_each(operations, results.__setitem__)
        return results

    async def run_each(
        self, operations: Iterable[Operation[T]], tell: Callable[[int, T | EmqxError], object]
    ) -> None:
        """
        Run operations at once, as many in flight as there are connections, and tell each result when it is there.

        :param operations: read as they are run.
        :param tell: given an operation's place and its result, or its error.
        """
        waiting = iter(enumerate(operations))

        async def work() -> None:
            for index, operation in waiting:
                try:
                    result: T | EmqxError = await self.run(operation)
                except EmqxError as error:
                    result = error
                tell(index, result)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(work())

    async def rows(self, operation: Operation[Page[R]]) -> AsyncIterator[R]:
        """Walk a listing page by page as its rows are asked for; a row seen on an earlier page is left out."""
        walk = Walk(lambda: operation, passes=1)
        for page in walk.pages():
            for row in await self.run(page):
                yield row
        walk.tell()

    async def close(self) -> None:
        """Close the session's connections. The client may be used again."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def _exchange(self, request: Request) -> Reply:
        if request.may_stop:
            self._stop.check()
        exchange = wire.Exchange(request, self.settings)
        with exchange:
            try:
                return await self._asked(exchange)
            except EmqxError as error:
                # outside tenacity so far: its loop would cost every call that succeeds
                if not exchange.worth_retrying(error):
                    raise
                reply = await self._retry(exchange, error)
        return replace(reply, maybe_applied=exchange.maybe_applied)

    async def _retry(self, exchange: wire.Exchange, first: EmqxError) -> Reply:
        from tenacity import AsyncRetrying

        failures = [first]

        async def attempt() -> Reply:
            if failures:
                raise failures.pop()
            return await self._asked(exchange)

        return await AsyncRetrying(**exchange.policy(), sleep=self._stop.asleep)(attempt)

    async def _asked(self, exchange: wire.Exchange) -> Reply:
        """Attempt an exchange; a failure that a starting broker causes too is final only if the broker is up."""
        try:
            return await self._attempt(exchange)
        except EmqxError as error:
            if not wire.is_doubtful(exchange, error):
                raise
            resolving = wire.resolve(exchange, error, self.base)
        return await self._run(resolving, lambda request: self._attempt(exchange.question(request)))

    async def _attempt(self, exchange: wire.Exchange) -> Reply:
        import aiohttp
        import yarl

        wait = self._rate.reserve()
        if wait:
            await self._stop.asleep(wait)
            exchange.put_off(wait)
        request, settings = exchange.request, self.settings
        # encoded=True: yarl would rewrite the path, and EMQX takes it byte for byte
        url = yarl.URL(settings.origin + wire.target(request, self.base), encoded=True)
        body = wire.body(request)
        headers = {"Content-Type": request.content_type} if body is not None else None
        patience, left = request.timeout or settings.read_timeout, exchange.remaining
        if request.method == "GET" or (body is not None and len(body) > wire.SMALL):
            timeout = aiohttp.ClientTimeout(left, sock_connect=settings.connect_timeout, sock_read=patience)
        else:
            # all of it is sent and answered in a few bytes: waiting for the first one is waiting for the last
            timeout = aiohttp.ClientTimeout(min(patience, left), sock_connect=settings.connect_timeout)
        session = self._open(wire.max_idle(request, body))
        failure: EmqxError | None = None
        try:
            async with session.request(
                request.method,
                url,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                proxy=settings.proxy,
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = _typed(error, request, settings)
        if failure is not None:
            # raised here, because as the context of an error aiohttp's own would show our headers
            raise failure
        answer = wire.answer(response.status, response.headers, content, settings.secrets)
        if wire.is_raw(request, answer):
            return Reply(answer.status, answer.body)
        return reader_of(self.base)(request, answer)

    def _open(self, max_idle: float) -> ClientSession:
        """Return the session whose connections are dropped when they were idle for that many seconds."""
        session = self._sessions.get(max_idle)
        if session is None:
            from aiohttp import ClientSession, DummyCookieJar, TCPConnector

            connector = TCPConnector(
                limit=self.connections,
                # aiohttp takes no timeout of 0, but has another word for it
                **({"keepalive_timeout": max_idle} if max_idle else {"force_close": True}),
                ssl=tls_context(self.settings.verify) if self.settings.origin.startswith("https:") else True,
            )
            session = ClientSession(
                connector=connector, headers=self._headers, trust_env=False, cookie_jar=DummyCookieJar()
            )
            # aiohttp would repeat a DELETE behind our back, and the second answer ("not there") be taken for the first
            session._retry_connection = False
            self._sessions[max_idle] = session
        return session


def _typed(error: Exception, request: Request, settings: Settings) -> EmqxError:
    """Make our own error of what aiohttp and the sockets raise, knowing whether the request may have been sent."""
    import aiohttp

    asked = str(request)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return wire.timed_out(settings, asked, False)
    if isinstance(error, TimeoutError):
        return wire.timed_out(settings, asked, True)
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
        return wire.tls_error(error, settings, asked, False)
    if isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
        return EmqxConnectionError(f"no connection to {settings.origin} through the proxy", asked, False)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return wire.no_such_host(settings, asked)
    if isinstance(error, aiohttp.ClientConnectorError):
        return wire.unreachable(settings, asked, error)
    if isinstance(error, (aiohttp.ServerDisconnectedError, OSError)):
        return wire.cut_off(settings, asked, True)
    return wire.unreadable(asked, error)

"""Runs operations over requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_emqx.api.base import Broker, Operation, Page, R, Reply, Request
from airflow_provider_emqx.api.generations import api_of, reader_of
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.exceptions import EmqxConnectionError, EmqxError
from airflow_provider_emqx.transport import exchange as wire
from airflow_provider_emqx.transport.identity import identify
from airflow_provider_emqx.transport.listing import Walk, either
from airflow_provider_emqx.transport.settings import Settings
from airflow_provider_emqx.transport.sockets import Watch, tls_context, watched_adapter
from airflow_provider_emqx.transport.stopping import Stop

if TYPE_CHECKING:
    from requests import PreparedRequest
    from requests.adapters import HTTPAdapter

T = TypeVar("T")


class SyncClient:
    """
    One session with one broker, for one thread.

    :param settings: address, credentials, limits.
    :param stop: asked before each operation; by default work never ends early.
    """

    def __init__(self, settings: Settings, stop: Stop | None = None) -> None:
        self.settings = settings
        self._api: Api | None = None
        self._stop = stop or Stop()
        self.base = settings.base or ""
        self._session: HTTPAdapter | None = None
        self._headers = wire.headers(settings)
        self._last_used = 0.0
        self._rate = wire.RateLimit(settings.rate_limit)
        self._watch = Watch()
        #: whether a listing changed while it was read, so that rows may be missing; ``None`` if that is not known
        self.listing_moved: bool | None = False

    @property
    def api(self) -> Api:
        """The broker's operations; which generation and version it has is asked once."""
        if self._api is None:
            self._api = api_of(self.run(identify(self.settings, self.set_base, datetime.now(UTC))))
        return self._api

    @property
    def broker(self) -> Broker:
        """Facts about the broker."""
        return self.api.broker

    def set_base(self, base: str) -> None:
        """State the API's path below the origin."""
        self.base = base

    def run(self, operation: Operation[T]) -> T:
        """
        Run one operation to its result.

        :raises EmqxError: as the operation says.
        :raises EmqxStoppedError: if nothing more is to be sent.
        """
        self._stop.check()
        return self._run(operation, self._exchange)

    def _run(self, operation: Operation[T], send: Callable[[Request], Reply]) -> T:
        run = wire.Run(operation)
        for request in run:
            with run:
                run.reply = send(request)
        return run.result

    def rows(self, operation: Operation[Page[R]]) -> Iterator[R]:
        """Walk a listing page by page as its rows are asked for; a row seen on an earlier page is left out."""
        return self._rows(Walk(lambda: operation, passes=1))

    def settled_rows(self, make: Callable[[], Operation[Page[R]]]) -> Iterator[R]:
        """Walk a listing again and again until it is the same twice, and return each row that was met once."""
        return self._rows(Walk(make))

    def _rows(self, walk: Walk[R]) -> Iterator[R]:
        for page in walk.pages():
            yield from self.run(page)
        walk.tell()
        self.listing_moved = either(self.listing_moved, walk.moved)

    def close(self) -> None:
        """Close the session's connections. The client may be used again."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _exchange(self, request: Request) -> Reply:
        if request.may_stop:
            self._stop.check()
        exchange = wire.Exchange(request, self.settings)
        with exchange:
            try:
                return self._asked(exchange)
            except EmqxError as error:
                # outside tenacity so far: its loop would cost every call that succeeds
                if not exchange.worth_retrying(error):
                    raise
                reply = self._retry(exchange, error)
        return replace(reply, maybe_applied=exchange.maybe_applied)

    def _retry(self, exchange: wire.Exchange, first: EmqxError) -> Reply:
        from tenacity import Retrying

        failures = [first]

        def attempt() -> Reply:
            if failures:
                raise failures.pop()
            return self._asked(exchange)

        return Retrying(**exchange.policy(), sleep=self._stop.sleep)(attempt)

    def _asked(self, exchange: wire.Exchange) -> Reply:
        """Attempt an exchange; a failure that a starting broker causes too is final only if the broker is up."""
        try:
            return self._attempt(exchange)
        except EmqxError as error:
            if not wire.is_doubtful(exchange, error):
                raise
            resolving = wire.resolve(exchange, error, self.base)
        return self._run(resolving, lambda request: self._attempt(exchange.question(request)))

    def _attempt(self, exchange: wire.Exchange) -> Reply:
        from http.client import HTTPException

        from urllib3.exceptions import HTTPError

        wait = self._rate.reserve()
        if wait:
            self._stop.sleep(wait)
            exchange.put_off(wait)
        request, settings = exchange.request, self.settings
        prepared = self._prepare(request)
        adapter = self._open(wire.max_idle(request, prepared.body))  # type: ignore[arg-type] # bytes, never str
        proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else {}
        left = exchange.remaining
        self._watch.begin(request.timeout or settings.read_timeout, left)
        failure: EmqxError | None = None
        try:
            response = adapter.send(
                prepared,
                timeout=(min(settings.connect_timeout, left), left),
                verify=settings.verify is not False,
                proxies=proxies,
            )
            content = response.content
        except (OSError, ValueError, HTTPException, HTTPError) as error:
            failure = _typed(error, request, settings, self._watch.sent)
        if failure is not None:
            # raised here, because as the context of an error the libraries' own would show headers
            raise failure
        self._last_used = time.monotonic()
        answer = wire.answer(response.status_code, response.headers, content, settings.secrets)
        if wire.is_raw(request, answer):
            return Reply(answer.status, answer.body)
        return reader_of(self.base)(request, answer)

    def _prepare(self, request: Request) -> PreparedRequest:
        """Build the request by hand: requests would rewrite the path, and EMQX takes it byte for byte."""
        from requests import PreparedRequest

        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.url = self.settings.origin + wire.target(request, self.base)
        prepared.body = wire.body(request)
        # after what may fail: the local variables of an error's traceback are written down by error trackers
        headers: Any = dict(self._headers)
        if prepared.body is not None:
            headers["Content-Type"] = request.content_type
            headers["Content-Length"] = str(len(prepared.body))
        elif request.method != "GET":
            headers["Content-Length"] = "0"
        prepared.headers = headers
        return prepared

    def _open(self, max_idle: float) -> HTTPAdapter:
        """
        Return the pool of connections; those that were idle for that many seconds are dropped first.

        The adapter is what a ``requests.Session`` sends with. Without the session, requests handles no redirects, no
        ``.netrc`` (which would replace our Authorization header), no proxies of the environment and no cookies.
        """
        if self._session is not None and time.monotonic() - self._last_used >= max_idle:
            self._session.close()
        if self._session is None:
            https = self.settings.origin.startswith("https:")
            self._session = watched_adapter(self._watch, tls_context(self.settings.verify) if https else None)
        return self._session


def _typed(error: Exception, request: Request, settings: Settings, sent: bool) -> EmqxError:
    """Make our own error of what requests, urllib3 and the sockets raise."""
    from ssl import SSLError

    from requests.exceptions import ProxyError
    from urllib3 import exceptions as urllib3

    asked, cause = str(request), _innermost(error)
    if isinstance(error, ProxyError):
        return EmqxConnectionError(f"no connection to {settings.origin} through the proxy", asked, False)
    if isinstance(cause, urllib3.NameResolutionError):
        return wire.no_such_host(settings, asked)
    if isinstance(cause, urllib3.NewConnectionError):
        return wire.unreachable(settings, asked, cause)
    if isinstance(cause, (SSLError, urllib3.SSLError)):
        return wire.tls_error(cause, settings, asked, sent)
    if isinstance(cause, (TimeoutError, urllib3.TimeoutError)):
        return wire.timed_out(settings, asked, sent)
    if isinstance(cause, OSError):
        return wire.cut_off(settings, asked, sent)
    return wire.unreadable(asked, error)


def _innermost(error: BaseException) -> BaseException:
    """Return what lies below the wrapping of requests and urllib3."""
    while True:
        inside = [getattr(error, "reason", None), *reversed(error.args)]
        inner = next((item for item in inside if isinstance(item, BaseException)), None)
        if inner is None:
            return error
        error = inner

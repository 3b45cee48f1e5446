"""Runs operations over requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_emqx.api import v4, v5
from airflow_provider_emqx.api.base import Broker, Operation, Page, Reply, Request, Row
from airflow_provider_emqx.client import exchange as wire
from airflow_provider_emqx.client.identity import identify
from airflow_provider_emqx.client.listing import Listing
from airflow_provider_emqx.client.settings import Settings
from airflow_provider_emqx.exceptions import EmqxConnectionError, EmqxError, EmqxTimeoutError

if TYPE_CHECKING:
    from requests import PreparedRequest
    from requests.adapters import HTTPAdapter

T = TypeVar("T")


class SyncClient:
    """
    One session with one broker, for one thread.

    :param settings: address, credentials, limits.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._broker: Broker | None = None
        self.base = settings.base or ""
        self._session: HTTPAdapter | None = None
        self._headers = wire.headers(settings)
        self._last_used = 0.0
        self._rate = wire.RateLimit(settings.rate_limit)

    @property
    def broker(self) -> Broker:
        """The broker's generation and version, asked once."""
        if self._broker is None:
            self._broker = self.run(identify(self.settings, self.set_base, datetime.now(UTC)))
        return self._broker

    def set_base(self, base: str) -> None:
        """State the API's path below the origin."""
        self.base = base

    def run(self, operation: Operation[T]) -> T:
        """
        Run one operation to its result.

        :raises EmqxError: as the operation says.
        """
        try:
            request = next(operation)
            while True:
                try:
                    reply = self._exchange(request)
                except EmqxError as error:
                    request = operation.throw(error)
                else:
                    request = operation.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            operation.close()

    def rows(self, operation: Operation[Page[Row]]) -> Iterator[Row]:
        """Walk a listing page by page as its rows are asked for; a row seen on an earlier page is left out."""
        listing = Listing(operation)
        while listing.next is not None:
            yield from listing.fresh(self.run(listing.next))

    def close(self) -> None:
        """Close the session's connections. The client may be used again."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _exchange(self, request: Request) -> Reply:
        exchange = wire.Exchange(request, self.settings)
        try:
            try:
                return self._attempt(exchange)
            except EmqxError as error:
                # outside tenacity so far: its loop would cost every call that succeeds
                if not exchange.worth_retrying(error):
                    raise
                reply = self._retry(exchange, error)
        except EmqxError as error:
            final = exchange.final(error)
            if final is error:
                raise
            raise final from error
        return replace(reply, maybe_applied=exchange.maybe_applied)

    def _retry(self, exchange: wire.Exchange, first: EmqxError) -> Reply:
        from tenacity import Retrying

        failures = [first]

        def attempt() -> Reply:
            if failures:
                raise failures.pop()
            return self._attempt(exchange)

        return Retrying(**exchange.policy())(attempt)

    def _attempt(self, exchange: wire.Exchange) -> Reply:
        wait = self._rate.reserve()
        if wait:
            time.sleep(wait)
        request, settings = exchange.request, self.settings
        prepared = self._prepare(request)
        session = self._open(request)
        timeout = min(request.timeout or settings.read_timeout, exchange.remaining)
        proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else {}
        with _typed(request, settings):
            response = session.send(
                prepared,
                timeout=(min(settings.connect_timeout, exchange.remaining), timeout),
                verify=settings.verify,
                proxies=proxies,
            )
            content = response.content
        self._last_used = time.monotonic()
        answer = wire.answer(response.status_code, response.headers, content)
        if request.raw:
            return Reply(answer.status, answer.body)
        read = v4.replies.read if self._is_v4 else v5.replies.read
        return read(request, answer)

    @property
    def _is_v4(self) -> bool:
        return not self.base.endswith("/v5")

    def _prepare(self, request: Request) -> PreparedRequest:
        """Build the request by hand: requests would rewrite the path, and EMQX takes it byte for byte."""
        from requests import PreparedRequest

        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.url = self.settings.origin + wire.target(request, self.base)
        headers: Any = dict(self._headers)
        prepared.body = wire.body(request)
        if prepared.body is not None:
            headers["Content-Type"] = request.content_type
            headers["Content-Length"] = str(len(prepared.body))
        elif request.method not in ("GET", "HEAD"):
            headers["Content-Length"] = "0"
        prepared.headers = headers
        return prepared

    def _open(self, request: Request) -> HTTPAdapter:
        """
        Give the pool of connections; those that the broker may have closed by now are dropped first.

        The adapter is what a ``requests.Session`` sends with. Without the session there are no redirects, no ``.netrc``
        (which would replace our Authorization header), no proxies of the environment and no cookies.
        """
        longest = wire.MAX_IDLE if request.may_repeat else wire.MAX_IDLE_UNREPEATABLE
        if self._session is not None and time.monotonic() - self._last_used > longest:
            self._session.close()
        if self._session is None:
            from requests.adapters import HTTPAdapter

            self._session = HTTPAdapter()
        return self._session


@contextmanager
def _typed(request: Request, settings: Settings) -> Iterator[None]:
    """Turn what requests and urllib3 raise into our own errors, knowing whether the request may have been sent."""
    import requests
    from urllib3 import exceptions as urllib3

    asked = str(request)
    try:
        yield
    except requests.exceptions.ConnectTimeout:
        raise EmqxTimeoutError(
            f"no connection to {settings.origin} within {settings.connect_timeout:g} s", asked, False
        ) from None
    except requests.exceptions.Timeout:
        raise EmqxTimeoutError("no answer in time", asked, True) from None
    except requests.exceptions.SSLError as error:
        raise wire.tls_error(error, settings, asked) from None
    except requests.exceptions.ProxyError:
        raise EmqxConnectionError(
            f"no connection to {settings.origin} through the proxy", asked, False
        ) from None
    except requests.exceptions.ConnectionError as error:
        cause = error.args[0] if error.args else None
        reason = getattr(cause, "reason", None)
        if isinstance(reason, urllib3.NameResolutionError):
            raise wire.no_such_host(settings, asked) from None
        if isinstance(reason, urllib3.NewConnectionError):
            raise wire.unreachable(settings, asked, reason) from None
        raise wire.cut_off(asked) from None
    except requests.exceptions.RequestException as error:
        # garbage in place of HTTP, a truncated or undecodable body
        raise EmqxConnectionError(
            f"the answer broke off or cannot be read ({type(error).__name__})", asked, True
        ) from None

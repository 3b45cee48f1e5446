"""
The parts of one exchange that both drivers share: its bytes, and the retry policy.

Keyed on what happened on the wire, the HTTP status, EMQX's result code, and whether the request may be repeated.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Generic
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_emqx.api.base import MAX_TARGET, Answer, Operation, Params, Reply, Request, T
from airflow_provider_emqx.api.v5.replies import NODE_FAILURES, PathNotFound
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxConnectionError,
    EmqxError,
    EmqxNotReadyError,
    EmqxOutcomeUnknownError,
    EmqxRateLimitError,
    EmqxServerError,
    EmqxTimeoutError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.transport.settings import Settings

if TYPE_CHECKING:
    from tenacity import RetryCallState

log = logging.getLogger(__name__)

#: pooled connections idle for longer are dropped: EMQX 4.4 closes them after 5 s
MAX_IDLE = 4.0
#: the same for requests that must not be repeated: a connection that dies under one leaves its outcome unknown
MAX_IDLE_UNREPEATABLE = 1.0
#: bytes of a body that any network and broker takes at once
SMALL = 16_384

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
#: a broker that starts is asked again after so many seconds at the latest: it needs a few seconds
_LONGEST_WAIT_FOR_START = 2.0
_TRANSIENT_CODES = NODE_FAILURES | {"101"}
#: what an operation raises over a reply of an unexpected shape (OSError: a time too far away for the system)
_STUMBLES = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError, OSError)
#: the broker did not accept the request, or a proxy did not receive it in time
_NOT_NOW_STATUSES = frozenset({408, 425, 503})

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@lru_cache(maxsize=1)
def user_agent() -> str:
    try:
        return f"airflow-provider-emqx/{version('airflow-provider-emqx')}"
    except PackageNotFoundError:
        return "airflow-provider-emqx"


def headers(settings: Settings) -> dict[str, str]:
    """Make the headers of every request. EMQX answers unknown paths in JSON only to this ``Accept``."""
    return {
        "Accept": "application/json",
        "Authorization": settings.authorization,
        "User-Agent": user_agent(),
    }


def target(request: Request, base: str) -> str:
    """
    Make the request target: path and query, byte for byte as it is to be sent.

    :raises EmqxConfigError: if it is longer than the broker's request line allows.
    """
    path = request.path if request.raw else base + request.path
    query = _query(request.params) if request.params else ""
    whole = f"{path}?{query}" if query else path
    if len(whole) > MAX_TARGET:
        raise EmqxConfigError(
            f"the request target has {len(whole)} bytes; EMQX's request line allows about {MAX_TARGET}",
            str(request)[:80] + "…",
        )
    return whole


def _query(params: Params) -> str:
    pairs = params.items() if isinstance(params, Mapping) else params
    try:
        return urlencode(
            [(name, _text(value)) for name, values in pairs for value in _many(values) if value is not None],
            quote_via=quote,
            safe="",
        )
    except UnicodeEncodeError:
        raise EmqxConfigError("a query value contains a lone surrogate, which is not valid UTF-8") from None


def _many(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def body(request: Request) -> bytes | None:
    """Make the request's body."""
    if request.body is not None:
        return request.body
    if request.json is None:
        return None
    try:
        return _encode(request.json).encode()
    except UnicodeEncodeError:
        raise EmqxConfigError(
            "the request contains a lone surrogate, which is not valid UTF-8", str(request)
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise EmqxConfigError(
            f"the request cannot be written as JSON: {type(error).__name__}", str(request)
        ) from None


def answer(
    status: int, header: Mapping[str, str], content: bytes, secrets: frozenset[str] = frozenset()
) -> Answer:
    """Make the answer that a reader gets from what came over the wire."""
    retry_after = header.get("Retry-After")
    location = header.get("Location", "") if 300 <= status < 400 else ""
    return Answer(
        status,
        header.get("Content-Type", "").partition(";")[0].strip().lower(),
        content,
        _seconds(retry_after) if retry_after else None,
        _origin(location) if location else "",
        secrets,
    )


def is_raw(request: Request, answer: Answer) -> bool:
    """Return whether a request for raw bytes gets them: not where it should be repeated, or sent elsewhere, instead."""
    if not request.raw:
        return False
    status = answer.status
    return status in request.accept or not (
        status >= 500 or status in _NOT_NOW_STATUSES or status == 429 or 300 <= status < 400
    )


def _origin(location: str) -> str:
    """Return the target's origin only: its path and query may contain a token."""
    try:
        parts = urlsplit(location)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "elsewhere"
    if not parts.hostname:
        return "another path of the same host"
    origin = f"{parts.scheme}://{parts.hostname}{port}"
    # a header may hold any bytes, and not all of them can be written to a log
    return origin if origin.isascii() and origin.isprintable() else "elsewhere"


def _seconds(retry_after: str) -> float | None:
    """Read ``Retry-After``: seconds, or a date."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


class Exchange:
    """
    One request with all its attempts.

    :param request: what is asked.
    :param settings: limits.
    """

    def __init__(
        self, request: Request, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if settings.read_only and request.method != "GET":
            raise EmqxConfigError(
                "the connection is marked Read only, so nothing but GET is sent", str(request)
            )
        self.request = request
        self.settings = settings
        self._clock = clock
        self._started = clock()
        self._attempt = 1
        self._not_ready = 0  # how many attempts only found out that the broker is starting
        #: whether an attempt so far may have been carried out without our learning it
        self.maybe_applied = False

    def put_off(self, seconds: float) -> None:
        """Move the deadline by what our own rate limit made the request wait."""
        self._started += seconds

    def question(self, request: Request) -> Exchange:
        """Return the exchange of a request that is part of this one: it keeps the same deadline."""
        if request is self.request:
            return self
        part = Exchange(request, self.settings, self._clock)
        part._started = self._started
        return part

    @property
    def elapsed(self) -> float:
        return self._clock() - self._started

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never quite none: a timeout of 0 means something else to some libraries."""
        return max(0.001, self.settings.deadline - self.elapsed)

    def worth_retrying(self, error: BaseException) -> bool:
        """Return whether the same request may and should be sent again after this error."""
        repeatable = self.request.may_repeat
        if isinstance(error, EmqxNotReadyError):
            # starting takes longer than the attempts do: until the deadline
            return repeatable or not _maybe_applied(error)
        if not isinstance(error, EmqxError) or self._turn(error) >= self.settings.attempts:
            return False
        if isinstance(error, EmqxConnectionError):
            return error.transient and (repeatable or not error.sent)
        if isinstance(error, EmqxRateLimitError):
            return True
        if not isinstance(error, EmqxServerError):
            return False
        if error.status in _NOT_NOW_STATUSES or error.code in _TRANSIENT_CODES:
            return repeatable or self.settings.retry_unsafe
        if _lost(error):
            return repeatable
        # a crashed handler: once more
        return repeatable and self._turn(error) < 2

    def policy(self) -> dict[str, Any]:
        """Return tenacity's ``Retrying`` and ``AsyncRetrying`` their arguments."""
        return {
            "retry": lambda state: self._note(state) and self.worth_retrying(_error(state)),
            "wait": self._pause,
            "stop": lambda state: self.elapsed + state.upcoming_sleep >= self.settings.deadline,
            "before_sleep": self._announce,
            "reraise": True,
        }

    def _note(self, state: RetryCallState) -> bool:
        if state.outcome is None or not state.outcome.failed:
            return False
        error = _error(state)
        self._attempt = state.attempt_number
        self._not_ready += isinstance(error, EmqxNotReadyError)
        self.maybe_applied = self.maybe_applied or _maybe_applied(error)
        return True

    def _pause(self, state: RetryCallState) -> float:
        error = _error(state)
        asked: float | None = getattr(error, "retry_after", None)
        # half fixed, half random, so that mapped tasks that failed together do not come back together
        most = _LONGEST_WAIT_FOR_START if isinstance(error, EmqxNotReadyError) else _LONGEST_WAIT
        # the exponent is bounded: a float has no room for 2 to the power of thousands
        longest = min(most, _FIRST_WAIT * 2.0 ** min(self._turn(error) - 1, 16))
        if asked is None:
            return longest / 2 + random.uniform(0, longest / 2)
        return asked + random.uniform(0, _FIRST_WAIT / 2)

    def _turn(self, error: BaseException) -> int:
        """Return the number of the attempt that this error ended; waiting for the start uses up none of the others."""
        return (
            self._not_ready or 1 if isinstance(error, EmqxNotReadyError) else self._attempt - self._not_ready
        )

    def _announce(self, state: RetryCallState) -> None:
        error = _error(state)
        most = "" if isinstance(error, EmqxNotReadyError) else f" of {self.settings.attempts}"
        log.warning(
            "Attempt %d%s failed, next in %.1f s. %s", self._turn(error), most, state.upcoming_sleep, error
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, EmqxError) and (final := self.final(error)) is not error:
            raise final from error

    def final(self, error: EmqxError) -> EmqxError:
        """Return the error for the operation, with attempts and elapsed time, or "unknown" if the outcome is."""
        # the attempt that ended it counts as lost only for what the operation must not repeat
        if not self.request.may_repeat and _lost(error) and not isinstance(error, EmqxOutcomeUnknownError):
            unknown = EmqxOutcomeUnknownError(
                f"it is not known whether the broker did this: {error._what()}. "
                "It was not repeated, because twice may differ from once",
                str(self.request),
            )
            unknown.__cause__ = error
            error = unknown
        error.maybe_applied = self.maybe_applied or _maybe_applied(error.__cause__ or error)
        error.attempts, error.elapsed = self._attempt, self.elapsed
        return error


def _error(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    return error or EmqxError("no outcome")


def _lost(error: BaseException) -> bool:
    """Return whether the request may have been carried out although no usable answer came."""
    if isinstance(error, EmqxConnectionError):
        return error.sent
    if isinstance(error, EmqxServerError):
        # proxies have more statuses than 502 and 504 for an answer that they did not get: 520 to 530, 598, 599
        lost = error.status in (502, 504) or error.status > 511
        return lost or (error.status < 300 and not error.code)
    return False


def _maybe_applied(error: BaseException) -> bool:
    """Return whether a failed attempt may have done its work: also where a handler or a node failed half-way."""
    if isinstance(error, EmqxNotReadyError):
        return error.status >= 500
    if isinstance(error, EmqxServerError):
        return error.status not in _NOT_NOW_STATUSES
    return _lost(error)


def no_such_host(settings: Settings, asked: str) -> EmqxConnectionError:
    return EmqxConnectionError(
        f"the host name in {settings.origin} cannot be resolved (DNS): is the API URL spelled right?",
        asked,
        False,
    )


def unreachable(settings: Settings, asked: str, error: BaseException) -> EmqxConnectionError:
    why = "connection refused" if "refused" in str(error).lower() else "no connection"
    return EmqxConnectionError(
        f"{why} at {settings.origin}: is the broker up, and its API on this port "
        "(EMQX 5 and 6: 18083, EMQX 4: 8081, EMQX Cloud: 8443)?",
        asked,
        False,
    )


def timed_out(settings: Settings, asked: str, sent: bool) -> EmqxTimeoutError:
    if sent:
        return EmqxTimeoutError("no answer in time", asked, True)
    return EmqxTimeoutError(
        f"no connection to {settings.origin} within {settings.connect_timeout:g} s", asked, False
    )


def cut_off(settings: Settings, asked: str, sent: bool) -> EmqxConnectionError:
    if sent:
        return EmqxConnectionError("the connection was closed before the answer was complete", asked, True)
    return EmqxConnectionError(f"{settings.origin} closed the connection while it was made", asked, False)


def unreadable(asked: str, error: Exception) -> EmqxConnectionError:
    """Garbage in place of HTTP, a truncated or undecodable body."""
    return EmqxConnectionError(
        f"the answer broke off or cannot be read ({type(error).__name__})", asked, True
    )


def tls_error(error: BaseException, settings: Settings, asked: str, sent: bool) -> EmqxConnectionError:
    """Distinguish an invalid certificate from an interrupted handshake and from a port without TLS."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text or "doesn't match" in text:
        why = (
            text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0].rstrip(".")
            or "it does not verify"
        )
        return EmqxConnectionError(
            f"the TLS certificate of {settings.origin} is not trusted: {why}. Give the CA's file in the field "
            "Verify TLS certificate if the certificate is right",
            asked,
            False,
            False,
        )
    if any(sign in text for sign in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")):
        return EmqxConnectionError(
            f"the port of {settings.origin} does not speak TLS: is it the API's https port, or is http:// meant?",
            asked,
            False,
            False,
        )
    return EmqxConnectionError(f"TLS with {settings.origin} was interrupted", asked, sent)


def is_doubtful(exchange: Exchange, error: EmqxError) -> bool:
    """Return whether a failure may mean that the broker is starting, which :func:`resolve` finds out."""
    if isinstance(error, PathNotFound):
        return True
    # a booting EMQX 5 answers so to rules; so does a handler that crashes over a request
    bare = isinstance(error, EmqxServerError) and (error.status, error.code) == (500, "")
    return bare and exchange.request.path.startswith("/authorization/")


def resolve(exchange: Exchange, error: EmqxError, base: str) -> Operation[Reply]:
    """
    Find out whether the broker is starting; if it is up, and may have come up just now, ask once more.

    :param exchange: whose attempt failed.
    :param error: what it failed with, one that :func:`is_doubtful`.
    :param base: path of API v5.
    :raises EmqxNotReadyError: if the broker is starting.
    :raises EmqxError: what the failure means if it is up.
    """
    asked = str(exchange.request)
    if not isinstance(error, PathNotFound):
        try:
            yield Request("GET", "/authorization/sources")
        except EmqxNotReadyError:
            raise EmqxNotReadyError(500, "", "the broker is still starting", asked) from None
        except EmqxError:
            pass
        raise error
    if not exchange.settings.serverless:
        if not (yield from _is_up(base)):
            raise EmqxNotReadyError(404, "NOT_FOUND", "the broker is still starting", asked)
        try:
            return (yield exchange.request)
        except PathNotFound as again:
            error = again
    raise EmqxUnsupportedError(error.message, error.request)


def _is_up(base: str) -> Operation[bool]:
    """Ask for a path that every broker has: ``/status``, or a listing where a gateway hides it."""
    for request in (
        Request("GET", f"{base}/status", {"format": "json"}, raw=True, accept=(503,)),
        Request("GET", f"{base}/clients", {"limit": 1}, raw=True),
    ):
        try:
            reply = yield request
        except EmqxError:
            return False
        if reply.status != 404:
            return reply.status < 500
    return False


def max_idle(request: Request, body: bytes | None) -> float:
    """
    Return for how many seconds a connection may have been idle to carry a request; 0 for a fresh one.

    Connections that were used before left large bodies unread for a minute at a real broker. What must not be repeated
    would be lost then, so bulk POSTs of that kind take a fresh one whatever their size.
    """
    if body is not None and (len(body) > SMALL or (not request.may_repeat and body.startswith(b"["))):
        return 0.0
    return MAX_IDLE if request.may_repeat else MAX_IDLE_UNREPEATABLE


class Run(Generic[T]):
    """
    One operation under way, for both drivers: iterate over its requests, and send each in a ``with`` statement.

    :param operation: what is run.
    """

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation
        self._error: EmqxError | None = None
        #: to the latest request
        self.reply: Reply
        #: of the operation, once there are no more requests
        self.result: T

    def __iter__(self) -> Iterator[Request]:
        operation = self._operation
        try:
            request = next(operation)
            while True:
                yield request
                error, self._error = self._error, None
                request = proceed(operation, request, self.reply) if error is None else operation.throw(error)
        except StopIteration as done:
            self.result = done.value
        finally:
            operation.close()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, EmqxError):
            self._error = error
            return True
        if error is not None:
            self._operation.close()
        return False


def proceed(operation: Operation[Any], request: Request, reply: Reply) -> Request:
    """
    Pass an operation its reply and return its next request.

    :raises EmqxError: in place of whatever the operation stumbles over in a reply that is not as it should be.
    """
    try:
        return operation.send(reply)
    except _STUMBLES as error:
        if request.may_repeat or request.method == "GET":
            raise EmqxServerError(
                reply.status,
                "",
                f"the content of the answer is not what EMQX answers to this ({type(error).__name__})",
                str(request),
                "Something other than EMQX may answer at this address, or a version of it that is not known here.",
            ) from error
        raise EmqxOutcomeUnknownError(
            "the answer is not what EMQX answers to this, so that it is not known whether the broker did it "
            f"({type(error).__name__})",
            str(request),
        ) from error


class RateLimit:
    """
    Spaces requests evenly.

    :param per_second: requests per second, ``None`` for no limit.
    """

    def __init__(self, per_second: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / per_second if per_second else 0.0
        self._clock = clock
        self._next = 0.0

    def reserve(self) -> float:
        """Reserve the next place and return the seconds to wait for it."""
        if not self._interval:
            return 0.0
        now = self._clock()
        place = max(now, self._next)
        self._next = place + self._interval
        return place - now

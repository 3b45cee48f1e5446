"""Building blocks of operations: requests, replies, pages and the broker."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxUnsupportedError

T = TypeVar("T")
#: a row: a dict, whatever its type says of its fields
R = TypeVar("R", bound=Mapping[str, Any])
Row = dict[str, Any]
#: classes of operations have a method ``list``, which hides the type of this name in their annotations
Rows = list[Row]
Params = Mapping[str, Any] | Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """
    A request that an operation yields.

    :param method: HTTP method in capitals.
    :param path: path below the API base, made by :func:`path`.
    :param params: query parameters; ``None`` values are left out.
    :param json: body to encode as JSON.
    :param body: ready-made JSON body, for bulk work that encodes once.
    :param repeatable: whether sending it twice ends in the same state; by default everything but POST.
    :param accept: statuses that are an answer to this request although they mean failure elsewhere.
    :param raw: the path counts from the origin, and the reply's ``data`` is the body's bytes, whatever the status; only
        redirects and statuses that say "not now" are errors here too, unless accepted.
    :param binary: a successful reply's ``data`` is the body's bytes, as for a file.
    :param content_type: of ``body``, where it is not JSON.
    :param fields: of a listing's rows only these are read, whatever the broker sends.
    :param timeout: read timeout in seconds instead of the connection's.
    :param may_stop: whether an operation that is to end early may end before this request, leaving nothing half done.
    """

    method: str
    path: str
    params: Params | None = None
    json: Any = None
    body: bytes | None = None
    repeatable: bool | None = None
    accept: tuple[int, ...] = ()
    raw: bool = False
    binary: bool = False
    content_type: str = "application/json"
    fields: tuple[str, ...] | None = None
    timeout: float | None = None
    may_stop: bool = False

    @property
    def may_repeat(self) -> bool:
        return self.method != "POST" if self.repeatable is None else self.repeatable

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    # a dataclass would show the body, which may hold passwords
    __repr__ = __str__


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """
    The broker's response to one request, parsed by the reader of its generation.

    :param status: HTTP status.
    :param data: the answer's content, without v4's envelope and without the ``data``/``meta`` wrapping of lists.
    :param meta: paging information of a list, else empty.
    :param maybe_applied: whether an earlier attempt, whose answer was lost, may have done the work already.
    """

    status: int
    data: Any = field(default=None, repr=False)
    meta: Mapping[str, Any] = field(default_factory=dict)
    maybe_applied: bool = False

    @property
    def row(self) -> Row:
        """The content as one row; for anything else the driver raises a typed error."""
        return _row(self.data)

    @property
    def rows(self) -> list[Row]:
        """The content as a list of rows; anything else as with :attr:`row`."""
        return _rows(self.data)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """
    A response as received, before the reader of its generation has parsed it.

    :param status: HTTP status.
    :param content_type: the header, lower case, without parameters.
    :param body: the bytes.
    :param retry_after: seconds to wait as requested by the response, or ``None``.
    :param location: origin of a redirect's target.
    :param secrets: of the connection; no error may repeat them.
    """

    status: int
    content_type: str
    body: bytes = field(repr=False)
    retry_after: float | None = None
    location: str = ""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


Operation = Generator[Request, Reply, T]


def ahead(operation: Operation[T]) -> Operation[T]:
    """
    Advance an operation to its first request now, so that it is ready when it is run.

    :param operation: one that nothing was asked of yet.
    :return: the same operation.
    """

    def rest(request: Request | None, result: T | None) -> Operation[T]:
        while request is not None:
            try:
                try:
                    reply = yield request
                except EmqxError as error:
                    request = operation.throw(error)
                else:
                    request = operation.send(reply)
            except StopIteration as done:
                request, result = None, done.value
        return result  # type: ignore[return-value]

    try:
        return rest(next(operation), None)
    except StopIteration as done:
        return rest(None, done.value)


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """
    One page of a listing. A page is a result, so ending a listing early leaves no request unfinished.

    :param rows: the rows, checked against the filter.
    :param next: makes the operation that reads the next page, ``None`` after the last.
    :param key: field(s) that identify a row; live tables can show a row on two pages.
    """

    rows: list[R]
    next: Callable[[], Operation[Page[R]]] | None
    key: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _rows(self.rows)


def all_rows(listing: Operation[Page[R]]) -> Operation[list[R]]:
    """Read a listing to its end."""
    rows: list[R] = []
    following: Operation[Page[R]] | None = listing
    while following is not None:
        page = yield from following
        rows += page.rows
        following = page.next() if page.next else None
    return rows


def _row(data: Any) -> Row:
    if not isinstance(data, dict):
        raise TypeError("not a row")
    return data


def _rows(data: Any) -> list[Row]:
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise TypeError("not a list of rows")
    return data


@dataclass(frozen=True, slots=True)
class Broker:
    """
    Facts about the broker, and the authenticator and namespace that the connection selects.

    :param generation: ``"v4"`` or ``"v5"``.
    :param version: as ``(5, 8, 9)``, ``None`` where the key may not see it: what depends on it takes the safe path.
    :param authenticator: id of the v5 authenticator that holds the users.
    :param user_id_type: ``"username"`` or ``"clientid"``: which of the two tables v4 users live in.
    :param namespace: EMQX 6.1+ namespace of the users and rules, ``None`` for the global one.
    :param serverless: whether this is EMQX Cloud Serverless, which has a part of the API only.
    :param utc_offset: minutes that the clock of a v4 broker shows ahead of UTC; v4 rows carry local times without it.
    """

    generation: str
    version: tuple[int, ...] | None = None
    authenticator: str = "password_based:built_in_database"
    user_id_type: str = "username"
    namespace: str | None = None
    serverless: bool = False
    utc_offset: int = 0

    @property
    def is_v4(self) -> bool:
        """Whether the broker speaks the API of EMQX 4."""
        return self.generation == "v4"

    def at_least(self, *version: int) -> bool:
        """Return whether the broker is known to be of this version or newer."""
        return self.version is not None and self.version >= version

    @property
    def is_scram(self) -> bool:
        """Whether the users log in with SCRAM, for which EMQX keeps keys in place of password hashes."""
        return self.authenticator.startswith("scram:")

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version)) if self.version else ""

    def __str__(self) -> str:
        if self.serverless:
            return "EMQX Cloud Serverless"
        return (
            f"EMQX {self.version_text}"
            if self.version
            else f"an EMQX of unknown version (API {self.generation})"
        )

    def require(self, what: str, *version: int, instead: str = "") -> None:
        """
        Refuse ``what`` on brokers that are older than ``version``; an unknown version of EMQX 5 or 6 is let through.

        :param instead: what can be done on the older ones.
        :raises EmqxUnsupportedError: saying which version it needs.
        """
        if self.is_v4 or (self.version is not None and self.version < version):
            needed = ".".join(map(str, version))
            hint = f". {instead}" if instead else ""
            raise EmqxUnsupportedError(f"{what} needs EMQX {needed} or newer; this is {self}{hint}")


#: longest request target sent: the broker's request line ends at 8,000 bytes, method and protocol included
MAX_TARGET = 7_900
#: what quoting would leave as it is; most segments are, and quote() takes its time to find out
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch


@lru_cache(maxsize=256)
def _quoted(segment: str) -> str:
    """Quote; cached for the id of the authenticator, which is in the path of every user."""
    # "@" and "$" as they are: EMQX 4 compares names of nodes and "$all" before it decodes
    return quote(segment, safe="@$")


def fits_path(name: str) -> bool:
    """
    Return whether a name from the broker can be part of a path: ``""``, ``.``, ``..`` and very long ones cannot.

    :param name: as the broker has it.
    """
    try:
        # with room for what else is in a path
        return len(path(name)) < MAX_TARGET - 200
    except EmqxConfigError:
        return False


def path(*segments: str) -> str:
    """
    Join path segments, percent-encoding each one whole.

    Segments that would reach something else are refused: the broker drops empty ones and resolves ``.`` and ``..``
    after decoding, so that ``DELETE …/users/..`` would delete the authenticator with all its users.

    :param segments: plain text, unencoded.
    :raises EmqxConfigError: for a segment that is not text, empty, ``.``, ``..``, not encodable, or too long.
    """
    parts = []
    for segment in segments:
        if not isinstance(segment, str):
            raise EmqxConfigError(f"an id or name must be text, not {type(segment).__name__}")
        if segment in ("", ".", ".."):
            raise EmqxConfigError(
                f"{segment!r} cannot be used as an id, name or topic in EMQX's HTTP API: "
                "the broker would act on something else"
            )
        if _UNRESERVED(segment):
            parts.append(segment)
            continue
        try:
            parts.append(_quoted(segment))
        except UnicodeEncodeError:
            raise EmqxConfigError(
                "an id, name or topic contains a lone surrogate, which is not valid UTF-8"
            ) from None
    joined = "/" + "/".join(parts)
    if len(joined) > MAX_TARGET:
        raise EmqxConfigError(
            f"the path {joined[:60]}… has {len(joined)} bytes; EMQX's request line allows about {MAX_TARGET}"
        )
    return joined


def is_utf8(text: str) -> bool:
    """Return whether a text can be sent: a lone surrogate is not valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Requests and responses between the socket and the routes, and helpers for both generations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

JSON = "application/json"
TEXT = "text/plain"
HTML = "text/html"

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Answer:
    """One HTTP answer, and what it cost the broker.

    :param status: HTTP status.
    :param body: Body as it goes over the wire.
    :param content_type: ``Content-Type``; ``None`` sends none, as EMQX does with empty bodies.
    :param headers: Further headers.
    """

    __slots__ = (
        "body",
        "content_type",
        "cost",
        "deleted",
        "headers",
        "imported",
        "read",
        "status",
        "written",
    )

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.written = 0  # rows written, for the pace
        self.imported = 0  # records of an archive that were written
        self.deleted = 0  # keys that an archive deleted
        self.read = 0.0  # seconds of a paced broker's time for the rows it had to look at
        self.cost = 1.0  # this call, as a share of an average call


class HttpError(Exception):
    """Raised by a route to end with an answer that is not a success."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Crash(Exception):
    """Raised where the real broker's handler process crashes.

    :param message: What the v5 generation prints about the crash.
    """


def _no_constant(name: str) -> None:
    """Refuse ``NaN`` and ``Infinity``, which Python reads and writes and no broker knows."""
    raise ValueError(f"{name} is not JSON")


class Request:
    """One HTTP request as a route sees it."""

    __slots__ = ("_json", "_query", "body", "headers", "key", "method", "path", "query_string", "route")

    def __init__(self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.path, _, self.query_string = raw_path.partition("?")
        self.headers = headers
        self.body = body
        self.key: Any = None
        self.route = ""
        self._query: dict[str, list[str]] | None = None
        self._json: Any = None

    def json(self) -> Any:
        """Decode the body, once; an empty one is ``{}``.

        :raises ValueError: no JSON.
        """
        if self._json is None:
            self._json = json.loads(self.body, parse_constant=_no_constant) if self.body else {}
        return self._json

    @property
    def query(self) -> dict[str, list[str]]:
        """Query parameters; every name with all its values."""
        if self._query is None:
            self._query = {}
            if self.query_string:
                for name, value in parse_qsl(self.query_string, keep_blank_values=True):
                    self._query.setdefault(name, []).append(value)
        return self._query

    def arg(self, name: str) -> str | None:
        """Return the last value of a query parameter: what EMQX takes where it takes one only."""
        values = self.query.get(name)
        return values[-1] if values else None

    def args(self, name: str) -> list[str]:
        """Return all values of a query parameter."""
        return self.query.get(name, [])


@lru_cache(maxsize=1024)
def decode_segment(segment: str) -> str:
    """Percent-decode one path segment; a stray ``%`` raises :class:`ValueError` as it does in Erlang."""
    if "%" not in segment:
        return segment
    if _BAD_ESCAPE.search(segment):
        raise ValueError("bad percent escape")
    return unquote_to_bytes(segment).decode("utf-8", "surrogateescape")


def dump(data: Any) -> bytes:
    """Encode JSON the way EMQX does: compact, UTF-8."""
    return _encode(data).encode("utf-8", "surrogateescape")


def json_answer(status: int, data: Any) -> Answer:
    """Return an answer with a JSON body."""
    return Answer(status, dump(data), JSON)


def text_answer(status: int, text: str, content_type: str | None = TEXT) -> Answer:
    """Return an answer with a text body."""
    return Answer(status, text.encode(), content_type)


def rfc3339(seconds: float, milliseconds: bool = False) -> str:
    """Write a time as API v5 does, in UTC."""
    when = datetime.fromtimestamp(seconds, UTC)
    return when.isoformat(timespec="milliseconds" if milliseconds else "seconds")


def local_time(seconds: float, utc_offset: float = 0.0) -> str:
    """Write a time as API v4 does: in the node's zone, without saying which."""
    when = datetime.fromtimestamp(seconds, UTC) + timedelta(hours=utc_offset)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def parse_time(text: str, unit: float) -> float:
    """Read a time from a query or a body.

    :param text: RFC 3339 or an integer.
    :param unit: Seconds per unit of the integer (0.001 for milliseconds).
    :return: Seconds since the epoch.
    """
    if text.lstrip("-").isdecimal():
        return int(text) * unit
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError("RFC 3339 wants an offset")
    return when.timestamp()


def multipart_file(request: Request) -> tuple[str, bytes] | None:
    """Return file name and content of the first file part of a multipart body, or ``None``."""
    content_type = request.headers.get("Content-Type", "")
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if not found:
        return None
    boundary = b"--" + found.group(1).encode()
    for part in request.body.split(boundary):
        head, separator, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'filename="([^"]*)"', head)
        if separator and name:
            return name.group(1).decode("utf-8", "replace"), content.removesuffix(b"\r\n")
    return None


def slice_page(rows: Sequence[Any], page: int, limit: int) -> Sequence[Any]:
    """Return one page of a list that is all in memory."""
    start = (page - 1) * limit
    return rows[start : start + limit]


def pick(source: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the named entries that exist."""
    return {name: source[name] for name in names if name in source}

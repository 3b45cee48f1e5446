"""Answers of API v4: nearly always HTTP 200, the outcome is in ``code``, or in a ``message`` without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_emqx.testing.http import (
    Answer,
    Crash,
    HttpError,
    Request,
    decode_segment,
    json_answer,
    slice_page,
    text_answer,
)

#: Result codes.
RPC_ERROR, UNKNOWN, MISSING, BAD_PARAMETER, OFFLINE, BAD_TOPIC, BAD_QOS = 101, 102, 107, 108, 112, 115, 116


def done() -> Answer:
    """``{"code":0}``."""
    return json_answer(200, {"code": 0})


def data(value: Any) -> Answer:
    """``{"code":0,"data":…}``."""
    return json_answer(200, {"data": value, "code": 0})


def failed(code: int, message: str) -> HttpError:
    """Return ``{"code":…,"message":…}`` with HTTP 200, to be raised."""
    return HttpError(json_answer(200, {"message": message, "code": code}))


def message_only(message: str) -> HttpError:
    """Return ``{"message":…}``: a failure **without** a code, to be raised."""
    return HttpError(json_answer(200, {"message": message}))


def not_found() -> Answer:
    """404 of a path without a route, and of a node that nobody ever heard of."""
    return text_answer(404, "Not found.")


def split_path(path: str) -> list[str]:
    """Split a path as minirest does: empty segments vanish, dots stay.

    :raises ValueError: bad percent escape.
    """
    segments = [segment for segment in path.split("/") if segment]
    return list(map(decode_segment, segments)) if "%" in path else segments


def read_json(request: Request) -> Any:
    """Decode a body, whatever its content type; an empty one is ``{}``."""
    try:
        return request.json()
    except (ValueError, RecursionError):
        raise HttpError(text_answer(400, "Bad Request")) from None


def read_object(request: Request) -> dict[str, Any]:
    """Decode a body that should be an object; anything else crashes the handler."""
    body = read_json(request)
    if not isinstance(body, dict):
        raise Crash("function_clause")
    return body


def read_array(request: Request) -> list[dict[str, Any]]:
    """Decode a body that should be an array of objects; an empty one crashes the handler."""
    body = read_json(request)
    if not isinstance(body, list) or not body or not all(isinstance(row, dict) for row in body):
        raise Crash("function_clause")
    return body


def page_args(request: Request, default: int = 10000) -> tuple[int, int]:
    """Read ``_page`` and ``_limit``; anything but a number crashes the handler."""
    try:
        page, limit = int(request.arg("_page") or 1), int(request.arg("_limit") or default)
    except ValueError:
        raise Crash("badarg") from None
    if page < 1 or limit < 1:
        raise Crash("badarg")
    return page, limit


def listing(
    request: Request,
    keys: Sequence[Any],
    row: Callable[[Any], Any],
    *,
    filtered: bool = False,
    hasnext: bool = True,
    limit: int = 10000,
) -> Answer:
    """Answer with one page of ``{"code","data","meta"}``.

    :param filtered: A filter was used: ``count`` is -1.
    :param hasnext: ``meta`` has ``hasnext``.
    :param limit: Rows of a page when the request does not say.
    """
    page, limit = page_args(request, limit)
    meta: dict[str, Any] = {"page": page, "limit": limit, "count": -1 if filtered else len(keys)}
    if hasnext:
        meta["hasnext"] = page * limit < len(keys)
    shown = slice_page(keys, page, limit)
    return json_answer(200, {"meta": meta, "data": [row(key) for key in shown], "code": 0})

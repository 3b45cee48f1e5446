"""Answers and input checks of API v5, worded as EMQX words them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from airflow_provider_emqx.testing.http import (
    HTML,
    JSON,
    Answer,
    HttpError,
    Request,
    decode_segment,
    dump,
    json_answer,
    slice_page,
)
from airflow_provider_emqx.testing.state import State

NOT_FOUND_PAGE = (
    "<html><head><title>404 - NOT FOUND</title></head><body><h1>404 - NOT FOUND</h1></body></html>"
)


def ok(data: Any) -> Answer:
    """200 with a JSON body."""
    return json_answer(200, data)


def no_content() -> Answer:
    """204 without a body."""
    return Answer(204)


def error(status: int, code: str, message: str) -> HttpError:
    """Return the usual error object, to be raised."""
    return HttpError(json_answer(status, {"code": code, "message": message}))


def bad_request(message: str) -> HttpError:
    """400 ``BAD_REQUEST``."""
    return error(400, "BAD_REQUEST", message)


def invalid(path: str, reason: Any, value: Any = None) -> HttpError:
    """400 as the schema check words it: JSON text inside of the message."""
    problem = {} if value is None else {"value": value}
    return bad_request(dump({**problem, "reason": reason, "path": path, "kind": "validation_error"}).decode())


def not_found_page(request: Request) -> Answer:
    """404 of a path that no route serves; JSON only for clients that ask for it first."""
    if request.headers.get("Accept", "").startswith(JSON):
        return json_answer(404, {"code": "NOT_FOUND", "message": "Request Path Not Found"})
    return Answer(404, NOT_FOUND_PAGE.encode(), HTML)


def split_path(path: str) -> list[str]:
    """Split a path as cowboy does: segments first, then decoding, and dot segments are folded **after** that.

    :raises ValueError: bad percent escape.
    """
    raw = path.split("/")[1:]
    if raw and raw[-1] == "":
        raw.pop()
    if "%" not in path and "." not in path:
        return raw
    segments: list[str] = []
    for segment in map(decode_segment, raw):
        if segment == "..":
            if segments:
                segments.pop()
        elif segment != ".":
            segments.append(segment)
    return segments


def read_json(request: Request) -> Any:
    """Decode a body; an empty one is ``{}``."""
    try:
        return request.json()
    except (ValueError, RecursionError):
        raise bad_request("Invalid json message received") from None


def read_object(request: Request, *required: str) -> dict[str, Any]:
    """Decode a body that must be an object with these fields."""
    body = read_json(request)
    check_object(body, "root", required)
    return dict(body)


def read_array(request: Request, *required: str) -> list[Any]:
    """Decode a body that must be an array, of objects with these fields if any are named."""
    body = read_json(request)
    if isinstance(body, dict):
        keys = list(reversed(body))
        problem = {"path": "root", "kind": "validation_error", "bad_array_index_keys": keys}
        raise bad_request(dump(problem).decode())
    if not isinstance(body, list):
        raise invalid("root", "not_array", body)
    if required:
        for number, row in enumerate(body, 1):
            check_object(row, f"root.{number}", required)
    return body


def check_object(value: Any, path: str, required: Iterable[str]) -> None:
    """Refuse what is not an object or lacks a field."""
    if not isinstance(value, dict):
        raise invalid(path, "bad_value_for_struct", value)
    missing = [
        {"reason": "required_field", "path": f"{path}.{name}", "kind": "validation_error"}
        for name in required
        if value.get(name) is None
    ]
    if missing:
        raise bad_request(dump(missing[0] if len(missing) == 1 else missing).decode())


def check_fields(value: dict[str, Any], path: str, known: Iterable[str]) -> None:
    """Refuse an object with a field that EMQX's schema lacks."""
    unknown = sorted(value.keys() - set(known))
    if unknown:
        problem = {
            "unmatched": _some(sorted(set(known) - value.keys())),
            "unknown": _some(unknown),
            "reason": "unknown_fields",
            "path": path,
            "kind": "validation_error",
        }
        raise bad_request(dump(problem).decode())


def _some(names: list[str]) -> str:
    """Name fields as EMQX does: two of them, and dots where there are more."""
    return ",".join(names if len(names) <= 2 else [*names[:2], "..."]) or "none"


def check_enum(value: Any, allowed: Iterable[Any], path: str) -> None:
    """Refuse a value outside an enumeration."""
    if value not in tuple(allowed):
        raise invalid(path, "unable_to_convert_to_enum_symbol", value)


def check_union(value: Any, allowed: Iterable[Any], path: str) -> None:
    """Refuse a value outside a set of numbers or words that is not an enumeration in EMQX's schema."""
    if isinstance(value, bool) or value not in tuple(allowed):
        raise invalid(path, "Unable to parse string", value)


def check_range(value: Any, low: int, high: int, path: str) -> int:
    """Refuse a number outside a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise invalid(path, {"expected": f"{low}..{high}"}, value)
    return value


def as_number(text: str) -> Any:
    """Return the integer that a text is, else the text."""
    return int(text) if text.lstrip("-").isdecimal() else text


def bool_arg(request: Request, name: str) -> bool | None:
    """Read a boolean query parameter."""
    text = request.arg(name)
    if text is None:
        return None
    check_enum(text, ("true", "false"), name)
    return text == "true"


def namespace_arg(state: State, request: Request) -> str | None:
    """Read ``ns``, which there is since 6.1."""
    return request.arg("ns") if state.at_least(6, 1) else None


def page_args(state: State, request: Request) -> tuple[int, int]:
    """Read ``page`` and ``limit``."""
    highest = 10000 if state.at_least(5, 5) else 1000
    limit_text, page_text = request.arg("limit"), request.arg("page")
    limit = 100 if limit_text is None else check_range(as_number(limit_text), 1, highest, "limit")
    page = 1 if page_text is None else check_range(as_number(page_text), 1, 2**53, "page")
    return page, limit


def listing(
    state: State,
    request: Request,
    keys: Sequence[Any],
    row: Callable[[Any], Any],
    *,
    fuzzy: bool = False,
    hasnext: bool = True,
) -> Answer:
    """Answer with one page of ``{"data", "meta"}``.

    :param keys: What is listed, complete and in order.
    :param row: Makes a row of a key.
    :param fuzzy: A fuzzy filter was used: ``count`` is missing, and the end shows one page later if the last
        page happens to be full.
    :param hasnext: ``meta`` has ``hasnext``.
    """
    page, limit = page_args(state, request)
    shown = slice_page(keys, page, limit)
    meta: dict[str, Any] = {"page": page, "limit": limit}
    if not fuzzy:
        meta["count"] = len(keys)
    if hasnext:
        meta["hasnext"] = len(shown) == limit if fuzzy else page * limit < len(keys)
    return ok({"data": [row(key) for key in shown], "meta": meta})


def masked(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without its secrets, as it is shown."""
    return {name: "******" if name in {"password", "secret"} else value for name, value in config.items()}

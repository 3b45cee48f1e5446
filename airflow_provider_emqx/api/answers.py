"""Parts that the readers of both generations share: listings with selected fields, responses that are not EMQX's."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypedDict

from airflow_provider_emqx.api.base import Answer, Request
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxServerError


def json_object(body: bytes) -> dict[str, Any]:
    """Decode an error body; anything but a JSON object is an empty one."""
    try:
        parsed = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def listing(body: bytes, fields: tuple[str, ...]) -> Any:
    """
    Decode a listing without the fields that nobody asked for: a client's row has 60, and waits look at 2.

    :param body: of a successful answer.
    :param fields: the ones that are wanted.
    :return: an object with ``data``, a list of rows, ``meta`` and ``code`` (``None`` if it does not exist); or ``None``
        if the body is anything but a listing, for the reader to look at as a whole.
    """
    import msgspec

    try:
        return _listing_decoder(fields).decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


@lru_cache(maxsize=32)
def _listing_decoder(fields: tuple[str, ...]) -> Any:
    import msgspec

    row = TypedDict("row", dict.fromkeys(fields, Any), total=False)  # type: ignore[misc]
    parts: list[Any] = [("data", list[row]), ("meta", Any, None), ("code", Any, None)]
    return msgspec.json.Decoder(msgspec.defstruct("Listing", parts, forbid_unknown_fields=True))


def no_json(request: Request, answer: Answer) -> EmqxServerError:
    """Make the error for a success that cannot be read."""
    return EmqxServerError(
        answer.status,
        "",
        f"the answer is no {'file' if request.binary else 'JSON'} ({describe(answer)})",
        str(request),
        "Something other than EMQX may answer at this address, or it cut the answer short.",
    )


def redirected(request: Request, answer: Answer) -> EmqxConfigError:
    """Make the error for a redirect: following one could hand the API key to another host."""
    return EmqxConfigError(
        f"the answer is a redirect to {answer.location or 'elsewhere'} (HTTP {answer.status}), which is not followed: "
        "put the address of the API itself into the connection",
        str(request),
    )


def describe(answer: Answer) -> str:
    """Describe a response without quoting it: a proxy's page may hold anything."""
    if not answer.body:
        return "no body"
    return f"{answer.content_type or 'no content type'}, {len(answer.body)} bytes"

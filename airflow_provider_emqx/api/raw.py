"""Requests that have no operation of their own."""

from __future__ import annotations

import re
from typing import Any, get_args
from urllib.parse import unquote

from airflow_provider_emqx.api.base import Operation, Request
from airflow_provider_emqx.arguments import choice
from airflow_provider_emqx.choices import Method
from airflow_provider_emqx.exceptions import EmqxConfigError


def exchange(request: Request) -> Operation[Any]:
    """
    Send one request and give the answer's content.

    :param request: its path is checked here, since nobody has made it of segments.
    :return: the content; ``{"data", "meta"}`` where it is a page of a listing.
    :raises EmqxConfigError: for an unknown method or a path that would reach something else.
    """
    check_method(request.method)
    check_path(request.path)
    reply = yield request
    return {"data": reply.data, "meta": dict(reply.meta)} if reply.meta else reply.data


def check_method(method: str) -> None:
    """
    Refuse a method that the API does not have.

    :param method: in capitals.
    """
    choice("method", method, get_args(Method))


def check_path(path: Any) -> None:
    """
    Check a path that a user has written.

    EMQX folds ``.`` and ``..`` after decoding and drops empty segments: ``DELETE …/users/..`` deletes the
    authenticator with all its users.

    :param path: as ``/clients/dev%2F1``.
    :raises EmqxConfigError: saying what is wrong.
    """
    if not isinstance(path, str) or not path.startswith("/"):
        raise EmqxConfigError(f"the path must begin with /, as in /clients; it is {str(path)[:80]!r}")
    if "?" in path or "#" in path:
        raise EmqxConfigError(f"the path {path[:80]!r} holds a query or fragment; give the query as params")
    # EMQX 4 crashes over a "%" that begins no escape
    if not path.isascii() or not path.isprintable() or re.search(r"[ \\]|%(?![0-9A-Fa-f]{2})", path):
        raise EmqxConfigError(
            f"the path {path[:80]!r} is not percent-encoded; ids in it need urllib.parse.quote(id, safe='')"
        )
    for segment in path[1:].split("/"):
        if unquote(segment) in ("", ".", ".."):
            raise EmqxConfigError(
                f"the path {path[:80]!r} holds an empty or dot segment: the broker would act on something else"
            )

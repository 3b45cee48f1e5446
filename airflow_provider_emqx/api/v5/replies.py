"""Reads every answer of a v5 API (EMQX 5 and 6): a reply, or one typed error."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_emqx.api.answers import describe, json_object, listing, no_json, redirected
from airflow_provider_emqx.api.base import Answer, Reply, Request
from airflow_provider_emqx.api.reason import clean, repeats_any
from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxAuthError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxNotReadyError,
    EmqxRateLimitError,
    EmqxServerError,
    EmqxUnsupportedError,
)

#: codes for a node that could not do it at the moment, whatever the status: some come with 400
NODE_FAILURES = frozenset({"NODE_DOWN", "RPC_ERROR", "BAD_RPC", "SERVICE_UNAVAILABLE"})
#: what users answer while their database has not started
_NOT_INITIALIZED = frozenset({"not_initialized", "User error: not_initialized"})
#: what crashes of users and rules are recognised by while their databases have not started
_NOT_STARTED = ("noproc", "unknown_authz_source_type")


class PathNotFound(EmqxUnsupportedError):
    """
    The broker does not know the path: for good, or because it is starting.

    What it means is known only after another question: ``GET /status``.
    """


def read(request: Request, answer: Answer) -> Reply:
    """
    Read one answer.

    :param request: method and path of the request.
    :param answer: what came back.
    :return: the content; for ``{"data": …}`` and ``{"data": …, "meta": …}`` what is in ``data``.
    :raises EmqxError: the one typed error that the answer means.
    """
    if 200 <= answer.status < 300 or answer.status in request.accept:
        if request.binary and answer.status < 300:
            if answer.content_type == "text/html":
                raise no_json(request, answer)
            return Reply(answer.status, answer.body)
        if answer.status < 300 or _is_answer(answer):
            return _success(request, answer)
    raise _failure(request, answer)


def _is_answer(answer: Answer) -> bool:
    """Distinguish an accepted failure, which has results, from the usual kind and from that of a proxy."""
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, list) or (isinstance(body, dict) and "code" not in body)


def _success(request: Request, answer: Answer) -> Reply:
    if not answer.body:
        # EMQX says 204, or 200 to a few POSTs; anything else would be taken for "nothing there" or "done"
        known = request.method == "POST" or (request.method != "GET" and answer.status in request.accept)
        if answer.status != 204 and (not known or answer.content_type == "text/html"):
            raise no_json(request, answer)
        return Reply(answer.status)
    found = listing(answer.body, request.fields) if request.fields else None
    if found is not None and found.code is None:
        return Reply(answer.status, found.data, found.meta if isinstance(found.meta, dict) else {})
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise no_json(request, answer) from None
    if isinstance(body, dict) and "data" in body and body.keys() <= {"data", "meta"}:
        meta = body.get("meta")
        return Reply(answer.status, body["data"], meta if isinstance(meta, dict) else {})
    if isinstance(body, dict) and type(body.get("code")) is int and "data" in body:
        raise _is_v4(request)
    return Reply(answer.status, body)


def _failure(request: Request, answer: Answer) -> EmqxError:
    asked, status = str(request), answer.status
    if 300 <= status < 400:
        return redirected(request, answer)
    body = json_object(answer.body)
    if type(body.get("code")) is int:
        return _is_v4(request)
    code = body.get("code", "") or str(body.get("reason_code", ""))
    code = code if isinstance(code, str) and not repeats_any(code, answer.secrets) else ""
    message = body.get("message", "")
    if status == 404 and (not code or message == "Request Path Not Found"):
        # without a code it is not EMQX that responds, and a retry does not help
        return (PathNotFound if code else EmqxUnsupportedError)(
            "unknown endpoint at this address (HTTP 404). The broker's version or edition may lack it, a gateway "
            "before it may hide it, or it is an EMQX 4, whose API is /api/v4",
            asked,
        )
    if sign := _sign_of_start(request, status, message):
        return EmqxNotReadyError(status, code, f"the broker is still starting ({sign})", asked)
    reason = _reason(request, answer, code, message)
    if status == 401:
        return EmqxAuthError(status, code, reason, asked, _AUTH_HINTS.get(code or reason, _WRONG_KEY))
    if status == 403:
        return EmqxForbiddenError(
            status, code, reason, asked, "Give the API key a role, scope and namespace that cover this call."
        )
    if status == 429:
        hint = "Set a lower rate_limit."
        return EmqxRateLimitError(status, code, reason, asked, hint, retry_after=answer.retry_after)
    if status == 501:
        return EmqxUnsupportedError(f"EMQX answered HTTP 501 {code}: {reason}", asked)
    if code == "ALREADY_EXISTS":
        return EmqxAlreadyExistsError(status, code, reason, asked)
    if status == 404 or code == "NOT_FOUND":
        return EmqxNotFoundError(status, code, reason, asked)
    if status >= 500 or status in (408, 425) or code in NODE_FAILURES:
        # 408 and 425 come from proxies, and mean "send it again"
        return EmqxServerError(status, code, reason, asked, retry_after=answer.retry_after)
    hint = "EMQX does not support this value." if "unable_to_convert_to_enum_symbol" in reason else ""
    return EmqxBadRequestError(status, code, reason, asked, hint)


def _sign_of_start(request: Request, status: int, message: Any) -> str | None:
    """Return what shows that users or rules have not started yet; elsewhere the same words mean something else."""
    if not isinstance(message, str) or not request.path.startswith(("/authentication/", "/authorization/")):
        return None
    if status == 400:
        return "not_initialized" if message in _NOT_INITIALIZED else None
    return next((sign for sign in _NOT_STARTED if sign in message), None) if status == 500 else None


def _reason(request: Request, answer: Answer, code: str, message: Any) -> str:
    if code == "INTERNAL_ERROR":
        # the message is an Erlang stack, which may hold the request's arguments
        return "the broker's handler crashed; its log has the details"
    if message:
        return clean(message, request, answer.secrets)
    if code:
        return ""
    if answer.status == 405:
        return f"this path takes no {request.method}"
    return "UNAUTHORIZED" if answer.body.strip() == b"UNAUTHORIZED" else describe(answer)


_WRONG_KEY = "Check the API key and secret of the connection; the key may be disabled or expired."
_AUTH_HINTS = {
    "UNAUTHORIZED": "EMQX 4 answers like this: is the API version v4, not v5?",
    "API_KEY_NOT_ALLOW": "EMQX offers this endpoint to dashboard users only, not to API keys.",
}


def _is_v4(request: Request) -> EmqxConfigError:
    return EmqxConfigError(
        "the broker answers as EMQX 4 does, but the connection says v5: correct the API URL (…/api/v4) "
        "or the API version",
        str(request),
    )

"""
Reads every answer of a v4 API (EMQX 4): a reply, or one typed error.

v4 answers HTTP 200 for nearly every failure, and its success is ``code == 0``, never "no code".
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_emqx.api.answers import describe, json_object, listing, no_json, redirected
from airflow_provider_emqx.api.base import Answer, Reply, Request
from airflow_provider_emqx.api.reason import clean
from airflow_provider_emqx.api.v4.codes import MEANINGS
from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxAuthError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxRateLimitError,
    EmqxServerError,
    EmqxUnsupportedError,
)

_NOT_FOUND = (112, 404)
_TEXTS_NOT_FOUND = ("noexisted", "not_found", "topic_not_found")


def read(request: Request, answer: Answer) -> Reply:
    """
    Read one answer.

    :return: the content of ``data``, with ``meta`` of a list.
    """
    if answer.status != 200:
        raise _failure(request, answer)
    if request.binary:
        if answer.content_type == "text/html":
            raise no_json(request, answer)
        return Reply(200, answer.body)
    found = listing(answer.body, request.fields) if request.fields else None
    if found is not None and type(found.code) is int and found.code == 0:
        return Reply(200, found.data, found.meta if isinstance(found.meta, dict) else {})
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise no_json(request, answer) from None
    if isinstance(body, dict) and type(body.get("code")) is int:
        if body["code"] == 0:
            meta = body.get("meta")
            return Reply(200, body.get("data"), meta if isinstance(meta, dict) else {})
        raise _refusal(request, answer, body["code"], body.get("message", ""))
    if isinstance(body, dict) and "message" in body and not isinstance(body.get("code"), str):
        raise _refusal(request, answer, None, body["message"])
    if 200 in request.accept:
        return Reply(200, body)
    raise _is_not_v4(request)


def _refusal(request: Request, answer: Answer, code: int | None, message: Any) -> EmqxError:
    """HTTP 200 with a code other than 0, or with a message and no code at all."""
    asked, text = str(request), "" if code is None else str(code)
    reason = clean(message, request, answer.secrets) if message else MEANINGS.get(code or 0, "")
    if message == "existed":
        return EmqxAlreadyExistsError(200, text, reason, asked)
    if message == "module_not_loaded":
        return EmqxUnsupportedError("the broker's module for this is not loaded (module_not_loaded)", asked)
    if code in _NOT_FOUND or message in _TEXTS_NOT_FOUND:
        return EmqxNotFoundError(200, text, reason, asked)
    if code == 101 or code == 500:
        return EmqxServerError(200, text, reason, asked)
    return EmqxBadRequestError(200, text, reason, asked)


def _failure(request: Request, answer: Answer) -> EmqxError:
    """Another HTTP status: plain text from EMQX 4 itself, or anything from something before it."""
    asked, status = str(request), answer.status
    body = json_object(answer.body)
    # beyond these it may be a gateway that says so for the moment
    if isinstance(body.get("code"), str) and "message" in body and status in (400, 401, 403, 404, 405):
        return _is_not_v4(request)
    words = clean(body.get("message", "") or _text(answer), request, answer.secrets)
    if 300 <= status < 400:
        return redirected(request, answer)
    if status == 401:
        return EmqxAuthError(
            status,
            "",
            words,
            asked,
            "Check the AppID and secret of the connection. On EMQX 4's dashboard port (18083) an application is "
            "refused: its management port is 8081.",
        )
    if status == 403:
        return EmqxForbiddenError(status, "", words, asked, "Give the application the right to this call.")
    if status == 404:
        return EmqxUnsupportedError(
            "unknown endpoint at this address (HTTP 404): a plugin or module may not be loaded, a node name may be "
            "unknown, or the address is not that of an EMQX 4 API",
            asked,
        )
    if status == 429:
        return EmqxRateLimitError(
            status, "", words, asked, "Set a lower rate_limit.", retry_after=answer.retry_after
        )
    if status >= 500 or status in (408, 425):
        # 408 and 425 come from proxies, and mean "send it again"
        return EmqxServerError(status, "", words, asked, retry_after=answer.retry_after)
    return EmqxBadRequestError(status, "", words, asked)


def _is_not_v4(request: Request) -> EmqxConfigError:
    return EmqxConfigError(
        "the broker does not answer as EMQX 4 does, but the connection says v4: if it is EMQX 5 or newer, correct the "
        "API URL (…/api/v5) or the API version",
        str(request),
    )


def _text(answer: Answer) -> str:
    """EMQX 4's own texts (``Bad Request``, ``UNAUTHORIZED``) are short; anything long is a proxy's page or a stack."""
    words = answer.body.decode("utf-8", "replace").strip()
    if 0 < len(words) <= 40 and "<" not in words and words.isprintable():
        return words
    return describe(answer)

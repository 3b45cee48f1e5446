"""What the readers of both generations share: answers that are no EMQX answer."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_emqx.api.base import Answer, Request
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxServerError


def json_object(body: bytes) -> dict[str, Any]:
    """Decode an error body; anything but a JSON object is an empty one."""
    try:
        parsed = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


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
    """Say what came, without quoting it: a proxy's page may hold anything."""
    if not answer.body:
        return "no body"
    return f"{answer.content_type or 'no content type'}, {len(answer.body)} bytes"

"""The broker's own words in an error, without what they repeat of the request."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from airflow_provider_emqx.api.base import Request

_LIMIT = 300
_SECRET_FIELDS = frozenset({"password", "password_hash", "salt", "payload", "secret", "api_secret", "file"})
_BINARY = re.compile(r'<<.*?>>|"(?:[^"\\]|\\.)*"', re.DOTALL)
#: of an Authorization header, which something between may repeat
_CREDENTIALS = re.compile(r"\b(Basic|Bearer)\s+[\w+/=.-]{4,}", re.IGNORECASE)
_CHARLIST = re.compile(r"\[(?:\d{1,3},\s*)+\d{1,3}\]")


def clean(message: Any, request: Request, secrets: Collection[str] = ()) -> str:
    """
    Make the broker's message fit for a log.

    EMQX quotes rejected values (``{"value":…}``, Erlang terms, whole stacks), and a rejected value may be a password.
    What is quoted is left out; if a secret of the request or of the connection still shows, so is the whole message.

    :param message: ``message`` of an error body, or a text body.
    :param request: the request that was refused.
    :param secrets: of the connection.
    :return: one line of at most 300 characters.
    """
    try:
        text = message if isinstance(message, str) else json.dumps(message, default=str)
        text = _schema_error(text) or _BINARY.sub("…", _CHARLIST.sub(_as_text, text))
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        text = _CREDENTIALS.sub(r"\1 …", text)
        # before it is shortened, so that no beginning of a secret is left at the end
        if any(_shows(secret, text) for secret in _secrets(request)):
            return "(the broker's words repeat a secret of the request and are withheld)"
        if repeats_any(text, secrets):
            return "(the broker's words repeat a secret of the connection and are withheld)"
    except RecursionError:
        return "(the broker's words are nested too deeply to be read)"
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


def repeats_any(text: str, secrets: Collection[str]) -> bool:
    """Return whether a text shows a secret, as it is or as JSON writes it."""
    return any(_shows(form, text) for secret in secrets for form in _forms(secret))


def _schema_error(text: str) -> str:
    """``{"value":…,"reason":…,"path":…}`` (or a list of them), the broker's schema check, without the value."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return ""
    if isinstance(parsed, str):
        return _BINARY.sub("…", parsed)
    problems = parsed if isinstance(parsed, list) else [parsed]
    if not problems or not all(isinstance(problem, dict) and "kind" in problem for problem in problems):
        return ""
    return "; ".join(_problem(problem) for problem in problems)


def _problem(problem: dict[str, Any]) -> str:
    path = str(problem.get("path", "")).removeprefix("root.")
    reason = problem.get("reason", problem.get("kind", "refused"))
    if isinstance(reason, dict):
        reason = ", ".join(f"{name} {value}" for name, value in reason.items())
    return f"{path}: {reason}" if path and path != "root" else str(reason)


def _as_text(match: re.Match[str]) -> str:
    """Write an Erlang character list as the text it is: ``[67,97,110]`` is ``Can``."""
    codes = [int(code) for code in re.findall(r"\d+", match[0])]
    return "".join(map(chr, codes)) if all(code == 10 or 32 <= code < 127 for code in codes) else "…"


def _secrets(request: Request) -> set[str]:
    body = request.json
    if request.body is not None:
        try:
            body = json.loads(request.body)
        except ValueError:
            body = None
    # a body that is one text has no field that says what it is
    found = _forms(body) if isinstance(body, str) and body else set[str]()
    _collect(body, found)
    return found


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, (dict, list)):
                _collect(item, found)
            elif name in _SECRET_FIELDS and item not in ("", None):
                found |= _forms(str(item))


def _forms(secret: str) -> set[str]:
    """Return a secret as it is, and as JSON within the message writes it."""
    return {secret, *(json.dumps(secret, ensure_ascii=way)[1:-1] for way in (True, False))}


def _shows(secret: str, text: str) -> bool:
    # a short one may be a part of any word
    return secret in text and (
        len(secret) >= 8 or re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text) is not None
    )

"""API v4, bans."""

from __future__ import annotations

import ipaddress
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Crash, Request
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import Ban, State
from airflow_provider_emqx.testing.v4.replies import (
    BAD_PARAMETER,
    MISSING,
    data,
    done,
    failed,
    listing,
    read_object,
)

_KINDS = ("clientid", "username", "peerhost")
#: Seconds of a ban that does not say how long.
DEFAULT_LENGTH = 300


def _row(ban: Ban) -> dict[str, Any]:
    return {
        "who": ban.who,
        "as": ban.kind,
        "by": ban.by,
        "reason": ban.reason,
        "at": int(ban.at),
        "until": int(ban.until or 0),
    }


def list_bans(state: State, request: Request) -> Answer:
    """``GET /banned``: ``meta`` without ``hasnext``."""
    return listing(request, state.bans_in_force(), _row, hasnext=False)


def _check_kind(kind: Any) -> None:
    if kind not in _KINDS:
        raise failed(BAD_PARAMETER, f"value of 'as' must be one of: {list(_KINDS)}")


def create_ban(state: State, request: Request) -> Answer:
    """``POST /banned``: replaces an old one; without ``reason`` the handler crashes."""
    body = read_object(request)
    if "who" not in body or "as" not in body:
        raise failed(MISSING, "missing mandatory params: ['who', 'as']")
    kind, who = body["as"], body["who"]
    _check_kind(kind)
    if kind == "peerhost":
        try:
            who = str(ipaddress.ip_address(who)) if isinstance(who, str) else None
        except ValueError:
            raise Crash("badmatch") from None
    if not isinstance(who, str) or "reason" not in body:
        raise Crash("function_clause")
    now = int(state.now())
    at, until = body.get("at", now), body.get("until", now + DEFAULT_LENGTH)
    if not isinstance(at, int) or not isinstance(until, int):
        raise Crash("badarg")
    state.ban(Ban(kind, who, body.get("by", "user"), body["reason"], at, until))
    return data({name: body[name] for name in ("who", "as", "reason", "by", "at", "until") if name in body})


def delete_ban(state: State, request: Request, kind: str, who: str) -> Answer:
    """``DELETE /banned/{as}/{who}``: code 0 also for an unknown ban."""
    _check_kind(kind)
    state.bans.pop((kind, who), None)
    return done()


ROUTES = [
    Route("GET", "/banned", list_bans),
    Route("POST", "/banned", create_ban),
    Route("DELETE", "/banned/{as}/{who}", delete_ban),
]

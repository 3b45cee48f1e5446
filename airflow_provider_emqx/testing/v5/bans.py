"""API v5, bans."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from airflow_provider_emqx.testing.http import Answer, HttpError, Request, dump, parse_time, rfc3339
from airflow_provider_emqx.testing.routes import Route, since
from airflow_provider_emqx.testing.state import Ban, State
from airflow_provider_emqx.testing.v5.replies import (
    bad_request,
    check_enum,
    error,
    invalid,
    listing,
    no_content,
    ok,
    read_object,
)

_EXACT = ("clientid", "username", "peerhost")
_RULES = ("clientid_re", "username_re", "peerhost_net")  # since 5.6
_YEAR = 365 * 86400
_NEVER = "infinity"


def _kinds(state: State) -> tuple[str, ...]:
    return _EXACT + (_RULES if state.at_least(5, 6) else ())


def _row(ban: Ban) -> dict[str, Any]:
    return {
        "as": ban.kind,
        "who": ban.who,
        "by": ban.by,
        "reason": ban.reason,
        "at": rfc3339(ban.at),
        "until": _NEVER if ban.until is None else rfc3339(ban.until),
    }


def _current(state: State) -> list[Ban]:
    """Return the bans in force in the order of the listing: patterns, then the rest, newest first."""
    bans = state.bans_in_force()
    patterns = [ban for ban in bans if ban.kind in _RULES]
    return patterns + [ban for ban in reversed(bans) if ban.kind not in _RULES]


def _filter(state: State, request: Request) -> tuple[Callable[[Ban], bool], bool] | None:
    """Return the test of the one filter that is allowed, and whether it is fuzzy."""
    if not state.at_least(5, 8, 1):
        return None
    names = [*_EXACT, *(f"like_{name}" for name in _EXACT), "like_peerhost_net"]
    given = [name for name in names if request.arg(name) is not None]
    if len(given) > 1:
        raise bad_request("too_many_filters")
    if not given:
        return None
    name, value = given[0], request.arg(given[0]) or ""
    kind = name.removeprefix("like_")
    if name == kind:
        return lambda ban: ban.kind == kind and ban.who == value, False
    try:
        pattern = re.compile(value)
    except re.error:
        raise bad_request(f"Invalid regular expression: {value}") from None
    return lambda ban: ban.kind == kind and pattern.search(ban.who) is not None, True


def list_bans(state: State, request: Request) -> Answer:
    """``GET /banned``: ``hasnext`` only with a filter."""
    found = _filter(state, request)
    if found is None:
        return listing(state, request, _current(state), _row, hasnext=False)
    test, fuzzy = found
    return listing(state, request, [ban for ban in _current(state) if test(ban)], _row, fuzzy=fuzzy)


def _read_time(state: State, body: dict[str, Any], name: str, default: float | None) -> float | None:
    value = body.get(name)
    if value is None:
        return default
    if name == "until" and value == _NEVER and state.at_least(5, 8):
        return None
    try:
        return parse_time(str(value), 1.0)
    except ValueError:
        raise invalid(f"root.{name}", "Unable to parse string", value) from None


def _read_who(kind: str, who: Any) -> str:
    """Check what is banned; addresses and networks get their usual spelling."""
    if not isinstance(who, str):
        raise invalid("root.who", "unable_to_convert_to_string", who)
    try:
        if kind == "peerhost":
            return str(ipaddress.ip_address(who))
        if kind == "peerhost_net":
            return str(ipaddress.ip_network(who, strict=False))
        if kind.endswith("_re"):
            re.compile(who)
    except (ValueError, re.error):
        raise bad_request(f'"bad {kind}"') from None
    return who


def _expired(state: State, until: float) -> HttpError:
    now = int(state.now())
    if state.at_least(6, 3):
        return bad_request(f"Cannot create expired banned, {now} to {int(until)}")
    # What Erlang makes of "Cannot create expired banned, "A" to "B"" when it prints the list as numbers.
    words = [",".join(map(str, b"Cannot create expire")), ",".join(map(str, b"d banned, "))]
    to = ",".join(map(str, b" to "))
    return bad_request(f'[{words[0]},\n {words[1]},"{now}",{to},"{int(until)}"]')


def create_ban(state: State, request: Request) -> Answer:
    """``POST /banned``: 200; a ban that has not lapsed is not replaced."""
    body = read_object(request, "as", "who")
    kind = body["as"]
    check_enum(kind, _kinds(state), "root.as")
    who = _read_who(kind, body["who"])
    now = state.now()
    at = _read_time(state, body, "at", now)
    until = _read_time(state, body, "until", None if state.at_least(5, 8) else now + _YEAR)
    if until is not None and until <= now:
        raise _expired(state, until)
    old = state.bans.get((kind, who))
    if old is not None and (old.until is None or old.until > now):
        shown = _row(old)
        message = dump({name: shown[name] for name in ("who", "until", "reason", "by", "at", "as")})
        raise error(400, "ALREADY_EXISTS", message.decode())
    ban = Ban(kind, who, body.get("by", "mgmt_api"), body.get("reason", ""), at or now, until)
    state.ban(ban)
    return ok(_row(ban))


def clear_bans(state: State, request: Request) -> Answer:
    """``DELETE /banned``: all of them."""
    state.bans.clear()
    return no_content()


def delete_ban(state: State, request: Request, kind: str, who: str) -> Answer:
    """``DELETE /banned/{as}/{who}``."""
    check_enum(kind, _kinds(state), "as")
    if (kind, who) not in state.bans:
        raise error(404, "NOT_FOUND", f"{kind}: {who} not found")
    del state.bans[kind, who]
    return no_content()


ROUTES = [
    Route("GET", "/banned", list_bans),
    Route("POST", "/banned", create_ban),
    Route("DELETE", "/banned", clear_bans, since(5, 1)),
    Route("DELETE", "/banned/{as}/{who}", delete_ban),
]

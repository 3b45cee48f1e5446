"""Reads exports of EMQX 4, which are one JSON object, as rows of users, ACL rules and bans."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from airflow_provider_emqx.archives.records import Found, Refused, Row

#: bytes of salt before each hash
_SALT = 4
#: hex digits of the hashes that the plugin can make
_DIGITS = {32: "md5", 40: "sha", 64: "sha256", 128: "sha512"}
_HEX = re.compile(rb"[0-9a-f]+")
_KINDS = ("username", "clientid")
_ACTIONS = {"pub": "publish", "sub": "subscribe", "pubsub": "all"}
_UNKNOWN = "has an unknown form"


def algorithm(password_hash: str) -> dict[str, str]:
    """
    Return the algorithm of a hash: the plugin puts the salt before the password, whatever it hashes with.

    :param password_hash: hex digits.
    """
    return {"name": _DIGITS[len(password_hash)], "salt_position": "prefix"}


def _users(items: Iterable[Any]) -> Iterator[Found]:
    for item in items:
        match item:
            case {
                "login": str() as user_id,
                "type": "username" | "clientid" as kind,
                "password": str() as stored,
            }:
                yield Found(None, _user(user_id, stored), kind)
            case _:
                yield Found(None, Refused(_text(item, "login"), _UNKNOWN))


def _user(user_id: str, stored: str) -> Row | Refused:
    try:
        data = base64.b64decode(stored, validate=True)
    except (binascii.Error, ValueError):
        return Refused(user_id, "its password is not base64")
    for salted in (_SALT, 0):
        hashed = data[salted:]
        if len(hashed) in _DIGITS and _HEX.fullmatch(hashed):
            if data[:_SALT] == data[_SALT : 2 * _SALT]:
                break
            return {
                "user_id": user_id,
                "password_hash": hashed.decode(),
                "salt_base64": base64.b64encode(data[:salted]).decode(),
            }
    else:
        # a plugin that does not hash puts the salt before the salted password
        if len(data) > 2 * _SALT and data[:_SALT] == data[_SALT : 2 * _SALT]:
            try:
                return {"user_id": user_id, "password": data[2 * _SALT :].decode()}
            except UnicodeDecodeError:
                return Refused(user_id, "its password is not valid UTF-8")
    return Refused(
        user_id,
        "its password is stored in an unknown form (expected 4 bytes of salt and the hex digits of md5, sha, sha256 or "
        "sha512): the device needs a new password",
    )


def _rules(items: Iterable[Any]) -> Iterator[Found]:
    # the newest rule counts first
    for _, rules in groupby(items, _whose):
        for item in sorted(rules, key=_created, reverse=True):
            yield Found(None, _rule(item))


def _whose(item: Any) -> tuple[Any, Any]:
    return (item.get("type"), item.get("type_value")) if isinstance(item, dict) else (None, None)


def _created(item: Any) -> float:
    created = item.get("created_at") if isinstance(item, dict) else None
    return created if isinstance(created, int | float) else 0


def _rule(item: Any) -> Row | Refused:
    match item:
        case {"type": "username" | "clientid" as kind, "type_value": str() as name}:
            row = {kind: name}
        case {"type": "all"}:
            row = {"all": "true"}
        case _:
            return Refused(_text(item, "type_value"), _UNKNOWN)
    match item:
        case {
            "topic": str() as topic,
            "action": "pub" | "sub" | "pubsub" as action,
            "access": str() as access,
        }:
            return {**row, "topic": topic, "action": _ACTIONS[action], "permission": access}
    return Refused(next(iter(row.values())), "has a rule of an unknown form")


def _bans(items: Iterable[Any]) -> Iterator[Found]:
    for item in items:
        yield Found(None, _ban(item))


def _ban(item: Any) -> Row | Refused:
    who = item.get("who") if isinstance(item, dict) else None
    if isinstance(who, list) and len(who) == 1:
        who = who[0]
    match who:
        case {"clientid": str() as name}:
            kind = "clientid"
        case {"username": str() as name}:
            kind = "username"
        case {"peerhost": str() as name}:
            kind = "peerhost"
        case _:
            return Refused(None, "a ban of an unknown form")
    until = item.get("until")
    try:
        end = until if until == "infinity" else datetime.fromtimestamp(until, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return Refused(name, "the ban's end has an unknown form")
    return {
        "kind": kind,
        "who": name,
        "until": end,
        "reason": _text(item, "reason") or "",
        "by": _text(item, "by") or "",
    }


def _text(item: Any, name: str) -> str | None:
    value = item.get(name) if isinstance(item, dict) else None
    return value if isinstance(value, str) else None


#: the arrays that are read, and what reads one
ARRAYS: dict[str, tuple[str, Callable[[Iterable[Any]], Iterator[Found]]]] = {
    "users": ("auth_mnesia", _users),
    "acl_rules": ("acl_mnesia", _rules),
    "bans": ("blacklist", _bans),
}
#: where EMQX before 4.3 kept users, in forms of their own
OLDER = ("auth_username", "auth_clientid")

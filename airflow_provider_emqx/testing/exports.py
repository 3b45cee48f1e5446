"""Exports as EMQX 4.4 writes and reads them: one JSON object."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

from airflow_provider_emqx.testing.passwords import User
from airflow_provider_emqx.testing.state import AclRow, Ban, State

#: how 4.4 writes a ban without an end
_FOREVER = 4102444800
_SALT = 4


def make(state: State) -> bytes:
    """Export users, rules and bans, and the keys of the API, in clear as the broker does it."""
    now = state.now()
    return json.dumps(
        {
            "version": ".".join(map(str, state.version[:2])),
            "rules": [],
            "resources": [],
            "blacklist": [_ban(ban) for ban in state.bans.values()],
            "apps": [_app(key, secret) for key, secret in _keys(state)],
            "users": [],
            "auth_mnesia": [
                _user(state, kind, user_id, user)
                for kind, users in state.v4_users.items()
                for user_id, user in users.items()
            ],
            "acl_mnesia": _rules(state, int(now * 1000)),
            "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now)),
        }
    ).encode()


def _keys(state: State) -> list[tuple[str, str]]:
    return [(name, key.secret) for name, key in state.keys.items()]


def _app(key: str, secret: str) -> dict[str, Any]:
    return {"id": key, "secret": secret, "name": key, "desc": "", "status": True, "expired": "undefined"}


def _ban(ban: Ban) -> dict[str, Any]:
    until = _FOREVER if ban.until is None else int(ban.until)
    return {"who": {ban.kind: ban.who}, "by": ban.by, "reason": ban.reason, "at": int(ban.at), "until": until}


def _user(state: State, kind: str, user_id: Any, user: User) -> dict[str, Any]:
    password_hash, salt = user.stored(state.algorithm, os.urandom(_SALT).decode("utf-8", "surrogateescape"))
    secret = salt.encode("utf-8", "surrogateescape") + password_hash.encode()
    return {
        "login": user_id,
        "type": kind,
        "password": base64.b64encode(secret).decode(),
        "created_at": user.created_at,
    }


def _rules(state: State, now: int) -> list[dict[str, Any]]:
    """Return the rules, of each subject the newest first."""
    rows = list(state.acl_rows.values())
    found = []
    for subject in ("all", "clientid", "username"):
        for login in sorted({row.login for row in rows if row.subject == subject}):
            found += [
                {
                    "type": subject,
                    **({} if subject == "all" else {"type_value": login}),
                    "topic": row.topic,
                    "action": row.action,
                    "access": row.access,
                    "created_at": now - len(rows) + number,
                }
                for number, row in reversed(list(enumerate(rows)))
                if (row.subject, row.login) == (subject, login)
            ]
    return found


def restore(state: State, content: bytes) -> None:
    """Import an export: what it holds is added to what there is."""
    given = json.loads(content)
    for row in given.get("auth_mnesia", ()):
        stored = base64.b64decode(row["password"])
        salt = stored[:_SALT].decode("utf-8", "surrogateescape")
        user = User(None, False, row["created_at"], stored[_SALT:].decode(), salt)
        state.v4_users[row["type"]][row["login"]] = user
    for row in sorted(given.get("acl_mnesia", ()), key=lambda row: row["created_at"]):
        rule = AclRow(row["type"], row.get("type_value", "all"), row["topic"], row["action"], row["access"])
        state.acl_rows[rule.subject, rule.login, rule.topic, rule.action] = rule
    for row in given.get("blacklist", ()):
        ((kind, who),) = row["who"].items()
        until = None if row["until"] >= _FOREVER else row["until"]
        state.bans[kind, who] = Ban(kind, who, row["by"], row["reason"], row["at"], until)

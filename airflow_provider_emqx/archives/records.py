"""Records of the tables in an archive, as rows of users, ACL rules and bans under the names that sources have."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_provider_emqx.archives.tables import Schema, TableError
from airflow_provider_emqx.archives.terms import Atom, Term, is_text

Row = dict[str, Any]

#: whose users MQTT clients are; gateways and single listeners have others in the same table
MQTT = "mqtt:global"
_SCRAM = (
    "is a SCRAM user, whose keys no request can write: create it on the new broker with its password, or import the "
    "archive as a whole"
)


class Refused(NamedTuple):
    """
    A record that becomes no row.

    :param name: whose it is, ``None`` if unknown.
    :param reason: why.
    """

    name: str | None
    reason: str


class Found(NamedTuple):
    """
    One row of a record.

    :param namespace: whose it is, ``None`` for all.
    :param row: the row, or why the record does not become one.
    :param user_id_type: of a user, ``"username"`` or ``"clientid"``, where the source has both.
    """

    namespace: str | None
    row: Row | Refused
    user_id_type: str | None = None


class _Unknown(Exception):
    """A value of an unknown form."""


def rows(what: str, schema: Schema, records: Iterator[Term]) -> Iterator[Found]:
    """
    Read the records of one table.

    :param what: ``"users"``, ``"acl_rules"`` or ``"bans"``.
    :param schema: the table's.
    :param records: its records.
    :return: an iterator over their rows, of which a record of rules may have several or none.
    :raises TableError: if the table's records have other fields than those that are known here.
    """
    attributes, read = TABLES[what][schema.name]
    if schema.attributes != attributes:
        raise TableError(
            f"its records have the fields {', '.join(schema.attributes)}; expected {', '.join(attributes)}"
        )
    for number, record in enumerate(records, 1):
        if not isinstance(record, tuple) or len(record) != len(attributes) + 1:
            raise TableError(f"record {number:,} does not have the fields of the table")
        yield from read(record[1:])


def _users(fields: tuple[Term, ...]) -> Iterator[Found]:
    key, hashed, salt, flag, *_ = fields
    namespace, key = (key[0], key[1:]) if isinstance(key, tuple) and len(key) == 3 else (None, key)
    match key, hashed, salt, flag:
        case ((group, bytes() as name), bytes(), bytes(), bool()):
            yield Found(_text(namespace), _user(group, name, hashed, salt, flag))
        case _:
            yield Found(None, Refused(_name(key), "is a record of an unknown form"))


def _user(group: Term, name: bytes, hashed: bytes, salt: bytes, flag: bool) -> Row | Refused:
    try:
        user_id = name.decode()
    except UnicodeDecodeError:
        return Refused(_name(name), "user_id is not valid UTF-8")
    if group != MQTT:
        return Refused(user_id, f"is a user of {_name(group)!r}, and not of MQTT as a whole ({MQTT})")
    return {
        "user_id": user_id,
        "password_hash": hashed.decode("utf-8", "replace"),
        "salt_base64": base64.b64encode(salt).decode(),
        "is_superuser": flag,
    }


def _scram_users(fields: tuple[Term, ...]) -> Iterator[Found]:
    key = fields[0]
    namespace, key = (key[0], key[1:]) if isinstance(key, tuple) and len(key) == 3 else (None, key)
    yield Found(_text(namespace), Refused(_name(key), _SCRAM))


def _rules(fields: tuple[Term, ...]) -> Iterator[Found]:
    who, rules = fields[:2]
    namespace: str | None = None
    match who:
        case (bytes() as tenant, inner) if len(fields) == 3:
            namespace, who = _text(tenant), inner
    match who:
        case 0:
            subject: Row = {"all": "true"}
        case (1 | 2 as kind, bytes() as name) if is_text(name):
            subject = {"username" if kind == 1 else "clientid": name.decode()}
        case _:
            yield Found(namespace, Refused(_name(who), "has rules of an unknown form"))
            return
    for rule in rules if isinstance(rules, list) else [rules]:
        try:
            yield from (Found(namespace, {**subject, **row}) for row in _rule(rule))
        except _Unknown as error:
            name = next(iter(subject.values()))
            yield Found(namespace, Refused(name, f"has a rule of an unknown form: {error}"))


def _rule(rule: Term) -> list[Row]:
    match rule:
        case (Atom("allow" | "deny") as permission, action, topics):
            conditions: Row = {}
        case (Atom("allow" | "deny") as permission, who, action, topics):
            conditions = _conditions(who)
        case _:
            raise _Unknown("not of permission, action and topic")
    options: list[Term] = []
    match action:
        case (Atom() as action, [*options]):
            pass
        case Atom():
            pass
        case _:
            raise _Unknown("its action")
    row: Row = {"permission": str(permission), "action": str(action)}
    for option in options:
        match option:
            case (Atom("qos"), [*levels]):
                row["qos"] = levels
            case (Atom("retain"), bool() | Atom("all") as retain):
                row["retain"] = retain if isinstance(retain, bool) else str(retain)
            case _:
                raise _Unknown("a limit of its action")
    return [
        {**row, "topic": _topic(topic), **conditions}
        for topic in (topics if isinstance(topics, list) else [topics])
    ]


def _topic(topic: Term) -> str:
    match topic:
        case bytes() if is_text(topic):
            return str(topic.decode())
        case (Atom("eq"), bytes() as same) if is_text(same):
            return f"eq {same.decode()}"
    raise _Unknown("its topic")


def _conditions(who: Term) -> Row:
    """Read to whom a rule is limited: to all, to one condition, or to several of which all must hold."""
    match who:
        case Atom("all"):
            return {}
        case (Atom("and"), [*several]):
            return {name: value for one in several for name, value in _conditions(one).items()}
        case (Atom("username" | "clientid" | "zone" | "listener") as kind, (Atom("re"), pattern)):
            return {f"{kind}_re": _told(pattern)}
        case (Atom("ipaddr" | "zone" | "listener") as kind, value):
            return {str(kind): _told(value)}
    raise _Unknown("to whom it is limited")


def _told(value: Term) -> str:
    """Read a text that is a binary, an atom, or a list of characters."""
    if isinstance(value, Atom):
        return str(value)
    if isinstance(value, list) and all(isinstance(one, int) and 0 <= one < 0x110000 for one in value):
        return "".join(map(chr, value))
    if isinstance(value, bytes) and is_text(value):
        return value.decode()
    raise _Unknown("to whom it is limited")


def _bans(fields: tuple[Term, ...]) -> Iterator[Found]:
    who, by, reason, _, until = fields
    try:
        kind, name = _banned(who)
        yield Found(
            None,
            {
                "kind": kind,
                "who": name,
                "until": _end(until),
                "reason": _remark(reason),
                "by": _remark(by),
            },
        )
    except _Unknown as error:
        yield Found(None, Refused(_name(who), f"is a ban of an unknown form: {error}"))


def _banned(who: Term) -> tuple[str, str]:
    match who:
        case (Atom("clientid" | "username" | "clientid_re" | "username_re") as kind, bytes() as name):
            return str(kind), _told(name)
        # until 5.8 the compiled expression stands before its text
        case (Atom("clientid_re" | "username_re") as kind, (tuple(), bytes() as pattern)):
            return str(kind), _told(pattern)
        case (Atom("peerhost"), tuple() as address):
            return "peerhost", str(_address(address))
        case (Atom("peerhost_net"), (tuple() as first, tuple(), int() as length)):
            return "peerhost_net", f"{_address(first)}/{length}"
    raise _Unknown("who is banned")


def _address(parts: tuple[Term, ...]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    width = {4: 1, 8: 2}.get(len(parts), 0)
    if not width or not all(isinstance(part, int) and 0 <= part < 256**width for part in parts):
        raise _Unknown("who is banned")
    return ipaddress.ip_address(b"".join(part.to_bytes(width, "big") for part in parts))


def _end(until: Term) -> str:
    if until == Atom("infinity"):
        return "infinity"
    try:
        return datetime.fromtimestamp(until, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        raise _Unknown("its end") from None


def _remark(text: Term) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else ""


def _text(name: Term) -> str | None:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else None


def _name(key: Term) -> str | None:
    """Return whose a record is, for the report."""
    if isinstance(key, tuple):
        key = key[-1] if key else None
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    return str(key) if isinstance(key, str | int) else None


Read = Callable[[tuple[Term, ...]], Iterator[Found]]
USER = ("user_id", "password_hash", "salt", "is_superuser")
_KEYS = ("user_id", "stored_key", "server_key", "salt", "is_superuser")
_BAN = ("who", "by", "reason", "at", "until")

#: the tables that are read: fields of their records, and what reads one
TABLES: dict[str, dict[str, tuple[tuple[str, ...], Read]]] = {
    "users": {
        "emqx_authn_mnesia": (USER, _users),
        "emqx_authn_mnesia_ns": ((*USER, "extra"), _users),
        "emqx_authn_scram_mnesia": (_KEYS, _scram_users),
        "emqx_authn_scram_mnesia_ns": ((*_KEYS, "extra"), _scram_users),
    },
    "acl_rules": {
        "emqx_acl": (("who", "rules"), _rules),
        "emqx_acl_ns": (("who", "rules", "extra"), _rules),
    },
    "bans": {
        "emqx_banned": (_BAN, _bans),
        "emqx_banned_rules": (_BAN, _bans),
    },
}

#: of the authenticator of the built-in database; others have one, too
_ALGORITHM = re.compile(
    r'backend"?\s*[=:]\s*"?built_in_database"?[^{}]*password_hash_algorithm"?\s*[=:]?\s*\{([^{}]*)\}'
)
_SETTING = re.compile(r'(\w+)"?\s*[=:]\s*"?(\w+)"?')


def algorithm(configuration: str) -> dict[str, str] | None:
    """
    Read from a configuration how passwords are hashed.

    :param configuration: the ``cluster.hocon`` of an archive.
    :return: settings such as ``{"name": "sha256", "salt_position": "suffix"}``; ``None`` without any, or with
        several that differ.
    """
    found = {tuple(sorted(_SETTING.findall(block))) for block in _ALGORITHM.findall(configuration)}
    return dict(found.pop()) if len(found) == 1 else None

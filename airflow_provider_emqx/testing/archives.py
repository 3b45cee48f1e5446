"""Archives as EMQX 5 and 6 export and import them: tables of records, in a ``.tar.gz``."""

from __future__ import annotations

import hashlib
import hmac
import io
import ipaddress
import json
import os
import re
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from airflow_provider_emqx.archives.archive import (
    CLUSTER,
    META,
    TABLES,
    ArchiveError,
    Meta,
    read_archive,
    read_meta,
    write_archive,
)
from airflow_provider_emqx.archives.tables import TableError, item, read_items, read_table, write_table
from airflow_provider_emqx.archives.terms import Atom, Term, TermError, decode, encode
from airflow_provider_emqx.archives.users import TABLE, Stored, record
from airflow_provider_emqx.testing.passwords import User
from airflow_provider_emqx.testing.state import Authenticator, Ban, State
from airflow_provider_emqx.testing.tables import Table

#: the only group of users that the double keeps: those of MQTT clients
_GROUP = Atom("mqtt:global")
_USER = ("user_id", "password_hash", "salt", "is_superuser")
_KEYS = ("user_id", "stored_key", "server_key", "salt", "is_superuser")
_BAN = ("who", "by", "reason", "at", "until")
_KINDS = {1: "users", 2: "clients"}
_CONDITIONS = ("username_re", "clientid_re", "ipaddr", "zone", "zone_re", "listener", "listener_re")
_CONFIGURATION = "authentication = "

Rule = dict[str, Any]


class Refused(Exception):
    """An archive that this broker does not take."""


# ---------------------------------------------------------------------- export


def make(state: State, root: str, table_sets: Iterable[str] | None, root_keys: Iterable[str] | None) -> bytes:
    """Export tables and configuration.

    :param root: Name of the directory in the archive.
    :param table_sets: Which tables, ``None`` for all.
    :param root_keys: Which parts of the configuration, ``None`` for all; the double has authentication only.
    """
    edition = "ce" if state.edition == "Opensource" else "ee"
    files = {META: f'edition = {edition}\nversion = "{state.version_text}"\n'.encode()}
    configuration = [found.config for found in state.authenticators.values()]
    asked = root_keys is None or "authentication" in root_keys
    files[CLUSTER] = f"{_CONFIGURATION}{json.dumps(configuration)}\n".encode() if asked else b""
    for table_set, tables in sorted(
        _EXPORTED.items(), key=lambda one: not state.at_least(6) and one[0] == "banned"
    ):
        if table_sets is not None and table_set not in table_sets:
            continue
        for name, (attributes, kind, record_name, records, since) in tables.items():
            if state.version >= since:
                files[TABLES + name] = _table(state, name, attributes, kind, record_name, records(state))
    buffer = io.BytesIO()
    write_archive(
        buffer, root, ((name, io.BytesIO(data), len(data)) for name, data in files.items()), level=1
    )
    return buffer.getvalue()


def _table(
    state: State, name: str, attributes: tuple[str, ...], kind: str, record: str, rows: Iterator[Term]
) -> bytes:
    node, now = Atom(state.node), state.now()
    moment = (int(now // 1_000_000), int(now % 1_000_000), int(now * 1_000_000) % 1_000_000)
    older = not state.at_least(6)
    mnesia = "4.21.3" if older else "4.23.5"
    header = (Atom("log_header"), Atom("backup_log"), list(b"1.2"), list(mnesia.encode()), node, moment)
    schema = {
        "name": Atom(name),
        "type": Atom(kind),
        "ram_copies": [],
        "disc_copies": [node],
        "disc_only_copies": [],
        "load_order": 0,
        "access_mode": Atom("read_write"),
        "majority": False,
        "index": [],
        "snmp": [],
        "local_content": False,
        "record_name": Atom(record),
        "attributes": [Atom(one) for one in attributes],
        "user_properties": [],
        "frag_properties": [],
        "storage_properties": [(Atom("ets"), [(Atom("read_concurrency"), True)])],
        "cookie": ((time.time_ns(), -576460752303422415, 1), node),
        "version": ((2, 0), []),
    }
    properties = [(Atom(key), value) for key, value in schema.items()]
    file = io.BytesIO()
    write_table(file, header, (Atom("schema"), Atom(name), properties), (), older)
    for fields in rows:
        # users may be a million
        file.write(fields if isinstance(fields, bytes) else item(encode((Atom(name), *fields), older)))
    return file.getvalue()


def _built_in(state: State) -> Authenticator | None:
    return next(
        (one for one in state.authenticators.values() if one.config.get("mechanism") == "password_based"),
        None,
    )


def _stored(found: Authenticator, users: Table[User]) -> Iterator[tuple[Any, bytes, bytes, bool]]:
    algorithm = found.config["password_hash_algorithm"]
    for user_id in reversed(users.descending()):
        user = users[user_id]
        password_hash, salt = user.stored(algorithm)
        key = user_id.encode() if isinstance(user_id, str) else user_id
        yield key, password_hash.encode(), salt.encode("utf-8", "surrogateescape"), user.is_superuser


def _users(state: State) -> Iterator[Term]:
    found = _built_in(state)
    if found is None:
        return
    # groups are atoms, in the order of their names
    before = [key for key in sorted(state.gateway_users) if key[0] < _GROUP]
    after = [key for key in sorted(state.gateway_users) if key[0] > _GROUP]
    yield from ((key, *state.gateway_users[key]) for key in before)
    form = int(state.at_least(6))
    for key, password_hash, salt, flag in _stored(found, found.users):
        if isinstance(key, bytes):
            yield record(key, Stored(password_hash, salt, flag), form)
        else:
            yield (_GROUP, key), password_hash, salt, flag
    yield from ((key, *state.gateway_users[key]) for key in after)


def _scram_users(state: State) -> Iterator[Term]:
    """Return the keys of SCRAM users as RFC 5802 makes them; an import leaves them out, since the double keeps none."""
    for name, found in state.authenticators.items():
        if found.config.get("mechanism") != "scram":
            continue
        algorithm = str(found.config.get("algorithm", "sha256"))
        for user_id in reversed(found.users.descending()):
            user, salt = found.users[user_id], os.urandom(16).hex().encode()
            rounds = int(found.config.get("iteration_count", 4096))
            salted = hashlib.pbkdf2_hmac(algorithm, (user.password or "").encode(), salt, rounds)
            client, server = (hmac.digest(salted, one, algorithm) for one in (b"Client Key", b"Server Key"))
            stored = hashlib.new(algorithm, client).digest()
            yield (name.encode(), str(user_id).encode()), stored, server, salt, user.is_superuser


def _namespaced_users(state: State) -> Iterator[Term]:
    found = _built_in(state)
    if found is None:
        return
    for namespace, users in found.namespaces.items():
        yield from (
            ((namespace.encode(), _GROUP, key), *fields, {}) for key, *fields in _stored(found, users)
        )


def _rules(state: State) -> Iterator[Term]:
    yield from _rules_of(state, "", state.acl_users, state.acl_clients)


def _namespaced_rules(state: State) -> Iterator[Term]:
    for namespace in sorted({namespace for namespace, _ in state.acl_namespaces if namespace}):
        tables = (state.acl_namespaces.get((namespace, kind), Table()) for kind in _KINDS.values())
        for who, rules in _rules_of(state, namespace, *tables):
            yield (namespace.encode(), who), rules, {}


def _rules_of(
    state: State, namespace: str, users: Table[list[Rule]], clients: Table[list[Rule]]
) -> Iterator[tuple[Term, list[Term]]]:
    for rules in state.acl_namespaces.get((namespace, "all"), {}).values():
        yield 0, [_rule(state, rule) for rule in rules]
    for kind, table in ((1, users), (2, clients)):
        for name in reversed(table.descending()):
            yield (kind, name.encode()), [_rule(state, rule) for rule in table[name]]


def _rule(state: State, rule: Rule) -> Term:
    options: list[Term] = [(Atom("qos"), rule["qos"])]
    if rule["action"] != "subscribe":
        retain = {"all": Atom("all"), "true": True, "false": False}.get(rule["retain"], rule["retain"])
        options.append((Atom("retain"), retain))
    topic = rule["topic"]
    plain: Term = topic.encode()
    if topic.startswith("eq "):
        plain = (Atom("eq"), topic.removeprefix("eq ").encode())
    limits = [_condition(name, rule[name]) for name in _CONDITIONS if name in rule]
    who: Term = limits[0] if len(limits) == 1 else (Atom("and"), limits) if limits else Atom("all")
    action = (Atom(rule["action"]), options)
    return (Atom(rule["permission"]), *((who,) if state.at_least(5, 9) else ()), action, plain)


def _condition(name: str, value: str) -> Term:
    if name.endswith("_re"):
        return Atom(name.removesuffix("_re")), (Atom("re"), value.encode())
    # how zones and listeners are kept is in no recording
    return Atom(name), list(value.encode())


def _bans(state: State) -> Iterator[Term]:
    yield from (_ban(state, ban) for ban in state.bans.values() if not ban.kind.endswith(("_re", "_net")))


def _ban_rules(state: State) -> Iterator[Term]:
    yield from (_ban(state, ban) for ban in state.bans.values() if ban.kind.endswith(("_re", "_net")))


def _ban(state: State, ban: Ban) -> Term:
    who: Term = ban.who.encode()
    if ban.kind == "peerhost":
        who = _address(ipaddress.ip_address(ban.who))
    elif ban.kind == "peerhost_net":
        network = ipaddress.ip_network(ban.who)
        who = (_address(network.network_address), _address(network.broadcast_address), network.prefixlen)
    elif ban.kind.endswith("_re") and not state.at_least(6):
        # what Erlang makes of an expression is Erlang's
        who = ((Atom("re_pattern"), 0, 0, 0, b""), who)
    until: Term = Atom("infinity") if ban.until is None else int(ban.until)
    return (Atom(ban.kind), who), ban.by.encode(), ban.reason.encode(), int(ban.at), until


def _address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Term:
    packed, width = address.packed, 1 if address.version == 4 else 2
    return tuple(int.from_bytes(packed[at : at + width], "big") for at in range(0, len(packed), width))


_OLD, _NAMESPACES = (5, 0), (6, 1)
#: attributes, type, record name, what gives the records, and since when there is such a table
_EXPORTED: dict[
    str, dict[str, tuple[tuple[str, ...], str, str, Callable[[State], Iterator[Term]], tuple[int, ...]]]
] = {
    "banned": {
        "emqx_banned_rules": (_BAN, "set", "banned", _ban_rules, (5, 6)),
        "emqx_banned": (_BAN, "set", "banned", _bans, _OLD),
    },
    "builtin_authn": {
        "emqx_authn_mnesia": (_USER, "ordered_set", "user_info", _users, _OLD),
        "emqx_authn_mnesia_ns": (
            (*_USER, "extra"),
            "ordered_set",
            "emqx_authn_mnesia_ns",
            _namespaced_users,
            _NAMESPACES,
        ),
        "emqx_authn_scram_mnesia": (_KEYS, "ordered_set", "user_info", _scram_users, _OLD),
    },
    "builtin_authz": {
        "emqx_acl": (("who", "rules"), "ordered_set", "emqx_acl", _rules, _OLD),
        "emqx_acl_ns": (
            ("who", "rules", "extra"),
            "ordered_set",
            "emqx_acl_ns",
            _namespaced_rules,
            _NAMESPACES,
        ),
    },
}


# ---------------------------------------------------------------------- import


def check(state: State, filename: str, content: bytes) -> None:
    """Validate an archive as an upload does.

    :param filename: The one directory in the archive must be called as the file is.
    :raises Refused: If it is not an archive, or of a broker whose archives this one does not import.
    """
    meta: Meta | None = None
    if _root(content) != filename.removesuffix(".tar.gz"):
        raise Refused(
            "invalid backup archive content: all files in the archive must be under <backup name> directory"
        )
    try:
        for name, file, _ in read_archive(io.BytesIO(content)):
            if name == META:
                meta = read_meta(file)
    except ArchiveError:
        raise Refused("Backup file is invalid or corrupted") from None
    if meta is None:
        raise Refused("Backup file is invalid or corrupted")
    if meta.edition == "ee" and state.edition == "Opensource":
        raise Refused("importing EMQX Enterprise data backup to EMQX is not allowed")
    if tuple(map(int, re.findall(r"\d+", meta.version)[:2])) > state.version[:2]:
        raise Refused(
            f'[warning] Backup version "{meta.version}" is newer than EMQX version "{state.version_text}", import is '
            "not allowed.\n"
        )


def _root(content: bytes) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            (root,) = {name.partition("/")[0] for name in archive.getnames()}
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error):
        raise Refused("Backup file is invalid or corrupted") from None
    return root


def restore(state: State, filename: str, content: bytes, most: int | None = None) -> tuple[int, int]:
    """Import an archive: what it holds is added to what there is. A table that is cut ends where it is cut.

    :param most: Records of each table that are imported at most, as if it were cut there.
    :return: How many records were written, and how many keys deleted.
    """
    check(state, filename, content)
    written = deleted = 0
    for name, file, _ in read_archive(io.BytesIO(content)):
        data = file.read()
        if name == CLUSTER and data.startswith(_CONFIGURATION.encode()):
            for config in json.loads(data.removeprefix(_CONFIGURATION.encode())):
                state.authenticators.setdefault(
                    f"{config['mechanism']}:{config['backend']}", Authenticator(config)
                )
        elif name == TABLES + TABLE:
            counts = _put_users(state, data, most)
            written, deleted = written + counts[0], deleted + counts[1]
        elif (put := _IMPORTED.get(name.removeprefix(TABLES))) and name.startswith(TABLES):
            for record in islice(_records(data), most):
                put(state, *record[1:])
                written += len(record) > 2
                deleted += len(record) == 2
    return written, deleted


def _put_users(state: State, data: bytes, most: int | None) -> tuple[int, int]:
    """Import the table of users, which may be a hundred thousand: most items begin and end alike."""
    written = deleted = 0
    starts = tuple(encode((Atom(TABLE), (_GROUP, b"")), latin)[:-4] for latin in (False, True))
    found = _built_in(state)
    try:
        items = read_items(io.BytesIO(data))
        for _ in range(2):
            next(items)
        for one in islice(items, most):
            if one.startswith(starts) and found is not None:
                # after its size, the id is all that follows
                start = starts[one.startswith(starts[1])]
                found.users.pop(one[len(start) + 4 :].decode(), None)
                deleted += 1
                continue
            record = decode(one)
            _put_user(state, *record[1:])
            written += len(record) > 2
            deleted += len(record) == 2
    except (TableError, TermError, StopIteration):
        pass
    return written, deleted


def _records(data: bytes) -> Iterator[Any]:
    try:
        _, records = read_table(io.BytesIO(data))
        yield from records
    except TableError:
        return


def _put_user(state: State, key: Term, *fields: Term) -> None:
    found = _built_in(state)
    if found is None:
        return
    if len(key) == 2 and key[0] != _GROUP:
        if fields:
            state.gateway_users[key] = fields
        else:
            state.gateway_users.pop(key, None)
        return
    namespace, name = (key[0].decode(), key[2]) if len(key) == 3 else (None, key[1])
    users = found.users_of(namespace)
    name = name.decode() if isinstance(name, bytes) else name
    if not fields:
        users.pop(name, None)
        return
    password_hash, salt, flag = fields[:3]
    users[name] = User(None, flag, 0, password_hash.decode(), salt.decode("utf-8", "surrogateescape"))


def _put_rules(state: State, key: Term, *fields: Term) -> None:
    namespace, who = (
        (key[0].decode(), key[1]) if isinstance(key, tuple) and isinstance(key[0], bytes) else ("", key)
    )
    if who == 0:
        table, name = state.acl_namespaces.setdefault((namespace, "all"), Table()), "all"
    else:
        kind, name = _KINDS[who[0]], who[1].decode()
        table = state.acl_users if kind == "users" else state.acl_clients
        if namespace:
            table = state.acl_namespaces.setdefault((namespace, kind), Table())
    if fields:
        table[name] = [_read_rule(rule) for rule in fields[0]]
    else:
        table.pop(name, None)


def _read_rule(rule: Term) -> Rule:
    permission, *who, (action, options), topic = rule
    limits = who[0][1] if who and who[0][0] == "and" else [] if not who or who[0] == "all" else who
    given = {str(name): value for name, value in options}
    return {
        "topic": f"eq {topic[1].decode()}" if isinstance(topic, tuple) else topic.decode(),
        "permission": str(permission),
        "action": str(action),
        "qos": given["qos"],
        "retain": given.get("retain", "all"),
        **dict(map(_read_condition, limits)),
    }


def _read_condition(condition: Term) -> tuple[str, str]:
    name, value = condition
    if isinstance(value, tuple):
        return f"{name}_re", value[1].decode()
    return str(name), bytes(value).decode()


def _put_ban(state: State, key: Term, *fields: Term) -> None:
    kind, who = str(key[0]), key[1]
    if kind == "peerhost":
        name = str(_read_address(who))
    elif kind == "peerhost_net":
        name = f"{_read_address(who[0])}/{who[2]}"
    else:
        name = (who[1] if isinstance(who, tuple) else who).decode()
    if not fields:
        state.bans.pop((kind, name), None)
        return
    by, reason, at, until = fields
    state.bans[kind, name] = Ban(
        kind, name, by.decode(), reason.decode(), at, None if until == "infinity" else until
    )


def _read_address(parts: Term) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(b"".join(part.to_bytes(2 if len(parts) == 8 else 1, "big") for part in parts))


_IMPORTED: dict[str, Callable[..., None]] = {
    "emqx_authn_mnesia": _put_user,
    "emqx_authn_mnesia_ns": _put_user,
    "emqx_acl": _put_rules,
    "emqx_acl_ns": _put_rules,
    "emqx_banned": _put_ban,
    "emqx_banned_rules": _put_ban,
}

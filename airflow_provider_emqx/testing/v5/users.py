"""API v5, authentication: authenticators, users of the built-in database, imports."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Request, json_answer, multipart_file
from airflow_provider_emqx.testing.passwords import SHA256_PREFIX, User
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import BUILT_IN, Authenticator, State
from airflow_provider_emqx.testing.tables import Table
from airflow_provider_emqx.testing.v5.replies import (
    bad_request,
    bool_arg,
    error,
    invalid,
    listing,
    masked,
    namespace_arg,
    no_content,
    ok,
    page_args,
    read_json,
    read_object,
)

#: Users that EMQX Cloud Serverless allows.
SERVERLESS_USERS = 2000
#: Seconds of the broker's time per user listed, and per user on the pages before: by pages of 10,000, 120,001 users
#: take 1.4 s, and 1,100,000 take 59 s.
LISTED_USER_COST = 6.0e-6
PASSED_USER_COST = 0.86e-6


def _missing(name: str) -> Exception:
    return error(404, "NOT_FOUND", f"Authenticator '{name}' does not exist")


def _authenticator(state: State, name: str) -> Authenticator:
    found = state.authenticators.get(name)
    if found is None:
        raise _missing(name)
    return found


def list_authenticators(state: State, request: Request) -> Answer:
    """``GET /authentication``."""
    return ok([masked(found.config) for found in state.authenticators.values()])


def create_authenticator(state: State, request: Request) -> Answer:
    """``POST /authentication``."""
    config = read_object(request, "mechanism")
    name = config["mechanism"] + (f":{config['backend']}" if "backend" in config else "")
    if name in state.authenticators:
        raise error(409, "ALREADY_EXISTS", f"Authenticator '{name}' already exist")
    state.authenticators[name] = Authenticator(_complete(name, config))
    return ok(masked(state.authenticators[name].config))


def _complete(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a configuration does not say."""
    built_in = {"user_id_type": "username", "password_hash_algorithm": dict(SHA256_PREFIX)}
    return {"id": name, "enable": True, **(built_in if name == BUILT_IN else {}), **config}


def get_authenticator(state: State, request: Request, name: str) -> Answer:
    """``GET /authentication/{id}``."""
    return ok(masked(_authenticator(state, name).config))


def update_authenticator(state: State, request: Request, name: str) -> Answer:
    """``PUT /authentication/{id}``."""
    body = read_object(request, "mechanism")
    _authenticator(state, name).config = _complete(name, body)
    return no_content()


def delete_authenticator(state: State, request: Request, name: str) -> Answer:
    """``DELETE /authentication/{id}``: all its users go with it."""
    _authenticator(state, name)
    del state.authenticators[name]
    return no_content()


def authenticator_status(state: State, request: Request, name: str) -> Answer:
    """``GET /authentication/{id}/status``."""
    tried = _authenticator(state, name).tried
    metrics = {
        "failed": tried["failed"],
        "nomatch": tried["nomatch"],
        "rate": 0.0,
        "rate_last5m": 0.0,
        "rate_max": 0.0,
        "success": tried["success"],
        "total": sum(tried.values()),
    }
    return ok(
        {
            "metrics": metrics,
            "node_error": [],
            "node_metrics": [{"metrics": metrics, "node": info.name} for info in state.running()],
            "node_resource_metrics": [{"metrics": {}, "node": info.name} for info in state.running()],
            "node_status": [{"node": info.name, "status": "connected"} for info in state.running()],
            "resource_metrics": {},
            "status": "connected",
        }
    )


# users


def _namespace(state: State, request: Request) -> str | None:
    """Read the namespace, which 6.3 must manage; it is not asked of those in the rows of a write."""
    namespace = namespace_arg(state, request)
    if namespace is not None and state.at_least(6, 3) and namespace not in state.namespaces:
        raise bad_request("Managed namespace not found")
    return namespace


def _user_row(user_id: Any, user: User) -> dict[str, Any]:
    return {"user_id": user_id, "is_superuser": user.is_superuser}


def list_users(state: State, request: Request, name: str) -> Answer:
    """``GET /authentication/{id}/users``."""
    namespace = _namespace(state, request)
    users = _authenticator(state, name).users_of(namespace)
    ids = users.descending()
    part = request.arg("like_user_id")
    if part is not None:
        if any(not isinstance(user_id, str) for user_id in ids):
            raise bad_request("badarg")  # one numeric id breaks every search
        ids = [user_id for user_id in ids if part in user_id]
    flag = bool_arg(request, "is_superuser")
    if flag is not None:
        ids = [user_id for user_id in ids if users[user_id].is_superuser is flag]
    answer = listing(state, request, ids, lambda key: _user_row(key, users[key]), fuzzy=part is not None)
    listed = answer.body.count(b'"user_id"')
    page, limit = page_args(state, request)
    answer.read = listed * (LISTED_USER_COST + PASSED_USER_COST) + (page - 1) * limit * PASSED_USER_COST
    return answer


def create_user(state: State, request: Request, name: str) -> Answer:
    """``POST /authentication/{id}/users``."""
    body = read_object(request, "user_id", "password")
    found = state.authenticators.get(name)
    if found is None:
        raise bad_request(f'User error: {{not_found,{{authenticator,<<"{name}">>}}}}')
    user_id, password, flag = body["user_id"], body["password"], body.get("is_superuser", False)
    _check_password(password, flag)
    if user_id == "" or isinstance(user_id, (dict, list)):
        raise bad_request("User error: invalid_user_id")
    namespace = body.get("namespace") if state.at_least(6, 1) else None
    _refuse_superuser(state, namespace, body)
    users = found.users_of(namespace)
    if user_id in users:
        raise error(409, "ALREADY_EXISTS", "User already exists")
    _check_quota(state, len(users) + 1)
    users[user_id] = User(password, flag)
    row = _user_row(user_id, users[user_id])
    if state.at_least(6, 1):
        row["namespace"] = namespace
    return json_answer(201, row)


def _check_password(password: object, flag: object) -> None:
    if not isinstance(password, str):
        raise invalid("root.password", "unable_to_convert_to_string", password)
    if not isinstance(flag, bool):
        raise invalid("root.is_superuser", "unable_to_convert_to_boolean", flag)


def _check_quota(state: State, users: int) -> None:
    if state.serverless and users > SERVERLESS_USERS:
        raise bad_request(f"The number of users exceeds the limit of {SERVERLESS_USERS}")


def _user(state: State, request: Request, name: str, user_id: str) -> tuple[Table[User], str | None]:
    namespace = _namespace(state, request)
    users = _authenticator(state, name).users_of(namespace)
    if user_id not in users:
        raise error(404, "NOT_FOUND", "User not found")
    return users, namespace


def get_user(state: State, request: Request, name: str, user_id: str) -> Answer:
    """``GET /authentication/{id}/users/{user_id}``."""
    users, _ = _user(state, request, name, user_id)
    row = _user_row(user_id, users[user_id])
    return ok({"data": row} if state.serverless else row)


def update_user(state: State, request: Request, name: str, user_id: str) -> Answer:
    """``PUT /authentication/{id}/users/{user_id}``: without ``is_superuser`` the flag is lost."""
    body = read_object(request, "password")
    flag = body.get("is_superuser", False)
    _check_password(body["password"], flag)
    users, namespace = _user(state, request, name, user_id)
    _refuse_superuser(state, namespace, body)
    users[user_id] = User(body["password"], flag)
    return ok(_user_row(user_id, users[user_id]))


def delete_user(state: State, request: Request, name: str, user_id: str) -> Answer:
    """``DELETE /authentication/{id}/users/{user_id}``."""
    users, _ = _user(state, request, name, user_id)
    del users[user_id]
    return no_content()


# import


def import_users(state: State, request: Request, name: str) -> Answer:
    """``POST /authentication/{id}/import_users``: plain passwords, or hashes made elsewhere."""
    found = _authenticator(state, name)
    # A type that is missing or unknown means hashes; before 5.5 there was nothing else.
    plain = request.arg("type") == "plain" and state.at_least(5, 5)
    rows = _import_rows(state, request)
    if not rows:
        if state.at_least(5, 5):
            raise bad_request("empty_users")
        return no_content()
    users = found.users
    try:
        if state.serverless:
            _check_quota(state, len(users.keys() | {row.get("user_id") for row in rows}))
        counts = _import(state, found, rows, plain)
    except (TypeError, AttributeError):
        raise bad_request("badarg") from None
    except KeyError:
        field = (
            "plain_import_requires_password_field" if plain else "hash_import_requires_password_hash_field"
        )
        if state.at_least(5, 5) and not state.at_least(5, 7):
            for row in rows:  # these versions clean up by deleting every user named in the file
                users.pop(row.get("user_id"), None)
        raise bad_request(f'"{field}"') from None
    answer = ok({"total": len(rows), "failed": 0, **counts}) if state.at_least(5, 8, 2) else no_content()
    answer.written = len(rows)
    return answer


def _import(state: State, found: Authenticator, rows: list[dict[str, Any]], plain: bool) -> Counter[str]:
    """Import the rows of each namespace separately; before 6.1 namespaces do not exist."""
    by_namespace: dict[str | None, list[dict[str, Any]]] = {None: rows}
    if state.at_least(6, 1) and any(row.get("namespace") for row in rows):
        by_namespace = {}
        for row in rows:
            by_namespace.setdefault(row.get("namespace"), []).append(row)
    counts: Counter[str] = Counter()
    read: list[tuple[Table[User], dict[Any, User]]] = []
    for namespace, some in by_namespace.items():
        users = found.users_of(namespace)
        if namespace is not None and state.at_least(6, 1, 4):
            allowed = [row for row in some if not _wants_superuser(row)]
            counts["failed"] += len(some) - len(allowed)
            some = allowed
        new, outcomes = _read_plain(users, some) if plain else _read_hashes(state, users, some)
        counts.update(outcomes)
        read.append((users, new))
    for users, new in read:  # only now: it is one transaction
        users.update(new)
    return counts


def _wants_superuser(row: dict[str, Any]) -> bool:
    return row.get("is_superuser") in (True, "true")


def _refuse_superuser(state: State, namespace: str | None, row: dict[str, Any]) -> None:
    if namespace is not None and state.at_least(6, 1, 4) and _wants_superuser(row):
        raise bad_request("is_superuser cannot be true for a namespaced user")


def _read_plain(users: Table[User], rows: list[dict[str, Any]]) -> tuple[dict[Any, User], dict[str, int]]:
    new = {}
    for row in rows:
        password = row["password"]
        if password.__class__ is not str:
            raise KeyError("password")
        flag = row.get("is_superuser")
        new[row["user_id"]] = User(password, flag is True or flag == "true")
    created = len(new.keys() - users.keys())
    return new, {"success": created, "override": len(rows) - created, "skipped": 0}


def _read_hashes(
    state: State, users: Table[User], rows: list[dict[str, Any]]
) -> tuple[dict[Any, User], dict[str, int]]:
    counts = {"success": 0, "override": 0, "skipped": 0}
    new: dict[Any, User] = {}
    target: dict[Any, User] = new if state.at_least(5, 5) else users  # before 5.5 earlier rows stay written
    for row in rows:
        user_id, flag = row["user_id"], row.get("is_superuser")
        user = User(None, flag is True or flag == "true", 0, row["password_hash"], row.get("salt", ""))
        stored = new.get(user_id) or users.get(user_id)
        outcome = "success" if stored is None else "skipped" if user.same_record(stored) else "override"
        counts[outcome] += 1
        target[user_id] = user
    return new, counts


def _import_rows(state: State, request: Request) -> list[dict[str, Any]]:
    if not request.headers.get("Content-Type", "").startswith("multipart/form-data"):
        if not state.at_least(5, 5):
            raise error(415, "UNSUPPORTED_MEDIA_TYPE", "content-type multipart/form-data Required")
        rows = read_json(request)
        if not isinstance(rows, list):
            raise bad_request("function_clause")
        return rows
    upload = multipart_file(request)
    if upload is None:
        raise bad_request("empty_users" if state.at_least(5, 5) else "bad_file")
    filename, content = upload
    if filename.endswith(".json"):
        try:
            rows = json.loads(content)
        except ValueError:
            raise bad_request("bad_format") from None
        if not isinstance(rows, list):
            raise bad_request("bad_format")
        return rows
    if filename.endswith(".csv"):
        return _csv_rows(state, content)
    raise bad_request("unknown_file_format")


def _csv_rows(state: State, content: bytes) -> list[dict[str, Any]]:
    """Read CSV as EMQX does: without quoting; a field may be any bytes, like a salt."""
    header, *lines = [line for line in re.split(rb"[\r\n]", content) if line] or [b""]
    names = _separated(header)
    if not lines and not names:
        return []
    if not {b"user_id", b"password", b"password_hash"} & set(names) or b"user_id" not in names:
        raise bad_request("bad_format")
    rows = []
    for line in lines:
        fields = [_trimmed(field) for field in line.split(b",")] if state.at_least(6, 1) else _separated(line)
        if len(fields) != len(names):
            raise bad_request("bad_format")
        rows.append(
            {
                name.decode("utf-8", "surrogateescape"): field.decode("utf-8", "surrogateescape")
                for name, field in zip(names, fields, strict=True)
            }
        )
    return rows


def _separated(line: bytes) -> list[bytes]:
    """Split a line as EMQX before 6.1 does: commas **and spaces** separate, empty fields collapse."""
    return [field for field in re.split(rb"[, ]", line) if field]


#: white space to Erlang's ``string:trim``
_WHITE = re.compile(rb"(?:[\t-\r ]|\xc2\x85|\xe2\x80[\x8e\x8f\xa8\xa9])+")


def _trimmed(field: bytes) -> bytes:
    """Strip white space from both ends, as EMQX 6.1 and newer does; what follows white space must begin as UTF-8."""
    for at in (0, *(found.end() for found in _WHITE.finditer(field))):
        first = field[at : at + 4].decode("utf-8", "ignore")[:1].encode()
        if at < len(field) and (not first or not field.startswith(first, at)):
            raise bad_request("badarg")
    front = _WHITE.match(field)
    field = field[front.end() :] if front else field
    last = list(_WHITE.finditer(field))[-1:]
    return field[: last[0].start()] if last and last[0].end() == len(field) else field


_USERS = "/authentication/{id}/users"
ROUTES = [
    Route("GET", "/authentication", list_authenticators),
    Route("POST", "/authentication", create_authenticator),
    Route("GET", "/authentication/{id}", get_authenticator),
    Route("PUT", "/authentication/{id}", update_authenticator),
    Route("DELETE", "/authentication/{id}", delete_authenticator),
    Route("GET", "/authentication/{id}/status", authenticator_status),
    Route("GET", _USERS, list_users, serverless=True),
    Route("POST", _USERS, create_user, serverless=True),
    Route("GET", _USERS + "/{user_id}", get_user, serverless=True),
    Route("PUT", _USERS + "/{user_id}", update_user, serverless=True),
    Route("DELETE", _USERS + "/{user_id}", delete_user, serverless=True),
    Route("POST", "/authentication/{id}/import_users", import_users, serverless=True),
]

"""API v5, authorization: rules of the built-in database, sources, settings, cache."""

from __future__ import annotations

from functools import partial
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Crash, Request
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.tables import Table
from airflow_provider_emqx.testing.v5.replies import (
    bad_request,
    check_enum,
    check_fields,
    check_object,
    check_union,
    error,
    invalid,
    listing,
    namespace_arg,
    no_content,
    ok,
    read_array,
    read_object,
)

#: Names that a kind of rules goes by: key of a row, name in messages.
_KEYS = {"users": "username", "clients": "clientid"}
_NAMES = {"users": "User", "clients": "Client"}
_LABELS = {"users": "Username", "clients": "ClientID"}

_FIELDS = ("topic", "permission", "action", "qos", "retain")
_CONDITIONS = ("username_re", "clientid_re", "ipaddr", "zone", "zone_re", "listener", "listener_re")

_FILE_SOURCE = {
    "enable": True,
    "rules": '{allow, {ipaddr, "127.0.0.1"}, all, ["$SYS/#", "#"]}.\n\n{allow, all}.\n',
    "type": "file",
}

Rule = dict[str, Any]


def _source(state: State) -> dict[str, Any]:
    if state.authorization is None:
        raise error(404, "NOT_FOUND", "Not found: built_in_database")
    return state.authorization


def _table(state: State, request: Request, kind: str) -> Table[list[Rule]]:
    """Return the lists of rules of users or clients, of the namespace that the request names (6.1)."""
    _source(state)
    namespace = namespace_arg(state, request)
    if namespace is not None:
        return state.acl_namespaces.setdefault((namespace, kind), Table())
    return state.acl_users if kind == "users" else state.acl_clients


def _for_all(state: State, request: Request) -> Table[list[Rule]]:
    """Return where the rules for everybody are kept: under the name ``all`` of a table."""
    _source(state)
    return state.acl_namespaces.setdefault((namespace_arg(state, request) or "", "all"), Table())


def _read_rules(state: State, rules: Any, path: str, of: str = "") -> list[Rule]:
    """Check rules and fill in their defaults."""
    if not isinstance(rules, list):
        raise invalid(path, "not_array", rules)
    if len(rules) > _source(state)["max_rules"]:
        raise bad_request(f"The rules length{of} exceeds the maximum limit.")
    read = []
    for number, rule in enumerate(rules, 1):
        where = f"{path}.{number}"
        check_object(rule, where, ("topic", "permission", "action"))
        check_fields(rule, where, (*_FIELDS, *_CONDITIONS) if state.at_least(5, 9) else _FIELDS)
        check_enum(rule["permission"], ("allow", "deny"), f"{where}.permission")
        check_enum(rule["action"], ("publish", "subscribe", "all"), f"{where}.action")
        qos = rule.get("qos", [0, 1, 2])
        for place, level in enumerate(qos if isinstance(qos, list) else [qos], 1):
            check_union(level, (0, 1, 2), f"{where}.qos.{place}")
        if not isinstance(rule.get("retain", "all"), bool):
            check_union(rule.get("retain", "all"), ("all", "true", "false"), f"{where}.retain")
        read.append({**rule, "qos": qos, "retain": rule.get("retain", "all")})
    return read


def list_rules(kind: str, state: State, request: Request) -> Answer:
    """``GET …/rules/users`` and ``…/rules/clients``."""
    key, table = _KEYS[kind], _table(state, request, kind)
    names, part = table.descending(), request.arg(f"like_{_KEYS[kind]}")
    if part is not None:
        names = [name for name in names if part in name]
    return listing(
        state, request, names, lambda name: {key: name, "rules": table[name]}, fuzzy=part is not None
    )


def create_rules(kind: str, state: State, request: Request) -> Answer:
    """``POST …/rules/users`` and ``…/rules/clients``: refused as a whole if one of them has a record."""
    key, table = _KEYS[kind], _table(state, request, kind)
    rows = read_array(request, key, "rules")
    for number, row in enumerate(rows, 1):
        check_fields(row, f"root.{number}", (key, "rules"))
        if not isinstance(row[key], str):
            raise invalid(f"root.{number}.{key}", "unable_to_convert_to_string", row[key])
    read = [
        (
            row[key],
            _read_rules(state, row["rules"], f"root.{number}.rules", f" of {_NAMES[kind]} '{row[key]}'"),
        )
        for number, row in enumerate(rows, 1)
    ]
    for name, _ in read:
        if name in table:
            raise error(409, "ALREADY_EXISTS", f"{_NAMES[kind]} '{name}' already exist")
    for name, rules in read:
        table[name] = rules
    answer = no_content()
    answer.written = len(rows)
    return answer


def get_rules(kind: str, state: State, request: Request, name: str) -> Answer:
    """``GET …/rules/users/{username}`` and ``…/rules/clients/{clientid}``."""
    table = _table(state, request, kind)
    if name not in table:
        raise error(404, "NOT_FOUND", "Not Found")
    return ok({_KEYS[kind]: name, "rules": table[name]})


def put_rules(kind: str, state: State, request: Request, name: str) -> Answer:
    """``PUT …/rules/users/{username}`` and ``…/rules/clients/{clientid}``: replaces the whole list."""
    key, table = _KEYS[kind], _table(state, request, kind)
    body = read_object(request, key, "rules")
    check_fields(body, "root", (key, "rules"))
    rules = _read_rules(state, body["rules"], "root.rules")
    if body[key] != name:
        raise Crash("function_clause")
    table[name] = rules
    return no_content()


def delete_rules(kind: str, state: State, request: Request, name: str) -> Answer:
    """``DELETE …/rules/users/{username}`` and ``…/rules/clients/{clientid}``."""
    table = _table(state, request, kind)
    if name not in table:
        raise error(404, "NOT_FOUND", f"{_LABELS[kind]} Not Found")
    del table[name]
    return no_content()


def get_rules_for_all(state: State, request: Request) -> Answer:
    """``GET …/rules/all``."""
    return ok({"rules": _for_all(state, request).get("all", [])})


def set_rules_for_all(state: State, request: Request) -> Answer:
    """``POST …/rules/all``: replaces the whole list."""
    body = read_object(request, "rules")
    check_fields(body, "root", ("rules",))
    rules = _read_rules(state, body["rules"], "root.rules")
    _for_all(state, request)["all"] = rules
    return no_content()


def delete_rules_for_all(state: State, request: Request) -> Answer:
    """``DELETE …/rules/all``."""
    _for_all(state, request).clear()
    return no_content()


def purge_rules(state: State, request: Request) -> Answer:
    """``DELETE …/rules``: all of them, and only while the source is disabled."""
    if _source(state)["enable"]:
        raise bad_request("'built_in_database' type source must be disabled before purge.")
    for table in (
        _table(state, request, "users"),
        _table(state, request, "clients"),
        _for_all(state, request),
    ):
        table.clear()
    return no_content()


# sources, settings, cache


def list_sources(state: State, request: Request) -> Answer:
    """``GET /authorization/sources``."""
    sources = [*([state.authorization] if state.authorization else []), _FILE_SOURCE]
    return ok({"sources": [_shown(state, source) for source in sources]})


def _shown(state: State, source: dict[str, Any]) -> dict[str, Any]:
    return {"precondition": "", **source} if state.at_least(6, 3) else source


def create_source(state: State, request: Request) -> Answer:
    """``POST /authorization/sources``: the built-in database."""
    body = read_object(request, "type")
    if body["type"] != "built_in_database" or state.authorization is not None:
        raise bad_request(f"Unable to create source {body['type']}")
    state.authorization = {"enable": True, "max_rules": 100, **body}
    return no_content()


def get_source(state: State, request: Request, kind: str) -> Answer:
    """``GET /authorization/sources/{type}``."""
    if kind == "file":
        return ok(_shown(state, _FILE_SOURCE))
    if kind != "built_in_database" or state.authorization is None:
        raise error(404, "NOT_FOUND", f"Not found: {kind}")
    return ok(_shown(state, state.authorization))


def update_source(state: State, request: Request, kind: str) -> Answer:
    """``PUT /authorization/sources/{type}``: how the built-in database is disabled."""
    get_source(state, request, kind)
    body = read_object(request, "type")
    if kind == "built_in_database":
        state.authorization = {"enable": True, "max_rules": 100, **body}
    return no_content()


def delete_source(state: State, request: Request, kind: str) -> Answer:
    """``DELETE /authorization/sources/{type}``."""
    get_source(state, request, kind)
    if kind == "built_in_database":
        state.authorization = None
    return no_content()


def source_status(state: State, request: Request, kind: str) -> Answer:
    """``GET /authorization/sources/{type}/status``."""
    get_source(state, request, kind)
    nodes = [{"node": info.name, "status": "connected"} for info in state.running()]
    return ok({"status": "connected", "node_status": nodes, "node_error": [], "metrics": {}})


def get_settings(state: State, request: Request) -> Answer:
    """``GET /authorization/settings``."""
    cache: dict[str, Any] = {"enable": True, "excludes": [], "max_size": 32, "ttl": "1m"}
    row: dict[str, Any] = {"cache": cache, "deny_action": "ignore", "no_match": "allow"}
    if state.at_least(6, 3):
        row.update(ignore_backend_failures=False, include_mountpoint=False)
    return ok(row)


def clean_caches(state: State, request: Request) -> Answer:
    """``DELETE /authorization/cache``."""
    for client in state.mqtt.clients.values():
        client.acl_cache.clear()
    return no_content()


_RULES = "/authorization/sources/built_in_database/rules"


def _rule_routes(kind: str) -> list[Route]:
    base, one = f"{_RULES}/{kind}", f"{_RULES}/{kind}/{{name}}"
    return [
        Route("GET", base, partial(list_rules, kind), serverless=True),
        Route("POST", base, partial(create_rules, kind), serverless=True),
        Route("GET", one, partial(get_rules, kind), serverless=True),
        Route("PUT", one, partial(put_rules, kind), serverless=True),
        Route("DELETE", one, partial(delete_rules, kind), serverless=True),
    ]


ROUTES = [
    *_rule_routes("users"),
    *_rule_routes("clients"),
    Route("GET", _RULES + "/all", get_rules_for_all, serverless=True),
    Route("POST", _RULES + "/all", set_rules_for_all, serverless=True),
    Route("DELETE", _RULES + "/all", delete_rules_for_all, serverless=True),
    Route("DELETE", _RULES, purge_rules),
    Route("GET", "/authorization/sources", list_sources),
    Route("POST", "/authorization/sources", create_source),
    Route("GET", "/authorization/sources/{type}", get_source),
    Route("PUT", "/authorization/sources/{type}", update_source),
    Route("DELETE", "/authorization/sources/{type}", delete_source),
    Route("GET", "/authorization/sources/{type}/status", source_status),
    Route("GET", "/authorization/settings", get_settings),
    Route("DELETE", "/authorization/cache", clean_caches),
]

"""API v5, data integration: rules, actions, sources, connectors, and the old bridges."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Request, json_answer, rfc3339
from airflow_provider_emqx.testing.mqtt.topics import matches
from airflow_provider_emqx.testing.routes import Route, since, until
from airflow_provider_emqx.testing.state import Resource, State, rule_topics
from airflow_provider_emqx.testing.v5.replies import (
    bad_request,
    bool_arg,
    error,
    invalid,
    listing,
    masked,
    no_content,
    not_found_page,
    ok,
    read_object,
)

RULE_METRICS = (
    "matched",
    "passed",
    "failed",
    "failed.exception",
    "failed.no_result",
    "actions.total",
    "actions.failed",
    "actions.failed.out_of_service",
    "actions.failed.unknown",
    "actions.success",
    "actions.discarded",
    "matched.rate",
    "matched.rate.max",
    "matched.rate.last5m",
)
ACTION_METRICS = (
    "dropped",
    "dropped.other",
    "dropped.expired",
    "dropped.queue_full",
    "dropped.resource_not_found",
    "dropped.resource_stopped",
    "matched",
    "queuing",
    "queuing_bytes",
    "retried",
    "late_reply",
    "failed",
    "inflight",
    "success",
    "rate",
    "rate_last5m",
    "rate_max",
    "received",
)


# rules


def _rule_row(rule: Resource) -> dict[str, Any]:
    config = rule.config
    return {
        "id": rule.id,
        "name": config.get("name", ""),
        "from": rule_topics(config["sql"]),
        "actions": config.get("actions", []),
        "sql": config["sql"],
        "enable": config.get("enable", True),
        "created_at": rfc3339(rule.created_at, True),
        "description": config.get("description", ""),
    }


def _rule(state: State, rule_id: str) -> Resource:
    found = state.resources["rules"].get(rule_id)
    if found is None:
        raise error(404, "NOT_FOUND", "Rule Id Not Found")
    return found


def list_rules(state: State, request: Request) -> Answer:
    """``GET /rules``."""
    rows = [_rule_row(rule) for rule in state.resources["rules"].values()]
    enable = bool_arg(request, "enable")
    if enable is not None:
        rows = [row for row in rows if row["enable"] is enable]
    topic, part, pattern = request.arg("from"), request.arg("like_from"), request.arg("match_from")
    like_id, like_description = request.arg("like_id"), request.arg("like_description")
    action = request.arg("action")

    def wanted(row: dict[str, Any]) -> bool:
        return (
            (topic is None or topic in row["from"])
            and (part is None or any(part in one for one in row["from"]))
            and (pattern is None or any(matches(one, pattern) for one in row["from"]))
            and (like_id is None or like_id in row["id"])
            and (like_description is None or like_description in row["description"])
            and (action is None or action in row["actions"])
        )

    fuzzy = any(given is not None for given in (topic, part, pattern, like_id, like_description, action))
    return listing(state, request, [row for row in rows if wanted(row)], dict, fuzzy=fuzzy)


def create_rule(state: State, request: Request) -> Answer:
    """``POST /rules``."""
    body = read_object(request, "sql")
    rule_id = body.pop("id", None)
    if rule_id is None:
        rule_id = secrets.token_hex(4)
    if rule_id == "":
        raise bad_request("empty rule id is not allowed")
    if rule_id in state.resources["rules"]:
        raise bad_request("rule id already exists")
    _check_rule(body)
    rule = Resource("rules", rule_id, body, created_at=state.now())
    state.resources["rules"][rule_id] = rule
    return json_answer(201, _rule_row(rule))


def _check_rule(body: dict[str, Any]) -> None:
    if not isinstance(body["sql"], str) or not rule_topics(body["sql"]):
        raise bad_request("Bad Arguments: {parse_error,sql}")
    if not isinstance(body.get("actions", []), list):
        raise invalid("root.actions", "not_array", body["actions"])


def get_rule(state: State, request: Request, rule_id: str) -> Answer:
    """``GET /rules/{id}``."""
    return ok(_rule_row(_rule(state, rule_id)))


def update_rule(state: State, request: Request, rule_id: str) -> Answer:
    """``PUT /rules/{id}``: the whole rule; what is left out falls back to its default."""
    body = read_object(request, "sql")
    rule = _rule(state, rule_id)
    _check_rule(body)
    rule.config = {name: value for name, value in body.items() if name in _RULE_FIELDS}
    return ok(_rule_row(rule))


_RULE_FIELDS = frozenset(["name", "sql", "actions", "enable", "description"])


def delete_rule(state: State, request: Request, rule_id: str) -> Answer:
    """``DELETE /rules/{id}``."""
    _rule(state, rule_id)
    del state.resources["rules"][rule_id]
    return no_content()


def _metrics(state: State, found: Resource, names: tuple[str, ...]) -> dict[str, Any]:
    metrics = {name: found.metrics[name] for name in names}
    return {"metrics": metrics, "node_metrics": [{"metrics": metrics, "node": state.node}]}


def rule_metrics(state: State, request: Request, rule_id: str) -> Answer:
    """``GET /rules/{id}/metrics``."""
    return ok({"id": rule_id, **_metrics(state, _rule(state, rule_id), RULE_METRICS)})


def reset_rule_metrics(state: State, request: Request, rule_id: str) -> Answer:
    """``PUT /rules/{id}/metrics/reset``."""
    _rule(state, rule_id).metrics.clear()
    return no_content()


# actions, sources, connectors, bridges


def _row(state: State, found: Resource) -> dict[str, Any]:
    kind, _, name = found.id.partition(":")
    enabled = found.config.get("enable", True)
    status = found.status if enabled else "disconnected"
    row: dict[str, Any] = {
        "enable": enabled,
        **masked(found.config),
        "type": kind,
        "name": name,
        "status": status,
    }
    if found.kind in {"actions", "sources"}:
        rules = state.resources["rules"].values()
        row["rules"] = sorted(rule.id for rule in rules if found.id in rule.config.get("actions", []))
    elif found.kind == "connectors":
        row["actions"] = sorted(
            action.id.partition(":")[2]
            for action in state.resources["actions"].values()
            if action.config.get("connector") == name
        )
        row["sources"] = sorted(
            source.id.partition(":")[2]
            for source in state.resources["sources"].values()
            if source.config.get("connector") == name
        )
    node_status: dict[str, Any] = {"node": state.node, "status": status}
    if status != "connected":
        row["status_reason"] = node_status["status_reason"] = (
            "Connection refused" if enabled else "Not enabled"
        )
    row["node_status"] = [{**node_status, "node": info.name} for info in state.running()]
    return row


def _found(state: State, kind: str, resource_id: str) -> Resource:
    if ":" not in resource_id:
        raise error(404, "NOT_FOUND", f"Invalid {_SINGULAR[kind]} ID, bad id: {resource_id}")
    found = state.resources[_STORED[kind]].get(resource_id)
    if found is None:
        type_name, _, name = resource_id.partition(":")
        label = _SINGULAR[kind].capitalize()
        message = (
            f"{label} lookup failed: {_SINGULAR[kind]} named '{name}' of type {type_name} does not exist."
        )
        raise error(404, "NOT_FOUND", message)
    return found


_SINGULAR = {"actions": "bridge", "sources": "bridge", "connectors": "connector", "bridges": "bridge"}
_STORED = {"actions": "actions", "sources": "sources", "connectors": "connectors", "bridges": "actions"}


def list_all(kind: str, state: State, request: Request) -> Answer:
    """``GET /actions``, ``/sources``, ``/connectors``, ``/bridges``: a bare array."""
    return ok([_row(state, found) for found in state.resources[_STORED[kind]].values()])


def create(kind: str, state: State, request: Request) -> Answer:
    """``POST /actions``, ``/sources``, ``/connectors``, ``/bridges``."""
    body = read_object(request, "type", "name")
    resource_id = f"{body.pop('type')}:{body.pop('name')}"
    stored = state.resources[_STORED[kind]]
    if resource_id in stored:
        raise error(400, "ALREADY_EXISTS", f"{_SINGULAR[kind].capitalize()} already exists")
    stored[resource_id] = Resource(_STORED[kind], resource_id, body, created_at=state.now())
    return json_answer(201, _row(state, stored[resource_id]))


def get_one(kind: str, state: State, request: Request, resource_id: str) -> Answer:
    """``GET /actions/{id}`` and so on."""
    return ok(_row(state, _found(state, kind, resource_id)))


def update(kind: str, state: State, request: Request, resource_id: str) -> Answer:
    """``PUT /actions/{id}`` and so on: the whole configuration."""
    body = read_object(request)
    found = _found(state, kind, resource_id)
    found.config = {key: value for key, value in body.items() if key not in {"type", "name"}}
    return ok(_row(state, found))


def delete(kind: str, state: State, request: Request, resource_id: str) -> Answer:
    """``DELETE /actions/{id}`` and so on: refused while something uses it."""
    found = _found(state, kind, resource_id)
    row = _row(state, found)
    if found.kind == "connectors" and (row["actions"] or row["sources"]):
        raise bad_request(
            "Cannot delete connector while there are active channels defined for this connector"
        )
    cascade = "true" in {request.arg("also_delete_dep_actions"), request.arg("also_delete_rule_actions")}
    if row.get("rules") and not cascade:
        raise bad_request(f"Cannot delete action while there are rules depending on it: {row['rules']}")
    for rule_id in row.get("rules", []):
        rule = state.resources["rules"][rule_id]
        rule.config["actions"] = [one for one in rule.config["actions"] if one != resource_id]
    del state.resources[found.kind][resource_id]
    return no_content()


def enable(kind: str, state: State, request: Request, resource_id: str, flag: str) -> Answer:
    """``PUT /actions/{id}/enable/{true|false}`` and so on."""
    if flag not in {"true", "false"}:
        return not_found_page(request)
    found = _found(state, kind, resource_id)
    found.config["enable"] = flag == "true"
    return no_content()


def start(kind: str, state: State, request: Request, resource_id: str, operation: str) -> Answer:
    """``POST /actions/{id}/start`` and so on: the only operation, but for the old bridges."""
    if operation != "start" and (kind != "bridges" or operation not in {"stop", "restart"}):
        raise bad_request(f"Invalid operation: {operation}")
    found = _found(state, kind, resource_id)
    if not found.config.get("enable", True):
        raise bad_request(f"Forbidden operation, {_SINGULAR[kind]} not enabled")
    state.restarts[resource_id] += 1
    found.status = "disconnected" if operation == "stop" else "connected"
    return no_content()


def start_on_node(
    kind: str, state: State, request: Request, node: str, resource_id: str, operation: str
) -> Answer:
    """``POST /nodes/{node}/actions/{id}/start`` and so on."""
    if node not in state.nodes or not state.nodes[node].running:
        raise error(404, "NOT_FOUND", f"Node not found: {node}")
    return start(kind, state, request, resource_id, operation)


def metrics(kind: str, state: State, request: Request, resource_id: str) -> Answer:
    """``GET /actions/{id}/metrics``."""
    return ok(_metrics(state, _found(state, kind, resource_id), ACTION_METRICS))


def reset_metrics(kind: str, state: State, request: Request, resource_id: str) -> Answer:
    """``PUT /actions/{id}/metrics/reset``."""
    _found(state, kind, resource_id).metrics.clear()
    return no_content()


def _routes(kind: str) -> list[Route]:
    gate = {"sources": since(5, 6), "bridges": until(6, 0)}.get(kind, since(5, 4))
    base, one = f"/{kind}", f"/{kind}/{{id}}"
    return [
        Route("GET", base, partial(list_all, kind), gate),
        Route("POST", base, partial(create, kind), gate),
        Route("GET", one, partial(get_one, kind), gate),
        Route("PUT", one, partial(update, kind), gate),
        Route("DELETE", one, partial(delete, kind), gate),
        Route("PUT", one + "/enable/{flag}", partial(enable, kind), gate),
        Route("POST", one + "/{operation}", partial(start, kind), gate),
        Route("POST", "/nodes/{node}" + one + "/{operation}", partial(start_on_node, kind), gate),
        Route("GET", one + "/metrics", partial(metrics, kind), gate),
        Route("PUT", one + "/metrics/reset", partial(reset_metrics, kind), gate),
    ]


ROUTES = [
    Route("GET", "/rules", list_rules),
    Route("POST", "/rules", create_rule),
    Route("GET", "/rules/{id}", get_rule),
    Route("PUT", "/rules/{id}", update_rule),
    Route("DELETE", "/rules/{id}", delete_rule),
    Route("GET", "/rules/{id}/metrics", rule_metrics),
    Route("PUT", "/rules/{id}/metrics/reset", reset_rule_metrics),
    *_routes("actions"),
    *_routes("sources"),
    *_routes("connectors"),
    *_routes("bridges"),
]

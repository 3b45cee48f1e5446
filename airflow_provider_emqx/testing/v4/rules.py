"""API v4, rule engine: rules and resources. Its codes look like HTTP statuses, and come with HTTP 200."""

from __future__ import annotations

import secrets
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Request
from airflow_provider_emqx.testing.mqtt.topics import matches
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import Resource, State, rule_topics
from airflow_provider_emqx.testing.v4.replies import data, done, failed, listing, read_object

_RULE_METRICS = (
    "failed",
    "exception",
    "no_result",
    "passed",
    "matched",
    "speed",
    "speed_last5m",
    "speed_max",
)


def _rule_row(state: State, rule: Resource) -> dict[str, Any]:
    config = rule.config
    metrics = {name: rule.metrics[name] for name in _RULE_METRICS}
    return {
        "id": rule.id,
        "rawsql": config["rawsql"],
        "for": rule_topics(config["rawsql"]),
        "actions": [
            {"id": f"{action['name']}_{number}", "fallbacks": [], "metrics": [], "params": {}, **action}
            for number, action in enumerate(config.get("actions", []))
        ],
        "on_action_failed": config.get("on_action_failed", "continue"),
        "metrics": [{"node": info.name, **metrics} for info in state.running()],
        "enabled": config.get("enabled", True),
        "description": config.get("description", ""),
        "created_at": int(rule.created_at * 1000),
    }


def list_rules(state: State, request: Request) -> Answer:
    """``GET /rules``."""
    rows = [_rule_row(state, rule) for rule in state.resources["rules"].values()]
    enabled, topic = request.arg("enabled"), request.arg("for")
    like_id, like_topic = request.arg("_like_id"), request.arg("_like_for")
    pattern, text = request.arg("_match_for"), request.arg("_like_description")

    def wanted(row: dict[str, Any]) -> bool:
        return (
            enabled in {None, str(row["enabled"]).lower()}
            and (topic is None or topic in row["for"])
            and (like_id is None or like_id in row["id"])
            and (like_topic is None or any(like_topic in one for one in row["for"]))
            and (pattern is None or any(matches(one, pattern) for one in row["for"]))
            and (text is None or text in row["description"])
        )

    filtered = any(one is not None for one in (enabled, topic, like_id, like_topic, pattern, text))
    return listing(request, [row for row in rows if wanted(row)], dict, filtered=filtered)


def get_rule(state: State, request: Request, rule_id: str) -> Answer:
    """``GET /rules/{id}``."""
    rule = state.resources["rules"].get(rule_id)
    if rule is None:
        raise failed(404, "Not Found")
    return data(_rule_row(state, rule))


def _is_test(request: Request, body: dict[str, Any]) -> bool:
    return body.get("test", request.arg("test")) in {True, "true"}


def create_rule(state: State, request: Request) -> Answer:
    """``POST /rules``; with ``test=true`` nothing is created."""
    body = read_object(request)
    _check_sql(body.get("rawsql"))
    if _is_test(request, body):
        return data({})  # what the statement makes of a message: none is run here
    rule_id = body.pop("id", None) or f"rule:{secrets.randbelow(10**6):06d}"
    rule = Resource("rules", rule_id, body, created_at=state.now())
    state.resources["rules"][rule_id] = rule
    return data(_rule_row(state, rule))


def _check_sql(sql: Any) -> None:
    if not isinstance(sql, str) or not rule_topics(sql):
        raise failed(400, "Bad Arguments: {parse_error,rawsql}")


def update_rule(state: State, request: Request, rule_id: str) -> Answer:
    """``PUT /rules/{id}``: what is left out stays."""
    body = read_object(request)
    rule = state.resources["rules"].get(rule_id)
    if rule is None:
        raise failed(400, f"Rule {rule_id} Not Found")
    if not isinstance(body.get("enabled", True), bool):
        raise failed(400, "Bad Arguments: {invalid_enabled}")
    _check_sql(body.get("rawsql", rule.config["rawsql"]))
    rule.config.update(body)
    return data(_rule_row(state, rule))


def delete_rule(state: State, request: Request, rule_id: str) -> Answer:
    """``DELETE /rules/{id}``: code 0 always."""
    state.resources["rules"].pop(rule_id, None)
    return done()


def reset_rule_metrics(state: State, request: Request, rule_id: str) -> Answer:
    """``PUT /rules/{id}/reset_metrics``: code 0 also for an unknown rule."""
    rule = state.resources["rules"].get(rule_id)
    if rule is not None:
        rule.metrics.clear()
    return done()


# resources


def _resource_row(resource: Resource, status: Any) -> dict[str, Any]:
    return {
        "id": resource.id,
        "type": resource.config.get("type", ""),
        "config": resource.config.get("config", {}),
        "description": resource.config.get("description", ""),
        "status": status,
    }


def list_resources(state: State, request: Request) -> Answer:
    """``GET /resources``: ``status`` is one boolean here."""
    found = state.resources["resources"].values()
    return data([_resource_row(one, one.status == "connected") for one in found])


def get_resource(state: State, request: Request, resource_id: str) -> Answer:
    """``GET /resources/{id}``: ``status`` is a list of nodes here."""
    found = state.resources["resources"].get(resource_id)
    if found is None:
        raise failed(404, "Not Found")
    status = [{"node": info.name, "is_alive": found.status == "connected"} for info in state.running()]
    return data(_resource_row(found, status))


def resource_status(state: State, request: Request, resource_id: str) -> Answer:
    """``GET /resource_status/{id}``."""
    found = _resource(state, resource_id)
    return data({"is_alive": found.status == "connected"})


def _resource(state: State, resource_id: str) -> Resource:
    found = state.resources["resources"].get(resource_id)
    if found is None:
        raise failed(400, f"Resource {resource_id} Not Found")
    return found


def create_resource(state: State, request: Request) -> Answer:
    """``POST /resources``; with ``test=true`` nothing is created."""
    body = read_object(request)
    if not isinstance(body.get("type"), str):
        raise failed(400, "Bad Arguments: {missing,type}")
    if _is_test(request, body):
        return done()
    resource_id = body.pop("id", None) or f"resource:{secrets.randbelow(10**6):06d}"
    found = Resource("resources", resource_id, body, created_at=state.now())
    state.resources["resources"][resource_id] = found
    return data(_resource_row(found, True))


def start_resource(state: State, request: Request, resource_id: str) -> Answer:
    """``POST /resources/{id}``: (re)start."""
    found = _resource(state, resource_id)
    state.restarts[resource_id] += 1
    found.status = "connected"
    return done()


def delete_resource(state: State, request: Request, resource_id: str) -> Answer:
    """``DELETE /resources/{id}``: code 0 always."""
    state.resources["resources"].pop(resource_id, None)
    return done()


ROUTES = [
    Route("GET", "/rules", list_rules),
    Route("POST", "/rules", create_rule),
    Route("GET", "/rules/{id}", get_rule),
    Route("PUT", "/rules/{id}", update_rule),
    Route("DELETE", "/rules/{id}", delete_rule),
    Route("PUT", "/rules/{id}/reset_metrics", reset_rule_metrics),
    Route("GET", "/resources", list_resources),
    Route("POST", "/resources", create_resource),
    Route("GET", "/resources/{id}", get_resource),
    Route("POST", "/resources/{id}", start_resource),
    Route("DELETE", "/resources/{id}", delete_resource),
    Route("GET", "/resource_status/{id}", resource_status),
]

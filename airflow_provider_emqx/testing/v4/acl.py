"""API v4, ACL rules of the plugin ``emqx_auth_mnesia``."""

from __future__ import annotations

from functools import partial
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Crash, Request
from airflow_provider_emqx.testing.routes import Route, has_auth_plugin
from airflow_provider_emqx.testing.state import AclRow, State
from airflow_provider_emqx.testing.v4.replies import data, done, listing, message_only, read_array, read_json


def _row(rule: AclRow) -> dict[str, Any]:
    return {rule.subject: rule.login, "topic": rule.topic, "action": rule.action, "access": rule.access}


def _newest_first(state: State, subject: str) -> list[AclRow]:
    return [rule for rule in reversed(state.acl_rows.values()) if rule.subject == subject]


def list_rules(subject: str, state: State, request: Request) -> Answer:
    """``GET /acl/username``, ``/acl/clientid``, ``/acl/$all``: 50 a page, ``meta`` without ``hasnext``."""
    exact, part = request.arg(subject), request.arg(f"_like_{subject}")
    topic, action, access = (request.arg(name) for name in ("topic", "action", "access"))
    rules = [
        rule
        for rule in _newest_first(state, subject)
        if exact in {None, rule.login}
        and (part is None or part in rule.login)
        and topic in {None, rule.topic}
        and action in {None, rule.action}
        and access in {None, rule.access}
    ]
    return listing(request, rules, _row, hasnext=False, limit=50)


def get_rules(subject: str, state: State, request: Request, login: str) -> Answer:
    """``GET /acl/username/{username}`` and ``/acl/clientid/{clientid}``: an empty array without rules."""
    return data([_row(rule) for rule in _newest_first(state, subject) if rule.login == login])


def create_rules(state: State, request: Request) -> Answer:
    """``POST /acl``: one object, or an array whose results come **in reverse order**."""
    body = read_json(request)
    if isinstance(body, list):
        results = [_create(state, row) for row in read_array(request)]
        answer = data(results[::-1])
        answer.written = len(results)
        return answer
    if not isinstance(body, dict):
        raise Crash("function_clause")
    result = _create(state, body)
    if result["result"] != "ok":
        texts = ",".join(f'{key} => <<"{result[key]}">>' for key in sorted(result))
        raise message_only("{add,#{" + texts + "}}")
    return data(result)


def _create(state: State, row: dict[str, Any]) -> dict[str, Any]:
    if "clientid" in row and "username" in row:
        raise Crash("case_clause")
    subject = next((name for name in ("clientid", "username") if name in row), "all")
    login = row.get(subject, "$all")
    topic, action, access = row.get("topic"), row.get("action"), row.get("access")
    result = "ok"
    if not isinstance(login, str) or not login:
        result = "{error,login}"
    elif not isinstance(topic, str) or not topic:
        result = "{error,topic}"
    elif action not in {"pub", "sub", "pubsub"}:
        result = "{error,action}"
    elif access not in {"allow", "deny"}:
        result = "{error,access}"
    else:
        for one in ("pub", "sub") if action == "pubsub" else (action,):
            # Adding what is there replaces it and makes it the newest.
            state.acl_rows.pop((subject, login, topic, one), None)
            state.acl_rows[subject, login, topic, one] = AclRow(subject, login, topic, one, access)
    shown = {
        name: "undefined" if value is None else value
        for name, value in (("topic", topic), ("action", action), ("access", access))
    }
    return {subject: login, **shown, "result": result}


def delete_rules(subject: str, state: State, request: Request, login: str, topic: str) -> Answer:
    """``DELETE /acl/username/{username}/topic/{topic}`` and the like: code 0 always."""
    for action in ("pub", "sub"):
        state.acl_rows.pop((subject, login, topic, action), None)
    return done()


def delete_rules_for_all(state: State, request: Request, topic: str) -> Answer:
    """``DELETE /acl/$all/topic/{topic}``."""
    return delete_rules("all", state, request, "$all", topic)


ROUTES = [
    Route("POST", "/acl", create_rules, has_auth_plugin),
    Route("GET", "/acl/username", partial(list_rules, "username"), has_auth_plugin),
    Route("GET", "/acl/clientid", partial(list_rules, "clientid"), has_auth_plugin),
    Route("GET", "/acl/$all", partial(list_rules, "all"), has_auth_plugin),
    Route("GET", "/acl/username/{username}", partial(get_rules, "username"), has_auth_plugin),
    Route("GET", "/acl/clientid/{clientid}", partial(get_rules, "clientid"), has_auth_plugin),
    Route(
        "DELETE", "/acl/username/{username}/topic/{topic}", partial(delete_rules, "username"), has_auth_plugin
    ),
    Route(
        "DELETE", "/acl/clientid/{clientid}/topic/{topic}", partial(delete_rules, "clientid"), has_auth_plugin
    ),
    Route("DELETE", "/acl/$all/topic/{topic}", delete_rules_for_all, has_auth_plugin),
]

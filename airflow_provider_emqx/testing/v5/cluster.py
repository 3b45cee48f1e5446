"""API v5, cluster: nodes, stats, metrics, alarms, listeners, status."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.testing.figures import METRICS_SINCE_6_3, METRICS_V5, STATS_V5, count_on, stats_row
from airflow_provider_emqx.testing.http import Answer, Request, json_answer, pick, rfc3339, text_answer
from airflow_provider_emqx.testing.routes import Route, since
from airflow_provider_emqx.testing.state import Alarm, NodeInfo, State
from airflow_provider_emqx.testing.v5.replies import (
    bool_arg,
    error,
    listing,
    no_content,
    not_found_page,
    ok,
    read_json,
)

#: Where the load figures of a node come from: none are measured.
_NODE = {
    "load1": 0.39,
    "load5": 0.55,
    "load15": 1.07,
    "log_path": "log.file.enable is false, not logging to file.",
    "max_fds": 20000,
    "memory_total": "23.54G",
    "memory_used": "736.86M",
    "otp_release": "25.2.3/13.1.5",
    "process_available": 262144,
    "process_used": 410,
    "sys_path": "/usr/lib/erlang",
}
LISTENERS = {"ssl": 8883, "tcp": 1883, "ws": 8083, "wss": 8084}


def _node_row(state: State, info: NodeInfo) -> dict[str, Any]:
    if not info.running:
        return {"node": info.name, "node_status": "stopped", "role": info.role}
    counts = count_on(state, info.name)
    return {
        **_NODE,
        "cluster_sessions": counts["cluster_sessions"],
        "connections": counts["connections"],
        "live_connections": counts["live_connections"],
        "edition": state.edition,
        "node": info.name,
        "node_status": "running",
        "role": info.role,
        "uptime": int((state.now() - info.started_at) * 1000),
        "version": state.version_text,
    }


def _node(state: State, name: str) -> NodeInfo:
    info = state.nodes.get(name)
    if info is None:
        raise error(404, "NOT_FOUND", f"bad node: {name}")
    return info


def list_nodes(state: State, request: Request) -> Answer:
    """``GET /nodes``."""
    return ok([_node_row(state, info) for info in state.nodes.values()])


def get_node(state: State, request: Request, name: str) -> Answer:
    """``GET /nodes/{node}``."""
    return ok(_node_row(state, _node(state, name)))


def get_cluster(state: State, request: Request) -> Answer:
    """``GET /cluster``."""
    names = [info.name for info in state.running()]
    row: dict[str, Any] = {"name": state.cluster_name, "nodes": names, "self": state.node}
    if state.at_least(6, 3):
        row["description"] = ""
    return ok(row)


def get_stats(state: State, request: Request) -> Answer:
    """``GET /stats``: a node that does not answer is left out."""
    if bool_arg(request, "aggregate"):
        return ok(stats_row(count_on(state, None), _gauges(state)))
    return ok([{**_node_stats(state, info), "node": info.name} for info in state.running()])


def _gauges(state: State) -> tuple[str, ...]:
    return (*STATS_V5, "routes") if state.at_least(6, 3) else STATS_V5


def _node_stats(state: State, info: NodeInfo) -> dict[str, int]:
    return stats_row(count_on(state, info.name), _gauges(state))


def get_node_stats(state: State, request: Request, name: str) -> Answer:
    """``GET /nodes/{node}/stats``."""
    return ok(_node_stats(state, _node(state, name)))


def get_metrics(state: State, request: Request) -> Answer:
    """``GET /metrics``: all counters are kept on the first node."""
    if bool_arg(request, "aggregate"):
        return ok(_metrics(state))
    return ok([{**_node_metrics(state, info), "node": info.name} for info in state.running()])


def _metrics(state: State) -> dict[str, int]:
    return {name: state.mqtt.metrics[name] for name in _counters(state)}


def _counters(state: State) -> list[str]:
    if not state.at_least(6, 3):
        return list(METRICS_V5)
    return [name for name in (*METRICS_V5, *METRICS_SINCE_6_3) if name != "packets.publish.dropped"]


def _node_metrics(state: State, info: NodeInfo) -> dict[str, int]:
    return _metrics(state) if info.name == state.node else dict.fromkeys(_counters(state), 0)


def get_node_metrics(state: State, request: Request, name: str) -> Answer:
    """``GET /nodes/{node}/metrics``."""
    return ok(_node_metrics(state, _node(state, name)))


def get_monitor(state: State, request: Request) -> Answer:
    """``GET /monitor_current``."""
    return _monitor(state, None)


def get_node_monitor(state: State, request: Request, name: str) -> Answer:
    """``GET /monitor_current/nodes/{node}``."""
    return _monitor(state, _node(state, name).name)


def _monitor(state: State, node: str | None) -> Answer:
    counts = count_on(state, node)
    since_6_3 = {
        "actions_executed_rate": 0,
        "actions_messages_rate": 0,
        "license_quota": 10_000_000,
        "rules_matched_rate": 0,
    }
    return ok(
        {
            **(since_6_3 if state.at_least(6, 3) else {}),
            "connections": counts["connections"],
            "disconnected_durable_sessions": 0,
            "dropped_msg_rate": 0,
            "live_connections": counts["live_connections"],
            "persisted_rate": 0,
            "received_msg_rate": 0,
            "retained_msg_count": counts["retained"],
            "sent_msg_rate": 0,
            "shared_subscriptions": counts["subscriptions.shared"],
            "subscriptions": counts["subscriptions"],
            "subscriptions_durable": 0,
            "subscriptions_ram": counts["subscriptions"],
            "topics": counts["topics"],
            "transformation_failed_rate": 0,
            "transformation_succeeded_rate": 0,
            "validation_failed_rate": 0,
            "validation_succeeded_rate": 0,
        }
    )


# alarms


def _alarm_row(state: State, alarm: Alarm) -> dict[str, Any]:
    ended = alarm.deactivate_at
    row: dict[str, Any] = {
        "node": alarm.node,
        "name": alarm.name,
        "message": alarm.message,
        "details": alarm.details,
        "duration": int(((ended or state.now()) - alarm.activate_at) * 1000),
        "activate_at": rfc3339(alarm.activate_at, True),
    }
    if ended is not None:
        row["deactivate_at"] = rfc3339(ended, True)
    return row


def list_alarms(state: State, request: Request) -> Answer:
    """``GET /alarms``."""
    active = bool_arg(request, "activated")
    alarms = state.past_alarms if active is False else state.alarms
    return listing(state, request, alarms, lambda alarm: _alarm_row(state, alarm))


def clear_alarms(state: State, request: Request) -> Answer:
    """``DELETE /alarms``: forgets the alarms that are over."""
    state.past_alarms.clear()
    return no_content()


def deactivate_alarm(state: State, request: Request) -> Answer:
    """``POST /alarms/force_deactivate``: before 6.1 on the answering node only."""
    body = read_json(request)
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        raise error(400, "INVALID_PARAMETER", "Missing required parameter: name")
    nodes = set(state.nodes) if state.at_least(6, 1) else {state.node}
    ended = [alarm for alarm in state.alarms if alarm.name == name and alarm.node in nodes]
    if not ended:
        raise error(400, "NOT_FOUND", "Alarm not found")
    state.end_alarms(ended)
    return no_content()


def _can_deactivate(state: State) -> bool:
    version = state.version
    if version[:2] == (5, 8):
        return version >= (5, 8, 8)
    if version[:2] == (5, 9):
        return version >= (5, 9, 2)
    return version > (5, 10, 0)


# listeners


def _listener_row(state: State, kind: str, running: bool) -> dict[str, Any]:
    online = [client.node for client in state.mqtt.online()] if kind == "tcp" else []

    def status(current: int) -> dict[str, Any]:
        return {"current_connections": current, "max_connections": "infinity", "running": running}

    return {
        "acceptors": 16,
        "bind": f"127.0.0.1:{LISTENERS[kind]}",
        "enable": running,
        "id": f"{kind}:default",
        "name": "default",
        "node_status": [
            {"node": info.name, "status": status(online.count(info.name))} for info in state.running()
        ],
        "number": len(state.running()),
        "status": status(len(online)),
        "type": kind,
    }


def _listener(state: State, name: str) -> str:
    kind, _, rest = name.partition(":")
    if kind not in LISTENERS or rest != "default":
        raise error(404, "BAD_LISTENER_ID", f"Listener id {name} does not exist")
    return kind


def _listens(state: State, kind: str) -> bool:
    return f"{kind}:default" not in state.closed_listeners


def list_listeners(state: State, request: Request) -> Answer:
    """``GET /listeners``."""
    return ok([_listener_row(state, kind, _listens(state, kind)) for kind in LISTENERS])


def get_listener(state: State, request: Request, name: str) -> Answer:
    """``GET /listeners/{id}``."""
    kind = _listener(state, name)
    row = _listener_row(state, kind, _listens(state, kind))
    return ok(pick(row, ("acceptors", "bind", "enable", "id", "name", "type")) | {"running": row["enable"]})


def control_listener(state: State, request: Request, name: str, action: str) -> Answer:
    """``POST /listeners/{id}/start|stop|restart``: 200 without a body; all but start drop connections."""
    kind = _listener(state, name)
    if action not in {"start", "stop", "restart"}:
        return not_found_page(request)
    if action == "stop":
        state.closed_listeners.add(name)
    else:
        state.closed_listeners.discard(name)
    if action != "start" and kind == "tcp":
        for client in state.mqtt.online():
            state.mqtt.disconnect(client.clientid)
    state.restarts[name] += action == "restart"
    return Answer(200)


# status and the rest


def get_status(state: State, request: Request) -> Answer:
    """``GET /status`` and ``GET /api/v5/status``, without credentials."""
    if request.arg("format") == "json":
        row = {"node_name": state.node, "broker_status": "started", "app_status": "running"}
        if not hides_version(state):
            row["rel_vsn"] = state.version_text
        return json_answer(200, row)
    return text_answer(200, f"Node {state.node} is started\nemqx is running")


def hides_version(state: State) -> bool:
    """Return whether the status no longer shows the version: 5.10.4, 6.0.3, 6.1.2 and 6.2.1 removed it."""
    version = state.version
    first: dict[tuple[int, ...], tuple[int, ...]] = {
        (5, 10): (5, 10, 4),
        (6, 0): (6, 0, 3),
        (6, 1): (6, 1, 2),
        (6, 2): (6, 2, 1),
    }
    return version >= first.get(version[:2], (6, 3, 0))


def not_for_keys(state: State, request: Request, *rest: str) -> Answer:
    """Refuse an API key: ``/api_key`` and ``/users`` want a bearer token."""
    raise error(
        401,
        "API_KEY_NOT_ALLOW",
        f"Please use bearer Token instead, using API key/secret in {request.route.split('/')[1]} path is not permitted",
    )


def list_gateways(state: State, request: Request) -> Answer:
    """``GET /gateways``: none is loaded."""
    names = _GATEWAYS_6_3 if state.at_least(6, 3) else _GATEWAYS
    return ok([{"name": name, "status": "unloaded"} for name in names])


_GATEWAYS = ("coap", "exproto", "lwm2m", "mqttsn", "stomp")
_GATEWAYS_6_3 = tuple(sorted([*_GATEWAYS, "gbt32960", "jt808", "nats", "ocpp"]))


def list_slow_subscriptions(state: State, request: Request) -> Answer:
    """``GET /slow_subscriptions``: none is slow."""
    return ok({"data": []})


def list_traces(state: State, request: Request) -> Answer:
    """``GET /trace``: nothing is traced."""
    return ok([])


def not_enabled(state: State, request: Request) -> Answer:
    """``/queues`` and ``/streams`` of a broker that is configured without them."""
    raise error(503, "SERVICE_UNAVAILABLE", "Not enabled")


def list_plugins(state: State, request: Request) -> Answer:
    """``GET /plugins``."""
    return ok([])


#: What the license that comes with 6.3 says otherwise.
_COMMUNITY = {
    "customer": "Developer",
    "customer_type": 11,
    "deployment": "Development",
    "max_connections": 10_000_000,
    "max_sessions": 10_000_000,
    "max_tps": "infinity",
    "type": "community",
}


def get_license(state: State, request: Request) -> Answer:
    """``GET /license``: Enterprise, and every edition since 5.9."""
    now = state.now()
    left = state.license_days * 86400
    row: dict[str, Any] = {
        "customer": "Evaluation",
        "customer_type": 10,
        "deployment": "default",
        "email": "contact@emqx.io",
        "expiry": left < 0,
        "expiry_at": rfc3339(now + left)[:10],
        "max_connections": 1000,
        "max_sessions": 1000,
        "start_at": rfc3339(now - 86400)[:10],
        "type": "trial",
    }
    return ok({**row, **_COMMUNITY} if state.at_least(6, 3) else row)


def has_enterprise(state: State) -> bool:
    """Return whether the routes of the Enterprise edition are there: all have them since 5.9."""
    return state.edition == "Enterprise" or state.at_least(5, 9)


ROUTES = [
    Route("GET", "/status", get_status, public=True),
    Route("GET", "/nodes", list_nodes),
    Route("GET", "/nodes/{node}", get_node),
    Route("GET", "/nodes/{node}/stats", get_node_stats),
    Route("GET", "/nodes/{node}/metrics", get_node_metrics),
    Route("GET", "/cluster", get_cluster),
    Route("GET", "/stats", get_stats),
    Route("GET", "/metrics", get_metrics),
    Route("GET", "/monitor_current", get_monitor),
    Route("GET", "/monitor_current/nodes/{node}", get_node_monitor),
    Route("GET", "/alarms", list_alarms),
    Route("DELETE", "/alarms", clear_alarms),
    Route("POST", "/alarms/force_deactivate", deactivate_alarm, _can_deactivate),
    Route("GET", "/listeners", list_listeners),
    Route("GET", "/listeners/{id}", get_listener),
    Route("POST", "/listeners/{id}/{action}", control_listener),
    Route("GET", "/gateways", list_gateways),
    Route("GET", "/slow_subscriptions", list_slow_subscriptions),
    Route("GET", "/trace", list_traces),
    Route("GET", "/queues", not_enabled, since(6, 3)),
    Route("POST", "/queues", not_enabled, since(6, 3)),
    Route("GET", "/streams", not_enabled, since(6, 3)),
    Route("GET", "/plugins", list_plugins),
    Route("GET", "/license", get_license, has_enterprise),
    Route("GET", "/api_key", not_for_keys),
    Route("POST", "/api_key", not_for_keys),
    Route("GET", "/api_key/{name}", not_for_keys),
    Route("GET", "/users", not_for_keys),
]

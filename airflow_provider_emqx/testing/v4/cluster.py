"""API v4, cluster: brokers, nodes, stats, metrics, alarms, listeners, plugins, modules."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.testing.figures import METRICS_V4, STATS_V4, count_on, stats_row
from airflow_provider_emqx.testing.http import (
    Answer,
    HttpError,
    Request,
    local_time,
    text_answer,
)
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import Alarm, NodeInfo, State
from airflow_provider_emqx.testing.v4.replies import (
    UNKNOWN,
    data,
    done,
    failed,
    message_only,
    not_found,
    read_object,
)


def _uptime(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "days"), (hours, "hours"), (minutes, "minutes"), (rest, "seconds")]
    while len(parts) > 1 and parts[0][0] == 0:
        del parts[0]
    return ", ".join(f"{value} {unit}" for value, unit in parts)


def _broker_row(state: State, info: NodeInfo) -> dict[str, Any]:
    return {
        "version": state.version_text,
        "uptime": _uptime(state.now() - info.started_at),
        "sysdescr": "EMQX Enterprise" if state.edition == "Enterprise" else "EMQX",
        "otp_release": "25.2.3/13.1.5",
        "node_status": "Running",
        "node": info.name,
        "datetime": local_time(state.now(), state.utc_offset),
    }


def _node_row(state: State, info: NodeInfo) -> dict[str, Any]:
    if not info.running:
        return {"name": info.name, "node_status": "Stopped"}
    counts = count_on(state, info.name)
    return {
        "version": state.version_text,
        "uptime": _uptime(state.now() - info.started_at),
        "process_used": 252,
        "process_available": 262144,
        "otp_release": "25.2.3/13.1.5",
        "node_status": "Running",
        "node": info.name,
        "memory_used": "591.97M",
        "memory_total": "23.54G",
        "max_fds": 20000,
        "load1": "0.31",
        "load5": "1.16",
        "load15": "1.62",
        "live_connections": counts["live_connections"],
        "connections": counts["connections"],
    }


def _known(state: State, node: str) -> NodeInfo:
    info = state.nodes.get(node)
    if info is None:
        raise HttpError(not_found())
    return info


def list_brokers(state: State, request: Request) -> Answer:
    """``GET /brokers``."""
    return data([_broker_row(state, info) for info in state.running()])


def get_broker(state: State, request: Request, node: str) -> Answer:
    """``GET /brokers/{node}``."""
    info = _known(state, node)
    if not info.running:
        raise failed(UNKNOWN, "nodedown")
    return data(_broker_row(state, info))


def list_nodes(state: State, request: Request) -> Answer:
    """``GET /nodes``: a node that does not run has ``name`` in place of ``node``."""
    return data([_node_row(state, info) for info in state.nodes.values()])


def get_node(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}``."""
    return data(_node_row(state, _known(state, node)))


def list_stats(state: State, request: Request) -> Answer:
    """``GET /stats``."""
    return data([{"stats": _stats(state, info), "node": info.name} for info in state.running()])


def _stats(state: State, info: NodeInfo) -> dict[str, int]:
    return stats_row(count_on(state, info.name), STATS_V4)


def node_stats(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/stats``."""
    info = _known(state, node)
    if not info.running:
        raise message_only("nodedown")
    return data(_stats(state, info))


def list_metrics(state: State, request: Request) -> Answer:
    """``GET /metrics``: all counters are kept on the first node."""
    return data([{"node": info.name, "metrics": _metrics(state, info)} for info in state.running()])


def _metrics(state: State, info: NodeInfo) -> dict[str, int]:
    return {name: state.mqtt.metrics[name] if info.name == state.node else 0 for name in METRICS_V4}


def node_metrics(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/metrics``."""
    info = _known(state, node)
    if not info.running:
        raise message_only("nodedown")
    return data(_metrics(state, info))


# alarms


def _alarm_row(state: State, alarm: Alarm) -> dict[str, Any]:
    ended = alarm.deactivate_at
    return {
        "name": alarm.name,
        "message": alarm.message,
        "details": alarm.details,
        "activate_at": int(alarm.activate_at * 1_000_000),
        "deactivate_at": "infinity" if ended is None else int(ended * 1_000_000),
        "duration": int(((ended or state.now()) - alarm.activate_at) * 1_000_000),
        "activated": ended is None,
    }


def _alarms(state: State, node: str | None, active: bool | None) -> Answer:
    alarms = [
        *(state.alarms if active is not False else []),
        *(state.past_alarms if active is not True else []),
    ]
    nodes = [_known(state, node)] if node is not None else state.running()
    rows = [
        {
            "node": info.name,
            "alarms": [_alarm_row(state, alarm) for alarm in alarms if alarm.node == info.name],
        }
        for info in nodes
    ]
    return data(rows if node is None else rows[0]["alarms"])


def list_alarms(state: State, request: Request) -> Answer:
    """``GET /alarms``."""
    return _alarms(state, None, None)


def list_active_alarms(state: State, request: Request) -> Answer:
    """``GET /alarms/activated``."""
    return _alarms(state, None, True)


def list_past_alarms(state: State, request: Request) -> Answer:
    """``GET /alarms/deactivated``."""
    return _alarms(state, None, False)


def node_alarms(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/alarms``."""
    return _alarms(state, node, None)


def node_active_alarms(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/alarms/activated``."""
    return _alarms(state, node, True)


def node_past_alarms(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/alarms/deactivated``."""
    return _alarms(state, node, False)


def deactivate_alarm(state: State, request: Request) -> Answer:
    """``POST /alarms/deactivated``."""
    body = read_object(request)
    node, name = body.get("node"), body.get("name")
    ended = [alarm for alarm in state.alarms if alarm.name == name and alarm.node == node]
    if not ended:
        raise message_only("not_found")
    state.end_alarms(ended)
    return done()


def clear_alarms(state: State, request: Request) -> Answer:
    """``DELETE /alarms/deactivated``."""
    state.past_alarms.clear()
    return done()


def clear_node_alarms(state: State, request: Request, node: str) -> Answer:
    """``DELETE /nodes/{node}/alarms/deactivated``."""
    _known(state, node)
    state.past_alarms[:] = [alarm for alarm in state.past_alarms if alarm.node != node]
    return done()


# listeners, plugins, modules, status


def _listeners(state: State, info: NodeInfo) -> list[dict[str, Any]]:
    online = sum(client.node == info.name for client in state.mqtt.online())
    closed = state.mqtt.metrics["client.disconnected"]
    return [
        {
            "shutdown_count": {"tcp_closed": closed} if closed else [],
            "protocol": "mqtt:tcp",
            "max_conns": 1024000,
            "listen_on": "127.0.0.1:1883",
            "identifier": "mqtt:tcp:external",
            "current_conns": online,
            "acceptors": 8,
        },
        {
            "shutdown_count": [],
            "protocol": "http:management",
            "max_conns": 512,
            "listen_on": "127.0.0.1:8081",
            "current_conns": 2,
            "acceptors": 2,
        },
        {
            "shutdown_count": [],
            "protocol": "mqtt:ws:8083",
            "max_conns": 102400,
            "listen_on": "127.0.0.1:8083",
            "current_conns": 0,
            "acceptors": 4,
        },
    ]


def list_listeners(state: State, request: Request) -> Answer:
    """``GET /listeners``."""
    return data([{"node": info.name, "listeners": _listeners(state, info)} for info in state.running()])


def node_listeners(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/listeners``."""
    return data(_listeners(state, _known(state, node)))


def restart_listener(state: State, request: Request, name: str) -> Answer:
    """``PUT /listeners/{identifier}/restart``: drops the connections; HTTP listeners are refused."""
    if name.startswith("http"):
        return text_answer(403, "http_listener_restart_unsupported")
    if name != "mqtt:tcp:external":
        raise message_only("listener_not_found")
    for client in state.mqtt.online():
        state.mqtt.disconnect(client.clientid)
    state.restarts[name] += 1
    return done()


def restart_node_listener(state: State, request: Request, node: str, name: str) -> Answer:
    """``PUT /nodes/{node}/listeners/{identifier}/restart``."""
    _known(state, node)
    return restart_listener(state, request, name)


_PLUGINS = {
    "emqx_auth_mnesia": ("auth", "EMQX Authentication with Mnesia"),
    "emqx_dashboard": ("feature", "EMQX Web Dashboard"),
    "emqx_management": ("feature", "EMQX Management API and CLI"),
    "emqx_recon": ("feature", "EMQX Recon Plugin"),
    "emqx_retainer": ("feature", "EMQX Retainer"),
    "emqx_rule_engine": ("feature", "EMQX Rule Engine"),
}
_MODULES = {
    "emqx_mod_delayed": ("EMQX Delayed Publish Module", True),
    "emqx_mod_topic_metrics": ("EMQX Topic Metrics Module", True),
    "emqx_mod_subscription": ("EMQX Subscription Module", False),
    "emqx_mod_acl_internal": ("EMQX Internal ACL Module", True),
    "emqx_mod_rewrite": ("EMQX Topic Rewrite Module", False),
    "emqx_mod_presence": ("EMQX Presence Module", True),
    "emqx_mod_trace": ("EMQX Trace Module", False),
    "emqx_mod_slow_subs": ("EMQX Slow Subscribers Statistics Module", False),
}


def list_plugins(state: State, request: Request) -> Answer:
    """``GET /plugins``."""
    rows = [
        {
            "type": kind,
            "name": name,
            "description": description,
            "active": state.auth_plugin if name == "emqx_auth_mnesia" else name != "emqx_dashboard",
        }
        for name, (kind, description) in _PLUGINS.items()
    ]
    return data([{"plugins": rows, "node": info.name} for info in state.running()])


def list_modules(state: State, request: Request) -> Answer:
    """``GET /modules``."""
    optional = {"emqx_mod_delayed", "emqx_mod_topic_metrics"}
    rows = [
        {
            "name": name,
            "description": description,
            "active": state.modules if name in optional else active,
        }
        for name, (description, active) in _MODULES.items()
    ]
    return data([{"node": info.name, "modules": rows} for info in state.running()])


def get_status(state: State, request: Request) -> Answer:
    """``GET /status``, beside the API and without credentials."""
    return text_answer(200, f"Node {state.node} is started\nemqx is running")


def list_routes(state: State, request: Request) -> Answer:
    """``GET /api/v4/``: every route that this broker serves, in minirest's spelling."""
    rows = []
    for route in state.routes:
        function = getattr(route.handler, "func", route.handler)
        path = "/".join(
            f":bin:{part[1:-1]}" if part[:1] == "{" else part for part in route.pattern.split("/")
        )
        rows.append(
            {"name": function.__name__, "method": route.method, "path": path, "descr": function.__name__}
        )
    return data(rows)


ROUTES = [
    Route("GET", "/", list_routes),
    Route("GET", "/brokers", list_brokers),
    Route("GET", "/brokers/{node}", get_broker),
    Route("GET", "/nodes", list_nodes),
    Route("GET", "/nodes/{node}", get_node),
    Route("GET", "/stats", list_stats),
    Route("GET", "/nodes/{node}/stats", node_stats),
    Route("GET", "/metrics", list_metrics),
    Route("GET", "/nodes/{node}/metrics", node_metrics),
    Route("GET", "/alarms", list_alarms),
    Route("GET", "/alarms/activated", list_active_alarms),
    Route("GET", "/alarms/deactivated", list_past_alarms),
    Route("GET", "/nodes/{node}/alarms", node_alarms),
    Route("GET", "/nodes/{node}/alarms/activated", node_active_alarms),
    Route("GET", "/nodes/{node}/alarms/deactivated", node_past_alarms),
    Route("POST", "/alarms/deactivated", deactivate_alarm),
    Route("DELETE", "/alarms/deactivated", clear_alarms),
    Route("DELETE", "/nodes/{node}/alarms/deactivated", clear_node_alarms),
    Route("GET", "/listeners", list_listeners),
    Route("GET", "/nodes/{node}/listeners", node_listeners),
    Route("PUT", "/listeners/{identifier}/restart", restart_listener),
    Route("PUT", "/nodes/{node}/listeners/{identifier}/restart", restart_node_listener),
    Route("GET", "/plugins", list_plugins),
    Route("GET", "/modules", list_modules),
]

"""Nodes and their state, alarms, listeners, EMQX 4."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, flag, path
from airflow_provider_emqx.api.sums import summed
from airflow_provider_emqx.api.v4.backups import (
    delete_backup,
    download_backup,
    export_backup,
    import_backup,
    list_backups,
    upload_backup,
)
from airflow_provider_emqx.api.v4.nodes import (
    get_cluster,
    get_metrics,
    get_rates,
    get_stats,
    list_metrics,
    list_nodes,
    list_stats,
    require_node,
)
from airflow_provider_emqx.api.v4.rebalance import (
    get_rebalance_status,
    start_evacuation,
    start_rebalance,
    stop_evacuation,
    stop_rebalance,
)
from airflow_provider_emqx.api.v4.rules import (
    get_integration,
    get_rule,
    get_rule_metrics,
    list_actions,
    list_connectors,
    list_rules,
    list_sources,
    reset_rule_metrics,
    restart_integration,
    set_integration_enabled,
    set_rule_enabled,
)
from airflow_provider_emqx.api.v4.times import from_milliseconds
from airflow_provider_emqx.exceptions import (
    EmqxNotFoundError,
    EmqxUnsupportedError,
)

__all__ = [
    "clear_alarms",
    "deactivate_alarm",
    "delete_backup",
    "download_backup",
    "export_backup",
    "get_cluster",
    "get_integration",
    "get_license",
    "get_metrics",
    "get_rates",
    "get_rebalance_status",
    "get_rule",
    "get_rule_metrics",
    "get_stats",
    "import_backup",
    "list_actions",
    "list_alarms",
    "list_backups",
    "list_connectors",
    "list_listeners",
    "list_metrics",
    "list_nodes",
    "list_rules",
    "list_sources",
    "list_stats",
    "require_node",
    "reset_rule_metrics",
    "restart_integration",
    "restart_listener",
    "set_integration_enabled",
    "set_rule_enabled",
    "start_evacuation",
    "start_rebalance",
    "stop_evacuation",
    "stop_rebalance",
    "upload_backup",
]


def list_alarms(
    broker: Broker, page: int = 1, limit: int | None = None, activated: bool = True
) -> Operation[Page[Row]]:
    """
    List alarms: ``GET /alarms/activated``, or ``GET /alarms/deactivated``. EMQX 4 sends them all at once.

    :param activated: those that are active now; ``False`` for those that are over.
    :return: rows of ``node``, ``name``, ``message``, ``details``, ``duration`` (ms), ``activate_at``,
        ``deactivate_at``.
    """
    activated = flag("activated", activated)
    reply = yield Request("GET", "/alarms/activated" if activated else "/alarms/deactivated")
    rows = [
        _alarm(node["node"], alarm)
        for node in reply.data
        for alarm in node.get("alarms", ())
        if alarm.get("activated", activated) is activated
    ]
    return Page(rows, None, ("node", "name", "activate_at"))


def deactivate_alarm(broker: Broker, name: str, node: str | None = None) -> Operation[bool]:
    """
    End an active alarm by hand: ``POST /alarms/deactivated``.

    :param name: the alarm's name.
    :param node: on this node; ``None`` for every node that has it.
    :return: whether there was such an active alarm.
    """
    page = yield from list_alarms(broker)
    ended = False
    for where in [row["node"] for row in page.rows if row["name"] == name and node in (None, row["node"])]:
        body = {"node": where, "name": name}
        try:
            yield Request("POST", "/alarms/deactivated", json=body, repeatable=True)
        except EmqxNotFoundError as error:
            # over by itself since the listing
            ended = ended or error.maybe_applied
        else:
            ended = True
    return ended


def clear_alarms(broker: Broker) -> Operation[None]:
    """Delete the history of alarms that are over: ``DELETE /alarms/deactivated``."""
    yield Request("DELETE", "/alarms/deactivated")


def list_listeners(broker: Broker) -> Operation[list[Row]]:
    """
    List listeners: ``GET /listeners``.

    :return: rows of ``id`` (as ``mqtt:tcp:external``; ``None`` for those of the API, which cannot be restarted),
        ``type``, ``name``, ``bind``, ``acceptors``, ``status`` (``running``, ``current_connections``,
        ``max_connections``) and ``node_status``, the same per node.
    """
    reply = yield Request("GET", "/listeners")
    found: dict[tuple[Any, ...], Row] = {}
    for node in reply.data:
        for listener in node.get("listeners", ()):
            status = {
                "running": True,
                "current_connections": listener.get("current_conns"),
                "max_connections": listener.get("max_conns"),
            }
            key = (listener.get("identifier"), listener.get("protocol"), listener.get("listen_on"))
            row = found.setdefault(key, _listener(listener))
            row["node_status"].append({"node": node["node"], "status": status})
    for row in found.values():
        row["status"] = {**summed(part["status"] for part in row["node_status"]), "running": True}
    return list(found.values())


def restart_listener(broker: Broker, listener: str, node: str | None = None) -> Operation[None]:
    """
    Restart a listener; its connections are dropped: ``PUT /listeners/{id}/restart``, or
    ``PUT /nodes/{node}/listeners/{id}/restart``.

    :param listener: id as ``mqtt:tcp:external``.
    :param node: on this node; ``None`` for all.
    :raises EmqxNotFoundError: if there is no such listener.
    """
    path(listener)
    rows = yield from list_listeners(broker)
    if listener not in [row["id"] for row in rows]:
        raise EmqxNotFoundError(200, "", f"there is no listener {listener!r}")
    if node is None:
        where = path("listeners", listener, "restart")
    else:
        yield from require_node(broker, node)
        where = path("nodes", node, "listeners", listener, "restart")
    # EMQX 4 does not decode this one
    yield Request("PUT", where.replace("%3A", ":"))


def get_license(broker: Broker) -> Operation[Row]:
    """Refuse: EMQX 4 does not show its licence over the API."""
    raise EmqxUnsupportedError(f"reading the licence needs EMQX 5 or newer; this is {broker}")


def _alarm(node: str, alarm: Row) -> Row:
    duration = alarm.get("duration")
    return {
        "node": node,
        "name": alarm.get("name"),
        "message": alarm.get("message"),
        "details": alarm.get("details"),
        "duration": duration // 1_000 if isinstance(duration, int) else None,
        "activate_at": _from_microseconds(alarm.get("activate_at")),
        "deactivate_at": _from_microseconds(alarm.get("deactivate_at")),
    }


def _from_microseconds(value: Any) -> str | None:
    return from_milliseconds(value // 1_000) if isinstance(value, int) else None


def _listener(listener: Row) -> Row:
    identifier = listener.get("identifier")
    kind, _, name = str(identifier or listener.get("protocol")).removeprefix("mqtt:").partition(":")
    return {
        "id": identifier,
        "type": kind,
        "name": name or None,
        "bind": listener.get("listen_on"),
        "enable": True,
        "acceptors": listener.get("acceptors"),
        "status": {},
        "node_status": [],
    }

"""Nodes and their state, alarms, listeners, EMQX 5 and 6."""

from __future__ import annotations

from functools import partial
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, flag, path
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.api.v5.backups import (
    delete_backup,
    download_backup,
    export_backup,
    import_backup,
    list_backups,
    upload_backup,
)
from airflow_provider_emqx.api.v5.nodes import (
    get_cluster,
    get_metrics,
    get_rates,
    get_stats,
    list_metrics,
    list_nodes,
    list_stats,
    require_node,
)
from airflow_provider_emqx.api.v5.rebalance import (
    get_rebalance_status,
    start_evacuation,
    start_rebalance,
    stop_evacuation,
    stop_rebalance,
)
from airflow_provider_emqx.api.v5.rules import (
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
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
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
    List alarms: ``GET /alarms``.

    :param activated: those that are active now; ``False`` for those that are over.
    :return: rows of ``node``, ``name``, ``message``, ``details``, ``duration`` (ms), ``activate_at``,
        ``deactivate_at``.
    """
    limit = limit or page_limit(broker)
    params = {"page": page, "limit": limit, "activated": flag("activated", activated)}
    reply = yield Request("GET", "/alarms", params)
    rows = [{**row, "deactivate_at": _unless_infinity(row.get("deactivate_at"))} for row in reply.rows]
    more = partial(list_alarms, broker, page + 1, limit, activated) if has_next(reply, page, limit) else None
    return Page(rows, more, ("node", "name", "activate_at"))


def deactivate_alarm(broker: Broker, name: str, node: str | None = None) -> Operation[bool]:
    """
    End an active alarm by hand: ``POST /alarms/force_deactivate``, EMQX 5.8.8 and newer.

    Before EMQX 6.1 it ends on the node that answers only.

    :param name: the alarm's name.
    :param node: not for EMQX 5 and newer, which cannot choose the node.
    :return: whether there was such an active alarm.
    """
    broker.require("ending an alarm by hand", 5, 8, 8)
    if node is not None:
        raise EmqxUnsupportedError("EMQX 5 and newer cannot end an alarm on one chosen node")
    try:
        yield Request("POST", "/alarms/force_deactivate", json={"name": name}, repeatable=True)
    except EmqxNotFoundError as error:
        return error.maybe_applied
    return True


def clear_alarms(broker: Broker) -> Operation[None]:
    """Delete the history of alarms that are over: ``DELETE /alarms``."""
    yield Request("DELETE", "/alarms")


def list_listeners(broker: Broker) -> Operation[list[Row]]:
    """
    List listeners: ``GET /listeners``.

    :return: rows of ``id`` (as ``tcp:default``), ``type``, ``name``, ``bind``, ``enable``, ``acceptors``, ``status``
        (``running``, ``current_connections``, ``max_connections``) and ``node_status``, the same per node.
    """
    reply = yield Request("GET", "/listeners")
    return reply.rows


def restart_listener(broker: Broker, listener: str, node: str | None = None) -> Operation[None]:
    """
    Restart a listener on all nodes; its connections are dropped: ``POST /listeners/{id}/restart``.

    :param listener: id as ``tcp:default``.
    :param node: not for EMQX 5 and newer.
    :raises EmqxNotFoundError: if there is no such listener.
    """
    if node is not None:
        raise EmqxUnsupportedError("EMQX 5 and newer restart a listener on all nodes, not on one")
    try:
        yield Request("POST", path("listeners", listener, "restart"), repeatable=True)
    except EmqxBadRequestError as error:
        if error.code == "BAD_LISTENER_ID":
            raise EmqxNotFoundError(error.status, error.code, error.reason, error.request) from error
        raise


def get_license(broker: Broker) -> Operation[Row]:
    """
    Read the licence: ``GET /license``, where the edition has one.

    :return: ``expiry_at`` (a date), ``expiry`` (whether it is over), ``max_connections`` or ``max_sessions``, …
    """
    try:
        reply = yield Request("GET", "/license")
    except EmqxUnsupportedError as error:
        raise EmqxUnsupportedError("this EMQX has no licence: the open-source edition needs none") from error
    return reply.row


def _unless_infinity(value: Any) -> Any:
    return None if value == "infinity" else value

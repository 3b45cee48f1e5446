"""Nodes and their figures, EMQX 4."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Request, Row, path
from airflow_provider_emqx.api.nodes import known_node
from airflow_provider_emqx.api.sums import summed
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)

#: what v5 has more, and what a stopped node lacks
_FIELDS = (
    *("connections", "live_connections", "cluster_sessions", "version", "uptime"),
    *("edition", "role", "log_path", "sys_path"),
)
_UNITS = {"day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1_000}


def list_brokers(broker: Broker) -> Operation[list[Row]]:
    """List the running nodes of the cluster with their versions, quickly: ``GET /brokers``."""
    reply = yield Request("GET", "/brokers")
    return reply.rows


def list_nodes(broker: Broker) -> Operation[list[Row]]:
    """
    List the nodes of the cluster, stopped ones too: ``GET /nodes``, which may take seconds.

    :return: rows of ``node``, ``node_status`` (``"running"``, ``"stopped"``), ``version``, ``uptime`` (ms),
        ``connections``, ``live_connections``, memory and load figures; what v5 has more is ``None``.
    """
    reply = yield Request("GET", "/nodes")
    return [_node(row) for row in reply.rows]


def require_node(broker: Broker, node: str) -> Operation[str]:
    """
    Refuse a node that the cluster does not have; where the application may not see the nodes, let it through.

    :raises EmqxConfigError: naming the nodes that there are.
    """
    path(node)
    try:
        rows = yield from list_brokers(broker)
    except (EmqxAuthError, EmqxForbiddenError, EmqxNotFoundError, EmqxUnsupportedError):
        return node
    return known_node(node, rows)


def get_cluster(broker: Broker) -> Operation[Row]:
    """
    Read the cluster's members, from ``GET /brokers``: EMQX 4 has no endpoint for the cluster.

    :return: ``{"name", "nodes", "self"}`` with ``None`` for what is not known.
    """
    rows = yield from list_brokers(broker)
    return {"name": None, "nodes": [row["node"] for row in rows], "self": None}


def list_stats(broker: Broker) -> Operation[list[Row]]:
    """
    List each node's statistics: ``GET /stats``. A node that does not answer is missing.

    :return: rows of ``node`` and figures such as ``live_connections.count``.
    """
    reply = yield Request("GET", "/stats")
    return [{"node": row["node"], **row["stats"]} for row in reply.rows]


def get_stats(broker: Broker, node: str | None = None) -> Operation[Row]:
    """
    Read statistics: the sum of ``GET /stats``, or ``GET /nodes/{node}/stats``.

    :param node: one node; ``None`` for the whole cluster.
    """
    if node is None:
        return summed((yield from list_stats(broker)))
    reply = yield Request("GET", path("nodes", (yield from require_node(broker, node)), "stats"))
    return reply.row


def list_metrics(broker: Broker) -> Operation[list[Row]]:
    """
    List each node's counters, which begin at 0 when the node starts: ``GET /metrics``.

    :return: rows of ``node`` and counters such as ``messages.received``.
    """
    reply = yield Request("GET", "/metrics")
    return [{"node": row["node"], **row["metrics"]} for row in reply.rows]


def get_metrics(broker: Broker, node: str | None = None) -> Operation[Row]:
    """
    Read counters: the sum of ``GET /metrics``, or ``GET /nodes/{node}/metrics``.

    :param node: one node; ``None`` for the whole cluster.
    """
    if node is None:
        return summed((yield from list_metrics(broker)))
    reply = yield Request("GET", path("nodes", (yield from require_node(broker, node)), "metrics"))
    return reply.row


def get_rates(broker: Broker, node: str | None = None) -> Operation[Row]:
    """Refuse: EMQX 4 does not tell rates; take the difference of two looks at its counters."""
    raise EmqxUnsupportedError(
        f"present rates need EMQX 5 or newer; this is {broker}. The difference of two get_metrics() tells them"
    )


def _node(row: Row) -> Row:
    node = {
        **dict.fromkeys(_FIELDS),
        **row,
        # a stopped node has its name under another key
        "node": row.get("node", row.get("name")),
        "node_status": str(row.get("node_status", "")).lower() or None,
        "uptime": _milliseconds(row.get("uptime")),
    }
    for load in ("load1", "load5", "load15"):
        if isinstance(node.get(load), str):
            node[load] = float(node[load])
    return node


def _milliseconds(uptime: Any) -> int | None:
    """Read ``"2 hours, 13 minutes, 59 seconds"``."""
    parts = re.findall(r"(\d+) (day|hour|minute|second)s?", uptime) if isinstance(uptime, str) else []
    return sum(int(number) * _UNITS[unit] for number, unit in parts) if parts else None

"""Nodes and their figures, EMQX 5 and 6."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker, Operation, Request, Row, path
from airflow_provider_emqx.api.nodes import known_node
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)


def list_nodes(broker: Broker) -> Operation[list[Row]]:
    """
    List the nodes of the cluster: ``GET /nodes``.

    :return: rows of ``node``, ``node_status`` (``"running"``, ``"stopped"``), ``version``, ``uptime`` (ms),
        ``connections``, ``live_connections``, memory and load figures.
    """
    reply = yield Request("GET", "/nodes")
    return reply.rows


def require_node(broker: Broker, node: str) -> Operation[str]:
    """
    Refuse a node that the cluster does not have; where the API key may not see the nodes, let it through.

    :raises EmqxConfigError: naming the nodes that there are.
    """
    path(node)
    try:
        rows = yield from list_nodes(broker)
    except (EmqxAuthError, EmqxForbiddenError, EmqxNotFoundError, EmqxUnsupportedError):
        return node
    return known_node(node, rows)


def get_cluster(broker: Broker) -> Operation[Row]:
    """
    Read the cluster's name and members: ``GET /cluster``.

    :return: ``{"name", "nodes", "self"}``.
    """
    reply = yield Request("GET", "/cluster")
    return reply.row


def list_stats(broker: Broker) -> Operation[list[Row]]:
    """
    List each node's statistics: ``GET /stats``. A node that does not answer is missing.

    :return: rows of ``node`` and figures such as ``live_connections.count``.
    """
    reply = yield Request("GET", "/stats")
    return reply.rows


def get_stats(broker: Broker, node: str | None = None) -> Operation[Row]:
    """
    Read statistics: ``GET /stats?aggregate=true``, or ``GET /nodes/{node}/stats``.

    :param node: one node; ``None`` for the whole cluster.
    """
    return (yield from _figures(broker, "stats", node))


def list_metrics(broker: Broker) -> Operation[list[Row]]:
    """
    List each node's counters, which begin at 0 when the node starts: ``GET /metrics``.

    :return: rows of ``node`` and counters such as ``messages.received``.
    """
    reply = yield Request("GET", "/metrics")
    return reply.rows


def get_metrics(broker: Broker, node: str | None = None) -> Operation[Row]:
    """
    Read counters: ``GET /metrics?aggregate=true``, or ``GET /nodes/{node}/metrics``.

    :param node: one node; ``None`` for the whole cluster.
    """
    return (yield from _figures(broker, "metrics", node))


def get_rates(broker: Broker, node: str | None = None) -> Operation[Row]:
    """
    Read the present rates and gauges: ``GET /monitor_current``, or ``GET /monitor_current/nodes/{node}``.

    :param node: one node; ``None`` for the whole cluster.
    :return: ``received_msg_rate``, ``sent_msg_rate``, ``dropped_msg_rate`` (per second), ``live_connections``, …
    """
    if node is None:
        reply = yield Request("GET", "/monitor_current")
    else:
        reply = yield Request(
            "GET", path("monitor_current", "nodes", (yield from require_node(broker, node)))
        )
    return reply.row


def _figures(broker: Broker, kind: str, node: str | None) -> Operation[Row]:
    if node is None:
        reply = yield Request("GET", f"/{kind}", {"aggregate": True})
    else:
        reply = yield Request("GET", path("nodes", (yield from require_node(broker, node)), kind))
    return reply.row

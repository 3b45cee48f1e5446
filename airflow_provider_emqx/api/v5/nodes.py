"""Nodes, their figures, the licence, EMQX 5 and 6."""

from __future__ import annotations

from typing import cast

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Broker, Operation, Request, Row, Rows, path
from airflow_provider_emqx.api.nodes import known_node
from airflow_provider_emqx.api.rows import NodeRow, NodeRows
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)


class Nodes(Area):
    """Nodes, their figures, the licence."""

    def list(self) -> Operation[NodeRows]:
        """
        List the nodes of the cluster: ``GET /nodes``.

        :return: rows of ``node``, ``node_status`` (``"running"``, ``"stopped"``), ``version``, ``uptime`` (ms),
            ``connections``, ``live_connections``, memory and load figures.
        """
        reply = yield Request("GET", "/nodes")
        return cast("list[NodeRow]", reply.rows)

    def list_running(self) -> Operation[NodeRows]:
        """
        List the running nodes with their versions, as quickly as the broker can: ``GET /nodes``.

        :return: rows of ``node``, ``version``, …
        """
        return (yield from self.list())

    def require(self, node: str) -> Operation[str]:
        """
        Refuse a node that the cluster does not have; where the API key may not see the nodes, let it through.

        :raises EmqxConfigError: naming the nodes that there are.
        """
        path(node)
        try:
            rows = yield from self.list_running()
        except (EmqxAuthError, EmqxForbiddenError, EmqxNotFoundError, EmqxUnsupportedError):
            return node
        return known_node(node, rows)

    def get_cluster(self) -> Operation[Row]:
        """Read the cluster's name and members: ``GET /cluster``."""
        reply = yield Request("GET", "/cluster")
        return reply.row

    def list_stats(self) -> Operation[Rows]:
        """
        List each node's statistics: ``GET /stats``. A node that does not answer is missing.

        :return: rows of ``node`` and figures such as ``live_connections.count``.
        """
        return (yield from self._per_node("stats"))

    def get_stats(self, node: str | None = None) -> Operation[Row]:
        """Read statistics: ``GET /stats?aggregate=true``, or ``GET /nodes/{node}/stats``."""
        return (yield from self._figures("stats", node))

    def list_metrics(self) -> Operation[Rows]:
        """
        List each node's counters, which begin at 0 when the node starts: ``GET /metrics``.

        :return: rows of ``node`` and counters such as ``messages.received``.
        """
        return (yield from self._per_node("metrics"))

    def get_metrics(self, node: str | None = None) -> Operation[Row]:
        """Read counters: ``GET /metrics?aggregate=true``, or ``GET /nodes/{node}/metrics``."""
        return (yield from self._figures("metrics", node))

    def get_rates(self, node: str | None = None) -> Operation[Row]:
        """Read the present rates and gauges: ``GET /monitor_current``, or ``GET /monitor_current/nodes/{node}``."""
        self.broker.require(
            "reading present rates", 5, instead="The difference of two get_metrics() tells them"
        )
        if node is None:
            reply = yield Request("GET", "/monitor_current")
        else:
            reply = yield Request("GET", path("monitor_current", "nodes", (yield from self.require(node))))
        return reply.row

    def _per_node(self, kind: str) -> Operation[Rows]:
        reply = yield Request("GET", f"/{kind}")
        return reply.rows

    def _figures(self, kind: str, node: str | None) -> Operation[Row]:
        if node is None:
            reply = yield Request("GET", f"/{kind}", {"aggregate": True})
        else:
            reply = yield Request("GET", path("nodes", (yield from self.require(node)), kind))
        return reply.row

    def get_license(self) -> Operation[Row]:
        """
        Read the licence: ``GET /license``, where the edition has one.

        :return: ``expiry_at`` (a date), ``expiry`` (whether it is over), ``max_connections`` or ``max_sessions``, …
        """
        self.broker.require("reading the licence", 5)
        try:
            reply = yield Request("GET", "/license")
        except EmqxUnsupportedError as error:
            raise EmqxUnsupportedError(
                "this EMQX has no licence: the open-source edition needs none"
            ) from error
        return reply.row


class NodesArea(Area):
    """
    Base of the areas whose operations may name a node.

    :param nodes: checks the names of nodes: brokers answer unknown ones with a timeout or a missing route.
    """

    def __init__(self, broker: Broker, nodes: Nodes) -> None:
        super().__init__(broker)
        self.nodes = nodes

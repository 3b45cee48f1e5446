"""Nodes, their figures, the licence, EMQX 4."""

from __future__ import annotations

import re
from typing import Any, cast

from airflow_provider_emqx.api.base import Operation, Request, Row, Rows, path
from airflow_provider_emqx.api.filters import Wanted
from airflow_provider_emqx.api.rows import NodeRow, NodeRows
from airflow_provider_emqx.api.sums import summed
from airflow_provider_emqx.api.v5 import nodes as v5

#: what v5 has more, and what a stopped node lacks
_FIELDS = (
    *("connections", "live_connections", "cluster_sessions", "version", "uptime"),
    *("edition", "role", "log_path", "sys_path"),
)

_UNITS = {"day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1_000}


class Nodes(v5.Nodes):
    """Nodes and their figures, under the names of EMQX 5."""

    def list_running(self) -> Operation[NodeRows]:
        """List the running nodes of the cluster with their versions, quickly: ``GET /brokers``."""
        reply = yield Request("GET", "/brokers")
        return cast("list[NodeRow]", reply.rows)

    def list(self) -> Operation[NodeRows]:
        """
        List the nodes of the cluster, stopped ones too: ``GET /nodes``, which may take seconds.

        :return: rows of ``node``, ``node_status`` (``"running"``, ``"stopped"``), ``version``, ``uptime`` (ms),
            ``connections``, ``live_connections``, memory and load figures; what v5 has more is ``None``.
        """
        reply = yield Request("GET", "/nodes")
        return cast("list[NodeRow]", [_node(row) for row in reply.rows])

    def get_cluster(self) -> Operation[Row]:
        """
        Read the cluster's members, from ``GET /brokers``: EMQX 4 has no endpoint for the cluster.

        :return: ``{"name", "nodes", "self"}`` with ``None`` for what is not known.
        """
        rows = yield from self.list_running()
        return {"name": None, "nodes": [row["node"] for row in rows], "self": None}

    def _per_node(self, kind: str) -> Operation[Rows]:
        reply = yield Request("GET", f"/{kind}")
        return [{"node": row["node"], **row[kind]} for row in reply.rows]

    def _figures(self, kind: str, node: str | None) -> Operation[Row]:
        if node is None:
            return summed((yield from self._per_node(kind)))
        reply = yield Request("GET", path("nodes", (yield from self.require(node)), kind))
        return reply.row


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


def place_of(listing: str, nodes: v5.Nodes, wanted: Wanted, page: int) -> Operation[str]:
    """
    Return the path of a listing, which EMQX 4 has for the cluster and for each node.

    :param listing: its name.
    :param nodes: checks the node's name, once.
    :param wanted: the filters.
    :param page: number of the page.
    """
    if "node" not in wanted:
        return f"/{listing}"
    if page == 1:
        yield from nodes.require(wanted["node"])
    return path("nodes", wanted["node"], listing)

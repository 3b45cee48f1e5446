"""Listeners, EMQX 4."""

from __future__ import annotations

from typing import Any, cast

from airflow_provider_emqx.api.base import Operation, Request, Row, path
from airflow_provider_emqx.api.rows import ListenerRow, ListenerRows
from airflow_provider_emqx.api.sums import summed
from airflow_provider_emqx.api.v5 import listeners as v5
from airflow_provider_emqx.exceptions import EmqxNotFoundError


class Listeners(v5.Listeners):
    """Listeners, under the names of EMQX 5."""

    def list(self) -> Operation[ListenerRows]:
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
        return cast("list[ListenerRow]", list(found.values()))

    def restart(self, listener: str, node: str | None = None) -> Operation[None]:
        """
        Restart a listener; its connections are dropped: ``PUT /listeners/{id}/restart``, or
        ``PUT /nodes/{node}/listeners/{id}/restart``.

        :param listener: id as ``mqtt:tcp:external``.
        :param node: on this node; ``None`` for all.
        """
        path(listener)
        rows = yield from self.list()
        if listener not in [row["id"] for row in rows]:
            raise EmqxNotFoundError(200, "", f"listener {listener!r} not found")
        if node is None:
            where = path("listeners", listener, "restart")
        else:
            yield from self.nodes.require(node)
            where = path("nodes", node, "listeners", listener, "restart")
        # EMQX 4 does not decode this one
        yield Request("PUT", where.replace("%3A", ":"))


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

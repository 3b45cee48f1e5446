"""Evacuation of nodes and rebalancing of the cluster, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.api.base import Operation, Request, Row, path
from airflow_provider_emqx.api.rebalance import EVACUATION, REBALANCE, options, unsupported
from airflow_provider_emqx.api.v5.nodes import NodesArea
from airflow_provider_emqx.exceptions import EmqxUnsupportedError


class Rebalance(NodesArea):
    """Evacuation and rebalancing, EMQX 5.9 and newer, Enterprise before."""

    #: settings of an evacuation
    _evacuation = EVACUATION

    def get_status(self) -> Operation[Row]:
        """
        Read what is being evacuated or rebalanced: ``GET /load_rebalance/global_status``; EMQX 5.9 and newer,
        Enterprise before.

        :return: ``{"evacuations": […], "purges": […], "rebalances": […]}``, each row with its ``node`` and ``stats``;
            empty lists when nothing goes on.
        :raises EmqxUnsupportedError: on the open-source editions before EMQX 5.9.
        """
        try:
            reply = yield Request("GET", "/load_rebalance/global_status")
        except EmqxUnsupportedError as error:
            raise unsupported(self.broker) from error
        return {name: list(reply.data.get(name) or ()) for name in ("evacuations", "purges", "rebalances")}

    def start_evacuation(self, node: str, settings: Mapping[str, Any] | None = None) -> Operation[None]:
        """
        Move all clients and sessions away from a node: ``POST /load_rebalance/{node}/evacuation/start``; EMQX 5.9 and
        newer, Enterprise before.

        It goes on in the broker; :func:`get_rebalance_status` tells how far it is.

        :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``wait_takeover``,
            ``wait_health_check`` (as ``"60s"``; not on EMQX 4, which begins at once), ``redirect_to``, ``migrate_to``
            (list of nodes).
        :raises EmqxBadRequestError: if an evacuation of the node is under way.
        """
        yield from self._act(node, "evacuation/start", options(settings, self._evacuation))

    def stop_evacuation(self, node: str) -> Operation[None]:
        """
        End an evacuation, so that clients may connect to the node again:
        ``POST /load_rebalance/{node}/evacuation/stop``; EMQX 5.9 and newer, Enterprise before.
        """
        yield from self._act(node, "evacuation/stop", None)

    def start(self, node: str, settings: Mapping[str, Any] | None = None) -> Operation[None]:
        """
        Spread clients and sessions evenly over nodes: ``POST /load_rebalance/{node}/start``; EMQX 5.9 and newer,
        Enterprise before.
        """
        yield from self._act(node, "start", options(settings, REBALANCE))

    def stop(self, node: str) -> Operation[None]:
        """End a rebalancing: ``POST /load_rebalance/{node}/stop``; EMQX 5.9 and newer, Enterprise before."""
        yield from self._act(node, "stop", None)

    def _act(self, node: str, what: str, body: Row | None) -> Operation[None]:
        yield from self.nodes.require(node)
        try:
            yield Request("POST", path("load_rebalance", node, *what.split("/")), json=body, repeatable=True)
        except EmqxUnsupportedError as error:
            raise unsupported(self.broker) from error

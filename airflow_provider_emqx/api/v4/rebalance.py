"""Evacuation of nodes and rebalancing of the cluster, EMQX 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.api.base import Operation, Request, Row, Rows, path
from airflow_provider_emqx.api.rebalance import EVACUATION, unsupported
from airflow_provider_emqx.api.v5 import rebalance as v5
from airflow_provider_emqx.exceptions import EmqxUnsupportedError


class Rebalance(v5.Rebalance):
    """Evacuation and rebalancing, EMQX Enterprise 4.4."""

    # EMQX 4 begins at once
    _evacuation = EVACUATION - {"wait_health_check"}

    def get_status(self) -> Operation[Row]:
        """
        Read what is being evacuated or rebalanced: ``GET /load_rebalance/global_status``.

        :raises EmqxUnsupportedError: on the open-source edition.
        """
        try:
            reply = yield Request("GET", "/load_rebalance/global_status", accept=(200,))
        except EmqxUnsupportedError as error:
            raise unsupported(self.broker) from error
        return {name: _rows(reply.data.get(name) or {}) for name in ("evacuations", "purges", "rebalances")}

    def _act(self, node: str, what: str, body: Row | None) -> Operation[None]:
        yield from self.nodes.require(node)
        try:
            yield Request(
                "POST",
                path("load_rebalance", node, *what.split("/")),
                json=body or {},
                repeatable=True,
                accept=(200,),
            )
        except EmqxUnsupportedError as error:
            raise unsupported(self.broker) from error


def _rows(found: Any) -> Rows:
    """Write what EMQX 4 keeps by node as the rows of v5."""
    if isinstance(found, Mapping):
        return [{**row, "node": node} for node, row in found.items()]
    return list(found)

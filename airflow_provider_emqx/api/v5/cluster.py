"""Nodes and their state, EMQX 5 and 6."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker, Operation, Request, Row


def list_nodes(broker: Broker) -> Operation[list[Row]]:
    """List the nodes of the cluster: ``GET /nodes``."""
    reply = yield Request("GET", "/nodes")
    return list(reply.data)

"""Nodes and their state, EMQX 4."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker, Operation, Request, Row


def list_brokers(broker: Broker) -> Operation[list[Row]]:
    """List the nodes of the cluster with their versions, quickly: ``GET /brokers``."""
    reply = yield Request("GET", "/brokers")
    return list(reply.data)

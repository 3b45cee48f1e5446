"""Evacuation of nodes and rebalancing of the cluster, EMQX Enterprise 4.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Request, Row, path
from airflow_provider_emqx.api.rebalance import EVACUATION, REBALANCE, options, unsupported
from airflow_provider_emqx.api.v4.nodes import require_node
from airflow_provider_emqx.exceptions import EmqxUnsupportedError

#: EMQX 4 begins at once
_EVACUATION = EVACUATION - {"wait_health_check"}


def get_rebalance_status(broker: Broker) -> Operation[Row]:
    """
    Read what is being evacuated or rebalanced: ``GET /load_rebalance/global_status``.

    :return: ``{"evacuations": […], "purges": […], "rebalances": […]}``, each row with its ``node`` and ``stats``; empty
        lists when nothing goes on.
    :raises EmqxUnsupportedError: on the open-source edition.
    """
    try:
        reply = yield Request("GET", "/load_rebalance/global_status", accept=(200,))
    except EmqxUnsupportedError as error:
        raise unsupported(broker) from error
    return {name: _rows(reply.data.get(name) or {}) for name in ("evacuations", "purges", "rebalances")}


def _rows(found: Any) -> list[Row]:
    """Write what EMQX 4 keeps by node as the rows of v5."""
    if isinstance(found, Mapping):
        return [{**row, "node": node} for node, row in found.items()]
    return list(found)


def start_evacuation(broker: Broker, node: str, settings: Mapping[str, Any] | None = None) -> Operation[None]:
    """
    Move all clients and sessions away from a node: ``POST /load_rebalance/{node}/evacuation/start``.

    It goes on in the broker; :func:`get_rebalance_status` tells how far it is.

    :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``wait_takeover``, ``redirect_to``,
        ``migrate_to`` (list of nodes).
    :raises EmqxBadRequestError: if an evacuation of the node is under way.
    """
    yield from _act(broker, node, "evacuation/start", options(settings, _EVACUATION))


def stop_evacuation(broker: Broker, node: str) -> Operation[None]:
    """End an evacuation; clients may connect to the node again: ``POST /load_rebalance/{node}/evacuation/stop``."""
    yield from _act(broker, node, "evacuation/stop", None)


def start_rebalance(broker: Broker, node: str, settings: Mapping[str, Any] | None = None) -> Operation[None]:
    """
    Spread clients and sessions evenly over nodes: ``POST /load_rebalance/{node}/start``.

    :param node: the node that coordinates it.
    :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``abs_conn_threshold``,
        ``rel_conn_threshold``, ``abs_sess_threshold``, ``rel_sess_threshold``, ``wait_takeover``,
        ``wait_health_check`` (as ``"60s"``), ``nodes`` (list).
    """
    yield from _act(broker, node, "start", options(settings, REBALANCE))


def stop_rebalance(broker: Broker, node: str) -> Operation[None]:
    """End a rebalancing: ``POST /load_rebalance/{node}/stop``."""
    yield from _act(broker, node, "stop", None)


def _act(broker: Broker, node: str, what: str, body: Row | None) -> Operation[None]:
    yield from require_node(broker, node)
    try:
        yield Request(
            "POST",
            path("load_rebalance", node, *what.split("/")),
            json=body or {},
            repeatable=True,
            accept=(200,),
        )
    except EmqxUnsupportedError as error:
        raise unsupported(broker) from error

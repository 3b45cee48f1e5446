"""Evacuation of nodes and rebalancing of the cluster, EMQX Enterprise 5, EMQX 5.9 and newer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Request, Row, path
from airflow_provider_emqx.api.rebalance import EVACUATION, REBALANCE, options, unsupported
from airflow_provider_emqx.api.v5.nodes import require_node
from airflow_provider_emqx.exceptions import EmqxUnsupportedError


def get_rebalance_status(broker: Broker) -> Operation[Row]:
    """
    Read what is being evacuated or rebalanced: ``GET /load_rebalance/global_status``; EMQX 5.9 and newer, Enterprise
    before.

    :return: ``{"evacuations": […], "purges": […], "rebalances": […]}``, each row with its ``node`` and ``stats``; empty
        lists when nothing goes on.
    :raises EmqxUnsupportedError: on the open-source editions before EMQX 5.9.
    """
    try:
        reply = yield Request("GET", "/load_rebalance/global_status")
    except EmqxUnsupportedError as error:
        raise unsupported(broker) from error
    return {name: list(reply.data.get(name) or ()) for name in ("evacuations", "purges", "rebalances")}


def start_evacuation(broker: Broker, node: str, settings: Mapping[str, Any] | None = None) -> Operation[None]:
    """
    Move all clients and sessions away from a node: ``POST /load_rebalance/{node}/evacuation/start``; EMQX 5.9 and
    newer, Enterprise before.

    It goes on in the broker; :func:`get_rebalance_status` tells how far it is.

    :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``wait_takeover``,
        ``wait_health_check`` (as ``"60s"``), ``redirect_to``, ``migrate_to`` (list of nodes).
    :raises EmqxBadRequestError: if an evacuation of the node is under way.
    """
    yield from _act(broker, node, "evacuation/start", options(settings, EVACUATION))


def stop_evacuation(broker: Broker, node: str) -> Operation[None]:
    """
    End an evacuation, so that clients may connect to the node again:
    ``POST /load_rebalance/{node}/evacuation/stop``; EMQX 5.9 and newer, Enterprise before.
    """
    yield from _act(broker, node, "evacuation/stop", None)


def start_rebalance(broker: Broker, node: str, settings: Mapping[str, Any] | None = None) -> Operation[None]:
    """
    Spread clients and sessions evenly over nodes: ``POST /load_rebalance/{node}/start``; EMQX 5.9 and newer,
    Enterprise before.

    :param node: the node that coordinates it.
    :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``abs_conn_threshold``,
        ``rel_conn_threshold``, ``abs_sess_threshold``, ``rel_sess_threshold``, ``wait_takeover``,
        ``wait_health_check`` (as ``"60s"``), ``nodes`` (list).
    """
    yield from _act(broker, node, "start", options(settings, REBALANCE))


def stop_rebalance(broker: Broker, node: str) -> Operation[None]:
    """End a rebalancing: ``POST /load_rebalance/{node}/stop``; EMQX 5.9 and newer, Enterprise before."""
    yield from _act(broker, node, "stop", None)


def _act(broker: Broker, node: str, what: str, body: Row | None) -> Operation[None]:
    yield from require_node(broker, node)
    try:
        yield Request("POST", path("load_rebalance", node, *what.split("/")), json=body, repeatable=True)
    except EmqxUnsupportedError as error:
        raise unsupported(broker) from error

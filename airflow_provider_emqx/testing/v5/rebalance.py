"""API v5, node evacuation and rebalance: Enterprise, and every edition since 5.9."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.testing import rebalance as work
from airflow_provider_emqx.testing.http import Answer, Request
from airflow_provider_emqx.testing.state import NodeInfo, State
from airflow_provider_emqx.testing.v5.cluster import has_enterprise
from airflow_provider_emqx.testing.v5.replies import bad_request, error, invalid, ok, read_object


def get_status(state: State, request: Request) -> Answer:
    """``GET /load_rebalance/status``: of the answering node."""
    return ok(work.local_status(state))


def get_global_status(state: State, request: Request) -> Answer:
    """``GET /load_rebalance/global_status``."""
    evacuations = [
        {**work.evacuation_status(state, info), "node": info.name}
        for info in state.running()
        if info.evacuation is not None
    ]
    rebalances = [
        {**work.rebalance_status(one), "node": coordinator} for coordinator, one in state.rebalances.items()
    ]
    return ok({"evacuations": evacuations, "purges": [], "rebalances": rebalances})


def check_availability(state: State, request: Request) -> Answer:
    """``GET /load_rebalance/availability_check``, without credentials: for load balancers."""
    if not work.available(state, state.nodes[state.node]):
        raise error(503, "NODE_EVACUATING", "Node Evacuating")
    return ok({})


def _node(state: State, name: str) -> NodeInfo:
    info = state.nodes.get(name)
    if info is None or not info.running:
        raise error(404, "NOT_FOUND", f"Node not found: {name}")
    return info


def _options(state: State, request: Request, nodes: str) -> dict[str, Any]:
    options = read_object(request)
    work.check_numbers(options, lambda name: invalid(f"root.{name}", "bad_value", options[name]))
    named = options.get(nodes) or []
    unknown = [name for name in named if name not in state.nodes]
    if unknown:
        raise bad_request(f"Invalid nodes: {unknown}")
    down = [name for name in named if not state.nodes[name].running]
    if down:
        raise error(400, "NOT_FOUND", f"Nodes unavailable: {down}")
    return options


def _done(node: str, refusal: str | None) -> Answer:
    if refusal:
        raise bad_request(f"error on node '{node}': {refusal}")
    return ok({})


def start_evacuation(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/evacuation/start``."""
    info = _node(state, node)
    return _done(node, work.start_evacuation(state, info, _options(state, request, "migrate_to")))


def stop_evacuation(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/evacuation/stop``."""
    return _done(node, work.stop_evacuation(_node(state, node)))


def start_rebalance(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/start``."""
    _node(state, node)
    return _done(node, work.start_rebalance(state, node, _options(state, request, "nodes")))


def stop_rebalance(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/stop``."""
    _node(state, node)
    return _done(node, work.stop_rebalance(state, node))


ROUTES = work.routes(
    has_enterprise,
    get_status,
    get_global_status,
    check_availability,
    start_rebalance,
    stop_rebalance,
    start_evacuation,
    stop_evacuation,
)

"""API v4, node evacuation and rebalance: Enterprise only. Its status answers have no ``code``."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.testing import rebalance as work
from airflow_provider_emqx.testing.http import Answer, Request, json_answer
from airflow_provider_emqx.testing.state import NodeInfo, State
from airflow_provider_emqx.testing.v4.replies import data, failed, read_object

_EVACUATION = frozenset(["conn_evict_rate", "sess_evict_rate", "redirect_to", "wait_takeover", "migrate_to"])


def _enterprise(state: State) -> bool:
    return state.edition == "Enterprise"


def get_status(state: State, request: Request) -> Answer:
    """``GET /load_rebalance/status``: of the answering node."""
    return json_answer(200, work.local_status(state))


def get_global_status(state: State, request: Request) -> Answer:
    """``GET /load_rebalance/global_status``: by node."""
    evacuations = {
        info.name: work.evacuation_status(state, info)
        for info in state.running()
        if info.evacuation is not None
    }
    rebalances = {name: work.rebalance_status(one) for name, one in state.rebalances.items()}
    return json_answer(200, {"evacuations": evacuations, "rebalances": rebalances})


def check_availability(state: State, request: Request) -> Answer:
    """``GET /load_rebalance/availability_check``, without credentials: for load balancers."""
    return json_answer(200 if work.available(state, state.nodes[state.node]) else 503, {})


def _node(state: State, name: str) -> NodeInfo:
    info = state.nodes.get(name)
    if info is None:
        raise failed(400, f"invalid node: {name}")
    return info


def _options(state: State, request: Request) -> dict[str, Any]:
    options = read_object(request)
    work.check_numbers(options, lambda name: failed(400, f"invalid {name} value"))
    for name in [*(options.get("nodes") or []), *(options.get("migrate_to") or [])]:
        _node(state, name)
    return options


def _done(refusal: str | None) -> Answer:
    if refusal:
        raise failed(400, refusal)
    return data([])


def start_evacuation(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/evacuation/start``: begins at once."""
    info, options = _node(state, node), _options(state, request)
    unknown = sorted(set(options) - _EVACUATION)
    if unknown:
        raise failed(400, f"Unknown evacuation param: {unknown[0]}")
    return _done(work.start_evacuation(state, info, {"wait_health_check": 0, **options}))


def stop_evacuation(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/evacuation/stop``."""
    return _done(work.stop_evacuation(_node(state, node)))


def start_rebalance(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/start``."""
    _node(state, node)
    return _done(work.start_rebalance(state, node, _options(state, request)))


def stop_rebalance(state: State, request: Request, node: str) -> Answer:
    """``POST /load_rebalance/{node}/stop``."""
    _node(state, node)
    return _done(work.stop_rebalance(state, node))


ROUTES = work.routes(
    _enterprise,
    get_status,
    get_global_status,
    check_availability,
    start_rebalance,
    stop_rebalance,
    start_evacuation,
    stop_evacuation,
)

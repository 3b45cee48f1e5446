"""Clients that leave a node: evacuation and rebalance, second by second of the broker's clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_emqx.testing.state import NodeInfo, State

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: Any, default: float) -> float:
    """Read a duration: a number of seconds, or a text such as ``"60s"``.

    :raises ValueError: neither.
    """
    if value is None:
        return default
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(value))
    if not found:
        raise ValueError(f"bad duration: {value}")
    return float(found.group(1)) * _UNITS[found.group(2)]


@dataclass(slots=True)
class Eviction:
    """An evacuation of one node that is under way."""

    conn_rate: int
    sess_rate: int
    wait_takeover: float
    migrate_to: list[str]
    initial_connected: int
    initial_sessions: int
    state: str = "waiting_health_check"


@dataclass(slots=True)
class Rebalance:
    """A rebalance that is under way."""

    coordinator: str
    donors: list[str]
    recipients: list[str]
    rate: int
    goal: float


def count(state: State, node: str, connected: bool | None = None) -> int:
    """Count the clients of a node: all, connected ones, or sessions without a connection."""
    return sum(
        client.node == node and connected in {None, client.connected}
        for client in state.mqtt.clients.values()
    )


def start_evacuation(state: State, info: NodeInfo, options: dict[str, Any]) -> str | None:
    """Begin to empty a node.

    :return: Why not, or ``None``.
    """
    if info.evacuation is not None:
        return "already_started"
    others = [other.name for other in state.running() if other.name != info.name]
    recipients = options.get("migrate_to") or others
    if not recipients:
        return "no_nodes_to_evacuate_to"
    eviction = Eviction(
        conn_rate=int(options.get("conn_evict_rate") or 500),
        sess_rate=int(options.get("sess_evict_rate") or 500),
        wait_takeover=seconds(options.get("wait_takeover"), 60),
        migrate_to=list(recipients),
        initial_connected=count(state, info.name, True),
        initial_sessions=count(state, info.name, False),
    )
    info.evacuation = eviction
    state.schedule(seconds(options.get("wait_health_check"), 60), lambda: _evict(state, info, eviction))
    return None


def stop_evacuation(info: NodeInfo) -> str | None:
    """Let clients land on a node again."""
    if info.evacuation is None:
        return "not_started"
    info.evacuation = None
    return None


def finish_evacuation(state: State, info: NodeInfo) -> None:
    """Empty an evacuating node at once."""
    eviction = info.evacuation
    if eviction is None:
        raise ValueError(f"{info.name} is not being evacuated")
    _move(state, info.name, eviction.migrate_to, len(state.mqtt.clients), None)
    eviction.state = "prohibiting"


def _evict(state: State, info: NodeInfo, eviction: Eviction) -> None:
    if info.evacuation is not eviction:
        return
    if eviction.state in {"waiting_health_check", "evicting_conns"}:
        eviction.state = "evicting_conns"
        if not _move(state, info.name, eviction.migrate_to, eviction.conn_rate, True):
            eviction.state = "waiting_takeover"
            state.schedule(eviction.wait_takeover, lambda: _evict(state, info, eviction))
            return
    elif eviction.state in {"waiting_takeover", "evicting_sessions"}:
        eviction.state = "evicting_sessions"
        if not _move(state, info.name, eviction.migrate_to, eviction.sess_rate, False):
            eviction.state = "prohibiting"
            return
    else:
        return
    state.schedule(1, lambda: _evict(state, info, eviction))


def _move(state: State, node: str, recipients: list[str], rate: int, connected: bool | None) -> int:
    """Move clients of a node to others; return how many are left."""
    moving = [
        client
        for client in state.mqtt.clients.values()
        if client.node == node and connected in {None, client.connected}
    ]
    for number, client in enumerate(moving[:rate]):
        client.node = recipients[number % len(recipients)]
    return max(0, len(moving) - rate)


def evacuation_status(state: State, info: NodeInfo) -> dict[str, Any]:
    """Return how far an evacuation is."""
    eviction = info.evacuation
    if not isinstance(eviction, Eviction):
        return {}
    return {
        "state": eviction.state,
        "connection_eviction_rate": eviction.conn_rate,
        "session_eviction_rate": eviction.sess_rate,
        "connection_goal": 0,
        "session_goal": 0,
        "session_recipients": eviction.migrate_to,
        "stats": {
            "initial_connected": eviction.initial_connected,
            "current_connected": count(state, info.name, True),
            "initial_sessions": eviction.initial_sessions,
            "current_sessions": count(state, info.name, False),
        },
    }


def start_rebalance(state: State, coordinator: str, options: dict[str, Any]) -> str | None:
    """Begin to move clients from full nodes to empty ones.

    :return: Why not, or ``None``.
    """
    if state.rebalances:
        return "already_started"
    nodes = options.get("nodes") or [info.name for info in state.running()]
    counts = {node: count(state, node, True) for node in nodes}
    goal = sum(counts.values()) / len(counts)
    threshold = max(goal * float(options.get("rel_conn_threshold") or 1.1), goal)
    donors = [node for node, clients in counts.items() if clients > threshold]
    recipients = [node for node, clients in counts.items() if clients < goal]
    if not donors or not recipients:
        return "nothing_to_balance"
    rebalance = Rebalance(coordinator, donors, recipients, int(options.get("conn_evict_rate") or 500), goal)
    state.rebalances[coordinator] = rebalance
    wait = seconds(options.get("wait_health_check"), 60)
    state.schedule(wait, lambda: _rebalance(state, rebalance))
    return None


def stop_rebalance(state: State, coordinator: str) -> str | None:
    """End a rebalance."""
    return None if state.rebalances.pop(coordinator, None) else "not_started"


def _rebalance(state: State, rebalance: Rebalance) -> None:
    if state.rebalances.get(rebalance.coordinator) is not rebalance:
        return
    left = 0
    for donor in rebalance.donors:
        surplus = count(state, donor, True) - int(rebalance.goal)
        if surplus > 0:
            _move(state, donor, rebalance.recipients, min(rebalance.rate, surplus), True)
            left += max(0, surplus - rebalance.rate)
    if left:
        state.schedule(1, lambda: _rebalance(state, rebalance))
    else:
        del state.rebalances[rebalance.coordinator]


def rebalance_status(rebalance: Rebalance) -> dict[str, Any]:
    """Return how far a rebalance is."""
    return {
        "state": "evicting_conns",
        "coordinator_node": rebalance.coordinator,
        "donors": rebalance.donors,
        "recipients": rebalance.recipients,
        "connection_eviction_rate": rebalance.rate,
        "session_eviction_rate": 500,
        "connection_goal": rebalance.goal,
    }


def local_status(state: State) -> dict[str, Any]:
    """Return what the answering node is busy with."""
    info = state.nodes[state.node]
    if info.evacuation is not None:
        return {**evacuation_status(state, info), "process": "evacuation", "status": "enabled"}
    for rebalance in state.rebalances.values():
        if info.name in rebalance.donors:
            return {**rebalance_status(rebalance), "process": "rebalance", "status": "enabled"}
    return {"status": "disabled"}


def check_numbers(options: dict[str, Any], fail: Callable[[str], Exception]) -> None:
    """Refuse rates and thresholds that make no sense."""
    for name in ("conn_evict_rate", "sess_evict_rate", "abs_conn_threshold", "abs_sess_threshold"):
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise fail(name)
    for name in ("rel_conn_threshold", "rel_sess_threshold"):
        value = options.get(name)
        if value is not None and not (isinstance(value, (int, float)) and value > 1.0):
            raise fail(name)
    for name in ("wait_health_check", "wait_takeover"):
        try:
            seconds(options.get(name), 0)
        except ValueError:
            raise fail(name) from None

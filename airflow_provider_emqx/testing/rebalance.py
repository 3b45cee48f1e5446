"""Clients that leave a node: evacuation and rebalance, second by second of the broker's clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from airflow_provider_emqx.testing.routes import Gate, Handler, Route
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


#: What the broker takes where a request does not say.
_RATE, _WAIT, _ABSOLUTE, _RELATIVE = 500, 60, 1000, 1.1


@dataclass(slots=True)
class Eviction:
    """An evacuation of one node that is under way."""

    conn_rate: int
    sess_rate: int
    wait_takeover: float
    migrate_to: list[str]  # empty: all others
    initial_connected: int
    initial_sessions: int
    state: str = "waiting_health_check"


class Limits(NamedTuple):
    """Speed of moving clients, and by how much donors may stay above recipients."""

    rate: int
    absolute: int
    relative: float

    def within(self, donors: float, recipients: float) -> bool:
        """Return whether averages are close enough: by either measure."""
        return donors <= recipients + self.absolute or donors <= recipients * self.relative


@dataclass(slots=True)
class Rebalance:
    """A rebalance that is under way."""

    coordinator: str
    donors: list[str]
    recipients: list[str]
    connections: Limits
    sessions: Limits
    wait_takeover: float
    state: str = "wait_health_check"
    goal: float | None = None


def count(state: State, node: str, connected: bool | None = None) -> int:
    """Count the clients of a node: all, connected ones, or sessions without a connection."""
    return sum(
        client.node == node and connected in {None, client.connected}
        for client in state.mqtt.clients.values()
    )


def available(state: State, info: NodeInfo) -> bool:
    """Return whether a node is neither being emptied nor relieved."""
    return info.evacuation is None and all(info.name not in one.donors for one in state.rebalances.values())


def start_evacuation(state: State, info: NodeInfo, options: dict[str, Any]) -> str | None:
    """Begin to empty a node.

    :return: Why not, or ``None``.
    """
    if info.evacuation is not None:
        return "already_started"
    eviction = Eviction(
        conn_rate=int(options.get("conn_evict_rate") or _RATE),
        sess_rate=int(options.get("sess_evict_rate") or _RATE),
        wait_takeover=seconds(options.get("wait_takeover"), _WAIT),
        migrate_to=list(options.get("migrate_to") or ()),
        initial_connected=count(state, info.name, True),
        initial_sessions=count(state, info.name),
    )
    info.evacuation = eviction
    state.schedule(seconds(options.get("wait_health_check"), _WAIT), lambda: _evict(state, info, eviction))
    return None


def stop_evacuation(info: NodeInfo) -> str | None:
    """Let clients connect to a node again."""
    if info.evacuation is None:
        return "not_started"
    info.evacuation = None
    return None


def finish_evacuation(state: State, info: NodeInfo) -> None:
    """Empty an evacuating node at once."""
    eviction = info.evacuation
    if eviction is None:
        raise ValueError(f"{info.name} is not being evacuated")
    recipients = _recipients(state, info, eviction)
    if not recipients:
        raise ValueError(f"no other node is running that could take the sessions of {info.name}")
    _move(state, info.name, recipients, len(state.mqtt.clients), None)
    eviction.state = "prohibiting"


def _recipients(state: State, info: NodeInfo, eviction: Eviction) -> list[str]:
    named = eviction.migrate_to or list(state.nodes)
    return [
        other.name
        for other in state.running()
        if other is not info and other.name in named and available(state, other)
    ]


def _evict(state: State, info: NodeInfo, eviction: Eviction) -> None:
    """Do one second's work of an evacuation: connections, a pause, sessions."""
    if info.evacuation is not eviction:
        return
    recipients = _recipients(state, info, eviction)
    pause = 1.0
    if eviction.state in {"waiting_health_check", "evicting_conns"}:
        eviction.state = "evicting_conns"
        if count(state, info.name, True):
            _move(state, info.name, recipients, eviction.conn_rate, True)
        else:
            eviction.state, pause = "waiting_takeover", eviction.wait_takeover
    else:
        eviction.state = "evicting_sessions"
        if not count(state, info.name):
            eviction.state = "prohibiting"
            return
        if recipients:
            _move(state, info.name, recipients, eviction.sess_rate, None)
        else:
            pause = 30  # sessions stay where they are until there is a node for them
    state.schedule(pause, lambda: _evict(state, info, eviction))


def _move(state: State, node: str, recipients: list[str], rate: int, connected: bool | None) -> None:
    """Move the clients of a node to others; without another node they only lose their connection."""
    moving = [
        client
        for client in state.mqtt.clients.values()
        if client.node == node and connected in {None, client.connected}
    ]
    for number, client in enumerate(moving[:rate]):
        if recipients:
            client.node = recipients[number % len(recipients)]
        else:
            state.mqtt.disconnect(client.clientid)


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
        "session_recipients": _recipients(state, info, eviction),
        "stats": {
            "initial_connected": eviction.initial_connected,
            "current_connected": count(state, info.name, True),
            "initial_sessions": eviction.initial_sessions,
            "current_sessions": count(state, info.name),
        },
    }


def start_rebalance(state: State, coordinator: str, options: dict[str, Any]) -> str | None:
    """Begin to move clients from full nodes to empty ones.

    :return: Why not, or ``None``.
    """
    if coordinator in state.rebalances:
        return "already_started"
    nodes = options.get("nodes") or [info.name for info in state.running()]
    counts = {node: count(state, node, True) for node in nodes}
    average = _average(counts.values())
    donors = [node for node, clients in counts.items() if clients >= average]
    recipients = [node for node in nodes if node not in donors]
    connections, sessions = (
        Limits(
            int(options.get(f"{kind}_evict_rate") or _RATE),
            int(options.get(f"abs_{kind}_threshold") or _ABSOLUTE),
            float(options.get(f"rel_{kind}_threshold") or _RELATIVE),
        )
        for kind in ("conn", "sess")
    )
    wait_takeover = seconds(options.get("wait_takeover"), _WAIT)
    rebalance = Rebalance(coordinator, donors, recipients, connections, sessions, wait_takeover)
    if not recipients or (
        connections.within(*_averages(state, rebalance, True))
        and sessions.within(*_averages(state, rebalance, None))
    ):
        return "nothing_to_balance"
    state.rebalances[coordinator] = rebalance
    wait = seconds(options.get("wait_health_check"), _WAIT)
    state.schedule(wait, lambda: _rebalance(state, rebalance))
    return None


def _average(counts: Collection[int]) -> float:
    return sum(counts) / len(counts)


def _averages(state: State, rebalance: Rebalance, connected: bool | None) -> tuple[float, float]:
    """Return how many clients there are on an average donor and on an average recipient."""
    donors, recipients = (
        _average([count(state, node, connected) for node in nodes])
        for nodes in (rebalance.donors, rebalance.recipients)
    )
    return donors, recipients


def stop_rebalance(state: State, coordinator: str) -> str | None:
    """End a rebalance."""
    return None if state.rebalances.pop(coordinator, None) else "not_started"


def _rebalance(state: State, rebalance: Rebalance) -> None:
    """Do one second's work of a rebalance: connections, a pause, sessions."""
    if state.rebalances.get(rebalance.coordinator) is not rebalance:
        return
    pause = 1.0
    if rebalance.state in {"wait_health_check", "evicting_conns"}:
        rebalance.state = "evicting_conns"
        if not _relieve(state, rebalance, rebalance.connections, True):
            rebalance.state, pause = "wait_takeover", rebalance.wait_takeover
    else:
        rebalance.state = "evicting_sessions"
        if not _relieve(state, rebalance, rebalance.sessions, False):
            del state.rebalances[rebalance.coordinator]
            return
    state.schedule(pause, lambda: _rebalance(state, rebalance))


def _relieve(state: State, rebalance: Rebalance, limits: Limits, connected: bool) -> bool:
    """Move clients off the donors above the goal, unless all is within the limits."""
    donors, goal = _averages(state, rebalance, connected)
    if connected:
        rebalance.goal = goal
    if limits.within(donors, goal):
        return False
    for node in rebalance.donors:
        if count(state, node, connected) > goal:
            _move(state, node, rebalance.recipients, limits.rate, connected)
    return True


def rebalance_status(rebalance: Rebalance) -> dict[str, Any]:
    """Return how far a rebalance is."""
    status = {
        "state": rebalance.state,
        "coordinator_node": rebalance.coordinator,
        "donors": rebalance.donors,
        "recipients": rebalance.recipients,
        "connection_eviction_rate": rebalance.connections.rate,
        "session_eviction_rate": rebalance.sessions.rate,
    }
    return status if rebalance.goal is None else {**status, "connection_goal": rebalance.goal}


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


def routes(
    gate: Gate,
    get_status: Handler,
    get_global_status: Handler,
    check_availability: Handler,
    start_rebalance: Handler,
    stop_rebalance: Handler,
    start_evacuation: Handler,
    stop_evacuation: Handler,
) -> list[Route]:
    """Return the routes, which are the same in both generations."""
    return [
        Route("GET", "/load_rebalance/status", get_status, gate),
        Route("GET", "/load_rebalance/global_status", get_global_status, gate),
        Route("GET", "/load_rebalance/availability_check", check_availability, gate, public=True),
        Route("POST", "/load_rebalance/{node}/start", start_rebalance, gate),
        Route("POST", "/load_rebalance/{node}/stop", stop_rebalance, gate),
        Route("POST", "/load_rebalance/{node}/evacuation/start", start_evacuation, gate),
        Route("POST", "/load_rebalance/{node}/evacuation/stop", stop_evacuation, gate),
    ]

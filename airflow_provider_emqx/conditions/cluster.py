"""The cluster is healthy, a figure passes a threshold, a rule works, a node is evacuated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow_provider_emqx.api.base import Operation, Row
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.client.listing import Listing
from airflow_provider_emqx.conditions.base import Condition, Outcome, first_of, text, whole
from airflow_provider_emqx.conditions.thresholds import compare, named, threshold_of
from airflow_provider_emqx.exceptions import EmqxConfigError

HEALTHY = "cluster_healthy"
METRIC = "cluster_metric"
RULE_HEALTHY = "rule_healthy"
EVACUATED = "node_evacuated"

_KINDS = ("action", "source", "connector")


def healthy(nodes: Any = "all", no_alarms: Any = None) -> Condition:
    """
    Make the condition that the nodes of the cluster run, and that alarms are not active.

    :param nodes: ``"all"``, or how many must run.
    :param no_alarms: names of alarms, ``"*"`` for any alarm, ``None`` for not looking at alarms.
    :raises EmqxConfigError: for what cannot be right.
    """
    parameters: dict[str, Any] = {"nodes": "all" if nodes == "all" else whole("nodes", nodes)}
    if no_alarms is not None:
        names = [no_alarms] if isinstance(no_alarms, str) else list(no_alarms)
        parameters["no_alarms"] = [text("no_alarms", name) for name in names]
    return Condition(HEALTHY, parameters)


def ask_healthy(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Look at the nodes (``GET /nodes``) and, if asked to, at active alarms (``GET /alarms``, v4 ``/alarms/activated``).

    :param condition: made by :func:`healthy`.
    :param api: the broker's operations.
    :param now: not used.
    """
    wanted, unwanted = condition.parameters["nodes"], condition.parameters.get("no_alarms")
    rows = yield from api.nodes.list()
    running = sorted(str(row["node"]) for row in rows if row.get("node_status") == "running")
    others = sorted({str(row.get("node")) for row in rows} - set(running))
    enough = bool(running) and not others if wanted == "all" else len(running) >= wanted
    details: dict[str, Any] = {"running": running, "not_running": others}
    line = f"{len(running)} nodes run"
    line += f", not so {', '.join(others)}" if others else ""
    if unwanted is None:
        return Outcome(enough, details, line)
    active = yield from active_alarms(api)
    alarms = sorted({str(row["name"]) for row in active if "*" in unwanted or row["name"] in unwanted})
    line += (
        f"; {len(alarms):,} active alarms: {first_of(alarms)}"
        if alarms
        else "; none of those alarms is active"
    )
    return Outcome(enough and not alarms, {**details, "alarms": alarms}, line)


def active_alarms(api: Api) -> Operation[list[Row]]:
    """
    List all alarms that are active.

    :param api: the broker's operations.
    """
    listing = Listing(api.alarms.list(limit=1_000))
    rows: list[Row] = []
    while listing.next is not None:
        rows += yield from listing.page()
    return rows


def metric(
    metric: Any, threshold: Any = None, comparison: Any = ">=", baseline: Any = None, node: Any = None
) -> Condition:
    """
    Make the condition that a statistic or a counter of the cluster passes a threshold.

    :param metric: a statistic as ``"live_connections.count"``, or a counter as ``"messages.received"``.
    :param threshold: number to compare with.
    :param comparison: ``">="`` or ``"<="``.
    :param baseline: value to take the difference to before comparing.
    :param node: of one node; ``None`` for the whole cluster.
    :raises EmqxConfigError: for what cannot be right.
    """
    parameters = {"metric": text("metric", metric), **threshold_of(threshold, comparison, baseline)}
    return Condition(METRIC, parameters if node is None else {**parameters, "node": text("node", node)})


def ask_metric(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Read the statistics (``GET /stats``) and, if the name is none of them, the counters (``GET /metrics``).

    :param condition: made by :func:`metric`.
    :param api: the broker's operations.
    :param now: not used.
    :raises EmqxConfigError: if there is no such figure, or no such node.
    """
    name, node = condition.parameters["metric"], condition.parameters.get("node")
    stats = yield from api.nodes.get_stats(node)
    counter = name not in stats
    figures = (yield from api.nodes.get_metrics(node)) if counter else stats
    value = named(name, {**stats, **figures}, "statistic or counter")
    return compare(name, value, condition.parameters, counter=counter)


def rule_healthy(
    rule_id: Any = None, action_id: Any = None, source_id: Any = None, connector_id: Any = None
) -> Condition:
    """
    Make the condition that parts of data integration work: a rule is enabled and what it uses is connected, an action,
    source or connector is connected.

    :param rule_id: a rule.
    :param action_id: an action, as ``"http:my_hook"`` (EMQX 5.4 and later).
    :param source_id: a source, as ``"mqtt:upstream"`` (EMQX 5.6 and later).
    :param connector_id: a connector; on EMQX 4 a resource, as ``"resource:1234"``.
    :raises EmqxConfigError: if none is given, or one is no text.
    """
    given = {
        "rule_id": rule_id,
        "action_id": action_id,
        "source_id": source_id,
        "connector_id": connector_id,
    }
    parameters = {name: text(name, value) for name, value in given.items() if value is not None}
    if not parameters:
        raise EmqxConfigError(f"give at least one of {', '.join(given)}")
    return Condition(RULE_HEALTHY, parameters)


def ask_rule_healthy(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Read the rule (``GET /rules/{id}``) and the state of what it uses, or of what is named.

    v5 ``GET /actions/{id}``, ``/sources/{id}``, ``/connectors/{id}``; v4 ``GET /resources/{id}``.

    :param condition: made by :func:`rule_healthy`.
    :param api: the broker's operations.
    :param now: not used.
    :raises EmqxUnsupportedError: if this broker has no such part.
    """
    parts = [
        (kind, condition.parameters[f"{kind}_id"]) for kind in _KINDS if f"{kind}_id" in condition.parameters
    ]
    states: dict[str, str] = {}
    if "rule_id" in condition.parameters:
        rule_id = condition.parameters["rule_id"]
        rule = yield from api.rule_engine.get_rule(rule_id)
        states[f"rule {rule_id}"] = "absent" if rule is None else "enabled" if rule["enable"] else "disabled"
        parts += _used_by(api, rule or {})
    for kind, name in dict.fromkeys(parts):
        row = yield from api.rule_engine.get_integration(kind, name)
        states[f"{kind} {name}"] = "absent" if row is None else str(row.get("status") or "unknown")
    ill = {part: state for part, state in states.items() if state not in ("enabled", "connected")}
    line = ", ".join(f"{part} is {state}" for part, state in (ill or states).items())
    return Outcome(not ill, {"states": states}, line)


def _used_by(api: Api, rule: Row) -> Iterable[tuple[str, str]]:
    """List what a rule sends data to; functions that are built in, such as republish, need no connection."""
    for action in rule.get("actions") or ():
        if api.broker.is_v4:
            resource = (action.get("params") or {}).get("$resource")
            if resource:
                yield "connector", str(resource)
        elif isinstance(action, str) and ":" in action:
            yield "action", action


def evacuated(node: Any) -> Condition:
    """
    Make the condition that the evacuation of a node has moved all its clients and sessions away.

    :param node: name of the node, as ``"emqx@10.0.0.1"``.
    :raises EmqxConfigError: if it is no text.
    """
    return Condition(EVACUATED, {"node": text("node", node)})


def ask_evacuated(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Look at how far the evacuation is: ``GET /load_rebalance/global_status``.

    :param condition: made by :func:`evacuated`.
    :param api: the broker's operations.
    :param now: not used.
    :raises EmqxUnsupportedError: on the open-source editions before EMQX 5.9.
    """
    node = condition.parameters["node"]
    status = yield from api.rebalance.get_status()
    rows = [row for row in status["evacuations"] if row.get("node") == node]
    if not rows:
        return Outcome(False, {"node": node, "state": None}, f"{node} is not being evacuated")
    stats = rows[0].get("stats") or {}
    left = {name: stats.get(f"current_{name}") for name in ("connected", "sessions")}
    state = rows[0].get("state")
    # "prohibiting" is the last state: nobody is left, and nobody is let in; in the first one everybody still is
    nobody = left["connected"] == 0 and left["sessions"] == 0
    met = state == "prohibiting" or (nobody and state != "waiting_health_check")
    line = f"{node} is {state}: {left['connected']} connections and {left['sessions']} sessions are left"
    return Outcome(met, {"node": node, "state": state, **left}, line)

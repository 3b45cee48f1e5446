"""The cluster is healthy, a figure passes a threshold, a rule works, a node is evacuated."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.rows import AlarmRow
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.arguments import text, whole
from airflow_provider_emqx.conditions.base import Condition, Outcome, first_of, page_of
from airflow_provider_emqx.conditions.thresholds import Threshold, figure_named
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.transport.listing import Listing

_PARTS = ("action", "source", "connector")


class ClusterHealthy(Condition):
    """
    Nodes of the cluster run, and alarms are not active: ``GET /nodes``, ``GET /alarms`` (v4 ``/alarms/activated``).

    :param nodes: ``"all"``, or how many must run.
    :param no_alarms: names of alarms, ``"*"`` for any alarm, ``None`` for ignoring alarms.
    """

    kind = "cluster_healthy"

    def __init__(self, nodes: Any = "all", no_alarms: Any = None) -> None:
        self.nodes = "all" if nodes == "all" else whole("nodes", nodes)
        self.no_alarms: list[str] | None = None
        if no_alarms is not None:
            names = [no_alarms] if isinstance(no_alarms, str) else list(no_alarms)
            self.no_alarms = [text("no_alarms", name) for name in names]

    def parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {"nodes": self.nodes}
        return parameters if self.no_alarms is None else {**parameters, "no_alarms": self.no_alarms}

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """List the nodes and, if asked to, the active alarms."""
        rows = yield from api.nodes.list()
        running = sorted(str(row["node"]) for row in rows if row.get("node_status") == "running")
        others = sorted({str(row.get("node")) for row in rows} - set(running))
        enough = len(running) >= self.nodes if isinstance(self.nodes, int) else bool(running) and not others
        details: dict[str, Any] = {"running": running, "not_running": others}
        line = f"{len(running)} nodes running"
        line += f"; not running: {', '.join(others)}" if others else ""
        if self.no_alarms is None:
            return Outcome(enough, details, line)
        active = yield from active_alarms(api)
        unwanted = self.no_alarms
        alarms = sorted({str(row["name"]) for row in active if "*" in unwanted or row["name"] in unwanted})
        line += (
            f"; {len(alarms):,} active alarms: {first_of(alarms)}"
            if alarms
            else "; none of those alarms is active"
        )
        return Outcome(enough and not alarms, {**details, "alarms": alarms}, line)


def active_alarms(api: Api) -> Operation[list[AlarmRow]]:
    """List all alarms that are active."""
    listing = Listing(api.alarms.list(limit=page_of(api.alarms)))
    rows: list[AlarmRow] = []
    while listing.next is not None:
        rows += yield from listing.page()
    return rows


class ClusterMetric(Condition):
    """
    A statistic (``GET /stats``) or a counter (``GET /metrics``) of the cluster passes a threshold.

    :param metric: a statistic as ``"live_connections.count"``, or a counter as ``"messages.received"``.
    :param threshold: as of :class:`Threshold`.
    :param comparison: as of :class:`Threshold`.
    :param baseline: as of :class:`Threshold`.
    :param node: of one node; ``None`` for the whole cluster.
    """

    kind = "cluster_metric"

    def __init__(
        self,
        metric: Any,
        threshold: Any = None,
        comparison: Any = ">=",
        baseline: Any = None,
        node: Any = None,
    ) -> None:
        self.metric = text("metric", metric)
        self.threshold = Threshold(threshold, comparison, baseline)
        self.node = None if node is None else text("node", node)

    def parameters(self) -> dict[str, Any]:
        parameters = {"metric": self.metric, **self.threshold.parameters()}
        return parameters if self.node is None else {**parameters, "node": self.node}

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """
        Read the statistics and, if they do not contain the name, the counters.

        :raises EmqxConfigError: for an unknown figure or node.
        """
        stats = yield from api.nodes.get_stats(self.node)
        counter = self.metric not in stats
        figures = (yield from api.nodes.get_metrics(self.node)) if counter else stats
        value = figure_named(self.metric, {**stats, **figures}, "statistic or counter")
        return self.threshold.compare(self.metric, value, counter=counter)


class RuleHealthy(Condition):
    """
    A rule is enabled and what it uses is connected; an action, source or connector is connected.

    ``GET /rules/{id}``; v5 ``GET /actions/{id}``, ``/sources/{id}``, ``/connectors/{id}``; v4 ``GET /resources/{id}``.

    :param rule_id: a rule of the rule engine.
    :param action_id: an action, as ``"http:my_hook"`` (EMQX 5.4 and later).
    :param source_id: a source, as ``"mqtt:upstream"`` (EMQX 5.6 and later).
    :param connector_id: a connector; on EMQX 4 a resource, as ``"resource:1234"``.
    """

    kind = "rule_healthy"

    def __init__(
        self, rule_id: Any = None, action_id: Any = None, source_id: Any = None, connector_id: Any = None
    ) -> None:
        given = {
            "rule_id": rule_id,
            "action_id": action_id,
            "source_id": source_id,
            "connector_id": connector_id,
        }
        self._ids = {name: text(name, value) for name, value in given.items() if value is not None}
        if not self._ids:
            raise EmqxConfigError(f"expected at least one of {', '.join(given)}")

    def parameters(self) -> dict[str, Any]:
        return dict(self._ids)

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """
        Read the rule and the state of what it uses, or of what is named.

        :raises EmqxUnsupportedError: if the broker does not support it.
        """
        parts = [(part, self._ids[f"{part}_id"]) for part in _PARTS if f"{part}_id" in self._ids]
        states: dict[str, str] = {}
        if "rule_id" in self._ids:
            rule_id = self._ids["rule_id"]
            rule = yield from api.rule_engine.get_rule(rule_id)
            states[f"rule {rule_id}"] = (
                "absent" if rule is None else "enabled" if rule["enable"] else "disabled"
            )
            parts += api.rule_engine.outputs(rule or {})
        for part, name in dict.fromkeys(parts):
            row = yield from api.rule_engine.get_integration(part, name)
            states[f"{part} {name}"] = "absent" if row is None else str(row.get("status") or "unknown")
        ill = {part: state for part, state in states.items() if state not in ("enabled", "connected")}
        line = ", ".join(f"{part} is {state}" for part, state in (ill or states).items())
        return Outcome(not ill, {"states": states}, line)


class NodeEvacuated(Condition):
    """
    The evacuation of a node has moved all its clients and sessions away: ``GET /load_rebalance/global_status``.

    :param node: name of the node, as ``"emqx@10.0.0.1"``.
    :param started: whether the evacuation has been started, so that its absence is an error.
    """

    kind = "node_evacuated"

    def __init__(self, node: Any, started: bool = False) -> None:
        self.node = text("node", node)
        self.started = started

    def parameters(self) -> dict[str, Any]:
        return {"node": self.node, **({"started": True} if self.started else {})}

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """
        Read how far the evacuation is.

        :raises EmqxError: if an evacuation that had been started is no longer under way.
        :raises EmqxUnsupportedError: on the open-source editions before EMQX 5.9.
        """
        status = yield from api.rebalance.get_status()
        rows = [row for row in status["evacuations"] if row.get("node") == self.node]
        if not rows and self.started:
            raise EmqxError(f"node {self.node} is no longer being evacuated: another program has stopped it")
        if not rows:
            return Outcome(False, {"node": self.node, "state": None}, f"{self.node} is not being evacuated")
        stats = rows[0].get("stats") or {}
        left = {name: stats.get(f"current_{name}") for name in ("connected", "sessions")}
        state = rows[0].get("state")
        # "prohibiting" is the last state: nobody is left, and nobody is let in; in the first one everybody still is
        nobody = left["connected"] == 0 and left["sessions"] == 0
        met = state == "prohibiting" or (nobody and state != "waiting_health_check")
        line = f"{self.node} is {state}: {left['connected']} connections and {left['sessions']} sessions are left"
        return Outcome(met, {"node": self.node, "state": state, **left}, line)

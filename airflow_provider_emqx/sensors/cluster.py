"""Wait for the state of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from airflow_provider_emqx.conditions.base import Condition
from airflow_provider_emqx.conditions.cluster import ClusterHealthy, ClusterMetric, NodeEvacuated, RuleHealthy
from airflow_provider_emqx.sensors.base import BaseEmqxSensor, BaseThresholdSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_emqx.keywords import EmqxSensorKeywords, ThresholdKeywords


class EmqxClusterHealthSensor(BaseEmqxSensor):
    """
    Wait until the nodes of the cluster run and certain alarms are not active.

    ``GET /nodes``; v5 ``GET /alarms``, v4 ``GET /alarms/activated``.

    The task's result: ``{"running", "not_running"}``, names of nodes, and ``"alarms"`` (empty) if alarms are checked.

    :param nodes: ``"all"``, or how many must run.
    :param no_alarms: names of alarms that must not be active, ``"*"`` for any alarm. Default: alarms are
        not checked.
    """

    template_fields: Sequence[str] = (*BaseEmqxSensor.template_fields, "nodes", "no_alarms")

    def __init__(
        self,
        *,
        nodes: str | int | XComArg = "all",
        no_alarms: str | Sequence[str] | XComArg | None = None,
        **kwargs: Unpack[EmqxSensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.nodes = nodes
        self.no_alarms = no_alarms
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return ClusterHealthy(self.nodes, self.no_alarms)


class EmqxMetricSensor(BaseThresholdSensor):
    """
    Wait until a statistic or a counter of the cluster passes a threshold: ``GET /stats``, ``GET /metrics``.

    Statistics (``"live_connections.count"``, ``"subscriptions.count"``, ``"retained.count"``) are of now. Counters
    (``"messages.received"``, ``"client.connected"``) count from the start of each node and begin at 0 again when it
    restarts: with a ``baseline``, a counter below it counts from 0. Some counters have other names on EMQX 4.

    The task's result: ``{"value", "threshold", "comparison"}``, and ``{"baseline", "change"}`` with a baseline.

    :param metric: name of the statistic or counter.
    :param node: of this node only, as ``"emqx@10.0.0.1"``. Default: the whole cluster.
    """

    template_fields: Sequence[str] = (*BaseThresholdSensor.template_fields, "node")

    def __init__(
        self, *, metric: str | XComArg, node: str | XComArg | None = None, **kwargs: Unpack[ThresholdKeywords]
    ) -> None:
        super().__init__(metric=metric, **kwargs)
        self.node: Any = node
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return ClusterMetric(self.metric, self.threshold, self.comparison, self.baseline, self.node)


class EmqxRuleHealthSensor(BaseEmqxSensor):
    """
    Wait until parts of data integration work.

    A rule of the rule engine is healthy if it is enabled and all it uses is connected; an action, source or connector
    if it is connected.
    ``GET /rules/{id}``; v5 ``GET /actions/{id}`` and ``/connectors/{id}`` (EMQX 5.4 and later), ``/sources/{id}`` (5.6
    and later); v4 ``GET /resources/{id}``. A missing one is not an error: the sensor waits for it.

    The task's result: ``{"states"}``, a dict of part and state.

    :param rule_id: a rule.
    :param action_id: an action, as ``"http:my_hook"``.
    :param source_id: a source, as ``"mqtt:upstream"``.
    :param connector_id: a connector, as ``"http:my_server"``; on EMQX 4 a resource, as ``"resource:1234"``.
    """

    template_fields: Sequence[str] = (
        *BaseEmqxSensor.template_fields,
        "rule_id",
        "action_id",
        "source_id",
        "connector_id",
    )

    def __init__(
        self,
        *,
        rule_id: str | XComArg | None = None,
        action_id: str | XComArg | None = None,
        source_id: str | XComArg | None = None,
        connector_id: str | XComArg | None = None,
        **kwargs: Unpack[EmqxSensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.rule_id = rule_id
        self.action_id = action_id
        self.source_id = source_id
        self.connector_id = connector_id
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return RuleHealthy(self.rule_id, self.action_id, self.source_id, self.connector_id)


class EmqxNodeEvacuatedSensor(BaseEmqxSensor):
    """
    Wait until the evacuation of a node has moved all its clients and sessions away.

    ``GET /load_rebalance/global_status``: EMQX Enterprise, and every edition from EMQX 5.9 on. The evacuation must have
    been started, by :class:`~airflow_provider_emqx.operators.cluster.EmqxEvacuateNodeOperator` or by hand.

    The task's result: ``{"node", "state", "connected", "sessions"}``.

    :param node: name of the node, as ``"emqx@10.0.0.1"``.
    """

    template_fields: Sequence[str] = (*BaseEmqxSensor.template_fields, "node")

    def __init__(self, *, node: str | XComArg, **kwargs: Unpack[EmqxSensorKeywords]) -> None:
        super().__init__(**kwargs)
        self.node: Any = node
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return NodeEvacuated(self.node)

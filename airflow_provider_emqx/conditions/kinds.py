"""All kinds of conditions, by the names that triggers carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.conditions.base import Condition
from airflow_provider_emqx.conditions.clients import ClientsOffline, ClientsOnline
from airflow_provider_emqx.conditions.cluster import ClusterHealthy, ClusterMetric, NodeEvacuated, RuleHealthy
from airflow_provider_emqx.conditions.topics import MessageRetained, TopicMetric, TopicSubscribed
from airflow_provider_emqx.exceptions import EmqxConfigError

_CLASSES: tuple[type[Condition], ...] = (
    *(ClientsOnline, ClientsOffline, TopicSubscribed, TopicMetric, MessageRetained),
    *(ClusterHealthy, ClusterMetric, RuleHealthy, NodeEvacuated),
)
KINDS = {condition.kind: condition for condition in _CLASSES}


def load(kind: str, parameters: Mapping[str, Any]) -> Condition:
    """
    Return the condition for a trigger's arguments.

    :param kind: a name of :data:`KINDS`.
    :param parameters: arguments of that kind.
    :raises EmqxConfigError: if the kind is unknown or the arguments are invalid.
    """
    if kind not in KINDS:
        raise EmqxConfigError(f"unknown condition {kind!r}; expected one of {', '.join(KINDS)}")
    try:
        return KINDS[kind](**parameters)
    except TypeError as error:
        raise EmqxConfigError(f"condition {kind}: {error}") from None

"""
What can be waited for.

A condition is data (:class:`~airflow_provider_emqx.conditions.base.Condition`); asking whether it is met is one
operation (:func:`ask`). Sensors, the deferred trigger and the event trigger all call it, so that "met" means the same
in every mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.conditions import clients, cluster, topics
from airflow_provider_emqx.conditions.base import Condition, Outcome, outlives
from airflow_provider_emqx.conditions.clients import loaded
from airflow_provider_emqx.conditions.ids import finish
from airflow_provider_emqx.exceptions import EmqxConfigError

__all__ = ["KINDS", "Condition", "Outcome", "ask", "finish", "load", "loaded", "outlives"]


class Kind(NamedTuple):
    """
    One kind of condition.

    :param make: checks the arguments and gives the condition.
    :param ask: the operation.
    """

    make: Callable[..., Condition]
    ask: Callable[[Condition, Api, float], Operation[Outcome]]


KINDS = {
    clients.ONLINE: Kind(clients.online, clients.ask),
    clients.OFFLINE: Kind(clients.offline, clients.ask),
    topics.SUBSCRIBED: Kind(topics.subscribed, topics.ask_subscribed),
    topics.METRIC: Kind(topics.metric, topics.ask_metric),
    topics.RETAINED: Kind(topics.retained, topics.ask_retained),
    cluster.HEALTHY: Kind(cluster.healthy, cluster.ask_healthy),
    cluster.METRIC: Kind(cluster.metric, cluster.ask_metric),
    cluster.RULE_HEALTHY: Kind(cluster.rule_healthy, cluster.ask_rule_healthy),
    cluster.EVACUATED: Kind(cluster.evacuated, cluster.ask_evacuated),
}


def load(kind: str, parameters: Mapping[str, Any]) -> Condition:
    """
    Make a condition of a trigger's arguments.

    :param kind: a name of :data:`KINDS`.
    :param parameters: arguments of that kind.
    :raises EmqxConfigError: if the kind is unknown or the arguments cannot be right.
    """
    if kind not in KINDS:
        raise EmqxConfigError(f"there is no condition {kind!r}; there are {', '.join(KINDS)}")
    try:
        return KINDS[kind].make(**parameters)
    except TypeError as error:
        raise EmqxConfigError(f"condition {kind}: {error}") from None


def ask(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Ask the broker whether a condition is met.

    :param condition: with its ids :func:`loaded`.
    :param api: the broker's operations.
    :param now: seconds since 1970.
    :raises EmqxUnsupportedError: if this broker cannot tell.
    """
    return KINDS[condition.kind].ask(condition, api, now)

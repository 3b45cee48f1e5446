"""Wait for what happens to topics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from airflow_provider_emqx.conditions.base import Condition
from airflow_provider_emqx.conditions.topics import MessageRetained, TopicMetric, TopicSubscribed
from airflow_provider_emqx.hidden import HiddenField, plain
from airflow_provider_emqx.sensors.base import BaseEmqxSensor, BaseThresholdSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_emqx.keywords import EmqxSensorKeywords, ThresholdKeywords


class EmqxSubscriptionSensor(BaseEmqxSensor):
    """
    Wait until clients are subscribed to a topic: ``GET /subscriptions``.

    Subscriptions to exactly this topic are asked for first, which is cheap. Only while they are too few, all
    subscriptions are listed to find filters with wildcards; switch that off with ``wildcards`` on large brokers.
    A session that is kept without a connection is subscribed.

    The task's result: ``{"topic", "needed", "subscribers"}``.

    :param topic: a topic, or a filter exactly as it was subscribed.
    :param min_subscribers: how many clients must be subscribed.
    :param wildcards: for a topic, count also clients whose filter has wildcards or is shared.
    """

    template_fields: Sequence[str] = (*BaseEmqxSensor.template_fields, "topic", "min_subscribers")

    def __init__(
        self,
        *,
        topic: str | XComArg,
        min_subscribers: int | str | XComArg = 1,
        wildcards: bool = True,
        **kwargs: Unpack[EmqxSensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.topic: Any = topic
        self.min_subscribers = min_subscribers
        self.wildcards = wildcards
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return TopicSubscribed(self.topic, self.min_subscribers, self.wildcards)


class EmqxTopicMetricSensor(BaseThresholdSensor):
    """
    Wait until a metric of a measured topic passes a threshold.

    v5 ``GET /mqtt/topic_metrics/{topic}``, v4 ``GET /topic-metrics/{topic}`` (module ``topic_metrics``). The topic must
    be registered with the broker, which measures up to 512. Counters are sums over the nodes and begin at 0 again when
    a node restarts: with a ``baseline``, a counter below it counts from 0.

    The task's result: ``{"value", "threshold", "comparison"}``, and ``{"baseline", "change"}`` with a baseline.

    :param topic: a topic that the broker measures.
    :param metric: as ``"messages.in.count"``, ``"messages.dropped.count"``, ``"messages.out.rate"``.
    """

    template_fields: Sequence[str] = (*BaseThresholdSensor.template_fields, "topic")

    def __init__(
        self,
        *,
        topic: str | XComArg,
        metric: str | XComArg = "messages.in.count",
        **kwargs: Unpack[ThresholdKeywords],
    ) -> None:
        super().__init__(metric=metric, **kwargs)
        self.topic: Any = topic
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return TopicMetric(self.topic, self.metric, self.threshold, self.comparison, self.baseline)


class EmqxRetainedMessageSensor(BaseEmqxSensor):
    """
    Wait until a message is retained for a topic, any one or one with a certain content.

    v5 ``GET /mqtt/retainer/message/{topic}``; EMQX 4 and EMQX Cloud Serverless do not show retained messages over the
    API (:class:`~airflow_provider_emqx.exceptions.EmqxUnsupportedError`).

    The task's result: ``{"topic", "retained", "publish_at", "from_clientid", "qos"}``, without the payload.

    What is expected is rendered, but shown neither among the rendered fields nor in the trigger's arguments, which hold
    a digest of it.

    :param topic: without wildcards.
    :param payload: the whole payload, exactly. Default: any.
    :param json_field: a field of a JSON payload, as ``"state.battery"``, or ``"readings.0"`` in a list.
    :param json_value: value that this field must have; numbers and booleans may be given as text.
    """

    template_fields: Sequence[str] = (
        *BaseEmqxSensor.template_fields,
        "topic",
        "payload",
        "json_field",
        "json_value",
    )

    payload = HiddenField()
    json_value = HiddenField()

    def __init__(
        self,
        *,
        topic: str | XComArg,
        payload: str | bytes | XComArg | None = None,
        json_field: str | XComArg | None = None,
        json_value: Any = None,
        **kwargs: Unpack[EmqxSensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.topic: Any = topic
        self.payload = payload
        self.json_field = json_field
        self.json_value = json_value
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return MessageRetained(self.topic, plain(self.payload), self.json_field, plain(self.json_value))

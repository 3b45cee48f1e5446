"""A topic has subscribers, its metrics pass a threshold, or a message is retained for it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.names import topic_filter, topic_name
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.arguments import text, whole
from airflow_provider_emqx.conditions.base import Condition, Outcome, page_of
from airflow_provider_emqx.conditions.content import Content
from airflow_provider_emqx.conditions.thresholds import Threshold, figure_named
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.transport.listing import Listing


class TopicSubscribed(Condition):
    """
    A topic has subscribers; sessions that are kept without a connection count: ``GET /subscriptions``.

    :param topic: a topic, or the filter exactly as it was subscribed.
    :param min_subscribers: how many clients.
    :param wildcards: for a topic, count also those whose filter has wildcards or is shared.
    """

    kind = "topic_subscribed"

    def __init__(self, topic: Any, min_subscribers: Any = 1, wildcards: Any = True) -> None:
        self.topic = topic_filter(topic)
        self.min_subscribers = whole("min_subscribers", min_subscribers)
        self.wildcards = bool(wildcards)

    def parameters(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "min_subscribers": self.min_subscribers,
            "wildcards": self.wildcards,
        }

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """Count those of exactly this filter first; only if they are too few, and wildcards count, list all."""
        topic, goal = self.topic, self.min_subscribers
        found = yield from _subscribers(api, {"topic": topic}, goal)
        is_filter = "+" in topic or "#" in topic or topic.startswith(("$share/", "$queue/"))
        if len(found) < goal and self.wildcards and not is_filter:
            found |= yield from _subscribers(api, {"receiving": topic}, goal)
        details = {"topic": topic, "needed": goal, "subscribers": len(found)}
        return Outcome(len(found) >= goal, details, f"{len(found):,} subscribers to {topic}, {goal:,} needed")


def _subscribers(api: Api, filters: Mapping[str, Any], enough: int) -> Operation[set[str]]:
    found: set[str] = set()
    listing = Listing(api.topics.list_subscriptions(limit=page_of(api.topics), filters=filters))
    while listing.next is not None and len(found) < enough:
        found.update(row["clientid"] for row in (yield from listing.page()))
    return found


class TopicMetric(Condition):
    """
    A metric of a measured topic passes a threshold: v5 ``GET /mqtt/topic_metrics/{topic}``, v4
    ``GET /topic-metrics/{topic}``.

    :param topic: a topic that the broker measures.
    :param metric: as ``"messages.in.count"`` or ``"messages.out.rate"``.
    :param threshold: as of :class:`Threshold`.
    :param comparison: as of :class:`Threshold`.
    :param baseline: as of :class:`Threshold`.
    """

    kind = "topic_metric"

    def __init__(
        self,
        topic: Any,
        metric: Any = "messages.in.count",
        threshold: Any = None,
        comparison: Any = ">=",
        baseline: Any = None,
    ) -> None:
        self.topic = topic_name(topic)
        name = text("metric", metric)
        self.metric = f"messages.{name.removeprefix('message.')}" if name.startswith("message.") else name
        self.threshold = Threshold(threshold, comparison, baseline)

    def parameters(self) -> dict[str, Any]:
        return {"topic": self.topic, "metric": self.metric, **self.threshold.parameters()}

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """
        Read the topic's metrics.

        :raises EmqxConfigError: if the topic is not measured, or the metric is unknown.
        """
        row = yield from api.topics.get_metrics(self.topic)
        if row is None:
            raise EmqxConfigError(
                f"the broker does not measure topic {self.topic!r}, so its metrics cannot be waited for: register it "
                "first (EmqxTopicMetricsOperator, or register_topic_metrics of the hook)"
            )
        value = figure_named(self.metric, row["metrics"], f"metric of topic {self.topic}")
        # counters begin at 0 again when a node restarts, rates are what they are
        counter = self.metric.endswith(".count")
        return self.threshold.compare(f"{self.metric} of {self.topic}", value, counter=counter)


class MessageRetained(Condition):
    """
    A message is retained for a topic, any one or one with a certain content: v5 ``GET /mqtt/retainer/message/{topic}``.

    :param topic: without wildcards.
    :param payload: this and the others as of :class:`~airflow_provider_emqx.conditions.content.Content`.
    :param json_field: field of a JSON payload.
    :param json_value: value of that field.
    :param payload_hash: in place of ``payload``, its digest.
    :param value_hash: in place of ``json_value``, its digest.
    """

    kind = "message_retained"

    def __init__(
        self,
        topic: Any,
        payload: Any = None,
        json_field: Any = None,
        json_value: Any = None,
        payload_hash: Any = None,
        value_hash: Any = None,
    ) -> None:
        self.topic = topic_name(topic)
        self.content = Content(
            payload, json_field, json_value, payload_hash=payload_hash, value_hash=value_hash
        )

    def parameters(self) -> dict[str, Any]:
        return {"topic": self.topic, **self.content.parameters()}

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """
        Read the retained message.

        :raises EmqxUnsupportedError: on EMQX 4, whose API does not show retained messages, and Serverless.
        """
        topic = self.topic
        row = yield from api.messages.get_retained(topic)
        details = {"topic": topic, "retained": row is not None}
        if row is None:
            return Outcome(False, details, f"no message is retained for {topic}")
        details |= {name: row.get(name) for name in ("publish_at", "from_clientid", "qos")}
        if self.content.is_any:
            return Outcome(True, details, f"a message is retained for {topic}")
        if row.get("payload") is None:
            raise EmqxConfigError(
                f"the message retained for {topic!r} cannot be compared: EMQX leaves payloads above 1 MB out"
            )
        met = self.content.accepts(b64decode(row["payload"]))
        part = self.content.part
        line = f"the {part} of the message retained for {topic} is {'' if met else 'not '}as expected"
        return Outcome(met, details, line)

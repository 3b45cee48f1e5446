"""A topic has subscribers, its metrics pass a threshold, or a message is retained for it."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.names import topic_filter, topic_name
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.client.listing import Listing
from airflow_provider_emqx.conditions.base import Condition, Outcome, text, whole
from airflow_provider_emqx.conditions.thresholds import compare, named, threshold_of
from airflow_provider_emqx.exceptions import EmqxConfigError

SUBSCRIBED = "topic_subscribed"
METRIC = "topic_metric"
RETAINED = "message_retained"

#: rows of a page, as many as an event loop may be held for decoding
_PAGE = 1_000


def subscribed(topic: Any, min_subscribers: Any = 1, wildcards: Any = True) -> Condition:
    """
    Make the condition that a topic has subscribers; sessions that are kept without a connection count.

    :param topic: a topic, or the filter exactly as it was subscribed.
    :param min_subscribers: how many clients.
    :param wildcards: for a topic, count also those whose filter has wildcards or is shared.
    :raises EmqxConfigError: for what cannot be right.
    """
    plain = topic_filter(topic)
    return Condition(
        SUBSCRIBED,
        {
            "topic": plain,
            "min_subscribers": whole("min_subscribers", min_subscribers),
            "wildcards": bool(wildcards),
        },
    )


def ask_subscribed(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Count the clients that are subscribed: ``GET /subscriptions``.

    Those of exactly this filter are asked for first; only if they are too few, and wildcards count, all are listed.

    :param condition: made by :func:`subscribed`.
    :param api: the broker's operations.
    :param now: not used.
    """
    topic, goal = condition.parameters["topic"], condition.parameters["min_subscribers"]
    found = yield from _subscribers(api, {"topic": topic}, goal)
    is_filter = "+" in topic or "#" in topic or topic.startswith(("$share/", "$queue/"))
    if len(found) < goal and condition.parameters["wildcards"] and not is_filter:
        found |= yield from _subscribers(api, {"receiving": topic}, goal)
    details = {"topic": topic, "needed": goal, "subscribers": len(found)}
    return Outcome(len(found) >= goal, details, f"{len(found):,} subscribers to {topic}, {goal:,} needed")


def _subscribers(api: Api, filters: Mapping[str, Any], enough: int) -> Operation[set[str]]:
    found: set[str] = set()
    listing = Listing(api.topics.list_subscriptions(limit=_PAGE, filters=filters))
    while listing.next is not None and len(found) < enough:
        found.update(row["clientid"] for row in (yield from listing.page()))
    return found


def metric(
    topic: Any,
    metric: Any = "messages.in.count",
    threshold: Any = None,
    comparison: Any = ">=",
    baseline: Any = None,
) -> Condition:
    """
    Make the condition that a metric of a measured topic passes a threshold.

    :param topic: a topic that the broker measures.
    :param metric: as ``"messages.in.count"`` or ``"messages.out.rate"``.
    :param threshold: number to compare with.
    :param comparison: ``">="`` or ``"<="``.
    :param baseline: value to take the difference to before comparing.
    :raises EmqxConfigError: for what cannot be right.
    """
    name = text("metric", metric)
    if name.startswith("message."):
        name = f"messages.{name.removeprefix('message.')}"
    parameters = {"topic": topic_name(topic), "metric": name}
    return Condition(METRIC, {**parameters, **threshold_of(threshold, comparison, baseline)})


def ask_metric(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Read a topic's metrics: v5 ``GET /mqtt/topic_metrics/{topic}``, v4 ``GET /topic-metrics/{topic}``.

    :param condition: made by :func:`metric`.
    :param api: the broker's operations.
    :param now: not used.
    :raises EmqxConfigError: if the topic is not measured, or has no such metric.
    """
    topic, name = condition.parameters["topic"], condition.parameters["metric"]
    row = yield from api.topics.get_metrics(topic)
    if row is None:
        raise EmqxConfigError(
            f"the broker does not measure topic {topic!r}, so its metrics cannot be waited for: register it first "
            "(EmqxTopicMetricsOperator, or register_topic_metrics of the hook)"
        )
    value = named(name, row["metrics"], f"metric of topic {topic}")
    # counters begin at 0 again when a node restarts, rates are what they are
    return compare(f"{name} of {topic}", value, condition.parameters, counter=name.endswith(".count"))


def retained(
    topic: Any,
    payload: Any = None,
    json_field: Any = None,
    json_value: Any = None,
    payload_hash: Any = None,
    value_hash: Any = None,
) -> Condition:
    """
    Make the condition that a message is retained for a topic, and what it holds.

    What is expected is carried as a digest: triggers are stored in clear.

    :param topic: without wildcards.
    :param payload: the whole payload, text or bytes.
    :param json_field: field of a JSON payload, as ``"state.battery"`` or ``"readings.0"``.
    :param json_value: value of that field.
    :param payload_hash: in place of ``payload``, its :func:`digest`.
    :param value_hash: in place of ``json_value``, its :func:`digest`.
    :raises EmqxConfigError: for what cannot be right.
    """
    parameters = {"topic": topic_name(topic)}
    if payload is not None:
        if not isinstance(payload, (str, bytes)):
            raise EmqxConfigError(f"payload must be text or bytes, not {type(payload).__name__}")
        payload_hash = digest(payload.encode() if isinstance(payload, str) else payload)
    if json_field is None:
        if json_value is not None or value_hash is not None:
            raise EmqxConfigError("json_value needs json_field, the field that is to have this value")
        return Condition(
            RETAINED, parameters if payload_hash is None else {**parameters, "payload_hash": payload_hash}
        )
    if payload_hash is not None:
        raise EmqxConfigError("compare either the whole payload or a field of it")
    parameters["json_field"] = text("json_field", json_field)
    parameters["value_hash"] = digest(json_value) if value_hash is None else value_hash
    return Condition(RETAINED, parameters)


def ask_retained(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Read the retained message: v5 ``GET /mqtt/retainer/message/{topic}``.

    :param condition: made by :func:`retained`.
    :param api: the broker's operations.
    :param now: not used.
    :raises EmqxUnsupportedError: on EMQX 4, whose API does not show retained messages, and Serverless.
    """
    parameters = condition.parameters
    topic = parameters["topic"]
    row = yield from api.messages.get_retained(topic)
    details = {"topic": topic, "retained": row is not None}
    if row is None:
        return Outcome(False, details, f"no message is retained for {topic}")
    details |= {name: row.get(name) for name in ("publish_at", "from_clientid", "qos")}
    if "payload_hash" not in parameters and "json_field" not in parameters:
        return Outcome(True, details, f"a message is retained for {topic}")
    if row.get("payload") is None:
        raise EmqxConfigError(
            f"the message retained for {topic!r} cannot be compared: EMQX leaves payloads above 1 MB out"
        )
    payload = b64decode(row["payload"])
    if "payload_hash" in parameters:
        met = digest(payload) == parameters["payload_hash"]
    else:
        met = parameters["value_hash"] in _field_digests(payload, parameters["json_field"])
    what = f"field {parameters['json_field']}" if "json_field" in parameters else "payload"
    return Outcome(
        met, details, f"the {what} of the message retained for {topic} is {'' if met else 'not '}as expected"
    )


def digest(value: Any) -> str:
    """
    Give the digest of a payload (``bytes``) or of a JSON value.

    :param value: a number is the same however it is written: ``1`` is ``1.0``.
    """
    if not isinstance(value, bytes):
        value = json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()
    return sha256(value).hexdigest()


def _field_digests(payload: bytes, field: str) -> set[str]:
    try:
        value = json.loads(payload)
        for step in field.split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
        # what is expected may come from a template, where all is text: "7", "true" or "True"
        written = {value} if isinstance(value, str) else {json.dumps(_plain(value)), str(_plain(value))}
        return {digest(value), *map(digest, written)}
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        # whatever a device has retained: it is not what is waited for
        return set()


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value

"""API v5, topics: subscriptions, routes, publish, topic metrics."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Request, json_answer, pick, rfc3339
from airflow_provider_emqx.testing.mqtt.sessions import (
    MAX_TOPIC_METRICS,
    TOPIC_METRICS,
    Client,
    Message,
    Subscription,
    TopicMetrics,
)
from airflow_provider_emqx.testing.mqtt.topics import (
    has_wildcard,
    join_filter,
    matches,
    parse_filter,
    valid_topic_name,
)
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.v5.clients import node_arg, subscription_row
from airflow_provider_emqx.testing.v5.replies import (
    as_number,
    bad_request,
    bool_arg,
    check_enum,
    check_object,
    check_union,
    error,
    invalid,
    listing,
    no_content,
    ok,
    read_array,
    read_json,
    read_object,
)

#: Decoded size of a message, topic included, that ``mqtt.max_packet_size`` allows by default.
MAX_PACKET = 1_048_576


# subscriptions and routes


def list_subscriptions(state: State, request: Request) -> Answer:
    """``GET /subscriptions``; ``match_topic`` finds subscriptions that the given filter covers."""
    node, clientid, share_group = (
        node_arg(state, request),
        request.arg("clientid"),
        request.arg("share_group"),
    )
    plain = request.arg("topic")
    qos_text, pattern = request.arg("qos"), request.arg("match_topic")
    qos = as_number(qos_text) if qos_text is not None else None
    if qos_text is not None and qos not in {0, 1, 2}:
        raise invalid("qos", "Unable to parse string", qos_text)
    if pattern is not None and pattern.startswith("$share/"):
        raise error(400, "INVALID_PARAMETER", "match_topic_invalid")

    def wanted(client: Client, subscription: Subscription) -> bool:
        group, topic = parse_filter(subscription.topic)
        return (
            clientid in {None, client.clientid}
            and node in {None, client.node}
            and share_group in {None, group}
            # a shared subscription is kept by group and topic, and found by both only
            and (plain is None or (topic == plain and group == share_group))
            and (qos is None or subscription.qos == qos)
            and (pattern is None or matches(topic, pattern))
        )

    found = [pair for pair in state.mqtt.subscriptions() if wanted(*pair)]
    if bool_arg(request, "durable"):
        found = []
    return listing(
        state, request, found, lambda pair: subscription_row(state, *pair), fuzzy=pattern is not None
    )


def _route_row(route: tuple[str | None, str, str]) -> dict[str, str]:
    group, topic, node = route
    return {"node": node, "topic": join_filter(group, topic)}


def list_topics(state: State, request: Request) -> Answer:
    """``GET /topics``: subscribed filters, not topics that had traffic.

    A shared one is shown with its group. A plain ``topic`` finds it as well; but a route to a group is kept under
    group and node, so ``node`` by itself does not.
    """
    text, node = request.arg("topic"), request.arg("node")
    group, topic = (None, None) if text is None else parse_filter(text)
    if group is not None and not topic:
        raise error(400, "INVALID_PARAMTER", "topic_filter_invalid")  # the typo is EMQX's
    routes = [
        route
        for route in state.mqtt.routes()
        if topic in {None, route[1]}
        and node in {None, route[2]}
        and (group == route[0] or (group is None and node is None))
    ]
    return listing(state, request, routes, _route_row)


def get_topic(state: State, request: Request, topic: str) -> Answer:
    """``GET /topics/{topic}``: by the filter without its group."""
    rows = [_route_row(route) for route in state.mqtt.routes() if route[1] == topic]
    if not rows:
        raise error(404, "TOPIC_NOT_FOUND", "Topic not found")
    return ok(rows)


# publish

_PROPERTIES = (
    "payload_format_indicator",
    "message_expiry_interval",
    "response_topic",
    "correlation_data",
    "user_properties",
    "content_type",
)


def _check_row(row: dict[str, Any], path: str) -> None:
    """Check a message against the schema."""
    for name in ("topic", "payload"):
        if not isinstance(row[name], str):
            raise invalid(f"{path}.{name}", "unable_to_convert_to_string", row[name])
    check_object(row.get("properties", {}), f"{path}.properties", ())
    check_union(row.get("qos", 0), (0, 1, 2), f"{path}.qos")
    check_enum(row.get("retain", False), (True, False), f"{path}.retain")
    check_enum(row.get("payload_encoding", "plain"), ("plain", "base64"), f"{path}.payload_encoding")


def _refused(code: int, message: str) -> Answer:
    return json_answer(400, {"message": message, "reason_code": code})


def _has_encoding_alias(state: State) -> bool:
    """Return whether ``encoding``, as v4 spells it, is understood too: 5.10.4+, 6.0.3+."""
    version = state.version
    return version >= (6, 0, 3) or (5, 10, 4) <= version < (6, 0, 0)


def _message(state: State, row: dict[str, Any]) -> Message | Answer:
    """Build a message, or the answer that refuses it."""
    encoding = row.get("payload_encoding")
    if encoding is None and _has_encoding_alias(state):
        encoding = row.get("encoding")
    payload = row["payload"].encode("utf-8", "surrogateescape")
    if encoding == "base64":
        try:
            payload = base64.b64decode(payload, validate=True)
        except binascii.Error:
            return _refused(131, f'{{decode_base64_payload_failed,<<"{row["payload"]}">>}}')
    topic = row["topic"]
    if not valid_topic_name(topic):
        return _refused(144, "topic_name_invalid")
    if len(payload) + len(topic) > MAX_PACKET:
        return _refused(151, "packet_too_large")
    properties = pick(row.get("properties", {}), _PROPERTIES)
    return Message(topic, payload, row.get("qos", 0), row.get("retain", False), properties)


def _send(state: State, message: Message) -> tuple[int, dict[str, Any]]:
    """Publish one message: status and row of the answer."""
    if message.topic in state.undeliverable:
        return 503, {"message": "failed_to_dispatch", "reason_code": 131}
    delivered = state.mqtt.publish(message)
    if delivered < 0:
        delivered = int(state.at_least(5, 9))  # before that a delayed message counted as one that nobody got
    elif state.at_least(6, 3) and state.mqtt.delays and message.topic.startswith("$delayed/"):
        delivered = 1  # one whose interval cannot be read is dropped, and the answer is that of a good one
    if delivered or state.version == (5, 0, 0):
        return 200, {"id": message.msgid}
    return 202, {"message": "no_matching_subscribers", "reason_code": 16}


def publish(state: State, request: Request) -> Answer:
    """``POST /publish``."""
    row = read_object(request, "topic", "payload")
    _check_row(row, "root")
    message = _message(state, row)
    return message if isinstance(message, Answer) else json_answer(*_send(state, message))


def publish_bulk(state: State, request: Request) -> Answer:
    """``POST /publish/bulk``: all rows are checked before the first one is published."""
    rows = read_array(request, "topic", "payload")
    for number, row in enumerate(rows, 1):
        _check_row(row, f"root.{number}")
    if not rows:
        message = 'error, {case_clause,{errror,<<"empty_batch">>}}, []'  # the typo is EMQX's
        raise error(500, "INTERNAL_ERROR", message)
    messages = []
    for row in rows:
        message_or_refusal = _message(state, row)
        if isinstance(message_or_refusal, Answer):
            return message_or_refusal
        messages.append(message_or_refusal)
    sent = [_send(state, message) for message in messages]
    answer = json_answer(max(status for status, _ in sent), [row for _, row in sent])
    answer.written = len(rows)
    return answer


# topic metrics


def _metrics_row(topic: str, found: TopicMetrics) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name in TOPIC_METRICS:
        metrics[f"{name}.count"] = found.counts[f"{name}.count"]
        metrics[f"{name}.rate"] = 0.0
    return {"topic": topic, "create_time": rfc3339(found.create_time), "metrics": metrics}


def _registered(state: State, topic: str) -> TopicMetrics:
    found = state.mqtt.topic_metrics.get(topic)
    if found is None:
        raise error(404, "TOPIC_NOT_FOUND", "Topic not found")
    return found


def list_topic_metrics(state: State, request: Request) -> Answer:
    """``GET /mqtt/topic_metrics``: a bare array."""
    return ok([_metrics_row(topic, found) for topic, found in state.mqtt.topic_metrics.items()])


def add_topic_metrics(state: State, request: Request) -> Answer:
    """``POST /mqtt/topic_metrics``: 200 with the metrics."""
    body = read_json(request)
    topic = body.get("topic") if isinstance(body, dict) else None
    if topic is None:
        raise invalid("topic", "required_field")
    if not isinstance(topic, str):
        raise invalid("topic", "unable_to_convert_to_string", topic)
    if topic == "":
        raise bad_request("Topic can not be empty")
    if has_wildcard(topic):
        told = f"Wildcard topic filters are not allowed for topic metrics: {topic}"
        raise error(400, "BAD_TOPIC", told if state.at_least(6, 3) else "Wildcard topic is not supported")
    if topic in state.mqtt.topic_metrics:
        raise error(400, "BAD_TOPIC", "Topic already registered")
    if len(state.mqtt.topic_metrics) >= MAX_TOPIC_METRICS:
        raise error(409, "EXCEED_LIMIT", f"Max topic metrics count is {MAX_TOPIC_METRICS}")
    state.mqtt.topic_metrics[topic] = TopicMetrics(state.now())
    return ok(_metrics_row(topic, state.mqtt.topic_metrics[topic]))


def reset_topic_metrics(state: State, request: Request) -> Answer:
    """``PUT /mqtt/topic_metrics``: of one topic, or of all; when it was, no answer tells."""
    body = read_object(request, "action")
    check_enum(body["action"], ("reset",), "root.action")
    topic = body.get("topic")
    if topic is not None:
        _registered(state, topic).counts.clear()
        return get_topic_metrics(state, request, topic)
    for found in state.mqtt.topic_metrics.values():
        found.counts.clear()
    return list_topic_metrics(state, request)


def get_topic_metrics(state: State, request: Request, topic: str) -> Answer:
    """``GET /mqtt/topic_metrics/{topic}``."""
    return ok(_metrics_row(topic, _registered(state, topic)))


def delete_topic_metrics(state: State, request: Request, topic: str) -> Answer:
    """``DELETE /mqtt/topic_metrics/{topic}``."""
    _registered(state, topic)
    del state.mqtt.topic_metrics[topic]
    return no_content()


ROUTES = [
    Route("GET", "/subscriptions", list_subscriptions, serverless=True),
    Route("GET", "/topics", list_topics),
    Route("GET", "/topics/{topic}", get_topic),
    Route("POST", "/publish", publish, serverless=True),
    Route("POST", "/publish/bulk", publish_bulk, serverless=True),
    Route("GET", "/mqtt/topic_metrics", list_topic_metrics),
    Route("POST", "/mqtt/topic_metrics", add_topic_metrics),
    Route("PUT", "/mqtt/topic_metrics", reset_topic_metrics),
    Route("GET", "/mqtt/topic_metrics/{topic}", get_topic_metrics),
    Route("DELETE", "/mqtt/topic_metrics/{topic}", delete_topic_metrics),
]

"""API v4, topics: subscriptions, routes, publish, subscribe, topic metrics."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import unquote

from airflow_provider_emqx.testing.http import Answer, Crash, HttpError, Request
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
    matches,
    parse_filter,
    valid_topic_filter,
    valid_topic_name,
)
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.v4.replies import (
    BAD_PARAMETER,
    BAD_QOS,
    BAD_TOPIC,
    OFFLINE,
    data,
    done,
    failed,
    listing,
    message_only,
    not_found,
    read_array,
    read_object,
)

# subscriptions and routes


def _shown(subscription: Subscription) -> str:
    group, plain = parse_filter(subscription.topic)
    return plain if group is None else f"$share/{group}/{plain}"


def _row(client: Client, subscription: Subscription) -> dict[str, Any]:
    return {
        "topic": _shown(subscription),
        "qos": subscription.qos,
        "node": client.node,
        "clientid": client.clientid,
    }


def list_subscriptions(state: State, request: Request, node: str | None = None) -> Answer:
    """``GET /subscriptions``; ``_match_topic`` finds subscriptions that the given filter covers."""
    if node is not None and node not in state.nodes:
        return not_found()
    clientid, share, qos = (request.arg(name) for name in ("clientid", "share", "qos"))
    topic, pattern = request.arg("topic"), request.arg("_match_topic")
    if topic is not None:
        topic = unquote(topic)  # the broker decodes it twice

    def in_group(subscription: Subscription) -> bool:
        # with a topic the broker compares the beginning of what it shows
        return _shown(subscription).startswith(f"$share/{share}")

    def wanted(client: Client, subscription: Subscription) -> bool:
        group, plain = parse_filter(subscription.topic)
        return (
            node in {None, client.node}
            and clientid in {None, client.clientid}
            and (share in {None, group} or (topic is not None and in_group(subscription)))
            and qos in {None, str(subscription.qos)}
            and topic in {None, plain}
            and (pattern is None or matches(plain, pattern))
        )

    found = [pair for pair in state.mqtt.subscriptions() if wanted(*pair)]
    others = any(value is not None for value in (clientid, share, qos, pattern))
    return listing(request, found, lambda pair: _row(*pair), filtered=others and topic is None)


def client_subscriptions(state: State, request: Request, clientid: str) -> Answer:
    """``GET /subscriptions/{clientid}``: an empty array for a client that is not there."""
    client = state.mqtt.clients.get(clientid)
    subscriptions = client.subscriptions.values() if client else ()
    return data([_row(client, one) for one in subscriptions] if client else [])


def node_subscriptions(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/subscriptions``."""
    return list_subscriptions(state, request, node)


def _routes(state: State) -> list[dict[str, str]]:
    return [{"topic": topic, "node": node} for _, topic, node in state.mqtt.routes()]


def list_topics(state: State, request: Request) -> Answer:
    """``GET /routes``: ``meta`` without ``hasnext``; groups of shared subscriptions are not shown."""
    return listing(request, _routes(state), dict, hasnext=False)


def get_topic(state: State, request: Request, topic: str) -> Answer:
    """``GET /routes/{topic}``."""
    return data([row for row in _routes(state) if row["topic"] == topic])


# publish and subscribe


def _topics(body: dict[str, Any]) -> list[str]:
    """Return the topics of a body: ``topic`` as well as ``topics`` is split at commas."""
    text = body.get("topics", body.get("topic", ""))
    if not isinstance(text, str):
        raise failed(BAD_PARAMETER, "bad_params")
    return text.split(",")


def _publish(state: State, body: dict[str, Any]) -> list[str]:
    """Publish to every valid topic of a body; return the ids of the messages."""
    sender = body.get("clientid", "http_api")
    if not isinstance(sender, str):
        raise failed(BAD_PARAMETER, "bad clientid: must be string")
    payload = body.get("payload", "")
    encoded = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
    if body.get("encoding") == "base64":
        try:
            encoded = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise failed(BAD_PARAMETER, "bad_params") from None
    topics = [topic for topic in _topics(body) if valid_topic_name(topic)]
    if not topics:
        raise failed(BAD_TOPIC, "bad_topic")
    qos, retain = body.get("qos", 0), body.get("retain", False) in (True, "true", 1, "1")
    if qos not in {0, 1, 2}:
        raise Crash("badarg")  # nothing checks it until the message is routed
    ids = []
    for topic in topics:
        message = Message(topic, encoded, qos, retain, body.get("properties") or {}, from_clientid=sender)
        state.mqtt.publish(message)
        ids.append(message.msgid)
    return ids


def publish(state: State, request: Request) -> Answer:
    """``POST /mqtt/publish``: nobody tells whether anybody was subscribed."""
    body = read_object(request)
    ids = _publish(state, body)
    if "return" not in body:
        return done()
    return data({"msgid": ids[0]} if len(ids) == 1 else {"msgids": ids})


def _code(error: HttpError) -> tuple[int, str]:
    answer = json.loads(error.answer.body)
    return answer["code"], answer["message"]


def publish_batch(state: State, request: Request) -> Answer:
    """``POST /mqtt/publish_batch``: the outer code is 0 whatever the rows say."""
    rows = []
    for body in read_array(request):
        topic = body.get("topics", body.get("topic"))
        try:
            _publish(state, body)
            rows.append({"topic": topic, "code": 0})
        except HttpError as error:
            code, message = _code(error)
            rows.append(
                {"code": code, "message": message}
                if message == "bad_params"
                else {"topic": topic, "code": code}
            )
    answer = data(rows)
    answer.written = len(rows)
    return answer


def _client(state: State, body: dict[str, Any]) -> Client:
    client = state.mqtt.clients.get(body["clientid"])
    if client is None:
        raise failed(OFFLINE, "channel_not_found")
    return client


def _subscribe(state: State, body: dict[str, Any]) -> None:
    if not isinstance(body.get("clientid"), str):
        raise failed(BAD_PARAMETER, "bad clientid: must be string")
    topics = [topic for topic in _topics(body) if valid_topic_filter(topic)]
    if not topics:
        raise failed(BAD_TOPIC, "bad_topic")
    qos = body.get("qos", 0)
    if isinstance(qos, bool) or qos not in {0, 1, 2}:
        raise failed(BAD_QOS, "bad_qos")
    client = _client(state, body)
    for topic in topics:
        state.mqtt.subscribe(client, Subscription(topic, qos))


def _unsubscribe(state: State, body: dict[str, Any]) -> None:
    if not isinstance(body.get("clientid"), str):
        raise failed(BAD_PARAMETER, "bad clientid: must be string")
    topic = body.get("topic")
    if not isinstance(topic, str) or not valid_topic_filter(topic):
        raise failed(BAD_TOPIC, "bad_topic")
    state.mqtt.unsubscribe(_client(state, body), topic)


def _batch(state: State, request: Request, act: Any) -> Answer:
    rows = []
    for body in read_array(request):
        code = 0
        try:
            act(state, body)
        except HttpError as error:
            code, _ = _code(error)
        topic = body.get("topics", body.get("topic"))
        rows.append({"topic": topic, "code": code, "clientid": body.get("clientid")})
    return data(rows)


def subscribe(state: State, request: Request) -> Answer:
    """``POST /mqtt/subscribe``."""
    _subscribe(state, read_object(request))
    return done()


def subscribe_batch(state: State, request: Request) -> Answer:
    """``POST /mqtt/subscribe_batch``."""
    return _batch(state, request, _subscribe)


def unsubscribe(state: State, request: Request) -> Answer:
    """``POST /mqtt/unsubscribe``: code 0 also for an unknown subscription."""
    _unsubscribe(state, read_object(request))
    return done()


def unsubscribe_batch(state: State, request: Request) -> Answer:
    """``POST /mqtt/unsubscribe_batch``."""
    return _batch(state, request, _unsubscribe)


# topic metrics


def _loaded(state: State) -> dict[str, TopicMetrics]:
    if not state.modules:
        raise message_only("module_not_loaded")
    return state.mqtt.topic_metrics


def _metrics(found: TopicMetrics) -> dict[str, int]:
    metrics: dict[str, int] = {}
    for name in TOPIC_METRICS:
        metrics[f"{name}.count"] = found.counts[f"{name}.count"]
        metrics[f"{name}.rate"] = 0
    return metrics


def list_topic_metrics(state: State, request: Request) -> Answer:
    """``GET /topic-metrics``."""
    return data([{"topic": topic, "metrics": _metrics(found)} for topic, found in _loaded(state).items()])


def add_topic_metrics(state: State, request: Request) -> Answer:
    """``POST /topic-metrics``: code 0 also for a topic that is registered, and beyond the limit."""
    registered = _loaded(state)
    topic = read_object(request).get("topic")
    if topic is None:
        raise message_only("missing_required_params")
    if not isinstance(topic, str) or not topic or has_wildcard(topic):
        raise message_only("invalid_topic_name")
    if len(registered) < MAX_TOPIC_METRICS:
        registered.setdefault(topic, TopicMetrics(state.now()))
    return done()


def get_topic_metrics(state: State, request: Request, topic: str) -> Answer:
    """``GET /topic-metrics/{topic}``: an empty object when it is not registered."""
    found = _loaded(state).get(topic)
    return data(_metrics(found) if found else {})


def delete_topic_metrics(state: State, request: Request, topic: str) -> Answer:
    """``DELETE /topic-metrics/{topic}``: code 0 always."""
    _loaded(state).pop(topic, None)
    return done()


def clear_topic_metrics(state: State, request: Request) -> Answer:
    """``DELETE /topic-metrics``: all of them."""
    _loaded(state).clear()
    return done()


ROUTES = [
    Route("GET", "/subscriptions", list_subscriptions),
    Route("GET", "/subscriptions/{clientid}", client_subscriptions),
    Route("GET", "/nodes/{node}/subscriptions", node_subscriptions),
    Route("GET", "/routes", list_topics),
    Route("GET", "/routes/{topic}", get_topic),
    Route("POST", "/mqtt/publish", publish),
    Route("POST", "/mqtt/publish_batch", publish_batch),
    Route("POST", "/mqtt/subscribe", subscribe),
    Route("POST", "/mqtt/subscribe_batch", subscribe_batch),
    Route("POST", "/mqtt/unsubscribe", unsubscribe),
    Route("POST", "/mqtt/unsubscribe_batch", unsubscribe_batch),
    Route("GET", "/topic-metrics", list_topic_metrics),
    Route("POST", "/topic-metrics", add_topic_metrics),
    Route("DELETE", "/topic-metrics", clear_topic_metrics),
    Route("GET", "/topic-metrics/{topic}", get_topic_metrics),
    Route("DELETE", "/topic-metrics/{topic}", delete_topic_metrics),
]

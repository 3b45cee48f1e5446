"""Subscriptions, routes, topic metrics, retained and delayed messages, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, path
from airflow_provider_emqx.api.filters import (
    SUBSCRIPTION_FILTERS,
    TOPIC_FILTERS,
    kept,
    read_filters,
    shared_apart,
)
from airflow_provider_emqx.api.names import matches, split_share, topic_filter, topic_name
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.api.topicmetrics import MOST, metrics_row
from airflow_provider_emqx.api.v5.nodes import require_node
from airflow_provider_emqx.api.v5.publish import check_message, publish, publish_many, retained_rate
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)

__all__ = [
    "check_message",
    "delete_delayed",
    "delete_retained",
    "get_delayed",
    "get_retained",
    "get_topic_metrics",
    "list_delayed",
    "list_retained",
    "list_subscriptions",
    "list_topic_metrics",
    "list_topics",
    "publish",
    "publish_many",
    "register_topic_metrics",
    "reset_topic_metrics",
    "retained_rate",
    "unregister_topic_metrics",
]

#: applied to the rows only; the broker knows no such filter
_OURS = frozenset({"receiving"})


def list_subscriptions(
    broker: Broker, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
) -> Operation[Page[Row]]:
    """
    List subscriptions: ``GET /subscriptions``.

    :param page: number of the page, from 1.
    :param limit: rows per page at most; by default as many as the broker allows.
    :param filters: see :data:`~airflow_provider_emqx.api.filters.SUBSCRIPTION_FILTERS`; all must hold.
        ``match_topic``: subscribed filters that lie within this filter (``a/#`` finds ``a/b`` and ``a/+/c``).
        ``receiving``: subscriptions that a message to this topic reaches.
    :return: rows of ``clientid``, ``topic``, ``qos``, ``nl``, ``rap``, ``rh``, ``node``, ``durable`` (``None`` before
        EMQX 5.7).
    """
    wanted = read_filters(SUBSCRIPTION_FILTERS, filters)
    if "durable" in wanted:
        broker.require("telling durable subscriptions apart", 5, 7)
    if page == 1 and "node" in wanted:
        yield from require_node(broker, wanted["node"])
    limit = limit or page_limit(broker)
    sent = {name: value for name, value in shared_apart(wanted).items() if name not in _OURS}
    reply = yield Request("GET", "/subscriptions", {"page": page, "limit": limit, **sent})
    more = (
        partial(list_subscriptions, broker, page + 1, limit, filters)
        if has_next(reply, page, limit)
        else None
    )
    rows = kept(({"durable": None, **row} for row in reply.rows), SUBSCRIPTION_FILTERS, wanted)
    return Page(rows, more, ("clientid", "topic"))


def list_topics(
    broker: Broker, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
) -> Operation[Page[Row]]:
    """
    List the subscribed topic filters of the cluster (its routes): ``GET /topics``.

    :param filters: ``topic`` (as listed: of a shared subscription without ``$share/group/``), ``node``; the node is
        compared here, since the broker finds no shared subscriptions by it.
    :return: rows of ``topic`` and ``node``.
    """
    wanted = read_filters(TOPIC_FILTERS, filters)
    if page == 1 and "node" in wanted:
        yield from require_node(broker, wanted["node"])
    limit = limit or page_limit(broker)
    reply = yield Request("GET", "/topics", {"page": page, "limit": limit, "topic": wanted.get("topic")})
    more = partial(list_topics, broker, page + 1, limit, filters) if has_next(reply, page, limit) else None
    # EMQX 4 shows no groups, and durable sessions have none either
    rows = ({**row, "node": row.get("node"), "topic": split_share(row["topic"])[1]} for row in reply.rows)
    return Page(kept(rows, TOPIC_FILTERS, wanted), more, ("topic", "node", "session"))


def list_topic_metrics(broker: Broker) -> Operation[list[Row]]:
    """
    List the topics that are measured, with their metrics: ``GET /mqtt/topic_metrics``.

    :return: rows of ``topic``, ``create_time``, ``reset_time`` and ``metrics``, as
        ``{"messages.in.count": 3, "messages.in.rate": 0.1, …}``.
    """
    reply = yield Request("GET", "/mqtt/topic_metrics")
    return [metrics_row(row["topic"], row, row["metrics"]) for row in reply.rows]


def get_topic_metrics(broker: Broker, topic: str) -> Operation[Row | None]:
    """
    Read one topic's metrics: ``GET /mqtt/topic_metrics/{topic}``.

    :return: as of :func:`list_topic_metrics`; ``None`` where the topic is not measured.
    """
    try:
        reply = yield Request("GET", path("mqtt", "topic_metrics", topic_name(topic)))
    except EmqxNotFoundError:
        return None
    return metrics_row(topic, reply.data, reply.data["metrics"])


def register_topic_metrics(broker: Broker, topic: str) -> Operation[bool]:
    """
    Begin to measure a topic: ``POST /mqtt/topic_metrics``.

    :param topic: without wildcards.
    :return: ``True`` if it is new, ``False`` if it was measured already.
    :raises EmqxBadRequestError: if the broker measures 512 topics already, which is its limit.
    """
    request = Request("POST", "/mqtt/topic_metrics", json={"topic": topic_name(topic)}, repeatable=True)
    try:
        yield request
    except EmqxBadRequestError as error:
        if "already" in error.reason:
            return error.maybe_applied
        if error.code == "EXCEED_LIMIT":
            hint = f"The broker measures {MOST} topics at most; unregister some."
            raise EmqxBadRequestError(error.status, error.code, error.reason, error.request, hint) from error
        raise
    return True


def reset_topic_metrics(broker: Broker, topic: str | None = None) -> Operation[None]:
    """
    Set a topic's counters to 0: ``PUT /mqtt/topic_metrics``.

    :param topic: one measured topic; ``None`` for all.
    :raises EmqxNotFoundError: if the topic is not measured.
    """
    body = {"action": "reset"} if topic is None else {"action": "reset", "topic": topic_name(topic)}
    yield Request("PUT", "/mqtt/topic_metrics", json=body)


def unregister_topic_metrics(broker: Broker, topic: str) -> Operation[bool | None]:
    """
    End the measuring of a topic: ``DELETE /mqtt/topic_metrics/{topic}``.

    :return: whether it was measured.
    """
    try:
        yield Request("DELETE", path("mqtt", "topic_metrics", topic_name(topic)))
    except EmqxNotFoundError as error:
        return error.maybe_applied
    return True


def list_retained(
    broker: Broker, page: int = 1, limit: int | None = None, pattern: str = "#"
) -> Operation[Page[Row]]:
    """
    List retained messages: ``GET /mqtt/retainer/messages``.

    The broker reads and sorts all that match for each page: avoid broad filters over more than 100,000 of them.

    :param pattern: topic filter, wildcards allowed. ``#`` does not match topics that begin with ``$``.
    :return: rows of ``topic``, ``msgid``, ``qos``, ``publish_at``, ``from_clientid``, ``from_username``, no payloads.
    :raises EmqxUnsupportedError: on EMQX Cloud Serverless, which has no such endpoint.
    """
    topic_filter(pattern)
    limit = limit or page_limit(broker)
    # without a topic the answer has a count, but also the messages of topics that begin with "$"
    params = {"page": page, "limit": limit, "topic": pattern}
    try:
        reply = yield Request("GET", "/mqtt/retainer/messages", params)
    except EmqxUnsupportedError as error:
        raise EmqxUnsupportedError(
            f"{broker} cannot list retained messages over its API; name the topics explicitly", error.request
        ) from error
    rows = [row for row in reply.rows if matches(row["topic"], pattern)]
    more = partial(list_retained, broker, page + 1, limit, pattern) if has_next(reply, page, limit) else None
    return Page(rows, more, "topic")


def get_retained(broker: Broker, topic: str) -> Operation[Row | None]:
    """
    Read the message retained for one topic: ``GET /mqtt/retainer/message/{topic}``.

    :param topic: without wildcards.
    :return: as of :func:`list_retained`, with ``payload`` in base64 (missing above 1 MB); ``None`` where there is none.
    :raises EmqxUnsupportedError: on EMQX Cloud Serverless, which has no such endpoint.
    """
    try:
        reply = yield Request("GET", path("mqtt", "retainer", "message", topic_name(topic)))
    except EmqxNotFoundError:
        return None
    return reply.row


def delete_retained(broker: Broker, topic: str) -> Operation[bool | None]:
    """
    Delete the message retained for one topic: ``DELETE /mqtt/retainer/message/{topic}``; on Serverless by an empty
    retained message to that topic (``POST /publish``), which subscribers receive.

    :param topic: without wildcards.
    :return: whether there was one; ``None`` where the broker does not tell.
    """
    try:
        yield Request("DELETE", path("mqtt", "retainer", "message", topic_name(topic)))
    except EmqxNotFoundError as error:
        return error.maybe_applied
    except EmqxUnsupportedError:
        yield from publish(broker, {"topic": topic, "payload": "", "retain": True}, repeatable=True)
        return None
    return True


def list_delayed(broker: Broker, page: int = 1, limit: int | None = None) -> Operation[Page[Row]]:
    """
    List messages published to ``$delayed/…`` that wait for their time: ``GET /mqtt/delayed/messages``.

    :return: rows of ``msgid``, ``node``, ``topic``, ``qos``, ``publish_at``, ``expected_at``, ``delayed_interval``
        (s), …
    """
    limit = limit or page_limit(broker)
    reply = yield Request("GET", "/mqtt/delayed/messages", {"page": page, "limit": limit})
    more = partial(list_delayed, broker, page + 1, limit) if has_next(reply, page, limit) else None
    return Page(reply.rows, more, ("node", "msgid"))


def get_delayed(broker: Broker, node: str, msgid: str) -> Operation[Row | None]:
    """
    Read one delayed message: ``GET /mqtt/delayed/messages/{node}/{msgid}``.

    :return: as of :func:`list_delayed`, with ``payload`` in base64 (missing above 2 kB); ``None`` where there is none.
    """
    try:
        reply = yield Request("GET", path("mqtt", "delayed", "messages", node, msgid))
    except EmqxNotFoundError:
        return None
    row = dict(reply.row)
    if row.get("payload") == "PAYLOAD_TOO_LARGE":  # what the broker says of more than 2,048 bytes
        del row["payload"]
    return row


def delete_delayed(broker: Broker, node: str, msgid: str) -> Operation[bool]:
    """
    Cancel one delayed message: ``DELETE /mqtt/delayed/messages/{node}/{msgid}``.

    :return: whether it was still waiting.
    """
    try:
        yield Request("DELETE", path("mqtt", "delayed", "messages", node, msgid))
    except EmqxNotFoundError as error:
        return error.maybe_applied
    return True

"""Subscriptions, routes, topic metrics, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from airflow_provider_emqx.api.base import Operation, Page, Request, path
from airflow_provider_emqx.api.filters import (
    SUBSCRIPTION_FILTERS,
    TOPIC_FILTERS,
    kept,
    read_filters,
    shared_apart,
)
from airflow_provider_emqx.api.names import split_share, topic_name
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import RouteRow, SubscriptionRow, TopicMetricsRow, TopicMetricsRows
from airflow_provider_emqx.api.topicmetrics import MOST, metrics_row
from airflow_provider_emqx.api.v5.nodes import NodesArea
from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxNotFoundError

#: applied to the rows only; the broker does not have this filter
_OURS = frozenset({"receiving"})


class Topics(NodesArea):
    """Subscriptions, routes and topic metrics."""

    def list_subscriptions(
        self, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
    ) -> Operation[Page[SubscriptionRow]]:
        """
        List subscriptions: ``GET /subscriptions``.

        :param page: number of the page, from 1.
        :param limit: rows per page at most; by default as many as the broker allows.
        :param filters: see :data:`~airflow_provider_emqx.api.filters.SUBSCRIPTION_FILTERS`; all must hold.
            ``match_topic``: subscribed filters that lie within this filter (``a/#`` finds ``a/b`` and ``a/+/c``).
            ``receiving``: subscriptions that a message to this topic reaches.
        :return: rows of ``clientid``, ``topic``, ``qos``, ``nl``, ``rap``, ``rh``, ``node``, ``durable`` (``None``
            before EMQX 5.7).
        """
        wanted = read_filters(SUBSCRIPTION_FILTERS, filters)
        if "durable" in wanted:
            self.broker.require("telling durable subscriptions apart", 5, 7)
        if page == 1 and "node" in wanted:
            yield from self.nodes.require(wanted["node"])
        limit = limit or self.page_limit
        sent = {name: value for name, value in shared_apart(wanted).items() if name not in _OURS}
        reply = yield Request("GET", "/subscriptions", {**self.query(page, limit), **sent})
        more = (
            partial(self.list_subscriptions, page + 1, limit, filters)
            if has_next(reply, page, limit)
            else None
        )
        rows = kept(({"durable": None, **row} for row in reply.rows), SUBSCRIPTION_FILTERS, wanted)
        return Page(cast("list[SubscriptionRow]", rows), more, ("clientid", "topic"))

    def list(
        self, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
    ) -> Operation[Page[RouteRow]]:
        """
        List the subscribed topic filters of the cluster (its routes): ``GET /topics``.

        :param filters: ``topic`` (as listed: of a shared subscription without ``$share/group/``), ``node``; the node is
            compared here, since the broker finds no shared subscriptions by it.
        :return: rows of ``topic`` and ``node``.
        """
        wanted = read_filters(TOPIC_FILTERS, filters)
        if page == 1 and "node" in wanted:
            yield from self.nodes.require(wanted["node"])
        limit = limit or self.page_limit
        reply = yield Request("GET", "/topics", {**self.query(page, limit), "topic": wanted.get("topic")})
        more = partial(self.list, page + 1, limit, filters) if has_next(reply, page, limit) else None
        # EMQX 4 shows no groups, and durable sessions have none either
        rows = ({**row, "node": row.get("node"), "topic": split_share(row["topic"])[1]} for row in reply.rows)
        return Page(
            cast("list[RouteRow]", kept(rows, TOPIC_FILTERS, wanted)), more, ("topic", "node", "session")
        )

    def list_metrics(self) -> Operation[TopicMetricsRows]:
        """
        List the topics that are measured, with their metrics: ``GET /mqtt/topic_metrics``.

        :return: rows of ``topic``, ``create_time``, ``reset_time`` and ``metrics``, as
            ``{"messages.in.count": 3, "messages.in.rate": 0.1, …}``.
        """
        reply = yield Request("GET", "/mqtt/topic_metrics")
        return cast(
            "list[TopicMetricsRow]", [metrics_row(row["topic"], row, row["metrics"]) for row in reply.rows]
        )

    def get_metrics(self, topic: str) -> Operation[TopicMetricsRow | None]:
        """
        Read one topic's metrics: ``GET /mqtt/topic_metrics/{topic}``.

        :return: as of :func:`list_topic_metrics`; ``None`` if the topic is not measured.
        """
        try:
            reply = yield Request("GET", path("mqtt", "topic_metrics", topic_name(topic)))
        except EmqxNotFoundError:
            return None
        return cast("TopicMetricsRow", metrics_row(topic, reply.data, reply.data["metrics"]))

    def register_metrics(self, topic: str) -> Operation[bool]:
        """
        Begin to measure a topic: ``POST /mqtt/topic_metrics``.

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
                raise EmqxBadRequestError(
                    error.status, error.code, error.reason, error.request, hint
                ) from error
            raise
        return True

    def reset_metrics(self, topic: str | None = None) -> Operation[None]:
        """Set a topic's counters to 0: ``PUT /mqtt/topic_metrics``."""
        body = {"action": "reset"} if topic is None else {"action": "reset", "topic": topic_name(topic)}
        yield Request("PUT", "/mqtt/topic_metrics", json=body)

    def unregister_metrics(self, topic: str) -> Operation[bool | None]:
        """
        End the measuring of a topic: ``DELETE /mqtt/topic_metrics/{topic}``.

        :return: whether it was measured.
        """
        try:
            yield Request("DELETE", path("mqtt", "topic_metrics", topic_name(topic)))
        except EmqxNotFoundError as error:
            return error.maybe_applied
        return True

"""Subscriptions, routes, topic metrics, EMQX 4."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from airflow_provider_emqx.api.base import Operation, Page, Request, Row, path
from airflow_provider_emqx.api.filters import (
    SUBSCRIPTION_FILTERS,
    TOPIC_FILTERS,
    Wanted,
    kept,
    read_filters,
    shared_apart,
)
from airflow_provider_emqx.api.names import topic_name
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import RouteRow, SubscriptionRow, TopicMetricsRow, TopicMetricsRows
from airflow_provider_emqx.api.topicmetrics import MOST, metrics_row
from airflow_provider_emqx.api.v4.nodes import place_of
from airflow_provider_emqx.api.v4.shapes import subscription_as_v5
from airflow_provider_emqx.api.v5 import topics as v5
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxError,
    EmqxNotFoundError,
)

_V4_FILTERS = {"clientid": "clientid", "qos": "qos", "share_group": "share", "match_topic": "_match_topic"}


class Topics(v5.Topics):
    """Subscriptions, routes and topic metrics, under the names of EMQX 5."""

    def list_subscriptions(
        self, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
    ) -> Operation[Page[SubscriptionRow]]:
        """
        List subscriptions: ``GET /subscriptions``, or ``GET /nodes/{node}/subscriptions``.

        :param limit: rows per page at most.
        :return: rows of ``clientid``, ``topic``, ``qos``, ``node``, and v5's other fields as ``None``.
        """
        wanted = read_filters(SUBSCRIPTION_FILTERS, filters)
        if "durable" in wanted:
            self.broker.require("telling durable subscriptions apart", 5, 7)
        where = yield from place_of("subscriptions", self.nodes, wanted, page)
        limit = limit or self.page_limit
        reply = yield Request("GET", where, {**self.query(page, limit), **_sent(shared_apart(wanted))})
        rows = kept((subscription_as_v5(row) for row in reply.rows), SUBSCRIPTION_FILTERS, wanted)
        more = (
            partial(self.list_subscriptions, page + 1, limit, filters)
            if has_next(reply, page, limit)
            else None
        )
        return Page(cast("list[SubscriptionRow]", rows), more, ("clientid", "topic"))

    def list(
        self, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
    ) -> Operation[Page[RouteRow]]:
        """List the subscribed topic filters (routes) of the cluster: ``GET /routes``, or ``GET /routes/{topic}``."""
        wanted = read_filters(TOPIC_FILTERS, filters)
        if page == 1 and "node" in wanted:
            yield from self.nodes.require(wanted["node"])
        if "topic" in wanted:
            reply = yield Request("GET", path("routes", wanted["topic"]))
            return Page(
                cast("list[RouteRow]", kept(reply.rows, TOPIC_FILTERS, wanted)), None, ("topic", "node")
            )
        limit = limit or self.page_limit
        reply = yield Request("GET", "/routes", self.query(page, limit))
        more = partial(self.list, page + 1, limit, filters) if has_next(reply, page, limit) else None
        return Page(cast("list[RouteRow]", kept(reply.rows, TOPIC_FILTERS, wanted)), more, ("topic", "node"))

    def list_metrics(self) -> Operation[TopicMetricsRows]:
        """
        List the topics that are measured, with their metrics: ``GET /topic-metrics``.

        :return: rows of ``topic``, ``create_time`` and ``reset_time`` (``None``), and ``metrics``, as
            ``{"messages.in.count": 3, "messages.in.rate": 0.1, …}``.
        :raises EmqxUnsupportedError: if the broker's module ``topic_metrics`` is not loaded.
        """
        reply = yield Request("GET", "/topic-metrics")
        return cast(
            "list[TopicMetricsRow]", [metrics_row(row["topic"], {}, row["metrics"]) for row in reply.rows]
        )

    def get_metrics(self, topic: str) -> Operation[TopicMetricsRow | None]:
        """Read one topic's metrics: ``GET /topic-metrics/{topic}``."""
        try:
            reply = yield Request("GET", path("topic-metrics", topic_name(topic)))
        except EmqxNotFoundError:
            return None
        return cast("TopicMetricsRow", metrics_row(topic, {}, reply.row) if reply.row else None)

    def register_metrics(self, topic: str) -> Operation[bool]:
        """Start to measure a topic: ``POST /topic-metrics``, with a check before and after: EMQX 4 reports nothing."""
        if (yield from self.get_metrics(topic)) is not None:
            return False
        yield from self._register(topic)
        return True

    def reset_metrics(self, topic: str | None = None) -> Operation[None]:
        """
        Set a topic's counters to 0: ``DELETE /topic-metrics/{topic}``, then ``POST /topic-metrics``, since EMQX 4 has
        no reset. A message between the two is not counted.
        """
        if topic is None:
            topics = [row["topic"] for row in (yield from self.list_metrics())]
        elif (yield from self.get_metrics(topic)) is None:
            raise EmqxNotFoundError(200, "", f"topic {topic!r} is not measured; register it first")
        else:
            topics = [topic]
        for name in topics:
            yield Request("DELETE", path("topic-metrics", name))
            yield from self._register(name)

    def unregister_metrics(self, topic: str) -> Operation[bool | None]:
        """
        End the measuring of a topic: ``DELETE /topic-metrics/{topic}``.

        :return: ``None``: EMQX 4 does not tell whether it was measured.
        """
        yield Request("DELETE", path("topic-metrics", topic_name(topic)))
        return None

    def _register(self, topic: str) -> Operation[None]:
        yield Request("POST", "/topic-metrics", json={"topic": topic}, repeatable=True)
        if (yield from self.get_metrics(topic)) is not None:
            return
        count = len((yield from self.list_metrics()))
        if count >= MOST:
            raise EmqxBadRequestError(200, "0", f"the broker measures {count} topics, which is its limit")
        raise EmqxError(f"the broker accepted topic {topic!r} for measuring, but does not measure it")


def _sent(wanted: Wanted) -> Row:
    """Return the query for the filters that the broker knows, in v4's spelling."""
    params = {_V4_FILTERS[name]: value for name, value in wanted.items() if name in _V4_FILTERS}
    if "topic" in wanted:
        # EMQX 4 decodes this one twice
        params["topic"] = wanted["topic"].replace("%", "%25")
    return params

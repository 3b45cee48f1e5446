"""The hook's methods for subscriptions, publishing, topic metrics, retained and delayed messages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

from airflow_provider_emqx.api.base import Operation, Row
from airflow_provider_emqx.api.rows import (
    MessageRow,
    PublishedRow,
    RouteRow,
    SubscriptionRow,
    TopicMetricsRow,
)
from airflow_provider_emqx.exceptions import (
    EmqxError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxOutcomeUnknownError,
    EmqxStoppedError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.hooks.retained import DEFAULT_RATE, RetainedPace
from airflow_provider_emqx.outcomes import told_as
from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

T = TypeVar("T")

#: the broker's words for a message that it could not pass on at the moment
_NOT_NOW = "failed_to_dispatch"


class TopicMethods(Session):
    """Subscriptions, publishing, topic metrics, retained and delayed messages."""

    def list_subscriptions(self, **filters: Any) -> Iterator[SubscriptionRow]:
        """
        List subscriptions: v4 and v5 ``GET /subscriptions``.

        Every row is checked against the filters once more, since brokers ignore some of them.

        :param filters: all must match; ``None`` is ignored. ``clientid``, ``topic`` (exactly as subscribed), ``qos``,
            ``node``, ``share_group``, ``durable`` (EMQX 5.7); ``match_topic``: subscribed filters that lie within this
            filter (``a/#`` finds ``a/b`` and ``a/+/c``); ``receiving``: subscriptions that a message to this topic
            reaches, found out here from the complete listing.
        :return: an iterator over ``{"clientid", "topic", "qos", "node", …}``.
        :raises EmqxConfigError: for an unknown filter, a value that it cannot have, or an unknown node.
        """
        return self.rows(self.api.topics.list_subscriptions(filters=filters))

    def list_topics(self, **filters: Any) -> Iterator[RouteRow]:
        """
        List the topic filters that anybody has subscribed to: v5 ``GET /topics``, v4 ``GET /routes``.

        :param filters: ``topic`` (as listed: of a shared subscription without ``$share/group/``), ``node``.
        :return: an iterator over ``{"topic", "node"}``.
        """
        return self.rows(self.api.topics.list(filters=filters))

    def publish(self, messages: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[PublishedRow]:
        """
        Publish messages: v5 ``POST /publish`` or ``/publish/bulk``, v4 ``POST /mqtt/publish`` or
        ``/mqtt/publish_batch``, in requests of at most 1,000 messages and 4 MB.

        EMQX 5.8.5 and newer stores 1,000 retained messages per second and node by default
        (``retainer.max_publish_rate``), and drops what is beyond without a word. So these are not sent faster than
        ``GET /mqtt/retainer`` says, or than 1,000 per second where the key may not see that. Others who publish
        retained messages at the same time use the same limit.

        All messages are checked before the first one is sent. Nothing is sent twice unless the hook was made with
        ``retry_unsafe``.

        :param messages: one dict or several, each with ``topic``; ``payload`` (text, bytes, or anything that can be
            written as JSON); and optionally ``qos`` (0, 1, 2), ``retain``, ``payload_encoding`` (``"base64"`` if a text
            payload is base64 of the real one), ``properties`` (``payload_format_indicator``,
            ``message_expiry_interval``, ``response_topic``, ``correlation_data``, ``content_type``,
            ``user_properties``).
        :return: per message ``{"topic", "status", "id", "reason"}`` with the status ``delivered`` (somebody has
            subscribed), ``no_subscribers`` (nobody has, or a rule held it back; a retained message is stored all the
            same, as far as the retainer's limits allow), ``delayed`` (``$delayed/…``: it waits for its time),
            ``accepted`` (EMQX 4 does not tell), ``failed``, ``unknown`` (the answer was lost) or ``not_sent`` (an
            earlier request failed).
        :raises EmqxConfigError: for an invalid message; nothing is sent.
        :raises EmqxOutcomeUnknownError: if the answer to the only request was lost.
        """
        return [row for part in self.publish_in_parts(messages) for row in part]

    def publish_in_parts(
        self, messages: Mapping[str, Any] | Iterable[Mapping[str, Any]]
    ) -> Iterator[list[PublishedRow]]:
        """
        Do the same as :meth:`publish`, and yield the results of each request's messages as soon as they are available,
        so that what was sent before a failure is known.

        :param messages: as of :meth:`publish`.
        :return: an iterator over parts of the results of :meth:`publish`; messages are sent only as it is advanced. An
            error is raised after the results that it means for the messages.
        """
        from airflow_provider_emqx.api.messages import batches

        given = [messages] if isinstance(messages, Mapping) else list(messages)
        number = enumerate(given, 1)
        rows = [self.api.messages.check(message, n) for n, message in number]
        retained = sum(row["retain"] for row in rows)
        most = self._retained_pace.most(retained)
        parts = batches(rows, most)
        if retained > most:
            seconds = retained / most
            log.info(
                "The broker retains %s messages per second: %s take %.0f s", most, f"{retained:,}", seconds
            )
        done = 0
        for place, part in enumerate(parts):
            sent = [rows[index] for index in part]
            try:
                if len(rows) == 1:
                    results = [self._paced(self.api.messages.publish(rows[0]), retained)]
                else:
                    results = self._publish_batch(sent)
            except BaseException as error:
                if isinstance(error, EmqxStoppedError) and not error.maybe_applied:
                    raise
                yield [_not_published(row, told_as(error), error) for row in sent]
                unknown = isinstance(error, EmqxOutcomeUnknownError)
                if not isinstance(error, EmqxError) or len(parts) == 1 or (place == 0 and not unknown):
                    raise
                log.warning("Publishing stopped after %d of %d messages. %s", done, len(rows), error)
                left = [index for later in parts[place + 1 :] for index in later]
                yield [_not_published(rows[index], "not_sent", error) for index in left]
                return
            done += len(part)
            yield results

    def _publish_batch(self, rows: list[Row]) -> list[PublishedRow]:
        """Publish one request's messages; with ``retry_unsafe`` those that could not be passed on are sent again."""
        results = self._publish_many(rows)
        for attempt in range(1, self.settings.attempts if self.retry_unsafe else 1):
            again = [index for index, result in enumerate(results) if result["reason"] == _NOT_NOW]
            if not again:
                break
            self.stopping.sleep(min(0.5 * 2**attempt, 10.0))
            retried = self._publish_many([rows[index] for index in again])
            for index, result in zip(again, retried, strict=True):
                results[index] = result
        return results

    def _publish_many(self, rows: list[Row]) -> list[PublishedRow]:
        publish = self.api.messages.publish_many(rows)
        return self._paced(publish, sum(row["retain"] for row in rows))

    def _paced(self, publish: Operation[T], retained: int) -> T:
        """Publish when the broker stores all that is to be retained."""
        seconds = self._retained_pace.wait(retained)
        if seconds:
            self.stopping.sleep(seconds)
        try:
            return self.run(publish)
        finally:
            self._retained_pace.sent(retained)

    @cached_property
    def _retained_pace(self) -> RetainedPace:
        return RetainedPace(self._retained_rate)

    def _retained_rate(self) -> float | None:
        try:
            rate: float | None = self.run(self.api.messages.retained_rate())
        except (EmqxForbiddenError, EmqxNotFoundError, EmqxUnsupportedError) as error:
            log.info(
                "How many messages the broker retains per second is not known; they are sent as slowly as its default "
                "asks, %d per second. %s",
                DEFAULT_RATE,
                error,
            )
            return DEFAULT_RATE
        return rate

    def list_topic_metrics(self) -> Iterator[TopicMetricsRow]:
        """
        List the topics that are measured, with their metrics: v5 ``GET /mqtt/topic_metrics``, v4
        ``GET /topic-metrics``.

        :return: an iterator over ``{"topic", "create_time", "reset_time", "metrics"}``, the metrics as
            ``{"messages.in.count": 3, "messages.in.rate": 0.1, …}``.
        """
        yield from self.run(self.api.topics.list_metrics())

    def get_topic_metrics(self, topic: str) -> TopicMetricsRow | None:
        """
        Read one topic's metrics: v5 ``GET /mqtt/topic_metrics/{topic}``, v4 ``GET /topic-metrics/{topic}``.

        :param topic: without wildcards.
        :return: as of :meth:`list_topic_metrics`; ``None`` if the topic is not measured.
        """
        return self.run(self.api.topics.get_metrics(topic))

    def register_topic_metrics(self, topic: str) -> bool:
        """
        Start to measure a topic: v5 ``POST /mqtt/topic_metrics``, v4 ``POST /topic-metrics``.

        :param topic: without wildcards. A broker measures 512 topics at most.
        :return: ``True`` if it is new, ``False`` if it was measured already.
        """
        return self.run(self.api.topics.register_metrics(topic))

    def reset_topic_metrics(self, topic: str | None = None) -> None:
        """
        Set a topic's counters to 0: v5 ``PUT /mqtt/topic_metrics``; on EMQX 4 it is unregistered and registered again.

        :param topic: one measured topic; ``None`` for all.
        :raises EmqxNotFoundError: if the topic is not measured.
        """
        self.run(self.api.topics.reset_metrics(topic))

    def unregister_topic_metrics(self, topic: str) -> bool | None:
        """
        Stop measuring a topic: v5 ``DELETE /mqtt/topic_metrics/{topic}``, v4 ``DELETE /topic-metrics/{topic}``.

        :param topic: without wildcards.
        :return: whether it was measured; ``None`` on EMQX 4, which does not tell.
        """
        return self.run(self.api.topics.unregister_metrics(topic))

    def list_retained(self, topic_filter: str = "#") -> Iterator[MessageRow]:
        """
        List retained messages, EMQX 5 and newer, not Serverless: ``GET /mqtt/retainer/messages``.

        The broker reads and sorts all that match for each page: avoid broad filters over more than 100,000 of them.

        :param topic_filter: wildcards allowed; ``#`` does not match topics that begin with ``$``.
        :return: an iterator over ``{"topic", "msgid", "qos", "publish_at", "from_clientid", "from_username"}``, without
            payloads.
        """
        return self.rows(self.api.messages.list_retained(pattern=topic_filter))

    def get_retained(self, topic: str) -> MessageRow | None:
        """
        Read the message retained for one topic, EMQX 5 and newer, not Serverless:
        ``GET /mqtt/retainer/message/{topic}``.

        :param topic: without wildcards.
        :return: as of :meth:`list_retained`, with ``payload`` in base64; ``None`` if it does not exist.
        """
        return self.run(self.api.messages.get_retained(topic))

    def delete_retained(self, topic: str) -> bool | None:
        """
        Delete the message retained for one topic: v5 ``DELETE /mqtt/retainer/message/{topic}``; on EMQX 4 and
        Serverless by an empty retained message to it, which subscribers receive.

        :param topic: without wildcards: the broker would delete every match.
        :return: whether there was one; ``None`` if the broker does not tell.
        """
        return self.run(self.api.messages.delete_retained(topic))

    def list_delayed(self) -> Iterator[MessageRow]:
        """
        List messages published to ``$delayed/…`` that wait for their time, EMQX 5 and newer:
        ``GET /mqtt/delayed/messages``.

        :return: an iterator over ``{"msgid", "node", "topic", "expected_at", …}``.
        """
        return self.rows(self.api.messages.list_delayed())

    def get_delayed(self, node: str, msgid: str) -> MessageRow | None:
        """
        Read one delayed message, EMQX 5 and newer: ``GET /mqtt/delayed/messages/{node}/{msgid}``.

        :param node: as :meth:`list_delayed` gives it.
        :param msgid: as :meth:`list_delayed` gives it.
        :return: with ``payload`` in base64 (missing above 2 kB); ``None`` if it does not exist.
        """
        return self.run(self.api.messages.get_delayed(node, msgid))

    def delete_delayed(self, node: str, msgid: str) -> bool:
        """
        Cancel one delayed message, EMQX 5 and newer: ``DELETE /mqtt/delayed/messages/{node}/{msgid}``.

        :param node: as :meth:`list_delayed` gives it.
        :param msgid: as :meth:`list_delayed` gives it.
        :return: whether it was still waiting.
        """
        return self.run(self.api.messages.delete_delayed(node, msgid))


def _not_published(row: Row, status: str, error: BaseException) -> PublishedRow:
    return {"topic": row["topic"], "status": status, "id": None, "reason": str(error)[:200]}

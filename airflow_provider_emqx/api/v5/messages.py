"""Publishing, retained and delayed messages, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Operation, Page, Reply, Request, Row, Rows, path
from airflow_provider_emqx.api.messages import is_delayed, message_row, published, read_rate
from airflow_provider_emqx.api.names import matches, topic_filter, topic_name
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import MessageRow, PublishedRow, PublishedRows
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxNotFoundError,
    EmqxOutcomeUnknownError,
    EmqxUnsupportedError,
)

#: nobody has subscribed
_NO_SUBSCRIBERS = 16


class Messages(Area):
    """Messages to publish, retained ones, delayed ones."""

    def list_retained(
        self, page: int = 1, limit: int | None = None, pattern: str = "#"
    ) -> Operation[Page[MessageRow]]:
        """
        List retained messages: ``GET /mqtt/retainer/messages``.

        The broker reads and sorts all that match for each page: avoid broad filters over more than 100,000 of them.

        :param pattern: topic filter, wildcards allowed. ``#`` does not match topics that begin with ``$``.
        :return: rows of ``topic``, ``msgid``, ``qos``, ``publish_at``, ``from_clientid``, ``from_username``, no
            payloads.
        :raises EmqxUnsupportedError: on EMQX Cloud Serverless, which does not support it.
        """
        topic_filter(pattern)
        self.broker.require("listing retained messages", 5, instead="Name the topics explicitly")
        limit = limit or self.page_limit
        # without a topic the answer has a count, but also the messages of topics that begin with "$"
        params = {**self.query(page, limit), "topic": pattern}
        try:
            reply = yield Request("GET", "/mqtt/retainer/messages", params)
        except EmqxUnsupportedError as error:
            raise EmqxUnsupportedError(
                f"{self.broker} cannot list retained messages over its API; name the topics explicitly",
                error.request,
            ) from error
        rows = [row for row in reply.rows if matches(row["topic"], pattern)]
        more = partial(self.list_retained, page + 1, limit, pattern) if has_next(reply, page, limit) else None
        return Page(cast("list[MessageRow]", rows), more, "topic")

    def get_retained(self, topic: str) -> Operation[MessageRow | None]:
        """
        Read the message retained for one topic: ``GET /mqtt/retainer/message/{topic}``.

        :return: as of :func:`list_retained`, with ``payload`` in base64 (missing above 1 MB); ``None`` if it does not
            exist.
        :raises EmqxUnsupportedError: on EMQX Cloud Serverless, which does not support it.
        """
        topic_name(topic)
        self.broker.require("reading retained messages over the API", 5)
        try:
            reply = yield Request("GET", path("mqtt", "retainer", "message", topic))
        except EmqxNotFoundError:
            return None
        return cast("MessageRow", reply.row)

    def delete_retained(self, topic: str) -> Operation[bool | None]:
        """
        Delete the message retained for one topic: ``DELETE /mqtt/retainer/message/{topic}``; on Serverless by an empty
        retained message to that topic (``POST /publish``), which subscribers receive.
        """
        try:
            yield Request("DELETE", path("mqtt", "retainer", "message", topic_name(topic)))
        except EmqxNotFoundError as error:
            return error.maybe_applied
        except EmqxUnsupportedError:
            yield from self.publish({"topic": topic, "payload": "", "retain": True}, repeatable=True)
            return None
        return True

    def list_delayed(self, page: int = 1, limit: int | None = None) -> Operation[Page[MessageRow]]:
        """
        List messages published to ``$delayed/…`` that wait for their time: ``GET /mqtt/delayed/messages``.

        :return: rows of ``msgid``, ``node``, ``topic``, ``qos``, ``publish_at``, ``expected_at``, ``delayed_interval``
            (s), …
        """
        self.broker.require("listing delayed messages", 5)
        limit = limit or self.page_limit
        reply = yield Request("GET", "/mqtt/delayed/messages", self.query(page, limit))
        more = partial(self.list_delayed, page + 1, limit) if has_next(reply, page, limit) else None
        return Page(cast("list[MessageRow]", reply.rows), more, ("node", "msgid"))

    def get_delayed(self, node: str, msgid: str) -> Operation[MessageRow | None]:
        """
        Read one delayed message: ``GET /mqtt/delayed/messages/{node}/{msgid}``.

        :return: as of :func:`list_delayed`, with ``payload`` in base64 (missing above 2 kB); ``None`` if it does not
            exist.
        """
        self.broker.require("reading delayed messages", 5)
        try:
            reply = yield Request("GET", path("mqtt", "delayed", "messages", node, msgid))
        except EmqxNotFoundError:
            return None
        row = dict(reply.row)
        if row.get("payload") == "PAYLOAD_TOO_LARGE":  # what the broker says of more than 2,048 bytes
            del row["payload"]
        return cast("MessageRow", row)

    def delete_delayed(self, node: str, msgid: str) -> Operation[bool]:
        """Cancel one delayed message: ``DELETE /mqtt/delayed/messages/{node}/{msgid}``."""
        self.broker.require("cancelling delayed messages", 5)
        try:
            yield Request("DELETE", path("mqtt", "delayed", "messages", node, msgid))
        except EmqxNotFoundError as error:
            return error.maybe_applied
        return True

    def check(self, message: Mapping[str, Any], number: int | None = None) -> Row:
        """
        Check one message and write it out in full: :func:`~airflow_provider_emqx.api.messages.message_row`.

        :param number: its place among several, for the error.
        :raises EmqxConfigError: saying what is wrong.
        """
        return message_row(message, number)

    def publish(self, message: Mapping[str, Any], repeatable: bool = False) -> Operation[PublishedRow]:
        """
        Publish one message: ``POST /publish``.

        :param message: see :func:`~airflow_provider_emqx.api.messages.message_row`.
        :param repeatable: whether it does no harm if it arrives twice.
        :return: see :func:`~airflow_provider_emqx.api.messages.published`.
        :raises EmqxOutcomeUnknownError: if the answer was lost.
        """
        row = self.check(message)
        reply = yield Request("POST", "/publish", json=row, repeatable=repeatable)
        return cast("PublishedRow", _result(row, reply.data))

    def publish_many(self, messages: Sequence[Mapping[str, Any]]) -> Operation[PublishedRows]:
        """
        Publish up to 1,000 messages in one request: ``POST /publish/bulk``.

        The broker publishes none of them if it refuses one (too large, for instance). Then the batch is halved until
        the refused ones are found, and the others are published.

        :param messages: see :func:`~airflow_provider_emqx.api.messages.message_row`.
        :return: what became of each, see :func:`~airflow_provider_emqx.api.messages.published`.
        :raises EmqxOutcomeUnknownError: if the answer was lost.
        """
        rows = [self.check(message, number) for number, message in enumerate(messages, 1)]
        if not rows:
            raise EmqxConfigError("messages is empty; pass at least one message")
        return cast("list[PublishedRow]", (yield from _batch(rows)))

    def retained_rate(self) -> Operation[float | None]:
        """
        Read how many retained messages a node stores, or clears, per second: ``GET /mqtt/retainer``, EMQX 5.8.5 and
        newer.

        The broker delivers further messages without storing them, and does not report it.

        :return: messages per second; ``None`` for no limit, as on older ones.
        :raises EmqxForbiddenError: if the key may not see it.
        :raises EmqxUnsupportedError: on EMQX Cloud Serverless, which does not support it, and for an unknown value.
        """
        if self.broker.is_v4 or (self.broker.version is not None and not self.broker.at_least(5, 8, 5)):
            return None
        reply = yield Request("GET", "/mqtt/retainer")
        return read_rate(str(reply.row.get("max_publish_rate", "infinity")))


def _batch(rows: list[Row]) -> Operation[Rows]:
    request = Request("POST", "/publish/bulk", json=rows, accept=(503,))
    try:
        reply = yield request
    except EmqxBadRequestError as error:
        if len(rows) == 1:
            return [published(rows[0]["topic"], "failed", reason=error.reason or error.code)]
        middle = len(rows) // 2
        first = yield from _batch(rows[:middle])
        return first + (yield from _batch(rows[middle:]))
    return [_result(row, outcome) for row, outcome in zip(rows, _outcomes(request, reply, rows), strict=True)]


def _outcomes(request: Request, reply: Reply, rows: list[Row]) -> list[Any]:
    outcomes = reply.data
    if isinstance(outcomes, dict) and len(rows) == 1 and "code" not in outcomes:
        outcomes = [outcomes]
    if not isinstance(outcomes, list) or len(outcomes) != len(rows):
        raise EmqxOutcomeUnknownError(
            "the response does not contain the outcome of each message", str(request)
        )
    return outcomes


def _result(row: Row, outcome: Row) -> Row:
    # EMQX 5.0 to 5.8 say of a message that waits that nobody has subscribed, later versions what they say of a delivery
    waits = is_delayed(row["topic"])
    if "id" in outcome:
        return published(row["topic"], "delayed" if waits else "delivered", outcome["id"])
    # without it this is not EMQX's response, and "failed" would invite to publish again
    if outcome["reason_code"] == _NO_SUBSCRIBERS:
        return published(row["topic"], "delayed" if waits else "no_subscribers")
    return published(row["topic"], "failed", reason=str(outcome.get("message", "refused"))[:200])

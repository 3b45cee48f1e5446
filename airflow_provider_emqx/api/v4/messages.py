"""Publishing, retained and delayed messages, EMQX 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from airflow_provider_emqx.api.base import Operation, Request, Row
from airflow_provider_emqx.api.messages import message_row, published
from airflow_provider_emqx.api.rows import PublishedRow, PublishedRows
from airflow_provider_emqx.api.v4.codes import reason
from airflow_provider_emqx.api.v4.shapes import no_comma
from airflow_provider_emqx.api.v5 import messages as v5
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxOutcomeUnknownError,
)

#: the documentation demands a sender
_SENDER = "airflow"


class Messages(v5.Messages):
    """Messages to publish; of retained and delayed ones EMQX 4 shows nothing."""

    def delete_retained(self, topic: str) -> Operation[bool | None]:
        """
        Delete the message retained for one topic, by an empty retained message to it, which subscribers receive.

        :param topic: without wildcards or commas.
        :return: ``None``: EMQX 4 does not tell whether there was one.
        """
        yield from self.publish({"topic": topic, "payload": "", "retain": True}, repeatable=True)
        return None

    def check(self, message: Mapping[str, Any], number: int | None = None) -> Row:
        """
        Check one message and write it out in full: :func:`~airflow_provider_emqx.api.messages.message_row`.

        :raises EmqxConfigError: saying what is wrong, a comma in the topic included.
        """
        row = message_row(message, number)
        no_comma(row["topic"])
        return row

    def publish(self, message: Mapping[str, Any], repeatable: bool = False) -> Operation[PublishedRow]:
        """
        Publish one message: ``POST /mqtt/publish``.

        :param message: see :func:`~airflow_provider_emqx.api.messages.message_row`; no comma in the topic.
        :return: see :func:`~airflow_provider_emqx.api.messages.published`; EMQX 4 does not tell whether anybody has
            subscribed.
        """
        row = _as_v4(self.check(message))
        yield Request("POST", "/mqtt/publish", json=row, repeatable=repeatable)
        return cast("PublishedRow", published(row["topic"], "accepted"))

    def publish_many(self, messages: Sequence[Mapping[str, Any]]) -> Operation[PublishedRows]:
        """
        Publish up to 1,000 messages in one request: ``POST /mqtt/publish_batch``.

        :param messages: see :func:`~airflow_provider_emqx.api.messages.message_row`; no comma in the topics.
        """
        rows = [_as_v4(self.check(message, number)) for number, message in enumerate(messages, 1)]
        if not rows:
            raise EmqxConfigError("messages is empty; pass at least one message")
        request = Request("POST", "/mqtt/publish_batch", json=rows)
        reply = yield request
        if not isinstance(reply.data, list) or len(reply.data) != len(rows):
            raise EmqxOutcomeUnknownError(
                "the response does not contain the outcome of each message", str(request)
            )
        return cast(
            "list[PublishedRow]",
            [_result(row, outcome) for row, outcome in zip(rows, reply.data, strict=True)],
        )


def _result(row: Row, outcome: Row) -> Row:
    code = outcome["code"]
    if code == 0:
        return published(row["topic"], "accepted")
    return published(row["topic"], "failed", reason=reason(code))


def _as_v4(row: Row) -> Row:
    encoding = row.pop("payload_encoding")
    return {**row, "encoding": encoding, "clientid": _SENDER}

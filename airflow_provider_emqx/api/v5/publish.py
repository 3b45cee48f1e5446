"""Publishing, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Reply, Request, Row
from airflow_provider_emqx.api.messages import is_delayed, message_row, published, read_rate
from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxConfigError, EmqxOutcomeUnknownError

#: nobody has subscribed
_NO_SUBSCRIBERS = 16


def check_message(broker: Broker, message: Mapping[str, Any], number: int | None = None) -> Row:
    """
    Check one message and write it out in full: :func:`~airflow_provider_emqx.api.messages.message_row`.

    :param number: its place among several, for the error.
    :raises EmqxConfigError: saying what is wrong.
    """
    return message_row(message, number)


def publish(broker: Broker, message: Mapping[str, Any], repeatable: bool = False) -> Operation[Row]:
    """
    Publish one message: ``POST /publish``.

    :param message: see :func:`~airflow_provider_emqx.api.messages.message_row`.
    :param repeatable: whether it does no harm if it arrives twice.
    :return: see :func:`~airflow_provider_emqx.api.messages.published`.
    :raises EmqxConfigError: for a message that cannot be right; nothing is sent.
    :raises EmqxOutcomeUnknownError: if the answer was lost.
    """
    row = check_message(broker, message)
    reply = yield Request("POST", "/publish", json=row, repeatable=repeatable)
    return _result(row, reply.data)


def publish_many(broker: Broker, messages: Sequence[Mapping[str, Any]]) -> Operation[list[Row]]:
    """
    Publish up to 1,000 messages in one request: ``POST /publish/bulk``.

    The broker publishes none of them if it refuses one (too large, for instance). Then the batch is halved until the
    refused ones are found, and the others are published.

    :param messages: see :func:`~airflow_provider_emqx.api.messages.message_row`.
    :return: what became of each, see :func:`~airflow_provider_emqx.api.messages.published`.
    :raises EmqxConfigError: for a message that cannot be right; nothing is sent.
    :raises EmqxOutcomeUnknownError: if the answer was lost.
    """
    rows = [check_message(broker, message, number) for number, message in enumerate(messages, 1)]
    if not rows:
        raise EmqxConfigError("there are no messages to publish")
    return (yield from _batch(rows))


def retained_rate(broker: Broker) -> Operation[float | None]:
    """
    Read how many retained messages a node stores, or clears, per second: ``GET /mqtt/retainer``, EMQX 5.8.5 and newer.

    What is beyond is delivered, but not stored, and no answer tells.

    :return: messages per second; ``None`` for no limit, as on older ones.
    :raises EmqxForbiddenError: if the key may not see it.
    :raises EmqxUnsupportedError: on EMQX Cloud Serverless, which has no such endpoint, and for what is not a rate.
    """
    if broker.version is not None and not broker.at_least(5, 8, 5):
        return None
    reply = yield Request("GET", "/mqtt/retainer")
    return read_rate(str(reply.row.get("max_publish_rate", "infinity")))


def _batch(rows: list[Row]) -> Operation[list[Row]]:
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
        raise EmqxOutcomeUnknownError("the answer does not say what became of each message", str(request))
    return outcomes


def _result(row: Row, outcome: Row) -> Row:
    # EMQX 5.0 to 5.8 say of a message that waits that nobody has subscribed, later versions what they say of a delivery
    waits = is_delayed(row["topic"])
    if "id" in outcome:
        return published(row["topic"], "delayed" if waits else "delivered", outcome["id"])
    # without it this is no answer of EMQX, and "failed" would invite to publish again what may have been published
    if outcome["reason_code"] == _NO_SUBSCRIBERS:
        return published(row["topic"], "delayed" if waits else "no_subscribers")
    return published(row["topic"], "failed", reason=str(outcome.get("message", "refused"))[:200])

"""A message arrives."""

from __future__ import annotations

import json
from base64 import b64encode
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.names import matches, split_share, topic_filter
from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.conditions.base import Outcome
from airflow_provider_emqx.conditions.content import Content
from airflow_provider_emqx.exceptions import EmqxConfigError

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.mqtt import Received

#: characters of a payload in a result, a multiple of 4 for Base64, and of one that has more than so many bytes as JSON,
#: in which a character may have 12: of the JSON of a result or an event MySQL takes 64 KB
MOST_KEPT, _MOST_JSON, _FEWER_KEPT = 10_000, 40_000, 4_000


class MessageArrived:
    """
    A message arrives on a topic filter, any one or one with a certain content.

    It is no :class:`~airflow_provider_emqx.conditions.base.Condition`, which the management API is asked for: it
    decides about one message.

    :param topic: topic filter, with or without wildcards.
    :param retained: whether a message counts that was retained before.
    :param keep_payload: whether the outcome has the payload.
    :param content: arguments of :class:`~airflow_provider_emqx.conditions.content.Content`.
    :raises EmqxConfigError: for invalid arguments.
    """

    def __init__(self, topic: Any, retained: Any = False, keep_payload: Any = False, **content: Any) -> None:
        self.topic = topic_filter(topic)
        if split_share(self.topic)[0] is not None:
            raise EmqxConfigError(
                f"topic {topic!r} is a shared subscription, of whose messages one wait would see a part; "
                "expected the topic filter alone"
            )
        self.retained = boolean("retained", retained)
        self.keep_payload = boolean("keep_payload", keep_payload)
        self.content = Content(**content)

    def parameters(self) -> dict[str, Any]:
        """Return the validated arguments as plain JSON, from which the same condition can be made."""
        return {
            "topic": self.topic,
            "retained": self.retained,
            "keep_payload": self.keep_payload,
            **self.content.parameters(),
        }

    def judge(self, message: Received) -> Outcome:
        """
        Decide about a message.

        :param message: as received.
        """
        # a session of an earlier attempt may have another subscription as well
        if not matches(message.topic, self.topic) or (message.retain and not self.retained):
            return Outcome(False)
        if not self.content.accepts(message.payload):
            return Outcome(False)
        return Outcome(
            True, facts(message, self.keep_payload), f"a message on {message.topic} is as expected"
        )


def facts(message: Received, keep_payload: bool) -> dict[str, Any]:
    """
    Return facts about a message, for a result or an event.

    :param message: as received.
    :param keep_payload: whether its payload is among them: as text, or in Base64 if it is not UTF-8 or has a null
        character, and at most :data:`MOST_KEPT` characters of it.
    """
    payload = message.payload
    found: dict[str, Any] = {
        "topic": message.topic,
        "qos": message.qos,
        "retained": message.retain,
        "size": len(payload),
    }
    if not keep_payload:
        return found
    # no character is cut in the middle, and no more is decoded than is kept
    part = payload[: 4 * MOST_KEPT]
    try:
        text, encoding = getincrementaldecoder("utf-8")().decode(part, part == payload), "plain"
    except UnicodeDecodeError:
        text, encoding = "", "base64"
    if encoding == "base64" or "\0" in text:
        # PostgreSQL takes no null character in JSON
        text, encoding = b64encode(part).decode(), "base64"
    kept = text[:MOST_KEPT]
    if len(json.dumps(kept)) > _MOST_JSON:
        kept = kept[:_FEWER_KEPT]
    truncated = len(text) > len(kept) or part != payload
    return {**found, "payload": kept, "payload_encoding": encoding, "truncated": truncated}

"""A message arrives."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.names import matches, split_share, topic_filter
from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.conditions.base import Outcome
from airflow_provider_emqx.conditions.content import Content
from airflow_provider_emqx.exceptions import EmqxConfigError

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.mqtt import Received

#: characters of a payload in a result, a multiple of 4 for Base64: Airflow stores results and events as JSON, of which
#: MySQL takes 64 KB
MOST_KEPT = 10_000


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
    :param keep_payload: whether its payload is among them: as text, or in Base64 if it is not UTF-8, and at most
        :data:`MOST_KEPT` characters of it.
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
    try:
        text, encoding = payload.decode(), "plain"
    except UnicodeDecodeError:
        text, encoding = b64encode(payload).decode(), "base64"
    return {
        **found,
        "payload": text[:MOST_KEPT],
        "payload_encoding": encoding,
        "truncated": len(text) > MOST_KEPT,
    }

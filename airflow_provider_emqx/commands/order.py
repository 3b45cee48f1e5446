"""Commands to devices, and how to recognize their replies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.names import topic_filter, topic_name
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.outcomes import FAILED, REPLIED

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.mqtt import Received

#: stands for the client id in a topic
CLIENTID = "{clientid}"
#: bytes of the largest reply that is looked into
LARGEST_REPLY = 1_000_000


@dataclass(frozen=True, slots=True)
class Order:
    """
    Options for sending a command and recognizing its reply, without the payload, so that they may be stored.

    Each device gets a mark of its own, the correlation data of MQTT 5 or a field of JSON, which its reply carries back.

    :param command: what marks begin with; the same in every attempt of a task.
    :param topic: topic of the command, with ``{clientid}``.
    :param reply_topic: topic of the reply, with ``{clientid}``.
    :param reply_field: field of the JSON payloads for the mark; ``None``: MQTT 5's correlation data.
    :param success: fields that a reply must have, with these values; ``None``: every reply is a success.
    """

    command: str
    topic: str
    reply_topic: str
    reply_field: str | None = None
    success: dict[str, Any] | None = None

    def check(self) -> None:
        """
        Refuse invalid topics.

        :raises EmqxConfigError: naming the argument.
        """
        for name in ("topic", "reply_topic"):
            written = getattr(self, name)
            levels = written.split("/") if isinstance(written, str) else []
            if levels.count(CLIENTID) != 1 or written.count(CLIENTID) != 1:
                raise EmqxConfigError(
                    f"{name} must have {CLIENTID} as one of its levels, as in devices/{CLIENTID}/command, so that each "
                    f"device has a topic of its own; it is {written!r}"
                )
            if {"+", "#"} & set(written):
                raise EmqxConfigError(f"{name} must not contain a wildcard, + or #; it is {written!r}")
            topic_name(_fill(written, "x"))
        if self.topic == self.reply_topic:
            raise EmqxConfigError("topic and reply_topic are the same: commands would be taken for replies")

    def to_json(self) -> dict[str, Any]:
        """Return the arguments, for a trigger."""
        return asdict(self)

    # ------------------------------------------------------------------ the way there

    def command_topic(self, clientid: str) -> str:
        """Return the topic of a device's command."""
        return _fill(self.topic, clientid)

    def answer_topic(self, clientid: str) -> str:
        """Return the topic of a device's reply."""
        return _fill(self.reply_topic, clientid)

    def mark(self, clientid: str) -> str:
        """Return what a device's reply must carry."""
        return f"{self.command}/{clientid}"

    def payload(self, given: Any, clientid: str) -> bytes:
        """
        Make a device's payload.

        :param given: text, bytes, or what can be written as JSON; with ``reply_field`` a JSON object.
        :param clientid: the device.
        :raises EmqxConfigError: for anything else.
        """
        if self.reply_field is None:
            return _bytes(given)
        fields = _object(given)
        if fields is None:
            raise EmqxConfigError("with reply_field, payload must be a dict or a JSON object")
        return json.dumps({**fields, self.reply_field: self.mark(clientid)}, ensure_ascii=False).encode()

    # ------------------------------------------------------------------ and back

    def filters(self, clientids: Iterable[str]) -> list[str]:
        """
        Return what to subscribe to: one filter for all, and one for each device whose id has more than one level.

        :param clientids: those that are asked.
        """
        own = [self.answer_topic(clientid) for clientid in clientids if "/" in clientid]
        return [topic_filter(_fill(self.reply_topic, "+")), *own]

    def sender(self, message: Received) -> str | None:
        """
        Return the device that a message is from, as far as its topic identifies it.

        :param message: as received.
        """
        before, _, after = self.reply_topic.partition(CLIENTID)
        topic = message.topic
        if len(topic) > len(before) + len(after) and topic.startswith(before) and topic.endswith(after):
            return topic[len(before) : len(topic) - len(after)]
        return None

    def is_reply(self, message: Received, clientid: str) -> bool:
        """
        Return whether a device's message answers this command.

        :param message: as received.
        :param clientid: the device.
        """
        if message.retain:
            return False
        if self.reply_field is None:
            return message.correlation_data == self.mark(clientid).encode()
        fields = _small_object(message.payload)
        return fields is not None and fields.get(self.reply_field) == self.mark(clientid)

    def misfit(self, message: Received) -> str:
        """
        Return why a device's message does not answer this command.

        :param message: as received.
        """
        if self.reply_field is not None and len(message.payload) > LARGEST_REPLY:
            return _too_large(message)
        return "what it sent did not carry the mark of this command"

    def judge(self, message: Received) -> tuple[str, str]:
        """
        Return the outcome of a reply, and the reason of a failure, without the content of the reply.

        :param message: the reply.
        """
        if self.success is None:
            return REPLIED, ""
        if len(message.payload) > LARGEST_REPLY:
            return FAILED, _too_large(message)
        fields = _small_object(message.payload)
        if fields is None:
            return FAILED, "the reply is not a JSON object"
        wrong = [name for name, value in self.success.items() if name not in fields or fields[name] != value]
        return (FAILED, f"the reply differs from success in {wrong[0]!r}") if wrong else (REPLIED, "")


def _too_large(message: Received) -> str:
    return (
        f"the device sent {len(message.payload):,} bytes; a reply of more than {LARGEST_REPLY:,} is not read"
    )


def _fill(topic: str, clientid: str) -> str:
    return topic.replace(CLIENTID, clientid, 1)


def addressable(clientid: str) -> bool:
    """Return whether a client id can be a part of a topic name."""
    return bool(clientid) and not set(clientid) & {"+", "#", "\0"}


def _bytes(given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    if isinstance(given, str):
        return given.encode()
    try:
        return json.dumps(given, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        raise EmqxConfigError(
            f"payload must be text, bytes, or something that can be written as JSON, not {type(given).__name__}"
        ) from None


def _object(given: Any) -> dict[str, Any] | None:
    if isinstance(given, str | bytes):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return None
    return dict(given) if isinstance(given, Mapping) else None


def _small_object(payload: bytes) -> dict[str, Any] | None:
    return _object(payload) if len(payload) <= LARGEST_REPLY else None

"""Messages to publish, checked and written down before anything is sent."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider_emqx.api.base import Row, is_utf8
from airflow_provider_emqx.api.bulk import MAX_BODY
from airflow_provider_emqx.api.names import topic_name
from airflow_provider_emqx.arguments import boolean, choice, wrong
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxUnsupportedError

#: rows and bytes of one request: the broker publishes them one after another
MAX_ROWS = 1_000
MAX_BYTES = 4_000_000

_NUMBERS = ("payload_format_indicator", "message_expiry_interval")
#: of the longest interval
_DIGITS = 10
_KEYS = ("topic", "payload", "qos", "retain", "payload_encoding", "properties")
_RATE = re.compile(r"([1-9][0-9]*)(?:/([1-9][0-9]*)?(ms|[smhd]))?", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def message_row(message: Mapping[str, Any], number: int | None = None) -> Row:
    """
    Check one message and write it as v5 takes it.

    :param message: ``topic``; ``payload`` (text, bytes, or anything that can be written as JSON; ``""`` is an empty
        one); ``qos`` (0, 1, 2; by default 0); ``retain``; ``payload_encoding`` (``"base64"`` if a text payload is
        base64 of the real one); ``properties`` of MQTT 5.
    :param number: its place in a batch, for the error.
    :raises EmqxConfigError: saying what is wrong; never with the payload.
    """
    try:
        return _row(message)
    except EmqxConfigError as error:
        which = "" if number is None else f"message {number}: "
        raise EmqxConfigError(f"{which}{error.message}") from None


def batches(rows: Sequence[Row], most_retained: int = MAX_ROWS) -> list[list[int]]:
    """
    Divide rows into requests of at most 1,000 rows and, where a single row is not larger already, 4 MB.

    :param rows: as of :func:`message_row`.
    :param most_retained: how many rows of one request may be retained.
    :return: indexes into ``rows``, in order.
    """
    found: list[list[int]] = []
    size = MAX_BYTES
    retained = 0
    for index, row in enumerate(rows):
        length = len(_encode(row).encode()) + 1
        full = row["retain"] and retained >= most_retained
        if full or size + length > MAX_BYTES or len(found[-1]) >= MAX_ROWS:
            found.append([])
            size = retained = 0
        found[-1].append(index)
        size += length
        retained += row["retain"]
    return found


def read_rate(text: str) -> float | None:
    """
    Read a rate as EMQX writes it: ``1000/s``, ``100/10s``, ``5000/m``, ``1000`` (per second), ``infinity``.

    :return: per second; ``None`` for no limit.
    :raises EmqxUnsupportedError: for anything else.
    """
    if text.strip() == "infinity":
        return None
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise EmqxUnsupportedError(f"{text[:40]!r} is not a rate; expected one as '1000/s' or 'infinity'")
    count, number, unit = found.groups()
    return int(count) / (int(number or 1) * _UNITS[(unit or "s").lower()])


def is_delayed(topic: str) -> bool:
    """Return whether a message waits for its time: ``$delayed/{seconds}/{topic}``."""
    return topic.startswith("$delayed/")


def published(topic: str, status: str, message_id: str | None = None, reason: str | None = None) -> Row:
    """
    Write down what became of one message.

    :param status: ``"delivered"`` (somebody subscribed to it), ``"no_subscribers"`` (nobody did, or a rule held it
        back; a retained message is stored all the same, as far as the retainer's limits allow), ``"delayed"``
        (``$delayed/…``: it waits for its time; who will get it is not known yet), ``"accepted"`` (EMQX 4 does not
        tell), ``"failed"``.
    """
    return {"topic": topic, "status": status, "id": message_id, "reason": reason}


def _row(message: Any) -> Row:
    if not isinstance(message, Mapping):
        raise EmqxConfigError(
            f"a message must be a dict with topic and payload, not {type(message).__name__}"
        )
    unknown = [name for name in message if name not in _KEYS]
    if unknown:
        raise EmqxConfigError(f"unknown field {unknown[0]!r} of a message; expected {', '.join(_KEYS)}")
    if message.get("payload") is None:
        raise EmqxConfigError("a message needs a payload; '' is an empty one")
    payload, encoding = _payload(message["payload"], message.get("payload_encoding") or "plain")
    topic = topic_name(message.get("topic"))
    if is_delayed(topic) and not re.fullmatch(r"\$delayed/[0-9]+/.+", topic, re.DOTALL):
        raise EmqxConfigError(
            f"topic {topic[:100]!r} has no delay; expected $delayed/{{seconds}}/{{topic}}. EMQX "
            "drops such a message without a word"
        )
    row: Row = {
        "topic": topic,
        "payload": payload,
        "payload_encoding": encoding,
        "qos": qos(message.get("qos", 0)),
        "retain": boolean("retain", message.get("retain", False)),
    }
    properties = _properties(message.get("properties") or {})
    if properties:
        row["properties"] = properties
    if len(_encode(row).encode()) > MAX_BODY:
        raise EmqxConfigError(
            "the message is larger than a request may be (8 MB); EMQX itself allows 1 MB by default"
        )
    return row


def qos(value: Any) -> int:
    """Check a quality of service, also as text, as templates render it. EMQX 4 does not check it and crashes."""
    if not isinstance(value, bool) and str(value) in ("0", "1", "2"):
        return int(str(value))
    raise wrong("qos", "0, 1 or 2", value)


def _payload(payload: Any, encoding: Any) -> tuple[str, str]:
    choice("payload_encoding", encoding, ("plain", "base64"))
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return base64.b64encode(payload).decode(), "base64"
    if not isinstance(payload, str):
        if encoding != "plain":
            raise EmqxConfigError("payload_encoding is for payloads that are text")
        try:
            payload = json.dumps(payload, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise EmqxConfigError(
                f"the payload ({type(payload).__name__}) is neither text nor bytes, nor can it be written as JSON"
            ) from None
    if not is_utf8(payload):
        raise EmqxConfigError("the payload contains a lone surrogate, which is not valid UTF-8")
    if encoding == "base64":
        try:
            base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError):
            raise EmqxConfigError("the payload is said to be base64, but is not") from None
    return payload, encoding


def _properties(given: Any) -> Row:
    if not isinstance(given, Mapping):
        raise EmqxConfigError("properties must be a dict")
    properties = dict(given)
    for name, value in given.items():
        check = _PROPERTIES.get(name)
        if check is None:
            raise EmqxConfigError(f"unknown property {name!r}; expected one of {', '.join(_PROPERTIES)}")
        # templates render to text
        if name in _NUMBERS and isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS:
            properties[name] = int(value)
        if not check[0](properties[name]):
            raise EmqxConfigError(f"property {name} must be {check[1]}")
    return properties


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_utf8(value)


_PROPERTIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "payload_format_indicator": (lambda value: value in (0, 1) and not isinstance(value, bool), "0 or 1"),
    "message_expiry_interval": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32,
        "whole seconds",
    ),
    "response_topic": (_is_text, "text in valid UTF-8"),
    "correlation_data": (_is_text, "text in valid UTF-8"),
    "content_type": (_is_text, "text in valid UTF-8"),
    "user_properties": (
        lambda value: isinstance(value, Mapping) and all(map(_is_text, [*value, *value.values()])),
        "a dict of texts in valid UTF-8",
    ),
}

"""The content that a message is to have."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from airflow_provider_emqx.arguments import number, text
from airflow_provider_emqx.conditions.thresholds import Threshold
from airflow_provider_emqx.exceptions import EmqxConfigError

#: bytes of the largest payload that is read as JSON or as a number: parsing it holds an event loop for some 10 ms
LARGEST = 1_000_000


class Content:
    """
    A payload, a field of JSON, or a number that passes a threshold; without arguments any content.

    Payload and value are carried as digests: triggers are stored in clear.

    :param payload: the whole payload, text or bytes.
    :param json_field: field of a JSON payload, as ``"state.battery"`` or ``"readings.0"``.
    :param json_value: value of that field.
    :param threshold: number that the field, or without one the whole payload, is compared with.
    :param comparison: ``">="`` or ``"<="``.
    :param payload_hash: in place of ``payload``, its :func:`digest`.
    :param value_hash: in place of ``json_value``, its :func:`digest`.
    :raises EmqxConfigError: for anything else, and for several of these at once.
    """

    def __init__(
        self,
        payload: Any = None,
        json_field: Any = None,
        json_value: Any = None,
        threshold: Any = None,
        comparison: Any = ">=",
        payload_hash: Any = None,
        value_hash: Any = None,
    ) -> None:
        if payload is not None:
            if not isinstance(payload, (str, bytes)):
                raise EmqxConfigError(f"payload must be text or bytes, not {type(payload).__name__}")
            payload_hash = digest(payload.encode() if isinstance(payload, str) else payload)
        has_value = json_value is not None or value_hash is not None
        self.threshold = None if threshold is None else Threshold(threshold, comparison)
        if payload_hash is not None and (json_field is not None or threshold is not None):
            raise EmqxConfigError("compare either the whole payload or a field of it, or a number")
        if json_field is None and has_value:
            raise EmqxConfigError("json_value needs json_field, the field that is to have this value")
        if threshold is not None and has_value:
            raise EmqxConfigError("give either json_value or threshold")
        if json_field is not None:
            json_field = text("json_field", json_field)
            if threshold is None:
                value_hash = digest(json_value) if value_hash is None else value_hash
        self.payload_hash: str | None = payload_hash
        self.json_field: str | None = json_field
        self.value_hash: str | None = value_hash

    def parameters(self) -> dict[str, Any]:
        """Return the validated arguments as plain JSON."""
        found = {
            "payload_hash": self.payload_hash,
            "json_field": self.json_field,
            "value_hash": self.value_hash,
            **({} if self.threshold is None else self.threshold.parameters()),
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def is_any(self) -> bool:
        """Whether every content is accepted."""
        return not self.parameters()

    @property
    def part(self) -> str:
        """The part of a message that is compared."""
        return "payload" if self.json_field is None else f"field {self.json_field}"

    def accepts(self, payload: bytes) -> bool:
        """
        Return whether a message has this content; whatever a device has sent, it raises no error.

        :param payload: of the message.
        """
        if self.payload_hash is not None:
            return digest(payload) == self.payload_hash
        if self.is_any:
            return True
        if len(payload) > LARGEST:
            return False
        try:
            if self.threshold is not None:
                value = payload.decode() if self.json_field is None else _field(payload, self.json_field)
                return self.threshold.is_passed(number(self.part, value))
            return self.value_hash in _digests(_field(payload, str(self.json_field)))
        except (EmqxConfigError, ValueError, KeyError, IndexError, TypeError, RecursionError):
            return False


def digest(value: Any) -> str:
    """
    Return the digest of a payload (``bytes``) or of a JSON value.

    :param value: a number is the same however it is written: ``1`` is ``1.0``.
    """
    if not isinstance(value, bytes):
        value = json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()
    return sha256(value).hexdigest()


def _field(payload: bytes, field: str) -> Any:
    value = json.loads(payload)
    for step in field.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _digests(value: Any) -> set[str]:
    # what is expected may come from a template, where all is text: "7", "true" or "True"
    written = {value} if isinstance(value, str) else {json.dumps(_plain(value)), str(_plain(value))}
    return {digest(value), *map(digest, written)}


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value

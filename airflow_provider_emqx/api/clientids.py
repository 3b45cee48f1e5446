"""Client ids, and what is asked of clients, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_emqx.api.base import Row, path
from airflow_provider_emqx.api.names import split_share, topic_filter
from airflow_provider_emqx.arguments import whole
from airflow_provider_emqx.exceptions import EmqxConfigError

#: of a client's row: what EMQX 4 does not show, nor every EMQX 5
NEWER_FIELDS = ("client_attrs", "durable", "enable_authn", "is_expired", "is_persistent", "listener")
_OPTIONS = {"qos": (0, 1, 2), "nl": (0, 1), "rap": (0, 1), "rh": (0, 1, 2)}


def client_ids(clientids: str | Sequence[str]) -> list[str]:
    """
    Validate client ids and remove duplicates.

    :param clientids: one id or several.
    :raises EmqxConfigError: for one that is not text, empty, ``.``, ``..``, not valid UTF-8 or too long for a path.
    """
    ids = [clientids] if isinstance(clientids, str) else list(clientids)
    for clientid in ids:
        path("clients", clientid)
    return list(dict.fromkeys(ids))


def subscriptions(topics: str | Row | Sequence[str | Row]) -> list[Row]:
    """
    Check subscriptions to be made.

    :param topics: topic filters, or dicts of ``topic`` and any of ``qos`` (0, 1, 2), ``nl`` (no local: 0, 1), ``rap``
        (retain as published: 0, 1) and ``rh`` (retain handling: 0, 1, 2); one or several.
    :return: dicts with ``topic`` and ``qos``, and the other options where they are not 0.
    :raises EmqxConfigError: for a broken filter, an unknown or impossible option, or nothing at all.
    """
    given = [topics] if isinstance(topics, (str, Mapping)) else topics
    if not isinstance(given, (list, tuple)) or not given:
        raise EmqxConfigError("topics must be a topic filter, a dict with topic and qos, or a list of such")
    return [_subscription(topic) for topic in given]


def _subscription(topic: Any) -> Row:
    options = dict(topic) if isinstance(topic, Mapping) else {"topic": topic}
    row: Row = {"topic": topic_filter(options.pop("topic", None)), "qos": 0}
    for name, value in options.items():
        allowed = _OPTIONS.get(name)
        if allowed is None:
            raise EmqxConfigError(
                f"unknown option {name!r} of a subscription; expected topic, {', '.join(_OPTIONS)}"
            )
        # templates render to text
        number = int(value) if value in ("0", "1", "2") else value
        if isinstance(number, bool) or number not in allowed:
            raise EmqxConfigError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
        if number or name == "qos":
            row[name] = number
    if row.get("nl") and split_share(row["topic"])[0] is not None:
        raise EmqxConfigError(f"{row['topic']!r} is shared, and MQTT allows no 'no local' (nl) there")
    return row


def keepalive_seconds(seconds: Any) -> int:
    """Check a keepalive interval: whole seconds from 0 (none) to 65,535."""
    return whole("keepalive", seconds, 0, 65_535)

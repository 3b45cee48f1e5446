"""Rows of EMQX 4 written as v5 writes them, and what its API cannot take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from airflow_provider_emqx.api.base import Broker, Row
from airflow_provider_emqx.api.clientids import NEWER_FIELDS
from airflow_provider_emqx.api.v4.times import from_local
from airflow_provider_emqx.exceptions import EmqxConfigError

_V5_NAMES = {
    "awaiting_rel": "awaiting_rel_cnt",
    "max_awaiting_rel": "awaiting_rel_max",
    "inflight": "inflight_cnt",
    "max_inflight": "inflight_max",
    "max_mqueue": "mqueue_max",
    "max_subscriptions": "subscriptions_max",
}
_V4_NAMES = {v5: v4 for v4, v5 in _V5_NAMES.items()}
_TIMES = ("connected_at", "created_at", "disconnected_at")


def v4_names(fields: Iterable[str]) -> dict[str, str]:
    """Return EMQX 4's name for each field of a client."""
    return {field: _V4_NAMES.get(field, field) for field in fields}


def client_as_v5(broker: Broker, row: Row, names: Mapping[str, str] | None = None) -> Row:
    """
    Write a client's row as v5 does.

    :param names: only these fields, as :func:`v4_names` gives them: of many rows the whole would take seconds.
    """
    if names is None:
        names = {_V5_NAMES.get(name, name): name for name in row} | {
            name: name for name in (*_TIMES, *NEWER_FIELDS)
        }
    client = {name: None if (value := row.get(v4)) == "undefined" else value for name, v4 in names.items()}
    for name in _TIMES:
        if name in client:
            client[name] = from_local(broker, client[name])
    return client


def subscription_as_v5(row: Row) -> Row:
    """Write a subscription's row as v5 does."""
    # EMQX 4 shows $queue/a as $share/$queue/a
    topic = row["topic"].replace("$share/$queue/", "$queue/", 1)
    fields = ("clientid", "topic", "qos", "nl", "rap", "rh", "node", "durable")
    return {**dict.fromkeys(fields), **row, "topic": topic}


def no_comma(topic: str) -> str:
    """Refuse a topic with a comma: EMQX 4 would take it for several topics."""
    if "," in topic:
        raise EmqxConfigError(
            f"topic {topic[:80]!r} holds a comma, where EMQX 4 would split it into several topics"
        )
    return topic

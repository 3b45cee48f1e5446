"""MQTT clients, EMQX 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, path
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.api.v4.times import from_local

_V5_NAMES = {
    "awaiting_rel": "awaiting_rel_cnt",
    "max_awaiting_rel": "awaiting_rel_max",
    "inflight": "inflight_cnt",
    "max_inflight": "inflight_max",
    "max_mqueue": "mqueue_max",
    "max_subscriptions": "subscriptions_max",
}
_TIMES = ("connected_at", "created_at", "disconnected_at")
_STATES = 1_000


def list_clients(
    broker: Broker, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
) -> Operation[Page[Row]]:
    """List clients: ``GET /clients``."""
    limit = limit or page_limit(broker)
    reply = yield Request("GET", "/clients", {"_page": page, "_limit": limit})
    more = partial(list_clients, broker, page + 1, limit) if has_next(reply, page, limit) else None
    return Page([as_v5(broker, row) for row in reply.data], more, "clientid")


def get_client(broker: Broker, clientid: str) -> Operation[Row | None]:
    """
    Read one client: ``GET /clients/{clientid}``. A kept session of a disconnected client is found as well.

    :return: the row under v5's field names, ``None`` where there is no such client.
    """
    reply = yield Request("GET", path("clients", clientid))
    # after a net split two nodes may know the client: the connected one is the live one
    rows = sorted(reply.data, key=lambda row: not row.get("connected"))
    return as_v5(broker, rows[0]) if rows else None


def list_states(
    broker: Broker, page: int = 1, fields: Sequence[str] = ("clientid", "connected")
) -> Operation[Page[Row]]:
    """
    List who is known and who is connected, and no more: ``GET /clients``.

    EMQX 4 sends whole rows, about 0.9 kB each; pages are as long as an event loop may be held for decoding one.

    :param fields: fields of the rows.
    """
    reply = yield Request("GET", "/clients", {"_page": page, "_limit": _STATES})
    more = partial(list_states, broker, page + 1, fields) if has_next(reply, page, _STATES) else None
    rows = [{name: row.get(name) for name in fields} for row in reply.data]
    for name in _TIMES:
        if name in fields:
            for row in rows:
                row[name] = from_local(broker, row[name])
    return Page(rows, more, ("clientid", "connected"))


def as_v5(broker: Broker, row: Row) -> Row:
    """Write a client's row as v5 does."""
    client = {
        _V5_NAMES.get(name, name): None if value == "undefined" else value for name, value in row.items()
    }
    for name in _TIMES:
        if name in client:
            client[name] = from_local(broker, client[name])
    return client

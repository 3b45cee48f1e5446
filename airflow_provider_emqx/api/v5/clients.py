"""MQTT clients, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, path
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.exceptions import EmqxNotFoundError


def list_clients(
    broker: Broker, page: int = 1, limit: int | None = None, filters: Mapping[str, Any] | None = None
) -> Operation[Page[Row]]:
    """List clients: ``GET /clients``."""
    limit = limit or page_limit(broker)
    reply = yield Request("GET", "/clients", {"page": page, "limit": limit})
    more = partial(list_clients, broker, page + 1, limit) if has_next(reply, page, limit) else None
    return Page(reply.data, more, "clientid")


def get_client(broker: Broker, clientid: str) -> Operation[Row | None]:
    """
    Read one client: ``GET /clients/{clientid}``. A kept session of a disconnected client is found as well.

    :return: the row, ``None`` where there is no such client.
    """
    try:
        reply = yield Request("GET", path("clients", clientid))
    except EmqxNotFoundError:
        return None
    return reply.data  # type: ignore[no-any-return]


def list_states(
    broker: Broker, page: int = 1, fields: Sequence[str] = ("clientid", "connected")
) -> Operation[Page[Row]]:
    """
    List who is known and who is connected, and no more: ``GET /clients`` with ``fields`` (EMQX 5.6).

    Pages are as long as an event loop may be held for decoding one: about 36 bytes a row, 1.5 kB before EMQX 5.6.

    :param fields: fields of the rows.
    """
    lean = broker.serverless or broker.at_least(5, 6)
    limit = page_limit(broker) if lean else 1_000
    asked = {"page": page, "limit": limit, "fields": ",".join(fields)}
    reply = yield Request("GET", "/clients", asked)
    more = partial(list_states, broker, page + 1, fields) if has_next(reply, page, limit) else None
    return Page(reply.data, more, ("clientid", "connected"))

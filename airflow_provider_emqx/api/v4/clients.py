"""MQTT clients, EMQX 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from airflow_provider_emqx.api.base import Operation, Page, Reply, Request, Row, Rows, path
from airflow_provider_emqx.api.clientids import subscriptions
from airflow_provider_emqx.api.filters import (
    CLIENT_FILTERS,
    Wanted,
    fields_looked_at,
    kept,
    parts_of_names,
    read_fields,
    read_filters,
    whole_seconds,
)
from airflow_provider_emqx.api.names import topic_filter
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import ClientRow, SubscriptionRow, SubscriptionRows
from airflow_provider_emqx.api.v4.codes import reason
from airflow_provider_emqx.api.v4.nodes import place_of
from airflow_provider_emqx.api.v4.shapes import client_as_v5, no_comma, subscription_as_v5, v4_names
from airflow_provider_emqx.api.v5 import clients as v5
from airflow_provider_emqx.exceptions import EmqxNotFoundError, EmqxServerError, EmqxUnsupportedError

#: filters that the broker lacks; they are applied to the rows only
_OURS = frozenset({"gte_disconnected_at", "lte_disconnected_at"})

#: result code: the client is not online
_OFFLINE = 112


class Clients(v5.Clients):
    """MQTT clients, their rows under the names of EMQX 5."""

    @property
    def rows_per_get(self) -> float:
        """The measured cost of reading one client, in rows of a listing."""
        return 11.0

    def list(
        self,
        page: int = 1,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        fields: str | Sequence[str] | None = None,
    ) -> Operation[Page[ClientRow]]:
        """
        List clients, connected ones and kept sessions: ``GET /clients``, or ``GET /nodes/{node}/clients``.

        :param limit: rows per page at most.
        :param filters: see :data:`~airflow_provider_emqx.api.filters.CLIENT_FILTERS`; all must hold. Times are compared
            in whole seconds, EMQX 4 has no finer ones.
        :param fields: only these fields of each row, and ``clientid``; EMQX 4 sends whole rows all the same.
        """
        wanted = whole_seconds(read_filters(CLIENT_FILTERS, filters))
        names = read_fields(fields, "clientid")
        where = yield from place_of("clients", self.nodes, wanted, page)
        limit = limit or self.page_limit
        looked_at = fields_looked_at(names, CLIENT_FILTERS, wanted)
        sent_as = v4_names(looked_at) if looked_at else None
        params = {**self.query(page, limit), **_sent(wanted)}
        reply = yield Request("GET", where, params, fields=tuple(sent_as.values()) if sent_as else None)
        rows = kept((client_as_v5(self.broker, row, sent_as) for row in reply.rows), CLIENT_FILTERS, wanted)
        if names is not None and wanted:
            rows = [{name: row.get(name) for name in names} for row in rows]
        more = partial(self.list, page + 1, limit, filters, fields) if has_next(reply, page, limit) else None
        return Page(cast("list[ClientRow]", rows), more, "clientid")

    def get(self, clientid: str) -> Operation[ClientRow | None]:
        """
        Read one client: ``GET /clients/{clientid}``. A kept session of a disconnected client is found as well.

        :return: the row under v5's field names, ``None`` if the client does not exist.
        """
        reply = yield Request("GET", path("clients", clientid))
        # after a net split two nodes may know the client: the connected one is the live one
        rows = sorted(reply.data, key=lambda row: not row.get("connected"))
        return cast("ClientRow", client_as_v5(self.broker, rows[0]) if rows else None)

    def kick(self, clientid: str) -> Operation[bool | None]:
        """
        End one client's connection and session: ``DELETE /clients/{clientid}``.

        Nothing stops it from connecting again; ban it first to keep it out.

        :return: ``None``: EMQX 4.4 does not tell whether it was there (older ones do: ``False`` if not).
        """
        try:
            yield Request("DELETE", path("clients", clientid))
        except EmqxNotFoundError as error:
            return None if error.maybe_applied else False
        return None

    def list_subscriptions(self, clientid: str) -> Operation[SubscriptionRows]:
        """
        List one client's subscriptions: ``GET /subscriptions/{clientid}``.

        :return: rows of ``clientid``, ``topic``, ``qos``, ``node``, and v5's other fields as ``None``; empty for an
            unknown client.
        """
        reply = yield Request("GET", path("subscriptions", clientid))
        return cast("list[SubscriptionRow]", [subscription_as_v5(row) for row in reply.rows])

    def subscribe(self, clientid: str, topics: str | Row | Sequence[str | Row]) -> Operation[Rows]:
        """
        Subscribe a client to topics: ``POST /mqtt/subscribe_batch``.

        :param topics: topic filters without commas, or dicts of ``topic`` and ``qos``.
        :raises EmqxUnsupportedError: for the options ``nl``, ``rap`` and ``rh``.
        """
        path("clients", clientid)
        wanted = subscriptions(topics)
        for row in wanted:
            no_comma(row["topic"])
            if row.keys() - {"topic", "qos"}:
                raise EmqxUnsupportedError(
                    "EMQX 4 takes no subscription options over its API (nl, rap, rh), only qos"
                )
        request = Request(
            "POST",
            "/mqtt/subscribe_batch",
            json=[{"clientid": clientid, **row} for row in wanted],
            repeatable=True,
        )
        codes = _codes(request, (yield request), len(wanted))
        return [
            {"topic": row["topic"], "qos": row["qos"], "subscribed": code == 0, "reason": reason(code)}
            for row, code in zip(wanted, codes, strict=True)
        ]

    def unsubscribe(self, clientid: str, topics: str | Sequence[str]) -> Operation[Rows]:
        """
        End subscriptions of a client: ``POST /mqtt/unsubscribe_batch``.

        :param topics: topic filters without commas, exactly as subscribed.
        """
        path("clients", clientid)
        names = [no_comma(topic_filter(topic)) for topic in ([topics] if isinstance(topics, str) else topics)]
        if not names:
            return []
        rows = [{"clientid": clientid, "topic": topic} for topic in names]
        request = Request("POST", "/mqtt/unsubscribe_batch", json=rows, repeatable=True)
        codes = _codes(request, (yield request), len(names))
        return [
            {"topic": topic, "unsubscribed": code == 0, "reason": reason(code)}
            for topic, code in zip(names, codes, strict=True)
        ]

    def get_authorization_cache(self, clientid: str) -> Operation[Rows | None]:
        """Read a client's authorization cache: ``GET /clients/{clientid}/acl_cache``."""
        try:
            reply = yield Request("GET", path("clients", clientid, "acl_cache"))
        except EmqxNotFoundError:
            return None
        return [{**row, "access": {"action_type": row.get("access")}} for row in reply.rows]

    def clean_authorization_cache(self, clientid: str | None = None) -> Operation[bool | None]:
        """Clear the authorization cache: ``DELETE /clients/{clientid}/acl_cache``, or ``DELETE /acl-cache`` for all."""
        if clientid is None:
            yield Request("DELETE", "/acl-cache")
            return None
        try:
            yield Request("DELETE", path("clients", clientid, "acl_cache"))
        except EmqxNotFoundError:
            return False
        return True


def _codes(request: Request, reply: Reply, expected: int) -> list[int]:
    """Read the code of each row of a batch; the outer code is always 0."""
    codes = [int(row["code"]) for row in reply.rows]
    if len(codes) != expected:
        raise EmqxServerError(
            200, "0", "the response does not contain the outcome of each topic", str(request)
        )
    if _OFFLINE in codes:
        raise EmqxNotFoundError(200, str(_OFFLINE), "client not found", str(request))
    return codes


def _sent(wanted: Wanted) -> Row:
    """Return the query for the filters that the broker knows, in v4's spelling and units."""
    params: Row = {}
    for name, value in parts_of_names(wanted).items():
        if name == "node" or name in _OURS or (name == "ip_address" and ":" in value):
            # EMQX 4 compares IPv4 addresses only
            continue
        if name in ("clientid", "username"):
            if len(value) == 1:
                (params[name],) = value
        elif name.startswith("like_"):
            params[f"_{name}"] = value
        elif name.startswith(("gte_", "lte_")):
            params[f"_{name}"] = value if isinstance(value, int) else int(value.timestamp())
        else:
            params[name] = value
    return params

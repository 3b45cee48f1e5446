"""MQTT clients, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast, get_args

from airflow_provider_emqx.api.base import Operation, Page, Request, Row, Rows, fits_path, path
from airflow_provider_emqx.api.clientids import NEWER_FIELDS, client_ids, keepalive_seconds, subscriptions
from airflow_provider_emqx.api.filters import (
    CLIENT_FILTERS,
    Wanted,
    fields_looked_at,
    kept,
    parts_of_names,
    read_fields,
    read_filters,
    rfc3339,
)
from airflow_provider_emqx.api.names import topic_filter
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import ClientRow, SubscriptionRow, SubscriptionRows
from airflow_provider_emqx.api.v5.nodes import NodesArea
from airflow_provider_emqx.arguments import choice
from airflow_provider_emqx.choices import QueueKind
from airflow_provider_emqx.exceptions import (
    EmqxNotFoundError,
    EmqxServerError,
    EmqxUnsupportedError,
)

#: filters that the broker lacks; they are applied to the rows only
_OURS = frozenset(
    {
        "proto_name",
        "gte_disconnected_at",
        "lte_disconnected_at",
        "gte_mqueue_len",
        "lte_mqueue_len",
        "gte_mqueue_dropped",
        "lte_mqueue_dropped",
    }
)

#: several ids are asked for in one request up to this many bytes; beyond, and before EMQX 5.6, they are picked here
_LONGEST_IDS = 5_000

#: what makes the position of a message on its way to a client
_POSITION = {"mqueue": ("inserted_at", "mqueue_priority"), "inflight": ("inserted_at",)}


class Clients(NodesArea):
    """MQTT clients: connected ones and kept sessions."""

    @property
    def sends_fields(self) -> bool:
        """Whether the broker leaves out of a listing what is not asked for: EMQX 5.6 and newer."""
        return self.broker.at_least(5, 6)

    @property
    def rows_per_get(self) -> float:
        """The measured cost of reading one client, in rows of a listing."""
        return 7.0 if self.sends_fields else 0.67

    def list(
        self,
        page: int = 1,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        fields: str | Sequence[str] | None = None,
    ) -> Operation[Page[ClientRow]]:
        """
        List clients, connected ones and kept sessions: ``GET /clients``.

        :param page: number of the page, from 1.
        :param limit: rows per page at most; by default as many as the broker allows.
        :param filters: see :data:`~airflow_provider_emqx.api.filters.CLIENT_FILTERS`; all must hold.
        :param fields: only these fields of each row, and ``clientid``; asked of the broker since EMQX 5.6.
        """
        wanted = read_filters(CLIENT_FILTERS, filters)
        names = read_fields(fields, "clientid")
        if "zone" in wanted:
            raise EmqxUnsupportedError(f"clients can be listed by zone on EMQX 4 only; this is {self.broker}")
        if page == 1 and "node" in wanted:
            yield from self.nodes.require(wanted["node"])
        limit = limit or self.page_limit
        params = {**self.query(page, limit), **self._sent(wanted)}
        looked_at = fields_looked_at(names, CLIENT_FILTERS, wanted)
        if looked_at and self.sends_fields:
            params["fields"] = ",".join(looked_at)
        reply = yield Request("GET", "/clients", params, fields=looked_at)
        rows = kept(reply.rows, CLIENT_FILTERS, wanted)
        more = partial(self.list, page + 1, limit, filters, fields) if has_next(reply, page, limit) else None
        return Page(cast("list[ClientRow]", [_row(row, names) for row in rows]), more, "clientid")

    def get(self, clientid: str) -> Operation[ClientRow | None]:
        """
        Read one client: ``GET /clients/{clientid}``. A kept session of a disconnected client is found as well.

        :return: the row, ``None`` if the client does not exist.
        """
        try:
            reply = yield Request("GET", path("clients", clientid))
        except EmqxNotFoundError:
            return None
        return cast("ClientRow", _row(reply.data, None))

    def kick(self, clientid: str) -> Operation[bool | None]:
        """
        End one client's connection and session: ``DELETE /clients/{clientid}``.

        Nothing stops it from connecting again; ban it first to keep it out.

        :return: ``True`` if it was there, ``False`` if not.
        """
        try:
            yield Request("DELETE", path("clients", clientid))
        except EmqxNotFoundError as error:
            return error.maybe_applied
        return True

    def has_bulk_kick(self) -> bool:
        """Return whether many clients can be kicked in one request: EMQX 5.1 and newer, but not Serverless."""
        return self.broker.at_least(5, 1) and not self.broker.serverless

    def can_kick(self, clientid: str) -> bool:
        """
        Return whether a client of this id can be kicked: one that no path can carry only by a request for many, which
        has it in its body.

        :param clientid: as listed.
        """
        return self.has_bulk_kick() or fits_path(clientid)

    def kick_many(self, clientids: Sequence[str]) -> Operation[None]:
        """
        End the connections and sessions of up to 1,000 clients: ``POST /clients/kickout/bulk`` since EMQX 5.1,
        before that and on Serverless ``DELETE /clients/{clientid}`` each.

        The broker does not tell which of them were there.
        """
        if not self.has_bulk_kick():
            for clientid in client_ids(clientids):
                yield from self.kick(clientid)
        elif clientids:
            # the body can carry ids that no path can
            yield Request("POST", "/clients/kickout/bulk", json=list(clientids), repeatable=True)

    def list_subscriptions(self, clientid: str) -> Operation[SubscriptionRows]:
        """
        List one client's subscriptions: ``GET /clients/{clientid}/subscriptions``.

        :return: rows of ``clientid``, ``topic``, ``qos``, ``nl``, ``rap``, ``rh``, ``node``, ``durable``; empty for an
            unknown client.
        """
        try:
            reply = yield Request("GET", path("clients", clientid, "subscriptions"))
        except EmqxNotFoundError:
            return []
        return cast("list[SubscriptionRow]", [{"durable": None, **row} for row in reply.rows])

    def subscribe(self, clientid: str, topics: str | Row | Sequence[str | Row]) -> Operation[Rows]:
        """
        Subscribe a client to topics: ``POST /clients/{clientid}/subscribe/bulk``.

        The broker passes it on to the client's session without an authorization check; it takes effect a moment later.

        :param topics: topic filters, or dicts of ``topic``, ``qos``, ``nl``, ``rap``, ``rh``.
        """
        wanted = subscriptions(topics)
        request = Request(
            "POST", path("clients", clientid, "subscribe", "bulk"), json=wanted, repeatable=True
        )
        reply = yield request
        if isinstance(reply.data, list):
            return [
                {"topic": row["topic"], "qos": row["qos"], "subscribed": True, "reason": None}
                for row in wanted
            ]
        if not isinstance(reply.data, dict) or "failed" not in reply.data:
            raise EmqxServerError(
                reply.status, "", "the response does not contain the new subscriptions", str(request)
            )
        # HTTP 200 as well: {"succeed": [row…], "failed": [{"data": [row…], "reason": …}]}
        made = {row.get("topic") for row in reply.data.get("succeed", ())}
        reasons = {
            row.get("topic"): str(part.get("reason", "refused"))
            for part in reply.data["failed"]
            for row in part.get("data", ())
        }
        return [
            {
                "topic": row["topic"],
                "qos": row["qos"],
                "subscribed": row["topic"] in made,
                "reason": None if row["topic"] in made else reasons.get(row["topic"], "refused"),
            }
            for row in wanted
        ]

    def unsubscribe(self, clientid: str, topics: str | Sequence[str]) -> Operation[Rows]:
        """
        End subscriptions of a client: ``POST /clients/{clientid}/unsubscribe/bulk``.

        :param topics: topic filters, exactly as subscribed.
        """
        names = [topic_filter(topic) for topic in ([topics] if isinstance(topics, str) else topics)]
        if names:
            rows = [{"topic": topic} for topic in names]
            yield Request(
                "POST", path("clients", clientid, "unsubscribe", "bulk"), json=rows, repeatable=True
            )
        return [{"topic": topic, "unsubscribed": True, "reason": None} for topic in names]

    def get_authorization_cache(self, clientid: str) -> Operation[Rows | None]:
        """Read a client's authorization cache: ``GET /clients/{clientid}/authorization/cache``."""
        try:
            reply = yield Request("GET", path("clients", clientid, "authorization", "cache"))
        except EmqxNotFoundError:
            return None
        return reply.rows

    def clean_authorization_cache(self, clientid: str | None = None) -> Operation[bool | None]:
        """
        Clear the authorization cache: ``DELETE /clients/{clientid}/authorization/cache``, or
        ``DELETE /authorization/cache`` for all clients.
        """
        if clientid is None:
            yield Request("DELETE", "/authorization/cache")
            return None
        try:
            yield Request("DELETE", path("clients", clientid, "authorization", "cache"))
        except EmqxNotFoundError:
            return False
        return True

    def set_keepalive(self, clientid: str, seconds: int) -> Operation[None]:
        """Change a connected client's keepalive interval: ``PUT /clients/{clientid}/keepalive``."""
        body = {"interval": keepalive_seconds(seconds)}
        yield Request("PUT", path("clients", clientid, "keepalive"), json=body)

    def list_messages(
        self,
        clientid: str,
        kind: str = "mqueue",
        payload: str = "none",
        limit: int = 1_000,
        position: str | None = None,
    ) -> Operation[Page[Row]]:
        """
        List messages on their way to a client, EMQX 5.6 and newer: ``GET /clients/{clientid}/mqueue_messages`` or
        ``…/inflight_messages``.

        :param limit: messages per page.
        :param position: where the page starts, from the page before.
        :raises EmqxUnsupportedError: for a durable session, and on brokers before EMQX 5.6.
        """
        self.broker.require("listing a client's messages", 5, 6)
        choice("kind", kind, get_args(QueueKind))
        params = {"payload": payload, "limit": limit, "position": position}
        reply = yield Request("GET", path("clients", clientid, f"{kind}_messages"), params)
        last = reply.meta.get("position")
        if reply.rows and "inserted_at" in reply.rows[-1]:
            # not what meta says: that leads past messages whose payloads made the page too large, and which are
            # left out
            last = "_".join(str(reply.rows[-1][name]) for name in _POSITION[kind])
        # an empty page repeats the position asked for
        more = (
            partial(self.list_messages, clientid, kind, payload, limit, str(last))
            if reply.data and last not in (None, "none", position)
            else None
        )
        return Page(reply.rows, more, "msgid")

    def count_sessions(self, since: int = 0) -> Operation[int]:
        """Count the sessions of the cluster, EMQX 5.6 and newer: ``GET /sessions_count``."""
        self.broker.require("counting sessions", 5, 6, instead="get_stats() has sessions.count")
        reply = yield Request("GET", "/sessions_count", {"since": since})
        return int(reply.data)

    def _sent(self, wanted: Wanted) -> Row:
        """Return the query for the filters that the broker knows."""
        params: Row = {}
        for name, value in parts_of_names(wanted).items():
            if name in _OURS or (self.broker.serverless and name.startswith("like_")):
                continue
            if name in ("clientid", "username"):
                # before EMQX 5.6 the last one of several wins
                several = (
                    self.broker.at_least(5, 6)
                    and sum(3 * len(item.encode()) + 10 for item in value) < _LONGEST_IDS
                )
                if len(value) > 1 and not several:
                    continue
                params[name] = sorted(value)
            elif name.startswith(("gte_", "lte_")):
                params[name] = rfc3339(value)
            else:
                params[name] = value
        return params


def _row(row: Row, names: list[str] | None) -> Row:
    if names is not None:
        return {name: row.get(name) for name in names}
    for name in ("disconnected_at", *NEWER_FIELDS):
        row.setdefault(name, None)
    return row

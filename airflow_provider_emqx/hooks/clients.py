"""The hook's methods for MQTT clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.base import Row, fits_path
from airflow_provider_emqx.api.rows import ClientRow, SubscriptionRow
from airflow_provider_emqx.exceptions import EmqxError, EmqxStoppedError
from airflow_provider_emqx.outcomes import CHANGED, KICKED, STILL_CONNECTED, UNADDRESSABLE, told_as
from airflow_provider_emqx.transport.session import Session

if TYPE_CHECKING:
    from airflow_provider_emqx.choices import PayloadEncoding, QueueKind


#: clients in one bulk request; the broker asks every node for each of them
_KICK_CHUNK = 1_000
#: seconds between looks whether kicked clients are gone: their sessions end a moment after the answer
_LOOKS = (0.0, 0.2, 0.4, 0.8, 1.6)


class ClientMethods(Session):
    """MQTT clients: list, read, kick, subscribe."""

    def list_clients(self, fields: str | Sequence[str] | None = None, **filters: Any) -> Iterator[ClientRow]:
        """
        List MQTT clients, connected ones and kept sessions: v4 and v5 ``GET /clients``.

        Every row is checked against the filters once more, since brokers ignore some of them.

        :param fields: only these fields of each row (and ``clientid``), as ``["connected"]``: since EMQX 5.6 this
            saves the broker most of the work.
        :param filters: all must match; ``None`` is ignored. ``clientid`` and ``username`` (one or a list),
            ``clientid_pattern`` and ``username_pattern`` (``*`` stands for any text), ``node``, ``ip_address``,
            ``conn_state`` (``connected``, ``idle``, ``disconnected``), ``clean_start``, ``proto_name``, ``proto_ver``,
            ``zone`` (EMQX 4), ``gte_``/``lte_`` with ``created_at``, ``connected_at``, ``disconnected_at`` (RFC 3339
            or an aware ``datetime``), ``mqueue_len``, ``mqueue_dropped``.
        :return: an iterator over clients.
        :raises EmqxConfigError: for an unknown filter, a value that it cannot have, or an unknown node.
        """
        return self.rows(self.api.clients.list(filters=filters, fields=fields))

    def get_client(self, clientid: str) -> ClientRow | None:
        """
        Read one MQTT client: v4 and v5 ``GET /clients/{clientid}``.

        A client is online if it is found **and** its ``connected`` is true: kept sessions are found as well.

        :return: the client, ``None`` if it does not exist.
        """
        return self.run(self.api.clients.get(clientid))

    def kick_clients(
        self, clientids: str | Sequence[str], filters: Mapping[str, Any] | None = None
    ) -> dict[str, list[str]]:
        """
        End the connections and sessions of clients, and verify that they are disconnected.

        v5 ``POST /clients/kickout/bulk`` since EMQX 5.1, otherwise ``DELETE /clients/{clientid}`` each; each client
        is read before and after. With a rate limit they are kicked one by one, so many requests per second.

        A kicked client may connect again at once; ban it first to keep it out.

        :param clientids: one id or several; those named again are kicked once.
        :param filters: as of :meth:`list_clients`; a client that does not pass them when it is looked at is left alone.
        :return: ``{"kicked": […], "absent": […], "still_connected": […]}``: who was there and is gone, who was not
            there, and who is connected afterwards all the same (mostly because it connected again). With ``filters``
            also ``"changed"``: who no longer passed them, and ``"unaddressable"``: whom this broker cannot be asked to
            kick, as ``.`` and ``..``, which no path can carry, before EMQX 5.1 and on Serverless.
        :raises EmqxConfigError: for an id that cannot be one, or an unknown filter; nobody is kicked then.
        """
        result: dict[str, list[str]] = {KICKED: [], "absent": [], STILL_CONNECTED: []}
        if filters is not None:
            result |= {CHANGED: [], UNADDRESSABLE: []}
        for part in self.kick_in_parts(clientids, filters):
            for outcome, found in part.items():
                result.setdefault(outcome, []).extend(found)
        return result

    def kick_in_parts(
        self, clientids: str | Sequence[str], filters: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, list[str]]]:
        """
        Do the same as :meth:`kick_clients`, and yield the outcomes of each part of at most 1,000 clients as soon as it
        is done, so that what was done before a failure is known.

        :param clientids: as of :meth:`kick_clients`. With ``filters`` they are taken as selected from the broker: who
            cannot be addressed is reported as ``"unaddressable"``; without filters, such an id is refused.
        :param filters: as of :meth:`kick_clients`.
        :return: an iterator over results as of :meth:`kick_clients`, of outcomes that were met; clients are kicked only
            as it is advanced. Before an error of the broker is raised, the clients of its part are yielded: those that
            were kicked, and as ``"failed"`` or ``"unknown"`` those that were not, or perhaps.
        :raises EmqxConfigError: for an id that cannot be one, or an unknown filter; nobody is kicked then.
        """
        from airflow_provider_emqx.api.clientids import client_ids
        from airflow_provider_emqx.api.filters import CLIENT_FILTERS, read_filters

        wanted = read_filters(CLIENT_FILTERS, filters)
        if filters is None:
            ids = client_ids(clientids)
        else:
            given = [clientids] if isinstance(clientids, str) else clientids
            odd = dict.fromkeys(one for one in given if not self.api.clients.can_kick(one))
            if odd:
                yield {UNADDRESSABLE: list(odd)}
            ids = [clientid for clientid in dict.fromkeys(given) if clientid not in odd]
        # look, kick and look again by parts, so that no look is old when the kick comes
        for start in range(0, len(ids), _KICK_CHUNK):
            yield from self._kick(ids[start : start + _KICK_CHUNK], wanted)

    def _kick(self, ids: list[str], wanted: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        from airflow_provider_emqx.api.filters import CLIENT_FILTERS, kept

        found = {clientid: row for clientid, row in self._clients(ids).items() if row is not None}
        outcomes: dict[str, list[str]] = {"absent": [clientid for clientid in ids if clientid not in found]}
        passing = [row["clientid"] for row in kept(found.values(), CLIENT_FILTERS, wanted)]
        chosen = set(passing)
        outcomes[CHANGED] = [clientid for clientid in found if clientid not in chosen]
        kicked: list[str] = []
        failure: BaseException | None = None
        back: set[str] = set()
        try:
            for clientid, error in self._kicked(passing):
                if error is None:
                    kicked.append(clientid)
                else:
                    outcomes.setdefault(told_as(error), []).append(clientid)
                    failure = failure or error
            back = self._still_connected({clientid: found[clientid] for clientid in kicked})
        except BaseException as error:
            # raised after the kicked clients are yielded
            failure = failure or error
        outcomes[KICKED] = [clientid for clientid in kicked if clientid not in back]
        outcomes[STILL_CONNECTED] = [clientid for clientid in kicked if clientid in back]
        yield {outcome: names for outcome, names in outcomes.items() if names}
        if failure is not None:
            raise failure

    def _kicked(self, ids: list[str]) -> Iterator[tuple[str, BaseException | None]]:
        """Kick clients, and yield each with its error."""
        operations = self.api.clients
        in_bulk: list[str] = []
        if operations.has_bulk_kick():
            several = self.settings.rate_limit is None and len(ids) > 1
            in_bulk = ids if several else [clientid for clientid in ids if not fits_path(clientid)]
        if in_bulk:
            failure: BaseException | None = None
            try:
                self.run(operations.kick_many(in_bulk))
            except EmqxStoppedError as error:
                if not error.maybe_applied:
                    raise
                failure = error
            except BaseException as error:
                failure = error
            yield from ((clientid, failure) for clientid in in_bulk)
            if failure is not None:
                return
        done = set(in_bulk)
        single = [clientid for clientid in ids if clientid not in done]
        for clientid, result in self.run_each((one, operations.kick(one)) for one in single):
            yield clientid, result if isinstance(result, EmqxError) else None

    def _clients(self, ids: Sequence[str]) -> dict[str, ClientRow | None]:
        """Read clients, also those whose id cannot be part of a path."""
        operations = self.api.clients
        plain = [clientid for clientid in ids if fits_path(clientid)]
        found: dict[str, ClientRow | None] = dict.fromkeys(ids)
        looks = self.run_all(operations.get(clientid) for clientid in plain)
        found.update(zip(plain, looks, strict=True))
        odd = [clientid for clientid in ids if not fits_path(clientid)]
        if odd:
            listing = operations.list(filters={"clientid": odd})
            found.update((row["clientid"], row) for row in self.rows(listing))
        return found

    def _still_connected(self, before: dict[str, ClientRow]) -> set[str]:
        """Check for up to 3 s until all clients are disconnected or have reconnected."""
        connected: dict[str, bool] = {}
        waiting = list(before)
        for pause in _LOOKS:
            if not waiting:
                break
            self.stopping.sleep(pause)
            for clientid, row in self._clients(waiting).items():
                connected[clientid] = row is not None and row.get("connected") is True
                if row is None or row.get("connected_at") != before[clientid].get("connected_at"):
                    before.pop(clientid)
            waiting = list(before)
        return {clientid for clientid, is_connected in connected.items() if is_connected}

    def list_client_subscriptions(self, clientid: str) -> Iterator[SubscriptionRow]:
        """
        List one client's subscriptions: v5 ``GET /clients/{clientid}/subscriptions``, v4
        ``GET /subscriptions/{clientid}``.

        :return: an iterator over ``{"clientid", "topic", "qos", …}``; empty if the client does not exist.
        """
        yield from self.run(self.api.clients.list_subscriptions(clientid))

    def subscribe(self, clientid: str, topics: str | Row | Sequence[str | Row]) -> list[Row]:
        """
        Subscribe a client to topics: v5 ``POST /clients/{clientid}/subscribe/bulk``, v4 ``POST /mqtt/subscribe_batch``.

        The broker does not check whether the client may; it takes effect a moment later.

        :param topics: topic filters, or dicts of ``topic``, ``qos``, and on EMQX 5 ``nl``, ``rap``, ``rh``; one or
            several. On EMQX 4 without commas.
        :return: per topic ``{"topic", "qos", "subscribed", "reason"}``.
        :raises EmqxNotFoundError: if the client does not exist.
        """
        return self.run(self.api.clients.subscribe(clientid, topics))

    def unsubscribe(self, clientid: str, topics: str | Sequence[str]) -> list[Row]:
        """
        End subscriptions of a client: v5 ``POST /clients/{clientid}/unsubscribe/bulk``, v4
        ``POST /mqtt/unsubscribe_batch``.

        :param topics: topic filters exactly as subscribed; one or several.
        :return: per topic ``{"topic", "unsubscribed", "reason"}``; one that was not subscribed counts as done.
        :raises EmqxNotFoundError: if the client does not exist.
        """
        return self.run(self.api.clients.unsubscribe(clientid, topics))

    def get_authorization_cache(self, clientid: str) -> list[Row] | None:
        """
        Read a client's authorization cache: v5 ``GET /clients/{clientid}/authorization/cache``, v4
        ``GET /clients/{clientid}/acl_cache``.

        :return: rows of ``access``, ``topic``, ``result``, ``updated_time`` (ms); ``None`` for an
            unknown client.
        """
        return self.run(self.api.clients.get_authorization_cache(clientid))

    def clean_authorization_cache(self, clientid: str | None = None) -> bool | None:
        """
        Clear a client's authorization cache, as after a change of ACL rules: v5
        ``DELETE /clients/{clientid}/authorization/cache`` or ``DELETE /authorization/cache``, v4
        ``DELETE /clients/{clientid}/acl_cache`` or ``DELETE /acl-cache``.

        :param clientid: one client; ``None`` for all.
        :return: for one client whether it was there; for all ``None``.
        """
        return self.run(self.api.clients.clean_authorization_cache(clientid))

    def set_keepalive(self, clientid: str, seconds: int) -> None:
        """
        Change a connected client's keepalive interval: v4 and v5 ``PUT /clients/{clientid}/keepalive``.

        :param seconds: 0 (none) to 65,535.
        :raises EmqxNotFoundError: if the client does not exist.
        """
        self.run(self.api.clients.set_keepalive(clientid, seconds))

    def list_queued_messages(
        self, clientid: str, kind: QueueKind = "mqueue", payload: PayloadEncoding = "none"
    ) -> Iterator[Row]:
        """
        List messages on their way to a client, EMQX 5.6 and newer: ``GET /clients/{clientid}/mqueue_messages``, or
        ``…/inflight_messages``.

        :param kind: ``"mqueue"`` (waiting) or ``"inflight"`` (sent, not yet acknowledged).
        :param payload: ``"none"``, ``"base64"`` or ``"plain"``.
        :return: an iterator over ``{"msgid", "topic", "qos", "publish_at", …}``.
        """
        return self.rows(self.api.clients.list_messages(clientid, kind, payload))

    def count_sessions(self, since: int = 0) -> int:
        """
        Count the sessions of the cluster, EMQX 5.6 and newer: ``GET /sessions_count``.

        :param since: seconds since 1970; sessions that ended before are not counted.
        """
        return self.run(self.api.clients.count_sessions(since))

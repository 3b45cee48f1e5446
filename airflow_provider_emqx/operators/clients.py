"""Operators for MQTT clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.operators.affected import Affected, BaseSelectingOperator, check_limit
from airflow_provider_emqx.operators.base import (
    BaseEmqxOperator,
    is_dry_run,
    keep_result,
    mapping,
    named,
    seconds,
    texts,
)
from airflow_provider_emqx.operators.listing import write_rows

if TYPE_CHECKING:
    import os

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.hooks.emqx import EmqxHook


class EmqxListClientsOperator(BaseEmqxOperator):
    """
    List MQTT clients, connected ones and kept sessions: v4 and v5 ``GET /clients``.

    :param filters: as of :meth:`~airflow_provider_emqx.hooks.clients.ClientMethods.list_clients`, as
        ``{"conn_state": "connected", "like_clientid": "pump"}`` (templated); all must hold.
    :param fields: only these fields of each client, and ``clientid`` (templated); cheaper for the broker.
    :param output_path: path or URL of a JSON Lines file for all rows (templated): the result holds 1,000.
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: ``{"count", "rows", "output_path", "listing_moved"}``; the last says whether clients came or went between
        two pages, so that rows may be missing, and is ``None`` where that is not known.
    """

    template_fields: Sequence[str] = ("filters", "fields", "output_path", *BaseEmqxOperator.template_fields)

    def __init__(
        self,
        *,
        filters: Mapping[str, Any] | str | None = None,
        fields: str | Sequence[str] | None = None,
        output_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.fields = fields
        self.output_path = output_path
        self.check_literals()

    def check(self) -> None:
        """Refuse filters that are no dict, and fields that are no names."""
        mapping("filters", self.filters)
        texts("fields", self.fields)

    def execute(self, context: Context) -> dict[str, Any]:
        """List."""
        filters, fields = mapping("filters", self.filters), ",".join(texts("fields", self.fields))
        with self.hook() as hook:
            listing = hook.api.clients.list(filters=filters, fields=fields or None)
            return write_rows(hook, listing, self.output_path)


class EmqxSubscribeOperator(BaseEmqxOperator):
    """
    Subscribe clients to topics on their behalf.

    v5 ``POST /clients/{clientid}/subscribe/bulk``, v4 ``POST /mqtt/subscribe_batch``. The broker does not check whether
    the clients may; it takes effect a moment later.

    :param clientids: one client id or several (templated).
    :param topics: topic filters, or dicts of ``topic``, ``qos``, and on EMQX 5 ``nl``, ``rap``, ``rh`` (templated).
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: per client id a list of ``{"topic", "qos", "subscribed", "reason"}``.
    :raises EmqxError: if a client is not there or a subscription was not made, after all others are done.
    """

    template_fields: Sequence[str] = ("clientids", "topics", *BaseEmqxOperator.template_fields)
    _verb = "subscribe"

    def __init__(self, *, clientids: str | Sequence[str], topics: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clientids = clientids
        self.topics = topics
        self.check_literals()

    def check(self) -> None:
        """Refuse client ids that no client has, and topics without a value."""
        self._ids()
        if isinstance(self.topics, str):
            named("topics", self.topics)

    def _ids(self) -> list[str]:
        from airflow_provider_emqx.api.clientids import client_ids

        return client_ids(named("clientids", self.clientids))

    def execute(self, context: Context) -> dict[str, list[dict[str, Any]]]:
        """Change the subscriptions of each client."""
        ids = self._ids()
        topics = named("topics", self.topics) if isinstance(self.topics, str) else self.topics
        with self.hook() as hook:
            change = getattr(hook.api.clients, self._verb)
            results = list(hook.run_many(change(clientid, topics) for clientid in ids))
        for result in results:
            # the topics are the same for all clients: nothing has been sent for any
            if isinstance(result, EmqxConfigError):
                raise result
        done = {
            clientid: result
            for clientid, result in zip(ids, results, strict=True)
            if not isinstance(result, EmqxError)
        }
        failures = [
            f"{i}: {result}" for i, result in zip(ids, results, strict=True) if isinstance(result, EmqxError)
        ]
        for clientid, rows in done.items():
            failures += [f"{clientid}, {row['topic']}: {row['reason']}" for row in rows if row["reason"]]
        if failures:
            keep_result(context, done)
            raise EmqxError(f"{self._verb} failed {len(failures):,} times, first for {failures[0]}")
        self.log.info("%s: done for %d clients", self._verb, len(done))
        return done


class EmqxUnsubscribeOperator(EmqxSubscribeOperator):
    """
    End subscriptions of clients.

    v5 ``POST /clients/{clientid}/unsubscribe/bulk``, v4 ``POST /mqtt/unsubscribe_batch``.

    :param clientids: one client id or several (templated).
    :param topics: topic filters, exactly as subscribed (templated).
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: per client id a list of ``{"topic", "unsubscribed", "reason"}``; not subscribed counts as done.
    :raises EmqxError: if a client is not there, after all others are done.
    """

    _verb = "unsubscribe"


class EmqxKickClientsOperator(BaseSelectingOperator):
    """
    End the connections and sessions of MQTT clients: those named, or those that a filter selects.

    v5 ``POST /clients/kickout/bulk`` since EMQX 5.1, otherwise ``DELETE /clients/{clientid}`` each. Every client is
    looked at right before: one that a filter no longer selects is left alone. Afterwards it is looked at again. A
    kicked client may connect again at once; ban it first to keep it out.

    :param clientids: one client id or several (templated).
    :param filters: in place of ``clientids``, filters as of
        :meth:`~airflow_provider_emqx.hooks.clients.ClientMethods.list_clients`, as ``{"username": "pump"}``
        (templated).
    :param clientid_like: filter: a part of the client id (templated).
    :param username_like: filter: a part of the username (templated).
    :param disconnected_for: filter: no connection for so many seconds, or a ``timedelta`` (templated): sessions that
        the broker keeps for clients that stay away. By the broker's clock against the worker's.
    :param exclude: client ids that are never kicked; ``*`` stands for any text (templated).
    :param max_affected: how many clients may be kicked: a count, or a share of all the broker's clients such as
        ``"5%"`` (templated). If more are selected, the task fails and nobody is kicked.
    :param dry_run: select and report only (templated).
    :param report: path or URL of a JSON Lines file for what became of each client (templated): the result lists 1,000
        of a kind.
    :param rate_limit: requests per second at most, in place of the connection's; clients are then kicked one by one.
    :param emqx_conn_id: the Airflow connection.
    :return: ``{"kicked": […], "absent": […], "still_connected": […], "changed": […], "counts": {…}, "selected",
        "excluded", "listing_moved", "dry_run", "report"}``; ``changed`` are those that the filters no longer
        select, and with ``dry_run`` ``kicked`` are those that would be.
    :raises EmqxConfigError: for arguments that cannot be right, and for more clients than ``max_affected``; nobody is
        kicked.
    """

    template_fields: Sequence[str] = (
        "clientids",
        "filters",
        "clientid_like",
        "username_like",
        "disconnected_for",
        *BaseSelectingOperator.template_fields,
    )

    def __init__(
        self,
        *,
        clientids: str | Sequence[str] | XComArg | None = None,
        filters: Mapping[str, Any] | str | None = None,
        clientid_like: str | None = None,
        username_like: str | None = None,
        disconnected_for: float | str | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.clientids = clientids
        self.filters = filters
        self.clientid_like = clientid_like
        self.username_like = username_like
        self.disconnected_for = disconnected_for
        self.check_literals()

    def check(self) -> None:
        """Refuse a selection that says nothing, or too much."""
        if (self.clientids is None) == (not self._filters()):
            raise EmqxConfigError("give either clientids or filters, to say who is to be kicked")

    def execute(self, context: Context) -> dict[str, Any]:
        """Select, check, kick, look again."""
        self.check()
        filters = self._filters()
        given = None if self.clientids is None else named("clientids", self.clientids)
        dry_run = is_dry_run(self.plan_only)
        outcomes = ("kicked", "absent", "still_connected", "changed")
        with self.hook() as hook, Affected("clientid", outcomes, self.report) as affected:
            ids = self._select(hook, given, filters)
            affected.listing_moved = hook.listing_moved
            chosen = self.without_excluded(ids)
            check_limit(self.max_affected, len(chosen), "clients", lambda: _clients(hook))
            if dry_run:
                self.log.info("Dry run: %d clients would be kicked", len(chosen))
                affected.add("kicked", chosen)
            else:
                try:
                    for part in hook.kick_in_parts(chosen, filters or None):
                        for outcome, clientids in part.items():
                            affected.add(outcome, clientids)
                except EmqxError:
                    self.log.error("Ended early. Of %d clients: %s", len(chosen), affected.words())
                    keep_result(context, affected.result(len(ids), len(chosen), dry_run))
                    raise
                self.log.info("Of %d clients: %s", len(chosen), affected.words())
        return affected.result(len(ids), len(chosen), dry_run)

    def _filters(self) -> dict[str, Any]:
        parts = {"like_clientid": self.clientid_like, "like_username": self.username_like}
        filters = {
            **mapping("filters", self.filters),
            **{name: part for name, part in parts.items() if part is not None},
        }
        # a template without a value would select far more than was meant
        if empty := [
            name for name, value in filters.items() if value is None or (isinstance(value, str) and not value)
        ]:
            raise EmqxConfigError(
                f"the filter {empty[0]} has no value: it would select every client. Nobody was kicked"
            )
        away = seconds("disconnected_for", self.disconnected_for)
        if away is not None:
            filters["conn_state"] = "disconnected"
            filters["lte_disconnected_at"] = datetime.now(UTC) - timedelta(seconds=away)
        return filters

    @staticmethod
    def _select(hook: EmqxHook, given: list[str] | None, filters: dict[str, Any]) -> list[str]:
        from airflow_provider_emqx.api.clientids import client_ids

        if given is not None:
            return client_ids(given)
        rows = hook.settled_rows(lambda: hook.api.clients.list(filters=filters, fields=["clientid"]))
        return [row["clientid"] for row in rows]


def _clients(hook: EmqxHook) -> int:
    """Count the broker's clients, kept sessions included."""
    return int(hook.get_stats().get("connections.count", 0))

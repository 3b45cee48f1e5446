"""Operators for MQTT clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, cast

from airflow_provider_emqx.arguments import boolean, mapping, optional, seconds, texts
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.links import clients_page
from airflow_provider_emqx.operators.affected import (
    Affected,
    BaseActingOperator,
    BaseSelectingOperator,
)
from airflow_provider_emqx.operators.base import (
    BaseEmqxOperator,
)
from airflow_provider_emqx.operators.listing import write_rows
from airflow_provider_emqx.outcomes import ABSENT, CHANGED, FAILED, KICKED, STILL_CONNECTED, UNADDRESSABLE
from airflow_provider_emqx.plans.file import KICK

if TYPE_CHECKING:
    import os

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.api.rows import ClientRow
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.keywords import ActingKeywords, EmqxOperatorKeywords, SelectingKeywords
    from airflow_provider_emqx.results import KickResult, ListResult, SubscribeResult

#: clients that are kicked before the progress of a plan is written down
_PART = 1_000


class EmqxListClientsOperator(BaseEmqxOperator):
    """
    List MQTT clients, connected ones and kept sessions: v4 and v5 ``GET /clients``.

    :param filters: as of :meth:`~airflow_provider_emqx.hooks.clients.ClientMethods.list_clients`, as
        ``{"conn_state": "connected", "clientid_pattern": "pump-*"}``; all must hold.
    :param fields: only these fields of each client, and ``clientid``; cheaper for the broker.
    :param output_path: path or URL of a JSON Lines file for all rows: the result holds 1,000.
    :return: ``{"count", "rows", "output_path", "listing_moved"}``; the last says whether clients came or went between
        two pages, so that rows may be missing, and is ``None`` where that is not known.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"filters": "json"}
    template_fields: Sequence[str] = ("filters", "fields", "output_path", *BaseEmqxOperator.template_fields)

    def __init__(
        self,
        *,
        filters: Mapping[str, Any] | str | XComArg | None = None,
        fields: str | Sequence[str] | XComArg | None = None,
        output_path: str | os.PathLike[str] | XComArg | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.fields = fields
        self.output_path: Any = output_path
        self.check_literals()

    def check(self) -> None:
        """Refuse filters other than a dict, and fields other than names."""
        mapping("filters", self.filters)
        optional(texts, "fields", self.fields)

    def dashboard_page(self) -> str:
        """Return the page of the clients."""
        return clients_page(None, mapping("filters", self.filters).get("username"))

    def execute(self, context: Context) -> ListResult[ClientRow]:
        """List."""
        filters = mapping("filters", self.filters)
        fields = ",".join(optional(texts, "fields", self.fields) or [])
        with self.hook() as hook:
            listing = hook.api.clients.list(filters=filters, fields=fields or None)
            return write_rows(hook, listing, self.output_path)


class EmqxSubscribeOperator(BaseActingOperator):
    """
    Subscribe clients to topics on their behalf.

    v5 ``POST /clients/{clientid}/subscribe/bulk``, v4 ``POST /mqtt/subscribe_batch``. The broker does not check whether
    the clients may; it takes effect a moment later.

    :param clientids: one client id or several.
    :param topics: topic filters, or dicts of ``topic``, ``qos``, and on EMQX 5 ``nl``, ``rap``, ``rh``.
    :return: ``{"subscribed": [{"clientid", "topic"}, …], "failed": […], "unknown": […], "counts": {…}, "selected",
        "reasons": […], "guards": […], "report_path"}``; where nothing could be done for a client, its entry is
        ``{"clientid"}``.
    :raises EmqxError: if a client is not there or a subscription was not made, after all others are done.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"topics": "json"}
    template_fields: Sequence[str] = ("clientids", "topics", *BaseActingOperator.template_fields)
    _verb = "subscribe"

    def __init__(
        self, *, clientids: str | Sequence[str] | XComArg, topics: Any, **kwargs: Unpack[ActingKeywords]
    ) -> None:
        super().__init__(**kwargs)
        self.clientids: Any = clientids
        self.topics = topics
        self.check_literals()

    def check(self) -> None:
        """Refuse client ids that no client has, and topics without a value."""
        self._ids()
        if isinstance(self.topics, str):
            texts("topics", self.topics)

    def _ids(self) -> list[str]:
        from airflow_provider_emqx.api.clientids import client_ids

        return client_ids(texts("clientids", self.clientids))

    def dashboard_page(self) -> str:
        """Return the page of the clients."""
        return clients_page(self.clientids)

    def execute(self, context: Context) -> SubscribeResult:
        """Change the subscriptions of each client."""
        ids = self._ids()
        topics = texts("topics", self.topics) if isinstance(self.topics, str) else self.topics
        done = f"{self._verb}d"
        with self.hook() as hook, Affected(context, "clientid", (done,), self.report_path) as affected:
            affected.select(len(ids))
            change = getattr(hook.api.clients, self._verb)
            failures = []
            for clientid, result in hook.run_each((one, change(one, topics)) for one in ids):
                if isinstance(result, EmqxConfigError):
                    # the topics are the same for all clients: nothing has been sent for any
                    raise result
                if isinstance(result, EmqxError):
                    affected.add(result, [{"clientid": clientid}])
                    failures.append(f"{clientid}: {result}")
                    continue
                for row in result:
                    reason = row["reason"] or ""
                    name = {"clientid": clientid, "topic": row["topic"]}
                    affected.add(FAILED if reason else done, [name], reason)
                    failures += [f"{clientid}, {row['topic']}: {reason}"] if reason else []
            if failures:
                raise EmqxError(f"{self._verb} failed {len(failures):,} times, first for {failures[0]}")
        affected.tell("clients")
        return cast("SubscribeResult", affected.result())


class EmqxUnsubscribeOperator(EmqxSubscribeOperator):
    """
    End subscriptions of clients.

    v5 ``POST /clients/{clientid}/unsubscribe/bulk``, v4 ``POST /mqtt/unsubscribe_batch``.

    :param topics: topic filters, exactly as subscribed.
    :return: ``{"unsubscribed": [{"clientid", "topic"}, …], "failed": […], "unknown": […], "counts": {…}, "selected",
        "reasons": […], "guards": […], "report_path"}``; not subscribed counts as done.
    :raises EmqxError: if a client is not there, after all others are done.
    """

    _verb = "unsubscribe"


class EmqxKickClientsOperator(BaseSelectingOperator):
    """
    End the connections and sessions of MQTT clients, by client id or by a filter.

    v5 ``POST /clients/kickout/bulk`` since EMQX 5.1, otherwise ``DELETE /clients/{clientid}`` for each. Every client is
    read right before: one that no longer matches the filters is left alone. Afterwards it is read again. A
    kicked client may reconnect at once; ban it first to keep it out.

    :param clientids: one client id or several.
    :param filters: in place of ``clientids``, filters as of
        :meth:`~airflow_provider_emqx.hooks.clients.ClientMethods.list_clients`, as ``{"username": "pump"}``.
    :param clientid_pattern: filter: a pattern of the client id, in which ``*`` stands for any text.
    :param username_pattern: filter: a pattern of the username.
    :param disconnected_for: filter: no connection for so many seconds, or a ``timedelta``: sessions that
        the broker keeps for clients that stay away. By the broker's clock against the worker's.
    :param rate_limit: maximum requests per second, instead of the connection's; clients are then kicked one by one.
    :return: ``{"kicked": […], "absent": […], "still_connected": […], "changed": […], "unaddressable": […], "failed":
        […], "unknown": […], "counts": {…}, "selected", "excluded", "listing_moved", "dry_run", "reasons": […],
        "guards": […], "report_path"}``; ``changed`` are those that the filters no longer select, ``unaddressable``
        those that filters select and this broker cannot be asked to kick (client ids ``.`` and ``..``, where it has
        no request for many), and with ``dry_run`` ``kicked`` are those that would be. It is stored also when the task
        fails or is stopped.
    :raises EmqxConfigError: for invalid arguments, and for more clients than ``max_affected``; nobody is
        kicked.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"filters": "json"}
    template_fields: Sequence[str] = (
        "clientids",
        "filters",
        "clientid_pattern",
        "username_pattern",
        "disconnected_for",
        *BaseSelectingOperator.template_fields,
    )

    def __init__(
        self,
        *,
        clientids: str | Sequence[str] | XComArg | None = None,
        filters: Mapping[str, Any] | str | XComArg | None = None,
        clientid_pattern: str | XComArg | None = None,
        username_pattern: str | XComArg | None = None,
        disconnected_for: float | str | timedelta | XComArg | None = None,
        **kwargs: Unpack[SelectingKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.clientids: Any = clientids
        self.filters = filters
        self.clientid_pattern = clientid_pattern
        self.username_pattern = username_pattern
        self.disconnected_for = disconnected_for
        self.check_literals()

    def check(self) -> None:
        """Refuse a selection that says nothing, or too much."""
        if (self.clientids is None) == (not self._filters()):
            raise EmqxConfigError("give either clientids or filters, to say who is to be kicked")

    def dashboard_page(self) -> str:
        """Return the page of the clients."""
        return clients_page(self.clientids, mapping("filters", self.filters).get("username"))

    def execute(self, context: Context) -> KickResult:
        """Select, check, kick, verify."""
        self.check()
        given = None if self.clientids is None else texts("clientids", self.clientids)
        dry_run = boolean("dry_run", self.plan_only)
        outcomes = (KICKED, ABSENT, STILL_CONNECTED, CHANGED, UNADDRESSABLE)
        with (
            self.hook() as hook,
            self.job(hook, KICK) as job,
            Affected(
                context, "clientid", outcomes, self.report_path, job, lambda clientid: (KICK, clientid)
            ) as affected,
        ):
            filters = self._filters(job.now)
            ids = [] if job.is_finished else self._select(hook, given, filters)
            chosen = self.without_excluded(ids)
            left = {one for one in chosen if not hook.api.clients.can_kick(one)}
            affected.select(
                len(chosen),
                excluded=len(ids) - len(chosen),
                listing_moved=hook.listing_moved,
                dry_run=dry_run,
            )
            affected.hold(self.max_affected, len(chosen) - len(left), "clients", lambda: _clients(hook))
            meant = [one for one in chosen if one not in left]
            if dry_run or filters:
                affected.add(UNADDRESSABLE, [one for one in chosen if one in left])
            job.add((KICK, one, "") for one in meant)
            affected.settle()
            if dry_run:
                affected.add(KICKED, meant)
            else:
                for part in job.parts(KICK, meant if filters else chosen, _PART):
                    for outcomes_of_part in hook.kick_in_parts(part, filters or None):
                        for outcome, clientids in outcomes_of_part.items():
                            affected.add(outcome, clientids)
                job.finish()
            affected.tell("clients")
        return cast("KickResult", affected.result())

    def _filters(self, now: datetime | None = None) -> dict[str, Any]:
        patterns = {name: getattr(self, name) for name in ("clientid_pattern", "username_pattern")}
        filters = {
            **mapping("filters", self.filters),
            **{name: pattern for name, pattern in patterns.items() if pattern is not None},
        }
        # a template without a value would select far more than was meant
        if empty := [
            name
            for name, value in filters.items()
            if value is None or (isinstance(value, str) and not value.strip("*"))
        ]:
            raise EmqxConfigError(
                f"the filter {empty[0]} has no value: it would select every client. Nobody was kicked"
            )
        away = seconds("disconnected_for", self.disconnected_for)
        if away is not None:
            filters["conn_state"] = "disconnected"
            filters["lte_disconnected_at"] = (now or datetime.now(UTC)) - timedelta(seconds=away)
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

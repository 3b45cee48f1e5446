"""Operators for MQTT clients."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.affected import Affected, check_limit
from airflow_provider_emqx.operators.base import BaseEmqxOperator, boolean, excluded, seconds, texts

if TYPE_CHECKING:
    import os

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.hooks.emqx import EmqxHook


class EmqxKickClientsOperator(BaseEmqxOperator):
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
        "excluded", "dry_run", "report"}``; ``changed`` are those that the filters no longer select, and with
        ``dry_run`` ``kicked`` are those that would be.
    :raises EmqxConfigError: for arguments that cannot be right, and for more clients than ``max_affected``; nobody is
        kicked.
    """

    template_fields: Sequence[str] = (
        "clientids",
        "filters",
        "clientid_like",
        "username_like",
        "disconnected_for",
        "exclude",
        "max_affected",
        "dry_run",
        "report",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        clientids: str | Sequence[str] | XComArg | None = None,
        filters: dict[str, Any] | None = None,
        clientid_like: str | None = None,
        username_like: str | None = None,
        disconnected_for: float | str | timedelta | None = None,
        exclude: str | Sequence[str] | None = None,
        max_affected: float | str | None = None,
        dry_run: bool | str = False,
        report: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.clientids = clientids
        self.filters = filters
        self.clientid_like = clientid_like
        self.username_like = username_like
        self.disconnected_for = disconnected_for
        self.exclude = exclude
        self.max_affected = max_affected
        self.dry_run = dry_run  # type: ignore[method-assign, assignment]
        self.report = report

    def execute(self, context: Context) -> dict[str, Any]:
        """Select, check, kick, look again."""
        filters = self._filters()
        named = None if self.clientids is None else texts("clientids", self.clientids)
        if (named is None) == (not filters):
            raise EmqxConfigError("give either clientids or filters, to say who is to be kicked")
        dry_run = boolean("dry_run", self.dry_run)
        keep = texts("exclude", self.exclude)
        outcomes = ("kicked", "absent", "still_connected", "changed")
        with self.hook() as hook, Affected("clientid", outcomes, self.report) as affected:
            ids = self._select(hook, named, filters)
            chosen = [clientid for clientid in ids if not excluded(clientid, keep)]
            check_limit(self.max_affected, len(chosen), "clients", lambda: _clients(hook))
            if dry_run:
                self.log.info("Dry run: %d clients would be kicked", len(chosen))
                affected.add("kicked", chosen)
            else:
                for outcome, clientids in hook.kick_clients(chosen, filters or None).items():
                    affected.add(outcome, clientids)
                self.log.info("Of %d clients: %s", len(chosen), affected.words())
        return {
            **affected.result(),
            "selected": len(chosen),
            "excluded": len(ids) - len(chosen),
            "dry_run": dry_run,
        }

    def _filters(self) -> dict[str, Any]:
        given = {
            **(self.filters or {}),
            "like_clientid": self.clientid_like or None,
            "like_username": self.username_like or None,
        }
        filters = {name: value for name, value in given.items() if value is not None}
        away = seconds("disconnected_for", self.disconnected_for)
        if away is not None:
            filters["conn_state"] = "disconnected"
            filters["lte_disconnected_at"] = datetime.now(UTC) - timedelta(seconds=away)
        return filters

    @staticmethod
    def _select(hook: EmqxHook, named: list[str] | None, filters: dict[str, Any]) -> list[str]:
        from airflow_provider_emqx.api.clientids import client_ids

        if named is not None:
            return client_ids(named)
        return [row["clientid"] for row in hook.list_clients(fields=["clientid"], **filters)]


def _clients(hook: EmqxHook) -> int:
    """Count the broker's clients, kept sessions included."""
    return int(hook.get_stats().get("connections.count", 0))

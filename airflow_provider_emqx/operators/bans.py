"""Operators for bans; import them from ``airflow_provider_emqx.operators.auth``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.affected import Affected, BaseSelectingOperator, check_limit
from airflow_provider_emqx.operators.base import BaseEmqxOperator, boolean, is_dry_run, named, seconds, texts

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_emqx.api.base import Row
    from airflow_provider_emqx.hooks.emqx import EmqxHook


class EmqxBanOperator(BaseEmqxOperator):
    """
    Keep clients out, or change the bans that there are: v4 and v5 ``POST /banned``.

    :param kind: ``clientid``, ``username``, ``peerhost``; since EMQX 5.6 also ``clientid_re``, ``username_re``,
        ``peerhost_net`` (templated).
    :param who: one id, name, IP address, regular expression or network, or several (templated).
    :param until: when the ban ends: RFC 3339 text in the future, or ``"infinity"`` (templated).
    :param duration: in place of ``until``, seconds from now, or a ``timedelta`` (templated).
    :param reason: shown in the broker's listing (templated).
    :param by: shown in the broker's listing (templated).
    :param kick: also end the sessions of those banned by username, and tell whose sessions ended (templated). A ban of
        a client id ends its session by itself; one of any other kind leaves them open. Goes with ``clientid`` and
        ``username``.
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: ``{"banned": [{"as", "who", "until"}, …], "kicked": [client id, …]}``, of each list 1,000 at most.
    :raises EmqxConfigError: for what cannot be right; nobody is banned.
    """

    template_fields: Sequence[str] = (
        "kind",
        "who",
        "until",
        "duration",
        "reason",
        "by",
        "kick",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        kind: str = "clientid",
        who: str | Sequence[str],
        until: str | datetime | None = None,
        duration: float | str | timedelta | None = None,
        reason: str = "",
        by: str = "airflow",
        kick: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.who = who
        self.until = until
        self.duration = duration
        self.reason = reason
        self.by = by
        self.kick = kick
        self.check_literals()

    def check(self) -> None:
        """Refuse a kind that no ban has, and a ban without an end or with two."""
        from airflow_provider_emqx.api.bans import check_kind

        check_kind(self.kind)
        if (seconds("duration", self.duration) is None) == (not self.until):
            raise EmqxConfigError("give either until or duration, to say how long the ban lasts")
        if boolean("kick", self.kick) and self.kind not in ("clientid", "username"):
            raise EmqxConfigError(f"kick goes with the kinds clientid and username, not with {self.kind!r}")

    def execute(self, context: Context) -> dict[str, Any]:
        """Ban, then kick."""
        from airflow_provider_emqx.api.bans import read_kind, read_until

        self.check()
        now = datetime.now(UTC)
        lasting = seconds("duration", self.duration)
        until = read_until(self.until, now) if lasting is None else now + timedelta(seconds=lasting)
        names = [read_kind(self.kind, who)[1] for who in named("who", self.who)]
        kick = boolean("kick", self.kick)
        with self.hook() as hook:
            there = self._there(hook, names) if kick else []
            bans = hook.run_all(
                hook.api.bans.create(self.kind, who, until, self.reason, self.by) for who in names
            )
            self.log.info("Banned %d by %s", len(bans), self.kind)
            kicked = self._kick(hook, names, there) if kick else []
            if kick:
                self.log.info("Kicked %d clients", len(kicked))
        banned = [{name: row[name] for name in ("as", "who", "until")} for row in bans[:1_000]]
        return {"banned": banned, "kicked": kicked[:1_000]}

    def _there(self, hook: EmqxHook, names: list[str]) -> list[str]:
        """Return whose sessions a ban of client ids ends by itself: afterwards nobody can tell."""
        from airflow_provider_emqx.api.clientids import client_ids

        if self.kind != "clientid":
            return []
        ids = client_ids(names)
        found = hook.run_all(hook.api.clients.get(clientid) for clientid in ids)
        return [clientid for clientid, row in zip(ids, found, strict=True) if row is not None]

    def _kick(self, hook: EmqxHook, names: list[str], there: list[str]) -> list[str]:
        if self.kind == "clientid":
            done = hook.kick_clients(names)
            absent = set(done["absent"])
            return [*done["kicked"], *(clientid for clientid in there if clientid in absent)]
        listing = partial(hook.api.clients.list, fields=["clientid"])
        rows = (
            row for name in names for row in hook.settled_rows(partial(listing, filters={"username": name}))
        )
        return hook.kick_clients([row["clientid"] for row in rows])["kicked"]


class EmqxUnbanOperator(BaseSelectingOperator):
    """
    End bans: those named, or those that a filter selects: v4 and v5 ``GET /banned``, ``DELETE /banned/{kind}/{who}``.

    :param kind: of the bans meant (templated); ``None`` for all kinds.
    :param who: those banned, one or several (templated); needs ``kind``.
    :param reason: filter: exactly this reason (templated).
    :param by: filter: banned by exactly this author (templated).
    :param older_than: filter: in force for at least so many seconds, or a ``timedelta`` (templated).
    :param exclude: whose bans never end; ``*`` stands for any text (templated).
    :param max_affected: how many bans may end: a count, or a share of all bans such as ``"5%"`` (templated). If more
        are selected, the task fails and no ban ends.
    :param dry_run: select and report only (templated).
    :param report: path or URL of a JSON Lines file for what became of each ban (templated): the result lists 1,000.
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: ``{"unbanned": [{"as", "who"}, …], "still_banned": […], "counts": {…}, "selected", "excluded",
        "listing_moved", "dry_run", "report"}``; with ``dry_run`` ``unbanned`` are those that would be.
    :raises EmqxConfigError: for arguments that cannot be right, and for more bans than ``max_affected``; none ends.
    """

    template_fields: Sequence[str] = (
        "kind",
        "who",
        "reason",
        "by",
        "older_than",
        *BaseSelectingOperator.template_fields,
    )

    def __init__(
        self,
        *,
        kind: str | None = None,
        who: str | Sequence[str] | None = None,
        reason: str | None = None,
        by: str | None = None,
        older_than: float | str | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.who = who
        self.reason = reason
        self.by = by
        self.older_than = older_than
        self.check_literals()

    def check(self) -> None:
        """Refuse a selection that says nothing, or too much."""
        from airflow_provider_emqx.api.bans import check_kind

        empty = [name for name in ("kind", "who", "reason", "by") if getattr(self, name) == ""]
        if empty:
            raise EmqxConfigError(
                f"{empty[0]} has no value: more bans would end than are meant. None has ended"
            )
        if self.kind is not None:
            check_kind(self.kind)
        names = texts("who", self.who)
        if names and not self.kind:
            raise EmqxConfigError("who needs kind: one name may be banned as client id and as username")
        if not names and not any((self.kind, self.reason, self.by, seconds("older_than", self.older_than))):
            raise EmqxConfigError(
                "give who, or a filter (kind, reason, by, older_than), to say which bans end"
            )

    def execute(self, context: Context) -> dict[str, Any]:
        """Select, check, unban, look again."""
        from airflow_provider_emqx.api.bans import read_kind

        self.check()
        names = texts("who", self.who)
        age = seconds("older_than", self.older_than)
        # an empty list, as from another task, names nobody; it is not a filter that is missing
        wanted = None if self.who is None else {read_kind(self.kind, name) for name in names}
        dry_run = is_dry_run(self.plan_only)
        with self.hook() as hook, Affected("ban", ("unbanned", "still_banned"), self.report) as affected:
            bans = list(hook.settled_rows(hook.api.bans.list))
            affected.listing_moved = hook.listing_moved
            found = [ban for ban in bans if self._is_meant(ban, wanted, age)]
            chosen = self.without_excluded(found, lambda ban: ban["who"])
            check_limit(self.max_affected, len(chosen), "bans", lambda: len(bans))
            if dry_run:
                affected.add("unbanned", map(_name, chosen))
            else:
                hook.run_all(hook.api.bans.delete(ban["as"], ban["who"]) for ban in chosen)
                # one that somebody set anew in the meantime is in force
                now = hook.settled_rows(hook.api.bans.list) if chosen else ()
                left = [_name(ban) for ban in now]
                affected.add("unbanned", [_name(ban) for ban in chosen if _name(ban) not in left])
                affected.add("still_banned", [_name(ban) for ban in chosen if _name(ban) in left])
            self.log.info("%sOf %d bans: %s", "Dry run. " if dry_run else "", len(bans), affected.words())
        return affected.result(len(found), len(chosen), dry_run)

    def _is_meant(self, ban: Row, wanted: set[tuple[str, str]] | None, age: float | None) -> bool:
        from airflow_provider_emqx.api.filters import read_time

        if wanted is not None and (ban["as"], ban["who"]) not in wanted:
            return False
        if self.kind and ban["as"] != self.kind:
            return False
        if (self.reason and ban.get("reason") != self.reason) or (self.by and ban.get("by") != self.by):
            return False
        return age is None or (datetime.now(UTC) - read_time(ban.get("at"))).total_seconds() >= age


def _name(ban: Row) -> dict[str, str]:
    return {"as": ban["as"], "who": ban["who"]}

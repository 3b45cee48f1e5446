"""Operators for bans; import them from ``airflow_provider_emqx.operators.auth``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Unpack, cast

from airflow_provider_emqx.arguments import boolean, seconds, texts
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.operators.affected import (
    Affected,
    BaseSelectingOperator,
)
from airflow_provider_emqx.operators.sourced import BaseSourceOperator
from airflow_provider_emqx.outcomes import (
    ABSENT,
    BANNED,
    CHANGED,
    KICKED,
    REJECTED,
    STILL_BANNED,
    STILL_CONNECTED,
    UNADDRESSABLE,
    UNBANNED,
)
from airflow_provider_emqx.plans.file import BAN, CHANGE_BAN, KICK, UNBAN, state_of
from airflow_provider_emqx.plans.job import Job

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.api.rows import BanRow
    from airflow_provider_emqx.choices import BanKind, Rendered
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.keywords import SelectingKeywords, SourceKeywords
    from airflow_provider_emqx.provisioning.bans import Ban
    from airflow_provider_emqx.provisioning.blocks import Bad, Format
    from airflow_provider_emqx.provisioning.same import SameRows
    from airflow_provider_emqx.provisioning.target import Target
    from airflow_provider_emqx.results import BanResult, UnbanResult

#: bans that are ended before verifying that they are
_PART = 1_000


class EmqxBanOperator(BaseSourceOperator):
    """
    Ban clients, or change existing bans: v4 and v5 ``POST /banned``.

    :param kind: ``clientid``, ``username``, ``peerhost``; since EMQX 5.6 also ``clientid_re``, ``username_re``,
        ``peerhost_net``.
    :param who: one id, name, IP address, regular expression or network, or several.
    :param source: in place of ``who``: path or URL of a file, of a directory, or with shell patterns in it, or a list
        of dicts. Columns: ``who``, and optionally ``kind``, ``until``, ``reason``, ``by``, for which the
        arguments hold where a row has none. An export of EMQX 4 and an archive of EMQX 5 and 6 are sources too. All
        rows are read before anybody is banned; rows that cannot be bans are ``rejected``, and bans that are over are
        left out.
    :param until: when the ban ends: RFC 3339 text in the future, or ``"infinity"``.
    :param duration: in place of ``until``, seconds from now, or a ``timedelta``.
    :param reason: shown in the broker's listing.
    :param by: shown in the broker's listing.
    :param kick: also end the sessions of those banned by username, and tell whose sessions ended. A ban of
        a client id ends its session by itself; one of any other kind leaves them open. Goes with ``clientid`` and
        ``username``, and not with ``source``.
    :return: ``{"banned": [{"as", "who", "until"}, …], "kicked": [client id, …], "still_connected": […],
        "unaddressable": […], "rejected": [{"line", "who", "reason"}, …], "failed": […], "unknown": […], "counts":
        {…}, "selected", "over", "dry_run", "reasons": […], "guards": […], "report_path"}``, of each list 1,000 at
        most; ``over`` counts bans that are over. With ``dry_run`` ``banned`` are those that would be. With ``kick``,
        ``still_connected`` are clients that are connected all the same, and ``unaddressable`` those of a username
        that the broker cannot be asked to kick. It is stored also when the task fails.
    :raises EmqxConfigError: for invalid arguments; nobody is banned.
    :raises EmqxError: if a ban was not made, after all others are done and their clients are kicked.
    """

    template_fields: Sequence[str] = (
        "kind",
        "who",
        "until",
        "duration",
        "reason",
        "by",
        "kick",
        *BaseSourceOperator.template_fields,
    )

    def __init__(
        self,
        *,
        kind: BanKind | Rendered = "clientid",
        who: str | Sequence[str] | XComArg | None = None,
        source: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | XComArg | None = None,
        until: str | datetime | XComArg | None = None,
        duration: float | str | timedelta | XComArg | None = None,
        reason: str | XComArg = "",
        by: str | XComArg = "airflow",
        kick: bool | str | XComArg = False,
        **kwargs: Unpack[SourceKeywords],
    ) -> None:
        super().__init__(source=source, **kwargs)
        self.kind: Any = kind
        self.who = who
        self.until = until
        self.duration = duration
        self.reason: Any = reason
        self.by: Any = by
        self.kick = kick
        self.check_literals()

    def check(self) -> None:
        """Refuse a kind that no ban has, and a ban without an end or with two."""
        from airflow_provider_emqx.api.bans import check_kind

        check_kind(self.kind)
        boolean("dry_run", self.plan_only)
        self._format()
        if (self.who is None) == (self.source is None):
            raise EmqxConfigError("give either who or source, to say who is banned")
        ends = (seconds("duration", self.duration) is not None) + bool(self.until)
        if ends > 1 or (self.source is None and not ends):
            raise EmqxConfigError("give either until or duration, to say how long the ban lasts")
        if boolean("kick", self.kick) and self.source is not None:
            raise EmqxConfigError("kick goes with who, not with source")
        if boolean("kick", self.kick) and self.kind not in ("clientid", "username"):
            raise EmqxConfigError(f"kick goes with the kinds clientid and username, not with {self.kind!r}")

    def dashboard_page(self) -> str:
        """Return the page of the bans."""
        return "banned-clients"

    def execute(self, context: Context) -> BanResult:
        """Ban, then kick."""
        from airflow_provider_emqx.provisioning.outcomes import shown
        from airflow_provider_emqx.provisioning.same import SameRows

        self.check()
        kick, dry_run = boolean("kick", self.kick), boolean("dry_run", self.plan_only)
        outcomes = (BANNED, KICKED, STILL_CONNECTED, UNADDRESSABLE, REJECTED)
        rows = SameRows()
        with (
            self.hook() as hook,
            self.job(hook, BAN) as job,
            Affected(context, "clientid", outcomes, self.report_path, job, _line) as affected,
        ):
            bans, rejected, over = ([], [], 0) if job.is_finished else self._bans(hook, job.now, rows)
            affected.select(len(bans) + len(rejected), over=over, dry_run=dry_run)
            affected.add(
                REJECTED,
                [{"line": bad.line, "who": shown(bad.user_id), "reason": bad.reason} for bad in rejected],
            )
            if rejected and not bans:
                raise EmqxConfigError(
                    f"none of {len(rejected):,} rows is a ban, the first: {rejected[0].reason}"
                )
            if job.has_plan and not job.is_finished:
                job.add(self._changes(hook, bans, kick))
            affected.settle(None if self.source is None else rows.told)
            if dry_run:
                affected.add(BANNED, map(self._told, bans))
            else:
                there = self._there(hook, [ban.who for ban in bans]) if kick else set()
                banned = self._ban(hook, job, bans, affected)
                if kick:
                    self._kick(hook, job, banned, there, affected)
                affected.raise_failure()
                job.finish()
            affected.tell("bans")
        return cast("BanResult", affected.result())

    def _changes(self, hook: EmqxHook, bans: list[Ban], kick: bool) -> Iterator[tuple[str, str, str]]:
        """Yield what would be done: each ban, and whose sessions it does not end by itself."""
        now = {_id(ban): ban for ban in hook.settled_rows(hook.api.bans.list)}
        for ban in bans:
            name = f"{ban.kind}:{ban.who}"
            yield (CHANGE_BAN, name, state_of(now[name])) if name in now else (BAN, name, "")
        if kick and self.kind == "username":
            yield from ((KICK, clientid, "") for clientid in self._clients(hook, [ban.who for ban in bans]))

    @staticmethod
    def _ban(hook: EmqxHook, job: Job, bans: list[Ban], affected: Affected) -> list[str]:
        """Make the bans; return who is banned."""
        banned = []
        by_id = {f"{ban.kind}:{ban.who}": ban for ban in bans}
        create = hook.api.bans.create
        for part in job.parts((BAN, CHANGE_BAN), list(by_id), _PART):
            made = ((by_id[name], create(*by_id[name])) for name in part)
            for ban, answer in hook.run_each(made):
                if isinstance(answer, EmqxError):
                    affected.add(answer, [{"as": ban.kind, "who": ban.who}])
                else:
                    banned.append(ban.who)
                    affected.add(BANNED, [_listed(answer)])
        return banned

    @staticmethod
    def _clients(hook: EmqxHook, usernames: list[str]) -> list[str]:
        listing = partial(hook.api.clients.list, filters={"username": usernames}, fields=["clientid"])
        return [row["clientid"] for row in hook.settled_rows(listing)]

    def _bans(self, hook: EmqxHook, now: datetime, rows: SameRows) -> tuple[list[Ban], list[Bad], int]:
        """Read who is to be banned."""
        from airflow_provider_emqx.api.bans import read_kind, read_until
        from airflow_provider_emqx.provisioning.bans import Ban, Defaults, read
        from airflow_provider_emqx.provisioning.target import Target

        lasting = seconds("duration", self.duration)
        until = None if lasting is None else now + timedelta(seconds=lasting)
        if self.until:
            until = read_until(self.until, now)
        if self.source is None:
            names = [read_kind(self.kind, who)[1] for who in texts("who", self.who)]
            return [Ban(self.kind, name, until, self.reason, self.by) for name in names], [], 0
        defaults = Defaults(
            self.kind, until if self.until or lasting is not None else "", self.reason, self.by
        )
        source = self._read(self._format(Target(hook)))
        return read(source._replace(blocks=rows.noted(source.blocks)), defaults, now)

    def _format(self, target: Target | None = None) -> Format:
        from airflow_provider_emqx.provisioning.bans import BansFormat

        return BansFormat.of(self.format, self.columns, self.source_options, target=target)

    @staticmethod
    def _told(ban: Ban) -> dict[str, str]:
        from airflow_provider_emqx.api.filters import rfc3339

        return {"as": ban.kind, "who": ban.who, "until": rfc3339(ban.until) if ban.until else "infinity"}

    def _there(self, hook: EmqxHook, names: list[str]) -> set[str]:
        """Return whose sessions a ban of client ids ends by itself: afterwards nobody can tell."""
        from airflow_provider_emqx.api.clientids import client_ids

        if self.kind != "clientid":
            return set()
        ids = client_ids(names)
        found = hook.run_all(hook.api.clients.get(clientid) for clientid in ids)
        return {clientid for clientid, row in zip(ids, found, strict=True) if row is not None}

    def _kick(self, hook: EmqxHook, job: Job, banned: list[str], there: set[str], affected: Affected) -> None:
        if self.kind == "clientid":
            # their bans have ended their sessions
            parts = hook.kick_in_parts(banned)
        elif banned:
            clients = [] if job.has_plan else self._clients(hook, banned)
            parts = chain.from_iterable(
                hook.kick_in_parts(part, {"username": banned}) for part in job.parts(KICK, clients, _PART)
            )
        else:
            return
        for part in parts:
            for outcome, clientids in part.items():
                if outcome == ABSENT:
                    affected.add(KICKED, [clientid for clientid in clientids if clientid in there])
                    job.check_off(KICK, clientids, ABSENT)
                elif outcome != CHANGED:
                    affected.add(outcome, clientids)
                else:
                    job.check_off(KICK, clientids, outcome)


class EmqxUnbanOperator(BaseSelectingOperator):
    """
    End bans by name or by a filter: v4 and v5 ``GET /banned``, ``DELETE /banned/{kind}/{who}``.

    :param kind: of the bans meant; ``None`` for all kinds.
    :param who: those banned, one or several; needs ``kind``.
    :param reason: filter: exactly this reason.
    :param by: filter: banned by exactly this author.
    :param older_than: filter: in force for at least so many seconds, or a ``timedelta``.
    :return: ``{"unbanned": [{"as", "who"}, …], "still_banned": […], "unaddressable": […], "failed": […], "unknown":
        […], "counts": {…}, "selected", "excluded", "listing_moved", "dry_run", "reasons": […], "guards": […],
        "report_path"}``; ``unaddressable`` are those that filters select and no request can name (``.``, ``..``),
        with ``dry_run`` ``unbanned`` are those that would be. It is stored also when the task fails or is stopped.
    :raises EmqxConfigError: for invalid arguments, and for more bans than ``max_affected``; none ends.
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
        kind: BanKind | Rendered | None = None,
        who: str | Sequence[str] | XComArg | None = None,
        reason: str | XComArg | None = None,
        by: str | XComArg | None = None,
        older_than: float | str | timedelta | XComArg | None = None,
        **kwargs: Unpack[SelectingKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.kind: Any = kind
        self.who = who
        self.reason: Any = reason
        self.by: Any = by
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

    def dashboard_page(self) -> str:
        """Return the page of the bans."""
        return "banned-clients"

    def execute(self, context: Context) -> UnbanResult:
        """Select, check, unban, verify."""
        from airflow_provider_emqx.api.bans import read_kind
        from airflow_provider_emqx.api.base import fits_path

        self.check()
        names = texts("who", self.who)
        age = seconds("older_than", self.older_than)
        # an empty list, as from another task, names nobody; it is not a filter that is missing
        wanted = None if self.who is None else {read_kind(self.kind, name) for name in names}
        dry_run = boolean("dry_run", self.plan_only)
        outcomes = (UNBANNED, STILL_BANNED, UNADDRESSABLE)
        with (
            self.hook() as hook,
            self.job(hook, UNBAN) as job,
            Affected(
                context, "ban", outcomes, self.report_path, job, lambda ban: (UNBAN, _id(ban))
            ) as affected,
        ):
            bans = [] if job.is_finished else list(hook.settled_rows(hook.api.bans.list))
            latest = None if age is None else job.now - timedelta(seconds=age)
            found = [ban for ban in bans if self._is_meant(ban, wanted, latest)]
            selected = self.without_excluded(found, lambda ban: ban["who"])
            chosen = [ban for ban in selected if fits_path(ban["who"])]
            affected.select(
                len(selected),
                excluded=len(found) - len(selected),
                listing_moved=hook.listing_moved,
                dry_run=dry_run,
            )
            affected.hold(self.max_affected, len(chosen), "bans", lambda: len(bans))
            affected.add(UNADDRESSABLE, [_name(ban) for ban in selected if not fits_path(ban["who"])])
            by_id = {_id(ban): ban for ban in chosen}
            job.add((UNBAN, name, state_of(ban)) for name, ban in by_id.items())
            affected.settle()
            if dry_run:
                affected.add(UNBANNED, map(_name, chosen))
            else:
                for part in job.parts(UNBAN, list(by_id), _PART):
                    self._end(hook, [by_id[name] for name in part], affected)
                affected.raise_failure()
                job.finish()
            affected.tell("bans")
        return cast("UnbanResult", affected.result())

    @staticmethod
    def _end(hook: EmqxHook, bans: list[BanRow], affected: Affected) -> None:
        """End some bans, and return those that are in force again because another program set them."""
        delete = hook.api.bans.delete
        ended: list[dict[str, str]] = []
        left: list[dict[str, str]] = []
        try:
            for ban, result in hook.run_each((ban, delete(ban["as"], ban["who"])) for ban in bans):
                if isinstance(result, EmqxError):
                    affected.add(result, [_name(ban)])
                else:
                    ended.append(_name(ban))
            left = [_name(ban) for ban in hook.settled_rows(hook.api.bans.list)]
        finally:
            # also where the broker failed meanwhile
            affected.add(UNBANNED, [ban for ban in ended if ban not in left])
            affected.add(STILL_BANNED, [ban for ban in ended if ban in left])

    def _is_meant(self, ban: BanRow, wanted: set[tuple[str, str]] | None, latest: datetime | None) -> bool:
        from airflow_provider_emqx.api.filters import read_time

        if wanted is not None and (ban["as"], ban["who"]) not in wanted:
            return False
        if self.kind and ban["as"] != self.kind:
            return False
        if (self.reason and ban.get("reason") != self.reason) or (self.by and ban.get("by") != self.by):
            return False
        return latest is None or read_time(ban.get("at")) <= latest


def _listed(row: BanRow) -> dict[str, str]:
    return {"as": row["as"], "who": row["who"], "until": row["until"] or "infinity"}


def _line(name: Any) -> tuple[str, str]:
    """Return which change of a plan a name stands for: that of a ban, or of a client that is kicked."""
    return (KICK, name) if isinstance(name, str) else (BAN, _id(name) if "as" in name else "")


def _id(ban: Mapping[str, Any]) -> str:
    """Return what a plan calls a ban."""
    return f"{ban['as']}:{ban['who']}"


def _name(ban: BanRow) -> dict[str, str]:
    return {"as": ban["as"], "who": ban["who"]}

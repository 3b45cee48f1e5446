"""Bans, EMQX 5 and 6."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import cast

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.bans import FOREVER, NEWER_KINDS, read_kind, remarks, until_text
from airflow_provider_emqx.api.base import Operation, Page, Request, Row, all_rows, path
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import BanRow
from airflow_provider_emqx.exceptions import EmqxAlreadyExistsError, EmqxNotFoundError


class Bans(Area):
    """Bans."""

    def list(self, page: int = 1, limit: int | None = None) -> Operation[Page[BanRow]]:
        """
        List bans: ``GET /banned``.

        :return: rows of ``as``, ``who``, ``by``, ``reason``, ``at``, ``until`` (``"infinity"`` or RFC 3339).
        """
        limit = limit or self.page_limit
        reply = yield Request("GET", "/banned", self.query(page, limit))
        more = partial(self.list, page + 1, limit) if has_next(reply, page, limit) else None
        return Page(cast("list[BanRow]", [self._row(row) for row in reply.rows]), more, ("as", "who"))

    def create(
        self, kind: str, who: str, until: datetime | None, reason: str = "", by: str = "airflow"
    ) -> Operation[BanRow]:
        """
        Ban, or change the ban that there is: ``POST /banned``. Live connections stay; kick them to end them.

        :param kind: see :func:`~airflow_provider_emqx.api.bans.read_kind`.
        :param until: see :func:`~airflow_provider_emqx.api.bans.read_until`; ``None`` for no end.
        :return: as of :meth:`list`.
        """
        kind, who = self._read(kind, who)
        body = {"as": kind, "who": who, **remarks(reason, by), "until": self._until(until)}
        request = Request("POST", "/banned", json=body, repeatable=True)
        try:
            reply = yield request
        except EmqxAlreadyExistsError:
            # EMQX changes no ban: the old one has to go first
            yield from self.delete(kind, who)
            reply = yield request
        return cast("BanRow", self._row(reply.row))

    def delete(self, kind: str, who: str) -> Operation[bool | None]:
        """
        End a ban: ``DELETE /banned/{kind}/{who}``.

        :return: whether there was one.
        """
        kind, who = self._read(kind, who)
        try:
            yield Request("DELETE", path("banned", kind, who))
        except EmqxNotFoundError as error:
            return error.maybe_applied
        return True

    def clear(self) -> Operation[None]:
        """End all bans: ``DELETE /banned`` since EMQX 5.2, one by one before."""
        if self.broker.at_least(5, 2):
            yield Request("DELETE", "/banned")
            return
        for row in (yield from all_rows(self.list())):
            yield from self.delete(row["as"], row["who"])

    def _read(self, kind: str, who: str) -> tuple[str, str]:
        kind, who = read_kind(kind, who)
        if kind in NEWER_KINDS:
            self.broker.require(f"a ban by {kind}", 5, 6)
        return kind, who

    def _row(self, row: Row) -> Row:
        return {**row, "until": until_text(row.get("until"))}

    def _until(self, until: datetime | None) -> str:
        if until is not None:
            return until.astimezone(UTC).isoformat(timespec="seconds")
        if self.broker.at_least(5, 8):
            return "infinity"
        return datetime.fromtimestamp(FOREVER, UTC).isoformat()

"""Bans, EMQX 4."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from airflow_provider_emqx.api.bans import FOREVER, remarks, until_text
from airflow_provider_emqx.api.base import Operation, Request, Row, path
from airflow_provider_emqx.api.rows import BanRow
from airflow_provider_emqx.api.v5 import bans as v5


class Bans(v5.Bans):
    """Bans."""

    def create(
        self, kind: str, who: str, until: datetime | None, reason: str = "", by: str = "airflow"
    ) -> Operation[BanRow]:
        """
        Ban, or change the ban that there is: ``POST /banned``. Live connections stay; kick them to end them.

        :return: as of :func:`list_bans`.
        """
        kind, who = self._read(kind, who)
        seconds = FOREVER if until is None else int(until.timestamp())
        # without a reason the broker's handler crashes
        body = {"as": kind, "who": who, **remarks(reason, by), "until": seconds}
        yield Request("POST", "/banned", json=body, repeatable=True)
        return cast("BanRow", self._row({"at": None, **body}))

    def delete(self, kind: str, who: str) -> Operation[bool | None]:
        """
        End a ban: ``DELETE /banned/{kind}/{who}``.

        :return: ``None``: EMQX 4 does not tell whether there was one.
        """
        kind, who = self._read(kind, who)
        yield Request("DELETE", path("banned", kind, who))
        return None

    def _row(self, row: Row) -> Row:
        at = row.get("at")
        return super()._row({**row, "at": until_text(at) if isinstance(at, int) else at})

"""Alarms, EMQX 4."""

from __future__ import annotations

from typing import Any, cast

from airflow_provider_emqx.api.base import Operation, Page, Request, Row
from airflow_provider_emqx.api.rows import AlarmRow
from airflow_provider_emqx.api.v4.times import from_milliseconds
from airflow_provider_emqx.api.v5 import alarms as v5
from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.exceptions import EmqxNotFoundError


class Alarms(v5.Alarms):
    """Alarms, under the names of EMQX 5."""

    def list(
        self, page: int = 1, limit: int | None = None, activated: bool = True
    ) -> Operation[Page[AlarmRow]]:
        """List alarms: ``GET /alarms/activated``, or ``GET /alarms/deactivated``. EMQX 4 sends them all at once."""
        activated = boolean("activated", activated)
        reply = yield Request("GET", "/alarms/activated" if activated else "/alarms/deactivated")
        rows = [
            _alarm(node["node"], alarm)
            for node in reply.data
            for alarm in node.get("alarms", ())
            if alarm.get("activated", activated) is activated
        ]
        return Page(cast("list[AlarmRow]", rows), None, ("node", "name", "activate_at"))

    def deactivate(self, name: str, node: str | None = None) -> Operation[bool]:
        """
        End an active alarm by hand: ``POST /alarms/deactivated``.

        :param node: on this node; ``None`` for every node that has it.
        """
        page = yield from self.list()
        ended = False
        for where in [
            row["node"] for row in page.rows if row["name"] == name and node in (None, row["node"])
        ]:
            body = {"node": where, "name": name}
            try:
                yield Request("POST", "/alarms/deactivated", json=body, repeatable=True)
            except EmqxNotFoundError as error:
                # over by itself since the listing
                ended = ended or error.maybe_applied
            else:
                ended = True
        return ended

    def clear(self) -> Operation[None]:
        """Delete the history of alarms that are over: ``DELETE /alarms/deactivated``."""
        yield Request("DELETE", "/alarms/deactivated")


def _alarm(node: str, alarm: Row) -> Row:
    duration = alarm.get("duration")
    return {
        "node": node,
        "name": alarm.get("name"),
        "message": alarm.get("message"),
        "details": alarm.get("details"),
        "duration": duration // 1_000 if isinstance(duration, int) else None,
        "activate_at": _from_microseconds(alarm.get("activate_at")),
        "deactivate_at": _from_microseconds(alarm.get("deactivate_at")),
    }


def _from_microseconds(value: Any) -> str | None:
    return from_milliseconds(value // 1_000) if isinstance(value, int) else None

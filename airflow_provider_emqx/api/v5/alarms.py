"""Alarms, EMQX 5 and 6."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Operation, Page, Request
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import AlarmRow
from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.exceptions import EmqxNotFoundError, EmqxUnsupportedError


class Alarms(Area):
    """Alarms."""

    def list(
        self, page: int = 1, limit: int | None = None, activated: bool = True
    ) -> Operation[Page[AlarmRow]]:
        """
        List alarms: ``GET /alarms``.

        :return: rows of ``node``, ``name``, ``message``, ``details``, ``duration`` (ms), ``activate_at``,
            ``deactivate_at``.
        """
        limit = limit or self.page_limit
        params = {**self.query(page, limit), "activated": boolean("activated", activated)}
        reply = yield Request("GET", "/alarms", params)
        rows = [{**row, "deactivate_at": _unless_infinity(row.get("deactivate_at"))} for row in reply.rows]
        more = partial(self.list, page + 1, limit, activated) if has_next(reply, page, limit) else None
        return Page(cast("list[AlarmRow]", rows), more, ("node", "name", "activate_at"))

    def deactivate(self, name: str, node: str | None = None) -> Operation[bool]:
        """
        End an active alarm by hand: ``POST /alarms/force_deactivate``, EMQX 5.8.8 and newer.

        Before EMQX 6.1 it ends on the node that answers only.

        :param node: not for EMQX 5 and newer, which cannot choose the node.
        """
        self.broker.require("ending an alarm by hand", 5, 8, 8)
        if node is not None:
            raise EmqxUnsupportedError("EMQX 5 and newer cannot end an alarm on one chosen node")
        try:
            yield Request("POST", "/alarms/force_deactivate", json={"name": name}, repeatable=True)
        except EmqxNotFoundError as error:
            return error.maybe_applied
        return True

    def clear(self) -> Operation[None]:
        """Delete the history of alarms that are over: ``DELETE /alarms``."""
        yield Request("DELETE", "/alarms")


def _unless_infinity(value: Any) -> Any:
    return None if value == "infinity" else value

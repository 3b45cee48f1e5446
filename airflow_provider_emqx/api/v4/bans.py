"""Bans, EMQX 4."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from airflow_provider_emqx.api.bans import FOREVER, NEWER_KINDS, read_kind, remarks, until_text
from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, all_rows, path
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.exceptions import EmqxUnsupportedError


def list_bans(broker: Broker, page: int = 1, limit: int | None = None) -> Operation[Page[Row]]:
    """
    List bans: ``GET /banned``.

    :return: rows of ``as``, ``who``, ``by``, ``reason``, ``at``, ``until`` (``"infinity"`` or RFC 3339).
    """
    limit = limit or page_limit(broker)
    reply = yield Request("GET", "/banned", {"_page": page, "_limit": limit})
    more = partial(list_bans, broker, page + 1, limit) if has_next(reply, page, limit) else None
    return Page([_row(row) for row in reply.rows], more, ("as", "who"))


def ban(
    broker: Broker, kind: str, who: str, until: datetime | None, reason: str = "", by: str = "airflow"
) -> Operation[Row]:
    """
    Ban, or change the ban that there is: ``POST /banned``. Live connections stay; kick them to end them.

    :param kind: see :func:`~airflow_provider_emqx.api.bans.read_kind`.
    :param until: see :func:`~airflow_provider_emqx.api.bans.read_until`; ``None`` for ever.
    :return: as of :func:`list_bans`.
    """
    kind, who = read_kind(kind, who)
    if kind in NEWER_KINDS:
        raise EmqxUnsupportedError(f"a ban by {kind} needs EMQX 5.6 or newer; this is {broker}")
    seconds = FOREVER if until is None else int(until.timestamp())
    # without a reason the broker's handler crashes
    body = {"as": kind, "who": who, **remarks(reason, by), "until": seconds}
    yield Request("POST", "/banned", json=body, repeatable=True)
    return _row({"at": None, **body})


def unban(broker: Broker, kind: str, who: str) -> Operation[bool | None]:
    """
    End a ban: ``DELETE /banned/{kind}/{who}``.

    :return: ``None``: EMQX 4 does not tell whether there was one.
    """
    kind, who = read_kind(kind, who)
    if kind in NEWER_KINDS:
        raise EmqxUnsupportedError(f"a ban by {kind} needs EMQX 5.6 or newer; this is {broker}")
    yield Request("DELETE", path("banned", kind, who))
    return None


def clear_bans(broker: Broker) -> Operation[None]:
    """End all bans, by one ``DELETE /banned/{kind}/{who}`` each: EMQX 4 has nothing shorter."""
    for row in (yield from all_rows(list_bans(broker))):
        yield from unban(broker, row["as"], row["who"])


def _row(row: Row) -> Row:
    at = row.get("at")
    return {**row, "at": until_text(at) if isinstance(at, int) else at, "until": until_text(row.get("until"))}

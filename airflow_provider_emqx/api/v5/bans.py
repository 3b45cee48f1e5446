"""Bans, EMQX 5 and 6."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from airflow_provider_emqx.api.bans import FOREVER, NEWER_KINDS, read_kind, remarks, until_text
from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, all_rows, path
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.exceptions import EmqxAlreadyExistsError, EmqxNotFoundError


def list_bans(broker: Broker, page: int = 1, limit: int | None = None) -> Operation[Page[Row]]:
    """
    List bans: ``GET /banned``.

    :return: rows of ``as``, ``who``, ``by``, ``reason``, ``at``, ``until`` (``"infinity"`` or RFC 3339).
    """
    limit = limit or page_limit(broker)
    reply = yield Request("GET", "/banned", {"page": page, "limit": limit})
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
        broker.require(f"a ban by {kind}", 5, 6)
    body = {"as": kind, "who": who, **remarks(reason, by), "until": _until(broker, until)}
    request = Request("POST", "/banned", json=body, repeatable=True)
    try:
        reply = yield request
    except EmqxAlreadyExistsError:
        # EMQX changes no ban: the old one has to go first
        yield from unban(broker, kind, who)
        reply = yield request
    return _row(reply.data)


def unban(broker: Broker, kind: str, who: str) -> Operation[bool | None]:
    """
    End a ban: ``DELETE /banned/{kind}/{who}``.

    :return: whether there was one.
    """
    kind, who = read_kind(kind, who)
    try:
        yield Request("DELETE", path("banned", kind, who))
    except EmqxNotFoundError as error:
        return error.maybe_applied
    return True


def clear_bans(broker: Broker) -> Operation[None]:
    """End all bans: ``DELETE /banned`` since EMQX 5.2, one by one before."""
    if broker.at_least(5, 2):
        yield Request("DELETE", "/banned")
        return
    for row in (yield from all_rows(list_bans(broker))):
        yield from unban(broker, row["as"], row["who"])


def _until(broker: Broker, until: datetime | None) -> str:
    if until is not None:
        return until.astimezone(UTC).isoformat(timespec="seconds")
    if broker.at_least(5, 8):
        return "infinity"
    return datetime.fromtimestamp(FOREVER, UTC).isoformat()


def _row(row: Row) -> Row:
    return {**row, "until": until_text(row.get("until"))}

"""
Changes since the last check, from which events are made.

Each kind of event is one operation. It takes the memory (plain JSON; ``None`` in the very first check, which
only records the state) and returns a function that compares, called in a thread because there may be many clients.
That function returns the events and the new memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.rows import ClientRow
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.conditions.base import Condition, page_of_clients
from airflow_provider_emqx.conditions.clients import is_online
from airflow_provider_emqx.conditions.cluster import active_alarms
from airflow_provider_emqx.conditions.ids import finish
from airflow_provider_emqx.outcomes import MOST_LISTED
from airflow_provider_emqx.transport.listing import Listing

Memory = dict[str, Any]
Filters = Mapping[str, Any]

#: how much older than the newest one a new connection may be: the clocks of a cluster's nodes differ, and a client is
#: listed a moment after it has connected
OVERLAP = timedelta(seconds=60)
#: up to so many vanished clients are asked for one by one, more by a second listing
_FEW = 100


class Found(NamedTuple):
    """
    The result of one check.

    :param events: payloads, each small.
    :param memory: for the next check.
    """

    events: list[Memory]
    memory: Memory


Compare = Callable[[], Found]
Look = Callable[[Api, Memory | None, float], Operation[Compare]]


def online(clients: Filters) -> Look:
    """
    Find clients that have connected since the last check: ``GET /clients`` by ``gte_connected_at``.

    :param clients: filters for those that are meant.
    """

    def look(api: Api, memory: Memory | None, now: float) -> Operation[Compare]:
        filters = {**clients}
        if newest := (memory or {}).get("newest"):
            filters["gte_connected_at"] = (_time(newest) - OVERLAP).isoformat()
        rows: list[ClientRow] = []
        pages = yield from _connected(api, filters, ("connected_at",), rows.append)
        if pages > 1 and memory is not None:
            # clients that come and go shift the pages, and the next check goes on from the newest of this one
            yield from _connected(api, filters, ("connected_at",), rows.append)
        return partial(_came, rows, memory, now)

    return look


def _came(rows: Iterable[ClientRow], memory: Memory | None, now: float) -> Found:
    seen: dict[str, str] = (memory or {}).get("seen") or {}
    connected = {row["clientid"]: _utc(row["connected_at"]) for row in rows if row.get("connected_at")}
    fresh = [name for name, at in connected.items() if seen.get(name) != at]
    newest = max(
        [*connected.values(), *filter(None, [(memory or {}).get("newest")])], key=_time, default=None
    )
    if newest is not None:
        # a node with a fast clock must not make later checks miss connections to the others
        newest = min(newest, datetime.fromtimestamp(now, UTC).isoformat(), key=_time)
        since = _time(newest) - OVERLAP
        seen = {name: at for name, at in {**seen, **connected}.items() if _time(at) >= since}
    events = [] if memory is None else _batches("client_online", fresh)
    return Found(events, {"newest": newest, "seen": seen})


def offline(clients: Filters) -> Look:
    """
    Find clients that were online in the last check and are not now: ``GET /clients``.

    :param clients: filters for those that are meant.
    """

    def look(api: Api, memory: Memory | None, now: float) -> Operation[Compare]:
        current, pages = yield from _online_now(api, clients)
        gone = set((memory or {}).get("ids") or ()) - current
        if gone and pages > 1:
            # clients that come and go shift the pages: what was on none of them may be online all the same
            back = yield from _still_there(api, clients, gone)
            current |= back
            gone -= back
        return lambda: Found(_batches("client_offline", gone), {"ids": sorted(current)})

    return look


def _still_there(api: Api, clients: Filters, gone: set[str]) -> Operation[set[str]]:
    if len(gone) > _FEW:
        return gone & (yield from _online_now(api, clients))[0]
    back = set()
    for name in gone:
        if is_online((yield from api.clients.get(name))):
            back.add(name)
    return back


def _online_now(api: Api, clients: Filters) -> Operation[tuple[set[str], int]]:
    current: set[str] = set()
    pages = yield from _connected(api, clients, (), lambda row: current.add(row["clientid"]))
    return current, pages


def _connected(
    api: Api,
    filters: Filters,
    more: Sequence[str],
    keep: Callable[[ClientRow], None],
) -> Operation[int]:
    """List those who are online, and return the number of pages."""
    filters = {**filters, "conn_state": "connected"}
    listing = Listing(
        api.clients.list(1, page_of_clients(api, matched=True), filters, ("clientid", "connected", *more))
    )
    pages = 0
    while listing.next is not None:
        for row in (yield from listing.page()):
            keep(row)
        pages += 1
    return pages


def alarm(names: Sequence[str] | None) -> Look:
    """
    Find alarms that have become active since the last check: v5 ``GET /alarms``, v4 ``GET /alarms/activated``.

    :param names: of the alarms; ``None`` for any.
    """

    def look(api: Api, memory: Memory | None, now: float) -> Operation[Compare]:
        rows = yield from active_alarms(api)
        active = {
            (str(row["node"]), str(row["name"]), _utc(row["activate_at"])): row
            for row in rows
            if names is None or row["name"] in names
        }
        before = {tuple(key) for key in (memory or {}).get("active", ())}
        fresh = [
            {name: row.get(name) for name in ("node", "name", "message", "activate_at")}
            for key, row in active.items()
            if key not in before
        ]
        events = [{"event": "alarm_activated", "count": len(part), "alarms": part} for part in _parts(fresh)]
        found = Found([] if memory is None else events, {"active": sorted(map(list, active))})
        return lambda: found

    return look


def met(condition: Condition) -> Look:
    """
    Find that a condition has become true: it was not in the last check, and is now.

    :param condition: with its ids loaded.
    """

    def look(api: Api, memory: Memory | None, now: float) -> Operation[Compare]:
        outcome = yield from condition.ask(api, now)
        event = {
            "event": "condition_met",
            "kind": condition.kind,
            "text": outcome.text,
            "details": finish(outcome, None),
        }
        became = outcome.met and memory is not None and memory.get("met") is False
        found = Found([event] if became else [], {"met": outcome.met})
        return lambda: found

    return look


def _batches(event: str, clientids: Iterable[str]) -> list[Memory]:
    return [{"event": event, "count": len(part), "clientids": part} for part in _parts(sorted(clientids))]


def _parts(things: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(things), MOST_LISTED):
        yield list(things[start : start + MOST_LISTED])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _utc(text: str | None) -> str:
    """Write a time in one way: each node of a cluster uses its own time zone, and any of them may answer."""
    return _time(text).astimezone(UTC).isoformat() if text else ""

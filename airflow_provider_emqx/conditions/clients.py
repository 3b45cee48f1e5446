"""Clients are online, or offline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from airflow_provider_emqx.api.base import Operation, Row
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.client.listing import Listing
from airflow_provider_emqx.conditions import ids as client_ids
from airflow_provider_emqx.conditions.base import MAX_LISTED, Condition, Outcome, first_of, number, whole
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)

ONLINE = "clients_online"
OFFLINE = "clients_offline"

#: What is known of clients: ``None`` is known to be absent; an id without an entry is in doubt after a sweep.
States = dict[str, Row | None]

#: up to so many ids, asking for the number of clients would cost more than it can save
_FEW = 32
#: from so many ids on all clients are listed where their number cannot be known
_MANY = 1_000
#: rows of a page of a sweep, of the fields asked for or whole ones: an event loop may be held for 10 ms to read them
_LEAN_PAGE, _WHOLE_PAGE = 5_000, 2_000


# ------------------------------------------------------------------ the conditions


def online(clientids: Any = None, path: Any = None, quorum: Any = "all", stable_for: Any = None) -> Condition:
    """
    Make the condition that clients are online: known to the broker **and** connected.

    :param clientids: one id, several, or an ``ObjectStoragePath`` to a file.
    :param path: file with one id per line.
    :param quorum: how many of them: ``"all"``, ``"any"``, a count, or a share as ``"95%"``.
    :param stable_for: seconds (or a ``timedelta``) that each must have been connected without a break.
    :raises EmqxConfigError: for what cannot be right.
    """
    parameters = {**client_ids.given(clientids, path), "quorum": _quorum(quorum)}
    if stable_for is not None:
        seconds = stable_for.total_seconds() if isinstance(stable_for, timedelta) else stable_for
        parameters["stable_for"] = number("stable_for", seconds)
    _check_reachable(parameters)
    return Condition(ONLINE, parameters)


def offline(clientids: Any = None, path: Any = None, quorum: Any = "all") -> Condition:
    """
    Make the condition that clients are offline: unknown to the broker, or a session kept without a connection.

    :param clientids: one id, several, or an ``ObjectStoragePath`` to a file.
    :param path: file with one id per line.
    :param quorum: how many of them: ``"all"``, ``"any"``, a count, or a share as ``"95%"``.
    :raises EmqxConfigError: for what cannot be right.
    """
    parameters = {**client_ids.given(clientids, path), "quorum": _quorum(quorum)}
    _check_reachable(parameters)
    return Condition(OFFLINE, parameters)


def loaded(condition: Condition) -> Condition:
    """
    Read the ids of a condition that names them by file. Blocks.

    :param condition: of any kind; others are given back as they are.
    """
    if "path" not in condition.parameters:
        return condition
    parameters = {name: value for name, value in condition.parameters.items() if name != "path"}
    parameters["clientids"] = client_ids.read_file(condition.parameters["path"])
    _check_reachable(parameters)
    return Condition(condition.kind, parameters)


def _quorum(quorum: Any) -> str | int:
    if isinstance(quorum, str):
        written = quorum.strip().lower()
        if written in ("all", "any"):
            return written
        if written.endswith("%"):
            if not 0 < number("quorum", written[:-1]) <= 100:
                raise EmqxConfigError(f"quorum must be a share above 0% and up to 100%, not {quorum!r}")
            return written
    if isinstance(quorum, float) and 0 < quorum < 1:
        raise EmqxConfigError(f'quorum: write a share as "{quorum * 100:g}%"')
    try:
        return whole("quorum", quorum)
    except EmqxConfigError:
        raise EmqxConfigError(
            f'quorum must be "all", "any", a count from 1 on, or a share as "95%", not {quorum!r}'
        ) from None


def needed(quorum: str | int, among: int) -> int:
    """
    Give the number of clients that a quorum asks for.

    :param quorum: as checked by the conditions.
    :param among: number of awaited clients.
    """
    if isinstance(quorum, int):
        return quorum
    if quorum in ("all", "any"):
        return among if quorum == "all" else 1
    # as a fraction: 0.07 * 100 is a little more than 7
    return math.ceil(Fraction(quorum[:-1]) * among / 100)


def _check_reachable(parameters: Mapping[str, Any]) -> None:
    quorum, ids = parameters["quorum"], parameters.get("clientids")
    if ids is not None and isinstance(quorum, int) and quorum > len(ids):
        raise EmqxConfigError(f"quorum {quorum} can never be met by {len(ids)} client ids")


# ------------------------------------------------------------------ what "met" means


def judge(condition: Condition, states: States, now: float) -> Outcome:
    """
    Say whether a condition on clients holds, given what is known of them. The one place that does.

    :param condition: with its ids loaded.
    :param states: what the broker said.
    :param now: seconds since 1970.
    """
    parameters = condition.parameters
    awaited = parameters["clientids"]
    if condition.kind == ONLINE:
        since = now - parameters["stable_for"] if "stable_for" in parameters else None
        missing = [clientid for clientid in awaited if not is_online(states.get(clientid), since)]
        state = "online"
    else:
        missing = [clientid for clientid in awaited if is_online(states.get(clientid))]
        state = "offline"
    reached, goal = len(awaited) - len(missing), needed(parameters["quorum"], len(awaited))
    details = {
        "awaited": len(awaited),
        "needed": goal,
        state: reached,
        "missing_count": len(missing),
        "missing": missing,
    }
    what = state
    if "stable_for" in parameters:
        what = f"online for {parameters['stable_for']:g} s"
    line = f"{reached:,} of {len(awaited):,} clients {what}, {goal:,} needed"
    if missing:
        line += f"; not {state}: {first_of(missing)}"
    return Outcome(reached >= goal, details, line)


def glance(condition: Condition, states: States) -> tuple[bool, ...] | None:
    """
    Give all that the outcome depends on, in short: the same again means the same outcome.

    :param condition: with its ids loaded.
    :param states: what the broker said.
    :return: for each id whether it is online; ``None`` where the outcome depends on the time as well.
    """
    if is_timed(condition):
        return None
    return tuple([is_online(states.get(clientid)) for clientid in condition.parameters["clientids"]])


def is_online(row: Row | None, since: float | None = None) -> bool:
    """
    Tell whether a client is online: known **and** connected, since a kept session is known as well.

    :param row: the client, ``None`` where there is none.
    :param since: seconds since 1970 from which on it must have been connected.
    """
    if row is None or row.get("connected") is not True:
        return False
    if since is None:
        return True
    try:
        return datetime.fromisoformat(row.get("connected_at") or "").timestamp() <= since
    except ValueError:
        return False


# ------------------------------------------------------------------ asking


def ask(condition: Condition, api: Api, now: float) -> Operation[Outcome]:
    """
    Ask the broker whether a condition on clients holds.

    :param condition: with its ids loaded.
    :param api: the broker's operations.
    :param now: seconds since 1970.
    """
    awaited = condition.parameters["clientids"]
    size = (yield from count_clients(api)) if len(awaited) > _FEW else None
    states: States = {}
    if sweep_is_cheaper(api, len(awaited), size):
        states, _ = yield from sweep(api, awaited, fields(is_timed(condition)))
    else:
        yield from _ask_each(api, awaited, states)
    outcome = judge(condition, states, now)
    if doubtful := in_doubt(condition, outcome, states):
        yield from _ask_each(api, doubtful, states)
        outcome = judge(condition, states, now)
    return outcome


def _ask_each(api: Api, clientids: Iterable[str], states: States) -> Operation[None]:
    for clientid in clientids:
        states[clientid] = yield from api.clients.get(clientid)


def is_timed(condition: Condition) -> bool:
    """
    Tell whether a condition looks at how long clients have been connected.

    :param condition: on clients.
    """
    return "stable_for" in condition.parameters


def fields(timed: bool) -> tuple[str, ...]:
    """
    Name the fields of a client that conditions look at.

    :param timed: whether one of them :func:`is_timed`.
    """
    return ("clientid", "connected", "connected_at") if timed else ("clientid", "connected")


def worth_counting(awaited: int) -> bool:
    """Tell whether the number of connected clients can matter to how so many are asked for."""
    return awaited > _FEW


def sweep_is_cheaper(api: Api, awaited: int, size: int | None) -> bool:
    """
    Tell whether listing all clients costs the broker less than asking for each awaited one.

    Measured on brokers: a GET by id costs as much as 7 rows of a lean listing on EMQX 5.6 and later, two thirds of a
    row before (whole rows), 11 rows on EMQX 4.

    :param api: the broker's operations.
    :param awaited: how many clients are asked for.
    :param size: how many clients the broker knows, ``None`` where it does not tell.
    """
    if not worth_counting(awaited):
        return False
    if size is None:
        return awaited > _MANY
    lean = 7.0 if _sends_fields(api) else 0.67
    return awaited * (11.0 if api.broker.is_v4 else lean) > size


def count_clients(api: Api) -> Operation[int | None]:
    """Ask how many clients (connected ones and kept sessions) a listing would have; ``None`` where it is not told."""
    try:
        stats = yield from api.nodes.get_stats()
    except (EmqxForbiddenError, EmqxNotFoundError, EmqxUnsupportedError):
        # Serverless has no statistics, a restricted key may not read them
        return None
    size = stats.get("connections.count")
    return size if isinstance(size, int) else None


def sweep(api: Api, awaited: Iterable[str], names: tuple[str, ...]) -> Operation[tuple[States, int]]:
    """
    List all clients and keep the awaited ones.

    :param api: the broker's operations.
    :param awaited: the ids.
    :param names: fields to ask for.
    :return: their states, and how many clients there are. Clients that come and go shift the pages: what was not seen
        connected on any of several pages is in doubt and has no entry.
    """
    wanted = frozenset(awaited)
    states: States = {}
    limit = min(_LEAN_PAGE if _sends_fields(api) else _WHOLE_PAGE, api.clients.page_limit)
    listing = Listing(api.clients.list(limit=limit, fields=names))
    pages = size = 0
    while listing.next is not None:
        rows = yield from listing.page()
        pages, size = pages + 1, size + len(rows)
        for row in rows:
            if row["clientid"] in wanted:
                states[row["clientid"]] = row
    if pages > 1:
        return {clientid: row for clientid, row in states.items() if is_online(row)}, size
    return {**dict.fromkeys(wanted), **states}, size


def _sends_fields(api: Api) -> bool:
    return api.broker.at_least(5, 6)


def in_doubt(condition: Condition, outcome: Outcome, states: States) -> list[str]:
    """
    List the ids to ask for one by one before the outcome of a sweep is final.

    :param condition: with its ids loaded.
    :param outcome: what the sweep's states came to.
    :param states: of the sweep.
    """
    if not outcome.met:
        return []
    doubtful = [clientid for clientid in condition.parameters["clientids"] if clientid not in states]
    # asking again cannot undo "enough are online"; it only makes a short list of the missing right
    return [] if condition.kind == ONLINE and len(doubtful) > MAX_LISTED else doubtful

"""Clients are online, or offline."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any, ClassVar, Self

from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.rows import ClientRow
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.arguments import number, seconds, whole
from airflow_provider_emqx.conditions import ids as client_ids
from airflow_provider_emqx.conditions.base import Condition, Outcome, first_of, page_of_clients
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.outcomes import MOST_LISTED
from airflow_provider_emqx.transport.listing import Listing

#: What is known of clients: ``None`` is known to be absent; an id without an entry is in doubt after a sweep.
States = dict[str, ClientRow | None]

#: up to so many ids, asking for the number of clients would cost more than it can save
_FEW = 32
#: from so many ids on all clients are listed where their number cannot be known, and those in doubt are not asked for
_MANY = 1_000
#: seconds for which the number of clients is taken as known
_COUNT_LASTS = 60.0


class ClientsCondition(Condition):
    """
    Base of the conditions on clients.

    :param clientids: one id, several, or an ``ObjectStoragePath`` to a file.
    :param path: file with one id per line, in place of ``clientids``.
    :param quorum: how many of them: ``"all"``, ``"any"``, a count, or a share as ``"95%"``.
    """

    #: what the clients are to be
    state: ClassVar[str]
    #: seconds for which they must have been so; only connections have a time
    stable_for: float | None = None
    question = "clients"

    def __init__(self, clientids: Any = None, path: Any = None, quorum: Any = "all") -> None:
        self.clientids, self.path = client_ids.given(clientids, path)
        self.quorum = read_quorum(quorum)
        self._check_reachable()

    def parameters(self) -> dict[str, Any]:
        ids: dict[str, Any] = {"path": self.path} if self.path else {"clientids": self.clientids}
        stable_for = {} if self.stable_for is None else {"stable_for": self.stable_for}
        return {**ids, "quorum": self.quorum, **stable_for}

    def for_trigger(self) -> dict[str, Any]:
        """Return the parameters; more than 1,000 ids are refused."""
        if len(self.clientids) > MOST_LISTED:
            raise EmqxConfigError(
                f"{len(self.clientids):,} client ids are too many to hand to the triggerer, which takes up to "
                f"{MOST_LISTED:,}: write them to a file, one per line, on storage that workers and triggerer reach, "
                "and give its path as clientids_path (for an event trigger, the parameter path)"
            )
        return self.parameters()

    def loaded(self) -> Self:
        """Return the condition with its ids, read from their file if they are in one. Blocks."""
        if not self.path:
            return self
        return type(self)(**{**self.parameters(), "path": None, "clientids": client_ids.read_file(self.path)})

    @property
    def goal(self) -> int:
        """The number of clients that the quorum requires."""
        return needed(self.quorum, len(self.clientids))

    @property
    def is_timed(self) -> bool:
        """Whether the outcome depends on how long clients have been connected."""
        return self.stable_for is not None

    @abstractmethod
    def holds_for(self, row: ClientRow | None, now: float) -> bool:
        """
        Return whether a client meets the condition.

        :param row: the client, ``None`` for one that the broker does not know.
        :param now: seconds since 1970.
        """

    def judge(self, states: States, now: float) -> Outcome:
        """
        Decide whether the condition is met, from the states of the clients.

        :param states: what the broker said.
        :param now: seconds since 1970.
        """
        missing = [name for name in self.clientids if not self.holds_for(states.get(name), now)]
        reached, goal = len(self.clientids) - len(missing), self.goal
        details = {
            "awaited": len(self.clientids),
            "needed": goal,
            self.state: reached,
            "missing_count": len(missing),
            "missing": missing,
        }
        what = self.state if self.stable_for is None else f"{self.state} for {self.stable_for:g} s"
        line = f"{reached:,} of {len(self.clientids):,} clients {what}, {goal:,} needed"
        if missing:
            line += f"; not {self.state}: {first_of(missing)}"
        return Outcome(reached >= goal, details, line)

    def glance(self, states: States) -> tuple[bool, ...] | None:
        """
        Return all that the outcome depends on, in short: the same again means the same outcome.

        :param states: what the broker said.
        :return: for each id whether it is online; ``None`` if the outcome depends on the time as well.
        """
        return None if self.is_timed else tuple([is_online(states.get(name)) for name in self.clientids])

    def in_doubt(self, outcome: Outcome, states: States) -> list[str]:
        """
        List the ids to ask for one by one before the outcome of a sweep is final.

        :param outcome: what the sweep's states came to.
        :param states: of the sweep.
        """
        return [name for name in self.clientids if name not in states] if outcome.met else []

    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """List all clients, or ask for each awaited one, whichever costs the broker less."""
        found = yield from Census().take(api, self.clientids, self.is_timed, now)
        states, asked = found or {}, self.clientids
        if found is not None:
            outcome = self.judge(states, now)
            asked = self.in_doubt(outcome, states)
            if not asked:
                return outcome
        for clientid in asked:
            states[clientid] = yield from api.clients.get(clientid)
        return self.judge(states, now)

    def _check_reachable(self) -> None:
        if self.clientids and isinstance(self.quorum, int) and self.quorum > len(self.clientids):
            raise EmqxConfigError(
                f"quorum {self.quorum} can never be met by {len(self.clientids)} client ids"
            )


class ClientsOnline(ClientsCondition):
    """
    Clients are online: known to the broker **and** connected.

    :param clientids: as of :class:`ClientsCondition`.
    :param path: as of :class:`ClientsCondition`.
    :param quorum: as of :class:`ClientsCondition`.
    :param stable_for: seconds (or a ``timedelta``) that each must have been connected without a break.
    """

    kind = "clients_online"
    state = "online"

    def __init__(
        self, clientids: Any = None, path: Any = None, quorum: Any = "all", stable_for: Any = None
    ) -> None:
        super().__init__(clientids, path, quorum)
        self.stable_for = seconds("stable_for", stable_for)

    def holds_for(self, row: ClientRow | None, now: float) -> bool:
        """Return whether a client is online, and has been for long enough."""
        return is_online(row, None if self.stable_for is None else now - self.stable_for)

    def in_doubt(self, outcome: Outcome, states: States) -> list[str]:
        """List the ids to ask for one by one, unless they are many."""
        doubtful = super().in_doubt(outcome, states)
        # asking again cannot undo "enough are online"; it only makes a short list of the missing right
        return [] if len(doubtful) > _MANY else doubtful


class ClientsOffline(ClientsCondition):
    """
    Clients are offline: unknown to the broker, or a session kept without a connection.

    :param clientids: as of :class:`ClientsCondition`.
    :param path: as of :class:`ClientsCondition`.
    :param quorum: as of :class:`ClientsCondition`.
    """

    kind = "clients_offline"
    state = "offline"

    def holds_for(self, row: ClientRow | None, now: float) -> bool:
        """Return whether a client is offline."""
        return not is_online(row)


def read_quorum(quorum: Any) -> str | int:
    """
    Check a quorum.

    :param quorum: ``"all"``, ``"any"``, a count, or a share as ``"95%"``.
    :raises EmqxConfigError: for anything else.
    """
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
    Return the number of clients that a quorum asks for.

    :param quorum: as checked by the conditions.
    :param among: number of awaited clients.
    """
    if isinstance(quorum, int):
        return quorum
    if quorum in ("all", "any"):
        return among if quorum == "all" else 1
    # as a fraction: 0.07 * 100 is a little more than 7
    return math.ceil(Fraction(quorum[:-1]) * among / 100)


def is_online(row: ClientRow | None, since: float | None = None) -> bool:
    """
    Return whether a client is online: known **and** connected, since a kept session is known as well.

    :param row: the client, ``None`` for one that the broker does not know.
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


def fields(timed: bool) -> tuple[str, ...]:
    """
    Return the fields of a client that conditions need.

    :param timed: whether one of them :attr:`~ClientsCondition.is_timed`.
    """
    return ("clientid", "connected", "connected_at") if timed else ("clientid", "connected")


class Census:
    """Lists all clients where that costs the broker less than asking for each; remembers how many there were."""

    def __init__(self) -> None:
        self._size: int | None = None
        self._counted = -math.inf

    def take(self, api: Api, awaited: Sequence[str], timed: bool, clock: float) -> Operation[States | None]:
        """
        List all clients, or leave it to the caller to ask for each awaited one.

        :param awaited: the ids.
        :param timed: whether it matters how long they have been connected.
        :return: as of :func:`sweep`; ``None`` if asking for each costs less.
        """
        if len(awaited) > _FEW and clock - self._counted > _COUNT_LASTS:
            self._size, self._counted = (yield from count_clients(api)), clock
        if not sweep_is_cheaper(api, len(awaited), self._size):
            return None
        states, self._size = yield from sweep(api, awaited, fields(timed))
        self._counted = clock
        return states


def sweep_is_cheaper(api: Api, awaited: int, size: int | None) -> bool:
    """
    Return whether listing all clients costs the broker less than asking for each awaited one.

    :param awaited: how many clients are asked for.
    :param size: how many clients the broker knows, ``None`` where it does not tell.
    """
    if awaited <= _FEW:
        return False
    if size is None:
        return awaited > _MANY
    return awaited * api.clients.rows_per_get > size


def count_clients(api: Api) -> Operation[int | None]:
    """Count the clients (connected ones and kept sessions) of a listing; ``None`` if the broker does not tell."""
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

    :param awaited: the ids.
    :param names: fields to ask for.
    :return: their states, and how many clients there are. Clients that come and go shift the pages: what was not seen
        connected on any of several pages is in doubt and has no entry.
    """
    wanted = frozenset(awaited)
    states: States = {}
    listing = Listing(api.clients.list(limit=page_of_clients(api), fields=names))
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

"""Walks the pages of a listing, the same for both drivers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic

from airflow_provider_emqx.api.base import Operation, Page, R, Reply, Request
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.transport.idset import IdSet
from airflow_provider_emqx.transport.pulse import Pulse

log = logging.getLogger(__name__)

#: pages in a row that may bring nothing new before the listing is given up
_PAGES_WITHOUT_PROGRESS = 3
#: maximum number of passes over a listing that keeps changing
PASSES = 5


class Listing(Generic[R]):
    """
    The state between two pages.

    :param operation: reads the first page.
    """

    def __init__(self, operation: Operation[Page[R]]) -> None:
        self.next: Operation[Page[R]] | None = operation
        # a listing may have a million rows
        self._seen = IdSet()
        self._stuck = 0
        self._repeated = False
        #: as of the last page
        self.key: str | tuple[str, ...] | None = None
        # how many rows there were when each page was read, by path
        self._counts: dict[str, list[int | None]] = {}
        #: of the rows so far: how many, and what only these add up to
        self.digest = (0, 0)

    @property
    def is_one_page(self) -> bool:
        """Whether all rows came with one answer, so that none can have moved."""
        return all(len(counts) == 1 for counts in self._counts.values())

    @property
    def moved(self) -> bool | None:
        """
        Whether rows came or went between two pages, so that others may be on none of them. ``None`` where that cannot
        be known, since the broker counts no filtered rows.
        """
        if self.is_one_page:
            return False
        known = all(None not in counts for counts in self._counts.values())
        if not known:
            return True if self._repeated else None
        return any(len(set(counts)) > 1 for counts in self._counts.values())

    def page(self) -> Operation[list[R]]:
        """
        Read the next page and return its rows that no earlier page had: in a live table rows move between pages.

        :raises EmqxError: if page after page repeats known rows, so that the listing would never end.
        """
        if self.next is None:
            return []
        page = yield from self._watched(self.next)
        self.next = page.next() if page.next else None
        self.key = page.key
        if page.key is None:
            return page.rows
        names = names_of(page.rows, page.key)
        rows = page.rows
        again = set(self._seen.add_all(names))
        if again:
            rows = [row for index, row in enumerate(rows) if index not in again]
            names = [name for index, name in enumerate(names) if index not in again]
            self._repeated = True
        count, total = self.digest
        self.digest = count + len(rows), total + sum(map(hash, names))
        self._stuck = self._stuck + 1 if page.rows and not rows else 0
        if self._stuck >= _PAGES_WITHOUT_PROGRESS and self.next is not None:
            raise EmqxError(
                "the listing does not advance: the broker (or something before it) answers page after page with the "
                "same rows, as if it ignored the page number"
            )
        return rows

    def _watched(self, operation: Operation[Page[R]]) -> Operation[Page[R]]:
        """Run an operation, and keep what the answers say of the number of rows."""
        try:
            request = next(operation)
            while True:
                try:
                    reply = yield request
                except EmqxError as error:
                    request = operation.throw(error)
                else:
                    self._count(request, reply)
                    request = operation.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            operation.close()

    def _count(self, request: Request, reply: Reply) -> None:
        count = reply.meta.get("count")
        # EMQX 4 says -1 where there is a filter
        known = isinstance(count, int) and count >= 0
        self._counts.setdefault(request.path, []).append(count if known else None)


class Walk(Generic[R]):
    """
    The way through a listing, once, or again and again until it is the same twice.

    :param make: makes the operation that reads the first page.
    :param passes: how often it is read at most. What decides by a listing whom to delete, kick or leave out reads it
        until two passes agree: while others delete, rows move to pages that were read already, and are on none.
    """

    def __init__(self, make: Callable[[], Operation[Page[R]]], passes: int = PASSES) -> None:
        self._make = make
        self._passes = passes
        self._met = IdSet()
        #: whether rows came or went while it was read, so that some may be missing; ``None`` if that is not known
        self.moved: bool | None = None
        #: whether what was not met was absent for certain: all came on one page, or two passes agreed
        self.is_settled = False

    def pages(self) -> Iterator[Operation[list[R]]]:
        """Return operations that read the rows not met before, each to be run before the next is asked for."""
        pulse, read, before = Pulse(), 0, (-1, 0)
        for number in range(1, self._passes + 1):
            listing = Listing(self._make())
            while listing.next is not None:
                yield self._unmet(listing)
                if pulse.is_due():
                    count = listing.digest[0]
                    again = f", for the {number}. time" if number > 1 else ""
                    log.info(
                        "Listing%s: %s rows so far; %s", again, f"{count:,}", pulse.rate(read + count, "rows")
                    )
            read += listing.digest[0]
            self.is_settled = listing.is_one_page or listing.digest == before
            if self.is_settled:
                break
            before = listing.digest
        self.moved = listing.moved if self._passes == 1 else not self.is_settled

    def tell(self) -> None:
        """Log that rows may be missing, if that is so."""
        if self.moved:
            log.warning(
                "A listing changed while its pages were read%s: rows may be missing from it. Run again when fewer "
                "come and go",
                f", {self._passes} times in a row" if self._passes > 1 else "",
            )

    def _unmet(self, listing: Listing[R]) -> Operation[list[R]]:
        rows = yield from listing.page()
        if self._passes == 1 or listing.key is None:
            return rows
        again = set(self._met.add_all(names_of(rows, listing.key)))
        return [row for index, row in enumerate(rows) if index not in again]


def names_of(rows: Sequence[Mapping[str, Any]], key: str | tuple[str, ...]) -> list[Any]:
    """
    Return what identifies each row.

    :param rows: of a listing.
    :param key: of its pages.
    """
    return [tuple(map(row.get, key)) if isinstance(key, tuple) else row.get(key) for row in rows]


def either(one: bool | None, other: bool | None) -> bool | None:
    """
    Return whether one of two things is so; ``None`` stands for not known.

    :param one: one of them.
    :param other: the other.
    """
    return True if one or other else None if None in (one, other) else False

"""Walks the pages of a listing, the same for both drivers."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.api.base import Operation, Page, Row
from airflow_provider_emqx.client.idset import IdSet
from airflow_provider_emqx.exceptions import EmqxError

#: pages in a row that may bring nothing new before the listing is given up
_PAGES_WITHOUT_PROGRESS = 3


class Listing:
    """
    The state between two pages.

    :param operation: reads the first page.
    """

    def __init__(self, operation: Operation[Page[Row]]) -> None:
        self.next: Operation[Page[Row]] | None = operation
        # a listing may have a million rows
        self._seen = IdSet()
        self._stuck = 0

    def page(self) -> Operation[list[Row]]:
        """
        Read the next page and give its rows that no earlier page had: in a live table rows move between pages.

        :raises EmqxError: if page after page repeats known rows, so that the listing would never end.
        """
        if self.next is None:
            return []
        page = yield from self.next
        self.next = page.next() if page.next else None
        if page.key is None:
            return page.rows
        names: list[Any] = [
            tuple(map(row.get, page.key)) if isinstance(page.key, tuple) else row.get(page.key)
            for row in page.rows
        ]
        rows = page.rows
        again = set(self._seen.add_all(names))
        if again:
            rows = [row for index, row in enumerate(rows) if index not in again]
        self._stuck = self._stuck + 1 if page.rows and not rows else 0
        if self._stuck >= _PAGES_WITHOUT_PROGRESS and self.next is not None:
            raise EmqxError(
                "the listing does not advance: the broker (or something before it) answers page after page with the "
                "same rows, as if it ignored the page number"
            )
        return rows

"""Who was affected by an operator that deletes or kicks: the limit before, and the account after."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

from airflow_provider_emqx.api.base import Row
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.base import MOST_LISTED
from airflow_provider_emqx.provisioning.files import open_to_write
from airflow_provider_emqx.provisioning.plan import limit

log = logging.getLogger(__name__)


def check_limit(most: float | str | None, selected: int, what: str, count: Callable[[], int]) -> None:
    """
    Refuse to touch more than the user has allowed.

    :param most: a count (``5``, ``"5"``), a share (``0.05``, ``"5%"``), or ``None`` for no limit.
    :param selected: how many would be touched.
    :param what: their name in the plural.
    :param count: counts all that there are, if a share is asked for.
    :raises EmqxConfigError: if there are more; nothing has been touched.
    """
    if most == "":
        raise EmqxConfigError("max_affected has no value; give a count or a share, or leave it out")
    text = "" if most is None else str(most).strip()
    share = text and not text.isdecimal()
    total = count() if share else 0
    allowed = limit(most, total, "max_affected")
    if allowed is not None and selected > allowed:
        of = f" of {total:,}" if share else ""
        raise EmqxConfigError(
            f"{selected:,}{of} {what} are selected, more than max_affected={most!r} allows ({allowed:,}): nothing was "
            "touched. Look with dry_run=True, then correct the selection or the limit"
        )


class Affected:
    """
    What became of everything selected: lists of at most 1,000, counts, and a file for all, written when the ``with``
    statement ends, well or not.

    :param name: what identifies one of them, as ``"clientid"``.
    :param outcomes: what may become of one.
    :param report: path or URL of a JSON Lines file; local files are for their owner only.
    """

    def __init__(
        self, name: str, outcomes: Sequence[str], report: str | os.PathLike[str] | None = None
    ) -> None:
        self.name = name
        self.report = str(report) if report else None
        self._found: dict[str, list[Any]] = {outcome: [] for outcome in outcomes}

    def __enter__(self) -> Affected:
        # a place that cannot be written to is found out before anything is touched
        self._write()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._write()

    def add(self, outcome: str, names: Iterable[Any]) -> None:
        """
        Account for some.

        :param outcome: what became of them.
        :param names: who or what they are.
        """
        self._found[outcome] += names

    def words(self) -> str:
        """Say what became of them in a few words."""
        counts = {outcome: len(names) for outcome, names in self._found.items()}
        return ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items() if count) or "none"

    def result(self) -> dict[str, Any]:
        """Give lists, counts and the file's place."""
        return {
            **{outcome: names[:MOST_LISTED] for outcome, names in self._found.items()},
            "counts": {outcome: len(names) for outcome, names in self._found.items()},
            "report": self.report,
        }

    def _write(self) -> None:
        if self.report is None:
            return
        with open_to_write(self.report, "report") as file:
            for outcome, names in self._found.items():
                for name in names:
                    row = {self.name: name, "outcome": outcome}
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def write_rows(rows: Iterable[Row], output_path: str | os.PathLike[str] | None) -> Row:
    """
    Take a listing of any length: the first 1,000 rows for XCom, all of them for a file.

    :param rows: the listing.
    :param output_path: path or URL of a JSON Lines file; ``None`` for no file.
    :return: ``{"count", "rows", "output_path"}``.
    """
    first: list[Row] = []
    count = 0
    with open_to_write(output_path, "output file") if output_path else nullcontext() as file:
        for row in rows:
            count += 1
            if len(first) < MOST_LISTED:
                first.append(row)
            if file is not None:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    if count > len(first) and not output_path:
        log.warning(
            "The result holds the first %d of %d rows; name an output_path for all", len(first), count
        )
    return {"count": count, "rows": first, "output_path": str(output_path) if output_path else None}

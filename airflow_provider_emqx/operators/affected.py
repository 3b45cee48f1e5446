"""What operators share that delete or kick what is selected: the limit before, and the account after."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import open_to_write
from airflow_provider_emqx.operators.base import MOST_LISTED, BaseEmqxOperator, excluded, named
from airflow_provider_emqx.provisioning.plan import limit

T = TypeVar("T")


class BaseSelectingOperator(BaseEmqxOperator):
    """
    Base of the operators that delete or kick what is named, or selected by a filter.

    :param exclude: names that are never touched; ``*`` stands for any text (templated).
    :param max_affected: how many may be touched: a count, or a share of all that there are such as ``"5%"``
        (templated). If more are selected, the task fails and nothing is touched.
    :param dry_run: select and report only (templated).
    :param report: path or URL of a JSON Lines file for what became of each one (templated): the result lists 1,000.
    """

    template_fields: Sequence[str] = (
        "exclude",
        "max_affected",
        "plan_only",
        "report",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        exclude: str | Sequence[str] | None = None,
        max_affected: float | str | None = None,
        dry_run: bool | str = False,
        report: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.exclude = exclude
        self.max_affected = max_affected
        self.plan_only = dry_run
        self.report = report

    def without_excluded(self, found: Sequence[T], name: Callable[[T], str] = str) -> list[T]:
        """
        Leave out what is never touched.

        :param found: all that was selected.
        :param name: tells what ``exclude`` is compared with.
        """
        keep = named("exclude", self.exclude)
        return [one for one in found if not excluded(name(one), keep)]


def check_limit(most: float | str | None, selected: int, what: str, count: Callable[[], int]) -> None:
    """
    Refuse to touch more than the user has allowed.

    :param most: a count (``5``, ``"5"``), a share (``0.05``, ``"5%"``), or ``None`` for no limit.
    :param selected: how many would be touched.
    :param what: their name in the plural.
    :param count: counts all that there are, if a share is asked for.
    :raises EmqxConfigError: if there are more; nothing has been touched.
    """
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
        #: whether the listing that they were selected from never stood still, so that some may be missing
        self.listing_moved: bool | None = False

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
        told = [f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in counts.items() if count]
        return ", ".join(told) or "none"

    def result(self, found: int, chosen: int, dry_run: bool) -> dict[str, Any]:
        """
        Give lists, counts and the file's place.

        :param found: how many were named or selected by the filter.
        :param chosen: how many of them are not excluded.
        :param dry_run: whether nothing was touched.
        """
        return {
            **{outcome: names[:MOST_LISTED] for outcome, names in self._found.items()},
            "counts": {outcome: len(names) for outcome, names in self._found.items()},
            "selected": chosen,
            "excluded": found - chosen,
            "listing_moved": self.listing_moved,
            "dry_run": dry_run,
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

"""Shared by operators that act on many objects: the limit, and the record of outcomes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from airflow_provider_emqx.arguments import limit, texts
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.operators.base import (
    BaseEmqxOperator,
    keep_result,
)
from airflow_provider_emqx.outcomes import FAILED, MOST_LISTED, UNKNOWN, told_as
from airflow_provider_emqx.patterns import one_of
from airflow_provider_emqx.row_files import RowFile, written_at_once

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.keywords import ActingKeywords, EmqxOperatorKeywords

T = TypeVar("T")

log = logging.getLogger(__name__)


class BaseActingOperator(BaseEmqxOperator):
    """
    Base class of the operators that act on many objects.

    :param report_path: path or URL of a JSON Lines file with the outcome of each one: the result lists 1,000.
    """

    template_fields: Sequence[str] = ("report_path", *BaseEmqxOperator.template_fields)

    def __init__(
        self,
        *,
        report_path: str | os.PathLike[str] | XComArg | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.report_path: Any = report_path


class BaseSelectingOperator(BaseActingOperator):
    """
    Base class of the operators that delete or kick objects by name or by a filter.

    :param exclude: names that are never touched; ``*`` stands for any text.
    :param max_affected: the maximum number to act on: a count, or a share of all such as ``"5%"``. If
        more are selected, the task fails and nothing is touched.
    :param dry_run: select and report only.
    :param report_path: path or URL of a JSON Lines file with the outcome of each one: the result lists 1,000.
    """

    template_fields: Sequence[str] = (
        "exclude",
        "max_affected",
        "plan_only",
        *BaseActingOperator.template_fields,
    )

    def __init__(
        self,
        *,
        exclude: str | Sequence[str] | XComArg | None = None,
        max_affected: float | str | XComArg | None = None,
        dry_run: bool | str | XComArg = False,
        **kwargs: Unpack[ActingKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.exclude = exclude
        self.max_affected: Any = max_affected
        self.plan_only = dry_run

    def without_excluded(self, found: Sequence[T], name: Callable[[T], str] = str) -> list[T]:
        """
        Return the objects that are not excluded.

        :param found: the selected objects.
        :param name: returns the name to compare with ``exclude``.
        """
        excluded = one_of(texts("exclude", self.exclude)).fullmatch
        return [one for one in found if not excluded(name(one))]


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
    The outcomes of everything that an operator acts on: lists of at most 1,000, counts, and a file with a line for
    each, written as it happens. If the ``with`` statement ends with an error, they are logged and stored as the task's
    result.

    :param context: of the task.
    :param name: what identifies one of them in the file, as ``"clientid"``; those that are dicts have names of their
        own.
    :param outcomes: what may become of one; ``failed`` and ``unknown`` always may.
    :param report_path: path or URL of a JSON Lines file; local files are for their owner only.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        outcomes: Sequence[str],
        report_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._context = context
        self._name = name
        self._found: dict[str, list[Any]] = {outcome: [] for outcome in (*outcomes, FAILED, UNKNOWN)}
        self._counts = dict.fromkeys(self._found, 0)
        self._report = report_path or None
        self._opened = ExitStack()
        self._file: RowFile | None = None
        #: how many are to be acted on
        self.selected = 0
        #: what else the result tells
        self.about: dict[str, Any] = {}
        #: the first error that was accounted for
        self.failure: EmqxError | None = None

    def __enter__(self) -> Affected:
        # a place that cannot be written to is found out before anything is touched
        if self._report is not None:
            self._file = self._opened.enter_context(written_at_once(self._report))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._opened.close()
        if error is not None and self.total:
            log.error("Ended early: of %s %s", f"{self.selected:,}", self.words())
            keep_result(self._context, self.result())

    @property
    def total(self) -> int:
        """The number of objects with an outcome."""
        return sum(self._counts.values())

    def select(self, chosen: int, **about: Any) -> None:
        """
        Record the selection.

        :param chosen: how many.
        :param about: what else the result is to tell.
        """
        self.selected, self.about = chosen, about

    def add(self, outcome: str | EmqxError, names: Iterable[Any], reason: str = "") -> None:
        """
        Record outcomes.

        :param outcome: what became of them, or the error with which the broker or the connection failed over them.
        :param names: who or what they are.
        :param reason: why, for the file.
        """
        if isinstance(outcome, EmqxError):
            self.failure = self.failure or outcome
            outcome, reason = told_as(outcome), str(outcome)
        told = list(names)
        self._counts[outcome] += len(told)
        listed = self._found[outcome]
        listed += told[: MOST_LISTED - len(listed)]
        if self._file is not None:
            why = {"reason": reason[:300]} if reason else {}
            self._file.write(
                {**(name if isinstance(name, Mapping) else {self._name: name}), "outcome": outcome, **why}
                for name in told
            )

    def raise_failure(self) -> None:
        """
        Raise the first recorded error, after everything else is recorded.

        :raises EmqxError: that error.
        """
        if self.failure is not None:
            raise self.failure

    def words(self) -> str:
        """Return a summary of the outcomes."""
        told = [f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in self._counts.items() if count]
        if self.total < self.selected:
            told.append(f"{self.selected - self.total:,} not begun")
        return ", ".join(told) or "none"

    def result(self) -> dict[str, Any]:
        """Return lists, counts and the file's place."""
        return {
            **self._found,
            "counts": self._counts,
            "selected": self.selected,
            **self.about,
            "report_path": str(self._report) if self._report else None,
        }

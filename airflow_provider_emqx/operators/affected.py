"""Shared by operators that act on many objects: the limit, and the record of outcomes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from airflow_provider_emqx.arguments import limit, texts
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.operators.base import (
    BaseEmqxOperator,
)
from airflow_provider_emqx.operators.planning import BasePlanningOperator
from airflow_provider_emqx.outcomes import (
    BANNED,
    DELETED,
    FAILED,
    KICKED,
    MOST_LISTED,
    REJECTED,
    UNBANNED,
    UNKNOWN,
    told_as,
)
from airflow_provider_emqx.patterns import one_of
from airflow_provider_emqx.plans.job import Job
from airflow_provider_emqx.results import keep_result
from airflow_provider_emqx.row_files import RowFile, written_at_once
from airflow_provider_emqx.run_log import Reasons, guard, table, tell

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.keywords import EmqxOperatorKeywords, PlannedActingKeywords
    from airflow_provider_emqx.results import Guard

T = TypeVar("T")

#: outcomes other than those wanted, whose reasons are counted
_EXPLAINED = (FAILED, UNKNOWN, REJECTED)

#: outcomes of what was done as it was planned
_DONE = (KICKED, BANNED, UNBANNED, DELETED)

log = logging.getLogger(__name__)


class BaseActingOperator(BaseEmqxOperator):
    """
    Base class of the operators that act on many objects.

    :param report_path: path or URL of a JSON Lines file with the outcome of each one: the result lists 1,000 of a kind.
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


class BaseSelectingOperator(BasePlanningOperator, BaseActingOperator):
    """
    Base class of the operators that delete or kick objects by name or by a filter.

    :param exclude: names that are never touched; ``*`` stands for any text.
    :param max_affected: the maximum number to act on: a count, or a share of all that the broker has, such as
        ``"5%"``. If more are selected, the task fails and nothing is touched.
    """

    template_fields: Sequence[str] = (
        "exclude",
        "max_affected",
        "report_path",
        *BasePlanningOperator.template_fields,
    )

    def __init__(
        self,
        *,
        exclude: str | Sequence[str] | XComArg | None = None,
        max_affected: float | str | XComArg | None = None,
        **kwargs: Unpack[PlannedActingKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.exclude = exclude
        self.max_affected: Any = max_affected

    def without_excluded(self, found: Sequence[T], name: Callable[[T], str] = str) -> list[T]:
        """
        Return the objects that are not excluded.

        :param found: the selected objects.
        :param name: returns the name to compare with ``exclude``.
        """
        excluded = one_of(texts("exclude", self.exclude)).fullmatch
        return [one for one in found if not excluded(name(one))]


class Affected:
    """
    The outcomes of everything that an operator acts on: lists of at most 1,000, counts, and a file with a line for
    each, written as it happens. If the ``with`` statement ends with an error, they are logged and stored as the task's
    result.

    :param name: what identifies one of them in the file, as ``"clientid"``; those that are dicts have names of their
        own.
    :param outcomes: what may become of one; ``failed`` and ``unknown`` always may.
    :param report_path: path or URL of a JSON Lines file; local files are for their owner only.
    :param job: whose plan accounts for the outcomes, if it has one.
    :param line: returns the kind and the id of the change in the plan that a name stands for.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        outcomes: Sequence[str],
        report_path: str | os.PathLike[str] | None = None,
        job: Job | None = None,
        line: Callable[[Any], tuple[str, str]] = lambda name: ("", name),
    ) -> None:
        self._job = job
        self._line = line
        self._context = context
        self._name = name
        self._found: dict[str, list[Any]] = {outcome: [] for outcome in (*outcomes, FAILED, UNKNOWN)}
        self._counts = dict.fromkeys(self._found, 0)
        self._reasons = Reasons()
        self._guards: list[Guard] = []
        self._report = report_path or None
        self._opened = ExitStack()
        self._file = RowFile()
        #: how many are to be acted on
        self.selected = 0
        #: what else the result tells
        self.about: dict[str, Any] = {}
        #: the first error that was accounted for
        self.failure: EmqxError | None = None

    def __enter__(self) -> Affected:
        # a place that cannot be written to is found out before anything is touched
        self._file = self._opened.enter_context(written_at_once(self._report))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._opened.close()
        if isinstance(error, EmqxError):
            for outcome in (FAILED, UNKNOWN):
                # the work ended before each of them had an error of its own
                self._reasons.explain(outcome, str(error)[:300])
        if error is not None and self.total:
            tell(log, logging.ERROR, self._lines(f"Ended early: {self.selected:,} selected"))
        if error is not None and (self.total or self._guards):
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

    def hold(self, most: float | str | None, selected: int, what: str, count: Callable[[], int]) -> None:
        """
        Hold the selection to ``max_affected``.

        :param most: a count (``5``, ``"5"``), a share (``0.05``, ``"5%"``), or ``None`` for no limit.
        :param selected: how many would be touched.
        :param what: their name in the plural.
        :param count: counts all that exist, if a share is asked for.
        :raises EmqxConfigError: if there are more; nothing has been touched.
        """
        text = "" if most is None else str(most).strip()
        share = bool(text) and not text.isdecimal()
        total = count() if share else 0
        allowed = limit(most, total, "max_affected")
        if allowed is None:
            return
        self._guards.append(guard("max_affected", selected, allowed, total if share else None))
        if selected > allowed:
            of = f" of {total:,}" if share else ""
            raise EmqxConfigError(
                f"{selected:,}{of} {what} are selected, more than max_affected={most!r} allows ({allowed:,}): nothing "
                "was touched. Look with dry_run=True, then correct the selection or the limit"
            )

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
        for name in told:
            self._count_reason(outcome, name, reason)
            if self._job is not None and not self._job.dry_run:
                kind, line = self._line(name)
                self._job.check_off(kind, [line], "done" if outcome in _DONE else outcome)
        why = {"reason": reason[:300]} if reason else {}
        self._file.write(
            {**(name if isinstance(name, Mapping) else {self._name: name}), "outcome": outcome, **why}
            for name in told
        )

    def settle(self, source: Callable[[str | None], dict[str, str]] | None = None) -> None:
        """
        Finish the plan of a dry run, or compare the one that is carried out, when everything is selected.

        :param source: as of :meth:`~airflow_provider_emqx.plans.job.Job.settle`.
        :raises EmqxConfigError: if the plan does not fit; nothing has been touched.
        """
        if self._job is not None:
            facts = {name: value for name, value in self.about.items() if name != "dry_run"}
            self._job.settle(
                {**facts, "selected": self.selected, "counts": self._counts, "guards": self._guards}, source
            )

    def raise_failure(self) -> None:
        """
        Raise the first recorded error, after everything else is recorded.

        :raises EmqxError: that error.
        """
        if self.failure is not None:
            raise self.failure

    def tell(self, what: str) -> None:
        """
        Log the outcomes.

        :param what: the name of the objects in the plural.
        """
        dry = "DRY RUN, nothing was touched. " if self.about.get("dry_run") else ""
        level = logging.WARNING if self._counts[FAILED] or self._counts[UNKNOWN] else logging.INFO
        tell(log, level, self._lines(f"{dry}{self.selected:,} {what} selected"))

    def _lines(self, title: str) -> Iterator[str]:
        return table(
            title,
            {**self._counts, "not begun": max(0, self.selected - self.total)},
            reasons=self._reasons.most_frequent(),
            guards=self._guards,
            report_path=str(self._report) if self._report else None,
        )

    def _count_reason(self, outcome: str, name: Any, reason: str) -> None:
        if isinstance(name, Mapping):
            reason = reason or str(name.get("reason") or "")
        if outcome in _EXPLAINED:
            self._reasons.add(outcome, reason[:300], _id(name))

    def result(self) -> dict[str, Any]:
        """Return lists, counts, reasons, limits and the file's place."""
        return {
            **self._found,
            "counts": self._counts,
            "selected": self.selected,
            **self.about,
            "reasons": self._reasons.most_frequent(),
            "guards": self._guards,
            **({} if self._job is None else {"plan": self._job.result()}),
            "report_path": str(self._report) if self._report else None,
        }


def _id(name: Any) -> str:
    """Return the name of one object, as a reason shows it."""
    if not isinstance(name, Mapping):
        return str(name)
    return ", ".join(str(name[key]) for key in ("who", "clientid", "topic") if name.get(key))

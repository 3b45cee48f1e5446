"""Adds up outcomes, writes the report of the rows that were not done, and judges whether a run may end well."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.api.salts import NOT_CARRIED
from airflow_provider_emqx.arguments import limit
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.files import Location
from airflow_provider_emqx.outcomes import DELETED, PRUNED, REJECTED, SKIPPED, UNADDRESSABLE, UNREAD, WRITTEN
from airflow_provider_emqx.provisioning.chunks import Chunk
from airflow_provider_emqx.provisioning.outcomes import Outcome
from airflow_provider_emqx.provisioning.phases import Phases
from airflow_provider_emqx.provisioning.progress import Progress
from airflow_provider_emqx.provisioning.terms import Terms
from airflow_provider_emqx.row_files import REPORT, REPORT_OF_FILES, RowFile, form_of, written_at_once
from airflow_provider_emqx.run_log import REASONS, Reasons, guard, table
from airflow_provider_emqx.run_log import tell as log_table
from airflow_provider_emqx.transport.pulse import Pulse

if TYPE_CHECKING:
    from airflow_provider_emqx.results import Guard, RejectedRow, Totals

log = logging.getLogger(__name__)

#: rejected rows that are kept for the result
SHOWN = 100
#: outcomes of rows, and of users that are not in the source
_OF_ROWS = (WRITTEN, DELETED, SKIPPED, REJECTED)
_OF_USERS = (PRUNED, UNADDRESSABLE)


@dataclass
class Tally:
    """Sums of a run's outcomes."""

    #: how many have each outcome
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*_OF_ROWS, *_OF_USERS), 0))
    #: what the broker counted
    broker: BulkResult = field(default_factory=BulkResult)
    #: rejected ones whose salt an import of users cannot carry
    not_carried: int = 0
    rejected_rows: list[Outcome] = field(default_factory=list)
    #: why rows were rejected
    reasons: Reasons = field(default_factory=Reasons)
    #: of the run
    phases: Phases = field(default_factory=Phases)
    #: limits that the run was held to
    guards: list[Guard] = field(default_factory=list)
    _pulse: Pulse = field(default_factory=Pulse)

    @property
    def total(self) -> int:
        """Rows that have an outcome."""
        return sum(self.counts[outcome] for outcome in _OF_ROWS)

    @property
    def rejected(self) -> int:
        """Rows that were rejected."""
        return self.counts[REJECTED]

    @property
    def seconds(self) -> float:
        """Time since the run began."""
        return self._pulse.seconds

    def add(self, chunk: Chunk) -> None:
        """
        Add a chunk that is done.

        :param chunk: with its result.
        """
        self.counts[chunk.verb] += chunk.result.done
        if chunk.verb not in _OF_USERS:
            self.broker.count(chunk.result)
        self.add_others(chunk.not_done())

    def add_others(self, not_done: list[Outcome]) -> None:
        """
        Add rows that were not done.

        :param not_done: skipped and rejected ones.
        """
        rejected = [outcome for outcome in not_done if outcome.outcome == REJECTED]
        self.counts[REJECTED] += len(rejected)
        self.counts[SKIPPED] += len(not_done) - len(rejected)
        self.rejected_rows += rejected[: SHOWN - len(self.rejected_rows)]
        for outcome in rejected:
            self.not_carried += outcome.reason.startswith(NOT_CARRIED)
            self.reasons.add(REJECTED, outcome.reason, outcome.user_id, outcome.line, outcome.file)

    def resume(self, progress: Progress, verb: str) -> None:
        """
        Begin with what earlier attempts have done.

        :param progress: theirs.
        :param verb: the outcome of the rows that they have done.
        """
        self.counts[verb] += progress.broker.done
        self.broker.count(progress.broker)
        self.add_others(progress.others)

    def check(self, read: int) -> None:
        """
        Make sure that every row has one outcome.

        :param read: rows that the source gave.
        :raises EmqxError: if the sums differ.
        """
        if read != self.total:
            raise EmqxError(
                f"{read:,} rows were read, but {self.total:,} have an outcome ({self.words()}): what the broker "
                "answered does not add up. Run the task again; if this stays so, please report it"
            )

    def progress(self, read: int) -> None:
        """
        Log how far the run is, every few seconds.

        :param read: rows that the source has given so far.
        """
        if not self._pulse.is_due():
            return
        if pruned := self.counts[PRUNED]:
            log.info(
                "Deleting users that are not in the source: %s so far; %s", f"{pruned:,}", self.prune_rate()
            )
        else:
            log.info("%s rows read; so far %s; %s", f"{read:,}", self.words(), self.rate())

    def prune_rate(self) -> str:
        """Describe how long deleting took, and how fast it was."""
        seconds = self.phases.seconds["prune"]
        return f"{seconds:.1f} s, {self.counts[PRUNED] / max(seconds, 0.001):,.0f} users/s"

    def lines(self, title: str, report: Location | None) -> Iterator[str]:
        """
        Return what the log says of the run.

        :param title: how it begins.
        :param report: where it is, if it has any rows.
        """
        notes = {
            WRITTEN: self.broker_words(),
            PRUNED: self.prune_rate() if self.phases.seconds["prune"] else "",
        }
        yield from table(
            f"{title}; {self.rate()}",
            self.counts,
            notes=notes,
            reasons=self.reasons.most_frequent(),
            guards=self.guards,
            phases=self.phases.seconds,
            report_path=str(report) if report else None,
        )
        if len(self.reasons) > REASONS:
            yield f"These are the {REASONS} most frequent of {len(self.reasons):,} reasons"

    def ended_early(self, read: int, terms: Terms) -> None:
        """
        Log what was done before an error.

        :param read: rows that the source gave until then.
        :param terms: its ``report`` counts.
        """
        if read:
            log_table(log, logging.ERROR, self.lines(f"Ended early: {read:,} rows read", terms.report_path))

    def words(self) -> str:
        """Name the sums that are not zero."""
        told = [f"{count:,} {outcome}" for outcome, count in self.counts.items() if count]
        return ", ".join(told) or "nothing done"

    def rate(self) -> str:
        """Describe how long the run took, and how fast the rows were processed."""
        return f"{self.seconds:.1f} s, {self._rows_per_second:,.0f} rows/s"

    @property
    def _rows_per_second(self) -> float:
        other = self.phases.seconds["list"] + self.phases.seconds["prune"]
        return self.total / max(self.seconds - other, 0.001)

    def broker_words(self) -> str:
        """Return what the broker counted, if it did."""
        broker = self.broker
        if None in (broker.created, broker.updated) or not self.counts[WRITTEN]:
            return ""
        counted = f"{broker.created:,} created, {broker.updated:,} updated"
        return f"{counted}, {broker.unchanged:,} unchanged" if broker.unchanged is not None else counted

    def summary(self, read: int) -> Totals:
        """
        Return the sums for XCom.

        :param read: rows that the source gave.
        """
        return {
            "read": read,
            "written": self.counts[WRITTEN],
            "deleted": self.counts[DELETED],
            "skipped": self.counts[SKIPPED],
            "rejected": self.counts[REJECTED],
            "pruned": self.counts[PRUNED],
            "unaddressable": self.counts[UNADDRESSABLE],
            "created": self.broker.created,
            "updated": self.broker.updated,
            "unchanged": self.broker.unchanged,
            "not_carried": self.not_carried,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self._rows_per_second),
        }


def report_of(target: Location | None, several: bool = False) -> AbstractContextManager[RowFile]:
    """
    Open the file with one line per row that was not written or deleted: id, line, outcome, reason. Never a password.

    Users that a synchronisation deleted are in it too, as ``pruned``, and as ``unaddressable`` those that it could not
    name; so are files and directories that stand beside those of the source, as ``unread``.

    :param target: ``….jsonl`` or ``….csv``; a local path, whose file only its owner may read, or a URL that Airflow's
        ObjectStoragePath knows; ``None`` for no report.
    :param several: whether the source is several files: each line then has its ``file`` as well.
    """
    form = form_of("report_path", target) if target else "jsonl"
    return written_at_once(target, REPORT_OF_FILES if several else REPORT, form)


def unread_rows(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """
    Yield lines of a report for files and directories that stand beside those of the source.

    :param files: their names.
    """
    for file in files:
        yield {
            "outcome": UNREAD,
            "reason": "not read: a directory, or a name that tells no format",
            "file": file,
        }


def row_of(outcome: Outcome) -> dict[str, Any]:
    """
    Return an outcome under the names that reports and results have.

    :param outcome: of a row.
    """
    return {
        "id": outcome.user_id,
        "line": outcome.line or None,
        "outcome": outcome.outcome,
        "reason": outcome.reason,
        "file": outcome.file,
    }


def rejected_rows(tally: Tally) -> list[RejectedRow]:
    """
    Return the first rejected rows for a result.

    :param tally: of the run.
    """
    rows = map(row_of, tally.rejected_rows)
    told = [{name: value for name, value in one.items() if name != "file" or value} for one in rows]
    return cast("list[RejectedRow]", told)


def tell_unread(files: Sequence[str]) -> None:
    """
    Log which files and directories stand beside those of the source.

    :param files: their names.
    """
    if files:
        log.warning(
            "%s directories, or files whose names tell no format, are not read: %s%s. A pattern or format= says which "
            "files are meant",
            f"{len(files):,}",
            ", ".join(map(repr, files[:SHOWN])),
            ", …" if len(files) > SHOWN else "",
        )


def tell(tally: Tally, read: int, terms: Terms) -> None:
    """
    Log what came of a run.

    :param tally: of the finished run.
    :param read: rows that the source gave.
    :param terms: its ``dry_run`` and ``report_path`` count.
    """
    if not read:
        log.warning("The source has no rows")
        return
    reported = terms.dry_run or any(tally.counts[one] for one in (SKIPPED, REJECTED, *_OF_USERS))
    title = f"{'DRY RUN, nothing was written. ' if terms.dry_run else ''}{read:,} rows read"
    level = logging.WARNING if tally.rejected else logging.INFO
    log_table(log, level, tally.lines(title, terms.report_path if reported else None))


def judge(tally: Tally, read: int, terms: Terms) -> str | None:
    """
    Decide whether rejected rows make the run a failure, and record the limit that they are held to.

    :param tally: of the finished run.
    :param read: rows that the source gave.
    :param terms: its ``on_rejected`` and ``max_rejected`` count.
    :return: why the run has failed, ``None`` if it has not.
    """
    allowed = limit(terms.max_rejected, read, "max_rejected")
    if allowed is None and terms.on_rejected == "fail":
        allowed = 0
    if allowed is not None:
        tally.guards.append(guard("max_rejected", tally.rejected, allowed, read))
    if not tally.rejected:
        return None
    if tally.rejected == read:
        return f"all {read:,} rows of the source were rejected"
    if allowed is None or tally.rejected <= allowed:
        return None
    given = "on_rejected is 'fail'" if terms.max_rejected is None else f"max_rejected is {terms.max_rejected}"
    return f"{tally.rejected:,} of {read:,} rows were rejected, and {given}"


def failed(why: str, tally: Tally, terms: Terms) -> EmqxConfigError:
    """
    Return the error of a run that its rejected rows made a failure.

    :param why: as :func:`judge` says it.
    :param tally: of the run.
    :param terms: its ``report_path`` counts.
    """
    where = (
        f"The report is {terms.report_path}" if terms.report_path else "The first of them are in the result"
    )
    return EmqxConfigError(f"{why}; {tally.words()}. {where}")

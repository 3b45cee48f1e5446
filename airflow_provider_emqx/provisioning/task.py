"""A whole piece of work: the run, with its log, its report, its sums and its verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.outcomes import KEPT, PRUNED, UNADDRESSABLE
from airflow_provider_emqx.provisioning.chunks import Chunk
from airflow_provider_emqx.provisioning.engine import Run
from airflow_provider_emqx.provisioning.outcomes import Outcome
from airflow_provider_emqx.provisioning.progress import Progress
from airflow_provider_emqx.provisioning.report import (
    SHOWN,
    Report,
    Tally,
    failed,
    judge,
    rejected_rows,
    tell,
    tell_unread,
)
from airflow_provider_emqx.provisioning.sources import Source
from airflow_provider_emqx.provisioning.terms import PRUNING, UserTerms

if TYPE_CHECKING:
    from airflow_provider_emqx.results import ProvisionUsersResult
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)


class Provisioning:
    """
    Provision a source, telling all about it.

    :param hook: of the broker.
    :param source: of the rows.
    :param terms: what to do with them.
    :param progress: what earlier attempts have done, and where to keep what this one does.
    :raises EmqxConfigError: if what is to be written is part of the source.
    """

    def __init__(
        self, hook: Session, source: Source, terms: UserTerms, progress: Progress | None = None
    ) -> None:
        source.spare(report_path=terms.report_path, state_path=terms.state_path)
        self._source = source
        self._terms = terms
        self._progress = progress
        self._report = (
            Report(terms.report_path, len(source.files) + len(source.unread) > 1)
            if terms.report_path
            else None
        )
        self.run = Run(hook, terms, source.expected)
        self.tally = Tally(phases=self.run.phases)
        #: why rejected rows make it a failure, once that is known
        self.failure: str | None = None

    def chunks(self) -> Generator[Chunk]:
        """
        Do the work as it is advanced: rows in their order, then users that are not in the source.

        :return: an iterator over chunks whose rows all have an outcome, but for one that ended with a failure.
        :raises EmqxError: if the source or the broker fails, after the chunks that were done before.
        """
        run, tally, terms, progress = self.run, self.tally, self._terms, self._progress
        tell_unread(self._source.unread)
        with closing(self._source), self._report or nullcontext():
            if self._report is not None:
                self._report.add_unread(self._source.unread)
            for chunk in run(self._source.blocks, self._resume()):
                # the next attempt does a chunk again that ended with a failure
                if progress is not None and chunk.result.failure is None:
                    progress.add(chunk, run.inventory.in_scope)
                yield self._account(chunk)
            tally.check(run.read)
            self.failure = judge(tally, run.read, terms)
            if terms.mode in PRUNING:
                if withheld := self.failure or self._source.withheld() or run.withheld():
                    log.warning("Nobody is deleted: %s", withheld)
                else:
                    guards = tally.guards
                    yield from map(
                        self._account, run.prune(progress.in_scope if progress else None, guards.append)
                    )
            if progress is not None:
                progress.clear()

    def outcomes(self) -> Generator[Outcome]:
        """
        Do the work as it is advanced, and yield the outcome of each row, and of each user that is not in the source.

        :raises EmqxConfigError: at the end, if ``on_rejected`` or ``max_rejected`` make rejected rows a failure.
        :raises EmqxError: as :meth:`chunks` does.
        """
        with closing(self.chunks()) as chunks:
            for chunk in chunks:
                yield from chunk.outcomes()
        if self.failure and (self._terms.on_rejected == "fail" or self._terms.max_rejected is not None):
            raise EmqxConfigError(f"{self.failure}; {self.tally.words()}")

    def _resume(self) -> int:
        """Begin where an earlier attempt ended; return the number of users that are done."""
        progress = self._progress
        if progress is None or not progress.users:
            return 0
        log.info(
            "An earlier attempt of this task has done %s rows; going on after them", f"{progress.users:,}"
        )
        self.tally.resume(progress, self.run.verb)
        if self._report is not None:
            self._report.add(progress.others)
        return progress.users

    def _account(self, chunk: Chunk) -> Chunk:
        self.tally.add(chunk)
        if chunk.verb == UNADDRESSABLE:
            log.warning(
                "%s users in scope are not in the source but stay, as no request can name them: %s%s. Delete them in "
                "EMQX, "
                "or protect them",
                f"{len(chunk.users):,}",
                ", ".join(repr(user["user_id"]) for user in chunk.users[:SHOWN]),
                ", …" if len(chunk.users) > SHOWN else "",
            )
        if self._report is not None:
            self._report.add(self._worth_telling(chunk))
        self.tally.progress(self.run.read)
        return chunk

    def _worth_telling(self, chunk: Chunk) -> list[Outcome]:
        # the report of a dry run has every row
        if chunk.verb in (PRUNED, UNADDRESSABLE) or (self._terms.dry_run and self._terms.mode != "prune"):
            return chunk.outcomes()
        # a report of what is deleted does not list who stays
        return [row for row in chunk.not_done() if row.reason != KEPT]

    def summary(self) -> ProvisionUsersResult:
        """Return the totals so far, for XCom."""
        run, terms = self.run, self._terms
        return {
            **self.tally.summary(run.read),
            "phases": {name: round(seconds, 3) for name, seconds in run.phases.seconds.items()},
            "limited_by": run.phases.limited_by,
            "chunks": {
                "count": len(run.chunks),
                "rows": _median(run.chunks),
                "most": max(run.chunks, default=0),
            },
            "acl_changed": run.acl_changed,
            "listing_moved": run.inventory.moved,
            "dry_run": terms.dry_run,
            "report_path": str(terms.report_path) if terms.report_path else None,
            "reasons": self.tally.most_frequent(),
            "guards": self.tally.guards,
            "rejected_rows": rejected_rows(self.tally),
            "unread": list(self._source.unread[:SHOWN]),
        }


def provision(
    hook: Session,
    source: Source,
    terms: UserTerms,
    push: Callable[[ProvisionUsersResult], None],
    progress: Progress | None = None,
) -> ProvisionUsersResult:
    """
    Provision a source in a task.

    :param hook: of the broker.
    :param source: of the rows.
    :param terms: what to do with them.
    :param push: given the summary before the task fails, where the returned one would be lost.
    :param progress: what earlier attempts have done, and where to keep what this one does.
    :return: the summary.
    :raises EmqxConfigError: if too many rows were rejected, after the good ones are done.
    :raises EmqxError: if the source or the broker fails, after the rows before that are done.
    """
    work = Provisioning(hook, source, terms, progress)
    try:
        with closing(work.chunks()) as chunks:
            for _ in chunks:
                pass
    except BaseException:
        if progress is not None:
            progress.save()
        work.tally.ended_early(work.run.read, terms)
        push(work.summary())
        raise
    summary = work.summary()
    tell(work.tally, work.run.read, terms)
    work.run.phases.tell()
    if work.failure is not None:
        push(summary)
        raise failed(work.failure, work.tally, terms)
    return summary


def _median(sizes: list[int]) -> int:
    return sorted(sizes)[len(sizes) // 2] if sizes else 0

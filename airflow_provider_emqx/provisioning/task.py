"""A whole piece of work: the run, with its log, its report, its sums and its verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.outcomes import KEPT, PRUNED, SKIPPED, UNADDRESSABLE
from airflow_provider_emqx.plans.file import DELETE, SET_RULES, WRITE
from airflow_provider_emqx.plans.job import Asked, Job
from airflow_provider_emqx.provisioning.blocks import Block, Format
from airflow_provider_emqx.provisioning.chunks import Chunk
from airflow_provider_emqx.provisioning.engine import Run
from airflow_provider_emqx.provisioning.outcomes import Outcome
from airflow_provider_emqx.provisioning.progress import Progress
from airflow_provider_emqx.provisioning.report import (
    SHOWN,
    Tally,
    failed,
    judge,
    rejected_rows,
    report_of,
    row_of,
    tell,
    tell_unread,
    unread_rows,
)
from airflow_provider_emqx.provisioning.same import SameRows
from airflow_provider_emqx.provisioning.sources import Source
from airflow_provider_emqx.provisioning.terms import PRUNING, UserTerms
from airflow_provider_emqx.row_files import RowFile

if TYPE_CHECKING:
    from airflow_provider_emqx.results import ProvisionUsersResult
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)


class Provisioning:
    """
    Provision a source, telling all about it.

    :param source: of the rows.
    :param terms: what to do with them.
    :param progress: what earlier attempts have done, and where to keep what this one does.
    :param job: that it is: with a plan that is written or carried out, or without.
    :raises EmqxConfigError: if what is to be written is part of the source.
    """

    def __init__(
        self,
        hook: Session,
        source: Source,
        terms: UserTerms,
        progress: Progress | None = None,
        job: Job | None = None,
    ) -> None:
        self._job = job or Job(Asked(dry_run=terms.dry_run), hook, "users", {})
        source.spare(report_path=terms.report_path, state_path=terms.state_path, plan_path=self._job.path)
        self._hook = hook
        self._rows = SameRows()
        self._source = source
        self._terms = terms
        self._progress = progress
        self._opened = report_of(terms.report_path, source.several)
        self._report = RowFile()
        self.run = Run(hook, terms, source.expected, self._job)
        self.tally = Tally(phases=self.run.phases)
        #: why rejected rows make it a failure, once that is known
        self.failure: str | None = None
        #: why a synchronisation may not delete anybody, once that is known
        self.withheld = ""

    def chunks(self) -> Generator[Chunk]:
        """
        Do the work as it is advanced: rows in their order, then users that are not in the source.

        :return: an iterator over chunks whose rows all have an outcome, but for one that ended with a failure.
        :raises EmqxConfigError: if there is a plan that does not fit, before anything is written.
        :raises EmqxError: if the source or the broker fails, after the chunks that were done before.
        """
        with self._job as job:
            if job.is_finished:
                return
            if job.account is not None:
                self._rehearse()
            yield from self._work()
            if not self._terms.dry_run:
                job.finish()

    def _rehearse(self) -> None:
        """Find out what the run would do, and make sure that it is what the plan says."""
        if self._source.again is None:
            self._source.close()
            raise EmqxConfigError(
                "with a plan the source is read twice, which an iterator cannot be: give a list, a path or a URL"
            )
        log.info("Comparing the plan with source and broker; nothing is written meanwhile")
        terms = replace(self._terms, dry_run=True, report_path=None)
        rehearsal = Provisioning(self._hook, self._source, terms, job=self._job)
        rehearsal._rows = self._rows
        for _ in rehearsal._work():
            pass
        # the users that the broker had are those that the plan was compared with
        self.run.inventory = rehearsal.run.inventory
        self._source = self._source.again()

    def _work(self) -> Generator[Chunk]:
        run, tally, terms, progress = self.run, self.tally, self._terms, self._progress
        tell_unread(self._source.unread)
        with closing(self._source), self._opened as self._report:
            self._report.write(unread_rows(self._source.unread))
            for chunk in run(self._blocks(), self._resume()):
                # the next attempt does a chunk again that ended with a failure
                if progress is not None and chunk.result.failure is None:
                    progress.add(chunk, run.inventory.in_scope)
                yield self._account(chunk)
            tally.check(run.read)
            self.failure = judge(tally, run.read, terms)
            if terms.mode in PRUNING:
                self.withheld = self.failure or self._source.withheld() or run.withheld()
                if self.withheld:
                    log.warning("Nobody is deleted: %s", self.withheld)
                else:
                    before = progress.in_scope if progress else None
                    if not terms.dry_run:
                        held = self._job.facts.get("guards", ())
                        before = next((one["of"] for one in held if one["name"] == "max_deletes"), before)
                    yield from map(self._account, run.prune(before, tally.guards.append))
            if self._job.has_plan and terms.dry_run:
                if self.failure:
                    raise failed(self.failure, tally, terms)
                self._job.settle(self._facts(), self._rows.told)
            if progress is not None:
                progress.clear()

    def _blocks(self) -> Iterator[Block]:
        """Return the rows of the source; those that a plan depends on are watched."""
        if not self._job.has_plan:
            return self._source.blocks
        return (self._rows.noted if self._terms.dry_run else self._rows.again)(self._source.blocks)

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
        self._report.write(map(row_of, progress.others))
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
        if self._terms.dry_run:
            self._job.add(chunk.changes())
        else:
            self._check_off(chunk)
        self._report.write(map(row_of, self._worth_telling(chunk)))
        self.tally.progress(self.run.read)
        return chunk

    def _check_off(self, chunk: Chunk) -> None:
        """Note in the account of a plan what became of its lines."""
        job, result = self._job, chunk.result
        if job.account is None:
            return
        names = [user["user_id"] for user in chunk.users]
        if chunk.verb == PRUNED:
            job.check_off(DELETE, names)
            return
        for index, (outcome, reason) in result.others.items():
            job.check_off(WRITE, [names[index]], reason if outcome == SKIPPED else outcome)
        not_done = result.others.keys() | result.undone
        job.check_off(WRITE, [name for index, name in enumerate(names) if index not in not_done])
        job.check_off(SET_RULES, self.run.planned_rules(chunk))

    def _facts(self) -> dict[str, Any]:
        """Return what a plan tells whoever approves it."""
        run, tally = self.run, self.tally
        return {
            "read": run.read,
            "rejected": tally.rejected,
            "skipped": tally.counts[SKIPPED],
            "unaddressable": tally.counts[UNADDRESSABLE],
            "reasons": tally.reasons.most_frequent(),
            "listing_moved": run.inventory.moved,
            "withheld": self.withheld,
            "guards": tally.guards,
        }

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
            "plan": self._job.result(),
            "reasons": self.tally.reasons.most_frequent(),
            "guards": self.tally.guards,
            "rejected_rows": rejected_rows(self.tally),
            "unread": list(self._source.unread[:SHOWN]),
        }


def job_of(asked: Asked, hook: Session, source: Source, how: Format, terms: UserTerms) -> Job:
    """
    Return the job of provisioning users.

    :param asked: what is to be done with a plan.
    :param source: of the rows.
    :param how: its format.
    :param terms: what to do with the rows.
    """
    return Job(asked, hook, "users", {**terms.options(), **how.options()}, source.names())


def provision(
    hook: Session,
    source: Source,
    terms: UserTerms,
    push: Callable[[ProvisionUsersResult], None],
    progress: Progress | None = None,
    job: Job | None = None,
) -> ProvisionUsersResult:
    """
    Provision a source in a task.

    :param source: of the rows.
    :param terms: what to do with them.
    :param push: given the summary before the task fails, where the returned one would be lost.
    :param progress: what earlier attempts have done, and where to keep what this one does.
    :param job: as of :class:`Provisioning`.
    :return: the summary.
    :raises EmqxConfigError: if too many rows were rejected, after the good ones are done.
    :raises EmqxError: if the source or the broker fails, after the rows before that are done.
    """
    work = Provisioning(hook, source, terms, progress, job)
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

"""A whole provisioning task: the run, with its log, its report, its summary and its verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.outcomes import UNADDRESSABLE
from airflow_provider_emqx.provisioning.engine import Run
from airflow_provider_emqx.provisioning.outcomes import KEPT, PRUNED, Done, Outcome
from airflow_provider_emqx.provisioning.plan import PRUNING, Plan
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

if TYPE_CHECKING:
    from airflow_provider_emqx.client.session import Session

log = logging.getLogger(__name__)


def provision(
    hook: Session,
    source: Source,
    plan: Plan,
    push: Callable[[dict[str, Any]], None],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """
    Provision a source, telling all about it.

    :param hook: of the broker.
    :param source: of the rows.
    :param plan: what to do with them.
    :param push: given the summary before the task fails, where the returned one would be lost.
    :param progress: what earlier attempts have done, and where to keep what this one does.
    :return: the summary.
    :raises EmqxConfigError: if too many rows were rejected, after the good ones are done.
    :raises EmqxError: if the source or the broker fails, after the rows before that are done.
    """
    source.spare(report=plan.report, state=plan.state)
    run = Run(hook, plan, source.expected)
    tally = Tally()
    report = Report(plan.report, len(source.files) + len(source.unread) > 1) if plan.report else None
    try:
        tell_unread(source.unread)
        with closing(source), report or nullcontext():
            if report is not None:
                report.add_unread(source.unread)
            confirmed = _resume(progress, tally, report, plan)
            for done in run(source.blocks, confirmed):
                tally.listing = run.phases["list"]
                not_done = tally.add(done)
                # the next attempt does a chunk again that ended with a failure
                if progress is not None and done.result.failure is None:
                    progress.add(done, run.inventory.in_scope)
                if report is not None:
                    report.add(_worth_telling(done, not_done, plan))
                tally.progress(run.read)
            tally.listing = run.phases["list"]
            tally.check(run.read)
            failure = judge(tally, run.read, plan)
            if plan.mode in PRUNING:
                withheld = failure or source.withheld() or run.withheld()
                if withheld:
                    log.warning("Nobody is deleted: %s", withheld)
                else:
                    _prune(run, tally, report, progress.in_scope if progress else None)
            if progress is not None:
                progress.clear()
    except BaseException:
        if progress is not None:
            progress.save()
        tally.ended_early(run.read)
        push(_summary(run, source, tally, plan))
        raise
    summary = _summary(run, source, tally, plan)
    tell(tally, run.read, plan)
    if failure is not None:
        push(summary)
        raise failed(failure, tally, plan)
    return summary


def _worth_telling(done: Done, not_done: list[Outcome], plan: Plan) -> list[Outcome]:
    if plan.mode == "prune":
        # that a row's user stays is no news
        return [outcome for outcome in not_done if outcome.reason != KEPT]
    # the report of a dry run is the plan: it has every row
    return done.all() if plan.dry_run else not_done


def _resume(progress: Progress | None, tally: Tally, report: Report | None, plan: Plan) -> int:
    """Begin where an earlier attempt ended; give the number of users that are done."""
    if progress is None or not progress.users:
        return 0
    log.info("An earlier attempt of this task has done %s rows; going on after them", f"{progress.users:,}")
    tally.resume(progress, deleting=plan.mode == "delete")
    if report is not None:
        report.add(progress.others)
    return progress.users


def _prune(run: Run, tally: Tally, report: Report | None, in_scope: int | None) -> None:
    if not run.inventory.in_scope:
        log.warning("The broker had no user inside the scope: is it %r?", run.plan.scope)
    unaddressable = run.unaddressable()
    if unaddressable:
        tally.unaddressable = len(unaddressable)
        log.warning(
            "%s users in scope that no row names stay, since no request can name them: %s%s. Delete them in EMQX, "
            "or protect them",
            f"{len(unaddressable):,}",
            ", ".join(map(repr, unaddressable[:SHOWN])),
            ", …" if len(unaddressable) > SHOWN else "",
        )
        if report is not None:
            report.add_unnamed(unaddressable, UNADDRESSABLE)
    for ids in run.prune(in_scope):
        if report is not None:
            report.add_unnamed(ids, PRUNED)
        tally.pruned_some(len(ids), run.phases["prune"])


def _summary(run: Run, source: Source, tally: Tally, plan: Plan) -> dict[str, Any]:
    return {
        **tally.summary(run.read),
        "phases": {name: round(seconds, 3) for name, seconds in run.phases.items()},
        "chunks": {"count": len(run.chunks), "rows": _median(run.chunks), "most": max(run.chunks, default=0)},
        "acl_changed": run.acl_changed,
        "listing_moved": run.inventory.moved,
        "dry_run": plan.dry_run,
        "report": str(plan.report) if plan.report else None,
        "reasons": tally.most_frequent(),
        "rejected_rows": rejected_rows(tally, plan),
        "unread": list(source.unread[:SHOWN]),
    }


def _median(sizes: list[int]) -> int:
    return sorted(sizes)[len(sizes) // 2] if sizes else 0

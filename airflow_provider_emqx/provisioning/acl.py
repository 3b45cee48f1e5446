"""ACL rules from files and lists: rows are read, checked, gathered by subject, and written subject by subject."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_args

from airflow_provider_emqx.api.acl import FIELDS, read_rule, read_subject
from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.arguments import boolean, choice, optional, truth
from airflow_provider_emqx.choices import AclMode
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.outcomes import REJECTED, SKIPPED, WRITTEN
from airflow_provider_emqx.plans.file import SET_RULES
from airflow_provider_emqx.plans.job import Asked, Job
from airflow_provider_emqx.provisioning import user_acl
from airflow_provider_emqx.provisioning.blocks import Block, Format
from airflow_provider_emqx.provisioning.limits import tell_rate
from airflow_provider_emqx.provisioning.outcomes import Outcome, shown
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
from airflow_provider_emqx.provisioning.terms import Terms
from airflow_provider_emqx.transport.idset import IdSet

if TYPE_CHECKING:
    from airflow_provider_emqx.results import ProvisionAclResult
    from airflow_provider_emqx.transport.session import Session

#: subjects that are written before the progress of a plan is written down
_PART = 1_000
_SUBJECTS = ("username", "clientid")
_LOOK = "SELECT kind, name, line, file, rule FROM rows ORDER BY kind, name, rowid"


class RulesFormat(Format):
    """The format of a file of rules; without the topic (``ids_only``) a row only identifies a subject."""

    fields: ClassVar[tuple[str, ...]] = (*_SUBJECTS, "all", *FIELDS)
    exact: ClassVar[tuple[str, ...]] = (*_SUBJECTS, "topic")
    strict: ClassVar[bool] = True
    what: ClassVar[str] = "acl_rules"

    def needs(self, name: str, header: Sequence[str]) -> bool:
        """Return whether a source with this header cannot do without a field."""
        return not self.ids_only and name in ("topic", "permission")


@dataclass(frozen=True)
class AclTerms(Terms):
    """
    Terms for ACL rules.

    :param mode: ``"set"`` or ``"delete"``.
    """

    mode: str = "set"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("mode", self.mode, get_args(AclMode))


class Subject(NamedTuple):
    """
    The good rows of one username or client id, or of all clients.

    :param name: as :func:`~airflow_provider_emqx.api.acl.read_subject` gives it.
    :param places: line and file of each row.
    :param rules: checked, in order.
    """

    name: tuple[str, str]
    places: list[tuple[int, str]]
    rules: list[dict[str, Any]]

    def outcomes(self, outcome: str, reason: str = "") -> list[Outcome]:
        """Return the same outcome for each row."""
        return [Outcome(line, _named(self.name), outcome, reason, file) for line, file in self.places]


class Rows:
    """
    Checked rows, in a temporary database of their own until all of one subject are together.

    :param terms: whether they must be rules.
    """

    def __init__(self, terms: AclTerms) -> None:
        self._with_rules = terms.mode == "set"
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE rows (kind TEXT, name TEXT, line INTEGER, file TEXT, rule TEXT)")
        # subjects with a rejected row, or that a row too broken to tell may have meant
        self._spoilt = IdSet()
        self.read = 0

    def close(self) -> None:
        """Forget them."""
        self._database.close()

    def add(self, block: Block) -> list[Outcome]:
        """
        Check rows and keep the good ones.

        :param block: of the source.
        :return: the rejected ones.
        """
        self.read += len(block.lines) + len(block.bad)
        rejected, good = [], []
        for bad in block.bad:
            rejected.append(Outcome(bad.line, None, REJECTED, bad.reason, block.file))
            everybody = [("all", "")] if any(truth(text) for text in bad.maybe) else []
            self._spoilt.add_all([(kind, text) for kind in _SUBJECTS for text in bad.maybe] + everybody)
        for line, username, clientid, everybody, *values in zip(block.lines, *block.columns, strict=True):
            subject = None
            try:
                subject = _subject(username, clientid, everybody)
                given = {
                    name: value for name, value in zip(FIELDS, values, strict=True) if value not in (None, "")
                }
                rule = read_rule(given) if self._with_rules else {}
            except EmqxConfigError as error:
                rejected.append(
                    Outcome(line, subject and _named(subject), REJECTED, error.message, block.file)
                )
                if subject:
                    self._spoilt.add_all([subject])
            else:
                good.append((*subject, line, block.file, json.dumps(rule)))
        self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", good)
        return sorted(rejected)

    def count(self) -> int:
        """Return how many subjects there are."""
        return int(
            self._database.execute("SELECT count(*) FROM (SELECT DISTINCT kind, name FROM rows)").fetchone()[
                0
            ]
        )

    def subjects(self) -> Iterator[tuple[Subject, bool]]:
        """Return each subject, and whether it must be left alone because of another row."""
        with closing(self._database.execute(_LOOK)) as found:
            for name, group in groupby(found, itemgetter(0, 1)):
                rows = list(group)
                places = [(line, file) for _, _, line, file, _ in rows]
                yield Subject(name, places, [json.loads(row[-1]) for row in rows]), name in self._spoilt


def provision(
    hook: Session,
    source: Source,
    terms: AclTerms,
    push: Callable[[ProvisionAclResult], None],
    job: Job | None = None,
) -> ProvisionAclResult:
    """
    Write the rules of a source.

    :param source: of the rows. All are read before anything is written.
    :param terms: what to do with them.
    :param push: given the summary before the task fails.
    :param job: that it is: with a plan that is written or carried out, or without.
    :return: ``{"read", "written", "skipped", "rejected", "subjects", "dry_run", "report_path", "plan", "reasons",
        "guards", "rejected_rows", "unread"}``.
    :raises EmqxConfigError: if the source breaks off; nothing is written then. If too many rows were rejected.
    :raises EmqxError: if the broker fails; subjects before that are done.
    """
    job = job or Job(Asked(dry_run=terms.dry_run), hook, "acl_rules", {})
    source.spare(report_path=terms.report_path, plan_path=job.path)
    with job, closing(Rows(terms)) as rows:
        work = _Work(hook, source, terms, job, rows)
        if job.is_finished:
            source.close()
            return work.summary()
        try:
            work.run()
        except BaseException:
            work.tally.ended_early(rows.read, terms)
            push(work.summary())
            raise
        tally = work.tally
        failure = judge(tally, rows.read, terms)
        tell(tally, rows.read, terms)
        if tally.rejected and not tally.counts[WRITTEN]:
            failure = failure or f"none of {rows.read:,} rows could be done, {tally.rejected:,} were rejected"
        if failure:
            push(work.summary())
            raise failed(failure, tally, terms)
        if terms.dry_run and job.has_plan:
            work.settle()
        job.finish()
        return work.summary()


class _Work:
    """
    One run over a source of rules.

    :param source: of the rows.
    :param terms: what to do with them.
    :param job: that it is.
    :param rows: those that are checked.
    """

    def __init__(self, hook: Session, source: Source, terms: AclTerms, job: Job, rows: Rows) -> None:
        self._hook = hook
        self._source = source
        self._terms = terms
        self._job = job
        self._rows = rows
        self._same = SameRows()
        # the broker counts no rules
        self.tally = Tally(broker=BulkResult(0, None, None, None))
        self._subjects = 0
        self._opened = report_of(terms.report_path, source.several)

    def run(self) -> None:
        """Read all rows, then write the rules of each subject."""
        rows, terms, source = self._rows, self._terms, self._source
        tell_unread(source.unread)
        with closing(source), self._opened as self._report:
            self._report.write(unread_rows(source.unread))
            for block in self._same.noted(source.blocks) if self._job.has_plan else source.blocks:
                self._hook.stopping.check()
                self._account(rows.add(block))
                self.tally.progress(rows.read)
            if self._job.account is not None:
                self.settle()
            for subject, outcome, reason in _written(self._hook, rows, terms, self._job):
                self.tally.progress(rows.read)
                if outcome != WRITTEN:
                    self._account(subject.outcomes(outcome, reason))
                    continue
                self._subjects += 1
                self.tally.counts[WRITTEN] += len(subject.places)
                if terms.dry_run:
                    self._report.write(map(row_of, subject.outcomes(outcome)))
        self.tally.check(rows.read)

    def settle(self) -> None:
        """Finish the plan of a dry run, or make sure that the one that is carried out still fits."""
        tally = self.tally
        self._job.add(_changes(self._hook, self._rows, self._terms))
        facts = {
            "read": self._rows.read,
            "rejected": tally.rejected,
            "skipped": tally.counts[SKIPPED],
            "reasons": tally.reasons.most_frequent(),
            "guards": tally.guards,
        }
        self._job.settle(facts, self._same.told)

    def _account(self, outcomes: list[Outcome]) -> None:
        self.tally.add_others(outcomes)
        self._report.write(map(row_of, outcomes))

    def summary(self) -> ProvisionAclResult:
        """Return the totals so far, for XCom."""
        tally, terms = self.tally, self._terms
        return {
            "read": self._rows.read,
            "written": tally.counts[WRITTEN],
            "skipped": tally.counts[SKIPPED],
            "rejected": tally.counts[REJECTED],
            "subjects": self._subjects,
            "dry_run": terms.dry_run,
            "report_path": str(terms.report_path) if terms.report_path else None,
            "plan": self._job.result(),
            "reasons": tally.reasons.most_frequent(),
            "guards": tally.guards,
            "rejected_rows": rejected_rows(tally),
            "unread": list(self._source.unread[:SHOWN]),
        }


def _written(hook: Session, rows: Rows, terms: AclTerms, job: Job) -> Iterator[tuple[Subject, str, str]]:
    """Write each subject; yield it with outcome and reason as soon as it has one."""
    acl = hook.api.acl

    def write(subject: Subject) -> Operation[Any]:
        if terms.mode == "delete":
            return acl.delete(subject.name)
        return acl.replace(subject.name, subject.rules)

    if not terms.dry_run:
        tell_rate(hook, rows.count(), "subject")
    failure: EmqxError | None = None
    found = rows.subjects()
    while part := list(islice(found, _PART)):
        meant = []
        for subject, spoilt in part:
            if spoilt:
                yield subject, SKIPPED, "another row of the same name was rejected"
            elif terms.dry_run or (job.account and not job.account.kind(_id(subject), SET_RULES)):
                # a plan leaves out whose rules are in force
                yield subject, WRITTEN, ""
            else:
                meant.append(subject)
        job.begin(SET_RULES, map(_id, meant))
        with closing(hook.run_each((subject, write(subject)) for subject in meant)) as results:
            for subject, result in results:
                if isinstance(result, EmqxBadRequestError | EmqxUnsupportedError):
                    job.check_off(SET_RULES, [_id(subject)], REJECTED)
                    yield subject, REJECTED, str(result)
                elif isinstance(result, EmqxError):
                    # the others are written and told all the same
                    failure = failure or result
                else:
                    job.check_off(SET_RULES, [_id(subject)])
                    yield subject, WRITTEN, ""
    if failure is not None:
        raise failure


def _changes(hook: Session, rows: Rows, terms: AclTerms) -> Iterator[tuple[str, str, str]]:
    """Yield what would be changed of whose rules, in the order of the subjects."""
    acl = hook.api.acl
    found = (subject for subject, spoilt in rows.subjects() if not spoilt)
    while part := list(islice(found, _PART)):
        there = hook.run_all(acl.list(subject.name) for subject in part)
        for subject, before in zip(part, there, strict=True):
            wanted = subject.rules if terms.mode == "set" else []
            if before != wanted:
                yield user_acl.change(_id(subject), before, wanted)


def _id(subject: Subject) -> str:
    """Return what a plan calls a subject."""
    kind, name = subject.name
    return f"{kind}:{name}" if name else kind


def _named(subject: tuple[str, str]) -> str | None:
    kind, name = subject
    return shown(f"{kind}:{name}" if name else kind)


def _subject(username: Any, clientid: Any, everybody: Any) -> tuple[str, str]:
    named = {
        kind: name
        for kind, name in zip(_SUBJECTS, (username, clientid), strict=True)
        if name not in (None, "")
    }
    for_all = optional(boolean, "all", everybody) or False
    if len(named) + for_all > 1:
        raise EmqxConfigError(
            "a rule is for a username, for a client id or for all clients, not for several of these"
        )
    if not named and not for_all:
        # an empty cell must not open the broker to everybody
        raise EmqxConfigError(
            "the row names no username and no clientid; one for all clients says so: all=true"
        )
    return read_subject(named or "all")

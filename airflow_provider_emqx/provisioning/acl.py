"""ACL rules from files and lists: rows are read, checked, gathered by subject, and written subject by subject."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
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
from airflow_provider_emqx.provisioning.sources import Source
from airflow_provider_emqx.provisioning.terms import Terms
from airflow_provider_emqx.transport.idset import IdSet

if TYPE_CHECKING:
    from airflow_provider_emqx.results import ProvisionAclResult
    from airflow_provider_emqx.transport.session import Session

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
    hook: Session, source: Source, terms: AclTerms, push: Callable[[ProvisionAclResult], None]
) -> ProvisionAclResult:
    """
    Write the rules of a source.

    :param hook: of the broker.
    :param source: of the rows. All are read before anything is written.
    :param terms: what to do with them.
    :param push: given the summary before the task fails.
    :return: ``{"read", "written", "skipped", "rejected", "subjects", "dry_run", "report_path", "reasons",
        "guards", "rejected_rows", "unread"}``.
    :raises EmqxConfigError: if the source breaks off; nothing is written then. If too many rows were rejected.
    :raises EmqxError: if the broker fails; subjects before that are done.
    """
    # the broker counts no rules
    tally, subjects = Tally(broker=BulkResult(0, None, None, None)), 0

    def summary() -> ProvisionAclResult:
        return {
            "read": rows.read,
            "written": tally.counts[WRITTEN],
            "skipped": tally.counts[SKIPPED],
            "rejected": tally.counts[REJECTED],
            "subjects": subjects,
            "dry_run": terms.dry_run,
            "report_path": str(terms.report_path) if terms.report_path else None,
            "reasons": tally.most_frequent(),
            "guards": tally.guards,
            "rejected_rows": rejected_rows(tally),
            "unread": list(source.unread[:SHOWN]),
        }

    def account(outcomes: list[Outcome]) -> None:
        tally.add_others(outcomes)
        report.write(map(row_of, outcomes))

    source.spare(report_path=terms.report_path)
    opened = report_of(terms.report_path, source.several)
    with closing(Rows(terms)) as rows:
        try:
            tell_unread(source.unread)
            with closing(source), opened as report:
                report.write(unread_rows(source.unread))
                for block in source.blocks:
                    hook.stopping.check()
                    account(rows.add(block))
                    tally.progress(rows.read)
                for subject, outcome, reason in _written(hook, rows, terms):
                    tally.progress(rows.read)
                    if outcome != WRITTEN:
                        account(subject.outcomes(outcome, reason))
                        continue
                    subjects += 1
                    tally.counts[WRITTEN] += len(subject.places)
                    if terms.dry_run:
                        report.write(map(row_of, subject.outcomes(outcome)))
            tally.check(rows.read)
        except BaseException:
            tally.ended_early(rows.read, terms)
            push(summary())
            raise
        failure = judge(tally, rows.read, terms)
        tell(tally, rows.read, terms)
        if tally.rejected and not tally.counts[WRITTEN]:
            failure = failure or f"none of {rows.read:,} rows could be done, {tally.rejected:,} were rejected"
        if failure:
            push(summary())
            raise failed(failure, tally, terms)
        return summary()


def _written(hook: Session, rows: Rows, terms: AclTerms) -> Iterator[tuple[Subject, str, str]]:
    """Write each subject; yield it with outcome and reason as soon as it has one."""
    skipped: deque[Subject] = deque()

    def operations() -> Iterator[tuple[Subject, Operation[Any]]]:
        acl = hook.api.acl
        for subject, spoilt in rows.subjects():
            if spoilt:
                skipped.append(subject)
            elif terms.mode == "delete":
                yield subject, acl.delete(subject.name)
            else:
                yield subject, acl.replace(subject.name, subject.rules)

    if terms.dry_run:
        results: Generator[tuple[Subject, Any]] = ((subject, None) for subject, _ in operations())
    else:
        tell_rate(hook, rows.count(), "subject")
        results = hook.run_each(operations())
    failure: EmqxError | None = None
    with closing(results):
        for subject, result in results:
            if isinstance(result, EmqxBadRequestError | EmqxUnsupportedError):
                yield subject, REJECTED, str(result)
            elif isinstance(result, EmqxError):
                # the others are written and told all the same
                failure = failure or result
            else:
                yield subject, WRITTEN, ""
            while skipped:
                yield skipped.popleft(), SKIPPED, "another row of the same name was rejected"
    while skipped:
        yield skipped.popleft(), SKIPPED, "another row of the same name was rejected"
    if failure is not None:
        raise failure


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

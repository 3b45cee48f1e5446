"""A job that writes a plan, carries one out, or has none: what everything that acts on many needs of plans."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.arguments import boolean, seconds, wrong
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location, shown
from airflow_provider_emqx.plans.account import Account
from airflow_provider_emqx.plans.file import Change, Draft, Head, Plan, draft

if TYPE_CHECKING:
    from airflow_provider_emqx.results import PlanResult
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

#: characters of an option that a plan has in full
_LONGEST = 2_000


@dataclass(frozen=True)
class Asked:
    """
    Arguments of a task about a plan.

    :param path: of the plan; ``None`` if there is to be none.
    :param dry_run: write it, instead of carrying it out.
    :param max_age: seconds after which it is no longer carried out.
    """

    path: Location | None = None
    dry_run: bool = False
    max_age: float | None = None

    @classmethod
    def of(cls, path: Any, dry_run: Any, max_age: Any) -> Asked:
        """
        Read what a person or a template says.

        :raises EmqxConfigError: for invalid arguments.
        """
        if path is not None and str(path) in ("", "None"):
            # a template without a value would take the plan away
            raise wrong("plan_path", "a path or URL", path)
        asked = cls(path, boolean("dry_run", dry_run), seconds("plan_max_age", max_age))
        if asked.max_age is not None and asked.path is None:
            raise EmqxConfigError("plan_max_age goes with plan_path, the plan that is to be carried out")
        return asked


class Job:
    """
    A job, and the plan that it writes or carries out; use it in a ``with`` statement.

    :param asked: what is to be done with a plan.
    :param session: of the broker.
    :param name: of the job, as ``"kick"``.
    :param options: all that decides what it does; JSON, no secrets.
    :param sources: names of the files that it reads.
    """

    def __init__(
        self,
        asked: Asked,
        session: Session,
        name: str,
        options: dict[str, Any],
        sources: Sequence[str] = (),
    ) -> None:
        self.dry_run = asked.dry_run
        self.account: Account | None = None
        self._asked = asked
        self._opened = ExitStack()
        self._draft: Draft | None = None
        self._session = session
        self._name = name
        self._options = {name: _plain(value) for name, value in options.items()}
        self._result: PlanResult | None = None
        self._sources = list(sources)
        #: the time from which ages and durations count: when the plan was made
        self.now = datetime.now(UTC)

    def __enter__(self) -> Job:
        if self._asked.path is None:
            return self
        broker = self._session.identity
        head = Head(self._name, broker, self._options, self.now, self._sources)
        if self.dry_run:
            self._draft = self._opened.enter_context(draft(self._asked.path, head))
            return self
        plan = Plan(self._asked.path)
        self._require(plan.head, head)
        self.account = Account(plan)
        self._opened.callback(self.account.close)
        age = (self.now - plan.head.made).total_seconds()
        most = self._asked.max_age
        # an attempt that has begun in time goes on
        if most is not None and age > most and not self.account.before.begun:
            raise self._refused(
                f"it was made {age:,.0f} s ago, at {plan.head.made:%Y-%m-%d %H:%M:%S %Z}, and plan_max_age is "
                f"{most:,.0f} s"
            )
        self.now = plan.head.made
        if self.account.before.begun:
            log.info(
                "An earlier attempt has begun %s of the %s changes of the plan %s: going on with it",
                f"{self.account.before.begun:,}",
                f"{self.account.total:,}",
                plan.name,
            )
        return self

    def __exit__(self, *raised: Any) -> None:
        self._result = self.result()
        self._opened.__exit__(*raised)

    @property
    def path(self) -> Location | None:
        """Where the plan is, if there is one."""
        return self._asked.path

    @property
    def has_plan(self) -> bool:
        """Whether a plan is written or carried out."""
        return self._asked.path is not None

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that the plan has, which is carried out."""
        return {} if self.account is None else self.account.plan.facts

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do, since an earlier attempt has carried out the whole plan."""
        if self.account is None or not self.account.is_finished:
            return False
        log.warning("The plan %s was carried out before: nothing is left to do", self.account.plan.name)
        return True

    def add(self, changes: Iterable[tuple[str, str, str]]) -> None:
        """
        Add changes that are to be made.

        :param changes: some of them, in the order in which they will be made.
        """
        if not self.has_plan:
            return
        made = [Change(*change) for change in changes]
        if self._draft is not None:
            self._draft.add(made)
        if self.account is not None:
            self.account.expect(made)

    def settle(
        self, facts: dict[str, Any], source: Callable[[str | None], dict[str, str]] | None = None
    ) -> None:
        """
        Finish the plan of a dry run; otherwise make sure, before the first change, that all of them are the plan's.

        :param facts: for whoever approves it.
        :param source: returns a digest of what was read, with the salt that it is given.
        :raises EmqxConfigError: if source or broker have changed since the plan was made.
        """
        if self._draft is not None:
            self._draft.finish({**facts, "source": source(None)} if source else facts)
            log.info("The plan is %s: %s", shown(self._asked.path or ""), _words(self._draft.kinds))
        if self.account is not None and not self.account.is_finished:
            differences = self.account.compare()
            before = self.facts.get("source") or {}
            if source and source(before.get("salt")) != before:
                also = f", and {differences}" if differences else ", although the changes are the same"
                raise self._refused(f"the source has changed since it was made{also}")
            if differences:
                raise self._refused(f"the broker has changed since it was made: {differences}")
            log.info("The plan %s still fits: %s", self.account.plan.name, _words(self.account.plan.kinds))

    def parts(self, kind: str | Sequence[str], names: Sequence[str], size: int) -> Iterator[list[str]]:
        """
        Yield what is to be done, in parts; of a plan in its order, and without what an earlier attempt has done.

        :param kind: of the changes, or several kinds of the same things.
        :param names: ids that are meant without a plan.
        :param size: of a part.
        """
        kinds = [kind] if isinstance(kind, str) else kind
        left = [name for block in self.account.left(*kinds) for name in block] if self.account else names
        for start in range(0, len(left), size):
            part = list(left[start : start + size])
            self.begin(kinds[0], part)
            yield part

    def begin(self, kind: str, names: Iterable[str]) -> None:
        """Do what :meth:`Account.begin` does, if there is a plan."""
        if self.account is not None:
            self.account.begin(kind, names)

    def check_off(self, kind: str, names: Iterable[str], outcome: str = "done") -> None:
        """Do what :meth:`Account.check_off` does, if there is a plan."""
        if self.account is not None:
            self.account.check_off(kind, names, outcome)

    def finish(self) -> None:
        """Do what :meth:`Account.finish` does, if there is a plan."""
        if self.account is not None:
            self.account.finish()

    def result(self) -> PlanResult | None:
        """Return what became of the plan, for the task's result; ``None`` without one."""
        if self._result is not None:
            return self._result
        if self.account is not None:
            return self.account.result()
        if self._draft is None:
            return None
        return {
            "path": shown(self._asked.path or ""),
            "digest": self._draft.digest,
            "changes": dict(self._draft.kinds),
            "done": 0,
            "not_done": {},
        }

    def _require(self, planned: Head, now: Head) -> None:
        if planned.job != now.job:
            raise self._refused(f"it is a plan to {planned.job}, not to {now.job}")
        if planned.broker != now.broker:
            raise self._refused(f"it is for another broker: {_difference(planned.broker, now.broker)}")
        if planned.options != now.options:
            raise self._refused(
                f"it was made with other options: {_difference(planned.options, now.options)}"
            )

    def _refused(self, why: str) -> EmqxConfigError:
        return EmqxConfigError(
            f"the plan {shown(self._asked.path or '')!r} cannot be carried out: {why}. Nothing was done; make a new "
            "plan"
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; of a long one only a digest."""
    text = json.dumps(value, default=str, sort_keys=True)
    if len(text) <= _LONGEST:
        return json.loads(text)
    return f"SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"


def _difference(planned: dict[str, Any], now: dict[str, Any]) -> str:
    """Name what differs between two dicts of plain JSON."""
    names = sorted(name for name in {*planned, *now} if planned.get(name) != now.get(name))
    return "; ".join(
        f"{name} was {_short(planned.get(name))} and is {_short(now.get(name))}" for name in names
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _words(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in kinds.items()) or "no changes"

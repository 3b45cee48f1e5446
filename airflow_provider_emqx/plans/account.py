"""The account of a plan that is carried out: what it says, what would be done now, and what was done, line by line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.files import Location, exists, open_to_read, replacing
from airflow_provider_emqx.outcomes import ABSENT, EXISTS, FAILED, MAYBE_OURS, UNKNOWN
from airflow_provider_emqx.plans.file import (
    BLOCK,
    DELETE_ON_BROKER,
    KICK,
    REMOVE_RULES,
    SET_RULES,
    UNCHANGED,
    UPDATE,
    WRITE,
    Change,
    Plan,
)

if TYPE_CHECKING:
    from airflow_provider_emqx.results import PlanResult

#: differences that an error names
SHOWN = 10
#: kilobytes of the temporary database that are kept in memory
_CACHE = 16_000
_DONE = "done"
#: what kinds of changes are made to, where ids of one plan belong to different things
_THINGS = {SET_RULES: "rules", REMOVE_RULES: "rules", KICK: "client", DELETE_ON_BROKER: "broker"}
_TABLES = f"""
PRAGMA cache_size = -{_CACHE};
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE lines (
    position INTEGER PRIMARY KEY, kind TEXT, id TEXT, state TEXT, thing TEXT,
    now_kind TEXT, now_state TEXT, outcome TEXT
);
CREATE UNIQUE INDEX things ON lines (id, thing);
CREATE TABLE more (kind TEXT, id TEXT);
BEGIN;
"""
#: of a line that is as it was planned
_SAME = "now_kind = kind AND now_state = state"


class Mark(NamedTuple):
    """
    A note of the progress of a plan.

    :param plan: digest of the plan.
    :param begun: how many of its lines, the first ones, may have been done.
    :param done: how many of its lines, the first ones, have their outcome.
    """

    plan: str
    begun: int = 0
    done: int = 0


def mark_of(location: Location) -> str:
    """
    Return where it is written how far a plan was carried out: beside the plan.

    :param location: of the plan.
    """
    return f"{location}.progress"


class Account:
    """
    The lines of a plan, in a temporary database.

    :param plan: that is to be carried out; it is read to its end.
    :raises EmqxConfigError: if it is cut, was changed, or has a line twice.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)
        self.total = 0
        for block in plan.changes():
            self._load(block)
        #: how far earlier attempts have come
        self.before = self._read_mark()
        self._mark = self.before

    def close(self) -> None:
        """Forget the lines."""
        self._database.close()

    @property
    def is_finished(self) -> bool:
        """Whether an earlier attempt has done all of it."""
        return self.before.done >= self.total and self.before.begun > 0

    def expect(self, changes: Sequence[Change]) -> None:
        """
        Note what would be done now.

        :param changes: some of them.
        """
        found = self._database.executemany(
            "UPDATE lines SET now_kind = ?, now_state = ? WHERE id = ? AND thing = ?",
            [(kind, state, name, _thing(kind)) for kind, name, state in changes],
        )
        if found.rowcount != len(changes):
            self._database.executemany(
                "INSERT INTO more VALUES (?, ?)",
                [(kind, name) for kind, name, _ in changes if self._position(name, _thing(kind)) is None],
            )

    def compare(self) -> str:
        """Return how what would be done now differs from the plan, empty if it does not."""
        # what an earlier attempt may have done need not be done again
        differs = f"position >= {self.before.begun} AND (now_kind IS NULL OR NOT ({_SAME}))"
        if self.before.begun:
            # a state file is empty after a killed attempt
            differs += f" AND NOT (kind IN ('{UPDATE}', '{UNCHANGED}') AND ifnull(now_kind, '') = '{WRITE}')"
        count = self._count("lines", differs)
        more = self._count("more")
        if not count and not more:
            return ""
        told = [
            f"{name!r} ({kind}, now {f'{now} of another state' if now == kind else now or 'nothing'})"
            for kind, name, now in self._database.execute(
                f"SELECT kind, id, now_kind FROM lines WHERE {differs} ORDER BY position LIMIT {SHOWN}"
            )
        ]
        told += [
            f"{name!r} (new: {kind})"
            for kind, name in self._database.execute(f"SELECT kind, id FROM more LIMIT {SHOWN - len(told)}")
        ]
        return (
            f"{count:,} of its {self.total:,} changes would now differ, and {more:,} would be new: "
            f"{', '.join(told)}{', …' if count + more > len(told) else ''}"
        )

    def left(self, *kinds: str) -> Iterator[list[str]]:
        """
        Yield the ids of what is still to be done, in blocks, in the order of the plan.

        :param kinds: of changes.
        """
        marks = ", ".join("?" for _ in kinds)
        position = self.before.done
        while rows := self._database.execute(
            f"SELECT position, id FROM lines WHERE position >= ? AND kind IN ({marks}) AND now_kind IS NOT NULL "
            f"ORDER BY position LIMIT {BLOCK}",
            (position, *kinds),
        ).fetchall():
            yield [name for _, name in rows]
            position = rows[-1][0] + 1

    def kind(self, name: str, like: str = "") -> str | None:
        """
        Return the kind of a change, ``None`` if it is not in the plan.

        :param name: its id.
        :param like: a kind of change of the same thing.
        """
        found = self._database.execute(
            "SELECT kind FROM lines WHERE id = ? AND thing = ?", (name, _thing(like))
        ).fetchone()
        return None if found is None else str(found[0])

    def begin(self, kind: str, names: Iterable[str]) -> None:
        """
        Write down, before some changes are made, that they may have been.

        :param kind: one that is made to the same things.
        :param names: ids; in the order of the plan.
        :raises EmqxError: if one is not in the plan.
        """
        begun = self._mark.begun
        for name in names:
            position = self._position(name, _thing(kind))
            if position is None:
                raise EmqxError(f"{name!r} is not in the plan {self.plan.name!r}: it was left alone")
            begun = max(begun, position + 1)
        done = self._database.execute(
            f"SELECT position FROM lines WHERE position >= {self._mark.done} AND position >= {self.before.done} "
            f"AND (outcome IS NULL OR outcome IN ('{FAILED}', '{UNKNOWN}')) ORDER BY position LIMIT 1"
        ).fetchone()
        self._write_mark(begun, done[0] if done else self.total)

    def check_off(self, kind: str, names: Iterable[str], outcome: str = _DONE) -> None:
        """
        Note what became of some changes.

        :param kind: as of :meth:`begin`.
        :param names: ids.
        :param outcome: of all of them, if they were not made.
        """
        thing = _thing(kind)
        # then an earlier attempt has done it
        first = self.before.begun if outcome in (ABSENT, EXISTS, MAYBE_OURS) else 0
        self._database.executemany(
            "UPDATE lines SET outcome = ? WHERE id = ? AND thing = ? AND position >= ?",
            [(outcome, name, thing, first) for name in names],
        )

    def finish(self) -> None:
        """
        Write down that the plan is carried out.

        :raises EmqxError: if what was done does not add up to it.
        """
        open_ = f"outcome IS NULL AND position >= {self.before.begun}"
        if count := self._count("lines", open_):
            kind, name = self._database.execute(
                f"SELECT kind, id FROM lines WHERE {open_} LIMIT 1"
            ).fetchone()
            raise EmqxError(
                f"{count:,} of {self.total:,} changes of the plan {self.plan.name!r} have no outcome, {name!r} "
                f"({kind}) for one: what was done does not add up. Please report it"
            )
        self._write_mark(self.total, self.total)

    def result(self) -> PlanResult:
        """Return what became of the lines, for the task's result."""
        found = dict(
            self._database.execute(
                "SELECT ifnull(outcome, iif(position < ?, 'before', 'left')), count(*) FROM lines GROUP BY 1",
                (self.before.begun,),
            ).fetchall()
        )
        return {
            "path": self.plan.name,
            "digest": self.plan.digest,
            "changes": self.plan.kinds,
            "done": found.pop(_DONE, 0),
            "not_done": found,
        }

    def _load(self, block: list[Change]) -> None:
        rows = [
            (position, change.kind, change.id, change.state, _thing(change.kind))
            for position, change in enumerate(block, self.total)
        ]
        found = self._database.executemany(
            "INSERT OR IGNORE INTO lines (position, kind, id, state, thing) VALUES (?, ?, ?, ?, ?)", rows
        )
        if found.rowcount != len(rows):
            name = next(row[2] for row in rows if self._position(row[2], row[4]) != row[0])
            raise EmqxConfigError(
                f"the plan {self.plan.name!r} cannot be carried out: {name!r} is in it twice. Nothing was done; make a "
                "new plan"
            )
        self.total += len(rows)

    def _position(self, name: str, thing: str) -> int | None:
        found = self._database.execute(
            "SELECT position FROM lines WHERE id = ? AND thing = ?", (name, thing)
        ).fetchone()
        return None if found is None else int(found[0])

    def _count(self, table: str, where: str = "1") -> int:
        return int(self._database.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])

    def _read_mark(self) -> Mark:
        location = mark_of(self.plan.location)
        if not exists(location):
            return Mark(self.plan.digest)
        with open_to_read(location) as file:
            try:
                found = Mark(**json.loads(file.read()))
            except (TypeError, ValueError):
                raise EmqxConfigError(
                    f"{location!r} is damaged, so that it is not known how far the plan was carried out. Nothing was "
                    "done; make a new plan"
                ) from None
        return found if found.plan == self.plan.digest else Mark(self.plan.digest)

    def _write_mark(self, begun: int, done: int) -> None:
        mark = Mark(self.plan.digest, begun, done)
        if mark != self._mark:
            with replacing(mark_of(self.plan.location), "progress of the plan") as file:
                file.write(json.dumps(mark._asdict()).encode())
            self._mark = mark


def _thing(kind: str) -> str:
    return _THINGS.get(kind, "")

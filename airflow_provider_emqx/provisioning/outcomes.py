"""What became of rows: of one, of a chunk as the broker did it, and of a chunk with all its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.outcomes import UNADDRESSABLE
from airflow_provider_emqx.provisioning.chunks import Chunk

WRITTEN, DELETED, SKIPPED, REJECTED = "written", "deleted", "skipped", "rejected"
PRUNED = "pruned"
UNREAD = "unread"
#: has no outcome: the broker, or a task that is stopped, came to an end before it
UNDONE = "undone"
EXISTS, ABSENT, KEPT = "exists", "absent", "kept"
#: why users that no row names were deleted, or were not
UNNAMED = {
    PRUNED: "no row names this user",
    UNADDRESSABLE: "no row names this user, and no request of the API can name it",
}
MAYBE_OURS = "exists, perhaps made by an attempt of this run whose answer was lost"


class Outcome(NamedTuple):
    """
    What became of one row, or of one user that no row names.

    :param line: where the row starts in its file, or its position in a list, from 1; 0 where there is no row.
    :param user_id: its id, ``None`` where the row has none that may be shown.
    :param outcome: ``"written"``, ``"deleted"``, ``"skipped"`` or ``"rejected"``; where there is no row
        ``"pruned"``, or ``"unaddressable"`` for a user that was to be pruned and that no request can name.
    :param reason: why it was skipped, rejected or pruned, else empty.
    :param file: which file it is from, where there are several.
    """

    line: int
    user_id: str | None
    outcome: str
    reason: str = ""
    file: str = ""


@dataclass(slots=True)
class Result:
    """
    What the broker did with the users of a chunk.

    :param done: how many were written or deleted.
    :param others: outcome and reason of each other one, by its index.
    :param created: of ``done``, how many were new; ``None`` where the broker does not tell.
    :param updated: how many replaced a user.
    :param unchanged: how many were there already, to the byte.
    :param sent: how many were sent at all, ``None`` for all.
    :param failure: the error because of which some are :data:`UNDONE`.
    """

    done: int
    others: dict[int, tuple[str, str]] = field(default_factory=dict)
    created: int | None = None
    updated: int | None = None
    unchanged: int | None = None
    sent: int | None = None
    failure: EmqxError | None = None


@dataclass(slots=True)
class Done:
    """
    A chunk whose rows all have an outcome, but for one that ended with a failure.

    :param chunk: its rows, with those rejected before sending.
    :param result: what became of the others.
    :param verb: the outcome of those that were done: ``"written"`` or ``"deleted"``.
    """

    chunk: Chunk
    result: Result
    verb: str

    def not_done(self) -> list[Outcome]:
        """Give the rows that were skipped or rejected, in the order of their lines."""
        lines, users, file = self.chunk.lines, self.chunk.users, self.chunk.file
        found = [Outcome(bad.line, shown(bad.user_id), REJECTED, bad.reason, file) for bad in self.chunk.bad]
        found += [
            Outcome(lines[index], shown(users[index]["user_id"]), outcome, reason, file)
            for index, (outcome, reason) in self.result.others.items()
            if outcome != UNDONE
        ]
        return sorted(found, key=_line)

    def all(self) -> list[Outcome]:
        """Give all rows, in the order of their lines."""
        others = self.result.others
        found = [
            Outcome(line, user["user_id"], self.verb, "", self.chunk.file)
            for index, (line, user) in enumerate(zip(self.chunk.lines, self.chunk.users, strict=True))
            if index not in others
        ]
        return sorted(found + self.not_done(), key=_line)


_line = attrgetter("line")


def of_bulk(bulk: BulkResult) -> Result:
    """
    Make the result of a chunk that one bulk operation has written.

    :param bulk: what the operation gave.
    """
    others = {index: (REJECTED, reason) for index, reason in bulk.failed.items()}
    others |= dict.fromkeys(bulk.existing, (SKIPPED, EXISTS))
    others |= dict.fromkeys(bulk.unknown, (SKIPPED, MAYBE_OURS))
    return Result(bulk.written, others, bulk.created, bulk.updated, bulk.unchanged)


def shown(user_id: object) -> str | None:
    """
    Make an id fit for logs, reports and databases: no control characters, no broken text, not endless.

    :param user_id: whatever stood in the id's place.
    """
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        user_id = str(user_id)
    if not isinstance(user_id, str):
        return None
    if len(user_id) > 1_000:
        user_id = user_id[:1_000] + "…"
    if user_id.isprintable():
        return user_id
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in user_id)

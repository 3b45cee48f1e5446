"""Rows on their way to the broker and back: cut into chunks that one request can carry, each row with its outcome."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from airflow_provider_emqx.api.bulk import MAX_BODY, BulkResult
from airflow_provider_emqx.outcomes import PRUNED, REJECTED, UNADDRESSABLE, WRITTEN
from airflow_provider_emqx.plans.file import DELETE
from airflow_provider_emqx.provisioning.blocks import Bad
from airflow_provider_emqx.provisioning.outcomes import Outcome, shown

User = dict[str, Any]

#: rejected rows that a chunk has about at most, since they are reported when it is done
_MOST_BAD = 1_000
#: why users that are not in the source were deleted, or were not
_UNNAMED = {
    PRUNED: "this user is not in the source",
    UNADDRESSABLE: "this user is not in the source, and its id cannot be part of a request",
}


@dataclass(slots=True)
class Chunk:
    """
    Rows that are sent together, and what became of them.

    :param lines: where each user's row starts; 0 for a user that is not in the source.
    :param users: rows to send.
    :param weight: bytes of the users as JSON, at most.
    :param bad: rows rejected before sending.
    :param file: which of several files they are from.
    :param verb: the outcome of those that are done, as ``"written"``.
    :param result: what became of the users, once that is known.
    """

    lines: list[int] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    weight: int = 0
    bad: list[Bad] = field(default_factory=list)
    file: str = ""
    verb: str = WRITTEN
    result: BulkResult = field(default_factory=BulkResult)

    @classmethod
    def of_unnamed(cls, ids: Sequence[str], verb: str) -> Chunk:
        """
        Make a chunk of users that are not in the source.

        :param ids: theirs.
        :param verb: what became of them, ``"pruned"`` or ``"unaddressable"``.
        """
        users = [{"user_id": user_id} for user_id in ids]
        return cls([0] * len(ids), users, verb=verb, result=BulkResult(len(ids)))

    def changes(self) -> list[tuple[str, str, str]]:
        """Return what a dry run has found to be changed, in the order of the users."""
        if self.verb == PRUNED:
            return [(DELETE, user["user_id"], "") for user in self.users]
        return [change for index in sorted(self.result.changes) for change in self.result.changes[index]]

    def refused(self) -> list[Outcome]:
        """Return the rows that were skipped, or rejected by the broker."""
        return [
            Outcome(self.lines[index], shown(self.users[index]["user_id"]), outcome, reason, self.file)
            for index, (outcome, reason) in self.result.others.items()
        ]

    def not_done(self) -> list[Outcome]:
        """Return the rows that were skipped or rejected, in the order of their lines."""
        bad = [Outcome(bad.line, shown(bad.user_id), REJECTED, bad.reason, self.file) for bad in self.bad]
        return sorted(bad + self.refused(), key=_line)

    def outcomes(self) -> list[Outcome]:
        """Return all rows that have an outcome, in the order of their lines."""
        others, undone, reason = self.result.others, self.result.undone, _UNNAMED.get(self.verb, "")
        done = [
            Outcome(line, shown(user["user_id"]) if reason else user["user_id"], self.verb, reason, self.file)
            for index, (line, user) in enumerate(zip(self.lines, self.users, strict=True))
            if index not in others and index not in undone
        ]
        return sorted(done + self.not_done(), key=_line)


_line = attrgetter("line")


class Pace:
    """
    Choose how many rows go into a chunk, by the time that earlier ones took.

    One request may keep the broker busy (hashing with bcrypt takes 50 to 100 ms a row), and it must answer long before
    the read timeout.

    :param rows: to begin with.
    :param most: rows of the largest chunk; beyond it the broker gains nothing.
    :param target: seconds that a chunk should take.
    :param body: bytes of JSON that a chunk may have.
    """

    def __init__(self, rows: int = 500, most: int = 5_000, target: float = 5.0, body: int = MAX_BODY) -> None:
        self.rows = rows
        self.most = most
        self.body = body
        self._target = target

    def took(self, rows: int, seconds: float) -> None:
        """
        Learn from a chunk that was done.

        :param rows: its rows.
        :param seconds: how long the broker took.
        """
        fitting = rows * self._target / max(seconds, 0.001)
        # upwards in steps: the first chunk's time says little
        self.rows = max(1, int(min(fitting, 4 * self.rows, self.most)))


def cut(checked: Iterable[Chunk], pace: Pace) -> Iterator[Chunk]:
    """
    Put rows together into chunks, in their order.

    :param checked: chunks of any size.
    :param pace: asked anew for each chunk.
    :return: chunks whose body is below the limit of EMQX; a row that is too large alone is among ``bad``.
    """
    chunk = Chunk()
    for block in checked:
        pieces = list(_pieces(block, pace))
        if block.file != chunk.file:
            if chunk.users or chunk.bad:
                yield chunk
            chunk = Chunk(file=block.file)
        chunk.bad += block.bad
        for lines, users, size in pieces:
            if chunk.users and (chunk.weight + size > pace.body or len(chunk.users) + len(users) > pace.rows):
                yield chunk
                chunk = Chunk(file=block.file)
            chunk.lines += lines
            chunk.users += users
            chunk.weight += size
        if len(chunk.users) >= pace.rows or len(chunk.bad) >= _MOST_BAD:
            yield chunk
            chunk = Chunk(file=block.file)
    if chunk.users or chunk.bad:
        yield chunk


def _pieces(block: Chunk, pace: Pace) -> Iterator[tuple[list[int], list[User], int]]:
    """Cut a block where it is larger than a chunk; rows too large for any request become bad ones."""
    rows = pace.rows
    if block.weight > pace.body:
        for line, user in zip(block.lines, block.users, strict=True):
            size = weight(user)
            if size > MAX_BODY:
                block.bad.append(Bad(line, user["user_id"], too_large(size)))
            else:
                yield [line], [user], size
    elif len(block.users) <= rows:
        yield block.lines, block.users, block.weight
    else:
        for at in range(0, len(block.users), rows):
            # the weight of the whole is more than enough for a part
            yield block.lines[at : at + rows], block.users[at : at + rows], block.weight


def weight(user: User) -> int:
    """
    Return how many bytes a user takes as JSON.

    :param user: as the check makes it of a row.
    """
    return len(json.dumps(user, ensure_ascii=False, default=bytes.hex).encode()) + 2


def too_large(size: int) -> str:
    """
    Return the reason why a row cannot be sent.

    :param size: its bytes.
    """
    return f"the row is too large: {size:,} bytes, {MAX_BODY:,} can be sent at once"

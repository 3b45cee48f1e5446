"""Cuts checked rows into chunks that one request can carry and the broker can do in good time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from airflow_provider_emqx.api.bulk import MAX_BODY
from airflow_provider_emqx.provisioning.blocks import Bad
from airflow_provider_emqx.provisioning.check import Checked, User, too_large, weight


@dataclass(slots=True)
class Chunk:
    """
    Rows that are sent together.

    :param lines: where each user's row starts.
    :param users: rows to send.
    :param bad: rows rejected before sending.
    :param weight: bytes of the users as JSON, at most.
    :param file: which of several files they are from.
    """

    lines: list[int] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    weight: int = 0
    file: str = ""


class Pace:
    """
    Choose how many rows go into a chunk, by the time that earlier ones took.

    One request may keep the broker busy (hashing with bcrypt takes 50 to 100 ms a row), and it must answer long before
    the read timeout.

    :param rows: to begin with.
    :param most: rows of the largest chunk; beyond it the broker gains nothing.
    :param target: seconds that a chunk should take.
    """

    def __init__(self, rows: int = 500, most: int = 5_000, target: float = 5.0) -> None:
        self.rows = rows
        self.most = most
        self._target = target

    def took(self, rows: int, seconds: float) -> None:
        """
        Learn from a chunk that was done.

        :param rows: its rows.
        :param seconds: how long the broker took.
        """
        fitting = int(rows * self._target / max(seconds, 0.001))
        # upwards in steps: the first chunk's time says little
        self.rows = max(1, min(fitting, 4 * self.rows, self.most))


def cut(checked: Iterable[Checked], pace: Pace) -> Iterator[Chunk]:
    """
    Put rows together into chunks, in their order.

    :param checked: blocks of rows.
    :param pace: asked anew for each chunk.
    :return: chunks whose body is below the limit of EMQX; a row that is too large alone is among ``bad``.
    """
    chunk = Chunk()
    for block in checked:
        pieces = list(_pieces(block, pace.rows))
        if block.file != chunk.file:
            if chunk.users or chunk.bad:
                yield chunk
            chunk = Chunk(file=block.file)
        chunk.bad += block.bad
        for lines, users, size in pieces:
            if chunk.users and (chunk.weight + size > MAX_BODY or len(chunk.users) + len(users) > pace.rows):
                yield chunk
                chunk = Chunk(file=block.file)
            chunk.lines += lines
            chunk.users += users
            chunk.weight += size
        if len(chunk.users) >= pace.rows or len(chunk.bad) >= 1_000:
            yield chunk
            chunk = Chunk(file=block.file)
    if chunk.users or chunk.bad:
        yield chunk


def _pieces(block: Checked, rows: int) -> Iterator[tuple[list[int], list[User], int]]:
    """Cut a block where it is larger than a chunk; rows too large for any chunk become bad ones."""
    if block.weight > MAX_BODY:
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

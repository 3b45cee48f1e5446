"""What a bulk write of users came to, the same on both generations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxConfigError,
    EmqxOutcomeUnknownError,
)

#: longest JSON body sent: EMQX before 5.10.1 reads 8,000,000 bytes at most and fails on more
MAX_BODY = 7_900_000


@dataclass(slots=True)
class BulkResult:
    """
    Result of one bulk write.

    :param written: how many rows are in the broker now because of it.
    :param created: how many of them were new, ``None`` where the broker does not tell.
    :param updated: how many of them replaced a user, ``None`` where the broker does not tell.
    :param unchanged: how many of them were there to the byte already, ``None`` where the broker does not tell.
    :param existing: indexes of rows left alone because the user exists (creating only).
    :param unknown: indexes of rows left alone that an attempt of ours, whose answer was lost, may have created.
    :param failed: index of each refused row, with the broker's reason.
    """

    written: int = 0
    created: int | None = 0
    updated: int | None = 0
    unchanged: int | None = 0
    existing: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, other: BulkResult) -> None:
        """Add the result of another part of the same write; a count unknown in one part is unknown in the sum."""
        self.written += other.written
        self.created = _sum(self.created, other.created)
        self.updated = _sum(self.updated, other.updated)
        self.unchanged = _sum(self.unchanged, other.unchanged)
        self.existing += other.existing
        self.unknown += other.unknown
        self.failed.update(other.failed)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def refuse_unknown(user_id: str, error: EmqxAlreadyExistsError) -> None:
    """
    Tell a user that exists from one that an attempt of ours, whose answer was lost, may have made.

    :raises EmqxOutcomeUnknownError: if it may be ours.
    """
    if error.maybe_applied:
        raise EmqxOutcomeUnknownError(
            f"user {user_id!r} exists now, but the answer to an earlier attempt was lost: it may be the one just "
            "created or somebody else's. Set its password to be sure",
            error.request,
        ) from error


def one_each(users: Sequence[dict[str, Any]]) -> None:
    """
    Refuse a bulk write that names a user twice.

    The broker's answers are keyed by name or only counted, so that a second row of the same name could fail unseen.
    """
    ids = [user["user_id"] for user in users]
    if len(set(ids)) != len(ids):
        raise EmqxConfigError(f"one bulk write names a user id twice, {_first_repeated(ids)!r} for one")


def _first_repeated(ids: Iterable[str]) -> str:
    seen: set[str] = set()
    for user_id in ids:
        if user_id in seen:
            return user_id
        seen.add(user_id)
    return ""

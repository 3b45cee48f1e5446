"""The result of a bulk write of users, the same on both generations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxOutcomeUnknownError,
)
from airflow_provider_emqx.outcomes import EXISTS, MAYBE_OURS, REJECTED, SKIPPED

#: longest JSON body sent: EMQX before 5.10.1 reads 8,000,000 bytes at most and fails on more
MAX_BODY = 7_900_000


@dataclass(slots=True)
class BulkResult:
    """
    Result of writing, or of deleting, many.

    :param done: how many were written or deleted.
    :param created: how many of them were new, ``None`` where the broker does not tell.
    :param updated: how many of them replaced a user, ``None`` where the broker does not tell.
    :param unchanged: how many of them were there to the byte already, ``None`` where the broker does not tell.
    :param others: outcome (``"skipped"`` or ``"rejected"``) and reason of each other one, by its index; after a
        failure those that have no outcome are in neither.
    :param sent: how many were sent at all, ``None`` for all.
    :param changes: of a dry run: what would be changed for each one, by its index: kind, id, and the state that it
        depends on, as :class:`~airflow_provider_emqx.plans.file.Change` has them.
    :param failure: the error because of which some have no outcome.
    :param undone: indexes of those.
    """

    done: int = 0
    created: int | None = 0
    updated: int | None = 0
    unchanged: int | None = 0
    others: dict[int, tuple[str, str]] = field(default_factory=dict)
    sent: int | None = None
    changes: dict[int, list[tuple[str, str, str]]] = field(default_factory=dict)
    failure: EmqxError | None = None
    undone: set[int] = field(default_factory=set)

    def count(self, other: BulkResult) -> None:
        """Add the counts of another part; what is unknown of a part in which anything was done is so of the sum."""
        self.done += other.done
        if other.done:
            self.created = _sum(self.created, other.created)
            self.updated = _sum(self.updated, other.updated)
            self.unchanged = _sum(self.unchanged, other.unchanged)

    def add(self, other: BulkResult) -> None:
        """Add the result of another part of the same write, whose indexes are those of the whole."""
        self.count(other)
        self.others |= other.others
        self.changes |= other.changes
        self.undone |= other.undone
        self.failure = self.failure or other.failure

    def note(self, index: int, answer: object, false: tuple[str, str] | None = None) -> bool:
        """
        Add what became of one.

        :param answer: what its operation returned, ``False`` for what was not new; or the error it ended with.
        :param false: outcome and reason of ``False``, where it means that nothing was done.
        :return: whether that is an outcome; any other error says nothing of this one alone.
        """
        if answer is False and false:
            self.others[index] = false
        elif not isinstance(answer, EmqxError):
            self.done += 1
            self.created = _sum(self.created, int(answer is not False))
            self.updated = _sum(self.updated, int(answer is False))
        elif isinstance(answer, EmqxAlreadyExistsError):
            self.others[index] = SKIPPED, EXISTS
        elif isinstance(answer, EmqxOutcomeUnknownError):
            self.others[index] = SKIPPED, MAYBE_OURS
        elif isinstance(answer, EmqxBadRequestError):
            self.others[index] = REJECTED, answer.reason or answer.code
        else:
            return False
        return True


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def refuse_unknown(user_id: str, error: EmqxAlreadyExistsError) -> None:
    """
    Distinguish an existing user from one that an attempt of ours with a lost response may have created.

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

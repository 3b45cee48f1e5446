"""The progress of a task, stored for its next attempt."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.files import Location, size_and_age
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.chunks import Chunk
from airflow_provider_emqx.provisioning.outcomes import Outcome
from airflow_provider_emqx.provisioning.terms import UserTerms

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

KEY = "emqx_provisioning"
#: seconds between two checks into the store
EVERY = 5.0
#: outcomes other than "done" that are kept; with more of them the next attempt begins again
OTHERS = 1_000


class Store(Protocol):
    """Airflow's task state store, as far as it is used: it outlives an attempt of a task, until the task succeeds."""

    def get(self, key: str) -> Any:
        """Read a value."""

    def set(self, key: str, value: Any) -> None:
        """Write a value."""

    def delete(self, key: str) -> None:
        """Forget a value."""


class Progress:
    """
    Progress confirmed by earlier attempts of a task and by this one.

    Rows are checked in the same order at every attempt, so that a count of users says which ones are done.

    :param store: where it is kept.
    :param fingerprint: of source, broker and terms; what belongs to another one is not used.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._saved = time.monotonic()
        found = _usable(store.get(KEY), fingerprint)
        #: rows that passed the check and have been sent
        self.users: int = found.get("users", 0)
        #: what came of those that were written or deleted
        self.broker = BulkResult(
            found.get("done", 0), found.get("created", 0), found.get("updated", 0), found.get("unchanged", 0)
        )
        #: users in scope before the first attempt
        self.in_scope: int | None = found.get("in_scope")
        #: those that were skipped or rejected by the broker
        self.others = [Outcome(*other) for other in found.get("others", [])]

    def add(self, chunk: Chunk, in_scope: int) -> None:
        """
        Add a chunk that the broker has confirmed; every few seconds, keep the sums.

        :param chunk: with its result.
        :param in_scope: users in scope before this attempt.
        """
        self.users += len(chunk.users)
        self.broker.count(chunk.result)
        if self.in_scope is None:
            self.in_scope = in_scope
        if len(self.others) <= OTHERS:
            self.others += chunk.refused()
        if time.monotonic() - self._saved >= EVERY:
            self.save()

    def save(self) -> None:
        """Keep the sums."""
        self._saved = time.monotonic()
        if len(self.others) > OTHERS:
            self._store.delete(KEY)
        elif self.users:
            self._store.set(
                KEY,
                {
                    "fingerprint": self._fingerprint,
                    "users": self.users,
                    "done": self.broker.done,
                    "created": self.broker.created,
                    "updated": self.broker.updated,
                    "unchanged": self.broker.unchanged,
                    "in_scope": self.in_scope,
                    "others": [list(other) for other in self.others],
                },
            )

    def clear(self) -> None:
        """Remove the progress: the task is done, and a cleared task starts over."""
        self._store.delete(KEY)


def fingerprint(hook: Session, files: Sequence[Location], how: Format, terms: UserTerms) -> str | None:
    """
    Return a fingerprint of source, terms and broker.

    :param files: of the source.
    :param how: their format.
    :param terms: what to do with them.
    :return: a digest, ``None`` where a file does not tell its size and age.
    """
    told: list[Any] = []
    for file in files:
        found = size_and_age(file)
        if found is None:
            return None
        told.append([str(file), *found])
    broker, settings = hook.broker, hook.settings
    told.append([settings.origin, broker.authenticator, broker.user_id_type, broker.namespace])
    told.append([how.name, dict(how.columns), how.delimiter, how.quoting, how.rows, how.encoding])
    told.append([terms.mode, terms.hash_passwords, terms.shard, terms.scope, terms.bulk])
    return hashlib.blake2b(json.dumps(told, default=str).encode(), digest_size=16).hexdigest()


def _usable(found: Any, fingerprint: str) -> dict[str, Any]:
    """Return the stored progress if it fits and is valid; otherwise start over."""
    if not isinstance(found, dict) or found.get("fingerprint") != fingerprint:
        return {}
    known = all(_is_count(found.get(name)) for name in ("users", "done"))
    others = found.get("others")
    if (
        known
        and found["done"] <= found["users"]
        and all(
            name in found and (found[name] is None or _is_count(found[name]))
            for name in ("created", "updated", "unchanged", "in_scope")
        )
        and isinstance(others, list)
        and all(map(_is_outcome, others))
    ):
        return found
    log.warning("The progress stored by an earlier attempt is damaged: starting over")
    return {}


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_outcome(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != len(Outcome._fields):
        return False
    line, user_id, *texts = value
    return (
        _is_count(line)
        and (user_id is None or isinstance(user_id, str))
        and all(isinstance(text, str) for text in texts)
    )

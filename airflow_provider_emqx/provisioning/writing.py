"""Sends users, in the way that fits the mode and the broker, and tells what became of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.base import Operation, ahead
from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.exceptions import EmqxError, EmqxNotFoundError
from airflow_provider_emqx.outcomes import ABSENT, EXISTS, KEPT, MAYBE_OURS, REJECTED, SKIPPED
from airflow_provider_emqx.plans.file import CREATE, DELETE, UNCHANGED, UPDATE, WRITE
from airflow_provider_emqx.plans.job import Job
from airflow_provider_emqx.provisioning import user_acl
from airflow_provider_emqx.provisioning.archiving import Archives
from airflow_provider_emqx.provisioning.chunks import Chunk, User
from airflow_provider_emqx.provisioning.inventory import Inventory
from airflow_provider_emqx.provisioning.state import State
from airflow_provider_emqx.provisioning.terms import UserTerms
from airflow_provider_emqx.transport.pulse import Pulse

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

#: sends users and tells what became of them
Write = Callable[[list[User]], BulkResult]


@dataclass(frozen=True)
class Way:
    """
    A way of writing users.

    :param prepare: does what needs no broker, as encoding, and returns what does the rest.
    :param one_each: whether each user is a request of its own at least.
    :param existing_one_each: whether each user that exists is a request of its own, besides what new ones take.
    """

    prepare: Callable[[list[User]], Callable[[], BulkResult]]
    one_each: bool = False
    existing_one_each: bool = False

    @classmethod
    def of(cls, write: Write, one_each: bool = False, existing_one_each: bool = False) -> Way:
        """Make one in which nothing can be done beforehand."""
        return cls(lambda users: partial(write, users), one_each, existing_one_each)

    def __call__(self, users: list[User]) -> BulkResult:
        return self.prepare(users)()


class Writer:
    """
    Choose how users are sent, by mode and by what the broker can do, and send them.

    :param terms: what is to be done with them.
    :param inventory: the users that the broker has.
    :param kind: what users are keyed by, ``"username"`` or ``"clientid"``.
    :param state: what earlier runs have written, if that is remembered.
    :param chunks: of the source; go on with :attr:`chunks`, since the choice may look at the first ones.
    :param job: that it is part of; its plan says who is written.
    :param archives: writes and deletes users, if archives are to do that.
    """

    def __init__(
        self,
        hook: Session,
        terms: UserTerms,
        inventory: Inventory,
        kind: str,
        state: State | None,
        chunks: Iterator[Chunk],
        job: Job,
        archives: Archives | None = None,
    ) -> None:
        self._job = job
        self._hook = hook
        self._terms = terms
        self._inventory = inventory
        self._kind = kind
        self._state = state
        self._archives = archives
        self.way, self.chunks = self._choose(chunks)

    def _choose(self, chunks: Iterator[Chunk]) -> tuple[Way, Iterator[Chunk]]:
        users, mode = self._hook.api.users, self._terms.mode
        if mode == "prune":
            return Way.of(_keep), chunks
        if self._archives is not None:
            return Way(self._archives.prepare), chunks
        if self._terms.dry_run:
            dry: dict[str, Write] = {
                "delete": self._would_delete,
                "create": partial(self._absent_only, _nothing),
            }
            return Way.of(dry.get(mode, self._would_write)), chunks
        if mode == "delete":
            return Way.of(self._delete, one_each=True), chunks
        if mode in ("upsert", "sync"):
            if users.has_bulk_upsert():
                return self._bulk(users.upsert_many), chunks
            if users.has_bulk_create():
                return self._bulk(users.create_many, self._replace_existing), chunks
            return Way.of(self._upsert_each, one_each=True, existing_one_each=True), chunks
        if users.has_bulk_create():
            return self._bulk(users.create_many), chunks
        head = list(islice(chunks, 2))
        chunks = chain(head, chunks)
        # asking for all users costs more than a POST for each of a few; a hash can only be imported
        few = len(head) < 2 and not any("password" not in user for chunk in head for user in chunk.users)
        if few or not users.has_bulk_upsert():
            return Way.of(self._create_each, one_each=True), chunks
        return Way.of(partial(self._absent_only, self._bulk(users.upsert_many))), chunks

    def _bulk(
        self,
        operation: Callable[[list[User]], Operation[BulkResult]],
        then: Callable[[list[User], BulkResult], None] | None = None,
    ) -> Way:
        """
        Make a way in which one operation is for many users.

        :param operation: makes it.
        :param then: does the rest with its result.
        """

        def prepare(users: list[User]) -> Callable[[], BulkResult]:
            encoded = ahead(operation(users))

            def write() -> BulkResult:
                result = self._hook.run(encoded)
                if then is not None:
                    then(users, result)
                return result

            return write

        return Way(prepare, existing_one_each=then is not None)

    def prepared(self, users: list[User]) -> Callable[[], BulkResult]:
        """
        Prepare what does not need the broker: encode a bulk write.

        :param users: of one chunk.
        :return: does the rest.
        """
        account = None if self._terms.dry_run else self._job.account
        kinds = [None if account is None else account.kind(user["user_id"]) for user in users]
        if account is None or (None not in kinds and UNCHANGED not in kinds):
            work = self._prepared(users)
            return lambda: self._believed(work())
        # rules of a user may differ although the user does not
        mine = [
            index for index, kind in enumerate(kinds) if kind and (kind != UNCHANGED or "acl" in users[index])
        ]
        work = self._prepared([users[index] for index in mine])
        why = ABSENT if self._terms.mode == "delete" else EXISTS

        def write() -> BulkResult:
            result = _among(self._believed(work()), mine)
            if result.sent is None:
                result.sent = len(mine)
            same = kinds.count(UNCHANGED) - sum(kinds[index] == UNCHANGED for index in mine)
            result.done += same
            result.unchanged = (result.unchanged or 0) + same
            result.others |= {index: (SKIPPED, why) for index, kind in enumerate(kinds) if kind is None}
            return result

        return write

    def _believed(self, result: BulkResult) -> BulkResult:
        """
        Believe that rows are refused, all for one reason, only from a broker that serves its users.

        :raises EmqxError: if it does not: then the broker is at fault, and not the rows.
        """
        if not result.done and not result.undone and len(result.others) > 1:
            (outcome, _), *others = set(result.others.values())
            if outcome == REJECTED and not others:
                self._hook.run(self._hook.api.users.list(limit=1))
        return result

    def _prepared(self, users: list[User]) -> Callable[[], BulkResult]:
        if not users:
            return BulkResult
        with_rules = any("acl" in user for user in users)
        if not with_rules and self._state is None:
            return self.way.prepare(users)
        write: Write = self.way
        if with_rules:
            write = partial(self._with_rules, write)
        if self._state is not None:
            write = partial(self._changed_only, self._state, write)
        return partial(write, users)

    def _upsert_each(self, users: list[User]) -> BulkResult:
        upsert = self._hook.api.users.upsert
        return self._each([upsert(user) for user in users])

    def _replace_existing(self, users: list[User], result: BulkResult) -> None:
        """Write the users that a bulk creation has skipped; one that was deleted in the meantime is created."""
        api = self._hook.api.users

        def replace(user: User) -> Operation[bool]:
            try:
                yield from api.update(user["user_id"], user["password"])
            except EmqxNotFoundError:
                yield from api.create(user["user_id"], user["password"])
                return True
            return False

        there = [index for index, (outcome, _) in result.others.items() if outcome == SKIPPED]
        for index in there:
            del result.others[index]
        if there:
            result.add(_among(self._each([replace(users[index]) for index in there]), there))

    def _create_each(self, users: list[User]) -> BulkResult:
        create = self._hook.api.users.create
        return self._each([create(**user) for user in users])

    def _delete(self, users: list[User]) -> BulkResult:
        delete = self._hook.api.users.delete
        result = self._each([delete(user["user_id"]) for user in users], false=(SKIPPED, ABSENT))
        result.created = result.updated = None
        return result

    def _each(self, operations: list[Operation[Any]], false: tuple[str, str] | None = None) -> BulkResult:
        """
        Run one operation per user.

        :param operations: their results are ``False`` for what was not new, or not there.
        :param false: outcome of ``False``, where it means that nothing was done.
        """
        result, pulse = BulkResult(unchanged=None), Pulse()
        result.undone.update(range(len(operations)))
        try:
            for index, answer in self._hook.run_each(enumerate(operations)):
                if result.note(index, answer, false):
                    result.undone.remove(index)
                elif isinstance(answer, EmqxError):
                    result.failure = result.failure or answer
                if pulse.is_due():
                    done = len(operations) - len(result.undone)
                    log.info("%s of %s users of this chunk so far", f"{done:,}", f"{len(operations):,}")
        except EmqxError as error:
            result.failure = result.failure or error
        return result

    def _absent_only(self, write: Write, users: list[User]) -> BulkResult:
        """Write only users that the broker did not have when it was asked."""
        there = self._inventory.existing(users)
        result = _some(write, users, [index for index in range(len(users)) if index not in there])
        result.others |= dict.fromkeys(there, (SKIPPED, EXISTS))
        return result

    def _with_rules(self, write: Write, users: list[User]) -> BulkResult:
        """
        Write users, those with ACL rules after their rules.

        What is killed in between leaves rules of somebody who is not there yet. The other way about it would leave a
        user without rules, and the next attempt of a ``create`` would pass over both.
        """
        if not any("acl" in user for user in users):
            return write(users)
        bare = [{name: value for name, value in user.items() if name != "acl"} for user in users]
        mine = {index: user for index, user in enumerate(users) if "acl" in user}
        if self._terms.dry_run:
            result = write(bare)
            if self._job.has_plan:
                mine = {index: user for index, user in mine.items() if index not in result.others}
                for index, change in user_acl.would_write(self._hook, self._kind, mine).items():
                    result.changes.setdefault(index, []).insert(0, change)
            return result
        only_absent = self._terms.mode == "create"
        replaced, there, refused = user_acl.write(self._hook, self._kind, mine, only_absent)
        others = {index: (REJECTED, reason) for index, reason in refused.items()}
        others |= dict.fromkeys(there, (SKIPPED, EXISTS))
        result = _some(write, bare, [index for index in range(len(users)) if index not in others])
        not_ours = {
            index: (users[index], before)
            for index, before in replaced.items()
            # after a failure the next attempt writes both
            if result.failure is None and result.others.get(index, (None, MAYBE_OURS))[1] != MAYBE_OURS
        }
        for index, problem in user_acl.put_back(self._hook, self._kind, not_ours).items():
            outcome, reason = result.others[index]
            result.others[index] = outcome, f"{reason}; {problem}"
        result.others |= others
        return result

    def _changed_only(self, state: State, write: Write, users: list[User]) -> BulkResult:
        """Write only users that the state file does not know to be so, or that the broker has lost."""
        there = self._inventory.among(users)
        changed = [index for index, user in enumerate(users) if index not in there or not state.knows(user)]
        if changed and not self._terms.dry_run:
            state.forget([users[index] for index in changed])
        known = {index for index in changed if state.knows_of(users[index])}
        result = _some(write, users, changed)
        for index in known & result.changes.keys():
            result.changes[index] = [
                (UPDATE if kind == WRITE else kind, name, state)
                for kind, name, state in result.changes[index]
            ]
        if self._terms.dry_run:
            for index in set(range(len(users))).difference(changed):
                result.changes[index] = [(UNCHANGED, users[index]["user_id"], "")]
        not_written = result.others.keys() | result.undone
        state.note([users[index] for index in changed if index not in not_written])
        unsent = len(users) - len(changed)
        result.done += unsent
        result.unchanged = (result.unchanged or 0) + unsent
        return result

    def _would_write(self, users: list[User]) -> BulkResult:
        there = self._inventory.existing(users)
        changes = {index: WRITE if index in there else CREATE for index in range(len(users))}
        return BulkResult(
            len(users), len(users) - len(there), len(there), None, changes=_changes(users, changes)
        )

    def _would_delete(self, users: list[User]) -> BulkResult:
        there = self._inventory.existing(users)
        absent = (index for index in range(len(users)) if index not in there)
        return BulkResult(
            len(there),
            None,
            None,
            None,
            dict.fromkeys(absent, (SKIPPED, ABSENT)),
            changes=_changes(users, dict.fromkeys(sorted(there), DELETE)),
        )


def _some(write: Write, users: list[User], chosen: list[int]) -> BulkResult:
    """Write some of the users, and name them in the result by their indexes among all."""
    result = write([users[index] for index in chosen]) if chosen else BulkResult(unchanged=None)
    result.sent = len(chosen)
    return _among(result, chosen)


def _among(result: BulkResult, chosen: Sequence[int]) -> BulkResult:
    """Name those that were chosen by their indexes among all."""
    result.others = {chosen[index]: other for index, other in result.others.items()}
    result.undone = {chosen[index] for index in result.undone}
    result.changes = {chosen[index]: changes for index, changes in result.changes.items()}
    return result


def _nothing(users: list[User]) -> BulkResult:
    created = _changes(users, dict.fromkeys(range(len(users)), CREATE))
    return BulkResult(len(users), len(users), 0, None, changes=created)


def _changes(users: list[User], kinds: Mapping[int, str]) -> dict[int, list[tuple[str, str, str]]]:
    return {index: [(kind, users[index]["user_id"], "")] for index, kind in kinds.items()}


def _keep(users: list[User]) -> BulkResult:
    return BulkResult(others=dict.fromkeys(range(len(users)), (SKIPPED, KEPT)), sent=0)

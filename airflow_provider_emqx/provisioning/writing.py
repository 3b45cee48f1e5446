"""Sends users, in the way that fits the mode and the broker, and tells what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.base import Operation, ahead
from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxBadRequestError,
    EmqxError,
    EmqxOutcomeUnknownError,
)
from airflow_provider_emqx.provisioning import rules
from airflow_provider_emqx.provisioning.check import User
from airflow_provider_emqx.provisioning.chunks import Chunk
from airflow_provider_emqx.provisioning.inventory import Inventory
from airflow_provider_emqx.provisioning.outcomes import (
    ABSENT,
    EXISTS,
    KEPT,
    MAYBE_OURS,
    REJECTED,
    SKIPPED,
    UNDONE,
    Result,
    of_bulk,
)
from airflow_provider_emqx.provisioning.plan import Plan
from airflow_provider_emqx.provisioning.state import State

if TYPE_CHECKING:
    from airflow_provider_emqx.client.session import Session

#: sends users and tells what became of them
Write = Callable[[list[User]], Result]


class Writer:
    """
    Choose how users are sent, by mode and by what the broker can do, and send them.

    :param hook: of the broker.
    :param plan: what is to be done with them.
    :param inventory: the users that the broker has.
    :param kind: what users are keyed by, ``"username"`` or ``"clientid"``.
    :param state: what earlier runs have written, if that is remembered.
    :param chunks: of the source; go on with :attr:`chunks`, since the choice may look at the first ones.
    """

    def __init__(
        self,
        hook: Session,
        plan: Plan,
        inventory: Inventory,
        kind: str,
        state: State | None,
        chunks: Iterator[Chunk],
    ) -> None:
        self._hook = hook
        self._plan = plan
        self._inventory = inventory
        self._kind = kind
        self._state = state
        self._write, self.chunks = self._choose(chunks)

    @property
    def one_each(self) -> bool:
        """Whether each user is a request of its own at least."""
        return self._write in (self._delete, self._create_each, self._upsert_each)

    @property
    def existing_are_one_each(self) -> bool:
        """Whether each user that exists is a request of its own, besides what new ones take."""
        replaces = self._plan.mode in ("upsert", "sync")
        return replaces and (self._hook.broker.is_v4 or self._write == self._upsert_each)

    def _choose(self, chunks: Iterator[Chunk]) -> tuple[Write, Iterator[Chunk]]:
        broker, users, mode = self._hook.broker, self._hook.api.users, self._plan.mode
        if mode == "prune":
            return _keep, chunks
        if self._plan.dry_run:
            if mode == "delete":
                return self._would_delete, chunks
            return (partial(self._absent_only, _nothing) if mode == "create" else self._would_write), chunks
        if mode == "delete":
            return self._delete, chunks
        if mode in ("upsert", "sync"):
            return (self._upsert if users.has_bulk_upsert() else self._upsert_each), chunks
        if broker.is_v4:
            return self._create_v4, chunks
        head = list(islice(chunks, 2))
        chunks = chain(head, chunks)
        # asking for all users costs more than a POST for each of a few; a hash can only be imported
        few = len(head) < 2 and not any("password" not in user for chunk in head for user in chunk.users)
        if few or not users.has_bulk_upsert():
            return self._create_each, chunks
        return partial(self._absent_only, self._upsert), chunks

    def prepared(self, users: list[User]) -> Callable[[], Result]:
        """
        Do now what needs no broker: encode a bulk write.

        :param users: of one chunk.
        :return: does the rest.
        """
        work = self._prepared(users)
        return lambda: self._believed(work())

    def _believed(self, result: Result) -> Result:
        """
        Believe that rows are refused, all for one reason, only from a broker that serves its users.

        :raises EmqxError: if it does not: then the broker is at fault, and not the rows.
        """
        if not result.done and len(result.others) > 1 and len(set(result.others.values())) == 1:
            (outcome, _), *_ = result.others.values()
            if outcome == REJECTED:
                self._hook.run(self._hook.api.users.list(limit=1))
        return result

    def _prepared(self, users: list[User]) -> Callable[[], Result]:
        write = self._write
        if not users:
            return partial(Result, 0, created=0, updated=0, unchanged=0)
        if any("acl" in user for user in users):
            write = partial(self._with_rules, write)
        if self._state is not None:
            write = partial(self._changed_only, self._state, write)
        api = self._hook.api.users
        if write == self._upsert:
            bulk = api.upsert_many
        elif write == self._create_v4:
            bulk = api.create_many
        else:
            return partial(write, users)
        encoded = ahead(bulk(users))
        return lambda: of_bulk(self._hook.run(encoded))

    def _upsert(self, users: list[User]) -> Result:
        return of_bulk(self._hook.run(self._hook.api.users.upsert_many(users)))

    def _create_v4(self, users: list[User]) -> Result:
        return of_bulk(self._hook.run(self._hook.api.users.create_many(users)))

    def _upsert_each(self, users: list[User]) -> Result:
        upsert = self._hook.api.users.upsert
        result = self._each([upsert(user) for user in users])
        result.unchanged = None
        return result

    def _create_each(self, users: list[User]) -> Result:
        create = self._hook.api.users.create
        return self._each([create(**user) for user in users])

    def _delete(self, users: list[User]) -> Result:
        delete = self._hook.api.users.delete
        result = self._each([delete(user["user_id"]) for user in users], false=(SKIPPED, ABSENT))
        result.created = result.updated = None
        return result

    def _each(self, operations: list[Operation[Any]], false: tuple[str, str] | None = None) -> Result:
        """
        Run one operation per user.

        :param operations: their results are ``False`` for what was not new, or not there.
        :param false: outcome of ``False``, where it means that nothing was done.
        """
        result = Result(0, created=0, updated=0)
        undone = dict.fromkeys(range(len(operations)), (UNDONE, ""))
        try:
            for index, answer in self._hook.run_each(enumerate(operations)):
                if self._note(result, index, answer, false):
                    del undone[index]
        except EmqxError as error:
            result.failure = result.failure or error
        result.others |= undone
        result.created = result.done - (result.updated or 0)
        return result

    @staticmethod
    def _note(result: Result, index: int, answer: Any, false: tuple[str, str] | None) -> bool:
        """Add one answer to a result, and return whether the user has an outcome."""
        if answer is False and false:
            result.others[index] = false
        elif not isinstance(answer, EmqxError):
            result.done += 1
            result.updated = (result.updated or 0) + (answer is False)
        elif isinstance(answer, EmqxAlreadyExistsError):
            result.others[index] = SKIPPED, EXISTS
        elif isinstance(answer, EmqxOutcomeUnknownError):
            result.others[index] = SKIPPED, MAYBE_OURS
        elif isinstance(answer, EmqxBadRequestError):
            result.others[index] = REJECTED, answer.reason or answer.code
        else:
            result.failure = result.failure or answer
            return False
        return True

    def _absent_only(self, write: Write, users: list[User]) -> Result:
        """Write only users that the broker did not have when it was asked."""
        there = self._inventory.existing(users)
        result = _some(write, users, [index for index in range(len(users)) if index not in there])
        result.others |= dict.fromkeys(there, (SKIPPED, EXISTS))
        return result

    def _with_rules(self, write: Write, users: list[User]) -> Result:
        """
        Write users, those with ACL rules after their rules.

        What is killed in between leaves rules of somebody who is not there yet. The other way about it would leave a
        user without rules, and the next attempt of a ``create`` would pass over both.
        """
        if not any("acl" in user for user in users):
            return write(users)
        bare = [{name: value for name, value in user.items() if name != "acl"} for user in users]
        if self._plan.dry_run:
            return write(bare)
        mine = {index: user for index, user in enumerate(users) if "acl" in user}
        only_absent = self._plan.mode == "create"
        replaced, there, refused = rules.write(self._hook, self._kind, mine, only_absent)
        others = {index: (REJECTED, reason) for index, reason in refused.items()}
        others |= dict.fromkeys(there, (SKIPPED, EXISTS))
        result = _some(write, bare, [index for index in range(len(users)) if index not in others])
        not_ours = {
            index: (users[index], before)
            for index, before in replaced.items()
            # after a failure the next attempt writes both
            if result.failure is None and result.others.get(index, (None, MAYBE_OURS))[1] != MAYBE_OURS
        }
        for index, problem in rules.put_back(self._hook, self._kind, not_ours).items():
            outcome, reason = result.others[index]
            result.others[index] = outcome, f"{reason}; {problem}"
        result.others |= others
        return result

    def _changed_only(self, state: State, write: Write, users: list[User]) -> Result:
        """Write only users that the state file does not know to be so, or that the broker has lost."""
        there = self._inventory.among(users)
        changed = [index for index, user in enumerate(users) if index not in there or not state.knows(user)]
        if changed and not self._plan.dry_run:
            state.forget([users[index] for index in changed])
        result = _some(write, users, changed)
        state.note([users[index] for index in changed if index not in result.others])
        unsent = len(users) - len(changed)
        result.done += unsent
        result.unchanged = (result.unchanged or 0) + unsent
        return result

    def _would_write(self, users: list[User]) -> Result:
        there = len(self._inventory.existing(users))
        return Result(len(users), created=len(users) - there, updated=there)

    def _would_delete(self, users: list[User]) -> Result:
        there = self._inventory.existing(users)
        absent = (index for index in range(len(users)) if index not in there)
        return Result(len(there), dict.fromkeys(absent, (SKIPPED, ABSENT)))


def _some(write: Write, users: list[User], chosen: list[int]) -> Result:
    """Write some of the users, and name them in the result by their indexes among all."""
    result = write([users[index] for index in chosen]) if chosen else Result(0, created=0, updated=0)
    result.sent = len(chosen)
    result.others = {chosen[index]: other for index, other in result.others.items()}
    return result


def _nothing(users: list[User]) -> Result:
    return Result(len(users), created=len(users), updated=0)


def _keep(users: list[User]) -> Result:
    return Result(0, dict.fromkeys(range(len(users)), (SKIPPED, KEPT)), sent=0)

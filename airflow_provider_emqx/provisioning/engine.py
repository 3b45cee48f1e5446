"""The bulk work itself: checked rows go to the broker in chunks, and each row comes out with one outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_emqx.api.base import Operation, ahead
from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxOutcomeUnknownError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.provisioning import rules
from airflow_provider_emqx.provisioning.check import Checked, Checker, User
from airflow_provider_emqx.provisioning.chunks import Chunk, Pace, cut
from airflow_provider_emqx.provisioning.hashing import Algorithm, Hasher
from airflow_provider_emqx.provisioning.inventory import Inventory
from airflow_provider_emqx.provisioning.limits import tell_rate
from airflow_provider_emqx.provisioning.plan import IDS_ONLY, PRUNING, Plan
from airflow_provider_emqx.provisioning.sources import Block, Format, read_source
from airflow_provider_emqx.provisioning.state import State

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

#: sends users and tells what became of them
Write = Callable[[list[User]], "Result"]

log = logging.getLogger(__name__)

#: users that EMQX Cloud Serverless holds
SERVERLESS_USERS = 2_000

WRITTEN, DELETED, SKIPPED, REJECTED = "written", "deleted", "skipped", "rejected"
PRUNED = "pruned"
EXISTS, ABSENT, KEPT = "exists", "absent", "kept"
_MAYBE_OURS = "exists, perhaps made by an attempt of this run whose answer was lost"
#: seconds that a chunk gets to be sent before this thread goes on: two threads share one interpreter, and the broker
#: waits for the one that sends
_HEAD_START = 0.003


class Outcome(NamedTuple):
    """
    What became of one row.

    :param line: where the row starts in its file, or its position in a list, from 1.
    :param user_id: its id, ``None`` where the row has none that may be shown.
    :param outcome: ``"written"``, ``"deleted"``, ``"skipped"`` or ``"rejected"``.
    :param reason: why it was skipped or rejected, else empty.
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
    """

    done: int
    others: dict[int, tuple[str, str]] = field(default_factory=dict)
    created: int | None = None
    updated: int | None = None
    unchanged: int | None = None
    sent: int | None = None


@dataclass(slots=True)
class Done:
    """
    A chunk whose rows all have an outcome.

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


class Run:
    """
    One run over one source.

    :param hook: of the broker.
    :param plan: what to do with the rows.
    :param expected: tells how many rows there will be, about; ``None`` if that is not known.
    """

    def __init__(self, hook: EmqxHook, plan: Plan, expected: Callable[[], int | None] = lambda: None) -> None:
        self.hook = hook
        self.plan = plan
        self._expected = expected
        #: rows that the source has given so far
        self.read = 0
        self.inventory = Inventory(hook, plan)
        self.state: State | None = None
        #: seconds spent on each part of the work; reading goes on while the broker writes
        self.phases = {"read": 0.0, "list": 0.0, "write": 0.0, "prune": 0.0}
        #: rows of each request, or of each group of single ones
        self.chunks: list[int] = []
        #: whether the rules of all clients had to be changed
        self.acl_changed = False
        self._kind = hook.user_id_type or "username"
        self._checker: Checker | None = None
        self._hasher: Hasher | None = None
        # whether the broker takes its time to hash
        self._slow = False
        self._error: Exception | None = None

    def __call__(self, blocks: Iterator[Block], confirmed: int = 0) -> Iterator[Done]:
        """
        Read, check, send.

        While the broker works on a chunk, the next one is read, checked and encoded.

        :param blocks: of a source.
        :param confirmed: how many of the rows that pass the check are done already.
        :return: an iterator over chunks in their order; stopping early leaves the rest of the source undone.
        :raises EmqxError: if the source or the broker fails, after the chunks that were done before.
        """
        pace = Pace()
        write, chunks = self._prepare(blocks, confirmed, pace)
        verb = DELETED if self.plan.mode == "delete" else WRITTEN
        pool = ThreadPoolExecutor(1, "emqx-provisioning")
        under_way: tuple[Chunk, Future[tuple[Result, float]]] | None = None
        try:
            for chunk in self._reading(chunks):
                work = self._prepared(write, chunk.users)
                # nothing is sent after a chunk that failed
                done = self._finish(*under_way, pace, verb) if under_way else None
                under_way = chunk, pool.submit(copy_context().run, _timed, work)
                time.sleep(_HEAD_START)
                if done:
                    yield done
            if under_way:
                yield self._finish(*under_way, pace, verb)
        finally:
            pool.shutdown(cancel_futures=True)
            if self.state is not None and not self.plan.dry_run:
                self.state.save()
        if self._error is not None:
            raise self._error

    def _prepare(self, blocks: Iterator[Block], confirmed: int, pace: Pace) -> tuple[Write, Iterator[Chunk]]:
        """Look at source and broker, and set up the way from the one to the other."""
        if self.plan.shard is not None:
            blocks = self.plan.shard.mine(blocks)
        # a source that cannot even be opened is told without a word to the broker
        first = next(blocks, None)
        self._checker = self._make_checker()
        if self._slow:
            # a request must be answered long before the read timeout
            pace.rows = 50
        if self.plan.state:
            self.state = State(self.plan.state, self.plan.pepper, self.hook)
        if self.plan.mode in PRUNING:
            # before the first write: who comes with this run is no user that it might delete
            with self._time("list"):
                self.inventory.read()
        reading = self._count(chain(() if first is None else (first,), blocks))
        checked: Iterator[Checked] = map(self._checker.check, reading)
        if confirmed:
            checked = _without(checked, confirmed)
        if self._hasher is not None:
            checked = _hashed(checked, self._hasher)
        write, chunks = self._writer(cut(checked, pace))
        if self.hook.broker.serverless and self.plan.mode not in IDS_ONLY:
            chunks = self._fitting(chunks)
        if not self.plan.dry_run:
            self._tell_rate(write, pace)
        if self.plan.acl_rules and not self.plan.dry_run:
            self.acl_changed = rules.ensure_for_all(self.hook, self.plan.acl_rules)
        return write, chunks

    def _finish(self, chunk: Chunk, future: Future[tuple[Result, float]], pace: Pace, verb: str) -> Done:
        result, seconds = future.result()
        sent = len(chunk.users) if result.sent is None else result.sent
        if sent:
            pace.took(sent, seconds)
            self.chunks.append(sent)
        self.phases["write"] += seconds
        return Done(chunk, result, verb)

    def _reading(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Take the time that reading, checking and hashing need."""
        while True:
            with self._time("read"):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    @contextmanager
    def _time(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases[phase] += time.monotonic() - start

    # ------------------------------------------------------------------ pruning

    def withheld(self) -> str:
        """Tell why a synchronisation may not delete anybody, empty if it may. Asked when all rows are done."""
        if not self.read:
            return "the source has no rows"
        if self._checker and self._checker.unreadable:
            return (
                f"{self._checker.unreadable} rows have an id that cannot be read: whom they name is not known"
            )
        return ""

    def prune(self, in_scope: int | None = None) -> Iterator[list[str]]:
        """
        Delete the users in scope that no row names; in a dry run, tell which they are.

        :param in_scope: how many were in scope before the task's first attempt, if this is not the first.
        :return: an iterator over blocks of ids that are deleted when they are given out.
        :raises EmqxConfigError: if they are more than the plan allows; then none is deleted. A dry run tells first.
        :raises EmqxError: if the broker fails.
        """
        checker = self._checker
        if checker is None:
            return
        count = sum(map(len, self.inventory.prunable(checker.names)))
        before = self.inventory.in_scope if in_scope is None else in_scope
        allowed = self.plan.deletes(before)
        too_many = EmqxConfigError(
            f"{count:,} of {before:,} users in scope are named by no row, and {allowed:,} may be "
            "deleted: nobody was. If the source is complete, raise max_deletes; a dry run with a report lists them"
        )
        if count > allowed and not self.plan.dry_run:
            raise too_many
        delete = self.hook.api.auth.delete_user
        for ids in self.inventory.prunable(checker.names):
            if self.plan.dry_run:
                yield ids
                continue
            with self._time("prune"):
                answers = list(self.hook.run_many(delete(self.hook.broker, user_id) for user_id in ids))
            # False: somebody else was faster
            yield [
                user_id
                for user_id, answer in zip(ids, answers, strict=True)
                if answer is not False and not isinstance(answer, EmqxError)
            ]
            for answer in answers:
                if isinstance(answer, EmqxError):
                    raise answer
        if count > allowed:
            raise too_many

    # ------------------------------------------------------------------ reading

    def _make_checker(self) -> Checker:
        """Look at the broker, and refuse what it cannot do before anything is sent."""
        hook, plan = self.hook, self.plan
        broker, auth = hook.broker, hook.api.auth
        algorithm = no_hashes = None
        # the API of Serverless shows the users, not the authenticator
        if not broker.serverless:
            self._kind = hook.run(auth.user_id_type(broker))
            _same_type(hook, self._kind)
        if broker.is_scram:
            no_hashes = f"{broker.authenticator} keeps no password hashes"
        elif broker.generation == "v4" or not auth.has_bulk_upsert(broker):
            no_hashes = f"ready-made hashes need EMQX 5.7 or newer; this is {broker}"
        elif broker.serverless:
            no_hashes = "EMQX Cloud Serverless does not tell how it hashes passwords"
        elif plan.mode not in IDS_ONLY:
            try:
                algorithm = Algorithm.of(hook.run(auth.get_authenticator(broker)) or {})
            except EmqxConfigError as error:
                no_hashes = error.message
        self._slow = algorithm is not None and algorithm.slow and not plan.hash_passwords
        if plan.hash_passwords and plan.mode not in IDS_ONLY:
            if no_hashes or algorithm is None:
                raise EmqxUnsupportedError(
                    f"hash_passwords is not possible: {no_hashes}. Leave it out; a state file spares the broker "
                    "unchanged rows as well"
                )
            self._hasher = Hasher(algorithm, plan.pepper)
        return Checker(
            broker,
            ids_only=plan.mode in IDS_ONLY,
            algorithm=algorithm,
            no_hashes=no_hashes or "",
            hasher=self._hasher,
            keep=plan.mode in PRUNING,
        )

    def _count(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Count what is read; an error ends the reading, and is raised when everything before it is done."""
        try:
            for block in blocks:
                self.read += len(block.lines) + len(block.bad)
                yield block
        except Exception as error:  # an iterable may be anybody's
            self._error = error

    # ------------------------------------------------------------------ writing

    def _writer(self, chunks: Iterator[Chunk]) -> tuple[Write, Iterator[Chunk]]:
        """Choose how users are sent, by mode and by what the broker can do."""
        broker, auth, mode = self.hook.broker, self.hook.api.auth, self.plan.mode
        if mode == "prune":
            return _keep, chunks
        if self.plan.dry_run:
            if mode == "delete":
                return self._would_delete, chunks
            return (partial(self._absent_only, _nothing) if mode == "create" else self._would_write), chunks
        if mode == "delete":
            return self._delete, chunks
        if mode in ("upsert", "sync"):
            return (self._upsert if auth.has_bulk_upsert(broker) else self._upsert_each), chunks
        if broker.generation == "v4":
            return self._create_v4, chunks
        head = list(islice(chunks, 2))
        chunks = chain(head, chunks)
        # asking for all users costs more than a POST for each of a few; a hash can only be imported
        few = len(head) < 2 and not any("password" not in user for chunk in head for user in chunk.users)
        if few or not auth.has_bulk_upsert(broker):
            return self._create_each, chunks
        return partial(self._absent_only, self._upsert), chunks

    def _prepared(self, write: Write, users: list[User]) -> Callable[[], Result]:
        """Do now what needs no broker: encode a bulk write."""
        if not users:
            return partial(Result, 0, created=0, updated=0, unchanged=0)
        if any("acl" in user for user in users):
            write = partial(self._with_rules, write)
        if self.state is not None:
            write = partial(self._changed_only, self.state, write)
        auth = self.hook.api.auth
        if write == self._upsert:
            bulk = auth.upsert_users
        elif write == self._create_v4:
            bulk = auth.create_users
        else:
            return partial(write, users)
        encoded = ahead(bulk(self.hook.broker, users))
        return lambda: _of_bulk(self.hook.run(encoded))

    def _fitting(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Look ahead in the source whether EMQX Cloud Serverless has room for its users, and say so if not."""
        there, new, head = len(self.inventory.read()), 0, []
        for chunk in chunks:
            head.append(chunk)
            new += len(chunk.users) - len(self.inventory.among(chunk.users))
            if there + new > SERVERLESS_USERS:
                log.warning(
                    "EMQX Cloud Serverless holds %s users. It has %s now, and this source brings %s new ones or more: "
                    "what is beyond the limit will be rejected",
                    f"{SERVERLESS_USERS:,}",
                    f"{there:,}",
                    f"{new:,}",
                )
                break
        return chain(head, chunks)

    def _tell_rate(self, write: Write, pace: Pace) -> None:
        """Say before the first write how long the run will take at the limit of requests."""
        hook, mode = self.hook, self.plan.mode
        if hook.settings.rate_limit is None:
            return
        if hook.broker.serverless:
            log.info(
                "EMQX Cloud Serverless takes 10 requests per second, and holds %s users",
                f"{SERVERLESS_USERS:,}",
            )
        if mode == "prune":
            tell_rate(hook, None, "deleted user")
            return
        more = ["each deleted user"] if mode == "sync" else []
        if mode in ("upsert", "sync") and (hook.broker.generation == "v4" or write == self._upsert_each):
            more.insert(0, "each user that exists already")
        single = write in (self._delete, self._create_each, self._upsert_each)
        rows = self._expected()
        if rows is not None and self.plan.shard is not None:
            rows //= self.plan.shard.of
        tell_rate(hook, rows, at_once=1 if single else pace.most, more=" and ".join(more))

    def _upsert(self, users: list[User]) -> Result:
        return _of_bulk(self.hook.run(self.hook.api.auth.upsert_users(self.hook.broker, users)))

    def _create_v4(self, users: list[User]) -> Result:
        return _of_bulk(self.hook.run(self.hook.api.auth.create_users(self.hook.broker, users)))

    def _upsert_each(self, users: list[User]) -> Result:
        broker, upsert = self.hook.broker, self.hook.api.auth.upsert_user
        result = self._each([upsert(broker, user) for user in users])
        result.unchanged = None
        return result

    def _create_each(self, users: list[User]) -> Result:
        broker, create = self.hook.broker, self.hook.api.auth.create_user
        return self._each([create(broker, **user) for user in users])

    def _delete(self, users: list[User]) -> Result:
        broker, delete = self.hook.broker, self.hook.api.auth.delete_user
        result = self._each([delete(broker, user["user_id"]) for user in users], false=(SKIPPED, ABSENT))
        result.created = result.updated = None
        return result

    def _each(self, operations: list[Operation[Any]], false: tuple[str, str] | None = None) -> Result:
        """
        Run one operation per user.

        :param operations: their results are ``False`` for what was not new, or not there.
        :param false: outcome of ``False``, where it means that nothing was done.
        """
        result = Result(0, created=0, updated=0)
        failure: EmqxError | None = None
        for index, answer in enumerate(self.hook.run_many(operations)):
            if answer is False and false:
                result.others[index] = false
            elif not isinstance(answer, EmqxError):
                result.done += 1
                result.updated = (result.updated or 0) + (answer is False)
            elif isinstance(answer, EmqxAlreadyExistsError):
                result.others[index] = SKIPPED, EXISTS
            elif isinstance(answer, EmqxOutcomeUnknownError):
                result.others[index] = SKIPPED, _MAYBE_OURS
            elif isinstance(answer, EmqxBadRequestError):
                result.others[index] = REJECTED, answer.reason or answer.code
            else:
                failure = failure or answer
        if failure is not None:
            raise failure
        result.created = result.done - (result.updated or 0)
        return result

    def _absent_only(self, write: Write, users: list[User]) -> Result:
        """Write only users that the broker did not have when it was asked, at the first chunk."""
        there = self.inventory.among(users)
        absent = [index for index in range(len(users)) if index not in there]
        result = write([users[index] for index in absent]) if absent else Result(0, created=0, updated=0)
        result.sent = len(absent)
        result.others = {absent[index]: other for index, other in result.others.items()}
        result.others |= dict.fromkeys(there, (SKIPPED, EXISTS))
        return result

    def _with_rules(self, write: Write, users: list[User]) -> Result:
        """Write users, and then the ACL rules that came with some of them."""
        if not any("acl" in user for user in users):
            return write(users)
        result = write([{name: value for name, value in user.items() if name != "acl"} for user in users])
        if self.plan.dry_run:
            return result
        mine = [
            (index, user) for index, user in enumerate(users) if "acl" in user and index not in result.others
        ]
        refused = rules.write(self.hook, self._kind, mine)
        result.done -= len(refused)
        result.others |= {index: (REJECTED, reason) for index, reason in refused.items()}
        return result

    def _changed_only(self, state: State, write: Write, users: list[User]) -> Result:
        """Write only users that the state file does not know to be so, or that the broker has lost."""
        there = self.inventory.among(users)
        changed = [index for index, user in enumerate(users) if index not in there or not state.knows(user)]
        result = write([users[index] for index in changed]) if changed else Result(0, created=0, updated=0)
        result.sent = len(changed)
        result.others = {changed[index]: other for index, other in result.others.items()}
        state.note([users[index] for index in changed if index not in result.others])
        unsent = len(users) - len(changed)
        result.done += unsent
        result.unchanged = (result.unchanged or 0) + unsent
        return result

    def _would_write(self, users: list[User]) -> Result:
        there = len(self.inventory.among(users))
        return Result(len(users), created=len(users) - there, updated=there)

    def _would_delete(self, users: list[User]) -> Result:
        there = self.inventory.among(users)
        absent = (index for index in range(len(users)) if index not in there)
        return Result(len(there), dict.fromkeys(absent, (SKIPPED, ABSENT)))


def provision_users(hook: EmqxHook, rows: Iterable[Any], mode: str = "upsert") -> Iterator[Outcome]:
    """
    Provision users from an iterable of dicts.

    :param hook: of the broker.
    :param rows: ``{"user_id": …, "password": …, "is_superuser": …}``, read as they are needed.
    :param mode: ``"upsert"``, ``"create"`` or ``"delete"``.
    :return: an iterator over the outcomes of all rows; the work is done as it is advanced.
    :raises EmqxError: if the broker fails, after the outcomes of the rows that were done before.
    """
    source = read_source(rows, Format(ids_only=mode in IDS_ONLY))
    run = Run(hook, Plan(mode), source.expected)
    return (outcome for done in run(source.blocks) for outcome in done.all())


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


def _without(checked: Iterator[Checked], count: int) -> Iterator[Checked]:
    """Leave out the first users; what was rejected among them is told again."""
    for block in checked:
        here = min(count, len(block.users))
        count -= here
        yield block._replace(lines=block.lines[here:], users=block.users[here:])


def _hashed(checked: Iterator[Checked], hasher: Hasher) -> Iterator[Checked]:
    for block in checked:
        yield block._replace(
            users=[hasher.hashed(user) if "password" in user else user for user in block.users]
        )


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    start = time.monotonic()
    return work(), time.monotonic() - start


def _nothing(users: list[User]) -> Result:
    return Result(len(users), created=len(users), updated=0)


def _keep(users: list[User]) -> Result:
    return Result(0, dict.fromkeys(range(len(users)), (SKIPPED, KEPT)), sent=0)


def _of_bulk(bulk: BulkResult) -> Result:
    others = {index: (REJECTED, reason) for index, reason in bulk.failed.items()}
    others |= dict.fromkeys(bulk.existing, (SKIPPED, EXISTS))
    others |= dict.fromkeys(bulk.unknown, (SKIPPED, _MAYBE_OURS))
    return Result(bulk.written, others, bulk.created, bulk.updated, bulk.unchanged)


def _same_type(hook: EmqxHook, kind: str) -> None:
    if hook.user_id_type not in (None, kind):
        raise EmqxConfigError(
            f"user_id_type is {hook.user_id_type!r}, but the users of {hook.broker.authenticator} are keyed by {kind}: "
            "on EMQX 5 and newer the authenticator decides, leave user_id_type out or change the authenticator"
        )

"""The bulk work itself: checked rows go to the broker in chunks, and each row comes out with one outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from itertools import chain
from typing import TYPE_CHECKING

from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.outcomes import ABSENT, DELETED, PRUNED, UNADDRESSABLE, WRITTEN
from airflow_provider_emqx.plans.file import DELETE, SET_RULES, WRITE
from airflow_provider_emqx.plans.job import Asked, Job
from airflow_provider_emqx.provisioning import archiving, user_acl
from airflow_provider_emqx.provisioning.archiving import Archives, Snapshot
from airflow_provider_emqx.provisioning.blocks import Block
from airflow_provider_emqx.provisioning.check import Checker
from airflow_provider_emqx.provisioning.chunks import Chunk, Pace, cut
from airflow_provider_emqx.provisioning.hashing import Hasher
from airflow_provider_emqx.provisioning.inventory import BLOCK, Inventory
from airflow_provider_emqx.provisioning.limits import tell_rate
from airflow_provider_emqx.provisioning.phases import Phases
from airflow_provider_emqx.provisioning.state import State
from airflow_provider_emqx.provisioning.target import hashing_of, user_id_type
from airflow_provider_emqx.provisioning.terms import IDS_ONLY, PRUNING, UserTerms
from airflow_provider_emqx.provisioning.writing import Writer
from airflow_provider_emqx.run_log import guard
from airflow_provider_emqx.transport.pulse import EVERY, Pulse

if TYPE_CHECKING:
    from airflow_provider_emqx.results import Guard
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

#: users that EMQX Cloud Serverless holds
SERVERLESS_USERS = 2_000

#: seconds that a chunk gets to be sent before this thread goes on: two threads share one interpreter, and the broker
#: waits for the one that sends
_HEAD_START = 0.003


class Run:
    """
    One run over one source.

    :param terms: what to do with the rows.
    :param expected: tells how many rows there will be, about; ``None`` if that is not known.
    :param job: that it is part of; its plan says what is done.
    """

    def __init__(
        self,
        hook: Session,
        terms: UserTerms,
        expected: Callable[[], int | None] = lambda: None,
        job: Job | None = None,
    ) -> None:
        self.hook = hook
        self.terms = terms
        self._expected = expected
        self._job = job or Job(Asked(), hook, "users", {})
        #: rows that the source has given so far
        self.read = 0
        #: imports and deletes users, if archives are to do that
        self._archives: Archives | None = None
        self.inventory = Snapshot(hook, terms) if terms.bulk else Inventory(hook, terms)
        self.state: State | None = None
        self.phases = Phases()
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

    @property
    def verb(self) -> str:
        """The outcome of a row that is done."""
        return DELETED if self.terms.mode == "delete" else WRITTEN

    def __call__(self, blocks: Iterator[Block], confirmed: int = 0) -> Iterator[Chunk]:
        """
        Read, check, send.

        While the broker works on a chunk, the next one is read, checked and encoded.

        :param blocks: of a source.
        :param confirmed: how many of the rows that pass the check are done already.
        :return: an iterator over chunks in their order; stopping early leaves the rest of the source undone.
        :raises EmqxError: if the source or the broker fails, after the chunks that were done before.
        """
        pace = archiving.pace() if self.terms.bulk else Pace()
        writer = self._prepare(blocks, confirmed, pace)
        pool = ThreadPoolExecutor(1, "emqx-provisioning")
        under_way: tuple[Chunk, Future[tuple[BulkResult, float]]] | None = None
        try:
            for chunk in writer.chunks:
                work = writer.prepared(chunk.users)
                # nothing is sent after a chunk that failed
                done = self._finish(*under_way, pace) if under_way else None
                under_way = None
                if done and done.result.failure:
                    yield done
                    raise done.result.failure
                self._begin(chunk)
                under_way = chunk, pool.submit(copy_context().run, _timed, work)
                time.sleep(_HEAD_START)
                if done:
                    yield done
            if under_way:
                done = self._finish(*under_way, pace)
                under_way = None
                yield done
                if done.result.failure:
                    raise done.result.failure
        except GeneratorExit:
            raise
        except BaseException:
            # a signal or timeout of Airflow: what was under way is done, and told
            if under_way and not under_way[1].cancel():
                with suppress(EmqxError):
                    yield self._finish(*under_way, pace)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            if self.state is not None and not self.terms.dry_run:
                self.state.save()
        if self._error is not None:
            raise self._error

    def _prepare(self, blocks: Iterator[Block], confirmed: int, pace: Pace) -> Writer:
        """Check source and broker, and set up the way from the one to the other."""
        if self.terms.shard is not None:
            blocks = self.terms.shard.mine(blocks)
        # a source that cannot be opened fails before anything is sent
        with self.phases.time("read"):
            first = next(blocks, None)
        self._checker = self._make_checker()
        if self._archives is None:
            self._begin_small(pace)
        if self.terms.state_path:
            self.state = State(self.terms.state_path, self.terms.pepper, self.hook)
        if self._archives is not None:
            self._archives.begin()
        elif self.terms.mode in PRUNING:
            # before the first write, so that users of this run are not deleted
            self.inventory.read()
        self.phases.seconds["list"] = self.inventory.seconds
        reading = self._count(chain(() if first is None else (first,), blocks))
        checked = self.phases.timed("read", map(self._checker.check, reading))
        if confirmed:
            checked = _without(checked, confirmed)
        if self._hasher is not None and self._archives is None:
            checked = self._hashed(checked, self._hasher)
        writer = Writer(
            self.hook,
            self.terms,
            self.inventory,
            self._kind,
            self.state,
            cut(checked, pace),
            self._job,
            self._archives,
        )
        if self.hook.broker.serverless and self.terms.mode not in IDS_ONLY:
            writer.chunks = self._fitting(writer.chunks)
        if not self.terms.dry_run:
            self._tell_rate(writer, pace)
        if self.terms.acl_rules:
            self._write_rules_for_all()
        return writer

    def _begin_small(self, pace: Pace) -> None:
        """Begin with small chunks where each row takes the broker its time."""
        if self._slow:
            # a request must be answered long before the read timeout
            pace.rows = 50
        rate = self.hook.settings.rate_limit
        if rate is not None and (self.terms.mode == "delete" or not self.hook.api.users.has_bulk_upsert()):
            # each row is a request at least, and nothing is said before the first chunk is done
            pace.rows = max(1, min(pace.rows, int(rate * EVERY)))

    def _write_rules_for_all(self) -> None:
        changes = user_acl.would_ensure_for_all(self.hook, self.terms.acl_rules)
        self.acl_changed = bool(changes)
        if self.terms.dry_run:
            self._job.add(changes)
        elif changes:
            names = [name for _, name, _ in changes]
            self._job.begin(SET_RULES, names)
            user_acl.ensure_for_all(self.hook, self.terms.acl_rules)
            self._job.check_off(SET_RULES, names)

    def _begin(self, chunk: Chunk) -> None:
        """Write down in the account of a plan what is going to be written."""
        account = self._job.account
        if account is None or self.terms.dry_run or self.terms.mode == "prune":
            return
        names = [user["user_id"] for user in chunk.users]
        only_some = self.terms.mode in ("create", "delete")
        account.begin(WRITE, [name for name in names if not only_some or account.kind(name)])
        account.begin(SET_RULES, self.planned_rules(chunk))

    def planned_rules(self, chunk: Chunk) -> list[str]:
        """Return whose rules are to be changed by a plan, of the users of a chunk."""
        account = self._job.account
        names = [f"{self._kind}:{user['user_id']}" for user in chunk.users if "acl" in user]
        return [] if account is None else [name for name in names if account.kind(name, SET_RULES)]

    def _finish(self, chunk: Chunk, future: Future[tuple[BulkResult, float]], pace: Pace) -> Chunk:
        chunk.result, seconds = future.result()
        chunk.verb = self.verb
        # a way of writing may list the users first
        seconds -= self.inventory.seconds - self.phases.seconds["list"]
        self.phases.seconds["list"] = self.inventory.seconds
        sent = len(chunk.users) if chunk.result.sent is None else chunk.result.sent
        if sent:
            pace.took(sent, seconds)
            self.chunks.append(sent)
        self.phases.seconds["write"] += seconds
        return chunk

    # ------------------------------------------------------------------ pruning

    def withheld(self) -> str:
        """Return why a synchronisation may not delete anybody, empty if it may. Asked when all rows are done."""
        if not self.read:
            return "the source has no rows"
        if self._checker and self._checker.unreadable:
            return (
                f"{self._checker.unreadable} rows have an id that cannot be read: whom they name is not known"
            )
        return ""

    def prune(
        self, in_scope: int | None = None, guarded: Callable[[Guard], None] = lambda guard: None
    ) -> Iterator[Chunk]:
        """
        Delete the users in scope that are not in the source; in a dry run, only yield them. Those that no request can
        name are left.

        :param in_scope: how many were in scope before the task's first attempt, if this is not the first.
        :param guarded: is given the limit that the deletion is held to.
        :return: an iterator over chunks of those that are left, and of those that are deleted when it gives them out.
        :raises EmqxConfigError: if they are more than the terms allow; then none is deleted. A dry run tells first.
        :raises EmqxError: if the broker fails.
        """
        checker = self._checker
        if checker is None:
            return
        if not self.inventory.in_scope:
            log.warning("The broker had no user inside the scope: is it %r?", self.terms.scope)
        if left := self.inventory.unaddressable(checker.names):
            yield Chunk.of_unnamed(left, UNADDRESSABLE)
        count, pulse = 0, Pulse()
        for ids in self.inventory.prunable(checker.names):
            count += len(ids)
            if pulse.is_due():
                log.info("Comparing: %s users in scope so far are not in the source", f"{count:,}")
        before = self.inventory.in_scope if in_scope is None else in_scope
        allowed = self.terms.deletes(before)
        guarded(guard("max_deletes", count, allowed, before))
        too_many = EmqxConfigError(
            f"{count:,} of {before:,} users in scope are not in the source; the limit is {allowed:,}, none "
            "were deleted. If the source is complete, raise max_deletes; a dry run with a report lists them"
        )
        if count > allowed and not self.terms.dry_run:
            raise too_many
        account = None if self.terms.dry_run else self._job.account
        if not count and account is None:
            return
        for ids in account.left(DELETE) if account else self.inventory.prunable(checker.names):
            if self.terms.dry_run:
                yield Chunk.of_unnamed(ids, PRUNED)
                continue
            for start in range(0, len(ids), self._deletes_at_once):
                yield from self._delete(ids[start : start + self._deletes_at_once])
        if count > allowed:
            raise too_many

    def _delete(self, ids: list[str]) -> Iterator[Chunk]:
        gone: set[str] = set()
        self._job.begin(DELETE, ids)
        failure: BaseException | None = None
        with self.phases.time("prune"):
            try:
                if self._archives is not None:
                    gone, failure = self._archives.delete(ids)
                else:
                    delete = self.hook.api.users.delete
                    for one, answer in self.hook.run_each((one, delete(one)) for one in ids):
                        if isinstance(answer, EmqxError):
                            failure = failure or answer
                        elif answer is not False:
                            gone.add(one)
                        else:
                            # somebody else was faster
                            self._job.check_off(DELETE, [one], ABSENT)
            except BaseException as error:
                # raised after the deleted users are yielded
                failure = failure or error
        yield Chunk.of_unnamed([one for one in ids if one in gone], PRUNED)
        if failure is not None:
            raise failure

    @property
    def _deletes_at_once(self) -> int:
        """Return how many deletions to run between log messages: a few seconds' worth with a rate limit."""
        if self._archives is not None:
            return archiving.MOST
        rate = self.hook.settings.rate_limit
        return BLOCK if rate is None else max(1, min(BLOCK, int(rate * EVERY)))

    # ------------------------------------------------------------------ reading

    def _make_checker(self) -> Checker:
        """Check the broker, and refuse what it does not support before anything is sent."""
        hook, terms = self.hook, self.terms
        if terms.bulk:
            archiving.require(hook)
        self._kind = user_id_type(hook)
        algorithm, no_hashes = (None, "") if terms.mode in IDS_ONLY else hashing_of(hook)
        here = terms.hash_passwords or terms.bulk is not None
        self._slow = algorithm is not None and algorithm.slow and not here
        if here and terms.mode not in IDS_ONLY:
            if no_hashes or algorithm is None:
                what = "bulk='archive'" if terms.bulk else "hash_passwords"
                raise EmqxUnsupportedError(
                    f"{what} is not possible: {no_hashes}. Leave it out; a state file spares the broker "
                    "unchanged rows as well"
                )
            self._hasher = Hasher(algorithm, terms.pepper)
        if isinstance(self.inventory, Snapshot):
            self._archives = Archives(hook, terms, self.inventory, self._hasher)
        return Checker(
            hook.broker,
            ids_only=terms.mode in IDS_ONLY,
            algorithm=algorithm,
            no_hashes=no_hashes,
            no_superusers=hook.api.users.no_superusers(),
            # of other passwords there is nothing to check, and rows without hashes are checked faster
            hasher=self._hasher
            if not terms.bulk or algorithm is None or algorithm.name == "bcrypt"
            else None,
            keep=terms.mode in PRUNING,
            by_archive=terms.bulk is not None,
        )

    def _count(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Count what is read; an error ends the reading, and is raised when everything before it is done."""
        try:
            for block in blocks:
                # rows that need no request are read on and on otherwise
                self.hook.stopping.check()
                self.read += len(block.lines) + len(block.bad)
                yield block
        except Exception as error:  # an iterable may be anybody's
            self._error = error

    def _hashed(self, checked: Iterator[Chunk], hasher: Hasher) -> Iterator[Chunk]:
        for chunk in checked:
            with self.phases.time("hash"):
                chunk.users = [hasher.hashed(user) if "password" in user else user for user in chunk.users]
            yield chunk

    # ------------------------------------------------------------------ limits

    def _fitting(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Check ahead in the source whether EMQX Cloud Serverless has room for its users, and warn if not."""
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

    def _tell_rate(self, writer: Writer, pace: Pace) -> None:
        """Log before the first write how long the run will take at the limit of requests."""
        hook, mode = self.hook, self.terms.mode
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
        if writer.way.existing_one_each:
            more.insert(0, "each user that exists already")
        rows = self._expected()
        if rows is not None and self.terms.shard is not None:
            rows //= self.terms.shard.of
        tell_rate(hook, rows, at_once=1 if writer.way.one_each else pace.most, more=" and ".join(more))


def _without(checked: Iterator[Chunk], count: int) -> Iterator[Chunk]:
    """Leave out the first users; rows that were rejected among them are reported again."""
    for chunk in checked:
        here = min(count, len(chunk.users))
        count -= here
        del chunk.lines[:here], chunk.users[:here]
        yield chunk


def _timed(work: Callable[[], BulkResult]) -> tuple[BulkResult, float]:
    start = time.monotonic()
    return work(), time.monotonic() - start

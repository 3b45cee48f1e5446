"""Users by archive: who the broker has is read from one of its exports, and changes are imported as a table."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit
from uuid import uuid4

from airflow_provider_emqx.api.base import Operation, Page, fits_path
from airflow_provider_emqx.api.bulk import MAX_BODY, BulkResult
from airflow_provider_emqx.api.rows import BackupRow, NodeRow
from airflow_provider_emqx.archives.archive import ArchiveError
from airflow_provider_emqx.archives.tables import TableError
from airflow_provider_emqx.archives.users import Change, ExportedUsers, Stored, has_only_users, note
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxStoppedError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.outcomes import ABSENT, EXISTS, SKIPPED
from airflow_provider_emqx.plans.file import CREATE, DELETE, UNCHANGED, UPDATE
from airflow_provider_emqx.provisioning.chunks import Pace, User
from airflow_provider_emqx.provisioning.hashing import Hasher
from airflow_provider_emqx.provisioning.inventory import Inventory
from airflow_provider_emqx.provisioning.terms import PRUNING, UserTerms
from airflow_provider_emqx.transport.pulse import Pulse

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

T = TypeVar("T")

#: changes of one archive: while the broker imports so many, logins take milliseconds and its users' API waits for half
#: a second
MOST = 100_000
#: an export costs the broker about as much as a fifth of its users, each read by id
_USERS_PER_READ = 5
#: seconds between two checks whether an import whose response was lost is done
_PAUSES = (1.0, 2.0, 4.0, 8.0)
#: how often changes are sent at most
_ATTEMPTS = 2
#: bytes of JSON that a row may have, on the average of a chunk
_ROW = 2_000
#: users that are compared between two checks whether the task is to stop
_BLOCK = 1_000
#: how the names of archives begin on the broker's disk
PREFIX = "airflow-users-"
#: how the names of notes go on
_NOTE = "note-"
#: how the broker's own names of exports begin
_EXPORT = "emqx-export-"
#: an export belongs to a note if it is so much younger at most
_EXPORTED = timedelta(minutes=15)
#: neither soon after anything nor old
_UNKNOWN = "9999-12-31T00:00:00+00:00"
#: files of other tasks that are older belong to killed ones
_OLD = timedelta(hours=1)
#: hosts of EMQX Cloud's dedicated deployments
_CLOUD = (".emqx.cloud", ".emqxcloud.com", ".emqxcloud.cn")
_INSTEAD = "leave bulk out"


def require(hook: Session) -> None:
    """
    Refuse what archives do not fit, before anything is sent but requests that read.

    :raises EmqxUnsupportedError: with the reason.
    """
    broker = hook.broker
    host = urlsplit(hook.settings.origin).hostname or ""
    if broker.serverless or host.endswith(_CLOUD):
        reason = "EMQX Cloud does not import data over its API"
    elif not broker.at_least(5, 8):
        reason = f"it needs EMQX 5.8 or newer; this is {broker}"
    elif broker.is_scram:
        reason = f"{broker.authenticator} keeps SCRAM keys, which no source has"
    elif broker.namespace:
        reason = (
            "an import takes users of any namespace, and superusers among them, unchecked, so it is not for a "
            "connection with a namespace"
        )
    else:
        reason = _not_allowed(hook)
    if reason:
        raise EmqxUnsupportedError(f"bulk='archive' is not possible here: {reason}; {_INSTEAD}")


def _not_allowed(hook: Session) -> str:
    """Return why the cluster does not import archives, or not from this key."""
    api = hook.api
    try:
        nodes = hook.run(api.nodes.list())
        hook.run(api.users.list(limit=1))
        hook.run(api.backups.list(limit=1))
    except (EmqxAuthError, EmqxForbiddenError) as error:
        return (
            "it needs the API key of a global administrator without explicit scopes, which may read nodes, write users "
            f"and import data ({error})"
        )
    except EmqxNotFoundError as error:
        return f"this broker does not import data ({error})"
    replicants = [str(row["node"]) for row in nodes if row.get("role") == "replicant"]
    if replicants:
        return f"imports were not tried with replicants, as {', '.join(replicants[:3])}"
    return ""


def pace() -> Pace:
    """Return the size of chunks, whatever time they take: smaller ones take the broker longer."""
    return Pace(MOST, MOST, math.inf, body=MOST * _ROW)


def uninterrupted(work: Callable[[], T]) -> T:
    """
    Run to the end what would leave a file on the broker's disk otherwise, though a signal ends the task meanwhile.

    :param work: what to do.
    """
    with ThreadPoolExecutor(1, "emqx-archive") as pool:
        return pool.submit(copy_context().run, work).result()


class Snapshot(Inventory):
    """
    The users that the broker has, from one export, with hashes and salts.

    In memory is the export while it is unpacked, and then what :class:`ExportedUsers` keeps.

    :param terms: as of :class:`Inventory`.
    """

    def __init__(self, hook: Session, terms: UserTerms) -> None:
        super().__init__(hook, terms)
        self._users: ExportedUsers | None = None
        #: the files that this task has on the broker's disk
        self.files = Files(hook, f"{terms.mode} {terms.scope} {terms.shard}")

    @property
    def users(self) -> ExportedUsers:
        """All users of MQTT clients."""
        if self._users is None:
            start = time.monotonic()
            self._users = self.files.exported()
            others = self._users.others
            log.info(
                "The broker exported %s users%s",
                f"{len(self._users):,}",
                f"; {others.total():,} of {', '.join(sorted(others)[:10])} are left alone" if others else "",
            )
            if self._terms.mode in PRUNING:
                scope = self._terms.in_scope()
                self.in_scope = sum(1 for user_id in self._users.ids() if scope.fullmatch(user_id))
                self.in_scope += len(self._odd())
            self.seconds = time.monotonic() - start
        return self._users

    def read(self) -> ExportedUsers:
        """Export the users, unless that is done."""
        return self.users

    def among(self, users: list[User]) -> set[int]:
        """Return the indexes of those users that the broker has."""
        get = self.users.get
        return {index for index, user in enumerate(users) if get(user["user_id"]) is not None}

    def existing(self, users: list[User]) -> set[int]:
        """Return the indexes of those users that the broker has."""
        return self.among(users)

    def prunable(self, named: Callable[[str], bool]) -> Iterator[list[str]]:
        """
        Return the users in scope, neither superusers nor protected, that are not in the source.

        :param named: returns whether a user is in the source.
        :return: blocks of their ids.
        """
        scope, protected = self._terms.in_scope(), self._terms.protected()
        users = self.users
        ids = (
            user_id
            for user_id in users.ids()
            if scope.fullmatch(user_id) and not named(user_id) and not protected.fullmatch(user_id)
        )
        # whoever is listed is there
        ids = (user_id for user_id in ids if not cast("Stored", users.get(user_id)).is_superuser)
        while block := list(islice(ids, MOST)):
            yield block

    def unaddressable(self, named: Callable[[str], bool]) -> list[str]:
        """
        Return those in scope whose ids are not text.

        :param named: returns whether a user is in the source.
        """
        return [user_id for user_id in self._odd() if not named(user_id)]

    def _odd(self) -> list[str]:
        scope, protected = self._terms.in_scope(), self._terms.protected()
        return [one for one in self.users.odd if scope.fullmatch(one) and not protected.fullmatch(one)]


class Files:
    """
    The files that a task has on the disks of the broker's nodes for a moment, and what killed ones have left there.

    Names of exports are the broker's. So a note is uploaded before each: where a note is found later, the exports of
    users alone that followed it are of no more use.

    :param task: tells this task from others, and is the same in each of its runs.
    """

    def __init__(self, hook: Session, task: str) -> None:
        self._hook = hook
        told = f"{hook.settings.authenticator} {task}"
        self.prefix = f"{PREFIX}{hashlib.sha256(told.encode()).hexdigest()[:8]}-"

    def name(self) -> str:
        """Return a name that no file has had, without its ``.tar.gz``: a second file of a name is refused."""
        return f"{self.prefix}{uuid4().hex}"

    def exported(self) -> ExportedUsers:
        """
        Export the broker's users, and read the export.

        :raises EmqxError: if the broker fails, or what it exports is not what is known here.
        """
        try:
            content, left = uninterrupted(lambda: self._hook.run(self._take()))
        except EmqxNotFoundError:
            # a run of the same task that began meanwhile has deleted it
            content, left = uninterrupted(lambda: self._hook.run(self._take()))
        _tell_left("An export of all users", left)
        try:
            return ExportedUsers(io.BytesIO(content))
        except (ArchiveError, TableError) as error:
            raise EmqxError(
                f"bulk='archive' is not possible here: the broker's export cannot be used: {error}; {_INSTEAD}"
            ) from None

    def _take(self) -> Operation[tuple[bytes, EmqxError | None]]:
        backups = self._hook.api.backups
        nodes = yield from self._hook.api.nodes.list_running()
        # those that do not run have no version
        node = next((row for row in nodes if row.get("version")), NodeRow())
        root = f"{self.prefix}{_NOTE}{uuid4().hex}"
        edition = "ce" if node.get("edition") == "Opensource" else "ee"
        try:
            yield from backups.upload(
                f"{root}.tar.gz", note(root, edition, node.get("version") or self._hook.broker.version_text)
            )
        except EmqxBadRequestError as error:
            log.info("The broker takes no note of an export (%s): a killed run may leave one", error)
            content, left, _ = yield from backups.take(["builtin_authn"], [])
            return content, left
        yield from self._cleaned(root)
        try:
            content, left, more = yield from backups.take(["builtin_authn"], [])
        except EmqxError as error:
            yield from self._cleaned(root, ends=True, exports=error.maybe_applied)
            raise
        yield from self._cleaned(root, ends=True, exports=more)
        return content, left

    def _cleaned(self, root: str, ends: bool = False, exports: bool = True) -> Operation[None]:
        try:
            yield from self._clean(root, ends, exports)
        except EmqxError as error:
            log.warning(
                "Files %s… may stay on the broker's disk until the next run deletes them: %s",
                self.prefix,
                error,
            )

    def _clean(self, root: str, ends: bool, exports: bool) -> Operation[None]:
        """
        Delete what killed runs have left, and at the end what belongs to this note, and the note.

        :param root: of the note.
        :param ends: whether the export is done.
        :param exports: whether exports may be left. Those of tasks that run beside this one cannot be distinguished.
        """
        backups = self._hook.api.backups
        rows: list[BackupRow] = []
        page: Page[BackupRow] | None = yield from backups.list()
        while page is not None:
            rows += page.rows
            page = (yield from page.next()) if page.next else None
        own = next((row for row in rows if row["filename"] == f"{root}.tar.gz"), None)
        if own is None:
            return
        for row in rows:
            name, is_own = row["filename"], row is own
            is_left = name.startswith(self.prefix) or _moment(row) < _moment(own) - _OLD
            if not (name.startswith(PREFIX) and (ends if is_own else is_left and not ends)):
                continue
            if exports and f"-{_NOTE}" in name:
                yield from self._delete_exports(row, rows)
            yield from backups.delete(name, row["node"])
            if not is_own:
                log.warning("Deleted %s, which a killed run has left on the broker's disk", name)

    def _delete_exports(self, told: BackupRow, rows: list[BackupRow]) -> Operation[None]:
        """Delete the exports of users alone that were made soon after a note."""
        backups = self._hook.api.backups
        for row in rows:
            soon = timedelta() <= _moment(row) - _moment(told) <= _EXPORTED
            if soon and row["filename"].startswith(_EXPORT):
                try:
                    content = yield from backups.download(row["filename"], row["node"])
                except EmqxNotFoundError:
                    # that of a task beside this one
                    continue
                if has_only_users(io.BytesIO(content)):
                    yield from backups.delete(row["filename"], row["node"])
                    log.warning("Deleted the export %s, whose response was lost", row["filename"])


def _moment(row: BackupRow) -> datetime:
    return datetime.fromisoformat(row["created_at"] or _UNKNOWN)


def _tell_left(what: str, error: EmqxError | None) -> None:
    if error is not None:
        log.warning("%s stays on the broker's disk until it is deleted there: %s", what, error)


class _Compared(NamedTuple):
    """
    Users, compared with what the broker has.

    :param result: of those that need no change, or get none.
    :param changes: of the others.
    :param indexes: of these among the users.
    :param new: whether each of these is new.
    """

    result: BulkResult
    changes: list[Change]
    indexes: list[int]
    new: list[bool]


class Archives:
    """
    Write and delete users by archives that the broker imports.

    :param terms: what is to be done.
    :param snapshot: the users that the broker has.
    :param hasher: hashes plain passwords.
    """

    def __init__(self, hook: Session, terms: UserTerms, snapshot: Snapshot, hasher: Hasher | None) -> None:
        self._hook = hook
        self._terms = terms
        self._snapshot = snapshot
        self._hasher = hasher
        # users that this run has created
        self._created = 0

    def begin(self) -> None:
        """Log what is going to be done, and read the existing users."""
        log.info(
            "Users are read from an export of the broker's table of users%s",
            ""
            if self._terms.dry_run
            else f", and changed by archives: each of up to {MOST:,} changes is uploaded to the broker as "
            f"{self._snapshot.files.prefix}….tar.gz, imported, and deleted again; its API for users pauses meanwhile",
        )
        self._snapshot.read()

    def prepare(self, users: list[User]) -> Callable[[], BulkResult]:
        """
        Compare users with what the broker has, and make the archive of the differences.

        :param users: of one chunk.
        :return: what imports it.
        """
        compared = self._compared(users)
        if self._terms.dry_run:
            compared.result.changes = self._planned(users, compared)
            return lambda: self._done(compared, set())
        packed = self._packed(compared.changes)

        def write() -> BulkResult:
            missing, failure = self._write(compared.changes, packed)
            result = self._done(compared, missing)
            result.undone = {compared.indexes[at] for at in missing}
            result.failure = failure
            self._created += result.created or 0
            return result

        return write

    def delete(self, ids: list[str]) -> tuple[set[str], EmqxError | None]:
        """
        Delete users.

        :param ids: theirs.
        :return: the ids of those that are gone, and the error because of which the others may not be.
        """
        changes: list[Change] = [(user_id, None) for user_id in ids]
        missing, failure = uninterrupted(lambda: self._write(changes, self._packed(changes)))
        return {user_id for at, user_id in enumerate(ids) if at not in missing}, failure

    # ------------------------------------------------------------------ compare

    def _compared(self, users: list[User]) -> _Compared:
        compared = _Compared(BulkResult(), [], [], [])
        deleting, pulse = self._terms.mode == "delete", Pulse()
        compare = self._compare_deleted if deleting else self._compare_written
        if deleting:
            compared.result.created = compared.result.updated = compared.result.unchanged = None
        for start in range(0, len(users), _BLOCK):
            self._hook.stopping.check()
            compare(compared, users, range(start, min(start + _BLOCK, len(users))))
            if pulse.is_due():
                log.info("Comparing: %s of %s users of this chunk so far", f"{start:,}", f"{len(users):,}")
        return compared

    def _compare_deleted(self, compared: _Compared, users: list[User], block: range) -> None:
        get = self._snapshot.users.get
        for index in block:
            user_id = users[index]["user_id"]
            if get(user_id) is None:
                compared.result.others[index] = SKIPPED, ABSENT
            else:
                compared.changes.append((user_id, None))
                compared.indexes.append(index)
                compared.new.append(False)

    def _compare_written(self, compared: _Compared, users: list[User], block: range) -> None:
        get, create = self._snapshot.users.get, self._terms.mode == "create"
        unchanged = 0
        for index in block:
            user = users[index]
            user_id = user["user_id"]
            there = get(user_id)
            if there is not None and create:
                compared.result.others[index] = SKIPPED, EXISTS
                continue
            wanted = self._wanted(user, there)
            if wanted is there or wanted == there:
                unchanged += 1
                continue
            compared.changes.append((user_id, wanted))
            compared.indexes.append(index)
            compared.new.append(there is None)
        compared.result.done += unchanged
        compared.result.unchanged = (compared.result.unchanged or 0) + unchanged

    def _wanted(self, user: User, there: Stored | None) -> Stored:
        """Return what the broker is to keep of a user; the same as there is, if the password is the same."""
        flag = bool(user["is_superuser"])
        password = user.get("password")
        if password is None:
            salt = user["salt"]
            return Stored(
                user["password_hash"].encode(), salt if isinstance(salt, bytes) else salt.encode(), flag
            )
        hasher = self._hasher
        if hasher is None:
            raise EmqxConfigError("plain passwords cannot be hashed here")
        if there is not None and hasher.algorithm.made(password, there.password_hash, there.salt):
            return there if flag is there.is_superuser else there._replace(is_superuser=flag)
        hashed = hasher.hashed(user)
        return Stored(hashed["password_hash"].encode(), hashed["salt"].encode(), flag)

    def _done(self, compared: _Compared, missing: set[int]) -> BulkResult:
        """Add to what needed no change what was changed, all but those that are missing."""
        result = compared.result
        result.sent = len(compared.changes)
        done = [new for at, new in enumerate(compared.new) if at not in missing]
        result.done += len(done)
        if result.created is not None and result.updated is not None:
            result.created += sum(done)
            result.updated += len(done) - sum(done)
        return result

    def _planned(self, users: list[User], compared: _Compared) -> dict[int, list[tuple[str, str, str]]]:
        """Return what becomes of each user, for a plan."""
        there = DELETE if self._terms.mode == "delete" else UPDATE
        kinds = dict.fromkeys(range(len(users)), UNCHANGED)
        for index, new in zip(compared.indexes, compared.new, strict=True):
            kinds[index] = CREATE if new else there
        return {
            index: [(kind, users[index]["user_id"], "")]
            for index, kind in kinds.items()
            if index not in compared.result.others
        }

    # ------------------------------------------------------------------ write

    def _packed(self, changes: Sequence[Change]) -> list[tuple[str, bytes]]:
        """Make archives, each with a name that it has never had: a second file of a name is refused."""
        if not changes:
            return []
        root = self._snapshot.files.name()
        content = self._snapshot.users.pack(root, changes)
        if len(changes) > 1 and (len(content) > MAX_BODY or len(changes) > MOST):
            half = len(changes) // 2
            return self._packed(changes[:half]) + self._packed(changes[half:])
        return [(f"{root}.tar.gz", content)]

    def _write(
        self, changes: list[Change], packed: list[tuple[str, bytes]]
    ) -> tuple[set[int], EmqxError | None]:
        """
        Import archives, and read back every change: a broker imports a table that is cut without a word.

        :return: the positions of the changes that are not in force, and why.
        """
        missing = list(range(len(changes)))
        failure: EmqxError | None = None
        stopping = self._hook.stopping
        for attempt in range(1, _ATTEMPTS + 1):
            if not missing:
                break
            try:
                stopping.check()
            except EmqxStoppedError as error:
                return set(missing), failure or error
            if attempt > 1:
                packed = self._packed([changes[at] for at in missing])
            # what was imported is read back, though the task is to stop
            with stopping.held():
                failure = self._bring(packed)
                try:
                    missing = self._read_back(changes, missing, failure)
                except EmqxError as error:
                    return set(missing), failure or error
            if missing:
                log.warning(
                    "%s of %s changes are not in force after attempt %s of %s%s",
                    f"{len(missing):,}",
                    f"{len(changes):,}",
                    attempt,
                    _ATTEMPTS,
                    f": {failure}" if failure else ", though the broker confirmed the import",
                )
        if missing and failure is None:
            failure = EmqxError(
                f"the broker confirmed an import of {len(changes):,} changes, and {len(missing):,} of them are not in "
                "force: look into its log, and run the task again"
            )
        return set(missing), failure if missing else None

    def _bring(self, packed: list[tuple[str, bytes]]) -> EmqxError | None:
        """Import archives one after another; return the first error."""
        hook = self._hook
        for filename, content in packed:
            try:
                left = hook.run(hook.api.backups.bring(filename, content))
            except EmqxError as error:
                return error
            _tell_left(filename, left)
        return None

    def _read_back(self, changes: list[Change], asked: list[int], failure: EmqxError | None) -> list[int]:
        """
        Read which changes are not in force.

        :param failure: of their import. If the broker may still be at it, it is waited for.
        """
        wait = failure is not None and not isinstance(failure, EmqxBadRequestError)
        for pause in (0.0, *(_PAUSES if wait else ())):
            self._hook.stopping.sleep(pause)
            asked = self._differing(changes, asked, exact=failure is not None)
            if not asked:
                break
        return asked

    def _differing(self, changes: list[Change], asked: list[int], exact: bool) -> list[int]:
        few = len(asked) * _USERS_PER_READ < len(self._snapshot.users) + self._created
        if few and not exact and all(fits_path(changes[at][0]) for at in asked):
            return self._differing_by_id(changes, asked)
        users = self._snapshot.files.exported()
        return [at for at in asked if users.get(changes[at][0]) != changes[at][1]]

    def _differing_by_id(self, changes: list[Change], asked: list[int]) -> list[int]:
        get = self._hook.api.users.get
        differing = []
        answers = self._hook.run_many(get(changes[at][0]) for at in asked)
        for at, answer in zip(asked, answers, strict=True):
            if isinstance(answer, EmqxError):
                raise answer
            wanted = changes[at][1]
            same = (
                answer is None
                if wanted is None
                else answer is not None and answer["is_superuser"] is wanted.is_superuser
            )
            if not same:
                differing.append(at)
        return differing

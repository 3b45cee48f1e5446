"""The file of a plan: a head, a line for each change, and an end with a digest of all that stands before it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any, NamedTuple, cast

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location, open_to_read, shown
from airflow_provider_emqx.row_files import RowFile, written_whole

#: of the form of the file; a plan of another one is refused
VERSION = 1
#: changes that are read or written at a time
BLOCK = 1_000
#: kinds of changes: of a user that exists it is only known with a state file or ``bulk="archive"`` whether it differs
CREATE, WRITE, UPDATE, UNCHANGED, DELETE = "create", "write", "update", "unchanged", "delete"
SET_RULES, REMOVE_RULES = "set_rules", "remove_rules"
KICK, BAN, CHANGE_BAN, UNBAN, CLEAR = "kick", "ban", "change_ban", "unban", "clear"
IMPORT, DELETE_ON_BROKER = "import", "delete_on_broker"
_HEAD = "emqx_plan"


class Change(NamedTuple):
    """
    One change.

    :param kind: of the change, as ``"create"``.
    :param id: of what is changed, as a user id; one plan has at most one change of it.
    :param state: what the change depends on at the broker besides, as a digest of the rules that are replaced.
    """

    kind: str
    id: str
    state: str = ""


def state_of(value: Any) -> str:
    """
    Return a digest of what a change depends on.

    :param value: what the broker has; plain JSON.
    """
    told = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.blake2b(told, digest_size=8).hexdigest()


class Head(NamedTuple):
    """
    Facts about a plan that are known before its first change.

    :param job: that it is for, as ``"users"``.
    :param broker: that it is for.
    :param options: that the task had; plain JSON, no secrets.
    :param made: when.
    :param sources: names of the files that were read.
    """

    job: str
    broker: dict[str, Any]
    options: dict[str, Any]
    made: datetime
    sources: list[str]


class Draft:
    """
    A plan that is written.

    :param rows: the file.
    :param digest: of all that was written to it.
    :param head: of the plan.
    """

    def __init__(self, rows: RowFile, digest: Any, head: Head) -> None:
        self._rows = rows
        self._digest = digest
        self.kinds: Counter[str] = Counter()
        #: of the whole file, once it is finished
        self.digest = ""
        rows.write([{_HEAD: VERSION, **head._asdict(), "made": head.made.isoformat()}])

    def add(self, changes: Iterable[Change]) -> None:
        """
        Write some changes.

        :param changes: in the order in which they will be made.
        """
        written = list(changes)
        self.kinds.update(change.kind for change in written)
        self._rows.write(
            {name: value for name, value in change._asdict().items() if name != "state" or value}
            for change in written
        )

    def finish(self, facts: dict[str, Any]) -> None:
        """
        Write the end.

        :param facts: for whoever approves the plan, and what it depends on besides; plain JSON, no secrets.
        """
        end = {"changes": dict(self.kinds), "facts": facts}
        self.digest = _sealed(self._digest, end)
        self._rows.write([{**end, "digest": self.digest}])


@contextmanager
def draft(location: Location, head: Head) -> Iterator[Draft]:
    """
    Write a plan, which takes the place of an older one when it is finished.

    :param location: path or URL; packed if its name ends in ``.gz``. A local file may be read by its owner only.
    :param head: of the plan.
    :return: a context manager; an error in it leaves an older plan as it was.
    :raises EmqxError: if it cannot be written.
    """
    digest = hashlib.sha256()
    with written_whole(location, "plan", seen=digest.update) as rows:
        yield Draft(rows, digest, head)


class Plan:
    """
    A plan that is read.

    :param location: path or URL.
    :raises EmqxConfigError: if it is not a plan, or one of another version.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.name = shown(location)
        self.head = self._read_head()
        #: how many changes of each kind it has, facts, and its digest: known when all changes were read
        self.kinds: dict[str, int] = {}
        self.facts: dict[str, Any] = {}
        self.digest = ""

    def changes(self) -> Iterator[list[Change]]:
        """
        Yield its changes in blocks, in their order.

        :raises EmqxConfigError: at the end, if the plan is cut or was changed after it was written; sooner, where a
            line is not a change.
        """
        with self._opened() as lines:
            digest = hashlib.sha256(next(lines))
            kinds: Counter[str] = Counter()
            number = 1
            end: dict[str, Any] = {}
            while block := list(islice(lines, BLOCK)):
                changes = []
                for line in block:
                    number += 1
                    if end:
                        raise self._wrong(f"line {number} follows its end")
                    found = self._parsed(line, number)
                    if "digest" in found:
                        end = found
                        continue
                    changes.append(self._change(found, number))
                    digest.update(line)
                kinds.update(change.kind for change in changes)
                yield changes
        if not end:
            raise self._wrong("it is cut: its end is missing")
        claimed = end.pop("digest")
        if claimed != _sealed(digest, end) or end.get("changes") != dict(kinds):
            raise self._wrong("it was changed after it was written")
        self.kinds, self.facts, self.digest = dict(kinds), end["facts"], claimed

    def _read_head(self) -> Head:
        with self._opened() as lines:
            found = self._parsed(next(lines, b""), 1)
        version = found.pop(_HEAD, None)
        if version is None:
            raise EmqxConfigError(
                f"{self.name!r} is not a plan; expected a file that a task with dry_run=True and plan_path wrote"
            )
        if version != VERSION:
            raise EmqxConfigError(
                f"the plan {self.name!r} is of version {version!r}, and this provider reads version {VERSION}: make a "
                "new plan"
            )
        try:
            head = Head(**{**found, "made": datetime.fromisoformat(found["made"])})
            head.made.astimezone(UTC)
        except (TypeError, ValueError, KeyError):
            raise self._wrong("its first line is damaged") from None
        return head

    @contextmanager
    def _opened(self) -> Iterator[Iterator[bytes]]:
        try:
            with open_to_read(self.location) as raw:
                start = io.BufferedReader(cast("io.RawIOBase", raw))
                packed = start.peek(2)[:2] == b"\x1f\x8b"
                yield iter(cast("IO[bytes]", gzip.GzipFile(fileobj=start) if packed else start))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self._wrong("it is cut or damaged") from None

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            if number == 1:
                return {}
            cut = not line.endswith(b"\n")
            raise self._wrong("it is cut: its end is missing" if cut else f"line {number} is damaged")
        return found

    def _change(self, found: dict[str, Any], number: int) -> Change:
        try:
            change = Change(**found)
        except TypeError:
            raise self._wrong(f"line {number} is not a change") from None
        if not all(isinstance(value, str) for value in change):
            raise self._wrong(f"line {number} is not a change")
        return change

    def _wrong(self, why: str) -> EmqxConfigError:
        return EmqxConfigError(
            f"the plan {self.name!r} cannot be carried out: {why}. Nothing was done; make a new plan"
        )


def _sealed(digest: Any, end: dict[str, Any]) -> str:
    """Return the digest of all lines and of the end."""
    whole = digest.copy()
    whole.update(json.dumps(end, sort_keys=True).encode())
    return str(whole.hexdigest())

"""
Reads exports of other brokers as sources of users, ACL rules and bans: the JSON of EMQX 4, archives of EMQX 5 and 6.

A file is read twice: first to its end, since one that is cut or damaged must be refused before anything is written;
then for its rows. Neither the rows nor what else stands in it, API secrets in clear above all, is kept in memory.
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import IO, Any, TypeAlias

from airflow_provider_emqx.archives import emqx4, records
from airflow_provider_emqx.archives.archive import (
    CLUSTER,
    META,
    TABLES,
    ArchiveError,
    read_archive,
    read_meta,
)
from airflow_provider_emqx.archives.records import Found, Refused
from airflow_provider_emqx.archives.tables import TableError, read_table
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning.blocks import ARCHIVE, EXPORT, Bad, Block, Format
from airflow_provider_emqx.provisioning.formats import BLOCK, JsonText, Where
from airflow_provider_emqx.provisioning.hashing import Algorithm
from airflow_provider_emqx.provisioning.target import Made

log = logging.getLogger(__name__)

#: opens a file at its beginning
Open: TypeAlias = Callable[[], AbstractContextManager[IO[bytes]]]

_EXPORT_START = re.compile(rb'\s*\{\s*(?:"date"\s*:\s*"[^"]*"\s*,\s*)?"version"\s*:\s*"4\.')
_VERSION = re.compile(r"4\.\d")
#: bytes of the longest configuration that is looked into
_LONGEST_CONFIGURATION = 1 << 22
#: different forms of hashes that are kept
_FORMS = 20
#: names of namespaces that a log line has
_NAMED = 10
_WHAT = {"users": "users", "acl_rules": "ACL rules", "bans": "bans"}


def recognise(start: bytes) -> str | None:
    """
    Return the format of an export or an archive, from its first bytes.

    :param start: 512 bytes at least, unpacked.
    :return: ``None`` for anything else.
    """
    if start[257:262] == b"ustar":
        return ARCHIVE
    return EXPORT if _EXPORT_START.match(start) else None


def read_moved(name: str, reopen: Open, how: Format, where: Where) -> Iterator[Block]:
    """
    Read an export of another broker.

    :param name: the format, ``"emqx4-export"`` or ``"emqx-archive"``.
    :param reopen: opens the file, at its beginning: of an archive as it is, of an export unpacked.
    :param how: says what the rows are to be, and of which broker.
    :param where: for errors.
    :return: blocks of rows.
    :raises EmqxConfigError: before the first row, if the file is not of this format, is cut or damaged, or if the
        broker cannot use its hashes.
    """
    if how.columns or how.rows:
        raise where.broken(f"columns and rows do not apply to {name}: leave them out")
    read = _archive if name == ARCHIVE else _export
    look = _Look(how, name)
    for _, found in read(reopen, how, where, look.configuration):
        look.add(found)
    whose = look.judge(where)
    yield from _blocks(
        ((number, found.row) for number, found in read(reopen, how, where, None) if _is_of(found, whose)), how
    )


_Whose = tuple[str | None, str | None]


def _is_of(found: Found, whose: _Whose) -> bool:
    return found.namespace == whose[0] and found.user_id_type in (None, whose[1])


class _Look:
    """
    The results of the first reading of a file.

    :param how: says what the rows are to be.
    :param name: of the format.
    """

    def __init__(self, how: Format, name: str) -> None:
        self._how = how
        self._name = name
        self._algorithm: Algorithm | None = None
        #: records by namespace and by what they are keyed by
        self._counts: Counter[_Whose] = Counter()
        self._made: dict[tuple[_Whose, int, bool], Made] = {}

    def configuration(self, text: str) -> None:
        """Read the algorithm of the authenticator from the configuration in an archive."""
        settings = records.algorithm(text)
        if settings is not None:
            try:
                self._algorithm = Algorithm.of({"password_hash_algorithm": settings})
            except (EmqxConfigError, KeyError, ValueError):
                self._algorithm = None

    def add(self, found: Found) -> None:
        """Count a record."""
        whose = found.namespace, found.user_id_type
        self._counts[whose] += 1
        row = found.row
        if isinstance(row, dict) and (password_hash := row.get("password_hash")) is not None:
            key = whose, len(password_hash), bool(row["salt_base64"])
            if key not in self._made and len(self._made) < _FORMS:
                self._made[key] = Made(password_hash, key[-1], self._of(password_hash, key[-1]))

    def _of(self, password_hash: str, salted: bool) -> Algorithm | None:
        """Return the algorithm of a hash, ``None`` if the file does not say it."""
        if self._name == EXPORT:
            return Algorithm.of({"password_hash_algorithm": emqx4.algorithm(password_hash)})
        # a configuration that was changed says nothing about older hashes
        known = self._algorithm
        return None if known is None or known.wrong(password_hash, salted) else known

    def judge(self, where: Where) -> _Whose:
        """
        Return whose rows the broker is to get.

        :raises EmqxConfigError: if all are for others, or if it could not use their hashes.
        """
        how, target = self._how, self._how.target
        namespace = target.namespace if target and how.what != "bans" else None
        kinds = {kind for _, kind in self._counts if kind}
        kind = target.user_id_type() if target and kinds else None
        whose = namespace, kind
        mine = sum(count for one, count in self._counts.items() if _matches(one, whose))
        others = Counter({one: count for one, count in self._counts.items() if not _matches(one, whose)})
        what = _WHAT[how.what]
        if others:
            told = ", ".join(f"{count:,} of {_named(one)}" for one, count in others.most_common(_NAMED))
            log.warning(
                "%s has %s %s for this connection; it also has %s, which are left to tasks of their own",
                where.source,
                f"{mine:,}",
                what,
                told + (" and others" if len(others) > _NAMED else ""),
            )
        if not mine and others:
            raise where.broken(f"it has no {what} of {_named(whose)}")
        if not mine:
            log.warning("%s has no %s", where.source, what)
        made = [made for (one, *_), made in self._made.items() if _matches(one, whose)]
        if target and made and not how.ids_only:
            target.require(made)
        return whose


def _matches(one: _Whose, whose: _Whose) -> bool:
    return one[0] == whose[0] and one[1] in (None, whose[1])


def _named(whose: _Whose) -> str:
    namespace, kind = whose
    told = [f"user_id_type {kind}"] if kind else []
    return " and ".join([*told, f"the namespace {namespace!r}" if namespace else "no namespace"])


def _blocks(items: Iterator[tuple[int, Any]], how: Format) -> Iterator[Block]:
    while taken := list(islice(items, BLOCK)):
        good = [(number, row) for number, row in taken if not isinstance(row, Refused)]
        bad = [
            Bad(number, row.name, row.reason, (row.name or "",))
            for number, row in taken
            if isinstance(row, Refused)
        ]
        columns = tuple([row.get(name) for _, row in good] for name in how.fields)
        yield Block([number for number, _ in good], columns, bad)


def _archive(
    reopen: Open,
    how: Format,
    where: Where,
    tell: Callable[[str], None] | None,
) -> Iterator[tuple[int, Found]]:
    with reopen() as packed:
        name = ""
        try:
            for name, file, _ in read_archive(packed):
                if name == META:
                    read_meta(file)
                elif name == CLUSTER and tell:
                    tell(file.read(_LONGEST_CONFIGURATION).decode("utf-8", "replace"))
                elif name.removeprefix(TABLES) in records.TABLES[how.what] and name.startswith(TABLES):
                    yield from _table(name.removeprefix(TABLES), file, how.what)
        except TableError as error:
            raise where.broken(f"{name}: {error}") from None
        except ArchiveError as error:
            raise where.broken(f"not an archive of EMQX 5 or 6, or a damaged one: {error}") from None
        except OSError as error:
            raise where.failed(error) from None


def _table(name: str, file: IO[bytes], what: str) -> Iterator[tuple[int, Found]]:
    schema, terms = read_table(file)
    if schema.name != name:
        raise TableError(f"it holds the table {schema.name[:80]!r}")
    yield from enumerate(records.rows(what, schema, terms), 1)


def _export(
    reopen: Open,
    how: Format,
    where: Where,
    _: Callable[[str], None] | None,
) -> Iterator[tuple[int, Found]]:
    wanted, read = emqx4.ARRAYS[how.what]
    with reopen() as plain:
        text = io.TextIOWrapper(plain, encoding="utf-8", errors="surrogateescape", newline="")
        parts = JsonText(text, where).parts()
        older: Counter[str] = Counter()
        versions: list[str] = []

        def items() -> Iterator[Any]:
            for name, item in parts:
                if name == wanted:
                    yield item
                elif name == "version":
                    versions.append(str(item))
                elif name in emqx4.OLDER and item:
                    older[name] += 1

        yield from enumerate(read(items()), 1)
        if len(versions) != 1 or not _VERSION.match(versions[0]):
            raise where.broken("not an export of EMQX 4: it does not name this version")
        if older and how.what == "users":
            told = " and ".join(f"{count:,} in {name}" for name, count in older.items())
            raise where.broken(
                f"it has users in tables that EMQX had before 4.3, {told}, which are not read: import it into EMQX "
                "4.4, and export it there"
            )

"""
Table files of an archive: backups of Mnesia, which are logs of Erlang's ``disk_log``.

8 bytes of head, then items: 4 bytes of length, 4 bytes of magic, of long ones the MD5 of the length, and a term. The
first item says that it is a backup, the second is the table's schema, each other one a record. A tuple ``{table,
key}`` in place of a record deletes that key when the file is imported.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from airflow_provider_emqx.archives.terms import Atom, Term, TermError, decode, encode

#: bytes of the longest item that is read
LONGEST = 1 << 25

_HEAD = b"\x01\x02\x03\x04" + bytes([99, 88, 77, 11])
#: of a log that its writer did not close
_OPENED = b"\x01\x02\x03\x04" + bytes([6, 7, 8, 9])
_MAGIC = b"bWLA"
_WITH_MD5 = 65_528


class TableError(ValueError):
    """Not a table of an archive, or a damaged one."""


class Schema(NamedTuple):
    """
    The schema of a table.

    :param name: of the table.
    :param attributes: of its records, the key first.
    """

    name: str
    attributes: tuple[str, ...]


def read_table(file: IO[bytes]) -> tuple[Schema, Iterator[Term]]:
    """
    Read a table file.

    :param file: read as the records are asked for.
    :return: its schema, and its records.
    :raises TableError: if it is not a table, is cut, or holds anything but records; also by the iterator.
    """
    items = read_items(file)
    return _schema(next(items, b""), next(items, b"")), _records(items)


def read_items(file: IO[bytes]) -> Iterator[bytes]:
    """
    Read the items of a table file, without looking into them.

    :param file: read as the items are asked for.
    :raises TableError: if it is not a table, or is cut.
    """
    head = _read(file, len(_HEAD))
    if head == _OPENED:
        raise TableError("its writer did not finish it")
    if head != _HEAD:
        raise TableError("it does not begin as a table does")
    while start := file.read(8):
        start += _read(file, 8 - len(start))
        size, magic = struct.unpack(">I4s", start)
        if magic != _MAGIC:
            raise TableError("an item does not begin as one")
        if size > LONGEST:
            raise TableError(f"an item of {size:,} bytes, {LONGEST:,} at most are expected")
        if size >= _WITH_MD5 and _read(file, 16) != _md5(size):
            raise TableError("the size of an item is damaged")
        yield _read(file, size)


def write_table(
    file: IO[bytes], header: Term, schema: Term, records: Iterable[Term], latin: bool = False
) -> int:
    """
    Write a table file.

    :param file: written as the records come.
    :param header: the first item.
    :param schema: the second.
    :param records: the others; ``{table, key}`` deletes a key.
    :param latin: write atoms as Erlang 25 and older do.
    :return: how many records there were.
    """
    file.write(_HEAD + item(encode(header, latin)) + item(encode(schema, latin)))
    count = 0
    for record in records:
        file.write(item(encode(record, latin)))
        count += 1
    return count


def item(data: bytes) -> bytes:
    """
    Write one item.

    :param data: its term, encoded.
    """
    size = struct.pack(">I", len(data))
    return size + _MAGIC + (_md5(len(data)) if len(data) >= _WITH_MD5 else b"") + data


def _md5(size: int) -> bytes:
    return hashlib.md5(struct.pack(">I", size), usedforsecurity=False).digest()


def _read(file: IO[bytes], size: int) -> bytes:
    data = file.read(size) if size else b""
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise TableError("it is cut")
        data += more
    return data


def _records(items: Iterator[bytes]) -> Iterator[Term]:
    for number, item in enumerate(items, 1):
        yield _term(item, f"record {number:,}")


def _term(item: bytes, what: str) -> Term:
    try:
        return decode(item)
    except TermError as error:
        raise TableError(f"{what}: {error}") from None


def _schema(header: bytes, schema: bytes) -> Schema:
    if not header or not schema:
        raise TableError("it is cut before its first record")
    match _term(header, "the header"):
        case (Atom("log_header"), Atom("backup_log"), *_):
            pass
        case _:
            raise TableError("its header is not that of a backup")
    match _term(schema, "the schema"):
        case (Atom("schema"), Atom() as name, [*properties]):
            for one in properties:
                match one:
                    case (Atom("attributes"), [*attributes]) if all(isinstance(a, Atom) for a in attributes):
                        return Schema(str(name), tuple(map(str, attributes)))
    raise TableError("its schema is not one")

"""The users of an export in little memory, and archives of changes to them."""

from __future__ import annotations

import io
import mmap
import struct
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

from airflow_provider_emqx.archives.archive import (
    CLUSTER,
    META,
    TABLES,
    ArchiveError,
    read_archive,
    read_meta,
    write_archive,
)
from airflow_provider_emqx.archives.records import MQTT, USER
from airflow_provider_emqx.archives.tables import TableError, item, read_table
from airflow_provider_emqx.archives.terms import TermError, decode, is_text

#: where MQTT clients' users are; those of gateways and of single listeners are there too
TABLE = "emqx_authn_mnesia"
#: how the names of all tables of users begin
_TABLES = "emqx_authn_"
#: bytes of the longest META.hocon that is kept
_META_LONGEST = 1 << 16
_PIECE = 1 << 20
#: Erlang 25 and older write atoms with two bytes of length, newer ones with one
_ATOMS = (struct.Struct(">BH"), struct.Struct(">BB"))
_TAGS = (100, 119)
_LENGTH = struct.Struct(">I")
#: before an item's term: length, magic, and for long ones a checksum of the length
_BEFORE, _BEFORE_LONG, _LONG = 8, 24, 65_528


class Stored(NamedTuple):
    """
    Facts that the broker keeps of a user.

    :param password_hash: as its authenticator writes it.
    :param salt: any bytes.
    :param is_superuser: exempt from ACL rules.
    """

    password_hash: bytes
    salt: bytes
    is_superuser: bool


#: a change: the id, and what to write; ``None`` deletes
Change = tuple[str, Stored | None]


def _atom(name: str, form: int) -> bytes:
    return _ATOMS[form].pack(_TAGS[form], len(name)) + name.encode()


def _key(form: int) -> bytes:
    """Return how the key of a user begins: a tuple of the group and the id, a binary."""
    return b"h\x02" + _atom(MQTT, form) + b"m"


#: how a record of a user begins, in both forms of atoms
_STARTS = tuple(b"\x83h\x05" + _atom(TABLE, form) + _key(form) for form in (0, 1))
_DELETIONS = tuple(b"\x83h\x02" + _atom(TABLE, form) + _key(form) for form in (0, 1))
_FLAGS = tuple((_atom("false", form), _atom("true", form)) for form in (0, 1))
_ENDS = frozenset(flag for flags in _FLAGS for flag in flags)
_TRUE_SIZE = len("true")
_BINARY = ord("m")
_MAGIC = b"bWLA"
#: after the head, the start of the first item, and the start of its tuple
_FIRST_ATOM = 8 + 8 + 3


class ExportedUsers:
    """
    The users of MQTT clients in an export: found by id, and listed.

    The unpacked table is in a temporary file that has no name, so that it is gone with the process; in memory are 11 to
    23 bytes for each user.

    :param content: the export, a ``.tar.gz``.
    :raises ArchiveError: if it is not an archive with a table of users, or is damaged.
    :raises TableError: if the table is damaged, or its records have other fields than those that are known here.
    """

    def __init__(self, content: IO[bytes]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the object
        #: which EMQX made the export, as archives for it have to say
        self.meta = b""
        size = 0
        for name, file, _ in read_archive(content):
            if name == META:
                self.meta = file.read(_META_LONGEST)
                read_meta(io.BytesIO(self.meta))
            elif name == TABLES + TABLE:
                while piece := file.read(_PIECE):
                    size += self._file.write(piece)
        if not size:
            raise ArchiveError(f"it has no table {TABLE}")
        self._file.flush()
        self._data = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)
        self._check_schema()
        #: users by the group that they are of, besides those of MQTT clients
        self.others: Counter[str] = Counter()
        #: ids that no request and no row can have, for people to read
        self.odd: list[str] = []
        self._offsets = array("q")
        self._slots = array("q")
        self._index()

    def __len__(self) -> int:
        return len(self._offsets)

    def get(self, user_id: str) -> Stored | None:
        """
        Return what the broker keeps of a user.

        :param user_id: the id.
        :return: ``None`` if it has none of this id.
        """
        key = user_id.encode()
        data, slots, unpack = self._data, self._slots, _LENGTH.unpack_from
        mask, size = len(slots) - 1, len(key)
        slot = hash(key) & mask
        while at := slots[slot]:
            if unpack(data, at)[0] == size and data[at + 4 : at + 4 + size] == key:
                start = at + 9 + size
                middle = start + unpack(data, start - 4)[0]
                end = middle + 5 + unpack(data, middle + 1)[0]
                # the flag is an atom, whose size tells one from the other
                is_superuser = data[end + 2 - self._form] == _TRUE_SIZE
                return Stored(data[start:middle], data[middle + 5 : end], is_superuser)
            slot = (slot + 1) & mask
        return None

    def ids(self) -> Iterator[str]:
        """Return an iterator over all ids, in the order of the table."""
        data, unpack = self._data, _LENGTH.unpack_from
        return (data[at + 4 : at + 4 + unpack(data, at)[0]].decode() for at in self._offsets)

    def pack(self, root: str, changes: Iterable[Change]) -> bytes:
        """
        Write an archive that changes users when this broker imports it, and nothing else.

        :param root: name of the file without its ``.tar.gz``.
        :param changes: ids and what to write; ``None`` deletes a user.
        :return: the archive. It has no configuration, not even an empty one: that would be put into force too.
        """
        records = (record(user_id.encode(), stored, self._form) for user_id, stored in changes)
        table = b"".join([self._data[: self._start], *records])
        files = (
            (META, io.BytesIO(self.meta), len(self.meta)),
            (TABLES + TABLE, io.BytesIO(table), len(table)),
        )
        target = io.BytesIO()
        # digits of hashes do not get smaller by trying harder
        write_archive(target, root, files, level=1)
        return target.getvalue()

    def _check_schema(self) -> None:
        file = io.BytesIO(self._data[: 1 << 16])
        schema, _ = read_table(file)
        # where the records begin
        self._start = file.tell()
        # all atoms of a table have one form; the first one follows version, tag and size of the header's tuple
        self._form = int(self._data[_FIRST_ATOM] != _TAGS[0])
        if schema.name != TABLE:
            raise TableError(f"{TABLES}{TABLE} holds the table {schema.name[:80]!r}")
        if schema.attributes != USER:
            raise TableError(
                f"{TABLE} has the fields {', '.join(schema.attributes)[:200]}; expected {', '.join(USER)}"
            )

    def _index(self) -> None:
        data, size, at = self._data, len(self._data), self._start
        unpack, offsets, digests = _LENGTH.unpack_from, self._offsets, array("q")
        start = _STARTS[self._form]
        skip = len(start)
        while at < size:
            (length,) = unpack(data, at) if at + _BEFORE <= size else (size,)
            begin = at + (_BEFORE if length < _LONG else _BEFORE_LONG)
            at_end = begin + length
            if at_end > size or data[at + 4 : at + 8] != _MAGIC:
                raise TableError(f"{TABLE} is cut or damaged")
            at = at_end
            id_at = begin + skip
            if data[begin:id_at] == start and self._is_whole(id_at, at_end):
                key = data[id_at + 4 : id_at + 4 + unpack(data, id_at)[0]]
                if key.isascii() or is_text(key):
                    offsets.append(id_at)
                    digests.append(hash(key))
                else:
                    self.odd.append(_shown(key))
            else:
                self._note_other(data[begin:at_end])
        # at most 7 in 10 slots are taken
        slots = 1 << (len(digests) * 10 // 7 + 1).bit_length()
        self._slots = taken = array("q", bytes(8 * slots))
        mask = slots - 1
        for begin, digest in zip(offsets, digests, strict=True):
            slot = digest & mask
            while taken[slot]:
                slot = (slot + 1) & mask
            taken[slot] = begin

    def _note_other(self, data: bytes) -> None:
        """Note a record that is not, or not in the usual form, one of a user of MQTT clients."""
        try:
            match decode(data):
                case (_, (group, key), *_):
                    pass
                case _:
                    raise TableError(f"{TABLE} has a record of an unknown form")
        except TermError as error:
            raise TableError(f"{TABLE}: {error}") from None
        if group == MQTT:
            self.odd.append(_shown(key) if isinstance(key, bytes) else str(key))
        else:
            self.others[_shown(group) if isinstance(group, bytes) else str(group)] += 1

    def _is_whole(self, at: int, at_end: int) -> bool:
        """Return whether what follows the start of a record has the usual form: three binaries, then a flag."""
        data, unpack = self._data, _LENGTH.unpack_from
        for _ in range(2):
            if at + 4 > at_end:
                return False
            at += 4 + unpack(data, at)[0]
            if at >= at_end or data[at] != _BINARY:
                return False
            at += 1
        if at + 4 > at_end:
            return False
        return data[at + 4 + unpack(data, at)[0] : at_end] in _ENDS


def note(root: str, edition: str, version: str) -> bytes:
    """
    Write an archive that changes nothing.

    :param root: as of :meth:`ExportedUsers.pack`.
    :param edition: of the broker that is to take it.
    :param version: the same.
    """
    meta = f'edition = {edition}\nversion = "{version}"\n'.encode()
    target = io.BytesIO()
    write_archive(target, root, [(META, io.BytesIO(meta), len(meta))])
    return target.getvalue()


def has_only_users(content: IO[bytes]) -> bool:
    """
    Return whether an archive has users and nothing else, as :func:`ExportedUsers` takes it.

    :param content: the archive.
    """
    try:
        members = {name: size for name, _, size in read_archive(content)}
    except ArchiveError:
        return False
    tables = [name for name in members if name.startswith(TABLES)]
    return (
        members.get(CLUSTER) == 0
        and TABLES + TABLE in tables
        and all(name.startswith(TABLES + _TABLES) for name in tables)
        and len(members) == len(tables) + 2
    )


def record(key: bytes, stored: Stored | None, form: int = 1) -> bytes:
    """
    Write one item of the table of users.

    :param key: the id.
    :param stored: what the broker is to keep, ``None`` to delete the user.
    :param form: of atoms, 0 as Erlang 25 and older write them, 1 as newer ones do.
    """
    if stored is None:
        return item(_DELETIONS[form] + _LENGTH.pack(len(key)) + key)
    password_hash, salt, flag = stored
    return item(
        b"".join(
            (
                _STARTS[form],
                _LENGTH.pack(len(key)),
                key,
                b"m",
                _LENGTH.pack(len(password_hash)),
                password_hash,
                b"m",
                _LENGTH.pack(len(salt)),
                salt,
                _FLAGS[form][flag],
            )
        )
    )


def _shown(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")

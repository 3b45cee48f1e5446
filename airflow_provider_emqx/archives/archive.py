"""Archives of EMQX 5 and 6, ``.tar.gz``: read member by member, never unpacked to a disk, and checked to their end."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple, cast

META = "META.hocon"
CLUSTER = "cluster.hocon"
TABLES = "mnesia/"
#: bytes of the longest META.hocon that is read
_META_LONGEST = 1 << 16
#: an archive may expand to so many times its size; hashes hardly do, rules that are all alike perhaps 50 times
_EXPANDS = 250
#: whatever the size of the packed file, so many bytes are harmless
_HARMLESS = 1 << 26
#: of the end of a tar
_END = bytes(1024)
_DAMAGED = "it is cut or damaged"


class ArchiveError(Exception):
    """Not an archive, or a damaged one."""


class Member(NamedTuple):
    """
    A file in an archive.

    :param name: below the archive's one directory, as ``mnesia/emqx_acl``.
    :param file: to be read before the next member is asked for.
    :param size: its bytes.
    """

    name: str
    file: IO[bytes]
    size: int


class Meta(NamedTuple):
    """
    The EMQX that made an archive.

    :param edition: ``ce`` or ``ee``.
    :param version: of EMQX.
    """

    edition: str
    version: str


def read_archive(packed: IO[bytes]) -> Iterator[Member]:
    """
    Read an archive.

    :param packed: the ``.tar.gz``.
    :return: an iterator over its files. Only when it has ended is the archive known to be whole.
    :raises ArchiveError: if it is not an archive, is cut or damaged, expands too far, or has links or
        paths outside of its directory; also by reading from a member.
    """
    plain = _Unpacked(packed)
    try:
        # a name may be larger than the memory, but not than what the file may expand to
        with tarfile.open(fileobj=cast("Any", plain), mode="r|", bufsize=1 << 16) as archive:
            seen: set[str] = set()
            roots: set[str] = set()
            for member in archive:
                root, _, name = member.name.partition("/")
                if member.name.startswith("/") or {root, *name.split("/")} & {"..", "."}:
                    raise ArchiveError(f"it has a file outside of its directory, {member.name[:80]!r}")
                if not (member.isreg() or member.isdir()):
                    raise ArchiveError(f"it has a link or a device, {member.name[:80]!r}")
                roots.add(root)
                if len(roots) > 1:
                    raise ArchiveError(
                        "its files are in several directories; expected is one for all of them"
                    )
                if member.isdir():
                    continue
                if name in seen:
                    raise ArchiveError(f"it has {name[:80]!r} twice")
                seen.add(name)
                yield Member(name, cast("IO[bytes]", _Content(archive.extractfile(member))), member.size)
            plain.finish()
        if META not in seen:
            raise ArchiveError(f"it has no {META}, as every archive of EMQX has")
    except tarfile.TarError:
        raise ArchiveError(_DAMAGED) from None


def read_meta(file: IO[bytes]) -> Meta:
    """
    Read which EMQX made an archive.

    :param file: its ``META.hocon``.
    :raises ArchiveError: if it does not tell.
    """
    text = file.read(_META_LONGEST).decode("utf-8", "replace")
    told = dict(re.findall(r'^\s*(edition|version)\s*[=:]\s*"?([\w.+-]+)"?\s*$', text, re.MULTILINE))
    if told.keys() != {"edition", "version"}:
        raise ArchiveError(f"its {META} does not say which edition and version of EMQX made it")
    return Meta(told["edition"], told["version"])


def write_archive(
    target: IO[bytes], root: str, files: Iterable[tuple[str, IO[bytes], int]], level: int = 9
) -> None:
    """
    Write an archive.

    :param target: where to.
    :param root: the one directory in it, as the file is called without its ``.tar.gz``.
    :param files: name below that directory, content and size of each.
    :param level: how hard to try to make it small, 1 to 9.
    """
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=level) as archive:
        for name, content, size in files:
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = size
            member.mode = 0o600
            archive.addfile(member, content)


class _Unpacked(io.RawIOBase):
    """
    Unpacks a file, and checks how large it gets, and its end.

    :param packed: the file.
    """

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = _Counted(packed)
        self._plain = gzip.GzipFile(fileobj=cast("Any", self._packed))
        self._last = b""
        self._size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._plain.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise ArchiveError(_DAMAGED) from None
        self._size += len(data)
        if self._size > _HARMLESS + _EXPANDS * self._packed.size:
            raise ArchiveError(
                f"it expands to more than {_EXPANDS} times its size, which archives of a broker never do"
            )
        self._last = (self._last + data[-len(_END) :])[-len(_END) :]
        return data

    def finish(self) -> None:
        """Read to the end, which is where the checksum is, and see that it is the end of an archive."""
        while self.read(1 << 16):
            pass
        if self._last != _END:
            raise ArchiveError(_DAMAGED)


class _Content(io.RawIOBase):
    """
    The content of a member.

    :param file: as :mod:`tarfile` gives it.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._file.read(size))
        except tarfile.TarError:
            raise ArchiveError(_DAMAGED) from None


class _Counted(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self.size += len(data)
        buffer[: len(data)] = data
        return len(data)

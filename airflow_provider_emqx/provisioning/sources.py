"""Sources of rows: files, opened one after the other, or lists, read block by block."""

from __future__ import annotations

import bz2
import codecs
import fnmatch
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, NamedTuple, cast

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.files import (
    Location,
    exists,
    files_in,
    files_like,
    is_directory,
    is_location,
    is_plainly_location,
    open_to_read,
    shown,
    size_and_age,
)
from airflow_provider_emqx.provisioning.blocks import ARCHIVE, EXPORT, Block, Format, trimmed
from airflow_provider_emqx.provisioning.formats import (
    FAILURES,
    Where,
    objects,
    read_csv,
    read_json_array,
    read_json_lines,
    read_parquet,
)
from airflow_provider_emqx.provisioning.moving import read_moved, recognise

_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_READERS = {"csv": read_csv, "json": read_json_array, "jsonl": read_json_lines}
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
#: files that a plan names
_NAMED = 20
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zstd")
#: what the store of a URL takes off the end of a name itself; anything else there is part of the name
_NO_NAME = {
    **dict.fromkeys(("http", "https"), re.compile(r"[?#].*")),
    **dict.fromkeys(("s3", "s3a"), re.compile(r"\?versionId=.*")),
    **dict.fromkeys(("gs", "gcs"), re.compile(r"#\d+\Z")),
}


class Source(NamedTuple):
    """
    Where rows come from.

    :param blocks: of rows, read as they are asked for.
    :param files: that they are in, if any.
    :param expected: tells how many rows there will be, about; ``None`` if that cannot be known without reading them.
    :param takes: tells whether a file would be one of them if it were there.
    :param unread: files and directories that stand beside them, and are not read.
    :param chosen: whether a pattern or a format says which files are meant.
    :param again: opens it once more; ``None`` for an iterator, which can be read once only.
    """

    blocks: Iterator[Block]
    files: Sequence[Location] = ()
    expected: Callable[[], int | None] = lambda: None
    takes: Callable[[Location], bool] = lambda target: False
    unread: Sequence[str] = ()
    chosen: bool = False
    again: Callable[[], Source] | None = None

    def names(self) -> list[str]:
        """Return the first names of the files, for a plan."""
        return [shown(file) for file in self.files[:_NAMED]]

    @property
    def several(self) -> bool:
        """Whether a row is known only by its line and its file."""
        return len(self.files) + len(self.unread) > 1

    def withheld(self) -> str:
        """Return why nobody may be deleted for having no row here, empty if there is no reason."""
        if self.chosen or not self.unread:
            return ""
        return (
            f"{len(self.unread):,} files or directories of the source are not read, {self.unread[0]!r} for one: "
            "users that they name would go. Say which files are meant by a pattern, as 'devices/*.csv', or give format="
        )

    def spare(self, **targets: Location | None) -> None:
        """
        Make sure that what a task writes is neither what it reads, now or at its next run, nor written twice.

        :param targets: paths or URLs of the files that are to be written, by what they are.
        :raises EmqxConfigError: if one is among the files of the source, or would be, or two are the same.
        """
        taken: dict[str, str] = {}
        for what, target in targets.items():
            if not target:
                continue
            place = _same(target)
            if place in map(_same, self.files) or self.takes(target):
                raise EmqxConfigError(
                    f"the {what} {shown(target)!r} is one of the files of the source, or would be at the next run: "
                    "give it another place"
                )
            if place in taken:
                raise EmqxConfigError(
                    f"{taken[place]} and {what} are both {shown(target)!r}: give each a file of its own"
                )
            taken[place] = what

    def close(self) -> None:
        """Close an open file or database connection now, in the thread that opened it."""
        if isinstance(self.blocks, Generator):
            self.blocks.close()


def read_source(given: Any, how: Format) -> Source:
    """
    Open the source of an operator.

    :param given: path, URL or ObjectStoragePath of a file, of a directory, or with shell patterns in it; or an iterable
        of dicts.
    :param how: its format.
    :raises EmqxConfigError: if it is something else, or no files are found.
    """
    if isinstance(given, str) and given and not _is_place(given):
        # not shown: there may be passwords in it
        raise EmqxConfigError(
            "source is text, but neither a URL nor a path that exists here; it is not shown, because it may hold rows. "
            "If it is the text of a list, as a template makes it of rows, give the list itself (the task's output "
            "instead of a template), or write the rows to a file"
        )
    if is_location(given):
        found = find(given, how)
        files = found.files
        return Source(
            read_files(files, how),
            files,
            lambda: estimate(files, how),
            found.takes,
            found.unread,
            chosen=found.chosen,
            again=lambda: read_source(given, how),
        )
    if given is None or (isinstance(given, str) and not given):
        raise EmqxConfigError("source has no value: give a path, a URL or a list of rows")
    if hasattr(given, "columns") and callable(getattr(given, "to_dict", None)):
        # a pandas DataFrame; what iterates over it gets the names of its columns
        given = given.to_dict("records")
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise EmqxConfigError(f"source must be a path, a URL or a list of rows, not {type(given).__name__}")
    if how.rows:
        raise EmqxConfigError(
            "the source option rows names the array in a JSON file, but source is a list: leave it out"
        )
    if hasattr(given, "__array__"):
        raise EmqxConfigError(
            f"source must be a path, a URL or a list of rows, not {type(given).__name__}: of a pandas table "
            "give the DataFrame"
        )
    blocks = trimmed(read_rows(given, how), how)
    again = None if isinstance(given, Iterator) else lambda: read_source(given, how)
    return Source(blocks, (), lambda: len(given) if isinstance(given, Sized) else None, again=again)


def _is_place(text: str) -> bool:
    return "://" in text[:20] or is_plainly_location(text) or ("\0" not in text and os.path.exists(text))


def estimate(files: Sequence[Location], how: Format) -> int | None:
    """
    Guess how many rows files have, from the start of the first one and the sizes of all.

    :param files: as :func:`find` gives them.
    :param how: their format.
    """
    name = how.name or _known(str(files[0]))
    sizes = [size_and_age(file) for file in files]
    with open_to_read(files[0]) as raw:
        start = raw.read(1 << 16)
    try:
        text = zlib.decompressobj(31).decompress(start) if start[:2] == _GZIP else start
    except zlib.error:
        return None
    rows = (
        text.count(b"\n")
        if name == "csv"
        else text.count(f'"{how.column("user_id").rpartition(".")[2]}"'.encode())
    )
    if not rows or name not in _READERS or None in sizes:
        return None
    return round(rows / len(start) * sum(found[0] for found in sizes if found))


class Found(NamedTuple):
    """
    The files that a source stands for.

    :param files: in the order of their names.
    :param unread: files and directories that stand beside them, and are not read.
    :param chosen: whether a pattern or a format says which files are meant.
    :param takes: tells whether another file would be one of them if it were there.
    """

    files: Sequence[Location]
    unread: Sequence[str] = ()
    chosen: bool = False
    takes: Callable[[Location], bool] = lambda target: False


def find(source: Location, how: Format) -> Found:
    """
    Find the files of a source.

    :param source: path or URL of a file, of a directory, or with shell patterns in it.
        An existing path is not a pattern.
    :param how: its ``name``: without one, a directory's files are those whose suffix tells their format.
    :raises EmqxConfigError: if a directory or pattern has no files.
    """
    directory, pattern = _split_pattern(source)
    unread: list[Location] = []
    if pattern:
        files = files_like(pattern, directory)
    elif str(source).endswith("/") or is_directory(source):
        files, unread = files_in(source)
    else:
        return Found([source])
    meant: list[Location] = []
    for file in files:
        (meant if pattern or how.name or _known(str(file)) else unread).append(file)
    meant = [file for file in meant if not _is_hidden(str(file))]
    if not meant:
        raise EmqxConfigError(f"no data files found at {shown(source)!r}")
    names = sorted(shown(one) for one in unread if not _is_hidden(str(one)))
    return Found(meant, names, bool(pattern or how.name), partial(takes, directory, pattern, how))


def takes(directory: Location, pattern: str, how: Format, target: Location) -> bool:
    """
    Return whether a file would be among those that a directory or a pattern stands for.

    :param directory: its path or URL.
    :param pattern: shell pattern of the files below it, empty for all that stand right in it.
    :param how: as for :func:`find`.
    :param target: path or URL of the file, which need not be there.
    """
    base, name = _same(directory).rstrip("/"), _same(target)
    if not name.startswith(f"{base}/") or _is_hidden(name):
        return False
    parts = name.removeprefix(f"{base}/").split("/")
    if pattern:
        return _matches(parts, pattern.split("/"))
    return len(parts) == 1 and (how.name is not None or _known(name) is not None)


def read_files(files: Sequence[Location], how: Format) -> Iterator[Block]:
    """
    Read files, one after the other.

    :param files: as :func:`find` gives them.
    :param how: their format.
    :return: blocks of rows; of several files each block tells its own.
    :raises EmqxConfigError: as :func:`read_file` does.
    """
    for file in files:
        blocks = read_file(file, how)
        yield from blocks if len(files) == 1 else (block._replace(file=shown(file)) for block in blocks)


def read_file(source: Location, how: Format) -> Iterator[Block]:
    """
    Read a file.

    :param source: local path, URL that Airflow's ObjectStoragePath knows, or such a path.
    :param how: its format.
    :return: blocks of rows. Memory is bounded whatever the file's size.
    :raises EmqxConfigError: if the file is missing, empty, no text, lacks a column, or breaks off; what was read until
        then has been given out.
    :raises EmqxError: if reading fails, or the file was changed meanwhile; the same.
    """
    title = shown(source)
    where = Where(title)
    before = size_and_age(source)
    name = how.name or _known(str(source))
    # a pipe, which has no size, can be read only once
    if how.name is None and name in (None, "json") and (before is None or before[0]):
        name = _exported(source, where) or name
    if name is None:
        raise _unknown(source)
    if name in (EXPORT, ARCHIVE):
        # what a broker has written is exact: nothing is taken off its texts
        yield from read_moved(name, partial(_opened, source, name == ARCHIVE, where), how, where)
    elif how.rows and name != "json":
        raise EmqxConfigError(
            f"the source option rows names the array in a JSON file, but {title} is {name}: leave it out"
        )
    else:
        yield from trimmed(_read_rows(source, name, how, where), how)
    # a pipe has no size, and its age changes; with rows that were missed, users would be deleted
    if before and before[0] and size_and_age(source) != before:
        raise EmqxError(
            f"{title} was changed while it was read: some rows may have been missed. Run the task again"
        )


def _read_rows(source: Location, name: str, how: Format, where: Where) -> Iterator[Block]:
    with open_to_read(source) as raw:
        if name == "parquet":
            yield from read_parquet(raw, how, where)
            return
        with _plain(raw, where) as plain:
            _check_is_text(plain, how, where)
            text = io.TextIOWrapper(
                cast("IO[bytes]", plain),
                encoding=_codec(how.encoding),
                errors="surrogateescape",
                newline="",
            )
            yield from _READERS[name](text, how, where)


def _exported(source: Location, where: Where) -> str | None:
    """Detect from its content whether a file is a broker's export, and of which form."""
    try:
        with _opened(source, False, where) as plain:
            return recognise(plain.peek(1 << 10))
    except FAILURES:
        # told when it is read
        return None


@contextmanager
def _opened(source: Location, packed: bool, where: Where) -> Iterator[Any]:
    with open_to_read(source) as raw:
        if packed:
            yield raw
            return
        with _plain(raw, where) as plain:
            yield plain


def read_rows(rows: Iterable[Any], how: Format) -> Iterator[Block]:
    """
    Read rows from a list or any other iterable of dicts.

    :param rows: ``{"user_id": …, "password": …, "is_superuser": …}``.
    :param how: only its ``columns`` count.
    :return: blocks of rows; the line of a row is its position, from 1.
    """
    yield from objects(enumerate(rows, 1), how)


def _same(location: Location) -> str:
    """Return what tells a file from another: of a URL without the connection, of a local file the real path."""
    scheme, url, rest = str(location).partition("://")
    if not url or scheme in ("file", "local"):
        return os.path.realpath(rest if url else str(location))
    bucket, slash, key = rest.rstrip("/").partition("/")
    return f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}"


def _matches(names: list[str], patterns: list[str]) -> bool:
    """Match a path part by part; ``**`` is any number of them."""
    if not names or not patterns:
        return not names and not patterns
    name, pattern, rest = names[0], patterns[0], patterns[1:]
    if pattern == "**" and (_matches(names, rest) or _matches(names[1:], patterns)):
        return True
    return fnmatch.fnmatchcase(name, pattern) and _matches(names[1:], rest)


def _is_hidden(file: str) -> bool:
    """Return whether a name is that of a hidden file, or of one that Hadoop and Spark put beside theirs."""
    return os.path.basename(file.rstrip("/"))[:1] in (".", "_")


def _known(source: str) -> str | None:
    """Infer the format from a file extension; ``None`` if it is unknown."""
    no_name = _NO_NAME.get(source.partition("://")[0])
    stem, suffix = os.path.splitext((no_name.sub("", source) if no_name else source).lower())
    return _SUFFIXES.get(os.path.splitext(stem)[1] if suffix in _PACKED else suffix)


def _unknown(source: Location) -> EmqxConfigError:
    return EmqxConfigError(
        f"{shown(source)}: neither the name (.csv, .json, .jsonl, also with .gz, .bz2, .xz or .zst; .parquet) nor the "
        "content (an export of EMQX 4, an archive of EMQX 5 or 6) tells the format: give format="
    )


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[")


def _split_pattern(source: Location) -> tuple[Location, str]:
    """Split a path before its first shell pattern; an existing path does not have one."""
    parts = str(source).split("/")
    for at, part in enumerate(parts):
        if _is_pattern(part) and not exists("/".join(parts[: at + 1])):
            return "".join(f"{part}/" for part in parts[:at]), "/".join(parts[at:])
    return source, ""


def _plain(raw: IO[bytes], where: Where) -> io.BufferedReader[Any]:
    """Undo a compression, if the file's first bytes say so."""
    packed: io.BufferedReader[Any] = io.BufferedReader(cast("io.RawIOBase", raw), 1 << 18)
    start = packed.peek(6)
    plain: Any
    if start[:2] == _GZIP:
        plain = gzip.GzipFile(fileobj=packed)
    elif start[:3] == b"BZh":
        plain = _Streams(packed, bz2.BZ2Decompressor)
    elif start[:6] == b"\xfd7zXZ\x00":
        plain = _Streams(packed, lzma.LZMADecompressor)
    elif start[:4] == _ZSTD:
        plain = _unzstd(packed, where)
    else:
        return packed
    return io.BufferedReader(plain, 1 << 18)


class _Streams(io.RawIOBase):
    """
    Decompress one stream after the other. BZ2File and LZMAFile do too, but take a damaged one for the end of the file.

    :param packed: the streams.
    :param start: makes the decompressor of one.
    """

    def __init__(self, packed: io.BufferedReader[Any], start: Callable[[], Any]) -> None:
        self._packed = packed
        self._start = start
        self._stream = start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._stream.eof:
                # zeros may pad an xz file
                data = self._stream.unused_data.lstrip(b"\0") or self._packed.read1().lstrip(b"\0")
                if not data:
                    if not self._packed.peek(1):
                        return 0
                    continue
                self._stream = self._start()
            elif self._stream.needs_input:
                data = self._packed.read1()
                if not data:
                    raise EOFError
            if plain := self._stream.decompress(data, len(buffer)):
                buffer[: len(plain)] = plain
                return len(plain)


def _unzstd(packed: io.BufferedReader[Any], where: Where) -> Any:
    try:
        from pyarrow import CompressedInputStream  # type: ignore[import-untyped]
    except ImportError:
        raise where.broken(
            "Zstandard needs airflow-provider-emqx[parquet] on the workers; gzip, bz2 and xz need nothing"
        ) from None
    return CompressedInputStream(packed, "zstd")


def _check_is_text(plain: io.BufferedReader[Any], how: Format, where: Where) -> None:
    try:
        start = plain.peek(1 << 12)
    except FAILURES as error:
        raise where.failed(error) from None
    if not start.strip(b"\xef\xbb\xbf \t\r\n"):
        raise where.broken("the file is empty")
    if start[:4] == b"PK\x03\x04":
        raise where.broken("this is a ZIP archive, perhaps an Excel workbook: export it as CSV, or unpack it")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") and _codec(how.encoding) == "utf-8-sig":
        raise where.broken("this is UTF-16: give the source option encoding='utf-16'")
    # one of them is a row's, and rejected with it
    if start.count(0) > len(start) / 50 and _codec(how.encoding)[:6] not in ("utf-16", "utf-32"):
        raise where.broken("this is not a text file: it contains NUL bytes")


def _codec(encoding: str) -> str:
    name = codecs.lookup(encoding).name
    return "utf-8-sig" if name == "utf-8" else name

"""Reads rows of users from files and lists, block by block, without ever holding the whole source."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import IO, Any, ClassVar, NamedTuple, cast

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.provisioning.files import (
    Location,
    files_in,
    is_directory,
    is_location,
    locate,
    open_to_read,
    size_and_age,
)

#: fields that a row may have, in the order in which rows of every source give them
FIELDS = ("user_id", "password", "is_superuser", "password_hash", "salt", "acl")

#: rows read at a time
BLOCK = 500
#: characters of the longest row: more than fits into one request
LONGEST = 8_000_000

_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_GZIP = b"\x1f\x8b"
FORMATS = ("csv", "json", "jsonl", "parquet")


class Bad(NamedTuple):
    """
    A row that is rejected.

    :param line: physical line where it starts, for lists its position, both from 1.
    :param user_id: its id, ``None`` where it has none or where what stands in its place could be a password.
    :param reason: what is wrong with it.
    :param maybe: texts of the row, of which one may be its id. Never shown: another may be the password.
    """

    line: int
    user_id: object
    reason: str
    maybe: tuple[str, ...] = ()


class Block(NamedTuple):
    """
    Some rows of a source.

    :param lines: where each row starts.
    :param columns: for each of the format's fields its values, as many as lines; ``None`` where a row has none.
    :param bad: rows that could not be read.
    :param file: which of several files they are from.
    """

    lines: Sequence[int]
    columns: tuple[Sequence[Any], ...]
    bad: list[Bad]
    file: str = ""


@dataclass(frozen=True)
class Format:
    """
    How a file is to be read.

    :param name: ``"csv"``, ``"json"`` (one array of objects), ``"jsonl"`` (one object per line), ``"parquet"``, or
        ``None`` to tell by the file's suffix. Whether it is gzipped is told by its content.
    :param columns: name of the source's column for each field that is called otherwise there.
    :param ids_only: whether a source needs no column but the ids.
    :param delimiter: of CSV, one character.
    :param encoding: of the text; a byte order mark is accepted in UTF-8.
    """

    name: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    ids_only: bool = False
    delimiter: str = ","
    encoding: str = "utf-8"

    #: what rows may have, in the order in which blocks give it
    fields: ClassVar[tuple[str, ...]] = FIELDS
    #: whether rows may have nothing else
    strict: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.name not in (None, *FORMATS):
            raise EmqxConfigError(f"format must be one of {', '.join(FORMATS)}, not {self.name!r}")
        unknown = sorted(set(self.columns) - set(self.fields))
        if unknown:
            raise EmqxConfigError(
                f"columns has the unknown key {unknown[0]!r}; it maps {', '.join(self.fields)} to the source's own "
                "names"
            )
        if not all(isinstance(name, str) and name for name in self.columns.values()):
            raise EmqxConfigError("columns maps field names to column names, both text")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise EmqxConfigError(
                f"delimiter must be one character, as ',' or ';' or a tab, not {self.delimiter!r}"
            )
        try:
            codecs.lookup(self.encoding)
        except (LookupError, TypeError):
            raise EmqxConfigError(
                f"there is no encoding {self.encoding!r}; utf-8 and latin-1 are some"
            ) from None

    def column(self, name: str) -> str:
        """Tell what a field is called in the source."""
        return str(self.columns.get(name, name))

    def unknown(self, names: Iterable[Any]) -> str | None:
        """Tell which name of a source means nothing, if that matters; misspelt it would go unseen."""
        known = {self.column(name) for name in self.fields} if self.strict else set(names)
        other = next((name for name in names if name not in known), None)
        return (
            None
            if other is None
            else f"there is no field {str(other)[:40]!r}; there are {', '.join(self.fields)}"
        )

    def needs(self, name: str, header: Sequence[str]) -> bool:
        """Tell whether a source with this header cannot do without a field."""
        if name == "password":
            return not self.ids_only and self.column("password_hash") not in header
        return name == "user_id"


class Source(NamedTuple):
    """
    Where rows come from.

    :param blocks: of rows, read as they are asked for.
    :param files: that they are in, if any.
    :param expected: tells how many rows there will be, about; ``None`` if that cannot be known without reading them.
    """

    blocks: Iterator[Block]
    files: Sequence[Location] = ()
    expected: Callable[[], int | None] = lambda: None

    def spare(self, target: Location | None, what: str) -> None:
        """
        Make sure that what a task writes is not what it reads.

        :param target: path or URL of a file that is to be written, if any.
        :param what: what it is, for the error.
        :raises EmqxConfigError: if it is one of the files.
        """
        if target and _same(target) in map(_same, self.files):
            raise EmqxConfigError(
                f"the {what} {str(target)!r} is one of the files of the source, and would replace it: give it "
                "another place"
            )


def read_source(given: Any, how: Format) -> Source:
    """
    Take what an operator was given.

    :param given: path, URL or ObjectStoragePath of a file, of a directory, or with shell patterns in it; or an iterable
        of dicts.
    :param how: its format.
    :raises EmqxConfigError: if it is none of these, or there are no files.
    """
    if isinstance(given, str) and re.match(r"\s*\[?\s*\{\s*['\"]", given):
        # not shown: there may be passwords in it
        raise EmqxConfigError(
            "source is the text of a list, as a template makes it of rows: give the list itself (the task's output "
            "instead of a template), or write the rows to a file"
        )
    if is_location(given):
        files = find(given, how)
        return Source(read_files(files, how), files, lambda: estimate(files, how))
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise EmqxConfigError(f"source must be a path, a URL or a list of rows, not {type(given).__name__}")
    return Source(read_rows(given, how), (), lambda: len(given) if isinstance(given, Sized) else None)


def estimate(files: Sequence[Location], how: Format) -> int | None:
    """
    Guess how many rows files have, from the start of the first one and the sizes of all.

    :param files: as :func:`find` gives them.
    :param how: their format.
    """
    name = how.name or _format_of(str(files[0]))
    sizes = [size_and_age(file) for file in files]
    with open_to_read(files[0]) as raw:
        start = raw.read(1 << 16)
    try:
        text = zlib.decompressobj(31).decompress(start) if start[:2] == _GZIP else start
    except zlib.error:
        return None
    rows = text.count(b"\n") if name == "csv" else text.count(f'"{how.column("user_id")}"'.encode())
    if not rows or name == "parquet" or None in sizes:
        return None
    return round(rows / len(start) * sum(found[0] for found in sizes if found))


def find(source: Location, how: Format) -> Sequence[Location]:
    """
    Find the files that a source stands for.

    :param source: path or URL of a file, of a directory, or with shell patterns in it.
    :param how: its ``name``: without one, a directory's files are those whose suffix tells their format.
    :return: the file, or the directory's or pattern's files in the order of their names.
    :raises EmqxConfigError: if a directory or pattern has no files.
    """
    place = locate(source)
    files: Sequence[Any]
    if isinstance(place, str):
        if os.path.isdir(place):
            found = [os.path.join(place, name) for name in os.listdir(place)]
        elif _is_pattern(place) and not os.path.exists(place):
            found = glob.glob(place, recursive=True)
        else:
            return [place]
        files = sorted(filter(os.path.isfile, found))
    else:
        url = str(source)
        if _is_pattern(url):
            files = files_in(*_split_pattern(url))
        elif url.endswith("/") or is_directory(place):
            files = files_in(place)
        else:
            return [source]
    # hidden files, and those that Hadoop and Spark put beside theirs
    files = [file for file in files if os.path.basename(str(file))[:1] not in (".", "_")]
    if how.name is None and not _is_pattern(str(source)):
        files = [file for file in files if _known(str(file))]
    if not files:
        raise EmqxConfigError(f"there are no files of rows at {str(source)!r}")
    return files


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
        yield from blocks if len(files) == 1 else (block._replace(file=str(file)) for block in blocks)


def read_file(source: Location, how: Format) -> Iterator[Block]:
    """
    Read a file.

    :param source: local path, URL that Airflow's ObjectStoragePath knows, or such a path.
    :param how: its format.
    :return: blocks of rows. Memory is bounded whatever the file's size.
    :raises EmqxConfigError: if the file is missing, empty, no text, lacks a column, or breaks off; what was read until
        then has been given out.
    """
    shown = str(source)
    name = how.name or _format_of(shown)
    where = _Where(shown)
    with open_to_read(source) as raw:
        if name == "parquet":
            yield from _read_parquet(raw, how, where)
            return
        with _plain(raw) as plain:
            _check_is_text(plain, how, where)
            text = io.TextIOWrapper(
                cast("IO[bytes]", plain), encoding=_codec(how.encoding), errors="surrogateescape", newline=""
            )
            yield from _READERS[name](text, how, where)


def read_rows(rows: Iterable[Any], how: Format) -> Iterator[Block]:
    """
    Take rows from a list or any other iterable of dicts.

    :param rows: ``{"user_id": …, "password": …, "is_superuser": …}``.
    :param how: only its ``columns`` count.
    :return: blocks of rows; the line of a row is its position, from 1.
    """
    yield from _objects(enumerate(rows, 1), how)


class _Where:
    """Where in a file the reader is, for errors."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.line = 0

    def broken(self, what: str, line: int | None = None) -> EmqxConfigError:
        """Make the error for a source that is wrong and stays so."""
        line = self.line if line is None else line
        return EmqxConfigError(f"{self.source}, line {line:,}: {what}" if line else f"{self.source}: {what}")

    def failed(self, error: Exception) -> EmqxError:
        """Make the error for reading that failed."""
        if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
            return self.broken("the gzip archive is damaged or cut off")
        if isinstance(error, UnicodeError):
            return self.broken("the text is not of the encoding that was given")
        what = error.strerror if isinstance(error, OSError) else None
        return EmqxError(
            f"{self.source}, after line {self.line:,}: reading failed: {what or type(error).__name__}"
        )


#: what reading a file can raise
_FAILURES = (OSError, EOFError, zlib.error, UnicodeError)


# ---------------------------------------------------------------------- opening


def _same(location: Location) -> str:
    place = locate(location)
    return os.path.realpath(place) if isinstance(place, str) else str(place)


def _known(source: str) -> str | None:
    stem = re.sub(r"[?#].*", "", source) if "://" in source else source
    return _SUFFIXES.get(os.path.splitext(stem.lower().removesuffix(".gz"))[1])


def _format_of(source: str) -> str:
    name = _known(source)
    if name is None:
        raise EmqxConfigError(
            f"{source}: the name does not tell the format (.csv, .json, .jsonl, each also with .gz, or .parquet): "
            "give format="
        )
    return name


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[")


def _split_pattern(url: str) -> tuple[str, str]:
    """Split a URL before the first part that has a shell pattern."""
    parts = url.split("/")
    at = next(index for index, part in enumerate(parts) if _is_pattern(part))
    return "/".join(parts[:at]) + "/", "/".join(parts[at:])


def _plain(raw: IO[bytes]) -> io.BufferedReader[Any]:
    """Undo gzip, if the file's first bytes say so."""
    buffered: io.BufferedReader[Any] = io.BufferedReader(cast("io.RawIOBase", raw), 1 << 18)
    if buffered.peek(2)[:2] == _GZIP:
        return io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=buffered)), 1 << 18)
    return buffered


def _check_is_text(plain: io.BufferedReader[Any], how: Format, where: _Where) -> None:
    try:
        start = plain.peek(1 << 12)
    except _FAILURES as error:
        raise where.failed(error) from None
    if not start.strip(b"\xef\xbb\xbf \t\r\n"):
        raise where.broken("the file is empty")
    if start[:4] == b"PK\x03\x04":
        raise where.broken("this is a ZIP archive, perhaps an Excel workbook: export it as CSV, or unpack it")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") and _codec(how.encoding) == "utf-8-sig":
        raise where.broken("this is UTF-16: give encoding='utf-16'")
    # one of them is a row's, and rejected with it
    if start.count(0) > len(start) / 50 and _codec(how.encoding)[:6] not in ("utf-16", "utf-32"):
        raise where.broken("this is no text file: it has NUL bytes")


def _codec(encoding: str) -> str:
    name = codecs.lookup(encoding).name
    return "utf-8-sig" if name == "utf-8" else name


# ---------------------------------------------------------------------- CSV


def _read_csv(text: io.TextIOWrapper, how: Format, where: _Where) -> Iterator[Block]:
    # the limit is the process's; it is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    lines = _Lines(text, where)
    header = _header(lines, how, where)
    positions = _positions(header, how, where, how.delimiter)
    width = len(header)
    while taken := lines.take(BLOCK):
        try:
            rows = list(csv.reader(taken, delimiter=how.delimiter, strict=True))
        except csv.Error:
            rows = []
        bad: list[Bad] = []
        numbers: Sequence[int] = range(where.line - len(taken) + 1, where.line + 1)
        if len(rows) != len(taken):
            # a field with a line break, or a stray quote: each row for itself
            lines.put_back(taken)
            numbers, rows, bad = _careful(lines, how)
        if set(map(len, rows)) != {width}:
            numbers, rows = _only_of_width(width, numbers, rows, bad)
        columns = tuple(
            [None] * len(rows) if at is None else list(map(itemgetter(at), rows)) for at in positions
        )
        yield Block(numbers, columns, bad)


class _Lines:
    """
    Lines of a text, some of which may be put back and read again.

    :param text: opened without translation of line ends.
    :param where: its ``line`` is kept at the last line taken.
    """

    def __init__(self, text: io.TextIOWrapper, where: _Where) -> None:
        self._text = text
        self._where = where
        self._again: deque[str] = deque()
        self._error: Exception | None = None

    def take(self, count: int) -> list[str]:
        """Give up to ``count`` lines, none at the end. When reading fails, what was read until then comes first."""
        taken = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        if self._error is None:
            try:
                # what extend() got before the error stays in the list
                taken.extend(islice(self._text, count - len(taken)))
            except _FAILURES as error:
                self._error = error
        if not taken and self._error is not None:
            raise self._where.failed(self._error) from None
        self._where.line += len(taken)
        return taken

    def put_back(self, lines: Sequence[str]) -> None:
        self._again.extendleft(reversed(lines))
        self._where.line -= len(lines)

    def rows(self, delimiter: str) -> Iterator[tuple[int, list[str] | Bad]]:
        """Give each row's line number and values; of a broken row only the first line is lost."""
        used: list[str] = []

        def feed() -> Iterator[str]:
            while line := self.take(1):
                used.extend(line)
                yield line[0]

        reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        while True:
            first = self._where.line + 1
            used.clear()
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "field limit" in str(error) and len(used) == 1:
                    reason = f"a field has more than {LONGEST:,} characters"
                else:
                    reason = "a quote is opened and never closed, or closed too early"
                bad = Bad(first, None, reason, tuple(re.split(rf'["\r\n{re.escape(delimiter)}]', used[0])))
                self.put_back(used[1:])
                # the old one has seen the end of the file, or half of a row
                reader = csv.reader(feed(), delimiter=delimiter, strict=True)
                yield first, bad
            else:
                yield first, row


def _header(lines: _Lines, how: Format, where: _Where) -> list[str]:
    for number, row in lines.rows(how.delimiter):
        if isinstance(row, Bad):
            raise where.broken(f"the header cannot be read: {row.reason}", number)
        if row:
            return row
    raise where.broken("the file is empty")


def _positions(
    header: Sequence[str], how: Format, where: _Where, delimiter: str = ""
) -> tuple[int | None, ...]:
    if unknown := how.unknown(header):
        raise where.broken(f"{unknown}. Other names can be mapped with columns=")
    positions: list[int | None] = []
    for name in how.fields:
        column = how.column(name)
        if header.count(column) > 1:
            raise where.broken(f"the header has the column {column!r} twice")
        if column in header:
            positions.append(header.index(column))
        elif name in how.columns or how.needs(name, header):
            raise where.broken(_missing(header, column, delimiter))
        else:
            positions.append(None)
    return tuple(positions)


def _missing(header: Sequence[str], column: str, delimiter: str) -> str:
    """Say which column is missing. Other names are not shown: without a header they are somebody's password."""

    def bare(name: str) -> str:
        return re.sub(r"[\s_-]", "", name).lower()

    similar = next((name for name in header if bare(name) == bare(column)), None)
    if similar is not None:
        return f"the header has no column {column!r}, but {similar!r}: map it with columns="
    text = f"the header has no column {column!r}; it has {len(header)} column{'s' * (len(header) != 1)}"
    if not delimiter:
        return f"{text}. Other names can be mapped with columns="
    other = next((mark for mark in ";\t|," if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other:
        return f"{text}. Is delimiter={other!r} meant?"
    return f"{text}. The first line must name the columns; other names can be mapped with columns="


def _careful(lines: _Lines, how: Format) -> tuple[list[int], list[list[str]], list[Bad]]:
    numbers, rows, bad = [], [], []
    for number, row in islice(lines.rows(how.delimiter), BLOCK):
        if isinstance(row, Bad):
            bad.append(row)
        else:
            numbers.append(number)
            rows.append(row)
    return numbers, rows, bad


def _only_of_width(
    width: int, numbers: Sequence[int], rows: Sequence[list[str]], bad: list[Bad]
) -> tuple[list[int], list[list[str]]]:
    """
    Leave out blank lines and rejected rows.

    What stands in the id's place of a row with too many or too few fields may be its password: it is not shown.
    """
    good_numbers, good_rows = [], []
    for number, row in zip(numbers, rows, strict=True):
        if len(row) == width:
            good_numbers.append(number)
            good_rows.append(row)
        elif row:
            less = "few" if len(row) < width else "many"
            reason = f"too {less} fields: {len(row)}, the header has {width}"
            bad.append(Bad(number, None, reason, tuple(row)))
    return good_numbers, good_rows


# ---------------------------------------------------------------------- Parquet


def _read_parquet(raw: IO[bytes], how: Format, where: _Where) -> Iterator[Block]:
    try:
        import pyarrow as arrow  # type: ignore[import-untyped]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ImportError:
        raise EmqxConfigError("Parquet needs airflow-provider-emqx[parquet] on the workers") from None
    try:
        file = ParquetFile(raw)
        header = file.schema_arrow.names
        positions = _positions(header, how, where)
        wanted = [header[at] for at in positions if at is not None]
        for batch in file.iter_batches(BLOCK, columns=wanted):
            columns = tuple(
                [None] * len(batch) if at is None else batch.column(header[at]).to_pylist()
                for at in positions
            )
            yield Block(range(where.line + 1, where.line + len(batch) + 1), columns, [])
            where.line += len(batch)
    except arrow.ArrowException as error:
        raise where.broken(f"this is no Parquet file, or a damaged one ({type(error).__name__})") from None
    except OSError as error:
        raise where.failed(error) from None


# ---------------------------------------------------------------------- JSON


def _read_json_lines(text: io.TextIOWrapper, how: Format, where: _Where) -> Iterator[Block]:
    lines = _Lines(text, where)
    decode = json.JSONDecoder().decode
    while taken := lines.take(BLOCK):
        numbers, items, bad = [], [], []
        for number, line in enumerate(taken, where.line - len(taken) + 1):
            try:
                items.append(decode(line))
            except (ValueError, RecursionError):
                if not line.isspace():
                    bad.append(Bad(number, None, "the line is no JSON", _pieces(line)))
            else:
                numbers.append(number)
        yield _block(numbers, items, bad, how)


def _read_json_array(text: io.TextIOWrapper, how: Format, where: _Where) -> Iterator[Block]:
    yield from _objects(_Array(text, where).items(), how)


class _Array:
    """
    Takes one item after the other off a JSON array, reading on as needed.

    :param text: opened without translation of line ends.
    :param where: told the line of each item.
    """

    #: characters read at a time
    STEP = 1 << 16

    def __init__(self, text: io.TextIOWrapper, where: _Where) -> None:
        self._text = text
        self._where = where
        self._decode = json.JSONDecoder().raw_decode
        self._buffer = ""
        self._at = 0
        self._line = 1
        self._counted = 0
        self._byte = 0
        self._ended = False
        where.line = 1

    def items(self) -> Iterator[tuple[int, Any]]:
        start = self._next_character()
        if start == "{":
            raise self._broken("a JSON array is expected; for one object per line give format='jsonl'")
        if start != "[":
            raise self._broken("a JSON array is expected: it must begin with [")
        self._at += 1
        if self._next_character() != "]":
            while True:
                line = self._current_line()
                yield line, self._item()
                mark = self._next_character()
                if mark == "]":
                    break
                if mark != ",":
                    raise self._broken("the JSON breaks here: a comma or ] is expected")
                self._at += 1
                self._next_character()
        self._at += 1
        if self._next_character():
            raise self._broken("something follows the end of the JSON array")

    def _item(self) -> Any:
        while True:
            try:
                item, end = self._decode(self._buffer, self._at)
            except RecursionError:
                raise self._broken("the JSON is nested too deeply") from None
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    cut = self._ended and error.msg.startswith("Unterminated string")
                    at = len(self._buffer) if cut else error.pos
                    raise self._broken(f"the JSON breaks here: {error.msg}", at) from None
            except ValueError:
                raise self._broken("the JSON holds a number that is too long") from None
            else:
                # a number, or true, may go on beyond what was read
                if end < len(self._buffer) or self._ended:
                    self._at = end
                    return item
            self._more()

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Tell whether the item may only be read in part, as opposed to being wrong."""
        if len(self._buffer) - self._at > LONGEST:
            return False
        return error.msg.startswith("Unterminated string") or error.pos > len(self._buffer) - 16

    def _next_character(self) -> str:
        """Skip white space; give what comes then, empty at the end."""
        while True:
            while self._at < len(self._buffer):
                character = self._buffer[self._at]
                if character not in " \t\r\n":
                    return character
                self._at += 1
            if self._ended:
                return ""
            self._more()

    def _more(self) -> None:
        """Read on; what was used goes. Steps grow with the item, so that a long one is not scanned again too often."""
        self._current_line()
        used, kept = self._buffer[: self._at], self._buffer[self._at :]
        try:
            read = self._text.read(max(self.STEP, len(kept)))
        except _FAILURES as error:
            raise self._where.failed(error) from None
        self._byte += len(used.encode("utf-8", "surrogateescape"))
        self._ended = not read
        self._buffer = kept + read
        self._at = self._counted = 0

    def _current_line(self) -> int:
        self._line += self._breaks(self._counted, self._at)
        self._counted = self._at
        self._where.line = self._line
        return self._line

    def _breaks(self, start: int, end: int) -> int:
        return self._buffer.count("\n", start, end)

    def _broken(self, what: str, at: int | None = None) -> EmqxConfigError:
        at = self._at if at is None else at
        line = self._current_line() + self._breaks(self._at, at)
        byte = self._byte + len(self._buffer[:at].encode("utf-8", "surrogateescape"))
        if self._ended and at >= len(self._buffer.rstrip()):
            what = "the file ends in the middle of the JSON array"
        return self._where.broken(f"{what} (byte {byte:,})", line)


def _objects(items: Iterator[tuple[int, Any]], how: Format) -> Iterator[Block]:
    """Turn numbered JSON values, or dicts from elsewhere, into blocks of rows."""
    error: Exception | None = None
    while error is None:
        taken: list[tuple[int, Any]] = []
        try:
            # what extend() got before the error stays in the list
            taken.extend(islice(items, BLOCK))
        except Exception as broken:  # an iterable may be anybody's
            error = broken
        if taken:
            yield _block([line for line, _ in taken], [item for _, item in taken], [], how)
        elif error is None:
            return
    raise error


def _block(numbers: list[int], items: list[Any], bad: list[Bad], how: Format) -> Block:
    if how.strict or not all(isinstance(item, dict) for item in items):
        wrong = {at: reason for at, item in enumerate(items) if (reason := _wrong(item, how))}
        bad += [Bad(numbers[at], None, reason, _texts(items[at])) for at, reason in wrong.items()]
        for at in reversed(wrong):
            del numbers[at], items[at]
    columns = tuple([item.get(column) for item in items] for column in map(how.column, how.fields))
    return Block(numbers, columns, bad)


def _wrong(item: object, how: Format) -> str | None:
    return how.unknown(item) if isinstance(item, Mapping) else f"this is {kind(item)}, not an object"


def _texts(value: object) -> tuple[str, ...]:
    """Give all texts and numbers inside a JSON value."""
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str | int):
            found.append(str(one))
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
    return tuple(found)


def _pieces(line: str) -> tuple[str, ...]:
    """Give all texts that may have been meant in a line that is no JSON."""
    found = {*line.split('"'), *re.split(r'[\s"{}\[\],:]+', line)}
    for quoted in re.findall(r'"(?:[^"\\]|\\.)*"', line):
        with suppress(ValueError):
            found.add(json.loads(quoted))
    return tuple(found)


def kind(value: object) -> str:
    """Say in words what a value is, without showing it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"of type {type(value).__name__}"


_READERS = {"csv": _read_csv, "json": _read_json_array, "jsonl": _read_json_lines}

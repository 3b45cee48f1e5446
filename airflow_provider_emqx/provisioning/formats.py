"""Takes rows out of CSV, Parquet and JSON, without ever holding the whole text."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import IO, Any, TypeAlias

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.provisioning.blocks import Bad, Block, Format, kind

#: rows read at a time
BLOCK = 500
#: blocks held back at most until a column that was mapped is seen
_HELD = 20
#: characters of the longest row: more than fits into one request
LONGEST = 8_000_000
_QUOTE = (
    "a quote is opened and not closed before the next row, or closed too early; if the writer of the file quotes "
    "nothing, give the source option quoting='none'"
)
_NOT_SPACE = re.compile(r"[ \t\r\n]*[^ \t\r\n]")
_TOO_LONG = f"the line has more than {LONGEST:,} characters"


class Where:
    """
    Where in a file the reader is, for errors.

    :param source: the file's name.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.line = 0

    def broken(self, what: str, line: int | None = None) -> EmqxConfigError:
        """Make the error for a source that is wrong and stays so."""
        line = self.line if line is None else line
        return EmqxConfigError(f"{self.source}, line {line:,}: {what}" if line else f"{self.source}: {what}")

    def failed(self, error: Exception) -> EmqxError:
        """Make the error for reading that failed."""
        if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile | lzma.LZMAError):
            return self.broken("the compressed file is damaged or cut off")
        if isinstance(error, UnicodeError):
            return self.broken("the text is not of the encoding that was given")
        what = error.strerror if isinstance(error, OSError) else None
        return EmqxError(
            f"{self.source}, after line {self.line:,}: reading failed: {what or type(error).__name__}"
        )


#: what reading a file can raise
FAILURES = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeError)


# ---------------------------------------------------------------------- CSV


def read_csv(text: io.TextIOWrapper, how: Format, where: Where) -> Iterator[Block]:
    """
    Read CSV.

    :param text: opened without translation of line ends.
    :param how: its format.
    :param where: told the line of each row.
    :return: blocks of rows.
    :raises EmqxError: if the text is broken, after the rows before that.
    """
    # the limit is the process's; it is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    lines = _Lines(text, where)
    how = replace(how, delimiter=_stated(lines) or how.delimiter)
    read = partial(
        csv.reader,
        delimiter=how.delimiter,
        quoting=csv.QUOTE_NONE if how.quoting == "none" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header = _header(lines, read, how, where)
    positions = _positions(header, how, where, how.delimiter)
    width = len(header)
    while taken := lines.take(BLOCK):
        try:
            rows = [] if _is_cut(taken[-1]) else list(read(taken))
        except csv.Error:
            rows = []
        bad: list[Bad] = []
        numbers: Sequence[int] = range(where.line - len(taken) + 1, where.line + 1)
        if len(rows) != len(taken):
            # a field with a line break, a stray quote, a line without end: each row for itself
            lines.put_back(taken)
            numbers, rows, bad = _careful(lines, read, how.delimiter, width)
        if set(map(len, rows)) != {width}:
            numbers, rows = _only_of_width(width, numbers, rows, bad)
        columns = tuple(
            [None] * len(rows) if at is None else list(map(itemgetter(at), rows)) for at in positions
        )
        yield Block(numbers, columns, bad)


def _stated(lines: _Lines) -> str | None:
    """Read a first line ``sep=;``, in which spreadsheets name the delimiter."""
    first = lines.take(1)
    found = re.fullmatch(r"\ufeff?sep=([^\r\n\"])\s*", first[0], re.IGNORECASE) if first else None
    if found is None:
        lines.put_back(first)
        return None
    return found[1]


_Reader: TypeAlias = "Callable[[Iterable[str]], Iterator[list[str]]]"


class _Cut(str):
    """The beginning of a line that is longer than any row may be."""


class _Lines:
    """
    Lines of a text, some of which may be put back and read again.

    :param text: opened without translation of line ends.
    :param where: its ``line`` is kept at the last line taken.
    """

    def __init__(self, text: io.TextIOWrapper, where: Where) -> None:
        self._text = text
        self._where = where
        self._again: deque[str] = deque()
        self._error: Exception | None = None

    def take(self, count: int) -> list[str]:
        """
        Return up to ``count`` lines, fewer of long ones, none at the end. A line that is cut comes last.

        When reading fails, what was read until then comes first.
        """
        taken = [self._again.popleft() for _ in range(min(count, len(self._again)))]
        size = 0
        try:
            while self._error is None and len(taken) < count and size <= LONGEST:
                line = self._text.readline(LONGEST + 1)
                if not line:
                    break
                taken.append(line if len(line) <= LONGEST else self._cut(line))
                size += len(line)
        except FAILURES as error:
            self._error = error
        if not taken and self._error is not None:
            raise self._where.failed(self._error) from None
        self._where.line += len(taken)
        return taken

    def _cut(self, line: str) -> str:
        """Leave out the rest of a line that is read up to the limit."""
        rest = line
        while rest and not rest.endswith(("\n", "\r")):
            rest = self._text.readline(LONGEST)
        return _Cut(line)

    def put_back(self, lines: Sequence[str]) -> None:
        self._again.extendleft(reversed(lines))
        self._where.line -= len(lines)

    def rows(
        self, read: _Reader, delimiter: str, width: int | None = None
    ) -> Iterator[tuple[int, list[str] | Bad]]:
        """
        Return each row's line number and values; of a broken row only the first line is lost.

        :param read: makes a reader of lines.
        :param delimiter: between fields.
        :param width: fields of a row, if that is known.
        """
        used: list[str] = []

        def is_row(line: str) -> bool:
            return width is not None and line.count(delimiter) + 1 >= width

        def feed() -> Iterator[str]:
            while line := self.take(1):
                used.extend(line)
                # of a writer who quotes nothing, every line is a row, also the one whose quote takes in others
                taken_in = len(used) > 1 and is_row(used[0]) and is_row(used[-1])
                if len(used) > 2 and is_row(used[-2]) and '"' not in used[-2]:
                    taken_in = True
                if taken_in or _is_cut(line[0]):
                    raise csv.Error
                yield line[0]

        reader = read(feed())
        while True:
            first = self._where.line + 1
            used.clear()
            try:
                row = next(reader)
                # a row that is rejected takes no other line with it
                if len(used) > 1 and width not in (None, len(row)):
                    raise csv.Error
            except StopIteration:
                return
            except csv.Error:
                reason = _TOO_LONG if len(used) == 1 and _is_cut(used[0]) else _QUOTE
                bad = Bad(first, None, reason, tuple(re.split(rf'["\r\n{re.escape(delimiter)}]', used[0])))
                self.put_back(used[1:])
                # the old one has seen the end of the file, or half of a row
                reader = read(feed())
                yield first, bad
            else:
                yield first, row


def _is_cut(line: str) -> bool:
    return isinstance(line, _Cut)


def _header(lines: _Lines, read: _Reader, how: Format, where: Where) -> list[str]:
    for number, row in lines.rows(read, how.delimiter):
        if isinstance(row, Bad):
            raise where.broken(f"the header cannot be read: {row.reason}", number)
        taken_in = (line for name in row for line in name.splitlines()[1:])
        if any(line.count(how.delimiter) + 1 >= len(row) for line in taken_in):
            raise where.broken(f"the header cannot be read: {_QUOTE}", number)
        if row:
            # white space around a column's name is not part of it
            return [name.strip() for name in row]
    raise where.broken("the file is empty")


def _positions(
    header: Sequence[str], how: Format, where: Where, delimiter: str = ""
) -> tuple[int | None, ...]:
    if unknown := how.unknown(header):
        raise where.broken(f"{unknown}. Other names can be mapped with columns=")
    positions: list[int | None] = []
    for name in how.fields:
        column = how.column(name).strip() if delimiter else how.column(name)
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
    """Describe which column is missing. Other names are not shown: without a header they are somebody's password."""

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
        return f"{text}. Is the source option delimiter={other!r} meant?"
    return f"{text}. The first line must name the columns; other names can be mapped with columns="


def _careful(
    lines: _Lines, read: _Reader, delimiter: str, width: int
) -> tuple[list[int], list[list[str]], list[Bad]]:
    numbers, rows, bad = [], [], []
    size = 0
    for number, row in islice(lines.rows(read, delimiter, width), BLOCK):
        if isinstance(row, Bad):
            bad.append(row)
        else:
            numbers.append(number)
            rows.append(row)
            size += sum(map(len, row))
        if size > LONGEST:
            break
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


def read_parquet(raw: IO[bytes], how: Format, where: Where) -> Iterator[Block]:
    """
    Read Parquet.

    :param raw: the file.
    :param how: its format.
    :param where: told the line of each row.
    :return: blocks of rows.
    :raises EmqxError: if the text is broken, after the rows before that.
    """
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
                [None] * len(batch) if at is None else _values(batch.column(header[at])) for at in positions
            )
            yield Block(range(where.line + 1, where.line + len(batch) + 1), columns, [])
            where.line += len(batch)
    except arrow.ArrowException as error:
        raise where.broken(f"this is not a Parquet file, or it is damaged ({type(error).__name__})") from None
    except FAILURES as error:
        raise where.failed(error) from None


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        # a matter of its row
        raw = column.cast("large_binary").to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in raw]


# ---------------------------------------------------------------------- JSON


def read_json_lines(text: io.TextIOWrapper, how: Format, where: Where) -> Iterator[Block]:
    """
    Read JSON objects line by line; a line may hold several.

    :param text: opened without translation of line ends.
    :param how: its format.
    :param where: told the line of each row.
    :return: blocks of rows.
    :raises EmqxError: if the text is broken, after the rows before that.
    """
    yield from _mapped(partial(_json_lines, text, how, where), how)


def _json_lines(text: io.TextIOWrapper, how: Format, where: Where, unseen: set[str]) -> Iterator[Block]:
    lines = _Lines(text, where)
    decode = json.JSONDecoder().decode
    several = json.JSONDecoder().raw_decode
    while taken := lines.take(BLOCK):
        numbers, items, bad = [], [], []
        for number, line in enumerate(taken, where.line - len(taken) + 1):
            try:
                found = [decode(line)]
            except (ValueError, RecursionError):
                if line.isspace():
                    continue
                found = [] if _is_cut(line) else _objects_in(line, several)
                if not found:
                    reason = _TOO_LONG if _is_cut(line) else "the line is not JSON"
                    bad.append(Bad(number, None, reason, _pieces(line)))
            items += found
            numbers += [number] * len(found)
        yield _block(numbers, items, bad, how, unseen)


def _objects_in(line: str, decode: Callable[[str, int], tuple[Any, int]]) -> list[Any]:
    """Return objects that follow each other in a line, or none if the line contains anything else."""
    found, at = [], 0
    with suppress(ValueError, RecursionError):
        while mark := _NOT_SPACE.match(line, at):
            item, at = decode(line, mark.end() - 1)
            if not isinstance(item, dict):
                return []
            found.append(item)
        return found
    return []


def read_json_array(text: io.TextIOWrapper, how: Format, where: Where) -> Iterator[Block]:
    """
    Read a JSON array of objects, which may stand in an object, or objects one after the other.

    :param text: opened without translation of line ends.
    :param how: its format.
    :param where: told the line of each row.
    :return: blocks of rows.
    :raises EmqxError: if the text is broken, after the rows before that.
    """
    yield from objects(JsonText(text, where).items(how), how)


class JsonText:
    """
    Takes one item after the other off a JSON array, off a row of objects, or off the arrays in one, reading on as
    needed.

    :param text: opened without translation of line ends.
    :param where: told the line of each item.
    """

    #: characters read at a time
    STEP = 1 << 16

    def __init__(self, text: io.TextIOWrapper, where: Where) -> None:
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

    def items(self, how: Format) -> Iterator[tuple[int, Any]]:
        start = self._next_character()
        if how.rows:
            yield from self._items_of(how.rows.split("."))
        elif start == "[":
            yield from self._items()
        elif start == "{":
            line, item = self._current_line(), self._item()
            if all(how.value(item, how.column(name)) is None for name in how.fields):
                raise self._where.broken(
                    "this object is not a row; expected a JSON array, or one row after the other. For an array in an "
                    "object pass its name as the source option rows='data.items'",
                    line,
                )
            yield line, item
            while self._next_character() == "{":
                yield self._current_line(), self._item()
        else:
            raise self._broken("a JSON array is expected: it must begin with [")
        if self._next_character():
            raise self._broken("something follows the end of the JSON")

    def _items(self) -> Iterator[tuple[int, Any]]:
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

    def parts(self) -> Iterator[tuple[str, Any]]:
        """
        Yield the parts of an object: each array item by item, under its name, other values whole.

        :raises EmqxConfigError: if it is not an object, is incomplete, or something follows.
        """
        for name in self._names("an object is expected: it must begin with {"):
            if self._next_character() == "[":
                yield from ((name, item) for _, item in self._items())
            else:
                yield name, self._item()
        if self._next_character():
            raise self._broken("something follows the end of the JSON")

    def _items_of(self, names: list[str]) -> Iterator[tuple[int, Any]]:
        """Yield the items of an array in an object, and verify that the object is complete."""
        if not names:
            if self._next_character() != "[":
                raise self._broken("the value at rows is not an array")
            yield from self._items()
            return
        found = False
        for key in self._names(f"expected an object with the field {names[0]!r}, because of rows"):
            if key != names[0]:
                self._item()
            elif found:
                raise self._broken(f"the object has the field {key!r} twice")
            else:
                found = True
                yield from self._items_of(names[1:])
        if not found:
            raise self._where.broken(
                f"the object has no field {names[0]!r}, which rows names", self._current_line()
            )

    def _names(self, expected: str) -> Iterator[str]:
        """Take one name after the other off an object; between them, who asks takes the value."""
        if self._next_character() != "{":
            raise self._broken(expected)
        mark = ""
        while mark != "}":
            self._at += 1
            if self._next_character() == "}" and not mark:
                break
            key = self._item() if self._next_character() == '"' else None
            if key is None or self._next_character() != ":":
                raise self._broken("the JSON breaks here: a name and a colon are expected")
            self._at += 1
            self._next_character()
            yield key
            mark = self._next_character()
            if mark not in ("}", ","):
                raise self._broken("the JSON breaks here: a comma or } is expected")
        self._at += 1

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
        """Return whether the item may only be read in part, as opposed to being wrong."""
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
        except FAILURES as error:
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
            what = "the file ends in the middle of the JSON"
        return self._where.broken(f"{what} (byte {byte:,})", line)


def objects(items: Iterator[tuple[int, Any]], how: Format) -> Iterator[Block]:
    """
    Turn numbered JSON values, or dicts from elsewhere, into blocks of rows.

    :param items: line and value of each.
    :param how: its ``columns`` count.
    :raises Exception: whatever ``items`` raises, after the rows before that.
    """
    yield from _mapped(partial(_objects, items, how), how)


def _objects(items: Iterator[tuple[int, Any]], how: Format, unseen: set[str]) -> Iterator[Block]:
    error: Exception | None = None
    while error is None:
        taken: list[tuple[int, Any]] = []
        try:
            # what extend() got before the error stays in the list
            taken.extend(islice(items, BLOCK))
        except Exception as broken:  # an iterable may be anybody's
            error = broken
        if taken:
            yield _block([line for line, _ in taken], [item for _, item in taken], [], how, unseen)
        elif error is None:
            return
    raise error


def _mapped(read: Callable[[set[str]], Iterator[Block]], how: Format) -> Iterator[Block]:
    """
    Hold blocks of objects back until every column that was mapped is seen, or so many have come that it may be rare.

    :param read: gives the blocks, and takes the columns that it sees out of a set.
    :param how: the format.
    :raises EmqxConfigError: if no row has a column that was mapped; of short sources before any row is given out.
    """
    # of a row without an id or a password its own reason tells
    unseen = {column for name, column in how.columns.items() if not how.needs(name, ())}
    held: list[Block] = []
    rows = 0
    blocks = read(unseen)
    while True:
        try:
            block = next(blocks, None)
        except Exception:
            yield from held
            raise
        if block is None:
            break
        rows += len(block.lines)
        held.append(block)
        if not unseen or len(held) > _HELD:
            yield from held
            held.clear()
    if unseen and rows:
        column = min(unseen)
        raise EmqxConfigError(
            f"columns maps to {column!r}, but none of the {rows:,} rows has it: correct the name"
        )
    yield from held


def _block(numbers: list[int], items: list[Any], bad: list[Bad], how: Format, unseen: set[str]) -> Block:
    if how.strict or not all(isinstance(item, dict) for item in items):
        wrong = {at: reason for at, item in enumerate(items) if (reason := _wrong(item, how))}
        bad += [Bad(numbers[at], None, reason, _texts(items[at])) for at, reason in wrong.items()]
        for at in reversed(wrong):
            del numbers[at], items[at]
    if unseen:
        unseen -= {column for column in unseen if any(how.value(item, column) is not None for item in items)}
    columns = tuple(_column(items, how.column(name), how) for name in how.fields)
    # the rules of a subject tell of themselves what they lack
    if how.columns and not how.strict and (wrong := _lacking(items, columns, how)):
        bad += [Bad(numbers[at], columns[0][at], reason, _texts(items[at])) for at, reason in wrong.items()]
        numbers = [number for at, number in enumerate(numbers) if at not in wrong]
        columns = tuple([value for at, value in enumerate(values) if at not in wrong] for values in columns)
    return Block(numbers, columns, bad)


def _column(items: list[Any], column: str, how: Format) -> list[Any]:
    if "." in column:
        return [how.value(item, column) for item in items]
    return [item.get(column) for item in items]


def _lacking(items: list[Any], columns: tuple[list[Any], ...], how: Format) -> dict[int, str]:
    """Return which rows have nothing in a column that they need and that was mapped."""
    wrong: dict[int, str] = {}
    for name, column in how.columns.items():
        for at, value in enumerate(columns[how.fields.index(name)]):
            if value is None:
                has = [
                    how.column(field)
                    for field, values in zip(how.fields, columns, strict=True)
                    if values[at] is not None
                ]
                if how.needs(name, has):
                    wrong.setdefault(at, f"{name} is missing: the row has no {column!r}")
    return wrong


def _wrong(item: object, how: Format) -> str | None:
    return how.unknown(item) if isinstance(item, Mapping) else f"this is {kind(item)}, not an object"


def _texts(value: object) -> tuple[str, ...]:
    """Return all texts and numbers inside a JSON value."""
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
    """Return all texts that a line with invalid JSON may contain."""
    found = {*line.split('"'), *re.split(r'[\s"{}\[\],:]+', line)}
    for quoted in re.findall(r'"[^"\\]*(?:\\.[^"\\]*)*"', line):
        with suppress(ValueError):
            found.add(json.loads(quoted))
    return tuple(found)

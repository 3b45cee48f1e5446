"""
Files of rows that are written: CSV, JSON Lines, or plain text.

A file is written at once (each row is in it as soon as it is written, so that a killed task leaves it), whole (it takes
the place of an older one when it is complete), or by appending to it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Literal, TypeAlias, cast

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import (
    Location,
    append,
    exists,
    locate,
    open_report,
    open_to_read,
    open_to_write,
    replacing,
)

log = logging.getLogger(__name__)

#: of text, each line is the first column of a row
Form: TypeAlias = Literal["csv", "jsonl", "text"]

#: columns of the files whose rows all have the same ones; other files are JSON Lines with whatever each row has
REPORT = ("id", "line", "outcome", "reason")
REPORT_OF_FILES = (*REPORT, "file")
USERS = ("user_id", "is_superuser")
USERS_WITH_HASHES = ("user_id", "password_hash", "salt_base64", "is_superuser")
CLIENTIDS = ("clientid",)


def form_of(name: str, target: Location, packed: bool = False) -> Form:
    """
    Return the form that the end of a file's name says.

    :param target: path or URL.
    :param packed: whether a name may end in ``.gz`` besides.
    :raises EmqxConfigError: if it ends in none.
    """
    written = str(target).lower()
    if packed:
        written = written.removesuffix(".gz")
    if written.endswith(".csv"):
        return "csv"
    if written.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    also = ", each also with .gz" if packed else ""
    raise EmqxConfigError(f"{name} must end in .jsonl or .csv{also}, not as {str(target)!r}")


class RowFile:
    """
    A file of rows.

    :param raw: to write to; ``None`` if nobody asked for the file, and nothing is written.
    :param columns: of CSV, and fields of a line of JSON; ``None`` for whatever each row has, which only JSON can hold.
    :param form: of the file.
    :param at_once: whether each write is to be in the file when it returns.
    :param seen: called with each part of a JSON file that is written.
    """

    def __init__(
        self,
        raw: IO[bytes] | None = None,
        columns: Sequence[str] | None = None,
        form: Form = "jsonl",
        at_once: bool = False,
        seen: Callable[[bytes], object] | None = None,
    ) -> None:
        self._file = None
        if raw is not None:
            self._file = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="")
        self._columns = columns
        self._form = form
        self._csv = csv.writer(self._file) if form == "csv" and self._file is not None else None
        self._at_once = at_once
        self._seen = seen
        if self._csv is not None:
            self._csv.writerow(columns or ())

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """
        Write some rows.

        :param rows: values by column; what no column is for is left out.
        """
        if self._file is None:
            return
        columns = self._columns
        if self._csv is not None and columns:
            self._csv.writerows([_cell(row.get(name)) for name in columns] for row in rows)
        elif self._form == "text" and columns:
            self._file.writelines(f"{row[columns[0]]}\n" for row in rows)
        else:
            for row in rows:
                text = json_line({name: row.get(name) for name in columns} if columns else row)
                self._file.write(text)
                if self._seen is not None:
                    self._seen(text.encode(errors="backslashreplace"))
        if self._at_once:
            self._file.flush()

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._file is not None:
            self._file.close()


@contextmanager
def written_at_once(
    target: Location | None, columns: Sequence[str] | None = None, form: Form = "jsonl"
) -> Iterator[RowFile]:
    """
    Open a file whose rows are in it as soon as they are written, as far as the place allows.

    :param target: as of :func:`~airflow_provider_emqx.files.open_report`; ``None`` for no file.
    :param columns: as of :class:`RowFile`.
    :param form: as of :class:`RowFile`.
    :return: a context manager.
    :raises EmqxError: if it cannot be written.
    """
    file = RowFile(open_report(target) if target else None, columns, form, at_once=True)
    try:
        yield file
    finally:
        file.close()


@contextmanager
def written_whole(
    target: Location | None,
    what: str,
    columns: Sequence[str] | None = None,
    form: Form = "jsonl",
    seen: Callable[[bytes], object] | None = None,
) -> Iterator[RowFile]:
    """
    Open a file that takes the place of an older one when all rows are written; packed if its name ends in ``.gz``.

    :param target: as of :func:`~airflow_provider_emqx.files.replacing`; ``None`` for no file.
    :param what: the same.
    :param columns: as of :class:`RowFile`.
    :param form: as of :class:`RowFile`.
    :param seen: as of :class:`RowFile`.
    :return: a context manager; an error in it leaves the older file as it was.
    :raises EmqxError: if it cannot be written.
    """
    if not target:
        yield RowFile()
        return
    with replacing(target, what) as raw:
        packed = gzip.GzipFile(fileobj=raw, mode="wb") if str(target).lower().endswith(".gz") else raw
        file = RowFile(cast("IO[bytes]", packed), columns, form, seen=seen)
        try:
            yield file
        finally:
            file.close()


def append_lines(target: Location, rows: Iterable[Mapping[str, Any]], what: str) -> bool:
    """
    Append rows to a local JSON Lines file.

    :param target: as of :func:`~airflow_provider_emqx.files.append`.
    :param rows: of the file.
    :param what: what the file is, for the error.
    :return: ``False`` for an object, to which nothing can be appended.
    :raises EmqxError: if it cannot be written.
    """
    return append(target, "".join(map(json_line, rows)).encode(errors="backslashreplace"), what)


def append_figures(target: Location, row: Mapping[str, Any]) -> None:
    """
    Append one row to a history of figures.

    A CSV file keeps the columns of its header, the first line that is not blank; what has no column is left out with a
    warning. A last line that was not ended is ended first.

    :param target: path, URL or ObjectStoragePath, ending in ``.jsonl`` or ``.csv``; a new local file has the default
        mode of the process, since others are to read it.
    :param row: figures by name.
    :raises EmqxError: if the file cannot be read or written.
    """
    old, last = _read(target)
    line = _line_below(old, row, target) if form_of("output_path", target) == "csv" else json_line(row)
    if last not in (b"", b"\n", b"\r"):
        line = f"\n{line}"
    if not append(target, line.encode(), "output", mode=0o666):
        with open_to_write(target, "output") as raw:
            raw.write(old + line.encode())


def _read(target: Location) -> tuple[bytes, bytes]:
    """Read a local file's header, or the whole of an object, and the last byte."""
    if not exists(target):
        return b"", b""
    with open_to_read(target) as raw:
        if not isinstance(locate(target), str):
            old = raw.read()
            return old, old[-1:]
        header = next(filter(bytes.strip, raw), b"")
        raw.seek(max(0, raw.seek(0, os.SEEK_END) - 1))
        return header, raw.read()


def _line_below(old: bytes, row: Mapping[str, Any], target: Location) -> str:
    lines = csv.reader(io.StringIO(old.decode("utf-8-sig"), newline=""))
    header = next((line for line in lines if any(map(str.strip, line))), None)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header is None:
        writer.writerow(row)
    elif left_out := [name for name in row if name not in header]:
        log.warning("%d figures have no column in %s, %s for one", len(left_out), target, left_out[0])
    writer.writerow(row.get(name) for name in header or row)
    return text.getvalue()


def json_line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value

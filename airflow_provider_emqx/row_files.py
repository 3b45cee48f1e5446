"""Files of rows that are written: CSV or JSON Lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Literal, TypeAlias, cast

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location, open_report, replacing

Form: TypeAlias = Literal["csv", "jsonl"]


def form_of(name: str, target: Location, packed: bool = False) -> Form:
    """
    Return the form that the end of a file's name says.

    :param name: of the argument, for the error.
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

    :param raw: to write to.
    :param columns: of CSV, and fields of a line of JSON; ``None`` for whatever each row has, which only JSON can hold.
    :param form: of the file.
    :param at_once: whether each write is to be in the file when it returns, so that a task that is killed leaves it.
    :param seen: called with each part of a JSON file that is written.
    """

    def __init__(
        self,
        raw: IO[bytes],
        columns: Sequence[str] | None,
        form: Form = "jsonl",
        at_once: bool = False,
        seen: Callable[[bytes], object] | None = None,
    ) -> None:
        self._file = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        self._columns = columns
        self._csv = csv.writer(self._file) if form == "csv" and columns else None
        self._at_once = at_once
        self._seen = seen
        if self._csv is not None:
            self._csv.writerow(columns or ())

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """
        Write some rows.

        :param rows: values by column; what no column is for is left out.
        """
        columns = self._columns
        if self._csv is not None and columns:
            self._csv.writerows([_cell(row.get(name)) for name in columns] for row in rows)
        else:
            for row in rows:
                line = {name: row.get(name) for name in columns} if columns else row
                text = json.dumps(line, ensure_ascii=False) + "\n"
                self._file.write(text)
                if self._seen is not None:
                    self._seen(text.encode())
        if self._at_once:
            self._file.flush()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._file.close()


@contextmanager
def written_at_once(
    target: Location, columns: Sequence[str] | None = None, form: Form = "jsonl"
) -> Iterator[RowFile]:
    """
    Open a file whose rows are in it as soon as they are written, as far as the place allows.

    :param target: as of :func:`~airflow_provider_emqx.files.open_report`.
    :param columns: as of :class:`RowFile`.
    :param form: as of :class:`RowFile`.
    :return: a context manager.
    :raises EmqxError: if it cannot be written.
    """
    file = RowFile(open_report(target), columns, form, at_once=True)
    try:
        yield file
    finally:
        file.close()


@contextmanager
def written_whole(
    target: Location,
    what: str,
    columns: Sequence[str] | None = None,
    form: Form = "jsonl",
    seen: Callable[[bytes], object] | None = None,
) -> Iterator[RowFile]:
    """
    Open a file that takes the place of an older one when all rows are written; packed if its name ends in ``.gz``.

    :param target: as of :func:`~airflow_provider_emqx.files.replacing`.
    :param what: the same.
    :param columns: as of :class:`RowFile`.
    :param form: as of :class:`RowFile`.
    :param seen: as of :class:`RowFile`.
    :return: a context manager; an error in it leaves the older file as it was.
    :raises EmqxError: if it cannot be written.
    """
    with replacing(target, what) as raw:
        packed = gzip.GzipFile(fileobj=raw, mode="wb") if str(target).lower().endswith(".gz") else raw
        file = RowFile(cast("IO[bytes]", packed), columns, form, seen=seen)
        try:
            yield file
        finally:
            file.close()


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value

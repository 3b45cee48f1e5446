"""A file to which rows of metrics are appended."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from typing import Any

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location, exists, locate, open_to_read, open_to_write
from airflow_provider_emqx.row_files import form_of

log = logging.getLogger(__name__)


class History:
    """
    A JSON Lines or CSV file of metrics.

    :param output: path, URL or ObjectStoragePath, ending in ``.jsonl`` or ``.csv``.
    """

    def __init__(self, output: Location) -> None:
        self.output = output
        self._csv = form_of("output_path", output) == "csv"
        self._place = locate(output)

    def append(self, row: dict[str, Any]) -> None:
        """
        Append one row.

        A CSV file keeps the columns of its header, the first line that is not blank; what has no column is left out
        with a warning. A last line that was not ended is ended first.

        :param row: figures by name.
        """
        old, unended = self._read()
        line = self._csv_line(row, old) if self._csv else json.dumps(row, ensure_ascii=False) + "\n"
        if unended:
            line = "\n" + line
        if isinstance(self._place, str):
            os.makedirs(os.path.dirname(os.path.abspath(self._place)), exist_ok=True)
            try:
                with open(self._place, "a", encoding="utf-8", newline="") as file:
                    file.write(line)
            except OSError as error:
                raise EmqxConfigError(f"the output {self._place!r} cannot be written: {error}") from error
            return
        with open_to_write(self.output, "output") as raw:
            raw.write(old + line.encode())

    def _read(self) -> tuple[bytes, bool]:
        """Read a local file's header, or the whole of an object; tell whether the last line lacks its end."""
        if not exists(self.output):
            return b"", False
        with open_to_read(self.output) as raw:
            if not isinstance(self._place, str):
                old = raw.read()
                return old, _is_unended(old)
            header = next(filter(bytes.strip, raw), b"")
            raw.seek(max(0, raw.seek(0, os.SEEK_END) - 1))
            return header, _is_unended(raw.read())

    def _csv_line(self, row: dict[str, Any], old: bytes) -> str:
        lines = csv.reader(io.StringIO(old.decode("utf-8-sig"), newline=""))
        header = next((row for row in lines if any(map(str.strip, row))), None)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if header is None:
            writer.writerow(row)
        elif left_out := [name for name in row if name not in header]:
            log.warning(
                "%d figures have no column in %s, %s for one", len(left_out), self.output, left_out[0]
            )
        writer.writerow(row.get(name) for name in header or row)
        return text.getvalue()


def _is_unended(content: bytes) -> bool:
    return bool(content) and not content.endswith((b"\n", b"\r"))

"""Backups of configuration and built-in databases, EMQX 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from airflow_provider_emqx.api.base import Operation, Page, Request, Row, path
from airflow_provider_emqx.api.rows import BackupRow
from airflow_provider_emqx.api.v4.times import from_export
from airflow_provider_emqx.api.v5 import backups as v5
from airflow_provider_emqx.exceptions import (
    EmqxApiError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxNotFoundError,
    EmqxServerError,
    EmqxUnsupportedError,
)

#: the broker writes or reads all its tables before it answers
_LONG = 600.0

#: what EMQX 4 says of a file that is not there
_NO_FILE = ("enoent", "not_found", "no such file")


class Backups(v5.Backups):
    """Backups on the disks of the nodes."""

    def export(
        self, table_sets: Sequence[str] | None = None, root_keys: Sequence[str] | None = None
    ) -> Operation[BackupRow]:
        """
        Write a backup to the disk of the node that responds: ``POST /data/export``.

        :raises EmqxUnsupportedError: for a part of it.
        """
        if table_sets is not None or root_keys is not None:
            raise EmqxUnsupportedError(
                "a backup of some tables or settings needs EMQX 5; EMQX 4 exports everything"
            )
        # a second export makes a second file, which does no harm
        reply = yield Request("POST", "/data/export", json={}, repeatable=True, timeout=_LONG)
        return cast("BackupRow", self._row(reply.data))

    def list(self, page: int = 1, limit: int | None = None) -> Operation[Page[BackupRow]]:
        """List the backups on the disks of all nodes: ``GET /data/export``. EMQX 4 sends them all at once."""
        reply = yield Request("GET", "/data/export")
        return Page(
            cast("list[BackupRow]", [self._row(row) for row in reply.rows]), None, ("node", "filename")
        )

    def download(self, filename: str, node: str | None = None) -> Operation[bytes]:
        """
        Read a backup: ``GET /data/file/{filename}``.

        :param node: EMQX 4 looks on the node that answers only.
        :return: the file, a JSON document.
        :raises EmqxNotFoundError: if the file does not exist there.
        """
        request = Request("GET", path("data", "file", filename), accept=(200,), timeout=_LONG)
        try:
            reply = yield request
        except EmqxBadRequestError as error:
            _refuse_missing(error)
            raise
        content = reply.data.get("file") if isinstance(reply.data, dict) else None
        if not isinstance(content, str):
            raise EmqxServerError(200, "", "the response contains no file", str(request))
        return content.encode()

    def delete(self, filename: str, node: str | None = None) -> Operation[bool | None]:
        """Delete a backup from the disk of the node that answers: ``DELETE /data/file/{filename}``."""
        try:
            yield Request("DELETE", path("data", "file", filename))
        except (EmqxBadRequestError, EmqxNotFoundError) as error:
            if not _is_missing(error):
                raise
            return error.maybe_applied
        return True

    def upload(self, filename: str, content: bytes) -> Operation[None]:
        """
        Upload a backup to the disk of the node that responds: ``POST /data/file``.

        :param filename: its name there, ending in ``.json``.
        """
        path(filename)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise EmqxConfigError("this file is not a backup of EMQX 4; expected a JSON document") from None
        yield Request(
            "POST", "/data/file", json={"filename": filename, "file": text}, repeatable=True, timeout=_LONG
        )

    def restore(self, filename: str, node: str | None = None, repeatable: bool = True) -> Operation[None]:
        """
        Put a backup that lies on a node's disk into force: ``POST /data/import``. It overwrites configuration and
        users.

        :param repeatable: whether to send the request again if its answer is lost.
        """
        path(filename)
        if node is not None:
            yield from self.nodes.require(node)
        body = {"filename": filename} if node is None else {"filename": filename, "node": node}
        try:
            yield Request("POST", "/data/import", json=body, repeatable=repeatable, timeout=_LONG)
        except EmqxBadRequestError as error:
            _refuse_missing(error)
            raise

    def _row(self, row: Row) -> Row:
        found = {name: row.get(name) for name in ("filename", "node", "size")}
        return {**found, "created_at": from_export(self.broker, row.get("created_at"))}


def _is_missing(error: EmqxApiError) -> bool:
    return isinstance(error, EmqxNotFoundError) or any(sign in error.reason for sign in _NO_FILE)


def _refuse_missing(error: EmqxBadRequestError) -> None:
    if _is_missing(error):
        raise EmqxNotFoundError(error.status, error.code, error.reason, error.request) from error

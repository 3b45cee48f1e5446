"""Backups of configuration and built-in databases, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from airflow_provider_emqx.api.base import Operation, Page, Request, Row, path
from airflow_provider_emqx.api.multipart import upload
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import BackupRow
from airflow_provider_emqx.api.v5.nodes import NodesArea
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxNotFoundError,
    EmqxOutcomeUnknownError,
)

#: the broker writes or reads all its tables before it answers
_LONG = 600.0


class Backups(NodesArea):
    """Backups on the disks of the nodes, EMQX 5.4 and newer."""

    def export(
        self, table_sets: Sequence[str] | None = None, root_keys: Sequence[str] | None = None
    ) -> Operation[BackupRow]:
        """
        Write a backup to the disk of the node that answers, EMQX 5.4 and newer: ``POST /data/export``.

        :param table_sets: which tables, as ``["builtin_authn", "builtin_authz", "banned"]``; ``None`` for all.
        :param root_keys: which parts of the configuration, as ``["authentication", "mqtt"]``; ``None`` for all.
        """
        made, _ = yield from self._export(table_sets, root_keys)
        return made

    def _export(
        self, table_sets: Sequence[str] | None, root_keys: Sequence[str] | None
    ) -> Operation[tuple[BackupRow, bool]]:
        """Export; the second value tells whether there may be one more export, whose response was lost."""
        self.broker.require("a backup over the API", 5, 4)
        asked = {"table_sets": table_sets, "root_keys": root_keys}
        body = {name: list(names) for name, names in asked.items() if names is not None}
        # a second export makes a second file, which does no harm
        reply = yield Request("POST", "/data/export", json=body, repeatable=True, timeout=_LONG)
        return cast("BackupRow", _row(reply.data)), reply.maybe_applied

    def list(self, page: int = 1, limit: int | None = None) -> Operation[Page[BackupRow]]:
        """
        List the backups on the disks of all nodes, EMQX 5.4 and newer: ``GET /data/files``.

        :return: rows of ``filename``, ``node``, ``size``, ``created_at``.
        """
        self.broker.require("listing backups", 5, 4)
        limit = limit or self.page_limit
        reply = yield Request("GET", "/data/files", self.query(page, limit))
        more = partial(self.list, page + 1, limit) if has_next(reply, page, limit) else None
        return Page(cast("list[BackupRow]", [_row(row) for row in reply.rows]), more, ("node", "filename"))

    def download(self, filename: str, node: str | None = None) -> Operation[bytes]:
        """
        Read a backup, EMQX 5.4 and newer: ``GET /data/files/{filename}``.

        :param node: whose disk it is on.
        :return: the file, a ``.tar.gz``.
        """
        self.broker.require("reading a backup", 5, 4)
        reply = yield Request(
            "GET", path("data", "files", filename), {"node": node}, binary=True, timeout=_LONG
        )
        return bytes(reply.data)

    def delete(self, filename: str, node: str | None = None) -> Operation[bool | None]:
        """Delete a backup from a node's disk, EMQX 5.4 and newer: ``DELETE /data/files/{filename}``."""
        self.broker.require("deleting a backup", 5, 4)
        try:
            yield Request("DELETE", path("data", "files", filename), {"node": node})
        except EmqxNotFoundError as error:
            return error.maybe_applied
        return True

    def upload(self, filename: str, content: bytes) -> Operation[None]:
        """
        Put a backup on the disk of the node that answers, EMQX 5.4 and newer: ``POST /data/files``.

        :param filename: its name there, ending in ``.tar.gz``.
            An archive's one directory has to be called so too.
        :raises EmqxBadRequestError: if the file exists already, or the content is not a backup.
        """
        self.broker.require("uploading a backup", 5, 4)
        path(filename)
        if not filename.isascii() or '"' in filename or "/" in filename or not filename.isprintable():
            raise EmqxConfigError(f"{filename[:80]!r} cannot be the name of a backup")
        body, content_type = upload(filename, content)
        try:
            yield Request(
                "POST", "/data/files", body=body, content_type=content_type, repeatable=True, timeout=_LONG
            )
        except EmqxBadRequestError as error:
            if not error.maybe_applied or "already exists" not in error.reason:
                raise
            # brought by an attempt whose answer was lost, if it is this one
            if (yield from self.download(filename, (yield from self._node_of(filename)))) != content:
                raise

    def restore(self, filename: str, node: str | None = None, repeatable: bool = True) -> Operation[None]:
        """
        Put a backup that lies on a node's disk into force, EMQX 5.4 and newer: ``POST /data/import``.

        It overwrites configuration and users.

        :param node: whose disk it is on.
        :param repeatable: whether to send the request again if its answer is lost. While the broker still imports the
            file, a repeated request takes its directory away.
        :raises EmqxOutcomeUnknownError: if the answer was lost, and the import could not be repeated.
        """
        self.broker.require("importing a backup", 5, 4)
        path(filename)
        if node is not None:
            yield from self.nodes.require(node)
        body = {"filename": filename} if node is None else {"filename": filename, "node": node}
        request = Request("POST", "/data/import", json=body, repeatable=repeatable, timeout=_LONG)
        try:
            yield request
        except EmqxBadRequestError as error:
            if not error.maybe_applied:
                raise
            # a second import fails while the first is under way
            raise EmqxOutcomeUnknownError(
                f"the answer to the import of {filename} was lost, and repeating it failed ({error.reason}): look at "
                "what the broker has before you import again",
                str(request),
            ) from error

    def take(
        self, table_sets: Sequence[str], root_keys: Sequence[str]
    ) -> Operation[tuple[bytes, EmqxError | None, bool]]:
        """
        Export, download, and delete the export from the broker's disk: all of it, even if the task is to stop.

        :param table_sets: as of :meth:`export`.
        :param root_keys: the same.
        :return: the export; why it could not be deleted, ``None`` if it was; and whether there may be one more export,
            whose response was lost.
        """
        made, more = yield from self._export(table_sets, root_keys)
        try:
            content = yield from self.download(made["filename"], made["node"])
        except EmqxError:
            yield from self._remove(made["filename"], made["node"])
            raise
        return content, (yield from self._remove(made["filename"], made["node"])), more

    def bring(self, filename: str, content: bytes) -> Operation[EmqxError | None]:
        """
        Upload, import once, and delete the file from the broker's disk: all of it, even if the task is to stop.

        :param filename: as of :meth:`upload`.
        :param content: the same.
        :return: why the file could not be deleted, ``None`` if it was.
        :raises EmqxOutcomeUnknownError: if it is not known whether it was imported.
        :raises EmqxError: if it was not uploaded, or not imported as a whole.
        """
        node: str | None = None
        try:
            yield from self.upload(filename, content)
            # behind a load balancer it is on one of the nodes only
            node = yield from self._node_of(filename)
            yield from self.restore(filename, node, repeatable=False)
        except EmqxError:
            yield from self._remove(filename, node)
            raise
        return (yield from self._remove(filename, node))

    def _node_of(self, filename: str) -> Operation[str | None]:
        page: Page[BackupRow] | None = yield from self.list()
        while page is not None:
            for row in page.rows:
                if row["filename"] == filename:
                    return row["node"]
            page = (yield from page.next()) if page.next else None
        return None

    def _remove(self, filename: str, node: str | None) -> Operation[EmqxError | None]:
        """Delete a file that is of no more use, and return why that failed, if it did."""
        try:
            node = node or (yield from self._node_of(filename))
            if node is not None:
                yield from self.delete(filename, node)
        except EmqxError as error:
            return error
        return None


def _row(row: Row) -> Row:
    return {name: row.get(name) for name in ("filename", "node", "size", "created_at")}

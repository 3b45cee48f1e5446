"""Backups in a directory or an object store."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import posixpath
import tarfile
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_emqx.exceptions import EmqxError, EmqxNotFoundError
from airflow_provider_emqx.files import Location, exists, files_in, locate, open_to_read, replacing
from airflow_provider_emqx.provisioning.exports import discard

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.results import TakenBackup, WrittenBackup

log = logging.getLogger(__name__)

#: how the broker's own names begin; nothing else is ever deleted
_PREFIX = "emqx-export-"
_INSTEAD = (
    "Take the backup on the node itself (emqx_ctl data export), or run a build of EMQX that finds its files"
)


class Store:
    """
    A directory of backups.

    :param target: path, URL or ObjectStoragePath.
    """

    def __init__(self, target: Location) -> None:
        self.target = locate(target)

    def write(self, filename: str, content: bytes, size: int | None) -> WrittenBackup:
        """
        Check a backup, write it, and read it again.

        :param filename: its name.
        :param content: the file.
        :param size: how large the broker says it is.
        :return: ``{"backup_path", "size", "sha256"}``.
        :raises EmqxError: if it is not what the broker exported, or not what was written.
        """
        if size is not None and size != len(content):
            raise EmqxError(f"backup {filename} has {len(content):,} bytes, but the broker exported {size:,}")
        _check(filename, content)
        path = self._at(filename)
        # what is not whole must not pass for a backup later
        with replacing(path, "backup") as file:
            file.write(content)
        with open_to_read(path) as file:
            same = file.read() == content
        if not same:
            self._delete(filename)
            raise EmqxError(f"what was written to {path} is not what can be read there; it was deleted again")
        return {"backup_path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def has(self, filename: str) -> bool:
        """Return whether there is a backup of this name."""
        return exists(self._at(filename))

    def old(self, keep: int | None) -> list[str]:
        """
        Return the names of the backups that are too many once another one is written, the oldest first.

        :param keep: how many stay then; ``None`` for all.
        """
        if keep is None:
            return []
        # the broker's names begin with the time; two of one second are distinguished by what follows
        names = sorted((name for name in self._names() if name.startswith(_PREFIX)), key=_moment)
        return names[: max(0, len(names) - (keep - 1))]

    def delete(self, name: str) -> str:
        """
        Delete a backup.

        :param name: of the file.
        :return: its path.
        """
        self._delete(name)
        return self._at(name)

    def _at(self, name: str) -> str:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise EmqxError(f"{name!r} is not a name of a backup")
        if isinstance(self.target, str):
            return os.path.join(self.target, name)
        return posixpath.join(str(self.target), name)

    def _names(self) -> list[str]:
        return [posixpath.basename(str(file)) for file in files_in(self.target)[0]]

    def _delete(self, name: str) -> None:
        if isinstance(self.target, str):
            os.remove(os.path.join(self.target, name))
        else:
            cast("Any", self.target / name).unlink()


def take(
    hook: EmqxHook,
    store: Store,
    table_sets: Sequence[str] | None = None,
    root_keys: Sequence[str] | None = None,
) -> TakenBackup:
    """
    Export a backup, download it and write it to a store.

    What was exported and could not be stored is deleted again from the broker's disk.

    :param store: where it is to be kept.
    :param table_sets: as of :meth:`~airflow_provider_emqx.hooks.cluster.ClusterMethods.export_backup`.
    :param root_keys: the same.
    :return: ``{"backup_path", "size", "sha256", "filename", "node"}``.
    :raises EmqxError: if the broker does not find what it exports; before exporting where that shows.
    """
    if hook.api_version == "v4":
        _require_downloads(hook, store)
    made = hook.export_backup(table_sets, root_keys)
    try:
        content = hook.download_backup(made["filename"], made["node"])
        written = store.write(made["filename"], content, made["size"])
    except BaseException as error:
        _, left = discard(hook, made["filename"], made["node"])
        if not isinstance(error, EmqxNotFoundError):
            log.warning("The backup failed. %s", left)
            raise
        raise EmqxError(
            f"the broker exported {made['filename']} on node {made['node']}, and does not find it there. {left}. "
            f"{_INSTEAD}"
        ) from error
    return {**written, "filename": made["filename"], "node": made["node"]}


def _require_downloads(hook: EmqxHook, store: Store) -> None:
    """
    Refuse a broker that lists exports and does not find them, as builds of EMQX 4 do: each run would leave one more.

    :raises EmqxError: if that is certain.
    """
    listed = sorted(hook.list_backups(), key=lambda row: row["created_at"] or "")
    if not listed or store.has(listed[-1]["filename"]):
        return
    # the node that answers finds its own files only, and which one that is it does not tell
    smallest = {row["node"]: row for row in sorted(listed, key=lambda row: row["size"] or 0, reverse=True)}
    for row in smallest.values():
        try:
            hook.download_backup(row["filename"], row["node"])
        except EmqxNotFoundError:
            continue
        return
    if all(row["node"] in smallest for row in hook.list_nodes() if row["node_status"] == "running"):
        raise EmqxError(
            f"the broker lists its export {listed[-1]['filename']} and does not find it, so that no backup can be "
            f"downloaded. Nothing was exported. {_INSTEAD}"
        )


def _moment(name: str) -> list[Any]:
    """Sort by the numbers in a name: EMQX 4 writes ``2026-11-3-4-5-6`` without leading zeros."""
    numbers = [int(part) for part in name.replace(".", "-").split("-") if part.isdecimal()]
    return [numbers, name]


def _check(filename: str, content: bytes) -> None:
    """Verify that a backup is complete."""
    try:
        if filename.endswith(".gz"):
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
                complete = bool(archive.getnames())
        else:
            complete = isinstance(json.loads(content), dict)
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, RecursionError):
        complete = False
    if not complete:
        raise EmqxError(
            f"backup {filename} is damaged: the {'archive' if '.gz' in filename else 'document'} is incomplete"
        )

"""Where backups are kept: a directory or an object store."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import posixpath
import tarfile
import zlib
from typing import Any, cast

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.files import Location, locate, open_to_read, open_to_write

#: how the broker's own names begin; nothing else is ever deleted
_PREFIX = "emqx-export-"


class Store:
    """
    A directory of backups.

    :param target: path, URL or ObjectStoragePath.
    """

    def __init__(self, target: Location) -> None:
        if not str(target):
            raise EmqxConfigError(
                "target is empty; give a directory or a URL as s3://aws_default@bucket/emqx"
            )
        self.target = locate(target)

    def write(self, filename: str, content: bytes, size: int | None) -> dict[str, Any]:
        """
        Check a backup, write it, and read it again.

        :param filename: its name.
        :param content: the file.
        :param size: how large the broker says it is.
        :return: ``{"path", "size", "sha256"}``.
        :raises EmqxError: if it is not what the broker exported, or not what was written.
        """
        if size is not None and size != len(content):
            raise EmqxError(f"backup {filename} has {len(content):,} bytes, but the broker exported {size:,}")
        _check(filename, content)
        path = self._at(filename)
        with open_to_write(path, "backup") as file:
            file.write(content)
        with open_to_read(path) as file:
            if file.read() != content:
                raise EmqxError(f"what was written to {path} is not what can be read there")
        return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def prune(self, keep: int | None, newest: str) -> list[str]:
        """
        Delete the oldest backups.

        :param keep: how many stay, ``newest`` included; ``None`` for all.
        :param newest: never deleted.
        :return: the paths deleted.
        """
        if keep is None:
            return []
        # the broker's names begin with the time; two of one second are told apart by what follows
        others = sorted(
            (name for name in self._names() if name.startswith(_PREFIX) and name != newest), key=_moment
        )
        old = others[: max(0, len(others) - (keep - 1))]
        for name in old:
            self._delete(name)
        return [self._at(name) for name in old]

    def _at(self, name: str) -> str:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise EmqxError(f"{name!r} is no name of a backup")
        if isinstance(self.target, str):
            return os.path.join(self.target, name)
        return posixpath.join(str(self.target), name)

    def _names(self) -> list[str]:
        if isinstance(self.target, str):
            return os.listdir(self.target)
        return [path.name for path in cast("Any", self.target).iterdir()]

    def _delete(self, name: str) -> None:
        if isinstance(self.target, str):
            os.remove(os.path.join(self.target, name))
        else:
            cast("Any", self.target / name).unlink()


def _moment(name: str) -> list[Any]:
    """Sort by the numbers in a name: EMQX 4 writes ``2026-11-3-4-5-6`` without leading zeros."""
    numbers = [int(part) for part in name.replace(".", "-").split("-") if part.isdecimal()]
    return [numbers, name]


def _check(filename: str, content: bytes) -> None:
    """Make sure that a backup is complete."""
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
            f"backup {filename} is damaged: it is no complete {'archive' if '.gz' in filename else 'document'}"
        )

"""Backups: files on the disk of a node, of both generations."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from airflow_provider_emqx.testing import archives, exports
from airflow_provider_emqx.testing.state import Backup, State


def make(
    state: State, table_sets: Iterable[str] | None = None, root_keys: Iterable[str] | None = None
) -> Backup:
    """Export to a file of the form that the generation uses.

    :param table_sets: API v5: which tables, ``None`` for all.
    :param root_keys: API v5: which parts of the configuration, ``None`` for all.
    """
    now = state.now()
    moment = time.gmtime(now)
    if state.generation == "v4":
        # 4.4 does not pad the numbers.
        stamp = f"{moment.tm_year}-{moment.tm_mon}-{moment.tm_mday}-{moment.tm_hour}-{moment.tm_min}-{moment.tm_sec}"
        filename, content = f"emqx-export-{stamp}.json", exports.make(state)
    else:
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", moment)
        root = f"emqx-export-{stamp}.{int(now * 1000) % 1000:03d}"
        filename, content = f"{root}.tar.gz", archives.make(state, root, table_sets, root_keys)
    backup = Backup(filename, state.node, now, content)
    state.backups[filename] = backup
    return backup


def newest_first(state: State) -> list[Backup]:
    """Return all files in the order of the listing."""
    return sorted(state.backups.values(), key=lambda one: (int(one.created_at), one.filename), reverse=True)


def restore(state: State, backup: Backup) -> tuple[int, int]:
    """Import a file: add its contents to the broker's.

    :return: How many records of an archive were written, and how many keys deleted.
    :raises archives.Refused: If this broker does not import it.
    """
    counts = (0, 0)
    if state.generation == "v4":
        exports.restore(state, backup.content)
    else:
        most = state.import_records.pop(0) if state.import_records else None
        counts = archives.restore(state, backup.filename, backup.content, most)
    state.imported.append(backup.filename)
    return counts


def check(state: State, filename: str, content: bytes) -> None:
    """Validate a file as an upload does.

    :raises archives.Refused: If this broker does not import it.
    """
    if state.generation != "v4":
        archives.check(state, filename, content)
        return
    try:
        valid = isinstance(json.loads(content), dict)
    except ValueError:
        valid = False
    if not valid:
        raise archives.Refused("bad_file")

"""Restore a backup: check it, upload it under a unique name, import it, and delete it again."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_emqx.archives.archive import (
    CLUSTER,
    META,
    TABLES,
    ArchiveError,
    read_archive,
    read_meta,
    write_archive,
)
from airflow_provider_emqx.archives.tables import TableError, read_items
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location, open_to_read, shown
from airflow_provider_emqx.provisioning.exports import take_away
from airflow_provider_emqx.provisioning.formats import JsonText, Where

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.results import BackupContents

log = logging.getLogger(__name__)

#: items of a table before its records: header and schema
_NO_RECORDS = 2


def look(location: Location) -> tuple[bytes, BackupContents]:
    """
    Read a backup, look it through to its end, and log what it holds.

    :param location: of an archive of EMQX 5 or 6, or an export of EMQX 4.
    :return: the file; and ``{"version", "edition", "tables": {name: records}, "configuration", "files"}``:
        ``configuration`` says whether it holds any, ``files`` how many others there are, as certificates.
    :raises EmqxConfigError: if it is neither, or is cut or damaged: a broker would import a table that is cut without
        a word.
    """
    title = shown(location)
    with open_to_read(location) as file:
        content = file.read()
    if content[:2] == b"\x1f\x8b":
        try:
            contents = _look_into_archive(content)
        except ArchiveError as error:
            raise EmqxConfigError(f"{title}: not an archive of EMQX, or a damaged one: {error}") from None
    else:
        contents = _look_into_export(content, Where(title))
    log.info("%s is %s", title, _words(contents))
    return content, contents


def _look_into_archive(content: bytes) -> BackupContents:
    meta, tables, configuration, files = None, {}, False, 0
    for name, file, size in read_archive(io.BytesIO(content)):
        if name == META:
            meta = read_meta(file)
        elif name == CLUSTER:
            configuration = size > 0
        elif name.startswith(TABLES):
            try:
                tables[name.removeprefix(TABLES)] = sum(1 for _ in read_items(file)) - _NO_RECORDS
            except TableError as error:
                raise ArchiveError(f"{name}: {error}") from None
        else:
            files += 1
    if meta is None:
        raise ArchiveError(f"it has no {META}")
    return {
        "version": meta.version,
        "edition": meta.edition,
        "tables": tables,
        "configuration": configuration,
        "files": files,
    }


def _look_into_export(content: bytes, where: Where) -> BackupContents:
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape", newline="")
    version, tables = None, Counter[str]()
    for name, item in JsonText(text, where).parts():
        if name == "version":
            version = str(item)
        elif isinstance(item, dict):
            tables[name] += 1
    if version is None or not version.startswith("4."):
        raise where.broken("not an export of EMQX 4: it does not name this version")
    settings = {"rules", "resources", "modules", "configs"} & tables.keys()
    return {
        "version": version,
        "edition": None,
        "tables": dict(tables),
        "configuration": bool(settings),
        "files": 0,
    }


def restore(hook: EmqxHook, content: bytes) -> str | None:
    """
    Upload a backup, import it, and delete it from the broker, whatever happens.

    It has a name of its own there: a second upload of a name is refused, and what the broker has exported stays.

    :param content: as :func:`look` gives it.
    :return: the node that imported it; behind a load balancer the file lies on one of them only. ``None`` where the
        broker does not say.
    :raises EmqxError: if the broker refuses it, or a part of it.
    """
    root = f"airflow-{uuid4().hex}"
    archive = content[:2] == b"\x1f\x8b"
    filename = f"{root}{'.tar.gz' if archive else '.json'}"
    # an archive's one directory has to be called as the file is
    hook.upload_backup(filename, _renamed(content, root) if archive else content)
    made = next((row for row in hook.list_backups() if row["filename"] == filename), None)
    node = made["node"] if made else None
    try:
        hook.import_backup(filename, node)
    finally:
        take_away(hook, filename, node)
    return node


def _renamed(content: bytes, root: str) -> bytes:
    buffer = io.BytesIO()
    write_archive(buffer, root, read_archive(io.BytesIO(content)))
    return buffer.getvalue()


def _words(contents: BackupContents) -> str:
    """Return the contents of a backup in one line."""
    tables = {name: count for name, count in contents["tables"].items() if count}
    told = json.dumps(tables) if tables else "no records"
    return (
        f"made by EMQX {contents['version']} ({contents['edition'] or 'EMQX 4'}); records {told}; "
        f"{'configuration' if contents['configuration'] else 'no configuration'}; {contents['files']:,} other files"
    )

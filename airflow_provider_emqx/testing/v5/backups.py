"""API v5, data export and import (since 5.4)."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.testing import backups
from airflow_provider_emqx.testing.archives import Refused
from airflow_provider_emqx.testing.http import Answer, Request, multipart_file, rfc3339
from airflow_provider_emqx.testing.routes import Route, since
from airflow_provider_emqx.testing.state import Backup, State
from airflow_provider_emqx.testing.v5.replies import bad_request, error, listing, no_content, ok, read_object

_TABLE_SETS = frozenset(
    ["banned", "builtin_authn", "builtin_authz", "builtin_retainer", "dashboard_users", "api_keys"]
)
#: Bytes of an archive that are exported in a second (23,124,271 take 8 to 12 s).
EXPORTED_BYTES = 2_300_000
_NOT_FOUND = "Cannot find the specified backup file"


def _row(backup: Backup) -> dict[str, Any]:
    return {
        "filename": backup.filename,
        "node": backup.node,
        "created_at": rfc3339(backup.created_at),
        "created_at_sec": int(backup.created_at),
        "size": len(backup.content),
    }


def export(state: State, request: Request) -> Answer:
    """``POST /data/export``."""
    body = read_object(request)
    table_sets = body.get("table_sets")
    unknown = set(table_sets or ()) - _TABLE_SETS
    if unknown:
        raise bad_request(f"Invalid table sets: {', '.join(sorted(unknown))}")
    backup = backups.make(state, table_sets, body.get("root_keys"))
    answer = ok(_row(backup))
    answer.read = len(backup.content) / EXPORTED_BYTES
    return answer


def list_files(state: State, request: Request) -> Answer:
    """``GET /data/files``."""
    return listing(state, request, backups.newest_first(state), _row)


def _running(state: State, node: str | None) -> str:
    name = node or state.node
    if name not in [info.name for info in state.running()]:
        raise bad_request(f"Unknown node: {name}")
    return name


def _file(state: State, request: Request, filename: str, node: str | None) -> Backup:
    name = _running(state, node)
    backup = state.backups.get(filename)
    if backup is None or backup.node != name:  # files stay on the node that wrote them
        raise error(404, "NOT_FOUND", _NOT_FOUND)
    return backup


def download(state: State, request: Request, filename: str) -> Answer:
    """``GET /data/files/{filename}``."""
    backup = _file(state, request, filename, request.arg("node"))
    return Answer(200, backup.content, "application/octet-stream")


def delete(state: State, request: Request, filename: str) -> Answer:
    """``DELETE /data/files/{filename}``."""
    del state.backups[_file(state, request, filename, request.arg("node")).filename]
    return no_content()


def upload(state: State, request: Request) -> Answer:
    """``POST /data/files``: checked at once."""
    found = multipart_file(request)
    if found is None:
        raise bad_request("Missing required parameter: filename")
    filename, content = found
    if filename in state.backups:
        raise bad_request("Backup file already exists")
    if not filename.endswith(".tar.gz"):
        raise bad_request("Backup file is invalid or corrupted")
    try:
        backups.check(state, filename, content)
    except Refused as error:
        raise bad_request(str(error)) from None
    state.backups[filename] = Backup(filename, state.node, state.now(), content)
    return no_content()


def import_file(state: State, request: Request) -> Answer:
    """``POST /data/import``."""
    body = read_object(request, "filename")
    node = _running(state, body.get("node"))
    backup = state.backups.get(body["filename"])
    if backup is None or backup.node != node:
        raise bad_request(_NOT_FOUND)
    if backup.filename in state.importing:
        # what it was unpacked to is gone
        raise bad_request("enoent")
    answer = no_content()
    if state.import_seconds:
        _import_later(state, backup, state.import_seconds.pop(0))
        return answer
    try:
        written, deleted = backups.restore(state, backup)
    except Refused as error:
        raise bad_request(str(error)) from None
    answer.imported, answer.deleted = written, deleted
    return answer


def _import_later(state: State, backup: Backup, seconds: float) -> None:
    state.importing.add(backup.filename)

    def end() -> None:
        state.importing.discard(backup.filename)
        # what was deleted meanwhile has been read already
        backups.restore(state, backup)

    state.schedule(seconds, end)


ROUTES = [
    Route("POST", "/data/export", export, since(5, 4)),
    Route("GET", "/data/files", list_files, since(5, 4)),
    Route("POST", "/data/files", upload, since(5, 4)),
    Route("GET", "/data/files/{filename}", download, since(5, 4)),
    Route("DELETE", "/data/files/{filename}", delete, since(5, 4)),
    Route("POST", "/data/import", import_file, since(5, 4)),
]

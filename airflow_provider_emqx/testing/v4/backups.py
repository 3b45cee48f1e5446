"""API v4, data export and import."""

from __future__ import annotations

import json
import time
from typing import Any

from airflow_provider_emqx.testing import backups
from airflow_provider_emqx.testing.archives import Refused
from airflow_provider_emqx.testing.http import Answer, Request, dump
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import Backup, State
from airflow_provider_emqx.testing.v4.replies import data, done, message_only, read_object


def _row(state: State, backup: Backup) -> dict[str, Any]:
    moment = time.gmtime(backup.created_at + state.utc_offset * 3600)
    day = f"{moment.tm_year}-{moment.tm_mon}-{moment.tm_mday}"
    return {
        "filename": backup.filename,
        "size": len(backup.content),
        "created_at": f"{day} {moment.tm_hour}:{moment.tm_min}:{moment.tm_sec}",  # not padded
        "node": backup.node,
    }


def export(state: State, request: Request) -> Answer:
    """``POST /data/export``."""
    return data(_row(state, backups.make(state)))


def list_files(state: State, request: Request) -> Answer:
    """``GET /data/export``: oldest first."""
    return data([_row(state, backup) for backup in reversed(backups.newest_first(state))])


def _file(state: State, request: Request, filename: str) -> Backup:
    """Search the disk of the node that responds; some builds find nothing there."""
    backup = state.backups.get(filename)
    if backup is None or backup.node != state.node or not state.backups_found.get(request.method, True):
        raise message_only("not_found")
    return backup


def download(state: State, request: Request, filename: str) -> Answer:
    """``GET /data/file/{filename}``: the file as text inside of JSON."""
    backup = _file(state, request, filename)
    return data({"filename": backup.filename, "file": backup.content.decode()})


def upload(state: State, request: Request) -> Answer:
    """``POST /data/file``."""
    body = read_object(request)
    if "file" not in body:
        raise message_only("missing_required_params")
    content = body["file"].encode() if isinstance(body["file"], str) else dump(body["file"])
    try:
        backups.check(state, "", content)
    except Refused as error:
        raise message_only(str(error)) from None
    filename = body.get("filename") or backups.make(state).filename
    state.backups[filename] = Backup(filename, state.node, state.now(), content)
    return data([{"node": state.node}])


def import_file(state: State, request: Request) -> Answer:
    """``POST /data/import``: a file by its name, or the content itself."""
    body = read_object(request)
    if "filename" in body:
        if "node" in body and body["node"] not in state.nodes:
            raise message_only("no_existent_node")
        backups.restore(state, _file(state, request, body["filename"]))
    else:
        content = json.dumps(body).encode()
        backups.restore(state, Backup("content", state.node, state.now(), content))
    return done()


def delete(state: State, request: Request, filename: str) -> Answer:
    """``DELETE /data/file/{filename}``."""
    del state.backups[_file(state, request, filename).filename]
    return done()


ROUTES = [
    Route("POST", "/data/export", export),
    Route("GET", "/data/export", list_files),
    Route("GET", "/data/file/{filename}", download),
    Route("POST", "/data/file", upload),
    Route("DELETE", "/data/file/{filename}", delete),
    Route("POST", "/data/import", import_file),
]

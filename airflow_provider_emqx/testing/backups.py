"""Backups: what an export holds and what an import brings back, of both generations."""

from __future__ import annotations

import copy
import io
import json
import tarfile
import time
from typing import Any

from airflow_provider_emqx.testing.passwords import User
from airflow_provider_emqx.testing.state import Backup, State
from airflow_provider_emqx.testing.tables import Table


def make(state: State) -> Backup:
    """Export: users, rules and bans, in a file of the form that the generation uses."""
    now = state.now()
    moment = time.gmtime(now)
    if state.generation == "v4":
        # 4.4 does not pad the numbers.
        stamp = f"{moment.tm_year}-{moment.tm_mon}-{moment.tm_mday}-{moment.tm_hour}-{moment.tm_min}-{moment.tm_sec}"
        filename = f"emqx-export-{stamp}.json"
    else:
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", moment)
        filename = f"emqx-export-{stamp}.{int(now * 1000) % 1000:03d}.tar.gz"
    backup = Backup(filename, state.node, now, _content(state, filename), _snapshot(state))
    state.backups[filename] = backup
    return backup


def newest_first(state: State) -> list[Backup]:
    """Return all files in the order of the listing."""
    return sorted(state.backups.values(), key=lambda one: (int(one.created_at), one.filename), reverse=True)


def restore(state: State, backup: Backup) -> None:
    """Import a file."""
    state.imported.append(backup.filename)
    if backup.snapshot:
        for kind, users in backup.snapshot["users"].items():
            _users(state)[kind].update(copy.deepcopy(users))
        state.bans.update(copy.deepcopy(backup.snapshot["bans"]))


def valid(state: State, content: bytes) -> bool:
    """Tell whether bytes are a file that an import would take."""
    try:
        if state.generation == "v4":
            return isinstance(json.loads(content), dict)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            return any(name.endswith("META.hocon") for name in archive.getnames())
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return False


def _users(state: State) -> dict[str, Table[User]]:
    if state.generation == "v4":
        return state.v4_users
    return {name: authenticator.users for name, authenticator in state.authenticators.items()}


def _snapshot(state: State) -> dict[str, Any]:
    users = {kind: dict(copy.deepcopy(dict(table))) for kind, table in _users(state).items()}
    return {"users": users, "bans": dict(state.bans)}


def _content(state: State, filename: str) -> bytes:
    facts = {
        "version": state.version_text,
        "users": {kind: len(table) for kind, table in _users(state).items()},
    }
    if state.generation == "v4":
        return json.dumps(facts).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        stem = filename.removesuffix(".tar.gz")
        for name, text in (
            ("META.hocon", f'version = "{state.version_text}"\n'),
            ("users.json", json.dumps(facts)),
        ):
            member = tarfile.TarInfo(f"{stem}/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()

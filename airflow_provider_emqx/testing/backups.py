"""Backups: what an export holds and what an import brings back, of both generations."""

from __future__ import annotations

import io
import json
import tarfile
import time
from dataclasses import asdict
from typing import Any

from airflow_provider_emqx.testing.passwords import User
from airflow_provider_emqx.testing.state import Authenticator, Backup, Ban, State
from airflow_provider_emqx.testing.tables import Table


def make(state: State) -> Backup:
    """Export authenticators, users and bans, in a file of the form that the generation uses."""
    now = state.now()
    moment = time.gmtime(now)
    if state.generation == "v4":
        # 4.4 does not pad the numbers.
        stamp = f"{moment.tm_year}-{moment.tm_mon}-{moment.tm_mday}-{moment.tm_hour}-{moment.tm_min}-{moment.tm_sec}"
        filename = f"emqx-export-{stamp}.json"
    else:
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", moment)
        filename = f"emqx-export-{stamp}.{int(now * 1000) % 1000:03d}.tar.gz"
    backup = Backup(filename, state.node, now, _content(state, filename))
    state.backups[filename] = backup
    return backup


def newest_first(state: State) -> list[Backup]:
    """Return all files in the order of the listing."""
    return sorted(state.backups.values(), key=lambda one: (int(one.created_at), one.filename), reverse=True)


def restore(state: State, backup: Backup) -> None:
    """Import a file: what it holds is added to what there is."""
    state.imported.append(backup.filename)
    kept = _read(state, backup.content).get(_KEPT, {})
    for name, config in kept.get("authenticators", {}).items():
        state.authenticators.setdefault(name, Authenticator(config))
    tables = _users(state)
    for kind, rows in kept.get("users", {}).items():
        tables[kind].update({user_id: User(**fields) for user_id, fields in rows})
    for row in kept.get("bans", ()):
        state.bans[row["kind"], row["who"]] = Ban(**row)


def valid(state: State, content: bytes) -> bool:
    """Tell whether bytes are a file that an import would take."""
    try:
        return isinstance(_read(state, content), dict)
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return False


#: What this double's own files hold beside the version: a real broker's file has nothing under this name.
_KEPT = "fake_emqx"
_CONTENT = "content.json"


def _users(state: State) -> dict[str, Table[User]]:
    if state.generation == "v4":
        return state.v4_users
    return {name: authenticator.users for name, authenticator in state.authenticators.items()}


def _read(state: State, content: bytes) -> Any:
    """Return what is in a file; of a real broker's archive, that it is one."""
    if state.generation == "v4":
        return json.loads(content)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        names = {name.rpartition("/")[2]: name for name in archive.getnames()}
        if "META.hocon" not in names:
            raise ValueError("no backup")
        member = archive.extractfile(names[_CONTENT]) if _CONTENT in names else None
        return json.loads(member.read()) if member else {}


def _content(state: State, filename: str) -> bytes:
    fields = ("password", "is_superuser", "created_at", "password_hash", "salt")
    kept = {
        "authenticators": {name: found.config for name, found in state.authenticators.items()},
        "users": {
            kind: [
                (user_id, {name: getattr(user, name) for name in fields}) for user_id, user in table.items()
            ]
            for kind, table in _users(state).items()
        },
        "bans": [asdict(ban) for ban in state.bans.values()],
    }
    text = json.dumps({"version": state.version_text, _KEPT: kept})
    if state.generation == "v4":
        return text.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        stem = filename.removesuffix(".tar.gz")
        for name, part in (("META.hocon", f'version = "{state.version_text}"\n'), (_CONTENT, text)):
            member = tarfile.TarInfo(f"{stem}/{name}")
            member.size = len(part.encode())
            archive.addfile(member, io.BytesIO(part.encode()))
    return buffer.getvalue()

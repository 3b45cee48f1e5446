"""Backups, out of the broker and back."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxAlreadyExistsError, EmqxNotFoundError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator

pytestmark = pytest.mark.live


def listed(hook: EmqxHook) -> set[str]:
    return {row["filename"] for row in hook.list_backups()}


def bare(hook: EmqxHook, content: bytes, stem: str) -> tuple[str, bytes]:
    """Make a backup that changes nothing, out of a real one: its version without its content."""
    if hook.api_version == "v4":
        return f"{stem}.json", json.dumps({"version": json.loads(content)["version"]}).encode()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        [meta] = [part for part in archive.getmembers() if part.name.endswith("/META.hocon")]
        file = archive.extractfile(meta)
        assert file is not None
        text = file.read()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        # EMQX wants every file in a directory that is called as the archive is
        member = tarfile.TarInfo(f"{stem}/META.hocon")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return f"{stem}.tar.gz", buffer.getvalue()


def test_a_backup_is_taken_out_and_one_that_changes_nothing_is_put_into_force(
    hook: EmqxHook,
    backups: None,
    undo: ExitStack,
    name: Callable[..., str],
    run_dag: Callable[..., Any],
    tmp_path: Path,
) -> None:
    with DAG("live_backup") as dag:
        EmqxBackupOperator(task_id="backup", backup_dir=str(tmp_path))
    run = run_dag(dag)
    assert run.state == "success"
    made = run.get_task_instance("backup").xcom_pull(task_ids="backup")
    undo.callback(hook.delete_backup, made["filename"], made["node"])
    content = Path(made["backup_path"]).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (made["size"], made["sha256"])
    assert made["filename"] in listed(hook)
    assert hook.delete_backup(made["filename"], made["node"])
    assert made["filename"] not in listed(hook)
    assert hook.delete_backup(made["filename"], made["node"]) is False
    with pytest.raises(EmqxNotFoundError):
        hook.download_backup(made["filename"], made["node"])

    filename, small = bare(hook, content, name())
    undo.callback(hook.delete_backup, filename)
    hook.upload_backup(filename, small)
    assert filename in listed(hook)
    assert hook.download_backup(filename) == small
    hook.import_backup(filename)
    assert hook.delete_backup(filename)
    assert filename not in listed(hook)


def test_a_user_comes_back_with_a_backup(
    disposable: None,
    hook: EmqxHook,
    backups: None,
    users: None,
    undo: ExitStack,
    name: Callable[..., str],
) -> None:
    user_id = name()
    undo.callback(hook.delete_user, user_id)
    hook.create_user(user_id, "secret")
    made = hook.export_backup()
    undo.callback(hook.delete_backup, made["filename"], made["node"])
    hook.delete_user(user_id)
    assert hook.get_user(user_id) is None
    hook.import_backup(made["filename"], made["node"])
    assert hook.get_user(user_id) is not None
    # as those that were there all the time
    with pytest.raises(EmqxAlreadyExistsError):
        hook.create_user(user_id, "secret")

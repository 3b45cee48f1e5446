"""Users by archive: any salt, any id, and nothing left on the broker's disk."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.provisioning import archiving
from airflow_provider_emqx.provisioning.hashing import Algorithm
from tests.live.devices import Device
from tests.operators.run import execute

pytestmark = pytest.mark.live

#: enough that some have salts of every kind
DEVICES = 50


@pytest.fixture
def archives(hook: EmqxHook, users: None) -> None:
    """A broker that imports archives, with a key that may do so."""
    try:
        archiving.require(hook)
    except EmqxUnsupportedError as error:
        pytest.skip(str(error))


def provision(rows: list[dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = execute(EmqxProvisionUsersOperator, source=rows, bulk="archive", **arguments)
    return result


def left(hook: EmqxHook) -> list[str]:
    return [row["filename"] for row in hook.list_backups() if row["filename"].startswith(archiving.PREFIX)]


def test_devices_of_any_salt_log_in_and_are_deleted(
    hook: EmqxHook, archives: None, mqtt: str, name: Callable[..., str]
) -> None:
    algorithm = Algorithm.of(hook.get_authenticator())
    if algorithm.name == "bcrypt" or not algorithm.takes_salt:
        pytest.skip(f"the authenticator hashes with {algorithm}, which has no salts of its own")
    before = {row["filename"] for row in hook.list_backups()}
    salts = [secrets.token_bytes(4) for _ in range(DEVICES - 3)] + [b", \r\n", b"", "ü".encode()]
    rows = [
        {
            "user_id": name("-archive"),
            "password_hash": algorithm.hash("pässwörd", salt).decode(),
            "salt_base64": base64.b64encode(salt).decode(),
        }
        for salt in salts
    ]
    ids = [{"user_id": row["user_id"]} for row in rows]
    try:
        planned = provision(rows, dry_run=True)
        assert (planned["created"], hook.get_user(ids[0]["user_id"])) == (DEVICES, None)
        assert provision(rows)["created"] == DEVICES
        assert provision(rows)["unchanged"] == DEVICES
        for row in rows:
            with Device(mqtt, row["user_id"], row["user_id"], "pässwörd") as device:
                assert device.connect(), row
    finally:
        assert provision(ids, mode="delete")["rejected"] == 0
    assert provision(ids, mode="delete")["skipped"] == DEVICES
    assert not left(hook)
    assert {row["filename"] for row in hook.list_backups()} <= before


def test_a_synchronisation_writes_only_what_has_changed(
    hook: EmqxHook, archives: None, mqtt: str, undo: ExitStack, name: Callable[..., str], tmp_path: Path
) -> None:
    prefix = name("-sync-")
    rows = [{"user_id": f"{prefix}{number}", "password": f"secret-{number}"} for number in range(10)]
    for row in rows:
        undo.callback(hook.delete_user, row["user_id"])
    scope = {"mode": "sync", "scope": f"{prefix}*"}
    assert provision(rows, **scope)["created"] == 10
    again = [{**row, "password": "other"} if row is rows[0] else row for row in rows[:8]]
    report = tmp_path / "report.jsonl"
    done = provision(again, report_path=str(report), **scope)
    assert (done["updated"], done["unchanged"], done["pruned"]) == (1, 7, 2)
    assert {json.loads(line)["outcome"] for line in report.read_text().splitlines()} == {"pruned"}
    for row in again:
        with Device(mqtt, row["user_id"], row["user_id"], row["password"]) as device:
            assert device.connect()
    assert not left(hook)

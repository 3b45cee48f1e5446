"""Devices of an EMQX 4.4 move to the broker under test, and log in there with the passwords that they have."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxNotFoundError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxExportUsersOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
)
from tests.live.devices import Device
from tests.operators.run import execute

pytestmark = pytest.mark.live

#: enough that some have salts of every kind
DEVICES = 20


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmqxHook]:
    """An EMQX 4.4 whose devices move."""
    names = ("EMQX_TEST_SOURCE_URL", "EMQX_TEST_SOURCE_KEY", "EMQX_TEST_SOURCE_SECRET")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no EMQX 4.4 to move from: {', '.join(missing)} not set")
    host, login, password = (os.environ[name] for name in names)
    connection = {"conn_type": "emqx", "host": host, "login": login, "password": password}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_OLD", json.dumps(connection))
    with EmqxHook("emqx_old", user_id_type="username") as old:
        yield old


def test_devices_of_emqx_4_log_in_with_the_passwords_that_they_have(
    hook: EmqxHook,
    users: None,
    source: EmqxHook,
    mqtt: str,
    undo: ExitStack,
    name: Callable[..., str],
    tmp_path: Path,
) -> None:
    if hook.api_version == "v4":
        pytest.skip("the broker under test is an EMQX 4, which takes no hashes")
    passwords = {name("-moved"): f'pässwörd "{secrets.token_hex(4)}",' for _ in range(DEVICES)}
    for who, password in passwords.items():
        undo.callback(source.delete_user, who)
        undo.callback(hook.delete_user, who)
        source.create_user(who, password)
    path = tmp_path / "users.csv"
    try:
        execute(EmqxExportUsersOperator, output_path=str(path), with_hashes=True, emqx_conn_id="emqx_old")
    except EmqxError as error:
        if isinstance(error.__cause__, EmqxNotFoundError):
            pytest.skip("this build of EMQX 4.4 does not find its exports")
        raise
    header, *rows = path.read_text().splitlines()
    mine = [row for row in rows if row.partition(",")[0] in passwords]
    assert len(mine) == DEVICES
    path.write_text("\n".join([header, *mine]))
    algorithm = (hook.run(hook.api.users.get_authenticator()) or {}).get("password_hash_algorithm", {})
    if (algorithm.get("name"), algorithm.get("salt_position")) != ("sha256", "prefix"):
        pytest.skip(f"the authenticator hashes with {algorithm}; EMQX 4.4 with sha256, the salt as prefix")
    moved = execute(EmqxProvisionUsersOperator, source=str(path))
    assert moved["written"] + moved["not_carried"] == DEVICES
    let_in = 0
    for who, password in passwords.items():
        with Device(mqtt, who, who, password) as device:
            let_in += device.connect()
        with Device(mqtt, who, who, f"{password}x") as device:
            assert not device.connect()
    assert let_in == moved["written"] > 0


def test_an_archive_of_the_broker_is_a_source_for_itself(
    hook: EmqxHook,
    users: None,
    acl: None,
    backups: None,
    undo: ExitStack,
    name: Callable[..., str],
    tmp_path: Path,
) -> None:
    """What it exports is read, whoever else is in it; nothing is written."""
    who = name()
    undo.callback(hook.delete_user, who)
    hook.create_user(who, "secret")
    made = hook.export_backup()
    undo.callback(hook.delete_backup, made["filename"], made["node"])
    path = tmp_path / made["filename"]
    try:
        path.write_bytes(hook.download_backup(made["filename"], made["node"]))
    except EmqxNotFoundError:
        pytest.skip("this build of EMQX 4.4 does not find its exports")
    report = tmp_path / "users.jsonl"
    dry = {"source": str(path), "dry_run": True}
    if hook.api_version == "v4":
        with pytest.raises(EmqxConfigError, match="ready-made hashes need EMQX 5"):
            execute(EmqxProvisionUsersOperator, **dry)
    else:
        execute(EmqxProvisionUsersOperator, report_path=str(report), **dry)
        rows = [json.loads(line) for line in report.read_text().splitlines()]
        assert [row["outcome"] for row in rows if row["id"] == who] == ["written"]
    assert execute(EmqxProvisionAclOperator, on_rejected="report", **dry)["dry_run"] is True
    assert execute(EmqxBanOperator, **dry)["dry_run"] is True

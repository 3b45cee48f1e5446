"""Users, ACL rules and bans."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxAlreadyExistsError, EmqxNotFoundError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from tests.live.devices import Device, eventually

pytestmark = pytest.mark.live

#: ids that a careless client would send to another address, or twice encoded
ODD = ("a b", "a/b", "a%2Fb", "a#b", "a?b", "ä€😀", "a+b", 'a"b', "a,b")


def many(hook: EmqxHook) -> int:
    """How many users a bulk test makes: few where every one of them may be a request with a wait."""
    return 50 if hook.settings.rate_limit else 2_000


def remove(hook: EmqxHook, ids: list[str]) -> None:
    for _ in hook.provision_users(({"user_id": user_id} for user_id in ids), mode="delete"):
        pass


def present(hook: EmqxHook, prefix: str) -> set[str]:
    return {row["user_id"] for row in hook.list_users() if row["user_id"].startswith(prefix)}


def test_a_user_is_created_changed_found_and_deleted(
    hook: EmqxHook, users: None, undo: ExitStack, name: Callable[..., str]
) -> None:
    user_id = name()
    undo.callback(hook.delete_user, user_id)
    assert hook.create_user(user_id, "first")["user_id"] == user_id
    with pytest.raises(EmqxAlreadyExistsError):
        hook.create_user(user_id, "second")
    assert hook.update_user(user_id, "third")["user_id"] == user_id
    found = hook.get_user(user_id)
    assert found is not None
    assert found["user_id"] == user_id
    assert user_id in present(hook, user_id)
    assert hook.delete_user(user_id) is not False
    assert hook.get_user(user_id) is None
    assert hook.delete_user(user_id) is not True
    with pytest.raises(EmqxNotFoundError):
        hook.update_user(user_id, "fourth")


@pytest.mark.parametrize("ending", ODD)
def test_an_odd_id_stays_as_it_is(
    hook: EmqxHook, users: None, undo: ExitStack, name: Callable[..., str], ending: str
) -> None:
    user_id = name(ending)
    undo.callback(hook.delete_user, user_id)
    hook.create_user(user_id, "secret")
    found = hook.get_user(user_id)
    assert found is not None
    assert found["user_id"] == user_id
    hook.delete_user(user_id)
    assert hook.get_user(user_id) is None


def test_a_file_becomes_users_and_bad_rows_a_report(
    hook: EmqxHook,
    users: None,
    undo: ExitStack,
    name: Callable[..., str],
    tmp_path: Path,
    run_dag: Callable[..., Any],
) -> None:
    base = name("-")
    ids = [f"{base}{number}" for number in range(many(hook))] + [base + ending for ending in ODD]
    undo.callback(remove, hook, ids)
    source, report = tmp_path / "devices.csv", tmp_path / "rejected.jsonl"
    with source.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "password"])
        rows.writerows([user_id, f"pw-{user_id}"] for user_id in ids)
        rows.writerows([[f"{base}no-password", ""], ["..", "dots"], [ids[0], "again"]])

    with DAG("live_provisioning") as dag:
        EmqxProvisionUsersOperator(task_id="provision", source=str(source), report_path=str(report))
    for _ in range(2):
        run = run_dag(dag)
        assert run.state == "success"
        result = run.get_task_instance("provision").xcom_pull(task_ids="provision")
        assert (result["read"], result["written"], result["rejected"]) == (len(ids) + 3, len(ids), 3)
    assert present(hook, base) == set(ids)
    assert [json.loads(line)["line"] for line in report.read_text().splitlines()] == [
        len(ids) + 2,
        len(ids) + 3,
        len(ids) + 4,
    ]


def test_create_leaves_those_who_are_there_and_delete_removes_those_who_are_named(
    hook: EmqxHook, users: None, undo: ExitStack, name: Callable[..., str]
) -> None:
    base = name("-")
    ids = [f"{base}{number}" for number in range(20)]
    undo.callback(remove, hook, ids)
    rows = [{"user_id": user_id, "password": "secret"} for user_id in ids]

    def outcomes(wanted: list[dict[str, str]], mode: str) -> list[str]:
        return [row.outcome for row in hook.provision_users(wanted, mode=mode)]

    assert outcomes(rows[:10], "upsert") == ["written"] * 10
    assert outcomes(rows, "create") == ["skipped"] * 10 + ["written"] * 10
    assert present(hook, base) == set(ids)
    assert outcomes(rows[:15], "delete") == ["deleted"] * 15
    assert present(hook, base) == set(ids[15:])


def test_sync_deletes_whom_the_source_does_not_name(
    hook: EmqxHook, users: None, undo: ExitStack, name: Callable[..., str], run_dag: Callable[..., Any]
) -> None:
    base = name("-")
    ids = [f"{base}{number}" for number in range(10)]
    undo.callback(remove, hook, ids)
    remove_later = [{"user_id": user_id, "password": "secret"} for user_id in ids]
    assert all(row.outcome == "written" for row in hook.provision_users(remove_later))
    with DAG("live_sync") as dag:
        EmqxProvisionUsersOperator(
            task_id="sync", source=remove_later[:7], mode="sync", scope=f"{base}*", max_deletes=3
        )
    assert run_dag(dag).state == "success"
    assert present(hook, base) == set(ids[:7])


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
def test_a_device_logs_in_with_its_password_and_no_other(
    hook: EmqxHook, users: None, mqtt: str, undo: ExitStack, name: Callable[..., str], bulk: bool
) -> None:
    user_id = name()
    undo.callback(hook.delete_user, user_id)
    if bulk:
        row = {"user_id": user_id, "password": "secret"}
        assert [row.outcome for row in hook.provision_users([row])] == ["written"]
    else:
        hook.create_user(user_id, "secret")
    with Device(mqtt, user_id, user_id, "wrong") as stranger:
        assert not stranger.connect()
    with Device(mqtt, user_id, user_id, "secret") as device:
        assert device.connect()


def test_a_password_that_was_hashed_in_the_task_lets_its_device_in(
    hook: EmqxHook,
    users: None,
    mqtt: str,
    undo: ExitStack,
    name: Callable[..., str],
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not hook.broker.at_least(5, 8, 2) or hook.broker.serverless:
        pytest.skip("bulk import that counts unchanged users needs EMQX 5.8.2 or newer, not Serverless")
    user_id = name()
    undo.callback(hook.delete_user, user_id)
    monkeypatch.setenv("AIRFLOW_CONN_LIVE_PEPPER", json.dumps({"conn_type": "generic", "password": "p" * 40}))
    with DAG("live_hashing") as dag:
        EmqxProvisionUsersOperator(
            task_id="provision",
            source=[{"user_id": user_id, "password": "secret"}],
            hash_passwords=True,
            pepper_conn_id="live_pepper",
        )
    results = []
    for _ in range(2):
        run = run_dag(dag)
        assert run.state == "success"
        results.append(run.get_task_instance("provision").xcom_pull(task_ids="provision"))
    assert [(result["created"], result["unchanged"]) for result in results] == [(1, 0), (0, 1)]
    with Device(mqtt, user_id, user_id, "secret") as device:
        assert device.connect()


@pytest.mark.parametrize("kind", ["username", "clientid"])
def test_acl_rules_keep_their_order(
    hook: EmqxHook, acl: None, undo: ExitStack, name: Callable[..., str], kind: str
) -> None:
    subject = {kind: name("/x y")}
    undo.callback(hook.delete_acl_rules, subject)

    def rules() -> list[tuple[str, str, str]]:
        return [(rule["topic"], rule["permission"], rule["action"]) for rule in hook.list_acl_rules(subject)]

    assert rules() == []
    hook.set_acl_rules(
        subject,
        [
            {"topic": "a/1", "permission": "allow", "action": "publish"},
            {"topic": "a/+", "permission": "deny", "action": "all"},
        ],
    )
    first = [("a/1", "allow", "publish"), ("a/+", "deny", "all")]
    assert rules() == first
    hook.add_acl_rules(subject, [{"topic": "b/#", "permission": "allow", "action": "subscribe"}])
    assert rules() == [("b/#", "allow", "subscribe"), *first]
    hook.add_acl_rules(subject, [{"topic": "c", "permission": "deny", "action": "publish"}], position="last")
    assert rules() == [("b/#", "allow", "subscribe"), *first, ("c", "deny", "publish")]
    assert subject[kind] in {row[kind] for row in hook.list_acl_subjects(kind)}
    assert hook.delete_acl_rules(subject)
    assert rules() == []


def test_a_ban_keeps_its_device_out_until_it_ends(
    hook: EmqxHook, undo: ExitStack, device: Callable[..., Device]
) -> None:
    banned = device()
    undo.callback(hook.unban, "clientid", banned.name)
    hook.ban("clientid", banned.name, datetime.now(UTC) + timedelta(hours=1), "live test")
    hook.kick_clients(banned.name)
    assert eventually(lambda: not banned.connected)
    assert not banned.connect()
    assert hook.unban("clientid", banned.name) is not False
    assert eventually(banned.connect)


def test_a_ban_is_listed_with_its_end(hook: EmqxHook, undo: ExitStack, name: Callable[..., str]) -> None:
    who = name()
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    undo.callback(hook.unban, "clientid", who)
    hook.ban("clientid", who, end, "first reason")
    hook.ban("clientid", who, end + timedelta(hours=1), "second reason")
    found = [row for row in hook.list_bans() if row["who"] == who]
    assert [(row["as"], row["reason"]) for row in found] == [("clientid", "second reason")]
    assert datetime.fromisoformat(found[0]["until"]) == end + timedelta(hours=1)
    hook.unban("clientid", who)
    assert who not in {row["who"] for row in hook.list_bans()}

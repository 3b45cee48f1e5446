from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx


def result(run: Any, task_id: str) -> Any:
    return run.get_task_instance(task_id).xcom_pull(task_ids=task_id)


def test_stale_clients_are_kicked_and_those_to_keep_are_kept(
    broker: Any, run_dag: Any, tmp_path: Path
) -> None:
    from example_dags.kick_stale_clients import dag

    broker.advance(-40 * 86_400)
    for name in ("example-device-old", "gateway-old"):
        broker.connect(name, clean_start=False, session_expiry=10**8)
        broker.disconnect(name)
    broker.advance(40 * 86_400)
    broker.connect_many([f"example-device-{i}" for i in range(30)])
    report = tmp_path / "kicked.jsonl"
    run = run_dag(dag, run_conf={"dry_run": True, "report_path": str(report)})
    assert run.state == "success"
    assert result(run, "kick")["kicked"] == ["example-device-old"]
    assert "example-device-old" in broker.clients
    run = run_dag(dag, run_conf={"dry_run": False, "report_path": str(report)})
    assert run.state == "success"
    assert json.loads(report.read_text()) == {"clientid": "example-device-old", "outcome": "kicked"}
    assert [row["clientid"] for row in result(run, "left")["rows"]] == ["gateway-old"]


def test_topics_are_measured_and_unused_retained_messages_deleted(
    broker: Any, run_dag: Any, tmp_path: Path
) -> None:
    from example_dags.look_after_topics import dag

    history = tmp_path / "topics.jsonl"
    conf = {"dry_run": False, "history": str(history), "measured": ["sensors/all"], "unused": ["old/state"]}
    broker.publish("old/state", b"x", retain=True)
    assert run_dag(dag, run_conf=conf).state == "success"
    assert not broker.retained
    for _ in range(3):
        broker.publish("sensors/all", b"x")
    assert run_dag(dag, run_conf=conf).state == "success"
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    assert [row["topic_metrics.sensors/all.messages.in.count"] for row in rows] == [0, 3]
    with EmqxHook() as hook:
        metrics = hook.get_topic_metrics("sensors/all")
    assert metrics is not None
    assert metrics["metrics"]["messages.in.count"] == 0


def test_access_follows_the_file_and_offenders_are_kept_out(
    broker: Any, run_dag: Any, tmp_path: Path
) -> None:
    from example_dags.control_access import dag

    rules = tmp_path / "acl.csv"
    rules.write_text("username,topic,permission,action\nalice,a/#,allow,publish\nalice,#,deny,all\n")
    broker.connect("example-device-666", reconnects=True)
    with EmqxHook() as hook:
        hook.ban("clientid", "by-hand", "infinity", "other")
        run = run_dag(
            dag, run_conf={"dry_run": False, "acl_rules": str(rules), "offenders": ["example-device-666"]}
        )
        assert run.state == "success"
        assert [rule["topic"] for rule in hook.list_acl_rules("username:alice")] == ["a/#", "#"]
        assert sorted(ban["who"] for ban in hook.list_bans()) == ["by-hand", "example-device-666"]
    assert "example-device-666" not in broker.clients


def test_the_nightly_round_leaves_backup_and_figures(broker: Any, run_dag: Any, tmp_path: Path) -> None:
    from example_dags.nightly_upkeep import dag

    broker.raise_alarm("high_cpu_usage")
    broker.end_alarm("high_cpu_usage")
    history = tmp_path / "figures.csv"
    conf = {
        "clear_alarms": True,
        "keep_on_broker": 2,
        "backups": str(tmp_path / "backups"),
        "history": str(history),
    }
    for _ in range(2):
        assert run_dag(dag, run_conf=conf).state == "success"
        broker.advance(86_400)
    assert len(list((tmp_path / "backups").iterdir())) == 2
    with history.open() as file:
        assert len(list(csv.DictReader(file))) == 2
    with EmqxHook() as hook:
        assert list(hook.list_alarms(activated=False)) == []


def test_a_failed_round_is_published(broker: Any, run_dag: Any, tmp_path: Path) -> None:
    from example_dags.nightly_upkeep import dag

    broker.order_fault("status", status=400, match="/data/export", times=9)
    conf = {"backups": str(tmp_path), "history": str(tmp_path / "figures.csv")}
    assert run_dag(dag, run_conf=conf).state == "failed"
    assert json.loads(broker.retained["airflow/upkeep"].payload)["state"] == "failed"


def test_devices_move_and_log_in_with_their_passwords(
    run_dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from example_dags.move_to_emqx_5 import dag

    monkeypatch.chdir(tmp_path)
    source = Path(__file__).parents[1] / "contract" / "emqx-4.4.19-export.json"
    with FakeEmqx("5.8.9", password_hash_algorithm={"name": "sha256", "salt_position": "prefix"}) as new:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_NEW", json.dumps(new.connection()))
        for number, password in ((1, "secret-1"), (2, "pässwörd €")):
            device = {
                "mqtt_url": new.mqtt_url,
                "mqtt_username": f"exp-dev-{number}",
                "mqtt_password": password,
            }
            monkeypatch.setenv(f"AIRFLOW_CONN_DEVICE_{number}", json.dumps(new.connection(**device)))
        conf = {
            "source": str(source),
            "new": "emqx_new",
            "reports": str(tmp_path / "moved"),
            "samples": ["device_1", "device_2"],
        }
        assert run_dag(dag, run_conf=conf).state == "success"
        assert (dict(new.users), new.bans) == ({}, {})
        run = run_dag(dag, run_conf={**conf, "dry_run": False})
        assert run.state == "success"
        assert len(result(run, "log_in")) == 2
        assert (len(new.users), len(new.bans), len(new.acl_rules("username", "exp-dev-1"))) == (4, 1, 1)
        new.users.pop("exp-dev-2")
        broken = EmqxHook("device_2").test_connection()
        assert broken[0] is False

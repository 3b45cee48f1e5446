from __future__ import annotations

import asyncio
import csv
import json
import logging
import re
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxNotFoundError,
    EmqxOutcomeUnknownError,
    EmqxTimeoutError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.cluster import (
    EmqxApiOperator,
    EmqxBackupOperator,
    EmqxClearAlarmsOperator,
    EmqxEvacuateNodeOperator,
    EmqxMetricsSnapshotOperator,
    EmqxSetRuleStateOperator,
)
from airflow_provider_emqx.results import EvacuateNodeResult
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger
from tests.operators.run import TI, execute, has_keys_of, sent

V4, V5 = "4.4.19", "5.8.9"


# backup


def test_a_backup_is_complete_and_for_its_owner_only(broker: Any, tmp_path: Path) -> None:
    broker.add_user("alice", "S3cret")
    result = execute(EmqxBackupOperator, backup_dir=tmp_path / "backups")
    path = Path(result["backup_path"])
    assert path.stat().st_size == result["size"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if broker.version == V5:
        with tarfile.open(path) as archive:
            assert archive.getnames()
    else:
        assert isinstance(json.loads(path.read_text()), dict)
    assert (result["deleted"], result["deleted_on_broker"]) == ([], [])


def test_only_the_newest_backups_are_kept_here_and_on_the_broker(broker: Any, tmp_path: Path) -> None:
    (tmp_path / "emqx-export-2020-1-2-3-4-5.json").write_text("{}")
    (tmp_path / "something-else.json").write_text("{}")
    made = []
    for _ in range(4):
        made.append(execute(EmqxBackupOperator, backup_dir=tmp_path, keep=2, keep_on_broker="3"))
        broker.advance(60)
    assert made[0]["deleted"] == []
    assert made[1]["deleted"] == [str(tmp_path / "emqx-export-2020-1-2-3-4-5.json")]
    names = [backup["filename"] for backup in made]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*names[2:], "something-else.json"])
    assert made[3]["deleted_on_broker"] == [names[0]]


def test_a_backup_goes_to_an_object_store(broker: Any, tmp_path: Path) -> None:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    for _ in range(2):
        result = execute(EmqxBackupOperator, backup_dir=f"file://{tmp_path}", keep=1)
        broker.advance(60)
    assert [path.name for path in ObjectStoragePath(f"file://{tmp_path}").iterdir()] == [result["filename"]]


@pytest.mark.parametrize("version", [V5])
def test_a_damaged_download_deletes_nothing(broker: Any, tmp_path: Path) -> None:
    old = execute(EmqxBackupOperator, backup_dir=tmp_path)
    broker.advance(60)
    broker.order_fault("status", status=200, body=b"no archive", match="GET /api/v5/data/files/")
    with pytest.raises(EmqxError, match="bytes, but the broker exported"):
        execute(EmqxBackupOperator, backup_dir=tmp_path, keep=1)
    assert [file.name for file in tmp_path.iterdir()] == [old["filename"]]


def downloads(broker: Any) -> list[str]:
    """Return what was read from the broker's disk."""
    return [
        served.path
        for served in broker.requests
        if served.method == "GET" and re.search("/data/files?/", served.path)
    ]


@pytest.mark.parametrize("version", ["4.4.19"])
@pytest.mark.parametrize("deletable", [True, False])
def test_a_broker_that_does_not_find_its_exports_keeps_one_at_most(
    broker: Any, tmp_path: Path, deletable: bool
) -> None:
    broker.lose_backups(deletable=deletable)
    with pytest.raises(EmqxError, match="does not find it there.*emqx_ctl data export") as failure:
        execute(EmqxBackupOperator, backup_dir=tmp_path)
    left = list(broker.state.backups)
    assert len(left) == (0 if deletable else 1)
    told = "was deleted again" if deletable else "stays on the disk of node emqx@127.0.0.1"
    assert told in str(failure.value)
    broker.advance(60)
    broker.requests.clear()
    with pytest.raises(EmqxError, match="does not find it") as failure:
        execute(EmqxBackupOperator, backup_dir=tmp_path)
    assert list(broker.state.backups) == left
    assert ("Nothing was exported" in str(failure.value)) == (not deletable)
    assert bool(sent(broker)) == deletable
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", ["4.4.19"])
def test_the_smallest_listed_file_tells_that_downloads_work(broker: Any, tmp_path: Path) -> None:
    small = broker.export_backup()
    broker.advance(60)
    for number in range(100):
        broker.add_user(f"u{number}", "p")
    broker.export_backup()
    broker.advance(60)
    made = execute(EmqxBackupOperator, backup_dir=tmp_path)
    assert [path.rpartition("/")[2] for path in downloads(broker)] == [small, made["filename"]]
    broker.advance(60)
    broker.requests.clear()
    # the last one lies here, so that it was downloaded
    made = execute(EmqxBackupOperator, backup_dir=tmp_path)
    assert [path.rpartition("/")[2] for path in downloads(broker)] == [made["filename"]]


def test_what_lies_on_another_node_only_is_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FakeEmqx("4.4.19", nodes=["emqx@a", "emqx@b"]) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        broker.stop_node("emqx@a")
        broker.export_backup()
        broker.start_node("emqx@a")
        broker.advance(60)
        assert execute(EmqxBackupOperator, backup_dir=tmp_path)["node"] == "emqx@a"


@pytest.mark.parametrize("fault", ["download", "content", "target"])
def test_an_export_that_cannot_be_stored_is_deleted_again(broker: Any, tmp_path: Path, fault: str) -> None:
    old = execute(EmqxBackupOperator, backup_dir=tmp_path)
    broker.advance(60)
    target = tmp_path
    if fault == "target":
        # a file in the place of a directory
        target = tmp_path / old["filename"]
    else:
        status = 403 if fault == "download" else 200
        broker.order_fault(
            "status",
            status=status,
            body=b"{}",
            match=lambda method, path: method == "GET" and bool(re.search("/data/files?/", path)),
        )
    with pytest.raises(EmqxError):
        execute(EmqxBackupOperator, backup_dir=target, keep=1, keep_on_broker=1)
    assert list(broker.state.backups) == [old["filename"]]
    assert [file.name for file in tmp_path.iterdir()] == [old["filename"]]


@pytest.mark.parametrize("version", [V5])
def test_an_export_that_stays_is_told(broker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker.order_fault("status", status=200, body=b"no archive", match="GET /api/v5/data/files/")
    broker.order_fault("status", status=403, match="DELETE /api/v5/data/files/")
    with pytest.raises(EmqxError, match="bytes, but the broker exported"):
        execute(EmqxBackupOperator, backup_dir=tmp_path)
    (left,) = broker.state.backups
    assert f"The export {left} stays on the disk of node emqx@127.0.0.1" in caplog.text


def test_a_backup_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    """What is cut would count as a backup, and be kept in the place of a good one."""
    program = """
import json, resource, signal, sys
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.operators.backup_store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
try:
    Store(sys.argv[1]).write("emqx-export-2026-1-1-1-1-1.json", json.dumps({"x": "x" * 5_000}).encode(), None)
except EmqxError as error:
    print("not written" if "File too large" in str(error) else error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "not written" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [{"keep": 0}, {"keep": "many"}, {"keep_on_broker": 1.5}])
def test_a_backup_with_impossible_arguments_sends_nothing(
    broker: Any, tmp_path: Path, arguments: Any
) -> None:
    with pytest.raises(EmqxConfigError):
        execute(EmqxBackupOperator, backup_dir=tmp_path, **arguments)
    assert sent(broker) == []


# alarms


def test_alarms_are_ended_and_their_history_deleted(broker: Any) -> None:
    broker.raise_alarm("high_cpu_usage")
    broker.raise_alarm("conn_congestion")
    result = execute(EmqxClearAlarmsOperator, deactivate=["high_cpu_usage", "no_such_alarm"])
    assert result == {
        "deactivated": ["high_cpu_usage"],
        "not_active": ["no_such_alarm"],
        "active": ["conn_congestion"],
        "history_cleared": True,
    }
    assert execute(EmqxClearAlarmsOperator, deactivate="*", history="false")["active"] == []


@pytest.mark.parametrize("version", ["5.8.7"])
def test_alarms_cannot_be_ended_before_the_version_that_can(broker: Any) -> None:
    broker.raise_alarm("high_cpu_usage")
    with pytest.raises(EmqxUnsupportedError, match=r"5\.8\.8"):
        execute(EmqxClearAlarmsOperator, deactivate="high_cpu_usage")
    assert sent(broker) == []


# figures


def test_figures_are_appended_to_a_history(broker: Any, tmp_path: Path) -> None:
    path = tmp_path / "figures" / "history.jsonl"
    for count in (1, 2):
        broker.connect(f"dev-{count}")
        row = execute(EmqxMetricsSnapshotOperator, output_path=str(path))
        assert row["stats.live_connections.count"] == count
        assert row["metrics.client.connected"] == count
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["stats.live_connections.count"] for row in rows] == [1, 2]
    assert rows[0]["time"] < rows[1]["time"]


def test_a_csv_history_keeps_its_columns(
    broker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.csv"
    names = ["stats.live_connections.count", "stats.no_such_thing"]
    for chosen in (names, [*names, "metrics.messages.received"]):
        execute(EmqxMetricsSnapshotOperator, metrics=chosen, output_path=path)
    rows = list(csv.DictReader(path.open()))
    assert [list(row) for row in rows] == [["time", *names]] * 2
    assert [row["stats.live_connections.count"] for row in rows] == ["0", "0"]
    assert "1 figures have no column" in caplog.text


def test_a_history_in_an_object_store_grows(broker: Any, tmp_path: Path) -> None:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    place = f"file://{tmp_path}/figures.csv"
    for _ in range(3):
        execute(EmqxMetricsSnapshotOperator, metrics="stats.live_connections.count", output_path=place)
    assert len(ObjectStoragePath(place).read_text().splitlines()) == 4


def test_topic_metrics_and_rates_are_figures_too(broker: Any) -> None:

    with EmqxHook() as hook:
        hook.register_topic_metrics("t/1")
    broker.publish("t/1", b"x")
    row = execute(EmqxMetricsSnapshotOperator, sections="topic_metrics")
    assert row["topic_metrics.t/1.messages.in.count"] == 1
    if broker.version == V5:
        assert "rates.received_msg_rate" in execute(EmqxMetricsSnapshotOperator, sections=["rates"])
    else:
        with pytest.raises(EmqxUnsupportedError):
            execute(EmqxMetricsSnapshotOperator, sections=["rates"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"sections": "colours"},
        {"sections": []},
        {"output_path": "history.xml"},
        {"node": "nope@x"},
        {"node": ".."},
    ],
)
def test_impossible_figures_are_refused(broker: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        execute(EmqxMetricsSnapshotOperator, **arguments)


# rules and what they are connected to


def test_rules_are_disabled_and_enabled_without_losing_anything(broker: Any) -> None:
    broker.add_rule("r1", 'SELECT * FROM "t/#"', description="keeps")
    off = execute(EmqxSetRuleStateOperator, names="r1", state="disabled")
    assert off["r1"]["enable"] is False

    with EmqxHook() as hook:
        rule = hook.get_rule("r1")
        assert rule is not None
        assert (rule["enable"], rule["sql"], rule["description"]) == (False, 'SELECT * FROM "t/#"', "keeps")
        assert [found["id"] for found in hook.list_rules()] == ["r1"]
    assert execute(EmqxSetRuleStateOperator, names=["r1"])["r1"]["enable"] is True
    with pytest.raises(EmqxNotFoundError):
        execute(EmqxSetRuleStateOperator, names="ghost")


@pytest.mark.parametrize("version", [V5])
def test_actions_and_connectors_are_switched_and_restarted(broker: Any) -> None:
    broker.add_connector("http:c1", status="disconnected")
    broker.add_action("http:a1", connector="c1")
    result = execute(EmqxSetRuleStateOperator, kind="action", names="http:a1", state="disabled")
    assert result["http:a1"]["enable"] is False

    with EmqxHook() as hook:
        (action,) = hook.list_actions()
        assert (action["id"], action["enable"]) == ("http:a1", False)
        assert [row["id"] for row in hook.list_connectors()] == ["http:c1"]
    execute(EmqxSetRuleStateOperator, kind="connector", names="http:c1", state="restarted")
    assert broker.restarts["http:c1"] == 1


@pytest.mark.parametrize("version", [V4])
def test_a_resource_is_restarted(broker: Any) -> None:
    broker.add_resource("resource:1", alive=False)
    result = execute(EmqxSetRuleStateOperator, kind="connector", names="resource:1", state="restarted")
    assert broker.restarts["resource:1"] == 1
    assert result["resource:1"]["status"] in ("connected", "disconnected")
    with pytest.raises(EmqxUnsupportedError):
        execute(EmqxSetRuleStateOperator, kind="connector", names="resource:1", state="disabled")


@pytest.mark.parametrize(
    "arguments",
    [
        {"names": "a", "state": "on"},
        {"names": "a", "kind": "bridge"},
        {"names": "a", "state": "restarted"},
        {"names": ["a", ".."]},
        {"names": [""]},
    ],
)
def test_an_impossible_state_changes_nothing(broker: Any, arguments: dict[str, Any]) -> None:
    broker.add_rule("a", 'SELECT * FROM "t/#"')
    with pytest.raises(EmqxConfigError):
        execute(EmqxSetRuleStateOperator, **arguments)
    assert broker.requests == []


# evacuation


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    with FakeEmqx(version="5.9.1", nodes=["emqx@n1", "emqx@n2"]) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        broker.connect_many([f"dev-{i}" for i in range(20)])
        yield broker


def on_node(broker: Any, node: str) -> int:
    return sum(client.node == node for client in broker.clients.values())


def test_a_node_is_evacuated_until_it_is_empty(cluster: Any) -> None:
    assert on_node(cluster, "emqx@n1") > 0
    looks = 0

    def empty_at_the_third_look(method: str, path: str) -> None:
        nonlocal looks
        looks += bool(sent(cluster)) and method == "GET"
        if looks == 3:
            cluster.finish_evacuation("emqx@n1")

    cluster.before_each_request(empty_at_the_third_look)
    result = execute(EmqxEvacuateNodeOperator, node="emqx@n1", poll_interval=0.1)
    assert looks >= 3
    assert result["stopped"] is False
    assert has_keys_of(result, EvacuateNodeResult)
    assert on_node(cluster, "emqx@n1") == 0
    assert [line.rpartition("/")[2] for line in sent(cluster)] == ["start"]


def test_a_node_without_clients_is_not_empty_before_it_is_closed_to_them(
    cluster: Any, mocker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """In its first state a node still lets clients in: operator and sensor call it empty by one rule."""
    mocker.patch.object(EmqxEvacuateNodeOperator, "log", new=logging.getLogger("a-task"))
    for clientid in list(cluster.clients):
        cluster.disconnect(clientid)
    states: list[str] = []

    def look(method: str, path: str) -> None:
        evacuation = cluster.state.known_node("emqx@n1").evacuation
        if evacuation is not None and "global_status" in path:
            states.append(evacuation.state)
            if len(states) == 2:
                cluster.finish_evacuation("emqx@n1")

    cluster.before_each_request(look)
    result = execute(EmqxEvacuateNodeOperator, node="emqx@n1", poll_interval=0.1)
    assert states[0] == "waiting_health_check"
    assert len(states) == 2
    assert (result["state"], result["connected"], result["sessions"]) == ("prohibiting", 0, 0)
    assert "only one that runs" not in caplog.text


def test_a_node_that_nobody_takes_the_sessions_of_is_told_at_the_start(
    cluster: Any, mocker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.object(EmqxEvacuateNodeOperator, "log", new=logging.getLogger("a-task"))
    cluster.stop_node("emqx@n2")
    with pytest.raises(EmqxTimeoutError):
        execute(EmqxEvacuateNodeOperator, node="emqx@n1", poll_interval=0.1, timeout=0.2)
    assert "no other node can take its sessions" in caplog.text


def test_a_retry_waits_for_the_evacuation_that_is_under_way(cluster: Any) -> None:

    with EmqxHook() as hook:
        hook.start_evacuation("emqx@n1", conn_evict_rate=1)
    cluster.finish_evacuation("emqx@n1")
    result = execute(EmqxEvacuateNodeOperator, node="emqx@n1", poll_interval=0.1, stop_when_empty=True)
    assert result["stopped"] is True
    assert [line.rpartition("/")[2] for line in sent(cluster)] == ["start", "start", "stop"]


def test_an_evacuation_that_takes_too_long_is_stopped(cluster: Any) -> None:
    with pytest.raises(EmqxTimeoutError, match=r"emqx@n1 is not empty after 0\.3 s"):
        execute(EmqxEvacuateNodeOperator, node="emqx@n1", poll_interval=0.1, timeout=0.3)
    assert [line.rpartition("/")[2] for line in sent(cluster)] == ["start", "stop"]


def deferred(**arguments: Any) -> Any:
    """Run an evacuation in the triggerer: execute, wait as the trigger does, resume."""

    async def first(trigger: Any) -> Any:
        return (await anext(trigger.run())).payload

    operator = EmqxEvacuateNodeOperator(task_id="task", deferrable=True, poll_interval=0.1, **arguments)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute({"ti": TI()})
    _, kept = caught.value.trigger.serialize()
    trigger = EmqxConditionTrigger(**json.loads(json.dumps(kept)))
    event = asyncio.run(first(trigger))
    resumed = EmqxEvacuateNodeOperator(task_id="task", deferrable=True, poll_interval=0.1, **arguments)
    return getattr(resumed, caught.value.method_name)({"ti": TI()}, event, **caught.value.kwargs)


@pytest.mark.parametrize("stop", [False, True])
def test_a_deferred_task_waits_without_a_worker(cluster: Any, stop: bool) -> None:
    looks = 0

    def empty_at_the_third_look(method: str, path: str) -> None:
        nonlocal looks
        looks += bool(sent(cluster)) and method == "GET"
        if looks == 3:
            cluster.finish_evacuation("emqx@n1")

    cluster.before_each_request(empty_at_the_third_look)
    result = deferred(node="emqx@n1", stop_when_empty=stop)
    assert (result["state"], result["connected"], result["stopped"]) == ("prohibiting", 0, stop)
    assert [line.rpartition("/")[2] for line in sent(cluster)] == ["start", "stop"] if stop else ["start"]


def test_a_deferred_evacuation_that_takes_too_long_is_stopped(cluster: Any) -> None:
    with pytest.raises(EmqxTimeoutError, match=r"emqx@n1 is not empty after 0\.5 s"):
        deferred(node="emqx@n1", timeout=0.5)
    assert [line.rpartition("/")[2] for line in sent(cluster)] == ["start", "stop"]


def test_a_deferred_evacuation_that_somebody_stops_ends_the_wait(cluster: Any) -> None:
    def stop_at_the_third_look(method: str, path: str) -> None:
        if sum(served.path.endswith("global_status") for served in cluster.requests) >= 2:
            cluster.state.nodes["emqx@n1"].evacuation = None

    cluster.before_each_request(stop_at_the_third_look)
    with pytest.raises(EmqxError, match="another program has stopped it"):
        deferred(node="emqx@n1")


@pytest.mark.parametrize("settings", ["", "fast", {"node": "emqx@n2"}, ["a"]])
def test_settings_that_are_none_start_no_evacuation(cluster: Any, settings: Any) -> None:
    with pytest.raises(EmqxConfigError):
        execute(EmqxEvacuateNodeOperator, node="emqx@n1", settings=settings)
    assert sent(cluster) == []


def test_a_killed_task_stops_the_evacuation(cluster: Any) -> None:
    operator = EmqxEvacuateNodeOperator(task_id="evacuate", node="emqx@n1", poll_interval=0.1)
    operator.on_kill()
    assert sent(cluster) == []
    operator = EmqxEvacuateNodeOperator(task_id="evacuate", node="emqx@n1", poll_interval=0.1)
    with operator.hook() as hook:
        operator._start(hook)
    operator.on_kill()
    assert [line.rpartition("/")[2] for line in sent(cluster)] == ["start", "stop"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"node": "nope@x"},
        {"node": ""},
        {"node": ".."},
        {"node": "emqx@n1", "settings": {"colour": "red"}},
        {"node": "emqx@n1", "settings": {"conn_evict_rate": 0}},
        {"node": "emqx@n1", "timeout": -1},
    ],
)
def test_an_impossible_evacuation_is_not_begun(cluster: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        execute(EmqxEvacuateNodeOperator, **arguments)
    assert sent(cluster) == []


def test_an_edition_without_evacuation_says_so(broker: Any) -> None:
    with pytest.raises(EmqxUnsupportedError, match="Enterprise"):
        execute(EmqxEvacuateNodeOperator, node=next(iter(broker.state.nodes)))


# any request


def test_any_request_is_answered_with_its_content(broker: Any) -> None:
    broker.connect("dev/1")
    one = execute(EmqxApiOperator, path="/clients/dev%2F1")
    assert (one[0] if broker.version == V4 else one)["clientid"] == "dev/1"
    many = execute(EmqxApiOperator, method="get", path="/clients", query={"limit": 1, "_limit": 1})
    assert len(many["data"]) == 1
    assert many["meta"]["limit"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "",
        "clients",
        "/",
        "//clients",
        "/clients/",
        "/clients/..",
        "/clients/.",
        "/clients/%2E%2E",
        "/clients/%2e",
        "/clients?limit=1",
        "/clients#x",
        "/clients/a b",
        "/clients/ü",
        "/clients/50%",
        "/clients/%zz",
        "/clients/a%2",
        "/clients\\..",
        "/clients/\x00",
        None,
        7,
    ],
)
def test_a_path_that_would_reach_something_else_is_refused(broker: Any, path: Any) -> None:
    with pytest.raises(EmqxConfigError):
        execute(EmqxApiOperator, method="DELETE", path=path)
    assert sent(broker) == []


def test_an_unknown_method_is_refused(broker: Any) -> None:
    with pytest.raises(EmqxConfigError, match="method"):
        execute(EmqxApiOperator, method="BREW", path="/clients")
    assert sent(broker) == []


def test_a_post_is_repeated_only_if_that_does_no_harm(broker: Any) -> None:
    path = "/mqtt/publish" if broker.version == V4 else "/publish"
    body = {"topic": "a", "payload": "S3cret", "clientid": "x"}
    broker.order_fault("reset_after", match="POST")
    with pytest.raises(EmqxOutcomeUnknownError) as caught:
        execute(EmqxApiOperator, method="POST", path=path, json=body)
    assert "S3cret" not in str(caught.value)
    assert len(sent(broker)) == 1
    broker.order_fault("reset_after", match="POST")
    execute(EmqxApiOperator, method="POST", path=path, json=body, idempotent=True)
    assert len(sent(broker)) == 3


@pytest.mark.parametrize("version", [V4])
def test_an_answer_without_a_code_is_read_where_the_service_has_none(broker: Any) -> None:
    broker.order_fault("status", status=200, body=b'{"items":[{"id":1}]}', match="/shadows")
    assert execute(EmqxApiOperator, path="/shadows") == {"items": [{"id": 1}]}

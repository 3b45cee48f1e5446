"""Nodes, figures, alarms, listeners, evacuation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.cluster import (
    EmqxClearAlarmsOperator,
    EmqxEvacuateNodeOperator,
    EmqxMetricsSnapshotOperator,
)
from airflow_provider_emqx.sensors.cluster import EmqxClusterHealthSensor, EmqxMetricSensor
from tests.live.devices import Device, eventually

pytestmark = pytest.mark.live

ALARM = {"node", "name", "message", "details", "duration", "activate_at", "deactivate_at"}


def test_the_nodes_are_those_of_the_cluster(hook: EmqxHook, cluster: list[str]) -> None:
    assert cluster
    assert set(hook.get_cluster()["nodes"]) == set(cluster)
    for row in hook.list_nodes():
        if row["node_status"] == "running":
            assert row["uptime"] > 0
            assert row["version"].startswith(hook.emqx_version or "")


def test_figures_of_the_cluster_are_those_of_its_nodes(
    hook: EmqxHook, cluster: list[str], device: Callable[..., Device]
) -> None:
    listener = device()
    assert listener.subscribe(listener.name, 1)
    received = hook.get_metrics()["messages.received"]
    listener.publish(listener.name, b"x")
    assert eventually(lambda: hook.get_metrics()["messages.received"] > received)
    assert eventually(lambda: hook.get_stats()["live_connections.count"] >= 1)
    for whole, of_nodes, of_one in (
        (hook.get_stats(), list(hook.list_stats()), hook.get_stats(cluster[0])),
        (hook.get_metrics(), list(hook.list_metrics()), hook.get_metrics(cluster[0])),
    ):
        assert {row["node"] for row in of_nodes} == set(cluster)
        figures = [set(row) - {"node"} for row in (whole, *of_nodes, of_one)]
        assert all(figure == figures[0] for figure in figures)
        assert all(isinstance(whole[name], (int, float)) for name in figures[0])


def test_the_present_rates_are_numbers(hook: EmqxHook, cluster: list[str]) -> None:
    try:
        rates = [hook.get_rates(), hook.get_rates(cluster[0])]
    except EmqxUnsupportedError as error:
        pytest.skip(str(error))
    for row in rates:
        for name in ("received_msg_rate", "sent_msg_rate", "dropped_msg_rate", "live_connections"):
            assert row[name] >= 0


def test_a_node_that_is_not_there_is_refused(
    hook: EmqxHook, cluster: list[str], name: Callable[..., str]
) -> None:
    absent = f"{name()}@nowhere"
    for ask in (hook.get_stats, hook.get_metrics, hook.start_evacuation):
        with pytest.raises(EmqxConfigError, match=absent):
            ask(absent)


def test_a_snapshot_is_appended_to_a_file(
    hook: EmqxHook, cluster: list[str], run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    history = tmp_path / "history.jsonl"
    names = ["stats.live_connections.count", "metrics.messages.received"]
    with DAG("live_snapshot") as dag:
        EmqxMetricsSnapshotOperator(task_id="snapshot", metrics=names, output_path=str(history))
    for _ in range(2):
        assert run_dag(dag).state == "success"
    first, second = (json.loads(line) for line in history.read_text().splitlines())
    assert list(first) == ["time", *names]
    assert first["time"] < second["time"]
    assert first[names[1]] <= second[names[1]]


def test_sensors_see_nodes_and_figures(
    hook: EmqxHook, cluster: list[str], device: Callable[..., Device], run_dag: Callable[..., Any]
) -> None:
    device()
    with DAG("live_cluster") as dag:
        EmqxClusterHealthSensor(task_id="nodes", nodes=len(cluster), poke_interval=1, timeout=30)
        EmqxMetricSensor(
            task_id="figure", metric="live_connections.count", threshold=1, poke_interval=1, timeout=30
        )
    run = run_dag(dag)
    assert run.state == "success"
    found = run.get_task_instance("nodes").xcom_pull(task_ids="nodes")
    assert set(cluster) <= set(found["running"])


def test_the_licence_has_an_end(hook: EmqxHook, cluster: list[str]) -> None:
    try:
        licence = hook.get_license()
    except EmqxUnsupportedError as error:
        pytest.skip(str(error))
    assert isinstance(licence["expiry"], bool)
    assert licence["expiry_at"]


def test_alarms_are_listed_and_one_that_is_not_active_cannot_be_ended(
    hook: EmqxHook, cluster: list[str], name: Callable[..., str], run_dag: Callable[..., Any]
) -> None:
    for activated in (True, False):
        for row in hook.list_alarms(activated=activated):
            assert set(row) >= ALARM
            assert row["node"] in cluster
    if hook.api_version == "v5" and not hook.broker.at_least(5, 8, 8):
        pytest.skip("ending an alarm by hand needs EMQX 5.8.8 or newer")
    absent = name("-alarm")
    with DAG("live_alarms") as dag:
        EmqxClearAlarmsOperator(task_id="end", deactivate=[absent], history=False)
    run = run_dag(dag)
    assert run.state == "success"
    found = run.get_task_instance("end").xcom_pull(task_ids="end")
    assert (found["deactivated"], found["not_active"]) == ([], [absent])
    assert absent not in found["active"]


def test_the_history_of_alarms_is_deleted(disposable: None, hook: EmqxHook, cluster: list[str]) -> None:
    hook.clear_alarms()
    assert list(hook.list_alarms(activated=False)) == []


def test_listeners_are_listed(hook: EmqxHook, cluster: list[str], name: Callable[..., str]) -> None:
    rows = list(hook.list_listeners())
    assert any(row["status"]["running"] for row in rows)
    for row in rows:
        assert {part["node"] for part in row["node_status"]} <= set(cluster)
    kind = "mqtt:tcp" if hook.api_version == "v4" else "tcp"
    with pytest.raises(EmqxNotFoundError):
        hook.restart_listener(f"{kind}:{name()}")


def test_a_restarted_listener_lets_devices_come_back(
    disposable: None, hook: EmqxHook, cluster: list[str], device: Callable[..., Device]
) -> None:
    client = device()
    ids = [row["id"] for row in hook.list_listeners() if row["id"] and row["status"]["running"]]
    for listener in ids:
        hook.restart_listener(listener)
    assert eventually(lambda: client.connected or client.connect())
    assert {row["id"] for row in hook.list_listeners() if row["status"]["running"]} >= set(ids)


def test_what_is_evacuated_is_told(hook: EmqxHook, rebalance: None) -> None:
    status = hook.get_rebalance_status()
    assert set(status) == {"evacuations", "purges", "rebalances"}
    assert all(isinstance(rows, list) for rows in status.values())


def test_a_node_is_evacuated_and_takes_clients_again(
    disposable: None,
    hook: EmqxHook,
    cluster: list[str],
    rebalance: None,
    undo: Any,
    device: Callable[..., Device],
    run_dag: Callable[..., Any],
) -> None:
    if len(cluster) == 1:
        pytest.skip("the cluster has one node: there is none that could take its sessions")
    client = device()
    node = cluster[-1]
    settings: dict[str, Any] = {"wait_health_check": "1s", "wait_takeover": "1s"}
    if hook.api_version == "v4":
        settings = {"wait_takeover": 1}

    def evacuated() -> set[str]:
        return {row["node"] for row in hook.get_rebalance_status()["evacuations"]}

    undo.callback(lambda: hook.stop_evacuation(node) if node in evacuated() else None)
    with DAG("live_evacuation") as dag:
        EmqxEvacuateNodeOperator(
            task_id="evacuate",
            node=node,
            settings=settings,
            poll_interval=0.5,
            timeout=60,
            stop_when_empty=True,
        )
    run = run_dag(dag)
    assert run.state == "success"
    found = run.get_task_instance("evacuate").xcom_pull(task_ids="evacuate")
    assert (found["node"], found["connected"], found["sessions"]) == (node, 0, 0)
    assert node not in evacuated()
    assert eventually(lambda: client.connected or client.connect())


def test_a_cluster_that_is_even_needs_no_rebalance(
    disposable: None, hook: EmqxHook, cluster: list[str], rebalance: None
) -> None:
    with pytest.raises(EmqxBadRequestError, match="nothing_to_balance"):
        hook.start_rebalance(cluster[0])
    assert hook.get_rebalance_status()["rebalances"] == []

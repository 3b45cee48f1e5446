from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.needs import needs
from tests.triggers.conftest import event_of, looks


def test_the_night_brings_the_broker_to_the_file_and_disconnects_who_left(
    broker: Any, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    from example_dags.nightly_devices import dag

    for number in range(40):
        broker.add_user(f"sensor-{number}", "old")
    broker.add_user("gateway-1", "old")
    broker.connect_many(["sensor-0", "sensor-39", "gateway-1"])
    source, report = tmp_path / "devices.csv", tmp_path / "nightly.jsonl"
    # one left, one is new
    rows = [f"sensor-{number},new" for number in range(1, 41)]
    source.write_text("\n".join(["user_id,password", *rows]))
    conf = {"source": str(source), "report_path": str(report), "scope": "sensor-*", "dry_run": False}
    run = run_dag(dag, run_conf=conf)
    assert run.state == "success"
    assert set(broker.users) == {f"sensor-{number}" for number in range(1, 41)} | {"gateway-1"}
    assert broker.verify("sensor-39", "new")
    assert broker.verify("gateway-1", "old")
    assert set(broker.clients) == {"sensor-39", "gateway-1"}

    # a file that lost half of its rows deletes nobody
    source.write_text("\n".join(["user_id,password", *rows[:20]]))
    assert run_dag(dag, run_conf=conf).state == "failed"
    assert len(broker.users) == 41


def quick(dag: Any) -> Any:
    """Let the sensors of a DAG look often, and ask of no device that it has been there for long."""
    for task in dag.tasks:
        if hasattr(task, "poke_interval"):
            task.poke_interval = 0.2
        for span in ("stable_for", "pause"):
            if getattr(task, span, None):
                setattr(task, span, 0.1)
    return dag


@pytest.fixture
def fleet(broker: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Thirty devices that update when they are told to."""
    connection = broker.connection(mqtt_url=broker.mqtt_url)
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
    devices = [f"example-device-{number}" for number in range(30)]
    for device in devices:
        broker.connect(device, on_message=lambda message: broker.reply(message, '{"updated": true}'))
        broker.subscribe(device, f"devices/{device}/command", 1)
    return devices


def told(broker: Any, devices: list[str]) -> list[str]:
    """Return the devices that were told to update, each of them once."""
    assert {len(broker.received(device)) for device in devices} <= {0, 1}
    return [device for device in devices if broker.received(device)]


def test_a_roll_out_hears_from_every_device(
    broker: Any, fleet: list[str], run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    from example_dags.roll_out_firmware import dag

    conf = {"version": "2.1.0", "devices": fleet, "reports": str(tmp_path)}
    run = run_dag(quick(dag), run_conf=conf)
    assert run.state == "success"
    assert told(broker, fleet) == fleet
    assert json.loads(broker.received(fleet[0])[0].payload) == {"do": "update", "version": "2.1.0"}
    result = run.get_task_instance("update").xcom_pull(task_ids="update")
    assert (result["counts"]["replied"], result["waves"]) == (30, 10)
    (report,) = tmp_path.iterdir()
    assert len([line for line in report.read_text().splitlines() if '"replied"' in line]) == 30


def test_a_wave_that_does_not_get_there_leaves_the_others_untouched(
    broker: Any, fleet: list[str], run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    from example_dags.roll_out_firmware import dag

    # the second wave's first device is told, and fails
    broker.connect(fleet[3], on_message=lambda message: broker.reply(message, '{"updated": false}'))
    broker.subscribe(fleet[3], f"devices/{fleet[3]}/command", 1)
    conf = {"version": "2.1.0", "devices": fleet, "reports": str(tmp_path)}
    assert run_dag(quick(dag), run_conf=conf).state == "failed"
    assert told(broker, fleet) == fleet[:6]


@pytest.fixture
def cluster(version: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    edition = {"edition": "Enterprise"} if version.startswith("4") else {}
    with FakeEmqx(version, nodes=["emqx@a", "emqx@b"], **edition) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        yield fake


@pytest.mark.parametrize("version", ["4.4.19", "5.9.0", "6.1.0"])
def test_a_node_is_empty_when_it_is_upgraded_and_takes_clients_afterwards(
    cluster: Any, run_dag: Callable[..., Any]
) -> None:
    from example_dags.upgrade_node import dag

    for number in range(20):
        cluster.connect(f"example-device-{number}", node="emqx@b")
    seen = []

    def at_the_upgrade(context: Any) -> None:
        seen.append([client.node for client in cluster.clients.values() if client.connected])

    dag.get_task("upgrade").pre_execute = at_the_upgrade
    dag.get_task("evacuate").poll_interval = 0.2
    # an evacuation waits a minute here and there
    cluster.before_each_request(lambda method, path: cluster.advance(5))
    run = run_dag(quick(dag), run_conf={"node": "emqx@b", "clients_per_second": 100})
    assert run.state == "success"
    assert len(seen) == 1
    assert "emqx@b" not in seen[0]
    # nobody restarted the node, so the evacuation was ended
    assert run.get_task_instance("open_again").xcom_pull(task_ids="open_again") is True
    assert cluster.connect("late", node="emqx@b")


@needs("apache-airflow", "3.0", "has asset watchers")
def test_a_device_that_comes_online_gets_its_settings(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    from airflow_provider_emqx.operators.topics import EmqxPublishOperator
    from example_dags.greet_new_devices import came_online, dag

    trigger: Any = came_online.watchers[0].trigger
    trigger.poll_interval = 0.2

    async def watch() -> dict[str, Any]:
        watching = asyncio.create_task(event_of(trigger))
        # the first look only remembers what is there
        await looks(broker)
        broker.connect("example-sensor-7")
        broker.subscribe("example-sensor-7", "settings/example-sensor-7", 1)
        broker.connect("other-7")
        return await watching

    payload = asyncio.run(watch())
    assert payload["clientids"] == ["example-sensor-7"]

    event = SimpleNamespace(
        asset=came_online, source_aliases=[], extra={"from_trigger": True, "payload": payload}
    )
    events: Any = TriggeringAssetEventsAccessor.build([event])
    messages = dag.get_task("settings").python_callable(triggering_asset_events=events)
    EmqxPublishOperator(task_id="greet", messages=messages).execute({})
    assert [json.loads(message.payload) for message in broker.received("example-sensor-7")] == [
        {"report_every": 60}
    ]

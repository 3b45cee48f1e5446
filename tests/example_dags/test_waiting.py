from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_emqx.testing import FakeEmqx


def test_a_device_is_waited_for(broker: FakeEmqx, run_dag: Callable[..., Any]) -> None:
    from example_dags.wait_for_device import dag

    broker.connect("example-device-7", connected_at=broker.state.now() - 60)
    run = run_dag(dag, run_conf={"clientid": "example-device-7"})
    assert run.state == "success"
    assert run.get_task_instance("use").xcom_pull(task_ids="use") == "1 of 1 clients are online"


def test_a_fleet_gets_its_command_in_waves(
    broker: FakeEmqx, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    from example_dags.wait_for_fleet import dag

    fleet = tmp_path / "fleet.txt"
    devices = [f"example-device-{number:03}" for number in range(200)]
    fleet.write_text("\n".join(devices))
    for device in devices[:199]:
        broker.connect(device)
        broker.subscribe(device, f"cmd/{device}", 1)
    run = run_dag(dag, run_conf={"fleet": str(fleet), "wave": 80})
    assert run.state == "success"
    assert run.get_task_instance("online").xcom_pull(task_ids="online")["missing"] == ["example-device-199"]
    assert all(len(broker.received(device)) == 1 for device in devices[:199])
    waves = [task for task in run.get_task_instances() if task.task_id == "command"]
    assert len(waves) == 3

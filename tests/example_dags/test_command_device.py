from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.sensors.conftest import before_question


def test_a_device_that_comes_later_gets_its_command_and_is_kicked(
    broker: Any, run_dag: Callable[..., Any]
) -> None:
    from example_dags.command_device import dag

    def come_online() -> None:
        broker.connect("example-device-7")
        broker.subscribe("example-device-7", "cmd/example-device-7", 1)

    before_question(broker, 2, come_online)
    run = run_dag(
        dag, run_conf={"clientid": "example-device-7", "topic": "cmd/example-device-7", "payload": "blink"}
    )

    assert run.state == "success"
    assert [message.payload for message in broker.received("example-device-7")] == [b"blink"]
    kicked = run.get_task_instance("kick").xcom_pull(task_ids="kick")
    assert (kicked["kicked"], kicked["absent"], kicked["still_connected"]) == (["example-device-7"], [], [])
    assert "example-device-7" not in broker.clients

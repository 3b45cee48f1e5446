from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.live.devices import eventually
from tests.needs import needs
from tests.triggers.conftest import event_of


@pytest.fixture
def broker(version: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    with FakeEmqx(version=version) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection(mqtt_url=fake.mqtt_url)))
        yield fake


@pytest.mark.parametrize("retain", [True, False])
def test_a_device_is_waited_for_until_it_is_done(
    broker: FakeEmqx, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, retain: bool
) -> None:
    from example_dags.wait_for_done import dag

    monkeypatch.setattr("airflow_provider_emqx.triggers.messages.SOONEST", 0.0)

    def work(message: Any) -> None:
        """Be done before the sensor has started, or once it waits."""
        done = json.dumps({"done": json.loads(message.payload)["run"]})
        if retain:
            broker.publish("devices/example-device-7/state", done, retain=True)
        else:
            asyncio.get_running_loop().call_later(0.1, later, done)

    def later(done: str) -> None:
        if not broker.publish("devices/example-device-7/state", done, qos=1):
            asyncio.get_running_loop().call_later(0.1, later, done)

    broker.publish("devices/example-device-7/state", '{"done": "an earlier run"}', retain=True)
    broker.connect("example-device-7", on_message=work)
    broker.subscribe("example-device-7", "devices/example-device-7/job", 1)
    run = run_dag(dag, run_conf={"clientid": "example-device-7"})
    assert run.state == "success"
    result = run.get_task_instance("done").xcom_pull(task_ids="done")
    assert (result["topic"], result["retained"]) == ("devices/example-device-7/state", retain)
    assert eventually(lambda: set(broker.clients) == {"example-device-7"})


@needs("apache-airflow", "3.0", "has asset watchers")
def test_gateways_that_are_too_hot_are_cooled(broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    from airflow_provider_emqx.operators.topics import EmqxPublishOperator
    from example_dags.follow_messages import dag, too_hot

    broker.connect("gateway")
    broker.subscribe("gateway", "gateways/2/fan", 1)
    trigger: Any = too_hot.watchers[0].trigger

    async def watch() -> dict[str, Any]:
        watching = asyncio.create_task(event_of(trigger))
        topic = "gateways/+/temperature"
        assert await asyncio.to_thread(
            eventually, lambda: any(topic in client.subscriptions for client in broker.clients.values())
        )
        broker.publish("gateways/1/temperature", '{"temperature": 89}', qos=1)
        broker.publish("gateways/2/temperature", '{"temperature": 90.5}', qos=1)
        return await watching

    payload = asyncio.run(watch())
    event = SimpleNamespace(
        asset=too_hot, source_aliases=[], extra={"from_trigger": True, "payload": payload}
    )
    events: Any = TriggeringAssetEventsAccessor.build([event])
    messages = dag.get_task("cool_down").python_callable(triggering_asset_events=events)
    EmqxPublishOperator(task_id="fan", messages=messages).execute({})
    assert [json.loads(message.payload) for message in broker.received("gateway")] == [{"speed": 100}]

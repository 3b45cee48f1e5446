"""Every kind of condition, but those on clients: waited for in every mode, on both generations, by real DAG runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.sensors.cluster import (
    EmqxClusterHealthSensor,
    EmqxMetricSensor,
    EmqxNodeEvacuatedSensor,
    EmqxRuleHealthSensor,
)
from airflow_provider_emqx.sensors.topics import (
    EmqxRetainedMessageSensor,
    EmqxSubscriptionSensor,
    EmqxTopicMetricSensor,
)
from airflow_provider_emqx.testing import FakeEmqx

NODES = ["emqx@10.0.0.1", "emqx@10.0.0.2"]


@pytest.fixture
def broker(version: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    """Enterprise, two nodes: with everything that can be waited for."""
    with FakeEmqx(version, edition="Enterprise", nodes=NODES) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        yield fake


@contextmanager
def later(action: Callable[[], Any], seconds: float = 0.2) -> Iterator[None]:
    """Do something while a sensor waits."""
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def api(broker: FakeEmqx) -> Any:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    return EmqxHook()


def test_a_topic_gets_its_subscribers(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.connect_many(["a", "b", "c"])
    broker.subscribe("a", "cmd/dev-1")
    broker.subscribe("b", "other/+")

    def subscribe() -> None:
        broker.subscribe("b", "cmd/+")
        broker.subscribe("c", "$share/group/cmd/#")

    with later(subscribe):
        state, result = wait(EmqxSubscriptionSensor, topic="cmd/dev-1", min_subscribers="{{ 3 }}", **mode)
    assert (state, result) == ("success", {"topic": "cmd/dev-1", "needed": 3, "subscribers": 3})


def test_without_wildcards_only_exact_subscriptions_count(wait: Any, broker: FakeEmqx) -> None:
    broker.connect_many(["a", "b"])
    broker.subscribe("a", "cmd/+")
    arguments = {"topic": "cmd/dev-1", "wildcards": False, "timeout": 0, "soft_fail": True}
    assert wait(EmqxSubscriptionSensor, **arguments)[0] == "skipped"
    broker.subscribe("b", "cmd/dev-1")
    assert wait(EmqxSubscriptionSensor, **arguments)[1]["subscribers"] == 1
    assert wait(EmqxSubscriptionSensor, topic="cmd/+")[1]["subscribers"] == 1


def test_a_topic_metric_passes_its_threshold(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    api(broker).register_topic_metrics("alerts")

    def publish() -> None:
        for _ in range(3):
            broker.publish("alerts", "x")

    with later(publish):
        state, result = wait(EmqxTopicMetricSensor, topic="alerts", threshold="3", **mode)
    assert (state, result) == ("success", {"value": 3, "threshold": 3, "comparison": ">="})
    with later(publish):
        state, result = wait(
            EmqxTopicMetricSensor,
            topic="alerts",
            metric="message.in.count",
            threshold=2,
            baseline="{{ 3 }}",
            **mode,
        )
    assert (state, result["change"], result["baseline"]) == ("success", 3, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"topic": "not/measured", "threshold": 1},
        {"topic": "alerts", "threshold": 1, "metric": "messages.im.count"},
        {"topic": "alerts", "threshold": "{{ 'many' }}"},
        {"topic": "alerts", "threshold": 1, "comparison": "{{ '==' }}"},
        {"topic": "{{ 'alerts/#' }}", "threshold": 1},
    ],
)
def test_a_topic_metric_that_cannot_be_fails_at_once(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx, arguments: dict[str, Any]
) -> None:
    api(broker).register_topic_metrics("alerts")
    assert wait(EmqxTopicMetricSensor, **arguments, **mode)[0] == "failed"


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("arguments", "unmet", "met"),
    [
        ({}, None, "anything"),
        ({"payload": "ready {{ 1 }}"}, "ready 2", "ready 1"),
        ({"payload": b"\xff"}, "ready", b"\xff"),
        (
            {"json_field": "state.ok", "json_value": True},
            '{"state": {"ok": "yes"}}',
            '{"state": {"ok": true}}',
        ),
        ({"json_field": "a.1", "json_value": "{{ 7 }}"}, "no json", '{"a": [1, 7.0]}'),
        ({"json_field": "a", "json_value": {"b": 1, "c": 2}}, '{"a": 1}', '{"a": {"c": 2, "b": 1}}'),
        ({"json_field": "a", "json_value": None}, '{"b": null}', '{"a": null}'),
    ],
)
def test_a_message_is_retained(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx, arguments: dict[str, Any], unmet: Any, met: Any
) -> None:
    if unmet is not None:
        broker.publish("dev/1 ü", unmet, retain=True)
    with later(lambda: broker.publish("dev/1 ü", met, retain=True)):
        state, result = wait(EmqxRetainedMessageSensor, topic="dev/1 ü", **arguments, **mode)
    assert (state, result["retained"]) == ("success", True)
    assert "payload" not in result


@pytest.mark.parametrize("version", ["4.4.19"])
def test_where_a_generation_lacks_something_the_wait_fails_at_once(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx
) -> None:
    assert wait(EmqxRetainedMessageSensor, topic="t", **mode)[0] == "failed"
    assert wait(EmqxRuleHealthSensor, action_id="http:x", **mode)[0] == "failed"


def test_an_open_source_broker_has_no_evacuation(
    wait: Any, mode: dict[str, Any], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEmqx(version) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        assert wait(EmqxNodeEvacuatedSensor, node="emqx@127.0.0.1", **mode)[0] == "failed"


def test_the_cluster_becomes_healthy(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.stop_node(NODES[1])
    state, result = wait(EmqxClusterHealthSensor, nodes="{{ 1 }}", **mode)
    assert (state, result) == ("success", {"running": NODES[:1], "not_running": NODES[1:]})
    with later(lambda: broker.start_node(NODES[1])):
        state, result = wait(EmqxClusterHealthSensor, **mode)
    assert (state, result["running"]) == ("success", NODES)


@pytest.mark.parametrize("no_alarms", ["*", ["high_cpu_usage"], "high_cpu_usage"])
def test_alarms_end(wait: Any, mode: dict[str, Any], broker: FakeEmqx, no_alarms: Any) -> None:
    broker.raise_alarm("high_cpu_usage", node=NODES[1])
    if no_alarms != "*":
        broker.raise_alarm("something_else")
    with later(lambda: broker.end_alarm("high_cpu_usage")):
        state, result = wait(EmqxClusterHealthSensor, no_alarms=no_alarms, **mode)
    assert (state, result["alarms"]) == ("success", [])


def test_a_statistic_passes_its_threshold(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.connect("a")
    with later(lambda: broker.connect_many(["b", "c"])):
        state, result = wait(EmqxMetricSensor, metric="live_connections.count", threshold=3, **mode)
    assert (state, result["value"]) == ("success", 3)
    with later(lambda: broker.disconnect("c")):
        state, result = wait(
            EmqxMetricSensor,
            metric="live_connections.count",
            threshold="-1",
            comparison="<=",
            baseline="3",
            **mode,
        )
    assert (state, result["change"]) == ("success", -1)


def test_a_counter_passes_its_threshold(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    with later(lambda: broker.publish("t", "x")):
        state, result = wait(EmqxMetricSensor, metric="messages.received", threshold=1, **mode)
    assert (state, result["value"] >= 1) == ("success", True)
    # the counter is below the baseline: the node has restarted, and it counts from 0
    state, result = wait(EmqxMetricSensor, metric="messages.received", threshold=1, baseline=10**6, **mode)
    assert (state, result["change"]) == ("success", result["value"])


def test_a_metric_that_does_not_exist_fails_at_once(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx
) -> None:
    assert wait(EmqxMetricSensor, metric="live_conections", threshold=3, **mode)[0] == "failed"


def test_a_rule_is_enabled(wait: Any, mode: dict[str, Any], broker: FakeEmqx, version: str) -> None:
    enabled = "enabled" if version.startswith("4") else "enable"
    broker.add_rule("r1", 'SELECT * FROM "t/#"', actions=[], **{enabled: False})
    with later(lambda: broker.add_rule("r1", 'SELECT * FROM "t/#"', actions=[], **{enabled: True})):
        state, result = wait(EmqxRuleHealthSensor, rule_id="r1", **mode)
    assert (state, result) == ("success", {"states": {"rule r1": "enabled"}})


def test_what_a_rule_uses_is_connected(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx, version: str
) -> None:
    if version.startswith("4"):
        part = "resource:1"
        broker.add_resource(part, alive=False, type="web_hook")
        actions: list[Any] = [{"name": "data_to_webserver", "params": {"$resource": part}}]
        broker.add_rule("r1", 'SELECT * FROM "t/#"', actions=actions, enabled=True)
    else:
        part = "http:hook"
        broker.add_connector("http:server")
        broker.add_action(part, status="disconnected", connector="server")
        broker.add_rule("r1", 'SELECT * FROM "t/#"', actions=[part], enable=True)
    with later(lambda: broker.set_status(part, "connected")):
        state, result = wait(EmqxRuleHealthSensor, rule_id="r1", **mode)
    assert state == "success"
    assert "connected" in result["states"].values()


def test_a_connector_is_connected(wait: Any, mode: dict[str, Any], broker: FakeEmqx, version: str) -> None:
    name = "resource:1" if version.startswith("4") else "http:server"

    def add(status: str) -> None:
        if version.startswith("4"):
            broker.add_resource(name, alive=status == "connected", type="web_hook")
        else:
            broker.add_connector(name, status=status)

    with later(lambda: add("disconnected"), 0.1), later(lambda: add("connected"), 0.2):
        state, result = wait(EmqxRuleHealthSensor, connector_id=name, **mode)
    assert (state, result) == ("success", {"states": {f"connector {name}": "connected"}})


def test_a_node_is_evacuated(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.connect_many([f"device-{number}" for number in range(20)])
    hook = api(broker)
    hook.run(hook.api.rebalance.start_evacuation(NODES[0], {"conn_evict_rate": 1, "sess_evict_rate": 1}))
    with later(lambda: broker.finish_evacuation(NODES[0])):
        state, result = wait(EmqxNodeEvacuatedSensor, node=NODES[0], **mode)
    assert (state, result["node"]) == ("success", NODES[0])
    assert result["connected"] == 0


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_node_that_still_lets_clients_in_is_not_evacuated_however_empty(broker: FakeEmqx) -> None:
    hook = api(broker)
    hook.run(hook.api.rebalance.start_evacuation(NODES[0], {"wait_health_check": "60s"}))
    sensor = EmqxNodeEvacuatedSensor(task_id="evacuated", node=NODES[0])
    assert not sensor.poke({})
    assert broker.connect("late", node=NODES[0])
    broker.advance(65)
    assert sensor.poke({})
    assert not broker.connect("later", node=NODES[0])


@pytest.mark.parametrize("version", ["5.8.9"])
def test_what_is_expected_of_a_payload_is_in_no_trigger_argument(broker: FakeEmqx) -> None:
    from airflow.providers.common.compat.sdk import TaskDeferred

    for arguments in ({"payload": "sesame"}, {"json_field": "door", "json_value": "sesame"}):
        sensor = EmqxRetainedMessageSensor(task_id="s", topic="t", deferrable=True, **arguments)
        # Airflow stores and shows the rendered template fields
        assert "sesame" not in str([getattr(sensor, name) for name in sensor.template_fields])
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({})
        assert "sesame" not in repr(deferred.value.trigger)
        assert "sesame" not in json.dumps(deferred.value.trigger.serialize()[1])


def test_what_is_expected_may_come_from_another_task(run_dag: Any, broker: FakeEmqx, version: str) -> None:
    broker.publish("door", b"sesame", retain=True)
    with DAG("expected", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def word() -> str:
            return "sesame"

        sensor = EmqxRetainedMessageSensor(task_id="door", topic="door", payload=word(), timeout=5)
    assert sensor.upstream_task_ids == {"word"}
    state = run_dag(dag).get_task_instance("door").state
    assert state == ("failed" if version.startswith("4") else "success")

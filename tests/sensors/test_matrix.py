"""
Every kind of condition with each of its options, in every mode, on both generations: the same outcome.

Sensors run in real DAG runs, watchers as the triggerer runs them. A kind or an option that is not in the table fails.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.conditions.kinds import KINDS
from airflow_provider_emqx.exceptions import EmqxUnsupportedError
from airflow_provider_emqx.sensors import clients, cluster, topics
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers.emqx import EmqxEventTrigger
from tests.needs import older

#: the first one keeps its clients, the second one is evacuated, the third one is stopped at first
NODES = ["emqx@10.0.0.1", "emqx@10.0.0.2", "emqx@10.0.0.3"]


class Case(NamedTuple):
    """
    One thing to wait for.

    :param sensor: its class.
    :param arguments: of the sensor; ``FLEET`` stands for a file of ids.
    :param meet: makes the condition true.
    :param result: what the task gives, of that in part.
    :param prepare: makes it untrue, where it is not so from the beginning.
    :param v4: whether EMQX 4 has it.
    """

    sensor: Any
    arguments: dict[str, Any]
    meet: Callable[[FakeEmqx], Any]
    result: dict[str, Any]
    prepare: Callable[[FakeEmqx], Any] = lambda broker: None
    v4: bool = True


FLEET = "fleet.txt"


def _connect(broker: FakeEmqx, clientids: list[str], **options: Any) -> None:
    broker.connect_many(clientids, node=NODES[0], **options)


def _rule(broker: FakeEmqx, enabled: bool) -> None:
    name = "enabled" if broker.version.startswith("4") else "enable"
    broker.add_rule("r1", 'SELECT * FROM "t/#"', actions=[], **{name: enabled})


def _connector(broker: FakeEmqx, alive: bool) -> None:
    if broker.version.startswith("4"):
        broker.add_resource("http:c", alive=alive, type="web_hook")
    else:
        broker.add_connector("http:c", status="connected" if alive else "disconnected")


def _measure(broker: FakeEmqx) -> None:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    with EmqxHook() as hook:
        for topic in ("m/1", "m/2"):
            hook.register_topic_metrics(topic)


def _evacuate(broker: FakeEmqx) -> None:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    broker.connect_many((f"evacuated-{number}" for number in range(200)), node=NODES[1])
    slow = {"conn_evict_rate": 1, "sess_evict_rate": 1}
    with EmqxHook() as hook:
        hook.run(hook.api.rebalance.start_evacuation(NODES[1], slow))


def _subscribe(clientid: str, topic: str) -> Callable[[FakeEmqx], None]:
    def subscribe(broker: FakeEmqx) -> None:
        _connect(broker, [clientid])
        broker.subscribe(clientid, topic)

    return subscribe


CASES = {
    "online": Case(
        clients.EmqxClientOnlineSensor, {"clientids": "on"}, lambda b: _connect(b, ["on"]), {"online": 1}
    ),
    "online_for_so_long": Case(
        clients.EmqxClientOnlineSensor,
        {"clientids_path": FLEET, "quorum": "{{ '50%' }}", "stable_for": 3600},
        lambda b: _connect(b, ["f-1", "f-2"], connected_at=b.state.now() - 7200),
        {"awaited": 4, "needed": 2, "online": 2, "missing": ["f-3", "f-4"]},
        lambda b: _connect(b, ["f-3"]),
    ),
    "offline": Case(
        clients.EmqxClientOfflineSensor,
        {"clientids": ["off-1", "off-2"]},
        lambda b: b.disconnect("off-2"),
        {"offline": 2, "missing": []},
        lambda b: _connect(b, ["off-2"]),
    ),
    "offline_any": Case(
        clients.EmqxClientOfflineSensor,
        {"clientids_path": "gone.txt", "quorum": "any"},
        lambda b: b.disconnect("g-1"),
        {"offline": 1, "missing": ["g-2"]},
        lambda b: _connect(b, ["g-1", "g-2"]),
    ),
    "subscribed": Case(
        topics.EmqxSubscriptionSensor,
        {"topic": "s/1", "min_subscribers": 2},
        _subscribe("sub-2", "s/+"),
        {"subscribers": 2},
        _subscribe("sub-1", "s/1"),
    ),
    "subscribed_exactly": Case(
        topics.EmqxSubscriptionSensor,
        {"topic": "e/1", "wildcards": False},
        _subscribe("sub-4", "e/1"),
        {"subscribers": 1},
        _subscribe("sub-3", "e/+"),
    ),
    "topic_metric": Case(
        topics.EmqxTopicMetricSensor,
        {"topic": "m/1", "threshold": "2"},
        lambda b: [b.publish("m/1", "x") for _ in range(2)],
        {"threshold": 2},
        _measure,
    ),
    "topic_metric_change": Case(
        topics.EmqxTopicMetricSensor,
        # a node was restarted since: its counter is below the baseline, and counts from 0
        {"topic": "m/2", "metric": "messages.in.count", "threshold": "1", "baseline": "{{ 100 }}"},
        lambda b: b.publish("m/2", "x"),
        {"value": 1, "baseline": 100, "change": 1},
    ),
    "retained": Case(
        topics.EmqxRetainedMessageSensor,
        {"topic": "r/1"},
        lambda b: b.publish("r/1", "x", retain=True),
        {"retained": True},
        v4=False,
    ),
    "retained_payload": Case(
        topics.EmqxRetainedMessageSensor,
        {"topic": "r/2", "payload": "ready"},
        lambda b: b.publish("r/2", "ready", retain=True),
        {"retained": True},
        lambda b: b.publish("r/2", "not ready", retain=True),
        v4=False,
    ),
    "retained_field": Case(
        topics.EmqxRetainedMessageSensor,
        {"topic": "r/3", "json_field": "state.battery", "json_value": "80"},
        lambda b: b.publish("r/3", '{"state": {"battery": 80}}', retain=True),
        {"retained": True},
        lambda b: b.publish("r/3", '{"state": {"battery": 8}}', retain=True),
        v4=False,
    ),
    "nodes_run": Case(
        cluster.EmqxClusterHealthSensor,
        {"nodes": "all"},
        lambda b: b.start_node(NODES[2]),
        {"running": NODES},
        lambda b: b.stop_node(NODES[2]),
    ),
    "no_alarm": Case(
        cluster.EmqxClusterHealthSensor,
        {"nodes": 1, "no_alarms": ["high_cpu_usage"]},
        lambda b: b.end_alarm("high_cpu_usage"),
        {"alarms": []},
        lambda b: [b.raise_alarm(name) for name in ("high_cpu_usage", "another")],
    ),
    "statistic_of_a_node": Case(
        cluster.EmqxMetricSensor,
        {"metric": "live_connections.count", "threshold": 400, "node": NODES[0]},
        lambda b: _connect(b, [f"many-{number}" for number in range(400)]),
        {"threshold": 400},
    ),
    "counter_change": Case(
        cluster.EmqxMetricSensor,
        {"metric": "messages.received", "threshold": 500, "comparison": ">=", "baseline": 1},
        lambda b: [b.publish("x", "x") for _ in range(600)],
        {"baseline": 1},
    ),
    "rule": Case(
        cluster.EmqxRuleHealthSensor,
        {"rule_id": "r1"},
        lambda b: _rule(b, True),
        {"states": {"rule r1": "enabled"}},
        lambda b: _rule(b, False),
    ),
    "action": Case(
        cluster.EmqxRuleHealthSensor,
        {"action_id": "http:a"},
        lambda b: b.set_status("http:a", "connected"),
        {"states": {"action http:a": "connected"}},
        lambda b: (b.add_connector("http:x"), b.add_action("http:a", status="disconnected", connector="x")),
        v4=False,
    ),
    "source": Case(
        cluster.EmqxRuleHealthSensor,
        {"source_id": "mqtt:s"},
        lambda b: b.set_status("mqtt:s", "connected"),
        {"states": {"source mqtt:s": "connected"}},
        lambda b: (b.add_connector("mqtt:y"), b.add_source("mqtt:s", status="disconnected", connector="y")),
        v4=False,
    ),
    "connector": Case(
        cluster.EmqxRuleHealthSensor,
        {"connector_id": "http:c"},
        lambda b: _connector(b, True),
        {"states": {"connector http:c": "connected"}},
        lambda b: _connector(b, False),
    ),
    "evacuated": Case(
        cluster.EmqxNodeEvacuatedSensor,
        {"node": NODES[1]},
        lambda b: b.finish_evacuation(NODES[1]),
        {"node": NODES[1], "connected": 0},
        _evacuate,
    ),
}


@pytest.fixture
def broker(version: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    """Enterprise, three nodes: with everything that can be waited for, and nothing that is."""
    with FakeEmqx(version, edition="Enterprise", nodes=NODES) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        yield fake


@pytest.fixture
def cases(broker: FakeEmqx, version: str, tmp_path: Path) -> dict[str, Case]:
    (tmp_path / FLEET).write_text("f-1\nf-2\nf-3\nf-4\n")
    (tmp_path / "gone.txt").write_text("g-1\ng-2\n")
    found = {}
    for name, case in CASES.items():
        arguments = dict(case.arguments)
        if "clientids_path" in arguments:
            arguments["clientids_path"] = str(tmp_path / arguments["clientids_path"])
        found[name] = case._replace(arguments=arguments)
        if case.v4 or version.startswith("5"):
            case.prepare(broker)
    return found


def lacks(case: Case, version: str) -> bool:
    return version.startswith("4") and not case.v4


def test_the_table_has_every_kind_and_every_option() -> None:
    listed: dict[str, set[str]] = {}
    for name, case in CASES.items():
        condition = case.sensor(task_id=name, **case.arguments).condition() if "{{" not in str(case) else None
        if condition is not None:
            listed.setdefault(condition.kind, set()).update(condition.parameters())
    listed["clients_online"] |= {"path", "stable_for"}
    listed["topic_metric"] |= {"baseline"}
    # of the operator that starts it
    listed["node_evacuated"] |= {"started"}
    # carried as digests
    listed["message_retained"] |= {"payload", "json_value"}
    assert set(listed) == set(KINDS)
    for kind, condition in KINDS.items():
        assert listed[kind] == set(inspect.signature(condition).parameters), kind


def test_the_same_comes_out_in_every_mode(
    run_dag: Callable[..., Any],
    mode: dict[str, Any],
    broker: FakeEmqx,
    cases: dict[str, Case],
    version: str,
) -> None:
    """A sensor each, in one DAG run; each condition is met a moment after its sensor has begun."""
    begun: set[str] = set()
    met: dict[str, datetime] = {}
    failures: dict[str, type] = {}
    timers: list[threading.Timer] = []

    def begin(context: Any) -> None:
        name = context["ti"].task_id
        # it is called at every look of a sensor that is rescheduled
        if name not in begun and not lacks(cases[name], version):
            begun.add(name)

            def meet() -> None:
                met[name] = datetime.now(UTC)
                cases[name].meet(broker)

            timers.append(threading.Timer(0.2, meet))
            timers[-1].start()

    def failed(context: Any) -> None:
        failures[context["ti"].task_id] = type(context["exception"])

    with DAG("matrix", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        for name, case in cases.items():
            case.sensor(
                task_id=name,
                poke_interval=0.1,
                timeout=60,
                retries=2,
                on_execute_callback=begin,
                on_failure_callback=failed,
                **case.arguments,
                **mode,
            )
    run = run_dag(dag)
    for timer in timers:
        timer.join()
    for name, case in cases.items():
        task = run.get_task_instance(name)
        if lacks(case, version):
            # at once, and without a retry
            assert (task.state, task.try_number) == ("failed", 1), name
            # Airflow 3.0 to 3.2 tell callbacks of some errors only
            assert older("apache-airflow", "3.3") or failures[name] is EmqxUnsupportedError, name
            continue
        assert task.state == "success", name
        result = task.xcom_pull(task_ids=name)
        assert {**result, **case.result} == result, name
        assert task.end_date >= met[name], f"{name} did not wait"


class Seen:
    """The state store of a watcher: tells that it has looked."""

    looked = False

    async def aget(self, key: str) -> Any:
        return None

    async def aset(self, key: str, value: Any) -> None:
        self.looked = True


def test_every_condition_can_be_watched(
    broker: FakeEmqx, cases: dict[str, Case], version: str, mocker: Any
) -> None:
    """Told once, when it becomes true; where the broker lacks it, the log says so and the watcher looks less often."""
    told = mocker.spy(EmqxEventTrigger, "_tell")
    payloads: dict[str, list[Any]] = {name: [] for name in cases}
    stores = {name: Seen() for name in cases}

    async def watch(name: str, case: Case) -> None:
        arguments = {
            key: {"{{ '50%' }}": "50%", "{{ 100 }}": 100}.get(value, value)
            if isinstance(value, str)
            else value
            for key, value in case.arguments.items()
        }
        condition = case.sensor(task_id=name, **arguments).condition()
        watcher = EmqxEventTrigger(
            event="condition_met",
            kind=condition.kind,
            parameters=condition.parameters(),
            poll_interval=0.1,
        )
        watcher.asset_state_store = stores[name]
        async for event in watcher.run():
            payloads[name].append(event.payload)

    async def until(check: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not check():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def main() -> None:
        watchers = [asyncio.create_task(watch(name, case)) for name, case in cases.items()]
        there = {name: case for name, case in cases.items() if not lacks(case, version)}
        await until(lambda: all(stores[name].looked for name in there))
        assert not any(payloads.values())
        for case in there.values():
            case.meet(broker)
        await until(lambda: all(payloads[name] for name in there))
        before = broker.request_count
        await until(lambda: broker.request_count > before + 3 * len(there))
        assert not any(watcher.done() for watcher in watchers)
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    asyncio.run(main())
    for name, case in cases.items():
        if lacks(case, version):
            assert payloads[name] == []
            continue
        (payload,) = payloads[name]
        assert {**payload["details"], **case.result} == payload["details"], name
    # each of them says it, and not with every interval
    errors = [call.args[1] for call in told.call_args_list]
    assert {type(error) for error in errors} <= {EmqxUnsupportedError}
    assert len(errors) >= sum(lacks(case, version) for case in cases.values())

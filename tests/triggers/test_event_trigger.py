from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers import emqx as module
from airflow_provider_emqx.triggers import events
from airflow_provider_emqx.triggers.emqx import EmqxEventTrigger
from tests.needs import needs
from tests.triggers.conftest import looks, shift_pages, until, watched_loop


@pytest.fixture(autouse=True)
def handed_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDED_OVER", 0.0, raising=False)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a watcher whose look has failed look again at once; how long it waits is tested by itself."""
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.1)


class Store:
    """What Airflow gives a trigger that serves one asset."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values = {} if values is None else values
        self.changes = 0

    async def aget(self, key: str) -> Any:
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = json.loads(json.dumps(value))
        self.changes += 1

    async def adelete(self, key: str) -> None:
        self.values.pop(key, None)
        self.changes += 1


class SeveralAssets:
    """What Airflow gives a trigger that serves several."""

    async def aget(self, key: str) -> Any:
        raise ValueError("Task has 2 concrete inlets and outlets")


@asynccontextmanager
async def watching(trigger: EmqxEventTrigger, store: Any = None) -> AsyncIterator[list[dict[str, Any]]]:
    """Run a trigger as Airflow does; gives the list of payloads that it has sent so far."""
    payloads: list[dict[str, Any]] = []
    trigger.asset_state_store = store

    async def run() -> None:
        async for event in trigger.run():
            payload = json.loads(json.dumps(event.payload))
            payloads.append(payload)

    task = asyncio.create_task(run())
    try:
        yield payloads
        assert not task.done(), "a watcher never ends"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def trigger(event: str, **arguments: Any) -> EmqxEventTrigger:
    return EmqxEventTrigger(event=event, poll_interval=0.1, **arguments)


def ids(payloads: list[dict[str, Any]]) -> list[str]:
    return [clientid for payload in payloads for clientid in payload["clientids"]]


def test_clients_that_come_online_are_told_once_each(broker: FakeEmqx) -> None:
    broker.connect_many(["sensor-1", "other-1"])

    async def main() -> None:
        async with watching(trigger("client_online", clientid_pattern="sensor-*")) as payloads:
            await looks(broker)
            assert payloads == []
            broker.connect_many(["sensor-2", "sensor-3", "other-2"])
            await until(lambda: len(ids(payloads)) == 2)
            broker.connect("sensor-4")
            await until(lambda: len(ids(payloads)) == 3)
            await looks(broker)
        assert ids(payloads) == ["sensor-2", "sensor-3", "sensor-4"]
        assert payloads[-1]["emqx_conn_id"] == "emqx_default"

    asyncio.run(main())


def test_a_client_that_connects_anew_is_told_again(broker: FakeEmqx) -> None:
    broker.connect("a")

    async def main() -> None:
        async with watching(trigger("client_online")) as payloads:
            await looks(broker)
            broker.disconnect("a")
            broker.advance(5)
            broker.connect("a")
            await until(lambda: ids(payloads) == ["a"])
            await looks(broker)
        assert ids(payloads) == ["a"]

    asyncio.run(main())


def test_the_first_client_ever_is_told(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with watching(trigger("client_online")) as payloads:
            await looks(broker)
            broker.connect("a")
            await until(lambda: ids(payloads) == ["a"])

    asyncio.run(main())


def test_a_node_whose_clock_is_late_is_seen(broker: FakeEmqx) -> None:
    broker.connect("a")

    async def main() -> None:
        async with watching(trigger("client_online")) as payloads:
            await looks(broker)
            broker.connect("late", connected_at=broker.state.now() - 30)
            await until(lambda: ids(payloads) == ["late"])

    asyncio.run(main())


def test_a_node_whose_clock_is_fast_hides_nobody(broker: FakeEmqx) -> None:
    """Its connections are the newest ones for an hour, and others come in meanwhile on the other nodes."""

    async def main() -> None:
        async with watching(trigger("client_online")) as payloads:
            await looks(broker)
            broker.connect("fast", connected_at=broker.state.now() + 3600)
            await until(lambda: ids(payloads) == ["fast"])
            broker.connect("right")
            await until(lambda: ids(payloads) == ["fast", "right"])
            await looks(broker, 4)
        assert ids(payloads) == ["fast", "right"]

    asyncio.run(main())


def test_a_watcher_still_reckons_after_a_week_of_failures() -> None:
    assert [module.pause_after(failures, 0.2) for failures in (1, 3)] == [2.0, 8.0]
    assert [module.pause_after(failures, 30.0) for failures in (1, 20, 100_000)] == [60.0, 600.0, 600.0]
    assert module.pause_after(1, 3600.0) == 3600.0


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
@pytest.mark.parametrize("event", ["client_online", "client_offline"])
def test_the_event_loop_is_not_held_while_ten_thousand_clients_are_watched(
    process: Callable[..., str], version: str, event: str
) -> None:
    """The bound is 50 ms. A full garbage collection of a test process may take longer; the best of three counts."""
    process(version, 10_000)

    async def main() -> float:
        store = Store()
        async with watched_loop() as held, watching(trigger(event), store):
            # the first look sees all of them
            await until(lambda: store.changes, 60)
            # the second one, of a broker in another process, compares
            await asyncio.sleep(1)
        return held.longest

    assert any(asyncio.run(main()) < 0.05 for _ in range(3))


def test_patterns_are_of_usernames_too(broker: FakeEmqx) -> None:
    async def main() -> None:
        arguments = {"clientid_pattern": "dev-*", "username_pattern": "*-a"}
        async with watching(trigger("client_online", **arguments)) as payloads:
            await looks(broker)
            broker.connect("dev-1", username="fleet-a")
            broker.connect("dev-2", username="fleet-10")
            broker.connect("dev-3", username="fleet-b")
            broker.connect("Dev-1", username="fleet-a")
            await until(lambda: ids(payloads) == ["dev-1"])
            await looks(broker)
        assert ids(payloads) == ["dev-1"]

    asyncio.run(main())


def test_clients_that_go_offline_are_told_once_each(broker: FakeEmqx) -> None:
    broker.connect_many(["sensor-1", "sensor-2", "other-1"])
    broker.connect("sensor-3", clean_start=False, session_expiry=3600)

    async def main() -> None:
        async with watching(trigger("client_offline", clientid_pattern="sensor-*")) as payloads:
            await looks(broker)
            assert payloads == []
            for clientid in ("sensor-1", "sensor-3", "other-1"):
                broker.disconnect(clientid)
            await until(lambda: len(ids(payloads)) == 2)
            await looks(broker)
        assert sorted(ids(payloads)) == ["sensor-1", "sensor-3"]

    asyncio.run(main())


def test_many_changes_come_in_batches(broker: FakeEmqx) -> None:
    broker.connect_many(f"device-{number}" for number in range(2_500))

    async def main() -> None:
        async with watching(trigger("client_offline")) as payloads:
            await looks(broker, 30)
            for number in range(2_500):
                broker.disconnect(f"device-{number}")
            await until(lambda: len(ids(payloads)) == 2_500)
        assert len(set(ids(payloads))) == 2_500
        assert max(payload["count"] for payload in payloads) <= 1_000

    asyncio.run(main())


def test_a_client_that_the_shifting_pages_hide_has_not_gone(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.connect_many(f"device-{number}" for number in range(30))
    hidden: set[str] = set()
    shift_pages(monkeypatch, 20, hidden)

    async def main() -> None:
        async with watching(trigger("client_offline")) as payloads:
            await looks(broker, 6)
            hidden.add("device-7")
            await looks(broker, 6)
            assert payloads == []
            broker.disconnect("device-7")
            await until(lambda: ids(payloads) == ["device-7"])

    asyncio.run(main())


def test_a_client_that_the_shifting_pages_hide_when_it_comes_is_told(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connected long before the newest one, which the next look goes on from."""
    broker.connect("first", connected_at=broker.state.now() - 7200)
    hidden: set[str] = set()
    # the next listing finds it in its new place
    shift_pages(monkeypatch, 20, hidden, once=True)

    async def main() -> None:
        async with watching(trigger("client_online")) as payloads:
            await looks(broker)
            hidden.add("hidden")
            broker.connect("hidden", connected_at=broker.state.now() - 600)
            broker.connect_many(f"device-{number}" for number in range(30))
            await until(lambda: len(ids(payloads)) >= 30)
            await looks(broker, 6)
        assert sorted(ids(payloads)) == sorted(["hidden", *(f"device-{number}" for number in range(30))])

    asyncio.run(main())


def test_an_alarm_is_told_when_it_becomes_active(broker: FakeEmqx) -> None:
    broker.raise_alarm("old")

    async def main() -> None:
        async with watching(trigger("alarm_activated", alarms=["old", "high_cpu_usage"])) as payloads:
            await looks(broker)
            broker.raise_alarm("high_cpu_usage", "95 %")
            broker.raise_alarm("not asked for")
            await until(lambda: len(payloads) == 1)
            await looks(broker)
            assert [alarm["name"] for alarm in payloads[0]["alarms"]] == ["high_cpu_usage"]
            broker.end_alarm("high_cpu_usage")
            broker.advance(2)
            await looks(broker)
            broker.raise_alarm("high_cpu_usage")
            await until(lambda: len(payloads) == 2)

    asyncio.run(main())


def test_a_condition_is_told_when_it_becomes_true_and_not_while_it_is(
    broker: FakeEmqx, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.txt"
    file.write_text("a\nb\n")
    broker.connect_many(["a", "b"])
    watcher = trigger("condition_met", kind="clients_online", parameters={"path": str(file), "quorum": "all"})

    async def main() -> None:
        async with watching(watcher) as payloads:
            await looks(broker, 8)
            assert payloads == []
            for count in (1, 2):
                broker.disconnect("a")
                await looks(broker, 6)
                broker.connect("a")
                await until(lambda count=count: len(payloads) == count)  # type: ignore[misc]
            await looks(broker, 6)
        assert [payload["details"]["online"] for payload in payloads] == [2, 2]

    asyncio.run(main())


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_file_of_ids_that_changes_is_read_again(broker: FakeEmqx, tmp_path: Path) -> None:
    file = tmp_path / "fleet.txt"
    file.write_text("a")
    broker.connect("b")
    watcher = trigger("condition_met", kind="clients_online", parameters={"path": str(file), "quorum": "all"})

    async def main() -> None:
        async with watching(watcher) as payloads:
            await looks(broker, 6)
            file.write_text("b")
            await until(lambda: len(payloads) == 1)

    asyncio.run(main())


def test_another_way_to_write_the_same_time_is_no_new_connection() -> None:
    """Each node of a cluster writes times in its own time zone, and any of them may answer."""
    now = time.time()

    def look(at: str, memory: events.Memory | None) -> events.Found:
        return events._came([{"clientid": "a", "connected": True, "connected_at": at}], memory, now)

    first = look("2026-11-25T12:00:00.000Z", None)
    assert look("2026-11-25T14:00:00.000+02:00", first.memory).events == []
    assert look("2026-11-25T14:00:00.001+02:00", first.memory).events != []


@pytest.mark.parametrize(
    ("kind", "parameters", "meet"),
    [
        ("topic_subscribed", {"topic": "t"}, lambda b: (b.connect("a"), b.subscribe("a", "t"))),
        ("cluster_healthy", {"no_alarms": "x"}, lambda b: b.end_alarm("x")),
        ("cluster_metric", {"metric": "live_connections.count", "threshold": 1}, lambda b: b.connect("a")),
        ("clients_offline", {"clientids": "z"}, lambda b: b.disconnect("z")),
        ("rule_healthy", {"rule_id": "r"}, lambda b: b.add_rule("r", 'SELECT * FROM "t"', actions=[])),
        ("topic_metric", {"topic": "m", "threshold": 1}, lambda b: b.publish("m", "x")),
        ("message_retained", {"topic": "r"}, lambda b: b.publish("r", "x", retain=True)),
        ("node_evacuated", {"node": "emqx@127.0.0.1"}, lambda b: b.finish_evacuation("emqx@127.0.0.1")),
    ],
)
def test_every_condition_can_be_watched(
    version: str, monkeypatch: pytest.MonkeyPatch, kind: str, parameters: dict[str, Any], meet: Any
) -> None:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    if kind == "message_retained" and version.startswith("4"):
        return
    with FakeEmqx(version, edition="Enterprise", nodes=["emqx@127.0.0.1", "emqx@127.0.0.2"]) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        hook = EmqxHook()
        hook.run(hook.api.topics.register_metrics("m"))
        broker.raise_alarm("x")
        if kind == "clients_offline":
            broker.connect("z")
        if kind == "node_evacuated":
            for number in range(9):
                broker.connect(f"device-{number}", node="emqx@127.0.0.1")
            slow = {"conn_evict_rate": 1, "sess_evict_rate": 1}
            hook.run(hook.api.rebalance.start_evacuation("emqx@127.0.0.1", slow))

        async def main() -> None:
            async with watching(trigger("condition_met", kind=kind, parameters=parameters)) as payloads:
                await looks(broker, 7)
                assert payloads == []
                meet(broker)
                await until(lambda: len(payloads) == 1)
                await looks(broker, 4)
                assert len(payloads) == 1

        asyncio.run(main())


@pytest.mark.parametrize("event", ["client_online", "client_offline"])
def test_after_a_restart_what_has_changed_meanwhile_is_told(broker: FakeEmqx, event: str) -> None:
    broker.connect_many(["a", "b"])
    store = Store()
    changed = {"client_online": ["c"], "client_offline": ["a"]}[event]

    async def main() -> None:
        async with watching(trigger(event), store) as payloads:
            await until(lambda: store.values)
            await looks(broker)
        assert payloads == []
        broker.disconnect("a")
        broker.connect("c")
        async with watching(EmqxEventTrigger(**trigger(event).serialize()[1]), store) as payloads:
            await until(lambda: ids(payloads) == changed)
            await looks(broker)
        assert ids(payloads) == changed
        # and without the memory, a restart begins anew
        broker.disconnect("b")
        async with watching(trigger(event)) as payloads:
            await looks(broker)
        assert payloads == []

    asyncio.run(main())


def test_an_event_that_airflow_may_not_have_stored_yet_is_told_again(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer hands events over once a second: one that is killed before that has told nothing."""
    monkeypatch.setattr(module, "HANDED_OVER", 60.0)
    store = Store()

    async def main() -> None:
        async with watching(trigger("client_online"), store) as payloads:
            await until(lambda: store.values)
            broker.connect("a")
            await until(lambda: ids(payloads) == ["a"])
            await asyncio.sleep(0.2)
        async with watching(trigger("client_online"), store) as payloads:
            await until(lambda: ids(payloads) == ["a"])

    asyncio.run(main())


def test_a_memory_that_is_too_long_is_not_kept(broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_MEMORY", 200)
    broker.connect("a")
    stores = {event: Store() for event in ("client_online", "client_offline")}

    async def main() -> None:
        for event, store in stores.items():
            async with watching(trigger(event), store):
                await until(lambda store=store: store.values)  # type: ignore[misc]
                broker.connect_many(f"device-{number}" for number in range(100))
                await looks(broker, 6)
            for number in range(100):
                broker.disconnect(f"device-{number}")

    asyncio.run(main())
    (kept,) = stores["client_online"].values.values()
    assert kept["seen"] == {}
    assert kept["newest"] is not None
    assert stores["client_offline"].values == {}


def test_a_trigger_of_several_assets_remembers_nothing(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with watching(trigger("client_online"), SeveralAssets()) as payloads:
            await looks(broker)
            broker.connect("a")
            await until(lambda: ids(payloads) == ["a"])

    asyncio.run(main())


@pytest.mark.usefixtures("short_pauses")
def test_a_broker_that_is_down_is_outlived(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with watching(trigger("client_online")) as payloads:
            await looks(broker)
            await asyncio.to_thread(broker.stop)
            # several looks, which nobody sees
            await asyncio.sleep(0.5)
            broker.connect("a")
            await asyncio.to_thread(broker.start)
            await until(lambda: ids(payloads) == ["a"], 30)

    asyncio.run(main())


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("kind", ["status", "reset", "truncated", "garbage", "close"])
def test_faults_are_outlived_and_tell_nothing(broker: FakeEmqx, kind: str) -> None:
    broker.connect_many(["a", "b"])

    async def main() -> None:
        async with watching(trigger("client_offline")) as payloads:
            await looks(broker)
            broker.order_fault(kind, status=500, times=5)
            await looks(broker, 9)
            assert payloads == []
            broker.disconnect("b")
            await until(lambda: ids(payloads) == ["b"], 30)

    asyncio.run(main())


def test_a_wrong_key_is_tried_ever_less_often(broker: FakeEmqx) -> None:
    broker.remove_key("key")

    async def main() -> int:
        async with watching(trigger("client_online")):
            # two looks, and no third one: the pauses between them are 2 s and 4 s
            await asyncio.sleep(2.5)
        return broker.request_count

    # a look every 0.1 s would have been 25; each look is two to five requests
    assert asyncio.run(main()) <= 10


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("event", ["client_online", "client_offline"])
def test_a_key_that_is_revoked_tells_nothing_and_its_successor_is_taken_over(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    def refused() -> int:
        return sum(request.status == 401 for request in broker.requests)

    broker.connect_many(["dev-1", "dev-2"])

    async def main() -> None:
        async with watching(trigger(event)) as payloads:
            await looks(broker)
            broker.remove_key("key")
            await until(refused)
            assert payloads == []
            broker.connect("dev-3")
            broker.disconnect("dev-2")
            broker.add_key("new", "newer")
            replaced = {**broker.connection(), "login": "new", "password": "newer"}
            monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(replaced))
            await until(lambda: payloads)
            await looks(broker)
        assert ids(payloads) == (["dev-3"] if event == "client_online" else ["dev-2"])

    asyncio.run(main())


@pytest.mark.usefixtures("short_pauses")
def test_a_connection_that_does_not_exist_yet_is_waited_for(airflow_db: None, mocker: Any) -> None:
    told = mocker.spy(EmqxEventTrigger, "_tell")

    async def main() -> None:
        async with watching(trigger("client_online", emqx_conn_id="nowhere")):
            await until(lambda: told.call_count > 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"event": "client_appears"},
        {"event": "client_online", "alarms": ["x"]},
        {"event": "alarm_activated", "clientid_pattern": "x"},
        {"event": "condition_met"},
        {"event": "condition_met", "kind": "clients_online", "parameters": {"clientids": []}},
        {
            "event": "condition_met",
            "kind": "clients_online",
            "parameters": {"clientids": [str(number) for number in range(1_001)]},
        },
    ],
)
def test_what_cannot_be_right_fails_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        EmqxEventTrigger(**arguments)


@pytest.mark.parametrize(
    "watcher",
    [
        EmqxEventTrigger(
            event="client_online", clientid_pattern="a-*", username_pattern="u", emqx_conn_id="other"
        ),
        EmqxEventTrigger(event="alarm_activated", alarms="one"),
        EmqxEventTrigger(event="condition_met", kind="clients_online", parameters={"clientids": "a"}),
    ],
)
def test_a_restarted_triggerer_makes_the_same_watcher(watcher: EmqxEventTrigger) -> None:
    path, arguments = watcher.serialize()
    assert path == "airflow_provider_emqx.triggers.emqx.EmqxEventTrigger"
    again = EmqxEventTrigger(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)


@needs("apache-airflow", "3.0", "has asset watchers")
def test_airflow_takes_it_for_a_watcher() -> None:
    from airflow import sdk

    watcher = trigger("client_online")
    asset = sdk.Asset("devices", watchers=[sdk.AssetWatcher(name="online", trigger=watcher)])
    assert isinstance(hash(type(watcher).hash(*watcher.serialize())), int)
    assert asset.watchers

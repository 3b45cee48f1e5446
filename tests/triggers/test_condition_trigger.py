from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat import connection as compat_connection

from airflow_provider_emqx import exceptions
from airflow_provider_emqx.conditions.kinds import load
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger, error_event, error_of
from airflow_provider_emqx.triggers.polls import Watch
from tests.triggers.conftest import event_of, looks


def online(*clientids: str, **arguments: Any) -> EmqxConditionTrigger:
    parameters = {"clientids": list(clientids), "quorum": arguments.pop("quorum", "all")}
    return EmqxConditionTrigger(
        **{"kind": "clients_online", "parameters": parameters, "poll_interval": 0.1, **arguments}
    )


def test_a_restarted_triggerer_makes_the_same_trigger_of_its_arguments() -> None:
    trigger = EmqxConditionTrigger(
        kind="clients_online",
        parameters={"path": "s3://bucket/fleet.txt", "quorum": "95%", "stable_for": 30},
        emqx_conn_id="other",
        poll_interval=7,
        backoff=True,
        max_interval=60.0,
        max_failures=None,
        deadline=1e9,
        missing_path="/tmp/missing.txt",
    )
    try:
        from airflow.sdk import serde
    except ImportError:  # Airflow before 3.2
        from airflow.serialization import serde
    path, arguments = trigger.serialize()
    assert path == "airflow_provider_emqx.triggers.emqx.EmqxConditionTrigger"
    again = serde.deserialize(json.loads(json.dumps(serde.serialize(arguments))))
    assert EmqxConditionTrigger(**again).serialize() == (path, arguments)
    assert json.loads(json.dumps(arguments)) == arguments


def test_the_event_comes_when_the_device_is_online(broker: FakeEmqx) -> None:
    broker.connect_later("dev-1", 0.2)
    event = asyncio.run(event_of(online("dev-1")))
    assert event["status"] == "met"
    assert event["details"]["online"] == 1
    assert {request.method for request in broker.requests} == {"GET"}


def test_nothing_is_asked_before_half_the_interval_has_passed(broker: FakeEmqx) -> None:
    broker.connect("dev-1")

    async def main() -> None:
        waiting = asyncio.create_task(event_of(online("dev-1", poll_interval=60)))
        await asyncio.sleep(0.2)
        assert broker.request_count == 0
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize("interval", [0.2, 1, 7.5, 60, 3600])
def test_the_first_look_is_half_to_one_and_a_half_intervals_away(interval: float) -> None:
    async def main() -> None:
        watch = Watch(load("clients_online", {"clientids": "a"}), interval)
        for now, phase in ((0.0, 0.0), (0.1 * interval, 0.3), (12345.678, 0.99), (1e6 + 0.9 * interval, 0.5)):
            watch.schedule(now, phase)
            assert 0.499 * interval <= watch.due - now <= 1.501 * interval

    asyncio.run(main())


def test_the_deadline_holds_across_restarts_of_the_triggerer(broker: FakeEmqx) -> None:
    deadline = time.time() + 1

    async def main() -> Any:
        first = asyncio.create_task(event_of(online("ghost", deadline=deadline)))
        await looks(broker)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        restarted = EmqxConditionTrigger(**online("ghost", deadline=deadline).serialize()[1])
        return await event_of(restarted)

    event = asyncio.run(main())
    assert event["status"] == "timeout"
    assert time.time() >= deadline
    late = EmqxConditionTrigger(**online("ghost", deadline=time.time() - 60).serialize()[1])
    assert asyncio.run(event_of(late))["status"] == "timeout"


def test_the_last_look_is_just_before_the_deadline(broker: FakeEmqx) -> None:
    broker.connect_later("dev-1", 0.2)
    event = asyncio.run(event_of(online("dev-1", poll_interval=60, deadline=time.time() + 3)))
    assert event["status"] == "met"


def test_the_timeout_tells_what_is_missing(broker: FakeEmqx) -> None:
    broker.connect("a")
    event = asyncio.run(event_of(online("a", "ghost", deadline=time.time() + 1)))
    assert event["status"] == "timeout"
    assert "1 of 2 clients online" in event["text"]
    assert "ghost" in event["text"]


def test_intervals_grow_where_that_is_asked_for(broker: FakeEmqx) -> None:
    def looks(**arguments: Any) -> int:
        before = broker.request_count
        asyncio.run(event_of(online("ghost", deadline=time.time() + 2.5, poll_interval=0.1, **arguments)))
        return broker.request_count - before

    assert looks(backoff=True) < looks(backoff=True, max_interval=0.1) / 2


def test_a_long_list_of_missing_ids_goes_to_the_file_that_was_named(broker: FakeEmqx, tmp_path: Path) -> None:
    ids = tmp_path / "fleet.txt"
    ids.write_text("\n".join(f"device-{number}" for number in range(2_000)))
    broker.connect("device-7")
    missing = tmp_path / "missing.txt"
    trigger = EmqxConditionTrigger(
        kind="clients_online",
        parameters={"path": str(ids), "quorum": "any"},
        poll_interval=0.2,
        missing_path=str(missing),
    )
    details = asyncio.run(event_of(trigger))["details"]
    assert (details["missing_count"], len(details["missing"])) == (1_999, 1_000)
    assert details["missing_path"] == str(missing)
    assert len(missing.read_text().splitlines()) == 1_999


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_file_that_the_triggerer_does_not_see_is_a_clear_error(broker: FakeEmqx) -> None:
    trigger = EmqxConditionTrigger(
        kind="clients_online", parameters={"path": "/no/such/fleet.txt", "quorum": "all"}, poll_interval=0.2
    )
    event = asyncio.run(event_of(trigger))
    assert (event["status"], event["error"]) == ("error", "EmqxConfigError")
    assert "/no/such/fleet.txt" in event["text"]
    assert "triggerer" in event["text"]
    assert broker.request_count == 0


@pytest.mark.parametrize(
    "arguments", [{"kind": "moon_full"}, {"parameters": {}}, {"parameters": {"clientids": [], "quorum": 1}}]
)
def test_arguments_that_cannot_be_right_are_an_error_event(arguments: dict[str, Any]) -> None:
    assert asyncio.run(event_of(online("a", **arguments)))["error"] == "EmqxConfigError"


def test_a_missing_connection_is_an_error_event(airflow_db: None) -> None:
    event = asyncio.run(event_of(online("a", emqx_conn_id="nowhere")))
    assert event["error"] == "EmqxConfigError"
    assert "nowhere" in event["text"]


def test_a_broker_that_is_down_for_a_while_is_outlived(broker: FakeEmqx) -> None:
    async def main() -> Any:
        waiting = asyncio.create_task(event_of(online("dev-1", poll_interval=0.1)))
        while not broker.requests:  # noqa: ASYNC110 the broker is in another thread
            await asyncio.sleep(0.02)
        await asyncio.to_thread(broker.stop)
        # several looks, which nobody sees
        await asyncio.sleep(0.5)
        broker.connect("dev-1")
        await asyncio.to_thread(broker.start)
        return await waiting

    assert asyncio.run(main())["status"] == "met"


@pytest.mark.parametrize("kind", ["status", "reset", "truncated", "garbage", "wrong_length", "close"])
def test_faults_are_outlived(broker: FakeEmqx, kind: str) -> None:
    broker.order_fault(kind, status=500, times=6)
    broker.connect_later("dev-1", 0.2)
    assert asyncio.run(event_of(online("dev-1")))["status"] == "met"
    assert broker.pending_faults == 0 or kind == "close"


def test_too_many_failures_in_a_row_end_the_wait_with_the_last_one(broker: FakeEmqx) -> None:
    broker.order_fault("status", status=503, times=10_000, match="/clients/")
    event = asyncio.run(event_of(online("dev-1", max_failures=1, poll_interval=0.1)))
    assert event["error"] == "EmqxServerError"
    assert "503" in event["text"]


def test_a_key_that_is_refused_after_an_hour_ends_the_wait_without_hammering(broker: FakeEmqx) -> None:
    async def main() -> tuple[Any, int]:
        waiting = asyncio.create_task(event_of(online("dev-1", poll_interval=0.1)))
        await looks(broker)
        broker.remove_key("key")
        before = broker.request_count
        event = await waiting
        await asyncio.sleep(0.2)
        return event, broker.request_count - before

    event, requests = asyncio.run(main())
    assert event["error"] == "EmqxAuthError"
    assert requests <= 2


def test_a_key_that_was_replaced_is_taken_over(broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Any:
        waiting = asyncio.create_task(event_of(online("dev-1", poll_interval=0.1)))
        await looks(broker)
        replaced = {**broker.connection(), "login": "new", "password": "newer"}
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(replaced))
        broker.add_key("new", "newer")
        broker.remove_key("key")
        await looks(broker)
        broker.connect("dev-1")
        return await waiting

    assert asyncio.run(main())["status"] == "met"


def test_the_connection_is_looked_up_once(broker: FakeEmqx, mocker: Any) -> None:
    looked_up = mocker.spy(compat_connection, "get_async_connection")
    broker.connect_later("dev-1", 0.7)

    async def main() -> None:
        await asyncio.gather(*(event_of(online("dev-1", poll_interval=0.1)) for _ in range(20)))

    asyncio.run(main())
    assert looked_up.call_count == 1


@pytest.mark.parametrize(
    "error",
    [
        exceptions.EmqxConfigError("wrong", "GET /x"),
        exceptions.EmqxServerError(503, "BUSY", "busy", "GET /x", retry_after=3.0),
        exceptions.EmqxConnectionError("gone", "GET /x", True, False),
    ],
)
def test_an_error_is_the_same_after_its_way_through_an_event(error: exceptions.EmqxError) -> None:
    again = error_of(json.loads(json.dumps(error_event(error))))
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)

"""What thousands of waits in one event loop cost, and that they stay apart."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger
from airflow_provider_emqx.triggers.polls import _polls
from tests.triggers.conftest import event_of, looks, shift_pages, watched_loop


def trigger(clientid: str, **arguments: Any) -> EmqxConditionTrigger:
    parameters = {"clientids": [clientid], "quorum": "all"}
    return EmqxConditionTrigger(
        **{"kind": "clients_online", "parameters": parameters, "poll_interval": 1.0, **arguments}
    )


def asked(broker: FakeEmqx) -> Counter[str]:
    """What was asked for, by path; listings of one row are how the generation is found out."""
    return Counter(
        request.path.partition("?")[0].rpartition("/api/")[2][2:]
        for request in broker.requests
        if "imit=1&" not in request.path
    )


async def gathered(triggers: list[EmqxConditionTrigger]) -> list[Any]:
    """Run triggers that all begin at one moment of the event loop's clock: all look in the same round."""
    loop = asyncio.get_running_loop()
    moment = loop.time()
    loop.time = lambda: moment  # type: ignore[method-assign]
    try:
        going = [asyncio.create_task(event_of(one, within=120)) for one in triggers]
        while sum(len(poll._watches) for poll in _polls.values()) < len(triggers):  # noqa: ASYNC110
            await asyncio.sleep(0)
    finally:
        del loop.time
    return await asyncio.gather(*going)


def test_a_client_is_asked_for_once_per_round_however_many_wait_for_it(broker: FakeEmqx) -> None:
    broker.connect_many(["a", "b", *(f"other-{number}" for number in range(1_000))])
    events = asyncio.run(gathered([trigger("ab"[number % 2]) for number in range(100)]))
    assert all(event["status"] == "met" for event in events)
    found = asked(broker)
    assert (found["/clients/a"], found["/clients/b"], found["/clients"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("version", "waits", "sweeps"), [("5.8.9", 200, 1), ("5.8.9", 100, 0), ("4.4.19", 100, 1)]
)
def test_many_are_asked_for_by_a_sweep_where_that_costs_the_broker_less(
    broker: FakeEmqx, waits: int, sweeps: int
) -> None:
    broker.connect_many(f"device-{number}" for number in range(1_000))
    events = asyncio.run(gathered([trigger(f"device-{number}") for number in range(waits)]))
    assert all(event["status"] == "met" for event in events)
    found = asked(broker)
    single = sum(count for path, count in found.items() if path.startswith("/clients/"))
    assert (found["/clients"], single) == (sweeps, 0 if sweeps else waits)
    assert found["/stats"] == 1


@pytest.mark.parametrize("spread", [1, 10])
def test_of_ten_thousand_waits_each_client_is_asked_for_once_per_round(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, spread: int
) -> None:
    for number in range(spread):
        monkeypatch.setenv(f"AIRFLOW_CONN_EMQX_{number}", json.dumps(broker.connection()))
    ids = [f"device-{number}" for number in range(5_000)]
    broker.connect_many(ids)
    # two waits for each client
    waits = [
        trigger(ids[number % 5_000], emqx_conn_id=f"emqx_{number % 5_000 % spread}", poll_interval=8)
        for number in range(10_000)
    ]
    events = asyncio.run(gathered(waits))
    assert all(event["status"] == "met" for event in events)
    found = asked(broker)
    single = {path: count for path, count in found.items() if path.startswith("/clients/")}
    # EMQX 4 sends whole rows, of which 2,000 make a page
    pages = 3 if broker.version.startswith("4") else 1
    assert found["/clients"] <= spread * pages
    assert max(single.values(), default=0) <= 1
    assert found["/clients"] >= pages or len(single) == 5_000


def test_waits_of_ten_connections_are_ten_polls(broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        monkeypatch.setenv(f"AIRFLOW_CONN_EMQX_{number}", json.dumps(broker.connection()))
    broker.connect("a")
    waits = [trigger("a", emqx_conn_id=f"emqx_{number % 10}") for number in range(100)]
    events = asyncio.run(gathered(waits))
    assert all(event["status"] == "met" for event in events)
    assert asked(broker)["/clients/a"] == 10


def test_a_cancelled_wait_leaves_the_others_alone(broker: FakeEmqx) -> None:
    async def main() -> Any:
        waits = [asyncio.create_task(event_of(trigger("a", poll_interval=0.2))) for _ in range(20)]
        await looks(broker)
        for wait in waits[:19]:
            wait.cancel()
        await asyncio.gather(*waits[:19], return_exceptions=True)
        broker.connect("a")
        return await waits[19]

    assert asyncio.run(main())["status"] == "met"


def test_when_all_are_cancelled_nothing_is_asked_any_more(broker: FakeEmqx) -> None:
    async def main() -> int:
        waits = [asyncio.create_task(event_of(trigger("a", poll_interval=0.2))) for _ in range(20)]
        await looks(broker)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        before = broker.request_count
        # three intervals, in which a round that goes on would ask
        await asyncio.sleep(0.6)
        # whoever comes later begins anew
        broker.connect("a")
        await event_of(trigger("a", poll_interval=0.2))
        return before

    before = asyncio.run(main())
    # finding out what the broker is, and one question
    assert broker.request_count - before <= 6


@pytest.mark.parametrize("ending", ["cancelled_again_and_again", "loop_ends"])
def test_a_session_is_closed_however_the_waits_end(broker: FakeEmqx, ending: str) -> None:
    """Airflow cancels a trigger once a second until it has ended."""
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        waits = [asyncio.create_task(event_of(trigger(name, poll_interval=0.2))) for name in "abc"]
        await looks(broker)
        broker.order_fault("stall", seconds=60, times=10)
        while sum(poll._in_flight for poll in _polls.values()) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if ending == "cancelled_again_and_again":
            for _ in range(3):
                for wait in waits:
                    wait.cancel()
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    asyncio.run(main())
    broker.clear_faults()
    gc.collect()
    assert [each["message"] for each in complaints] == []


def test_waits_with_other_options_stay_apart(broker: FakeEmqx) -> None:
    broker.connect("a")
    old = EmqxConditionTrigger(
        kind="clients_online",
        parameters={"clientids": ["a"], "quorum": "all", "stable_for": 3600},
        poll_interval=0.2,
    )
    offline = EmqxConditionTrigger(
        kind="clients_offline", parameters={"clientids": ["a"], "quorum": "all"}, poll_interval=0.2
    )

    async def main() -> None:
        others = [asyncio.create_task(event_of(one)) for one in (old, offline)]
        assert (await event_of(trigger("a", poll_interval=0.2)))["status"] == "met"
        await looks(broker)
        assert not any(other.done() for other in others)
        broker.disconnect("a")
        assert (await others[1])["details"]["offline"] == 1
        others[0].cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(main())


def test_a_wrong_key_ends_a_thousand_waits_after_few_requests(broker: FakeEmqx) -> None:
    broker.remove_key("key")
    events = asyncio.run(gathered([trigger(f"device-{number}") for number in range(1_000)]))
    assert {event["error"] for event in events} == {"EmqxAuthError"}
    assert broker.request_count < 10


def test_offline_is_believed_only_after_asking_for_each_when_the_list_shifts(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that moves to a page already read is on no page; it is not offline."""
    ids = [f"device-{number}" for number in range(1_200)]
    broker.connect_many(ids)
    shift_pages(monkeypatch, 700, {"device-7"})
    for clientid in ids:
        if clientid != "device-7":
            broker.disconnect(clientid)
    broker.connect_many(f"other-{number}" for number in range(1_200))
    waiting = EmqxConditionTrigger(
        kind="clients_offline", parameters={"clientids": ids[:1_000], "quorum": "all"}, poll_interval=0.2
    )

    async def main() -> Any:
        wait = asyncio.create_task(event_of(waiting))
        await looks(broker, 12)
        assert not wait.done()
        broker.disconnect("device-7")
        return await wait

    assert asyncio.run(main())["status"] == "met"


def test_an_empty_page_in_the_middle_of_a_listing_makes_nobody_offline(broker: FakeEmqx) -> None:
    ids = [f"device-{number}" for number in range(200)]
    broker.connect_many(ids)
    meta = {"page": 1, "limit": 5_000, "hasnext": True, "hasmore": True, "count": 1_200}
    broker.order_fault(
        "status",
        # a page of the sweep, not the one row that the detection asks for
        match=lambda method, target: "/clients?" in target and "limit=1&" not in f"{target}&",
        times=2,
        status=200,
        body=json.dumps({"data": [], "meta": meta} | ({"code": 0} if broker.version.startswith("4") else {})),
        headers={"Content-Type": "application/json"},
    )
    waiting = EmqxConditionTrigger(
        kind="clients_offline", parameters={"clientids": ids, "quorum": "all"}, poll_interval=0.2
    )

    async def main() -> Any:
        wait = asyncio.create_task(event_of(waiting))
        while broker.pending_faults:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await looks(broker)
        assert not wait.done()
        for clientid in ids:
            broker.disconnect(clientid)
        return await wait

    assert asyncio.run(main())["details"]["offline"] == 200


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
def test_the_event_loop_is_not_held_by_a_sweep_of_ten_thousand(
    process: Callable[..., str], version: str, tmp_path: Path
) -> None:
    """The bound is 50 ms. A full garbage collection of a test process may take longer; the best of three counts."""
    process(version, 10_000)
    ids = tmp_path / "fleet.txt"
    ids.write_text("\n".join(f"device-{number:07d}" for number in range(10_000)))

    async def main() -> float:
        fleet = EmqxConditionTrigger(
            kind="clients_online", parameters={"path": str(ids), "quorum": "all"}, poll_interval=0.2
        )
        async with watched_loop() as held:
            event = await event_of(fleet)
        assert event["details"]["online"] == 10_000
        return held.longest

    assert min(asyncio.run(main()) for _ in range(3)) < 0.05


@pytest.mark.parametrize("version", ["5.8.9"])
# what is written has this ending until it is whole
@pytest.mark.parametrize("slow", ["fleet.txt", ".part"], ids=["read", "written"])
def test_the_event_loop_goes_on_while_a_file_is_slow_to_read_or_write(
    broker: FakeEmqx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    broker.connect("device-1")
    file, missing = tmp_path / "fleet.txt", tmp_path / "missing.txt"
    file.write_text("\n".join(f"device-{number}" for number in range(10_000)))
    opening = threading.Event()

    def slowly(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path).endswith(slow):
                opening.set()
                # a storage that is slow: long enough for many turns of the loop
                time.sleep(0.5)
            return real(path, *args, **kwargs)

        return opened

    # read through the one, written through the other
    monkeypatch.setattr(ObjectStoragePath, "open", slowly(ObjectStoragePath.open))
    monkeypatch.setattr(os, "open", slowly(os.open))

    async def main() -> int:
        fleet = EmqxConditionTrigger(
            kind="clients_online",
            parameters={"path": str(file), "quorum": "any"},
            poll_interval=0.2,
            missing_path=str(missing),
        )
        async with watched_loop() as held:
            waiting = asyncio.create_task(event_of(fleet))
            assert await asyncio.to_thread(opening.wait, 15)
            before = held.turns
            # most of the time for which the file is slow
            await asyncio.sleep(0.4)
            turns = held.turns - before
            assert (await waiting)["details"]["missing_count"] == 9_999
        return turns

    assert asyncio.run(main()) > 20
    assert len(missing.read_text().split()) == 9_999


def test_a_wait_ends_although_its_deadline_and_the_next_look_come_due_together(broker: FakeEmqx) -> None:
    async def hold() -> Any:
        deadline = time.time() + 1.0
        waiting = asyncio.create_task(
            event_of(trigger("away", poll_interval=0.4, deadline=deadline), within=60)
        )
        # the last look is half an interval before the deadline, the next would be half an interval after it
        await asyncio.sleep(deadline - 0.05 - time.time())
        (poll,) = _polls.values()
        # what this holds up is what the test is about: both timers are due when the loop goes on
        time.sleep(0.6)  # noqa: ASYNC251
        return await waiting, poll

    event, poll = asyncio.run(asyncio.wait_for(hold(), 10))
    assert event["status"] == "timeout"
    assert poll._task.done()

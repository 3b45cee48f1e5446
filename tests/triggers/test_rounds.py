"""Waits of one connection share their rounds, but not each other's misfortune."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections import Counter
from typing import Any

import pytest
from airflow.providers.common.compat import connection as compat_connection

from airflow_provider_emqx.conditions.clients import ClientsCondition
from airflow_provider_emqx.conditions.kinds import load
from airflow_provider_emqx.exceptions import EmqxServerError
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers import polls, watches
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger
from tests.triggers.conftest import event_of

#: longer than any of these tests
FOR_EVER = 600.0


def wait(kind: str, max_failures: int | None = 20, **parameters: Any) -> EmqxConditionTrigger:
    return EmqxConditionTrigger(
        kind=kind, parameters=parameters, poll_interval=0.2, max_failures=max_failures
    )


def online(*clientids: str, **arguments: Any) -> EmqxConditionTrigger:
    return wait("clients_online", clientids=list(clientids), **arguments)


def connections(count: int) -> EmqxConditionTrigger:
    return wait("cluster_metric", metric="live_connections.count", threshold=count)


async def dropped(*waits: asyncio.Task[Any]) -> None:
    for one in waits:
        one.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


def asked(broker: FakeEmqx) -> Counter[str]:
    return Counter(request.path.partition("?")[0].rpartition("/api/")[2][2:] for request in broker.requests)


def test_a_stalled_answer_holds_up_those_only_who_wait_for_it(broker: FakeEmqx) -> None:
    broker.order_fault("stall", match="/stats", seconds=FOR_EVER, times=10_000)

    async def main() -> None:
        stalled = asyncio.create_task(event_of(connections(1), FOR_EVER))
        others = [
            asyncio.create_task(event_of(one))
            for one in (
                online("dev-1"),
                wait("topic_subscribed", topic="t"),
                wait("cluster_healthy", nodes=1),
            )
        ]
        await others.pop()
        broker.connect("dev-1")
        broker.subscribe("dev-1", "t")
        assert [(await other)["status"] for other in others] == ["met", "met"]
        assert not stalled.done()
        # nor whoever comes later
        assert (await event_of(online("dev-1")))["status"] == "met"
        await dropped(stalled)

    asyncio.run(main())


def test_a_question_that_stalls_is_not_asked_again_meanwhile(broker: FakeEmqx) -> None:
    broker.order_fault("stall", match="/stats", seconds=FOR_EVER, times=10_000)

    async def main() -> None:
        stalled = [asyncio.create_task(event_of(connections(1), FOR_EVER)) for _ in range(20)]
        ghost = asyncio.create_task(event_of(online("ghost")))
        while asked(broker)["/clients/ghost"] < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await dropped(ghost, *stalled)

    asyncio.run(main())
    # all twenty together, or some of them in the round after it
    assert asked(broker)["/stats"] <= 2


def test_a_client_whose_answer_stalls_holds_up_no_other(broker: FakeEmqx) -> None:
    broker.order_fault("stall", match="/clients/slow", seconds=FOR_EVER, times=10_000)

    async def main() -> None:
        stalled = asyncio.create_task(event_of(online("slow"), FOR_EVER))
        both = asyncio.create_task(event_of(online("slow", "dev-1"), FOR_EVER))
        other = asyncio.create_task(event_of(online("dev-1", "dev-2")))
        while asked(broker)["/clients/dev-2"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        broker.connect_many(["dev-1", "dev-2"])
        assert (await other)["details"]["online"] == 2
        assert not stalled.done()
        assert not both.done()
        await dropped(stalled, both)

    asyncio.run(main())


@pytest.mark.parametrize(("status", "error"), [(500, "EmqxServerError"), (400, "EmqxBadRequestError")])
def test_a_client_that_cannot_be_asked_for_fails_its_own_wait_alone(
    broker: FakeEmqx, status: int, error: str
) -> None:
    broker.order_fault("status", match="/clients/bad", status=status, times=10_000)

    async def main() -> None:
        bad = [asyncio.create_task(event_of(online(f"bad-{number}", max_failures=1))) for number in range(3)]
        good = asyncio.create_task(event_of(online("good", max_failures=0)))
        assert {(await one)["error"] for one in bad} == {error}
        assert not good.done()
        broker.connect("good")
        assert (await good)["status"] == "met"

    asyncio.run(main())


def test_a_broker_that_fails_for_all_is_not_asked_for_each(broker: FakeEmqx) -> None:
    broker.order_fault("status", match="/clients/", status=500, times=10_000)
    ids = [f"device-{number}" for number in range(30)]

    async def main() -> set[str]:
        waits = [online(one, max_failures=0) for one in ids]
        return {event["error"] for event in await asyncio.gather(*map(event_of, waits))}

    assert asyncio.run(main()) == {"EmqxServerError"}
    broker.connect_many(f"other-{number}" for number in range(20_000))
    before = broker.request_count
    many = wait("clients_online", max_failures=0, clientids=[f"device-{number}" for number in range(1_000)])
    assert asyncio.run(event_of(many))["error"] == "EmqxServerError"
    # some 40 answers are as many as are under way when it becomes clear, each asked for twice
    assert broker.request_count - before < 100


def test_a_key_that_is_refused_meanwhile_is_tried_once(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, mocker: Any
) -> None:
    """However many different questions there are."""
    looked_up = mocker.spy(compat_connection, "get_async_connection")

    async def main() -> list[Any]:
        waits = [
            *(online(f"device-{number}") for number in range(10)),
            *(connections(number) for number in range(1, 10)),
            wait("topic_subscribed", topic="t"),
        ]
        going = [asyncio.create_task(event_of(one)) for one in waits]
        await asyncio.sleep(0.1)
        # between two rounds: of one that is under way all that is in flight would be refused
        (poll,) = polls._polls.values()
        while asked(broker)["/clients/device-0"] < 3 or poll._asking:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        broker.remove_key("key")
        return await asyncio.gather(*going)

    events = asyncio.run(main())
    assert {event["error"] for event in events} == {"EmqxAuthError"}
    refused = [request for request in broker.requests if request.status == 401]
    # one in a round, and no more than that many rounds
    assert len(refused) <= 3
    assert looked_up.call_count <= 1 + len(refused)


def test_a_connection_is_looked_up_once_in_a_round_that_fails(broker: FakeEmqx, mocker: Any) -> None:
    looked_up = mocker.spy(compat_connection, "get_async_connection")

    async def main() -> int:
        waits = [asyncio.create_task(event_of(connections(number), FOR_EVER)) for number in range(1, 40)]
        while asked(broker)["/stats"] < 60:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        before: int = looked_up.call_count
        broker.order_fault("status", match="/stats", status=500, times=2 * len(waits))
        while broker.pending_faults:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await dropped(*waits)
        return looked_up.call_count - before

    # 39 looks have failed
    assert asyncio.run(main()) <= 6


def test_a_connection_that_changes_is_taken_over_while_an_answer_of_the_old_one_is_awaited(
    broker: FakeEmqx, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.order_fault("stall", match="/stats", seconds=3, times=1)
    with FakeEmqx(version) as other:

        async def main() -> None:
            late = asyncio.create_task(event_of(connections(0)))
            going = asyncio.create_task(event_of(online("dev-1", max_failures=2)))
            while asked(broker)["/clients/dev-1"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(other.connection()))
            broker.remove_key("key")
            while asked(other)["/clients/dev-1"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            other.connect("dev-1")
            assert (await going)["status"] == "met"
            assert (await late)["status"] == "met"

        asyncio.run(main())


def test_waits_of_a_day_without_a_broker_still_reckon() -> None:
    async def main() -> None:
        watch = watches.Watch(load("clients_online", {"clientids": "a"}), 10.0, max_failures=None)
        for _ in range(5_000):
            watch.failed(EmqxServerError(503))
        watch.schedule(0.0)
        assert 30 <= watch.due <= 90
        assert not watch.found.done()

    asyncio.run(main())


def test_a_fault_of_ours_ends_the_waits_that_it_concerns(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits is told, with what happened in the log; others go on."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(ClientsCondition, "judge", broken)

    async def main() -> None:
        others = asyncio.create_task(event_of(wait("topic_subscribed", topic="t")))
        with pytest.raises(BaseException, match=r"a fault of ours|unhandled errors") as raised:
            await event_of(online("a"))
        assert "fault of ours" in repr(raised.value)
        assert not others.done()
        await dropped(others)

    asyncio.run(main())
    assert "The round of waits on connection emqx_default broke" in caplog.text


def test_rounds_that_ended_are_told_and_begin_anew(broker: FakeEmqx) -> None:
    broker.connect("a")

    async def main() -> None:
        async with polls.shared("emqx_default") as poll:
            lost = asyncio.create_task(event_of(online("ghost")))
            while not poll._watches:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert poll._task is not None
            poll._task.cancel()
            with pytest.raises(RuntimeError, match="rounds of waits ended"):
                await lost
            assert (await event_of(online("a")))["status"] == "met"

    asyncio.run(main())


def test_waits_that_are_cancelled_in_the_middle_of_a_round_leave_nothing_behind(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with polls.shared("emqx_default") as poll:
            for fault in (None, "/clients/", "/stats"):
                broker.clear_faults()
                if fault:
                    broker.order_fault("stall", match=fault, seconds=FOR_EVER, times=10_000)
                before = broker.request_count
                going = [
                    asyncio.create_task(event_of(one, FOR_EVER)) for one in (online("a", "b"), connections(9))
                ]
                while broker.request_count <= before:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await dropped(*going)
                assert not poll._watches
        assert not poll._asking

    asyncio.run(main())


def test_what_a_wait_sees_is_logged_for_that_wait(broker: FakeEmqx) -> None:
    """Airflow sends to a task's log what is logged in its trigger's context."""
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    lines: list[tuple[str, str, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((whose.get(), record.levelname, record.getMessage()))

    handler = Keep()
    logger = logging.getLogger("airflow_provider_emqx")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)

    async def named(name: str) -> Any:
        whose.set(name)
        return await event_of(online(name, "both"))

    async def main() -> None:
        going = [asyncio.create_task(named(name)) for name in ("dev-a", "dev-b")]
        while asked(broker)["/clients/dev-a"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        broker.connect_many(["dev-a", "dev-b"])
        while asked(broker)["/clients/dev-a"] < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        broker.order_fault("status", status=500, match="/clients/both", times=4)
        while broker.pending_faults:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        broker.connect("both")
        await asyncio.gather(*going)

    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    for name in ("dev-a", "dev-b"):
        mine = [(level, text) for whose_line, level, text in lines if whose_line == name]
        other = {"dev-a": "dev-b", "dev-b": "dev-a"}[name]
        assert any("1 of 2 clients online" in text for _, text in mine)
        assert any("2 of 2 clients online" in text for _, text in mine)
        assert not any(other in text for _, text in mine)
        # what concerns several is in the triggerer's own log
        assert not any("Attempt 1" in text for _, text in mine)
    assert any("Check failed, 1 in a row" in text and level == "WARNING" for _, level, text in lines)
    assert any(whose_line == "nobody's" and "Attempt 1" in text for whose_line, _, text in lines)

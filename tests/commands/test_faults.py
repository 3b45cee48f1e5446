"""Whatever happens to connections, brokers, workers and triggerers: one outcome for each device, no command twice."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.commands.exchange import Exchange
from airflow_provider_emqx.commands.order import Order
from airflow_provider_emqx.commands.record import Record
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.commands import EmqxCommandOperator
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers.commands import EmqxCommandTrigger
from tests.commands.fleet import Fleet, TaskInstance, got, lines
from tests.live.devices import eventually

ORDER = Order("abc", "devices/{clientid}/command", "devices/{clientid}/reply")


def trigger(report: Path, **options: Any) -> EmqxCommandTrigger:
    given = {"enough": 10**6, "deadline": time.time() + 20, **options}
    made = EmqxCommandTrigger(order=ORDER.to_json(), report_path=str(report), **given)
    name, arguments = made.serialize()
    assert name == "airflow_provider_emqx.triggers.commands.EmqxCommandTrigger"
    return EmqxCommandTrigger(**json.loads(json.dumps(arguments)))


async def send(clientids: list[str], report: Path, payload: bytes = b"do") -> None:
    exchange = Exchange(EmqxHook(), ORDER, Record("abc", report))
    await exchange.send(clientids, 1, lambda _: payload, 60)


async def until(holds: Callable[[], object]) -> None:
    assert await asyncio.to_thread(eventually, holds)


def replied(report: Path) -> int:
    return sum(row["outcome"] == "replied" for row in lines(report).values())


async def event_of(made: EmqxCommandTrigger) -> Any:
    return [event.payload async for event in made.run()]


@pytest.mark.parametrize("wave_size", [None, 4])
def test_a_deferred_task_ends_as_one_that_waits_itself(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path, run_dag: Callable[..., Any], wave_size: int | None
) -> None:
    def late(message: Any) -> None:
        broker.reply(message, '{"ok": true}', seconds=0.3)

    clientids = fleet(10, late)
    report = tmp_path / "report.jsonl"
    with DAG("deferred_commands") as dag:
        EmqxCommandOperator(
            task_id="command",
            clientids=clientids,
            payload={"secret": "hush-1"},
            success={"ok": True},
            wave_size=wave_size,
            pause=0.1,
            report_path=str(report),
            deferrable=True,
        )
    run = run_dag(dag)
    assert run.state == "success"
    result = run.get_task_instance("command").xcom_pull(task_ids="command")
    assert (result["counts"]["replied"], result["waves"]) == (10, 3 if wave_size else 1)
    assert {got(broker, clientid) for clientid in clientids} == {1}
    assert {row["outcome"] for row in lines(report).values()} == {"replied"}


def test_a_triggerer_that_takes_over_goes_on_with_what_is_known(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    commands: list[Any] = []
    clientids = fleet(40, commands.append)
    report = tmp_path / "report.jsonl"
    asyncio.run(send(clientids, report))
    assert len(commands) == 40

    async def main() -> Any:
        first = asyncio.create_task(event_of(trigger(report)))
        for message in commands[:20]:
            broker.reply(message, "ok")
        await until(lambda: replied(report) >= 10)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        # replies come while no triggerer runs
        for message in commands[20:39]:
            broker.reply(message, "ok")
        second = asyncio.create_task(event_of(trigger(report)))
        await until(lambda: replied(report) >= 39)
        broker.reply(commands[39], "ok")
        return await second

    assert asyncio.run(main()) == [{"status": "done"}]
    assert {row["outcome"] for row in lines(report).values()} == {"replied"}
    assert {got(broker, clientid) for clientid in clientids} == {1}


def test_a_worker_that_is_killed_while_it_sends_is_taken_over_by_the_retry(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    """The retry sends to nobody who may have got the command, and hears what was said meanwhile."""
    report, ti = tmp_path / "report.jsonl", TaskInstance(2)
    clientids = fleet(250)
    task = EmqxCommandOperator(
        task_id="task", clientids=clientids, payload="do", report_path=report, timeout=0.5, max_failed="50%"
    )
    command = task._command(ti)
    order = Order(command, ORDER.topic, ORDER.reply_topic)

    class KilledError(BaseException):
        pass

    async def killed() -> None:
        record = Record(command, report)
        write = record.write
        written = 0

        def writes(rows: Any) -> None:
            nonlocal written
            written += 1
            if written == 4:  # the second hundred is on its way, and nothing more reaches the disk
                raise KilledError
            write(rows)

        record.write = writes  # type: ignore[method-assign]
        await Exchange(EmqxHook(), order, record).send(clientids, 1, lambda _: b"do", 60)

    with pytest.raises(KilledError):
        asyncio.run(killed())
    result = task.execute({"ti": ti})
    assert sum(result["counts"].values()) == 250
    assert {got(broker, clientid) for clientid in clientids} <= {0, 1}
    assert all(got(broker, clientid) == 1 for clientid in result["replied"])
    assert result["counts"]["replied"] + result["counts"]["unknown"] == 250
    assert result["counts"]["replied"] >= 150


def test_connections_that_break_again_and_again_send_nothing_twice(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    chance = random.Random(5)
    airflow: list[str] = []

    def answer(message: Any) -> None:
        if not airflow:
            airflow.extend(name for name in broker.clients if name.startswith("airflow-"))
        if chance.random() < 0.02:
            broker.disconnect(airflow[0])
        broker.reply(message, "ok")

    clientids = fleet(600, answer)
    report = tmp_path / "report.jsonl"
    result = EmqxCommandOperator(
        task_id="task", clientids=clientids, payload="do", report_path=report, timeout=2, max_failed="90%"
    ).execute({})
    assert result["counts"]["replied"] + result["counts"]["unknown"] == 600
    # the session outlives the connection, so that no reply is lost: unknown are those whom the command did not reach
    told = {clientid: row["outcome"] for clientid, row in lines(report).items()}
    assert {(told[clientid], got(broker, clientid)) for clientid in clientids} <= {
        ("replied", 1),
        ("unknown", 0),
    }


def test_a_broker_that_restarts_leaves_those_unknown_whose_reply_may_be_lost(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    commands: list[Any] = []
    clientids = fleet(5, commands.append)
    report = tmp_path / "report.jsonl"
    asyncio.run(send(clientids, report))

    async def main() -> Any:
        waiting = asyncio.create_task(event_of(trigger(report, deadline=time.time() + 4)))
        broker.reply(commands[0], "ok")
        await until(lambda: replied(report) == 1)
        await asyncio.to_thread(broker.restart)
        await until(lambda: [client for client in broker.clients.values() if client.subscriptions])
        broker.reply(commands[1], "ok")
        return await waiting

    assert asyncio.run(main()) == [{"status": "done"}]
    outcomes = {clientid: row["outcome"] for clientid, row in lines(report).items()}
    assert outcomes == {
        "dev-0": "replied",
        "dev-1": "replied",
        "dev-2": "unknown",
        "dev-3": "unknown",
        "dev-4": "unknown",
    }
    assert "lost the session" in lines(report)["dev-2"]["reason"]


def test_what_is_answered_after_the_wait_has_ended_changes_nothing(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    commands: list[Any] = []
    clientids = fleet(2, commands.append)
    report = tmp_path / "report.jsonl"
    asyncio.run(send(clientids, report))
    assert asyncio.run(event_of(trigger(report, deadline=time.time()))) == [{"status": "done"}]
    broker.reply(commands[0], "ok")
    assert asyncio.run(event_of(trigger(report))) == [{"status": "done"}]
    assert {row["outcome"] for row in lines(report).values()} == {"no_reply"}
    assert [name for name in broker.clients if name.startswith("airflow-")] == []


def test_the_trigger_tells_of_errors_that_stay(broker: FakeEmqx, fleet: Fleet, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    asyncio.run(send(fleet(1, lambda _: None), report))
    (event,) = asyncio.run(event_of(trigger(report, emqx_conn_id="not_there")))
    assert event["status"] == "error"
    task = EmqxCommandOperator(task_id="task", clientids="dev-0", payload="do", report_path=report)
    with pytest.raises(EmqxError):
        task.execute_complete({}, event)
    with pytest.raises(EmqxError, match="unknown event"):
        task.execute_complete({}, None)


def test_a_pause_is_waited_for_in_the_triggerer(broker: FakeEmqx, fleet: Fleet, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    until = time.time() + 2.5
    assert asyncio.run(event_of(trigger(report, not_before=until))) == [{"status": "done"}]
    assert time.time() >= until


def test_a_report_with_a_cut_line_or_with_something_else_in_it_is_read_all_the_same(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    row = {"clientid": "a", "outcome": "sent", "wave": 1, "at": 1.0, "command": "abc"}
    report.write_bytes(
        b"\n".join(
            [json.dumps(row).encode(), b'{"clientid": "b"}', b"[1]", b'{"clientid": "c", "command": "abc"}']
        )
        + b'\n{"clientid": "d", "outco'
    )
    record = Record("abc", report)
    assert record.open() == ["a"]
    assert len(report.read_text().splitlines()) == 1


def test_the_command_of_another_task_is_left_alone(broker: FakeEmqx, fleet: Fleet, tmp_path: Path) -> None:
    """Two tasks give commands to the same devices at once: each hears its own replies."""
    clientids = fleet(50)

    async def both() -> list[Record]:
        records = [Record(name, tmp_path / name) for name in ("abc", "def")]
        orders = [Order(record.command, ORDER.topic, ORDER.reply_topic) for record in records]
        exchanges = [Exchange(EmqxHook(), order, r) for order, r in zip(orders, records, strict=True)]
        await asyncio.gather(*(one.send(clientids, 1, lambda _: b"do", 60) for one in exchanges))
        await asyncio.gather(*(one.wait(50, time.time() + 20) for one in exchanges))
        return records

    for record in asyncio.run(both()):
        assert {row.outcome for row in record.rows.values()} == {"replied"}
    assert {got(broker, clientid) for clientid in clientids} == {2}


def test_a_broker_that_is_gone_when_the_wait_ends_leaves_it_open_who_has_answered(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    report = tmp_path / "report.jsonl"
    asyncio.run(send(fleet(2, lambda _: None), report))
    broker.stop()
    assert asyncio.run(event_of(trigger(report, deadline=time.time() + 0.2))) == [{"status": "done"}]
    assert {row["outcome"] for row in lines(report).values()} == {"unknown"}
    assert {row["reason"] for row in lines(report).values()} == {
        "the broker could not be reached when the wait ended"
    }

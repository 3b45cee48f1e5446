"""Workers and triggerers are killed while devices reply: nobody gets a command twice, and no reply is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.commands.fleet import got, lines
from tests.standalone.conftest import COMMANDED
from tests.standalone.running import Airflow, until

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(900)]

GOOD = '{"ok": true}'


class Fleet:
    """
    Devices that reply when the test lets them.

    :param name: of the fleet.
    :param broker: where they are.
    :param on_command: called with the number of commands so far; it runs in the broker's own thread.
    """

    def __init__(self, name: str, broker: FakeEmqx, on_command: Callable[[int], None] | None = None) -> None:
        self._broker = broker
        self.clientids = [f"{name}-{number}" for number in range(COMMANDED[name])]
        #: those that have the command and have not replied
        self.asked: dict[str, Any] = {}
        self._count = 0

        def hear(clientid: str) -> Callable[[Any], None]:
            def take(message: Any) -> None:
                self.asked[clientid] = message
                self._count += 1
                if on_command is not None:
                    on_command(self._count)

            return take

        for clientid in self.clientids:
            broker.connect(clientid, on_message=hear(clientid))
            broker.subscribe(clientid, f"devices/{clientid}/command", 1)

    @property
    def received(self) -> int:
        return self._count

    def reply(self, count: int) -> None:
        """Let so many of those that were asked reply."""
        for clientid in list(self.asked)[:count]:
            self._broker.reply(self.asked.pop(clientid), GOOD, clientid=clientid)


def outcomes(report: Path) -> Counter[str]:
    if not report.exists():
        return Counter()
    return Counter(row["outcome"] for row in lines(report).values())


def ended(airflow: Airflow, dag: str, run: str) -> bool:
    return airflow.states(dag, run).get("command") in ("success", "failed")


def test_a_worker_that_is_killed_while_waves_are_out_sends_no_command_twice(
    airflow: Airflow, broker: FakeEmqx, files: Path
) -> None:
    report, dag = files / "waves.jsonl", "commands_waves"
    stuck, free = threading.Event(), threading.Event()

    def hold(count: int) -> None:
        # the broker stops in the middle of the second wave
        if count == 150:
            stuck.set()
            free.wait(120)

    fleet = Fleet("waves", broker, hold)
    run = airflow.trigger(dag)

    def told() -> str:
        return f"{airflow.states(dag, run)} {outcomes(report)} {airflow.tell()}"

    until(lambda: fleet.received >= 100, 240, told)
    fleet.reply(40)
    until(lambda: outcomes(report)["replied"] == 40, 60, told)
    airflow.kill_task(dag, run, "command", worker=True)
    # these reply to nobody; the broker keeps it
    fleet.reply(40)
    until(lambda: outcomes(report)["replied"] == 80, 180, told)
    fleet.reply(15)
    until(stuck.is_set, 60, told)
    assert 0 < outcomes(report)["sending"] <= 100, told()
    airflow.kill_task(dag, run, "command", worker=True)
    free.set()
    until(lambda: fleet.received == 200, 60, told)
    fleet.reply(100)
    until(lambda: fleet.received == 300, 240, told)
    fleet.reply(100)
    until(lambda: ended(airflow, dag, run), 240, told)
    assert airflow.states(dag, run)["command"] == "success", airflow.log(dag, run, "command", 3)[-5_000:]
    assert {got(broker, clientid) for clientid in fleet.clientids} == {1}
    result = airflow.result(dag, run, "command")
    assert (result["selected"], result["waves"], sum(result["counts"].values())) == (300, 3, 300)
    # five of each wave were given up when enough had replied, those of the second because nobody knows whether the
    # killed worker had reached them; what they say later changes nothing
    counts = {outcome: count for outcome, count in result["counts"].items() if count}
    assert counts == {"replied": 285, "no_reply": 10, "unknown": 5}
    assert outcomes(report) == Counter(counts)


def test_a_triggerer_that_is_killed_while_devices_reply_loses_no_reply(
    airflow: Airflow, broker: FakeEmqx, files: Path
) -> None:
    report, dag = files / "deferred.jsonl", "commands_deferred"
    fleet = Fleet("deferred", broker)
    run = airflow.trigger(dag)

    def told() -> str:
        return f"{airflow.states(dag, run)} {outcomes(report)} {airflow.tell()}"

    until(lambda: airflow.states(dag, run).get("command") == "deferred", 240, told)
    assert fleet.received == 200
    fleet.reply(50)
    until(lambda: outcomes(report)["replied"] == 50, 120, told)
    for replied in (100, 150):
        airflow.kill_triggerer()
        # while no triggerer is there
        fleet.reply(50)
        until(lambda replied=replied: outcomes(report)["replied"] == replied, 180, told)
        assert airflow.states(dag, run)["command"] == "deferred"
    fleet.reply(40)
    until(lambda: ended(airflow, dag, run), 180, told)
    assert airflow.states(dag, run)["command"] == "success", airflow.log(dag, run, "command", 1)[-5_000:]
    assert {got(broker, clientid) for clientid in fleet.clientids} == {1}
    assert outcomes(report) == Counter(replied=190, no_reply=10)
    result = airflow.result(dag, run, "command")
    assert (result["counts"]["replied"], result["counts"]["no_reply"]) == (190, 10)

"""
Commands in a world where everything goes wrong, and what must hold all the same.

Brokers restart, connections drop, workers and triggerers are killed, devices are slow, repeat and contradict
themselves, and some reply that were not asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_emqx.commands.record import OUTCOMES, Record
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.operators.commands import EmqxCommandOperator
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers import commands as triggers
from tests.commands.fleet import TaskInstance, lines

GOOD, BAD = b'{"ok": true}', b'{"ok": false}'
DEVICES = 90
ATTEMPTS = 12
#: a reply that came so long before a device was given up cannot have been on its way, in seconds
LONG = 0.4


class KilledError(BaseException):
    """A process was killed: nothing of it reaches the disk any more."""


@dataclass
class Device:
    """
    What a device does, and has done.

    :param clientid: client id.
    :param manner: one of :data:`MANNERS`.
    :param commands: how often it received the command.
    :param said: time and content of what it replied with the mark of the command.
    """

    clientid: str
    manner: str
    commands: int = 0
    said: list[tuple[float, bytes]] = field(default_factory=list)


MANNERS = (
    "quick",
    "quick",
    "quick",
    "slow",
    "slow",
    "bad",
    "repeats",
    "contradicts",
    "mumbles",
    "silent",
    "absent",
    "asleep",
)


class World:
    """
    A broker with devices, and a task that gives them a command.

    :param seed: of all that is left to chance.
    :param version: of the broker.
    :param folder: for the report.
    """

    def __init__(self, seed: int, version: str, folder: Path) -> None:
        self.chance = random.Random(f"{seed} {version}")
        self.broker = FakeEmqx(version, log_requests=False)
        self.report = folder / "report.jsonl"
        self.devices = {
            (clientid := f"dev-{number}"): Device(clientid, self.chance.choice(MANNERS))
            for number in range(DEVICES)
        }
        self.story: list[str] = []
        self.faults: Counter[str] = Counter()
        self._ended = threading.Event()
        chance = self.chance
        self.options: dict[str, Any] = {
            "wave_size": chance.choice([None, 20, "34%"]),
            "quorum": chance.choice(["all", "50%", "any"]),
            "max_failed": chance.choice(["100%", "100%", "20%"]),
            "keep_replies": chance.random() < 0.5,
            "timeout": 1.2,
            "deferrable": chance.random() < 0.5,
        }

    # ------------------------------------------------------------------ devices

    def come(self, device: Device) -> None:
        """Connect a device, and let it do what it could not do while it was away."""
        if device.manner == "absent":
            return
        broker, topic = self.broker, f"devices/{device.clientid}/command"
        with broker.state.lock:
            broker.connect(
                device.clientid,
                clean_start=False,
                session_expiry=600,
                on_message=lambda message: self._hear(device, message),
            )
            for message in broker.received(device.clientid)[device.commands :]:
                self._hear(device, message)
            broker.subscribe(device.clientid, topic, 1)

    def _hear(self, device: Device, message: Any) -> None:
        device.commands += 1
        chance, manner = self.chance, device.manner
        if manner == "mumbles":
            self.broker.publish(f"devices/{device.clientid}/reply", b"\xff no JSON", 1)
        if chance.random() < 0.1:
            # who was not asked replies: with its own topic, and the mark of another
            self.broker.publish("devices/stranger/reply", GOOD, 1, properties=message.properties)
        after = chance.uniform(0.05, 0.6) if manner == "slow" else 0.0
        answers = {"silent": [], "bad": [BAD], "contradicts": [BAD, GOOD], "repeats": [GOOD, GOOD, GOOD]}
        for answer in answers.get(manner, [GOOD]):
            with self.broker.state.lock:
                if after:
                    self.broker.state.schedule(
                        after, lambda answer=answer: self._say(device, message, answer)
                    )
                else:
                    self._say(device, message, answer)

    def _say(self, device: Device, message: Any, answer: bytes) -> None:
        device.said.append((time.time(), answer))
        self.broker.reply(message, answer, clientid=device.clientid)

    # ------------------------------------------------------------------ faults

    def disturb(self) -> None:
        """Let things go wrong until the task has ended; runs in a thread of its own."""
        chance = random.Random(self.chance.random())
        while not self._ended.wait(chance.uniform(0.02, 0.25)):
            what = chance.choices(["drop", "device", "restart", "nothing"], [6, 3, 1, 4])[0]
            if what == "restart" and self.faults["restart"] >= 2:
                continue
            self.faults[what] += 1
            self.story.append(what)
            if what == "drop":
                for name in [name for name in self.broker.clients if name.startswith("airflow-")]:
                    self.broker.disconnect(name)
            elif what == "device":
                device = chance.choice(list(self.devices.values()))
                if device.manner != "asleep":
                    self.broker.disconnect(device.clientid)
                    self.come(device)
            elif what == "restart":
                self.broker.restart()
                for device in self.devices.values():
                    self.come(device)

    def wake(self) -> None:
        """Let those come back that were asleep: the broker has kept the command for them."""
        for device in self.devices.values():
            if device.manner == "asleep":
                self.come(device)

    @contextmanager
    def alive(self) -> Iterator[None]:
        broker = self.broker
        with broker, patch.dict(os.environ):
            os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(
                broker.connection(mqtt_url=broker.mqtt_url, attempts=3)
            )
            for device in self.devices.values():
                self.come(device)
                if device.manner == "asleep":
                    self.broker.disconnect(device.clientid)
            # late enough that the commands wait in their sessions
            waking = threading.Timer(0.7, self.wake)
            disturbing = threading.Thread(target=self.disturb)
            waking.start()
            disturbing.start()
            try:
                yield
            finally:
                self._ended.set()
                disturbing.join()
                waking.cancel()
                waking.join()

    # ------------------------------------------------------------------ the task

    def run(self) -> dict[str, Any]:
        """Try until the task has nothing left to do, and return its result."""
        with self.alive(), _mortal(self):
            for number in range(1, ATTEMPTS + 1):
                self.story.append(f"attempt {number}")
                ti = TaskInstance(number)
                try:
                    result = self._attempt({"ti": ti})
                except EmqxError as error:
                    self.story.append(repr(error)[:200])
                    result = ti.pushed.get("return_value")
                except KilledError:
                    self.story.append("killed")
                    continue
                if result is not None and not result["left"] and "awaited" not in result["counts"]:
                    return dict(result)
        raise AssertionError(f"not done after {ATTEMPTS} attempts")

    def _attempt(self, context: Any) -> Any:
        task = EmqxCommandOperator(
            task_id="task",
            clientids=list(self.devices),
            payload={"do": "report"},
            success={"ok": True},
            report_path=str(self.report),
            **self.options,
        )
        go = task.execute
        while True:
            try:
                return go(context)
            except TaskDeferred as deferred:
                event = self._trigger(deferred.trigger)

                def go(context: Any, event: Any = event) -> Any:
                    return task.execute_complete(context, event)

    def _trigger(self, trigger: Any) -> Any:
        """Run a trigger until it has sent its event; triggerers come and go meanwhile."""
        _, arguments = trigger.serialize()
        while True:
            lives = self.chance.uniform(0.05, 0.8) if self.chance.random() < 0.5 else None

            async def run(lives: float | None = lives) -> Any:
                async with asyncio.timeout(lives):
                    again = triggers.EmqxCommandTrigger(**json.loads(json.dumps(arguments)))
                    [event] = [event async for event in again.run()]
                    return event.payload

            with suppress(TimeoutError, KilledError):
                return asyncio.run(run())
            self.story.append("triggerer gone")

    # ------------------------------------------------------------------ what must hold

    def check(self, result: dict[str, Any]) -> None:
        """Hold the result and the report to what the devices have seen and done."""
        report = lines(self.report)
        assert len(self.report.read_text().splitlines()) == DEVICES + 1, (
            "a line for each device, and the wave"
        )
        assert set(report) == set(self.devices)
        assert sum(result["counts"].values()) == DEVICES
        told = {clientid: outcome for outcome in OUTCOMES for clientid in result[outcome]}
        assert told == {clientid: row["outcome"] for clientid, row in report.items()}
        assert sum(len(result[outcome]) for outcome in OUTCOMES) == DEVICES
        for clientid, device in self.devices.items():
            row = report[clientid]
            outcome, first = row["outcome"], device.said[0] if device.said else None
            note = (clientid, device, row)
            assert device.commands <= 1, note
            if outcome in ("replied", "failed"):
                assert first is not None, note
                assert first[1] == (GOOD if outcome == "replied" else BAD), note
            elif outcome == "no_reply":
                assert first is None or first[0] > row["at"] - LONG or self._enough(row), note
            elif outcome == "unknown":
                assert self.faults["drop"] + self.faults["restart"] + self.faults["kill"], note
            else:
                assert outcome == "not_delivered", note
        # one whose connection broke at its end leaves a session that expires
        connected = [client.clientid for client in self.broker.clients.values() if client.connected]
        assert [name for name in connected if name.startswith("airflow-")] == []

    @staticmethod
    def _enough(row: dict[str, Any]) -> bool:
        return "enough devices" in row.get("reason", "")


@contextmanager
def _mortal(world: World) -> Iterator[None]:
    """Let processes be killed while they write to the report, and triggers end without Airflow's pause."""
    write, soonest = Record.write, triggers.SOONEST
    dead: set[Record] = set()
    chance = random.Random(world.chance.random())

    def mortal(record: Record, rows: Any) -> None:
        if record in dead or chance.random() < 0.03:
            dead.add(record)
            world.faults["kill"] += 1
            raise KilledError
        write(record, rows)

    Record.write, triggers.SOONEST = mortal, 0.0  # type: ignore[method-assign]
    try:
        yield
    finally:
        Record.write, triggers.SOONEST = write, soonest  # type: ignore[method-assign]


def play(seed: int, version: str, folder: Path) -> World:
    """
    Play one story to its end.

    :param seed: of all that is left to chance.
    :param version: of the broker.
    :param folder: an empty one.
    :raises AssertionError: with the seed, if something does not hold.
    """
    world = World(seed, version, folder)
    try:
        world.check(world.run())
    except BaseException as error:
        raise AssertionError(
            f"seed {seed}, EMQX {version}, {world.options}: {' | '.join(world.story)}"
        ) from error
    return world

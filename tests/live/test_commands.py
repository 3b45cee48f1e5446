"""Commands over MQTT, and what devices of MQTT 5 and 3.1.1 reply."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.commands import EmqxCommandOperator
from tests.commands.fleet import TaskInstance, lines
from tests.live.devices import eventually
from tests.mqtt.peer import Peer

pytestmark = pytest.mark.live


class Fleet:
    """
    Devices below topics of this test, and the account that gives them commands.

    :param prefix: of client ids and topics.
    """

    def __init__(
        self, prefix: str, url: str, login: tuple[str, str], clients: ExitStack, pool: ThreadPoolExecutor
    ) -> None:
        self.prefix, self._url, self._login, self._clients, self._pool = prefix, url, login, clients, pool
        self.commands: dict[str, int] = {}

    def device(self, name: str, answer: Callable[[Peer, Any], None] | None, version: int = 5) -> str:
        """Connect a device that answers each command as a function says; gives its client id."""
        clientid = f"{self.prefix}-{name}"
        peer = Peer(self._url, clientid, version=version, login=self._login)
        self._clients.callback(peer.close)
        assert peer.subscribe(f"{self.prefix}/{clientid}/command", 1) == 1
        ended = threading.Event()
        self._clients.callback(ended.set)

        def serve() -> None:
            while not ended.is_set():
                if peer.messages.empty():
                    ended.wait(0.05)
                    continue
                message = peer.receive()
                self.commands[clientid] = self.commands.get(clientid, 0) + 1
                if answer is not None:
                    answer(peer, message)

        self._pool.submit(serve)
        return clientid

    def operator(self, clientids: list[str], **options: Any) -> EmqxCommandOperator:
        topics = {name: f"{self.prefix}/{{clientid}}/{last}" for name, last in TOPICS.items()}
        return EmqxCommandOperator(
            task_id="task",
            clientids=clientids,
            emqx_conn_id="emqx_commands",
            **{"payload": {"do": "report"}, "timeout": 20, **topics, **options},
        )


TOPICS = {"topic": "command", "reply_topic": "reply"}


def says(payload: bytes) -> Callable[[Peer, Any], None]:
    """Reply as MQTT 5 lets a device do."""

    def answer(peer: Peer, message: Any) -> None:
        asked = message.properties
        peer.publish(asked.ResponseTopic, payload, CorrelationData=asked.CorrelationData)

    return answer


@pytest.fixture
def fleet(mqtt: str, hook: EmqxHook, account: Callable[[str], tuple[str, str]]) -> Iterator[Fleet]:
    prefix, password = account("commands")
    with ThreadPoolExecutor(10) as pool, ExitStack() as clients:
        yield Fleet(prefix, mqtt, (prefix, password), clients, pool)
    # a failed test may leave a session that lasts for a minute
    left = [row["clientid"] for row in hook.list_clients(username=prefix) if not row["connected"]]
    if left:
        hook.kick_clients(left)
    assert eventually(lambda: not list(hook.list_clients(username=prefix)))
    assert left == []


def test_the_connection_is_tested_on_both_sides(fleet: Fleet) -> None:
    with EmqxHook("emqx_commands") as hook:
        works, said = hook.test_connection()
    assert (works, len(said.splitlines())) == (True, 2)
    assert said.splitlines()[1].startswith("MQTT 5 at ")


def test_each_device_has_the_outcome_that_is_its_own(fleet: Fleet, tmp_path: Path) -> None:
    good = fleet.device("good", says(b'{"ok": true}'))
    bad = fleet.device("bad", says(b'{"ok": false}'))
    odd = fleet.device("odd", says(b"\xff no JSON"))
    large = fleet.device("large", says(b'{"ok": true, "log": "%s"}' % (b"x" * 900_000)))
    silent = fleet.device("silent", None)
    absent = f"{fleet.prefix}-absent"
    everyone = [good, bad, odd, large, silent, absent]
    report = tmp_path / "report.jsonl"
    result = fleet.operator(
        everyone, success={"ok": True}, max_failed="100%", timeout=3, report_path=report
    ).execute({})
    assert {clientid: row["outcome"] for clientid, row in lines(report).items()} == {
        good: "replied",
        large: "replied",
        bad: "failed",
        odd: "failed",
        silent: "no_reply",
        absent: "not_delivered",
    }
    assert sum(result["counts"].values()) == len(everyone)
    assert fleet.commands == dict.fromkeys(everyone[:-1], 1)


def test_devices_of_mqtt_3_1_1_reply_with_a_field_of_json(fleet: Fleet) -> None:
    def answer(peer: Peer, message: Any) -> None:
        asked = json.loads(message.payload)
        reply = {"id": asked["id"], "done": asked["do"]}
        peer.publish(f"{fleet.prefix}/{peer.name}/reply", json.dumps(reply).encode())

    devices = [fleet.device(name, answer, version=4) for name in ("old-1", "old-2")]
    result = fleet.operator(devices, reply_field="id", success={"done": "report"}).execute({})
    assert sorted(result["replied"]) == devices
    assert fleet.commands == dict.fromkeys(devices, 1)


def test_a_retry_goes_on_with_those_that_nothing_was_sent_to(fleet: Fleet, tmp_path: Path) -> None:
    silent, *others = [
        fleet.device(name, None if name == "a" else says(b"done")) for name in ("a", "b", "c", "d")
    ]
    task = fleet.operator([silent, *others], wave_size=2, timeout=2, report_path=tmp_path / "report.jsonl")
    with pytest.raises(EmqxError, match="Nothing was sent to 2 devices"):
        task.execute({"ti": TaskInstance(1)})  # type: ignore[typeddict-item]
    result = task.execute({"ti": TaskInstance(2)})  # type: ignore[typeddict-item]
    assert (sorted(result["replied"]), result["no_reply"]) == (others, [silent])
    assert fleet.commands == dict.fromkeys([silent, *others], 1)


def test_a_deferred_task_hears_late_replies(
    fleet: Fleet, tmp_path: Path, run_dag: Callable[..., Any]
) -> None:
    waiting: list[Future[None]] = []
    timers = ThreadPoolExecutor(2)

    def late(peer: Peer, message: Any) -> None:
        def speak() -> None:
            threading.Event().wait(2.0)  # the task has deferred, and the trigger is connected
            says(b"done")(peer, message)

        waiting.append(timers.submit(speak))

    devices = [fleet.device("late", late), fleet.device("quick", says(b"done"))]
    with DAG("live_commands") as dag:
        fleet.operator(devices, deferrable=True, report_path=str(tmp_path / "report.jsonl"), timeout=60)
    assert dag.task_ids == ["task"]
    run = run_dag(dag)
    timers.shutdown()
    for one in waiting:
        one.result()
    assert run.state == "success"
    assert {row["outcome"] for row in lines(tmp_path / "report.jsonl").values()} == {"replied"}
    assert fleet.commands == dict.fromkeys(devices, 1)

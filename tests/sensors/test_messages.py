"""Waiting for a message over MQTT: the same in every mode and on every broker, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxForbiddenError,
    EmqxStoppedError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.messages import mailbox
from airflow_provider_emqx.sensors.messages import EmqxMessageSensor
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport.work import Work
from airflow_provider_emqx.triggers.messages import EmqxMessageArrivedTrigger
from tests.live.devices import eventually
from tests.mqtt.brokers import any_broker, connected_fake
from tests.mqtt.peer import Peer
from tests.needs import needs, older
from tests.sensors.conftest import MODES
from tests.triggers.conftest import only_event_of

#: for tests that call execute() in reschedule mode: DAG runs in that mode are tested on every Airflow
RESCHEDULES = needs("apache-airflow", "3.0", "Airflow 2 looks up earlier checks in its database")
MODE_NAMES = pytest.mark.parametrize(
    "mode_name", ["poke", pytest.param("reschedule", marks=RESCHEDULES), "deferred"]
)
SECRET = "payload-that-nobody-may-see"


@pytest.fixture(params=["4.4.19", "5.8.9", "mosquitto"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an MQTT broker of each kind, which the connection ``emqx_default`` leads to."""
    with any_broker(version, tmp_path, monkeypatch) as address:
        yield address


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    """A broker that the test does things to."""
    with connected_fake(monkeypatch) as broker:
        yield broker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries to connect nothing is learnt from waiting."""
    monkeypatch.setattr(mailbox, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr("airflow_provider_emqx.triggers.messages.SOONEST", 0.0)


class Sender:
    """A device that sends its messages as soon as somebody has subscribed."""

    def __init__(self, url: str, *messages: tuple[str, Any]) -> None:
        self._peer = Peer(url, "sender")
        self._messages = messages
        self._thread = threading.Thread(target=self._send)
        self._ended = threading.Event()

    def _send(self) -> None:
        for topic, payload in self._messages:
            data = payload if isinstance(payload, bytes) else str(payload).encode()
            while self._peer.publish(topic, data, 1) and not self._ended.wait(0.02):
                pass

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._peer.close()


class Instance:
    """What the sensor looks at of a task instance."""

    dag_id, run_id, task_id, map_index = "dag", "run", "task", -1

    def get_first_reschedule_date(self, context: Any) -> None:
        """Begin the timeout anew."""


def sensor(**arguments: Any) -> EmqxMessageSensor:
    return EmqxMessageSensor(task_id="task", **{"topic": "a/+", "timeout": 20, **arguments})


def context(**more: Any) -> Any:
    return {"ti": Instance(), "dag_run": None, **more}


def clientid_of(task: EmqxMessageSensor) -> str:
    return task._open(context()).clientid


def subscribed(fake: FakeEmqx, task: EmqxMessageSensor) -> bool:
    client = fake.clients.get(clientid_of(task))
    return client is not None and client.connected and bool(client.subscriptions)


def has_session(url: str, clientid: str) -> bool:
    """Whether the broker has a session; whoever asks ends it."""
    peer = Peer(url, clientid, clean=False)
    try:
        return bool(peer.resumed)
    finally:
        peer.close()


def deferred(task: EmqxMessageSensor) -> EmqxMessageArrivedTrigger:
    """Return the trigger that a task defers with, as the triggerer makes it from the database."""
    with pytest.raises(TaskDeferred) as ending:
        task.execute(context())
    path, arguments = ending.value.trigger.serialize()
    assert path == "airflow_provider_emqx.triggers.messages.EmqxMessageArrivedTrigger"
    return EmqxMessageArrivedTrigger(**json.loads(json.dumps(arguments)))


@contextmanager
def threaded(function: Callable[[], Any]) -> Iterator[list[Any]]:
    """Do something in a thread, and wait for its result or its error at the end."""
    results: list[Any] = []

    def run() -> None:
        if older(
            "apache-airflow", "3.0"
        ):  # whose guard of execute() knows only the thread that has imported it
            from airflow.models.baseoperator import ExecutorSafeguard

            ExecutorSafeguard._sentinel.callers = {}
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield results
    thread.join(30)
    assert not thread.is_alive()


# ------------------------------------------------------------------ what is waited for

CONTENTS: dict[str, tuple[dict[str, Any], list[Any], Any]] = {
    "any": ({}, [], b"\xff\x00"),
    "payload": ({"payload": "done"}, ["undone", "", b"\xff"], "done"),
    "bytes": ({"payload": b"\xff\x00"}, ["done"], b"\xff\x00"),
    "field": (
        {"json_field": "state.ok", "json_value": True},
        ['{"state": {"ok": false}}', "[]", "nonsense", b"\xff\xfe", '{"state": 1}'],
        '{"state": {"ok": true}}',
    ),
    "rendered_field": ({"json_field": "n.1", "json_value": "{{ 3 + 4 }}"}, ['{"n": [7]}'], '{"n": [1, 7]}'),
    "number": (
        {"threshold": "{{ 20 }}"},
        ["19.9", "warm", "", "true", "nan", "inf", '"21"', b"\xff"],
        " 20.5\n",
    ),
    "number_in_a_field": (
        {"json_field": "t", "threshold": 20, "comparison": "<="},
        ['{"t": 21}', '{"t": true}', '{"t": null}', '{"t": NaN}', '{"t": []}', "19", "[" * 100_000],
        '{"t": "19.5"}',
    ),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_message_with_the_content_ends_the_wait_in_every_mode(
    url: str, mode: dict[str, Any], content: str, wait: Callable[..., Any]
) -> None:
    arguments, others, awaited = CONTENTS[content]
    with Sender(url, *(("a/1", one) for one in others), ("a/2", awaited)):
        state, result = wait(EmqxMessageSensor, timeout=100, topic="a/#", **mode, **arguments)
    size = len(awaited if isinstance(awaited, bytes) else awaited.encode())
    assert (state, result) == ("success", {"topic": "a/2", "qos": 1, "retained": False, "size": size})


@pytest.mark.parametrize("retained", [True, False])
def test_a_retained_message_counts_if_it_is_to(
    url: str, mode: dict[str, Any], retained: bool, wait: Callable[..., Any]
) -> None:
    device = Peer(url, "device")
    device.publish("r/state", b"on", 1, retain=True)
    try:
        state, result = wait(EmqxMessageSensor, topic="r/+", retained=retained, timeout=1.5, **mode)
        assert state == ("success" if retained else "failed")
        assert result == ({"topic": "r/state", "qos": 1, "retained": True, "size": 2} if retained else None)
        # one that is published while the task waits counts in either case, although the broker retains it
        with Sender(url, ("r/other", "off")):
            state, result = wait(EmqxMessageSensor, timeout=100, topic="r/other", retained=retained, **mode)
        assert (state, result["retained"]) == ("success", False)
    finally:
        device.publish("r/state", b"", 1, retain=True)
        device.close()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b'{"t": "warm"}', ('{"t": "warm"}', "plain", False)),
        (b"\xff\x00", ("/wA=", "base64", False)),
        (b"x" * 20_000, ("x" * 10_000, "plain", True)),
        ("ü".encode() * 20_000, ("ü" * 4_000, "plain", True)),
        ("a🙂".encode() * 5_000, ("a🙂" * 2_000, "plain", True)),
        (b"nul \x00", ("bnVsIAA=", "base64", False)),
        (b"\xff" * 20_000, ("////" * 2_500, "base64", True)),
        (b"", ("", "plain", False)),
    ],
)
def test_the_payload_comes_with_the_result_if_it_is_asked_for(
    url: str, mode: dict[str, Any], sent: bytes, kept: tuple[str, str, bool], wait: Callable[..., Any]
) -> None:
    with Sender(url, ("a/1", sent)):
        state, result = wait(EmqxMessageSensor, timeout=100, topic="a/1", keep_payload="{{ 'yes' }}", **mode)
    assert state == "success"
    assert (result["payload"], result["payload_encoding"], result["truncated"]) == kept
    assert result["size"] == len(sent)


def test_only_topics_that_match_the_filter_count(fake: FakeEmqx, wait: Callable[..., Any]) -> None:
    # an attempt that was killed had another topic, which was changed since
    task = sensor(topic="a/+")
    clientid = clientid_of(task)
    old = Peer(fake.mqtt_url, clientid, clean=False, expiry=60)
    old.subscribe("other", 1)
    old.drop()
    fake.publish("other", "x", qos=1)
    with Sender(fake.mqtt_url, ("a/1", "x")):
        assert task.execute(context())["topic"] == "a/1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"topic": "$share/group/a"}, "shared subscription"),
        ({"topic": "$queue/a"}, "shared subscription"),
        ({"topic": "a/#/b"}, "not the last level"),
        ({"topic": ""}, "empty"),
        ({"payload": {}}, "payload must be text or bytes"),
        ({"payload": "x", "json_field": "a"}, "either the whole payload or a field"),
        ({"payload": "x", "threshold": 1}, "either the whole payload or a field"),
        ({"json_value": 1}, "json_value needs json_field"),
        ({"json_field": ""}, "json_field"),
        ({"json_field": "a", "json_value": 1, "threshold": 1}, "either json_value or threshold"),
        ({"threshold": "warm"}, "threshold must be a number"),
        ({"threshold": 1, "comparison": "=="}, "comparison must be one of"),
        ({"retained": "perhaps"}, "retained must be true or false"),
        ({"keep_payload": 2}, "keep_payload must be true or false"),
    ],
)
def test_invalid_arguments_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(EmqxConfigError, match=words):
        sensor(**arguments)


@MODE_NAMES
def test_a_connection_without_an_mqtt_address_ends_every_mode_alike(
    fake: FakeEmqx,
    mode_name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
    with pytest.raises(EmqxConfigError, match="has no MQTT address"):
        sensor(**MODES[mode_name]).execute(context())
    assert "could not be ended" not in caplog.text


# ------------------------------------------------------------------ the session


def test_messages_count_from_the_start_of_the_task(url: str) -> None:
    """The worker subscribes; what comes on the way to the triggerer and while it restarts is not missed."""
    task = sensor(payload="2", deferrable=True)
    trigger = deferred(task)
    device = Peer(url, "device")
    assert [device.publish("a/1", payload, 1) for payload in (b"1", b"2")] == [0, 0]
    event = asyncio.run(only_event_of(trigger))
    assert (event["status"], event["details"]["size"]) == ("met", 1)
    # the triggerer was killed before Airflow had stored the event: the next one finds the message again
    assert asyncio.run(only_event_of(trigger)) == event
    result = task.resume_execution("execute_complete", {"event": event}, context())
    assert result == {"topic": "a/1", "qos": 1, "retained": False, "size": 1}
    assert device.publish("a/1", b"3", 1) == 0x10
    assert not has_session(url, trigger.clientid)
    device.close()


@RESCHEDULES
def test_messages_between_two_checks_are_not_missed(url: str) -> None:
    task, device = sensor(payload="2", mode="reschedule"), Peer(url, "device")
    for payload in (b"1", b"2"):
        with pytest.raises(AirflowRescheduleException):
            task.execute(context())
        assert device.publish("a/1", payload, 1) == 0
    assert task.execute(context())["size"] == 1
    assert device.publish("a/1", b"3", 1) == 0x10
    device.close()


@MODE_NAMES
def test_a_retry_after_a_kill_goes_on_with_the_session(url: str, mode_name: str) -> None:
    """Nothing is left undone by a kill: the message that was found but not returned is found again."""
    task, device = sensor(**MODES[mode_name]), Peer(url, "device")

    async def killed() -> None:
        found = task._open(context())
        async with found._open(await looked_up()) as client:
            assert device.publish("a/1", b"x", 1) == 0
            assert found.condition.judge(await client.receive()).met

    Work(killed()).result()
    assert task.execute(context())["topic"] == "a/1"
    assert not has_session(url, clientid_of(task))
    device.close()


async def looked_up() -> EmqxHook:
    hook = EmqxHook()
    await hook.async_settings()
    return hook


def test_the_broker_keeps_the_session_for_what_is_left_of_the_timeout(fake: FakeEmqx) -> None:
    trigger = deferred(sensor(deferrable=True, timeout=3600))
    client = fake.clients[trigger.clientid]
    assert eventually(lambda: not client.connected)
    assert 3590 <= client.expiry <= 3600
    trigger.deadline -= 1800

    async def main() -> None:
        waiting = asyncio.create_task(only_event_of(trigger))
        assert await asyncio.to_thread(eventually, lambda: fake.clients[trigger.clientid].connected)
        assert 1790 <= fake.clients[trigger.clientid].expiry <= 1800
        # a triggerer that is shut down leaves it for the next one
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())
    assert eventually(lambda: not fake.clients[trigger.clientid].connected)
    fake.advance(1801)
    assert trigger.clientid not in fake.clients


def test_the_client_id_is_that_of_the_task_instance(fake: FakeEmqx) -> None:
    class Run:
        start_date = "2026-01-01"

    one = sensor()._open(context()).clientid
    assert one == sensor(payload="other")._open(context()).clientid
    others = [{"dag_run": Run()}]
    for name in ("dag_id", "run_id", "task_id", "map_index"):
        instance = Instance()
        setattr(instance, name, 7)
        others.append({"ti": instance})
    assert len({one, *(sensor()._open(context(**other)).clientid for other in others)}) == 6


@pytest.mark.parametrize("ending", ["success", "timeout", "skipped", "forbidden", "broken_trigger"])
def test_the_session_ends_with_the_task(
    fake: FakeEmqx, mode: dict[str, Any], ending: str, wait: Callable[..., Any]
) -> None:
    arguments = {"topic": "a/1", "timeout": 1.0, **mode}
    if ending == "success":
        with Sender(fake.mqtt_url, ("a/1", "x")):
            state, _ = wait(EmqxMessageSensor, **{**arguments, "timeout": 30})
    elif ending == "timeout":
        state, _ = wait(EmqxMessageSensor, **arguments)
    elif ending == "skipped":
        state, _ = wait(EmqxMessageSensor, soft_fail=True, **arguments)
    elif ending == "forbidden":
        forbid(fake, "a/1")
        state, _ = wait(EmqxMessageSensor, **arguments)
    else:
        task = sensor(deferrable=True)
        deferred(task)
        assert len(fake.clients) == 1
        with pytest.raises(Exception, match="Unknown"):
            task.resume_execution("__fail__", {}, context())
        state = "failed"
    assert state == {"success": "success", "skipped": "skipped"}.get(ending, "failed")
    assert eventually(lambda: not fake.clients)


def forbid(fake: FakeEmqx, topic: str) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules("all", [{"topic": topic, "permission": "deny", "action": "subscribe"}])


def test_a_stopped_task_ends_its_session(fake: FakeEmqx) -> None:
    task = sensor()
    with threaded(lambda: task.execute(context())) as results:
        assert eventually(lambda: subscribed(fake, task))
        task.on_kill()
    assert isinstance(results[0], EmqxStoppedError)
    assert eventually(lambda: not fake.clients)


@MODE_NAMES
def test_a_task_that_was_stopped_before_it_waited_does_not_wait(fake: FakeEmqx, mode_name: str) -> None:
    task = sensor(**MODES[mode_name])
    task.on_kill()
    with pytest.raises(EmqxStoppedError):
        task.execute(context())
    assert eventually(lambda: not fake.clients)


def test_a_deferred_task_that_somebody_clears_ends_its_session(fake: FakeEmqx) -> None:
    """Airflow 3.3 and newer cancel the trigger, and call its ``on_kill``."""
    trigger = deferred(sensor(deferrable=True))

    async def main() -> None:
        waiting = asyncio.create_task(only_event_of(trigger))
        assert await asyncio.to_thread(eventually, lambda: fake.clients[trigger.clientid].connected)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await trigger.on_kill()

    asyncio.run(main())
    assert eventually(lambda: not fake.clients)


def test_a_session_that_cannot_be_ended_is_reported(
    fake: FakeEmqx, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    task = sensor(deferrable=True)
    deferred(task)
    fake.stop()
    event = {"status": "met", "text": "there", "details": {"topic": "a/1"}}
    with caplog.at_level(logging.WARNING):
        assert task.resume_execution("execute_complete", {"event": event}, context()) == {"topic": "a/1"}
    assert "could not be ended" in capsys.readouterr().out + caplog.text


# ------------------------------------------------------------------ faults


def test_a_wait_goes_on_when_the_broker_restarts(fake: FakeEmqx, caplog: pytest.LogCaptureFixture) -> None:
    """A wait on the worker, which listens all the time."""
    task = sensor()
    with threaded(lambda: task.execute(context())) as results:
        for _ in range(3):
            assert eventually(lambda: subscribed(fake, task))
            fake.restart()
        assert eventually(lambda: subscribed(fake, task))
        fake.publish("a/1", "x", qos=1)
    assert results == [{"topic": "a/1", "qos": 1, "retained": False, "size": 1}]
    assert "The broker has lost the session" in caplog.text


def test_a_deferred_wait_goes_on_when_the_broker_restarts(fake: FakeEmqx) -> None:
    trigger = deferred(sensor(deferrable=True, retained=True))

    async def main() -> Any:
        waiting = asyncio.create_task(only_event_of(trigger))
        for _ in range(3):
            assert await asyncio.to_thread(
                eventually,
                lambda: trigger.clientid in fake.clients and fake.clients[trigger.clientid].connected,
            )
            await asyncio.to_thread(fake.restart)
        fake.publish("a/1", "x", retain=True)
        return await waiting

    event = asyncio.run(main())
    assert (event["status"], event["details"]["topic"]) == ("met", "a/1")


def test_what_was_missed_with_a_lost_session_is_part_of_the_timeout(fake: FakeEmqx) -> None:
    trigger = deferred(sensor(deferrable=True, timeout=1.0))
    fake.restart()
    event = asyncio.run(only_event_of(trigger))
    assert event["status"] == "timeout"
    assert event["text"] == (
        "0 messages on a/+, none as expected; the broker lost the session, and perhaps messages with it"
    )


def test_a_broker_that_stays_away_ends_the_wait_after_max_failures(fake: FakeEmqx) -> None:
    trigger = deferred(sensor(deferrable=True, max_failures=2))
    fake.stop()
    event = asyncio.run(only_event_of(trigger))
    assert (event["status"], event["error"]) == ("error", "EmqxConnectionError")
    with pytest.raises(EmqxError, match="no connection to"):
        sensor(max_failures=2).execute(context())


@RESCHEDULES
def test_failures_are_not_counted_from_check_to_check(fake: FakeEmqx) -> None:
    fake.stop()
    with pytest.raises(AirflowRescheduleException):
        sensor(max_failures=0, mode="reschedule").execute(context())


def test_a_wait_that_never_connects_times_out(fake: FakeEmqx) -> None:
    trigger = deferred(sensor(deferrable=True, timeout=1, max_failures=10**6))
    fake.stop()
    assert asyncio.run(only_event_of(trigger))["status"] == "timeout"
    with pytest.raises(AirflowSensorTimeout, match="Last check: CONNECT: no connection"):
        sensor(timeout=0.2, max_failures=10**6).execute(context())


def test_a_subscription_that_is_refused_in_the_middle_ends_the_wait(fake: FakeEmqx) -> None:
    task, trigger = sensor(), deferred(sensor(deferrable=True))
    with threaded(lambda: task.execute(context())) as results:
        assert eventually(lambda: subscribed(fake, task))
        forbid(fake, "a/+")
        fake.disconnect(clientid_of(task))
    assert isinstance(results[0], EmqxForbiddenError)
    event = asyncio.run(only_event_of(trigger))
    assert (event["status"], event["error"]) == ("error", "EmqxForbiddenError")


@RESCHEDULES
def test_a_subscription_that_is_refused_ends_the_wait_at_the_next_check(fake: FakeEmqx) -> None:
    task = sensor(mode="reschedule")
    with pytest.raises(AirflowRescheduleException):
        task.execute(context())
    forbid(fake, "a/+")
    with pytest.raises(EmqxForbiddenError, match="a/[+]"):
        task.execute(context())


@pytest.mark.parametrize("version", ["5.8.9", "mosquitto"], indirect=True)
@pytest.mark.parametrize("mode_name", ["poke", "deferred"])
def test_the_awaited_one_is_found_behind_ten_thousand(url: str, mode_name: str) -> None:
    task = sensor(payload="done", timeout=50, topic="a/#", **MODES[mode_name])
    over = threading.Event()

    async def send() -> None:
        hook = await looked_up()
        async with hook.mqtt("sender") as client:
            while not await client.publish("a/0", b"0"):  # noqa: ASYNC110  the broker knows who has subscribed
                await asyncio.sleep(0.02)
            for start in range(0, 10_000, 200):
                await asyncio.gather(*(client.publish(f"a/{start + one}", b"x") for one in range(200)))
            # a broker that is faster than the wait drops what its queue does not hold
            while not over.is_set():
                await client.publish("a/done", b"done")
                await asyncio.sleep(0.05)

    def wait() -> Any:
        if mode_name == "poke":
            return task.execute(context())
        return asyncio.run(only_event_of(trigger))["details"]

    trigger = deferred(task) if mode_name == "deferred" else None
    sending = Work(send())
    assert wait()["topic"] == "a/done"
    over.set()
    sending.result()


def test_ten_megabytes_are_passed_over(fake: FakeEmqx) -> None:
    task = sensor(json_field="ok", json_value=True, keep_payload=True)
    with threaded(lambda: task.execute(context())) as results:
        assert eventually(lambda: subscribed(fake, task))
        fake.publish("a/1", '{"ok": true, "x": "' + "x" * 10_000_000 + '"}', qos=1)
        fake.publish("a/2", '{"ok": true}', qos=1)
    assert results[0]["topic"] == "a/2"
    # the content of large ones can be compared as a whole
    whole = sensor(payload=b"y" * 10_000_000, keep_payload=True)
    with threaded(lambda: whole.execute(context())) as results:
        assert eventually(lambda: subscribed(fake, whole))
        fake.publish("a/1", "y" * 10_000_000, qos=1)
    assert (results[0]["size"], len(results[0]["payload"]), results[0]["truncated"]) == (
        10_000_000,
        10_000,
        True,
    )


@RESCHEDULES
def test_a_full_queue_is_reported(fake: FakeEmqx, caplog: pytest.LogCaptureFixture) -> None:
    task = sensor(payload="never", mode="reschedule")
    with pytest.raises(AirflowRescheduleException):
        task.execute(context())
    for number in range(1_500):
        fake.publish("a/1", str(number), qos=1)
    with pytest.raises(AirflowRescheduleException):
        task.execute(context())
    assert "1,000 messages were waiting" in caplog.text


# ------------------------------------------------------------------ secrets


def test_no_payload_is_stored_or_logged_unasked(
    fake: FakeEmqx,
    mode: dict[str, Any],
    wait: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trigger = deferred(sensor(topic="other", deferrable=True, payload=SECRET))
    assert SECRET not in json.dumps(trigger.serialize())
    caplog.set_level(logging.DEBUG, "airflow_provider_emqx")
    with Sender(fake.mqtt_url, ("a/1", f"{SECRET}-1"), ("a/1", SECRET)):
        state, result = wait(EmqxMessageSensor, timeout=100, topic="a/1", payload=SECRET, **mode)
    assert state == "success"
    assert SECRET not in f"{caplog.text} {capsys.readouterr()} {result}"


@RESCHEDULES
def test_a_look_that_takes_long_is_not_the_end(fake: FakeEmqx) -> None:
    """A session is read to its end, however many messages are in it."""
    task = sensor(payload="999", mode="reschedule")
    with pytest.raises(AirflowRescheduleException):
        task.execute(context())
    for number in range(1_000):
        fake.publish("a/1", str(number), qos=1)
    started = time.monotonic()
    assert task.execute(context())["size"] == 3
    assert time.monotonic() - started < 20

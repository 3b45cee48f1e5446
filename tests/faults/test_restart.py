"""A broker that restarts: its port opens before it serves anything."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxNotReadyError,
    EmqxOutcomeUnknownError,
    EmqxServerError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionAclOperator, EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger, EmqxEventTrigger
from tests.faults.test_every_call import CALLS, fill, watched
from tests.faults.world import Outcome, world
from tests.operators.run import execute
from tests.sensors.conftest import MODES, wait
from tests.transport.conftest import ask, driver
from tests.triggers.conftest import event_of

__all__ = ["driver", "wait"]

#: what a second of the broker's clock is: it moves on with each request, so that nothing waits for it
STEP = 0.5


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(exchange, "_LONGEST_WAIT_FOR_START", 0.02)


@pytest.fixture(params=["5.8.9", "6.3.0-beta.2"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def booting(broker: FakeEmqx) -> Iterator[FakeEmqx]:
    """A broker that serves nothing for five seconds of its own clock, then no users for eight."""
    broker.restart(boot_seconds=5, database_seconds=8)
    broker.before_each_request(lambda method, path: broker.advance(STEP))
    yield broker
    broker.before_each_request(None)


def recorded(name: str) -> list[dict[str, Any]]:
    file = Path(__file__).parent.parent / "contract" / f"{name}-boot.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["emqx-5.8.9", "emqx-6.3.0-beta.2"])
def test_the_double_boots_as_recorded(name: str) -> None:
    import requests

    steps = recorded(name)
    compared = 0
    with FakeEmqx(name.removeprefix("emqx-")) as broker, requests.Session() as session:
        session.trust_env = False
        broker.restart(boot_seconds=60, database_seconds=60)
        later = False
        for step in steps:
            asked, told = step["request"], step["response"]
            first = told["status"] == 404 and "Request Path Not Found" in told["text"]
            not_initialized = "not_initialized" in told["text"] or told["status"] == 500
            if not first and not later:
                broker.advance(61)
                later = True
            if not (first or not_initialized):
                continue
            answer = session.request(
                asked["method"],
                f"{broker.url}/api/v5{asked['path']}",
                json=asked.get("json"),
                auth=("key", "secret"),
                headers={"Accept": "application/json"},
            )
            assert (answer.status_code, answer.text == "") == (told["status"], told["text"] == ""), asked
            if "INTERNAL_ERROR" in told["text"]:
                # the recording ends within the stack
                assert answer.text[:90] == told["text"][:90]
            elif told["text"]:
                assert answer.json() == json.loads(told["text"]), asked
            compared += 1
    assert compared >= 13


def test_a_request_is_repeated_until_the_broker_has_started(
    booting: FakeEmqx, driver: Any, version: str
) -> None:
    made = driver(booting.url, generation="v5", base="/api/v5", version=(5, 8, 9), attempts=1)
    assert made.run(ask("GET", "/stats")).status == 200
    # each attempt asks for /status too
    assert len(booting.requests) > 5


def test_a_publish_is_sent_once_more_because_nothing_was_done(booting: FakeEmqx) -> None:
    booting.connect("dev-1")
    booting.subscribe("dev-1", "t", 1)
    with EmqxHook() as hook:
        hook.publish({"topic": "t", "payload": "x", "qos": 1})
    assert [message.payload for message in booting.received("dev-1")] == [b"x"]


def test_a_path_that_a_running_broker_does_not_know_is_unsupported_at_once(
    broker: FakeEmqx, driver: Any, version: str
) -> None:
    made = driver(broker.url, generation="v5", base="/api/v5", version=(5, 8, 9))
    with pytest.raises(EmqxUnsupportedError) as caught:
        made.run(ask("GET", "/no_such_path"))
    assert type(caught.value) is EmqxUnsupportedError
    assert [request.path.partition("?")[0] for request in broker.requests] == [
        "/api/v5/no_such_path",
        "/api/v5/status",
        "/api/v5/no_such_path",
    ]


def test_a_broker_that_does_not_start_before_the_deadline_is_an_error_that_a_retry_may_mend(
    broker: FakeEmqx, driver: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the next attempt would begin after the deadline: one that begins just before it may end as a timeout
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 10.0)
    monkeypatch.setattr(exchange, "_LONGEST_WAIT_FOR_START", 10.0)
    broker.restart(boot_seconds=3600)
    made = driver(broker.url, generation="v5", base="/api/v5", version=(5, 8, 9), deadline=4.0)
    with pytest.raises(EmqxNotReadyError, match="still starting"):
        made.run(ask("GET", "/clients"))


def test_the_version_is_known_although_it_was_asked_for_while_the_broker_started(
    booting: FakeEmqx, version: str
) -> None:
    with EmqxHook() as hook:
        assert hook.emqx_version == version.partition("-")[0]


def test_no_row_is_rejected_because_the_broker_starts(booting: FakeEmqx) -> None:
    rows = [{"user_id": f"dev-{number}", "password": "secret"} for number in range(5_000)]
    result = execute(EmqxProvisionUsersOperator, source=rows)
    assert (result["written"], result["rejected"], len(booting.users)) == (5_000, 0, 5_000)
    result = execute(EmqxProvisionUsersOperator, source=rows[:40], mode="delete")
    assert (result["deleted"], result["rejected"]) == (40, 0)


@pytest.mark.parametrize("mode", ["create", "sync"])
def test_every_mode_outlives_a_restart_in_the_middle(mode: str, broker: FakeEmqx) -> None:
    rows = [{"user_id": f"dev-{number}", "password": "secret"} for number in range(40)]
    arguments = {"scope": "dev-*"} if mode == "sync" else {}
    seen: list[str] = []

    def go_down(method: str, path: str) -> None:
        broker.advance(STEP)
        if method == "POST" and not seen:
            seen.append(path)
            broker.state.routes_at = broker.now() + 5

    broker.before_each_request(go_down)
    result = execute(EmqxProvisionUsersOperator, source=rows, mode=mode, **arguments)
    broker.before_each_request(None)
    assert seen
    assert (result["written"], result["rejected"], len(broker.users)) == (40, 0, 40)


def test_rules_and_kicks_outlive_a_start(booting: FakeEmqx) -> None:
    booting.connect("dev-1")
    assert execute(EmqxKickClientsOperator, clientids=["dev-1"])["kicked"] == ["dev-1"]
    booting.state.routes_at = booting.now() + 5
    booting.state.databases_at = booting.now() + 13
    rules = [{"username": "alice", "topic": "t", "permission": "allow"}]
    result = execute(EmqxProvisionAclOperator, source=rules)
    assert (result["written"], result["rejected"]) == (1, 0)
    assert booting.acl_rules("username", "alice")


def test_a_crash_over_rules_of_a_broker_that_is_up_is_repeated_once_only(
    broker: FakeEmqx, version: str
) -> None:
    broker.order_fault("status", match="PUT", status=500, body=b"", times=100)
    with EmqxHook() as hook, pytest.raises(EmqxServerError) as caught:
        hook.set_acl_rules({"username": "alice"}, [{"topic": "t", "permission": "allow"}])
    assert not isinstance(caught.value, EmqxNotReadyError)
    assert sum(request.method == "PUT" for request in broker.requests) == 2


def test_waiting_for_the_start_uses_up_no_attempt(booting: FakeEmqx, driver: Any, version: str) -> None:
    """A booting 5.8.9 broke one connection off at the moment when its paths came to be."""
    booting.order_fault("reset", match=lambda method, path: booting.now() >= booting.state.routes_at)
    made = driver(booting.url, generation="v5", base="/api/v5", version=(5, 8, 9), attempts=2)
    assert made.run(ask("GET", "/stats")).status == 200
    assert not booting.state.routes_at > booting.now()


def test_the_question_whether_the_broker_is_up_keeps_the_deadline_of_what_it_is_asked_for(
    broker: FakeEmqx, driver: Any, version: str
) -> None:
    broker.order_fault("slow", match="/status", seconds=3)
    made = driver(broker.url, generation="v5", base="/api/v5", version=(5, 8, 9), deadline=0.3)
    with pytest.raises(EmqxNotReadyError):
        made.run(ask("GET", "/no_such_path"))


def crash(process: str) -> str:
    """Make the answer of a handler that called a process that is not there."""
    message = "exit, {noproc,{gen_server,call,[" + process + ",stop]}}, [{gen_server,call,2,[]}]"
    return json.dumps({"code": "INTERNAL_ERROR", "message": message})


@pytest.mark.parametrize("path", ["/publish", "/publish/bulk", "/authentication/x/users"])
def test_what_must_not_be_repeated_is_not_after_a_handler_has_crashed(
    path: str, broker: FakeEmqx, driver: Any, version: str
) -> None:
    """A crash may come after the work: noproc is also what a handler meets whose client has just gone."""
    broker.order_fault("status", match=path, status=500, body=crash("emqx_x"), times=100)
    made = driver(broker.url, generation="v5", base="/api/v5", version=(5, 8, 9))
    with pytest.raises(EmqxServerError) as caught:
        made.run(ask("POST", path, json=[]))
    assert not isinstance(caught.value, EmqxOutcomeUnknownError)
    assert caught.value.maybe_applied
    assert len(broker.requests) == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_client_that_has_gone_is_no_broker_that_starts(
    method: str, broker: FakeEmqx, driver: Any, version: str
) -> None:
    broker.order_fault("status", match="/clients", status=500, body=crash("<0.1.0>"), times=2)
    made = driver(broker.url, generation="v5", base="/api/v5", version=(5, 8, 9))
    with pytest.raises(EmqxServerError) as caught:
        made.run(ask(method, "/clients/dev-1"))
    assert type(caught.value) is EmqxServerError
    assert len(broker.requests) == 2


@pytest.mark.parametrize("message", ["topic not_initialized/x is not valid", "User error: noproc_user"])
def test_a_refusal_that_repeats_what_was_sent_is_no_broker_that_starts(
    message: str, broker: FakeEmqx, driver: Any, version: str
) -> None:
    body = json.dumps({"code": "BAD_REQUEST", "message": message})
    broker.order_fault("status", match="/users", status=400, body=body, times=1)
    made = driver(broker.url, generation="v5", base="/api/v5", version=(5, 8, 9))
    with pytest.raises(EmqxBadRequestError):
        made.run(ask("POST", "/authentication/x/users", json={}, repeatable=True))


def test_users_are_written_once_their_database_runs(broker: FakeEmqx, version: str) -> None:
    broker.order_fault("status", match="import_users", status=500, body=crash("emqx_authn"), times=7)
    rows = [{"user_id": f"dev-{number}", "password": "secret"} for number in range(4)]
    result = execute(EmqxProvisionUsersOperator, source=rows)
    assert (result["written"], len(broker.users)) == (4, 4)


@pytest.mark.parametrize("client", ["requests", "aiohttp"])
def test_every_call_ends_as_it_does_at_a_broker_that_is_up(
    client: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endings(boots: bool) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []

        def see(outcome: Outcome) -> None:
            found.append((name, type(outcome.error).__name__ if outcome.error else "done"))

        def start() -> list[Any]:
            if boots:
                w.fake.state.routes_at = w.fake.now() + 2
                w.fake.state.databases_at = w.fake.now() + (4 if version[0] == "5" else 2)
            return []

        with world(version, client, 1, faults=start, deadline=20, attempts=2) as w:
            fill(w, monkeypatch)
            watched(w, see)
            w.fake.before_each_request(lambda method, path: w.fake.advance(STEP))
            for name in sorted(CALLS):
                CALLS[name](w)
        return found

    usual = endings(boots=False)
    assert endings(boots=True) == usual
    assert sum(how == "done" for _, how in usual) > len(CALLS) / 2


@pytest.mark.parametrize("mode", MODES)
def test_a_sensor_outlives_a_start_in_every_mode(mode: str, booting: FakeEmqx, wait: Any) -> None:
    booting.connect("dev-1")
    state, result = wait(EmqxClientOnlineSensor, clientids="dev-1", **MODES[mode])
    assert (state, result["online"]) == ("success", 1)


def test_a_watcher_outlives_a_restart_between_two_looks(booting: FakeEmqx) -> None:
    """It tells what becomes true, so it must have looked before, and the broker restarts right after that."""
    looks = 0

    def go_down(method: str, path: str) -> None:
        nonlocal looks
        booting.advance(STEP)
        if "/clients/dev-1" in path and booting.now() >= booting.state.routes_at:
            looks += 1
            if looks == 2:
                booting.state.routes_at = booting.now() + 5
                booting.connect("dev-1")

    booting.before_each_request(go_down)
    trigger = EmqxEventTrigger(
        event="condition_met",
        kind="clients_online",
        parameters={"clientids": ["dev-1"], "quorum": "all"},
        poll_interval=0.1,
    )

    async def first() -> Any:
        async with asyncio.timeout(30):
            return (await anext(trigger.run())).payload

    assert asyncio.run(first())["event"] == "condition_met"
    assert looks > 2


def test_a_sensor_outlives_a_start(booting: FakeEmqx) -> None:
    booting.connect("dev-1")
    sensor = EmqxClientOnlineSensor(task_id="wait", clientids="dev-1")
    assert sensor.poke({})


def test_a_deferred_wait_outlives_a_restart(broker: FakeEmqx) -> None:
    trigger = EmqxConditionTrigger(
        kind="clients_online", parameters={"clientids": ["dev-1"], "quorum": "all"}, poll_interval=0.2
    )

    def life() -> None:
        while not broker.requests:
            time.sleep(0.01)
        broker.restart(boot_seconds=1)
        broker.advance(0.5)
        broker.connect("dev-1")

    living = threading.Thread(target=life)
    living.start()
    event = asyncio.run(event_of(trigger))
    living.join()
    assert event["status"] == "met"


@pytest.mark.parametrize("mode", ["upsert", "delete"])
def test_a_chunk_is_not_rejected_for_one_reason_by_a_broker_that_serves_no_users(
    mode: str, broker: FakeEmqx
) -> None:
    rows = [{"user_id": f"dev-{number}", "password": "secret"} for number in range(8)]
    refusal = json.dumps({"code": "BAD_REQUEST", "message": "out of order"})
    match = "import_users" if mode == "upsert" else "DELETE"
    broker.order_fault("status", match=match, status=400, body=refusal, times=100)
    result = EmqxProvisionUsersOperator(task_id="task", source=rows, mode=mode, max_rejected=8)
    broker.order_fault("status", match="users?page=1&limit=1", status=503, times=100)
    with pytest.raises(EmqxServerError):
        result.execute({})

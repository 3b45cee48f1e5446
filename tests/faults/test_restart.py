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

from airflow_provider_emqx.client import exchange
from airflow_provider_emqx.exceptions import EmqxNotReadyError, EmqxServerError, EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionAclOperator, EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger
from tests.client.conftest import ask, driver
from tests.operators.run import execute
from tests.triggers.conftest import event_of

__all__ = ["driver"]

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
            not_initialized = "not_initialized" in told["text"]
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
            assert (answer.status_code, answer.json()) == (told["status"], json.loads(told["text"])), asked
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
    broker: FakeEmqx, driver: Any, version: str
) -> None:
    broker.restart(boot_seconds=3600)
    made = driver(broker.url, generation="v5", base="/api/v5", version=(5, 8, 9), deadline=0.2)
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
    arguments = {"scope": "dev-"} if mode == "sync" else {}
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
    booting.advance(60)
    rules = [{"username": "alice", "topic": "t", "permission": "allow"}]
    assert execute(EmqxProvisionAclOperator, source=rules)["rejected"] == 0


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

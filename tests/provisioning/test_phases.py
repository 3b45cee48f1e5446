"""What limits a run, by what it spends its time on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.provisioning import phases
from airflow_provider_emqx.testing import FakeEmqx

ROWS = [{"user_id": f"device-{number}", "password": "p"} for number in range(60)]


@pytest.fixture
def every_run_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "_SHORT", 0.0)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if message.startswith("Limited by ")]


def execute(fake: FakeEmqx, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Any:
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
    operator = EmqxProvisionUsersOperator(task_id="provision", source=ROWS, **arguments)
    return operator.execute({})


@pytest.mark.usefixtures("every_run_is_long")
def test_a_slow_broker_limits_a_run(
    version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with FakeEmqx(version, pace=(100.0, 100.0)) as fake:
        result = execute(fake, monkeypatch)
    assert result["limited_by"] == "broker"
    assert result["phases"]["write"] > result["phases"]["read"]
    assert result["phases"]["hash"] == 0
    (line,) = told(caplog)
    assert line.startswith("Limited by the broker: reading took 0.0 s, hashing 0.0 s, the broker ")
    assert line.endswith("shards are hardly faster")


@pytest.mark.usefixtures("every_run_is_long")
@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "bcrypt", "salt_rounds": 7},
        {"name": "pbkdf2", "mac_fun": "sha256", "iterations": 20_000, "dk_length": 32},
    ],
    ids=["bcrypt", "pbkdf2"],
)
def test_hashing_limits_a_run_with_an_expensive_algorithm(
    algorithm: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", json.dumps({"conn_type": "generic", "password": "x" * 40}))
    with FakeEmqx("5.8.9", password_hash_algorithm=algorithm) as fake:
        result = execute(fake, monkeypatch, hash_passwords=True, pepper_conn_id="pepper")
    assert result["limited_by"] == "hashing"
    # reading is what remains, without hashing
    assert result["phases"]["hash"] > result["phases"]["read"] + result["phases"]["write"]
    (line,) = told(caplog)
    assert line.startswith("Limited by hashing: reading took 0.0 s, hashing ")
    assert line.endswith("shards on several workers are faster")


def test_hashing_that_the_broker_does_is_the_broker_s_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeEmqx("5.8.9", password_hash_algorithm={"name": "bcrypt", "salt_rounds": 6}) as fake:
        result = execute(fake, monkeypatch)
    assert (result["limited_by"], result["phases"]["hash"]) == ("broker", 0)


def test_a_short_run_does_not_say_what_limits_it(broker: FakeEmqx, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    EmqxProvisionUsersOperator(task_id="provision", source=ROWS[:1]).execute({})
    assert told(caplog) == []


@pytest.mark.parametrize(
    ("seconds", "limited_by"),
    [
        ({"read": 3.0, "hash": 1.0, "write": 3.9}, "reading"),
        ({"read": 1.0, "hash": 3.0, "write": 3.9}, "hashing"),
        ({"read": 1.0, "hash": 3.0, "write": 4.1}, "broker"),
        ({"read": 1.0, "hash": 1.0, "list": 1.0, "write": 1.0, "prune": 1.0}, "broker"),
    ],
)
def test_what_takes_most_of_the_time_limits(seconds: dict[str, float], limited_by: str) -> None:
    run = phases.Phases()
    run.seconds.update(seconds)
    assert run.limited_by == limited_by

"""What ends a wait while the broker misbehaves, and what does not: the same in every mode, in real DAG runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.conditions.base import outlives
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxServerError
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.testing import FakeEmqx
from tests.needs import older
from tests.sensors.conftest import before_question

HTML = {"Content-Type": "text/html"}
PAGE = "<html><h1>Please stand by</h1></html>"


def fault(kind: str, times: int = 8, **arguments: Any) -> Callable[[FakeEmqx], None]:
    """Let the coming questions for the client go wrong; after one that goes well it comes online."""

    def begin(broker: FakeEmqx) -> None:
        broker.order_fault(kind, match="/clients/", times=times, **arguments)
        before_question(broker, times + 2, lambda: broker.connect("dev-1"))

    return begin


def outage(broker: FakeEmqx) -> None:
    def stop() -> None:
        broker.stop()
        broker.connect("dev-1")
        # long enough that looks fail: nobody sees them
        threading.Timer(0.5, broker.start).start()

    # a function of the broker cannot stop it
    before_question(broker, 3, threading.Thread(target=stop).start)


def refuse_key(broker: FakeEmqx) -> None:
    before_question(broker, 3, lambda: broker.remove_key("key"))


class Case(NamedTuple):
    """
    One wait for ``dev-1``, with a broker of its own.

    :param begin: what goes wrong, from when the sensor begins.
    :param ending: ``"success"``, ``"skipped"``, or the error that fails the task.
    :param arguments: of the sensor.
    :param rescheduled: the ending in reschedule mode, where failures are not counted, if it is another one.
    """

    begin: Callable[[FakeEmqx], Any]
    ending: str
    arguments: dict[str, Any] = {}  # noqa: RUF012
    rescheduled: str | None = None


BROKEN = fault("status", 10_000, status=500)
CASES = {
    "outage": Case(outage, "success"),
    "status_500": Case(fault("status", status=500), "success"),
    "status_503": Case(fault("status", status=503), "success"),
    "status_429": Case(fault("status", 2, status=429, headers={"Retry-After": "1"}), "success"),
    "html_of_a_load_balancer": Case(fault("status", status=200, body=PAGE, headers=HTML), "success"),
    "html_502": Case(fault("status", status=502, body=PAGE, headers=HTML), "success"),
    "reset": Case(fault("reset"), "success"),
    "truncated": Case(fault("truncated"), "success"),
    "garbage": Case(fault("garbage"), "success"),
    "stall": Case(fault("stall", 3, seconds=600), "success"),
    "wrong_key": Case(refuse_key, "EmqxAuthError"),
    "wrong_key_silent": Case(refuse_key, "EmqxAuthError", {"silent_fail": True}),
    "wrong_key_soft": Case(refuse_key, "skipped", {"soft_fail": True}),
    "wrong_key_never": Case(refuse_key, "skipped", {"never_fail": True}),
    "broken": Case(BROKEN, "EmqxServerError", {"max_failures": 1, "timeout": 2}, "AirflowSensorTimeout"),
    "broken_soft": Case(BROKEN, "skipped", {"max_failures": 1, "timeout": 2, "soft_fail": True}),
    "broken_never": Case(BROKEN, "skipped", {"max_failures": 1, "timeout": 2, "never_fail": True}),
    "broken_silent": Case(
        BROKEN, "AirflowSensorTimeout", {"max_failures": 1, "timeout": 0.5, "silent_fail": True}
    ),
    "late": Case(lambda broker: None, "AirflowSensorTimeout", {"timeout": 0.3}),
    "late_soft": Case(lambda broker: None, "skipped", {"timeout": 0.3, "soft_fail": True}),
    "late_never": Case(lambda broker: None, "skipped", {"timeout": 0.3, "never_fail": True}),
}


# what is on the wire is the same for both generations
@pytest.mark.parametrize("version", ["5.8.9"])
def test_waits_end_alike_in_every_mode(
    run_dag: Callable[..., Any], mode: dict[str, Any], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: set[str] = set()
    errors: dict[str, str] = {}

    def begin(context: Any) -> None:
        name = context["ti"].task_id
        if name not in begun:
            begun.add(name)
            CASES[name].begin(brokers[name])

    def failed(context: Any) -> None:
        errors[context["ti"].task_id] = type(context["exception"]).__name__

    with ExitStack() as stack:
        brokers = {name: stack.enter_context(FakeEmqx(version)) for name in CASES}
        with DAG("endings", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            for name, case in CASES.items():
                connection = brokers[name].connection(read_timeout=0.3 if name == "stall" else 65)
                monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
                EmqxClientOnlineSensor(
                    task_id=name,
                    emqx_conn_id=name,
                    clientids="dev-1",
                    on_execute_callback=begin,
                    on_failure_callback=failed,
                    **{"poke_interval": 0.1, "timeout": 60, **case.arguments},
                    **mode,
                )
        run = run_dag(dag)
        for name, case in CASES.items():
            task = run.get_task_instance(name)
            ending = errors.get(name, task.state)
            expected = case.rescheduled if mode.get("mode") == "reschedule" else None
            wanted = expected or case.ending
            # Airflow 3.0 to 3.2 tell callbacks of some errors only
            untold = wanted not in ("success", "skipped") and older("apache-airflow", "3.3")
            assert ending == wanted or (untold and ending == "failed"), name
            if ending == "success":
                result = task.xcom_pull(task_ids=name)
                assert result == {"awaited": 1, "needed": 1, "online": 1, "missing_count": 0, "missing": []}
            if name.startswith("late"):
                # who is missing is asked of a wait that has failed
                result = task.xcom_pull(task_ids=name)
                assert (result["online"], result["missing_count"], result["missing"]) == (0, 1, ["dev-1"])
            refused = [request for request in brokers[name].requests if request.status == 401]
            # one question; after a look of its own, a process finds out first what the broker is
            assert len(refused) <= 2, name


@pytest.mark.parametrize(
    ("error", "most", "goes_on"),
    [
        (EmqxServerError(500), 1, (True, False)),
        (EmqxServerError(500), 0, (False, False)),
        (EmqxServerError(500), None, (True, True)),
        (EmqxError("of no known kind"), 5, (False, False)),
        # as Airflow says of silent_fail
        (EmqxError("of no known kind"), None, (True, True)),
        (EmqxConfigError("wrong"), None, (False, False)),
    ],
)
def test_what_a_wait_outlives(error: EmqxError, most: int | None, goes_on: tuple[bool, bool]) -> None:
    assert (outlives(error, 1, most), outlives(error, 2, most)) == goes_on

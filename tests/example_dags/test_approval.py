"""Plans that a person approves: DAG runs with Airflow's own operator for approvals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.needs import needs
from tests.operators.run import sent
from tests.plans.made import changes

pytestmark = needs("apache-airflow", "3.3", "a run that awaits input is kept alive by dag.test()")


def answered(option: str, before: Callable[[], None] = lambda: None) -> Callable[[Any], bool]:
    """Return what a person does with a request: respond, as the API does for the button in the UI."""

    def respond(session: Any) -> bool:
        from airflow.models.hitl import HITLDetail
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.trigger import handle_event_submit
        from airflow.sdk.timezone import utcnow
        from airflow.triggers.base import TriggerEvent
        from airflow.utils.state import TaskInstanceState
        from sqlalchemy import select

        awaiting = select(TaskInstance).where(TaskInstance.state == TaskInstanceState.AWAITING_INPUT)
        ti = session.scalars(awaiting).first()
        if ti is None:
            return False
        before()
        request = session.get(HITLDetail, ti.id)
        READ.append(request.body)
        request.responded_by = {"id": "1", "name": "pat"}
        request.responded_at = utcnow()
        request.chosen_options = [option]
        request.params_input = {}
        session.add(request)
        handle_event_submit(
            TriggerEvent(request.as_resume_event_payload()), task_instance=ti, session=session
        )
        return True

    return respond


def time_passes(session: Any) -> bool:
    """Do what the scheduler does when nobody responds in time."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    awaiting = select(TaskInstance).where(TaskInstance.state == TaskInstanceState.AWAITING_INPUT)
    if session.scalars(awaiting).first() is None:
        return False
    SchedulerJobRunner(Job()).check_awaiting_input_timeouts(session=session)
    return True


#: the texts that were read before responding
READ: list[str] = []


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], bool]], None]:
    """Return a function that is told what to do while a run waits for a response: dag.test() sleeps a second then."""

    def wait(act: Callable[[Any], bool]) -> None:
        from airflow.utils.session import create_session

        real = time.sleep
        READ.clear()

        def sleep(seconds: float) -> None:
            if seconds < 1:
                real(seconds)
                return
            with create_session(scoped=False) as session:
                assert act(session), "the run waits for something else"

        monkeypatch.setattr(time, "sleep", sleep)

    return wait


@pytest.fixture
def conf(broker: Any, tmp_path: Path) -> dict[str, Any]:
    for name in ("example-sensor-1", "example-sensor-gone {{ 7 * 7 }}", "somebody"):
        broker.add_user(name, "old")
    source = tmp_path / "devices.csv"
    source.write_text("user_id,password\nexample-sensor-1,new\nexample-sensor-2,new\nexample-sensor-3,\n")
    return {"source": str(source), "plans": str(tmp_path / "plans"), "max_deletes": 1}


@pytest.fixture
def dag() -> Iterator[Any]:
    from example_dags.approve_then_sync import dag

    approve = dag.get_task("approve")
    before = approve.defaults, approve.response_timeout
    yield dag
    approve.defaults, approve.response_timeout = before


def states(run: Any) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def plan_of(conf: dict[str, Any]) -> Path:
    [plan] = Path(conf["plans"]).glob("*.jsonl")
    return plan


def test_what_is_approved_is_done(
    broker: Any, run_dag: Any, meanwhile: Any, dag: Any, conf: dict[str, Any]
) -> None:
    before = len(sent(broker))
    meanwhile(answered("Approve", lambda: untouched(broker, before)))
    run = run_dag(dag, run_conf=conf)
    assert run.state == "success"
    assert sorted(broker.users) == ["example-sensor-1", "example-sensor-2", "somebody"]
    assert len(changes(plan_of(conf))) == 3
    [body] = READ
    assert "### Users: 3 changes" in body
    assert "- `'example-sensor-gone {{ 7 * 7 }}'`" in body
    assert "max_deletes: 1 of 2, 1 allowed, 100% of the limit" in body
    assert "1 rejected: `'password is empty'`" in body


def untouched(broker: Any, before: int) -> None:
    assert len(sent(broker)) == before


def test_what_is_rejected_is_not_done(
    broker: Any, run_dag: Any, meanwhile: Any, dag: Any, conf: dict[str, Any]
) -> None:
    users = dict(broker.users)
    meanwhile(answered("Reject"))
    run = run_dag(dag, run_conf=conf)
    assert (run.state, states(run)["carry_out"]) == ("success", "skipped")
    assert (dict(broker.users), sent(broker)) == (users, [])


@pytest.mark.parametrize(
    ("defaults", "state", "carried_out"),
    [
        (["Reject"], "success", "skipped"),
        (["Approve"], "success", "success"),
        (None, "failed", "upstream_failed"),
    ],
)
@pytest.mark.parametrize("version", ["5.8.9"])
def test_without_a_response_the_defaults_count(
    broker: Any,
    run_dag: Any,
    meanwhile: Any,
    dag: Any,
    conf: dict[str, Any],
    defaults: list[str] | None,
    state: str,
    carried_out: str,
) -> None:
    approve = dag.get_task("approve")
    approve.defaults, approve.response_timeout = defaults, timedelta(microseconds=1)
    meanwhile(time_passes)
    run = run_dag(dag, run_conf=conf)
    assert (run.state, states(run)["carry_out"]) == (state, carried_out)
    assert ("example-sensor-2" in broker.users) == (carried_out == "success")


def test_an_approved_plan_that_no_longer_fits_is_not_done(
    broker: Any,
    run_dag: Any,
    meanwhile: Any,
    dag: Any,
    conf: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    meanwhile(answered("Approve", lambda: broker.add_user("example-sensor-2", "somebody's")))
    run = run_dag(dag, run_conf=conf)
    assert (run.state, states(run)["carry_out"]) == ("failed", "failed")
    assert sent(broker) == []
    assert "example-sensor-gone {{ 7 * 7 }}" in broker.users

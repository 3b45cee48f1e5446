from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred, TaskInstanceKey

from airflow_provider_emqx.exceptions import EmqxUnsupportedError
from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange
from tests.faults.proxy import PASS, FaultyProxy
from tests.needs import older
from tests.secrets import every
from tests.secrets.planted import KEY, PASSWORD, PAYLOAD, SECRET, SHORT, shown, told
from tests.secrets.test_hook import echoes

pytest.importorskip("airflow.providers.sqlite", reason="needs apache-airflow-providers-sqlite")

long_runs = pytest.mark.skipif(
    older("apache-airflow", "3.1") and not older("apache-airflow", "3.0"),
    reason="needs apache-airflow 3.1: dag.test() of 3.0 comes to a stand in a DAG of so many tasks",
)


def stored() -> str:
    """Everything in Airflow's metadata database: rendered fields, XComs, trigger rows, serialised DAGs, logs."""
    from airflow.configuration import conf

    file = conf.get("database", "sql_alchemy_conn").removeprefix("sqlite:///")
    with sqlite3.connect(file) as database:
        # the text of DAG files is their author's
        tables = [
            name
            for (name,) in database.execute("select name from sqlite_master where type = 'table'")
            if name != "dag_code"
        ]
        rows = [row for table in tables for row in database.execute(f'select * from "{table}"')]
    return "\n".join(
        " ".join(
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in row
        )
        for row in rows
    )


@contextmanager
def world(
    version: str, trouble: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FakeEmqx, FaultyProxy]]:
    """A broker, what is between it and the tasks, and the connections to all that they need."""
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.001)
    for name, value in every.connections(folder).items():
        monkeypatch.setenv(name, value)
    broker = FakeEmqx(version, key=KEY, secret=SECRET, nodes=every.NODES, edition="Enterprise")
    with broker, FaultyProxy(broker.port) as proxy:
        broker.add_user("airflow", PASSWORD)
        extra = {
            "attempts": 2,
            "read_timeout": 2,
            "deadline": 5,
            "mqtt_url": broker.mqtt_url,
            "mqtt_username": "airflow",
            "mqtt_password": PASSWORD if trouble == "none" else PASSWORD[::-1],
        }
        conn = {**broker.connection(**extra), "host": proxy.url}
        if trouble == "wrong key":
            conn["password"] = SECRET[::-1]
        if trouble.startswith("echo"):
            refusals = cycle(fault for fault in echoes() if fault.status in (400, 500, 503))
            everything = trouble == "echo everything"
            proxy.otherwise = lambda request: (
                next(refusals) if everything or request.method != "GET" else PASS
            )
        if trouble == "down":
            proxy.stop()
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(conn))
        every.furnish(broker)
        yield broker, proxy


def check_files(folder: Path) -> None:
    """Nothing that was written holds a secret, and only its owner may read it."""
    written = [
        file for file in folder.rglob("*") if file.is_file() and file.parent.name not in ("given", "backups")
    ]
    assert written
    for file in written:
        assert shown(file.read_bytes().decode("utf-8", "replace")) == [], file
        # a history of figures tells of nobody
        assert file.stat().st_mode & 0o077 == 0 or file.stem == "figures", file


@long_runs
@pytest.mark.parametrize(
    ("version", "trouble"),
    [("4.4.19", "none"), ("5.8.9", "none"), ("4.4.19", "echo"), ("5.8.9", "echo"), ("5.8.9", "wrong key"),
     ("4.4.19", "down")],
)  # fmt: skip
def test_no_secret_of_a_task_is_in_its_log_or_in_the_database(
    version: str, trouble: str, tmp_path: Path, run_dag: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    v4 = version.startswith("4")
    waiting: dict[str, Any] = {"max_failures": 0, "timeout": 1}
    if trouble == "none":
        waiting = {"deferrable": True, "timeout": 0.6, "soft_fail": True}
    name = f"secrets_{version}_{trouble}".replace(" ", "_")
    with world(version, trouble, tmp_path, monkeypatch) as (broker, _):
        run = run_dag(every.dag_of(name, tmp_path, v4, **waiting))
        well, badly = set(), set()
        for task in run.get_task_instances():
            (badly if task.state == "failed" else well).add(task.task_id)
        waits = {task for task in well | badly if task.startswith("wait_")}
        if trouble == "none":
            assert badly == set()
            users = ("row-1", "good-1", "query-1", "api-1")
            assert all(broker.verify(user, PASSWORD) for user in users)
            assert broker.verify("row-2", SHORT)
        else:
            reading = {"export", "clients", "subscriptions", "figures", "alarms", "unban", "backup"}
            assert well <= (reading | waits if trouble == "echo" else set())
    assert shown(caplog.text) == []
    assert shown("".join(capfd.readouterr())) == []
    assert shown(stored()) == []
    check_files(tmp_path)


@long_runs
def test_a_task_that_fails_by_itself_shows_no_secret(
    tmp_path: Path, run_dag: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    with world("5.8.9", "none", tmp_path, monkeypatch):
        run = run_dag(every.failing_dag("secrets_failing", tmp_path))
    assert {str(task.state) for task in run.get_task_instances()} == {"failed"}
    output = "".join(capfd.readouterr())
    assert "could not be rendered: UndefinedError: 'nothing' is undefined" in output + caplog.text
    assert "could not be rendered: TemplateSyntaxError in line 1" in output + caplog.text
    assert "OperationalError: Could not decode to UTF-8 column" in output + caplog.text
    assert shown(caplog.text) == []
    assert shown(output) == []
    assert shown(stored()) == []


@pytest.mark.parametrize("trouble", ["none", "echo", "echo everything", "wrong key", "down"])
def test_no_error_shows_a_secret_however_it_is_looked_at(
    version: str, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    v4 = version.startswith("4")
    found: list[Exception] = []
    with world(version, trouble, tmp_path, monkeypatch):
        waiting = {"max_failures": 0, "timeout": 0.3}
        dags = [every.dag_of("all", tmp_path, v4, **waiting), every.failing_dag("failing", tmp_path)]
        for task in [task for dag in dags for task in dag.tasks if hasattr(task, "execute")]:
            try:
                task.execute({})
            except Exception as error:
                found.append(error)
    assert len(found) > 10
    for error in found:
        assert shown(told(error)) == []
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert shown(caplog.text + "".join(capfd.readouterr())) == []


def test_no_object_shows_a_secret_in_its_repr(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triggers, unsupported = 0, []
    with world(version, "none", tmp_path, monkeypatch):
        dag = every.dag_of("all", tmp_path, version.startswith("4"), deferrable=True)
        dag.get_task("measure").execute({})
        for task in dag.tasks:
            fields = [getattr(task, name, None) for name in task.template_fields]
            key = TaskInstanceKey(dag.dag_id, task.task_id, "run")
            links = [link.get_link(task, ti_key=key) for link in task.operator_extra_links]
            callbacks = [vars(callback) for callback in every.callbacks(task)]
            assert shown(f"{task!r} {task!s} {fields!r} {links!r} {callbacks!r}") == [], task.task_id
            if not task.task_id.startswith("wait_"):
                continue
            try:
                task.execute({})
            except EmqxUnsupportedError:
                unsupported.append(task.task_id)
            except TaskDeferred as deferred:
                triggers += 1
                trigger: Any = deferred.trigger
                words = f"{trigger!r} {vars(trigger)!r} {trigger.serialize()!r} {deferred!r} {pickle.dumps(deferred)!r}"
                assert shown(words) == [], task.task_id
    assert unsupported == (["wait_EmqxRetainedMessageSensor"] if version.startswith("4") else [])
    assert triggers + len(unsupported) == 10


@pytest.mark.parametrize("trouble", ["none", "echo everything", "wrong key", "down"])
def test_no_trigger_shows_a_secret(
    version: str, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    events: list[Any] = []

    async def watch(trigger: Any) -> None:
        async for event in trigger.run():
            events.append(event)  # noqa: PERF401 it never ends

    async def watch_all(broker: FakeEmqx) -> None:
        triggers = list(every.triggers(tmp_path))
        tasks = [asyncio.create_task(watch(trigger)) for trigger in triggers]
        # between the changes every watcher looks, whatever goes wrong with it: what they ask differs by trouble
        await asyncio.sleep(1)
        broker.disconnect("dev-1")
        await asyncio.sleep(0.5)  # as above
        broker.connect("dev-1")
        broker.raise_alarm("again")
        await asyncio.sleep(0.5)  # as above
        assert not any(task.done() for task in tasks[:4]), "a watcher never ends"
        assert shown(f"{triggers!r} {[trigger.serialize() for trigger in triggers]!r} {tasks!r}") == []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with world(version, trouble, tmp_path, monkeypatch) as (broker, _):
        asyncio.run(watch_all(broker))
    output = caplog.text + "".join(capfd.readouterr())
    told_of = {event.payload.get("event") or event.payload["status"] for event in events}
    if trouble == "none":
        assert told_of == {
            "client_online",
            "client_offline",
            "alarm_activated",
            "condition_met",
            "messages",
        }
    else:
        assert told_of == {"error"}
        assert "check failed" in output
    assert shown(f"{events!r}") == []
    assert shown(output) == []


@pytest.mark.parametrize("trouble", ["none", "echo", "wrong key", "down"])
@pytest.mark.parametrize("template", ["", every.NO_VARIABLE, every.NO_TEMPLATE])
def test_no_notifier_shows_a_secret(
    version: str, trouble: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    found: list[Exception] = []
    with world(version, trouble, tmp_path, monkeypatch):
        for payload in (f"{PAYLOAD} {template}", {"pin": PAYLOAD, "more": template}):
            notifier = EmqxPublishNotifier(topic="t/1", payload=payload)
            try:
                notifier({"dag": every.start("notifying")})
                asyncio.run(notifier.async_notify({}))
            except Exception as error:
                found.append(error)
            assert shown(f"{notifier!r} {vars(notifier)!r}") == []
    assert len(found) == (2 if template else 0)
    assert [shown(told(error)) for error in found] == [[]] * len(found)
    assert shown(caplog.text + "".join(capfd.readouterr())) == []


def test_every_class_of_this_provider_is_run_here(tmp_path: Path) -> None:
    assert {one.__name__ for one in every.public_classes() - every.classes_that_run(tmp_path)} == set()


def test_what_else_goes_wrong_in_a_template_is_told_by_its_kind_only() -> None:
    from airflow_provider_emqx.exceptions import EmqxError
    from airflow_provider_emqx.hidden import Hidden
    from airflow_provider_emqx.operators.topics import EmqxPublishOperator

    def broken(**_: Any) -> Any:
        raise ValueError(PASSWORD)

    task = EmqxPublishOperator(task_id="t", topic="t", payload="x")
    with pytest.raises(EmqxError, match="could not be rendered: ValueError$") as caught:
        task.render_template(Hidden(broken), {}, task.get_template_env())
    assert shown(told(caught.value)) == []


def test_every_local_file_with_outcomes_is_its_owners_alone(tmp_path: Path) -> None:
    """Also one that was everybody's before, one given by its URL, and where the process creates files for all."""
    import os

    from airflow_provider_emqx.conditions.base import Outcome
    from airflow_provider_emqx.conditions.ids import finish
    from airflow_provider_emqx.files import open_to_write

    outcome = Outcome(True, {"missing": [f"device-{number}" for number in range(1_500)]})
    before = os.umask(0)
    try:
        for name in ("new", "old"):
            places = [tmp_path / f"{name}-{kind}" for kind in ("plain", "url", "missing", "missing_url")]
            for place in places if name == "old" else ():
                place.write_text("old")
                place.chmod(0o644)
            for target in (str(places[0]), f"file://{places[1]}"):
                with open_to_write(target, "report") as file:
                    file.write(b"x")
            finish(outcome, str(places[2]))
            finish(outcome, f"file://{places[3]}")
            assert [place.stat().st_mode & 0o777 for place in places] == [0o600] * 4
    finally:
        os.umask(before)

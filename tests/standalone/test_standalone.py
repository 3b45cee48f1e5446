"""Waits under a real Airflow: scheduler, triggerer and API server as processes of their own. Takes some minutes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_emqx.testing import FakeEmqx

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(900)]

HERE = Path(__file__).resolve().parent
SECRET = "a-secret-that-must-not-show"


class Airflow:
    """
    ``airflow standalone``, and its REST API.

    :param home: for everything it writes.
    :param broker: that the connection ``emqx_default`` leads to.
    """

    def __init__(self, home: Path, broker: FakeEmqx) -> None:
        self.home = home
        api, worker_log, trigger_log = free_ports(3)
        self.url = f"http://127.0.0.1:{api}"
        self.fleet = home / "fleet.txt"
        self.fleet.write_text("\n".join(f"fleet-{number:04d}" for number in range(1_500)))
        ours = [name for name in os.environ if name.startswith("AIRFLOW")]
        self.environment = {name: value for name, value in os.environ.items() if name not in ours} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FLEET_FILE": str(self.fleet),
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_EMQX_DEFAULT": json.dumps(broker.connection()),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_log),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_log),
            "AIRFLOW__SCHEDULER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        }
        self.output = home / "standalone.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.session = requests.Session()
        self.session.trust_env = False

    def start(self) -> None:
        """Start everything, and wait until the API answers and all parts are healthy."""
        self.run("standalone")
        until(self._healthy, 300, self.tell)
        token = self.session.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def run(self, command: str) -> None:
        with self.output.open("ab") as output:
            self.processes.append(
                subprocess.Popen(
                    ["airflow", command],
                    env=self.environment,
                    cwd=self.home,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes:
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 20
            while (
                number is signal.SIGTERM and time.monotonic() < deadline and any(map(alive, self.processes))
            ):
                time.sleep(0.2)

    def kill_triggerer(self) -> None:
        """End the triggerer as a machine that fails would, and start another one."""
        group = self.processes[0].pid
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "-g", str(group)], capture_output=True, text=True, check=True
        ).stdout
        found = [line.split(None, 1) for line in listed.splitlines() if "triggerer" in line]
        assert found, listed
        for pid, _ in found:
            os.kill(int(pid), signal.SIGKILL)
        self.run("triggerer")

    def _healthy(self) -> bool:
        try:
            health = self.session.get(f"{self.url}/api/v2/monitor/health", timeout=10).json()
        except (requests.RequestException, ValueError):
            return False
        return all(
            health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor")
        )

    def get(self, path: str) -> Any:
        answer = self.session.get(f"{self.url}/api/v2/{path}", timeout=60)
        return answer.json() if answer.ok else {}

    def post(self, path: str, body: Any) -> Any:
        answer = self.session.post(f"{self.url}/api/v2/{path}", json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def states(self, dag: str, run: str) -> dict[str, str]:
        tasks = self.get(f"dags/{dag}/dagRuns/{run}/taskInstances").get("task_instances", [])
        return {task["task_id"]: task["state"] for task in tasks}

    def result(self, dag: str, run: str, task: str) -> Any:
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
        value = self.get(path)["value"]
        return json.loads(value) if isinstance(value, str) else value

    def tell(self) -> str:
        return self.output.read_text(errors="replace")[-5_000:] if self.output.exists() else ""


def alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(check: Callable[[], Any], seconds: float, tell: Callable[[], Any] = str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:g} s. {tell()}")


@pytest.fixture(scope="module", params=["5.8.9", "4.4.19"])
def broker(request: pytest.FixtureRequest) -> Iterator[FakeEmqx]:
    with FakeEmqx(request.param, secret=SECRET) as fake:
        yield fake


@pytest.fixture(scope="module")
def airflow(broker: FakeEmqx, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    running = Airflow(tmp_path_factory.mktemp("airflow"), broker)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_a_device_that_comes_online_starts_a_dag(airflow: Airflow, broker: FakeEmqx) -> None:
    broker.connect_many(["watched-0", "other-0"])

    def runs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = airflow.get("dags/on_online/dagRuns").get("dag_runs", [])
        return found

    until(lambda: airflow.get("dags/on_online").get("dag_id"), 300, airflow.tell)
    # the watcher has looked, and remembered what was there
    until(lambda: any("/clients?" in request.path for request in broker.requests), 120, airflow.tell)
    time.sleep(10)
    assert runs() == []
    broker.connect_many(["watched-1", "watched-2", "other-1"])
    run = until(lambda: [each for each in runs() if each["state"] == "success"], 180, airflow.tell)[0]
    assert airflow.result("on_online", run["dag_run_id"], "who") == ["watched-1", "watched-2"]
    time.sleep(10)
    assert len(runs()) == 1


def test_deferred_waits_go_on_also_when_the_triggerer_was_killed(airflow: Airflow, broker: FakeEmqx) -> None:
    until(lambda: airflow.get("dags/waits").get("dag_id"), 300, airflow.tell)
    run = airflow.post("dags/waits/dagRuns", {"logical_date": None})["dag_run_id"]

    def told() -> str:
        return f"{airflow.states('waits', run)} {airflow.tell()}"

    waiting = {"device", "fleet", "figure"}
    until(lambda: all(airflow.states("waits", run).get(task) == "deferred" for task in waiting), 240, told)
    with sqlite3.connect(airflow.home / "airflow.db") as database:
        stored = database.execute("SELECT classpath, kwargs FROM trigger").fetchall()
    assert any("EmqxConditionTrigger" in path for path, _ in stored)
    assert not any(SECRET in str(arguments) for _, arguments in stored)
    airflow.kill_triggerer()
    broker.connect("device-1")
    broker.connect_many(f"fleet-{number:04d}" for number in range(1_490))
    final = until(
        lambda: (
            (states := airflow.states("waits", run))
            and all(states[task] == "success" for task in waiting)
            and states["in_time"] == "skipped"
            and states
        ),
        300,
        told,
    )
    assert final["in_time"] == "skipped"
    fleet = airflow.result("waits", run, "fleet")
    assert (fleet["awaited"], fleet["online"], fleet["missing_count"]) == (1_500, 1_490, 10)
    assert fleet["missing"] == [f"fleet-{number:04d}" for number in range(1_490, 1_500)]
    assert airflow.result("waits", run, "device")["online"] == 1
    assert airflow.result("waits", run, "figure")["value"] >= 1_000
    assert all(request.method == "GET" for request in broker.requests)
    assert SECRET not in airflow.output.read_text(errors="replace")

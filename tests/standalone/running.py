"""A real Airflow: scheduler, triggerer, API server and workers as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.servers import free_ports

HERE = Path(__file__).resolve().parent


class Airflow:
    """
    ``airflow standalone``, and its REST API.

    :param home: for everything it writes.
    :param environment: of its processes, besides what every one needs.
    """

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        api, worker_log, trigger_log = free_ports(3)
        self.url = f"http://127.0.0.1:{api}"
        ours = [name for name in os.environ if name.startswith("AIRFLOW")]
        self.environment = {name: value for name, value in os.environ.items() if name not in ours} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_log),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_log),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            **environment,
        }
        self.output = home / "standalone.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.session = requests.Session()
        self.session.trust_env = False

    def start(self) -> None:
        """Start everything, and wait until the API answers and all parts are healthy."""
        self.run("standalone")
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        until(self._healthy, 300, self.tell)
        users = self.environment.get("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE")
        if users is None:
            answer = self.session.get(f"{self.url}/auth/token", timeout=30)
        else:
            login = {"username": "admin", "password": json.loads(Path(users).read_text())["admin"]}
            answer = self.session.post(f"{self.url}/auth/token", json=login, timeout=30)
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command of Airflow."""
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                ["airflow", *command],
                env=self.environment,
                cwd=self.home,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

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

    def children(self, *of: subprocess.Popen[bytes]) -> list[tuple[int, int, str]]:
        """Every process of this Airflow, or of some of its parts: its id, its parent's, its title."""
        groups = ",".join(str(process.pid) for process in of or self.processes)
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,ppid=,args=", "-g", groups], capture_output=True, text=True, check=True
        ).stdout
        found = [line.split(None, 2) for line in listed.splitlines()]
        return [(int(pid), int(parent), title) for pid, parent, title in found]

    def kill_triggerer(self, when: Callable[[], object] = bool) -> None:
        """
        End the triggerer as a machine that fails would, and start another one.

        :param when: returns at the moment at which it is to end.
        """
        found = [pid for pid, _, title in self.children() if "triggerer" in title]
        assert found, self.children()
        when()
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        self.run("triggerer")

    def kill_task(self, dag: str, run: str, task: str, worker: bool = False) -> None:
        """
        End the process that runs a task as the kernel does when memory runs out.

        :param dag: its DAG.
        :param run: the run.
        :param task: its name.
        :param worker: end also the process that watches over it, as when the whole worker goes.
        """
        title = f"airflow worker -- {self.tasks(dag, run)[task]['id']}"
        # the kernel cuts long titles off
        found = [
            (pid, parent)
            for pid, parent, shown in self.children()
            if len(shown) > 40 and title.startswith(shown)
        ]
        assert len(found) == 1, (title, self.children())
        [(pid, parent)] = found
        # the watcher first: it would tell how its task ended
        for each in [*([parent] if worker else []), pid]:
            os.kill(each, signal.SIGKILL)

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

    def trigger(self, dag: str, **conf: Any) -> str:
        """Start a run of a DAG, once it is known; gives the run's id."""
        until(lambda: self.get(f"dags/{dag}").get("dag_id"), 300, self.tell)
        return str(self.post(f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def instances(self, dag: str, run: str) -> list[dict[str, Any]]:
        """What Airflow tells of a run's tasks, each part of a mapped one for itself."""
        found: list[dict[str, Any]] = self.get(f"dags/{dag}/dagRuns/{run}/taskInstances").get(
            "task_instances", []
        )
        return found

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """What Airflow tells of a run's tasks."""
        return {task["task_id"]: task for task in self.instances(dag, run)}

    def states(self, dag: str, run: str) -> dict[str, str]:
        return {name: task["state"] for name, task in self.tasks(dag, run).items()}

    def result(self, dag: str, run: str, task: str, part: int = -1) -> Any:
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value?map_index={part}"
        value = self.get(path)["value"]
        return json.loads(value) if isinstance(value, str) else value

    def log(self, dag: str, run: str, task: str, attempt: int) -> str:
        """The log of one attempt of a task, as the UI shows it."""
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}?full_content=true"
        return json.dumps(self.get(path), ensure_ascii=False)

    def tell(self) -> str:
        return self.output.read_text(errors="replace")[-5_000:] if self.output.exists() else ""


def alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def until(check: Callable[[], Any], seconds: float, tell: Callable[[], Any] = str) -> Any:
    """
    Wait until something holds, for so long as a busy machine may need.

    :param check: tells whether it does.
    :param seconds: after which the test fails.
    :param tell: what to show then.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:g} s. {tell()}")

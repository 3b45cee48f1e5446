from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.servers import postgresql, redis
from tests.standalone.running import Airflow, alive, until

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "example_dags" / "provision_in_shards.py"
ROWS = 200_000
SCOPE = "example-sensor-"
#: rows that no broker takes, and rows whose id came before
REJECTED = range(100, ROWS, 20_000)
REPEATED = range(200, ROWS, 40_000)
#: users of the broker that are not in the source
GONE = 50


class CeleryAirflow(Airflow):
    """Airflow with two Celery workers, each part of it as a process of its own."""

    workers: dict[str, subprocess.Popen[bytes]]

    def start(self) -> None:
        with self.output.open("ab") as output:
            command = ["airflow", "db", "migrate"]
            subprocess.run(
                command, env=self.environment, cwd=self.home, stdout=output, stderr=output, check=True
            )
        for part in ("api-server", "scheduler", "dag-processor", "triggerer"):
            self.run(part)
        self.workers = {name: self._start_worker(name) for name in ("first", "second")}
        until(self._workers_are_ready, 300, self.tell)
        self.wait_until_healthy()

    def _workers_are_ready(self) -> bool:
        ended = [process.args for process in self.processes if not alive(process)]
        assert not ended, f"{ended}: {self.tell()}"
        written = self.output.read_text(errors="replace")
        return all(f"celery@{name} ready." in written for name in self.workers)

    def _start_worker(self, name: str) -> subprocess.Popen[bytes]:
        # the logs are where all of them write, so that the API server reads them without asking a worker
        options = ("--celery-hostname", f"celery@{name}", "--concurrency", "2", "--skip-serve-logs")
        return self.run("celery", "worker", *options)

    def parts_at(self, worker: str, dag: str, run: str) -> set[int]:
        """Which parts of the mapped tasks of a run a worker runs at present."""
        # the kernel cuts long titles off
        titles = tuple(title for _, _, title in self.children(self.workers[worker]) if len(title) > 40)
        return {
            one["map_index"]
            for one in self.instances(dag, run)
            if any(f"airflow worker -- {one['id']}".startswith(title) for title in titles)
        }

    def kill(self, worker: str) -> None:
        """End a worker and all that it runs, as a machine that fails would."""
        for pid, _, _ in self.children(self.workers[worker]):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.workers[worker].wait(30)


@pytest.fixture(scope="session")
def broker() -> Iterator[FakeEmqx]:
    """A broker of EMQX 5 that 200,000 users take half a minute of."""
    with FakeEmqx("5.8.9", pace=(7_000.0, 2_000.0), log_requests=False) as fake:
        yield fake


@pytest.fixture(scope="session")
def old_broker() -> Iterator[FakeEmqx]:
    with FakeEmqx("4.4.19", log_requests=False) as fake:
        yield fake


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    with (folder / "devices.csv").open("w") as file:
        file.write("user_id,password\n")
        for number in range(ROWS):
            user = number - 1 if number in REPEATED else number
            file.write(f"{SCOPE}{user:06d},{'' if number in REJECTED else f'password-{number:06d}'}\n")
    for part in range(4):
        names = "\n".join(f"fleet-{part}-{number:04d}" for number in range(500))
        (folder / f"fleet-{part}.txt").write_text(names)
    return folder


@pytest.fixture(scope="session")
def airflow(
    broker: FakeEmqx, old_broker: FakeEmqx, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CeleryAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(EXAMPLE, dags)
    shutil.copy(HERE / "dags" / "fleets.py", dags)
    connections: dict[str, Any] = {
        "EMQX_DEFAULT": broker.connection(),
        "EMQX_OLD": old_broker.connection(),
        "DEVICE_PEPPER": {"conn_type": "generic", "password": "a pepper of the tests " * 2},
    }
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        place = "{login}@{host}:{port}/{schema}".format(**database)
        running = CeleryAirflow(
            tmp_path_factory.mktemp("airflow"),
            {
                **{f"AIRFLOW_CONN_{name}": json.dumps(one) for name, one in connections.items()},
                "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that all processes of the tests share",
                "AIRFLOW__CELERY__BROKER_URL": stack.enter_context(redis()),
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CORE__PARALLELISM": "8",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{place}",
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
                "FILES": str(files),
            },
        )
        stack.callback(running.stop)
        running.start()
        yield running

"""
Tasks that are killed with SIGKILL, again and again, and end all the same.

An attempt is killed at a random time, at a random request, or by itself at a random call of a random part of the
package.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from airflow_provider_emqx.testing import FakeEmqx
from tests.processes import Forking, serve

MODES = ("upsert", "create", "delete", "sync")
#: parts of the package in which an attempt is killed
PARTS = (
    "sources",
    "check",
    "chunks",
    "engine",
    "writing",
    "hashing",
    "progress",
    "report",
    "state",
    "sync",
    "aio",
)
ROWS = 700
PEPPER = "AIRFLOW_CONN_PEPPER"


class Killer(Forking):
    """The process that waits for jobs."""

    def __init__(self) -> None:
        super().__init__(__name__)

    def end(self) -> dict[str, Any]:
        told = super().end()
        assert told["killed"] or "error" not in told, told
        return told

    def kill_at_write(self, broker: FakeEmqx, job: dict[str, Any], until: int) -> int:
        """
        Run a task, and kill it when it sends its write number ``until``, which is still done; 0 to let it end.

        :return: how many writes it has sent.
        """
        writes = 0
        attempts: list[int] = []

        def look(method: str, path: str) -> None:
            nonlocal writes
            writes += method != "GET"
            if method != "GET" and writes == until:
                with suppress(ProcessLookupError):
                    os.kill(attempts[0], signal.SIGKILL)

        with broker.state.lock:  # no request is served before the process is known
            broker.before_each_request(look)
            attempts.append(self.begin(job))
        killed = self.end()["killed"]
        broker.before_each_request(None)
        assert killed == (until > 0)
        return writes


@contextmanager
def killer() -> Iterator[Killer]:
    made = Killer()
    try:
        yield made
    finally:
        made.close()


class Case:
    """
    One task against one broker.

    :param chance: what differs between cases comes from it.
    :param version: of the broker.
    :param mode: of the operator.
    """

    def __init__(self, chance: random.Random, folder: Path, version: str, mode: str) -> None:
        self.version = version
        self.report_path = folder / "report.jsonl"
        self.store = str(folder / "store") if chance.random() < 0.5 else ""
        source = folder / "devices.csv"
        lines = [f"d{i},p{i}" for i in range(ROWS)]
        for at in range(0, ROWS, 90):
            lines.insert(at, chance.choice([f"d{at},", "..,x", f"d{at + 1},too,many", f'"d{at}', ",p"]))
        source.write_text("\n".join(["user_id,password", *lines]))
        self.arguments: dict[str, Any] = {
            "source": str(source),
            "report_path": str(self.report_path),
            "mode": mode,
        }
        if mode == "sync":
            self.arguments |= {"scope": "d*", "max_deletes": "90%", "protect": "d-kept"}
        hashed = tuple(map(int, version.split("."))) >= (5, 7)
        if mode in ("upsert", "sync") and chance.random() < 0.5:
            self.arguments |= {"state_path": str(folder / "state"), "pepper_conn_id": "pepper"}
        elif mode != "delete" and hashed and chance.random() < 0.5:
            self.arguments |= {"hash_passwords": True, "pepper_conn_id": "pepper"}
        self.before = (
            [f"d{i}" for i in range(0, ROWS, 7)] + [f"d-gone-{i}" for i in range(40)] + ["d-kept", "other"]
        )

    def broker(self) -> FakeEmqx:
        """Make a broker that has some of the users, and others."""
        made = FakeEmqx(self.version)
        for user_id in self.before:
            made.add_user(user_id, "old")
        return made

    def job(self, broker: FakeEmqx, store: str = "", at: tuple[str, int] | None = None) -> dict[str, Any]:
        return {
            "environment": {
                "AIRFLOW_CONN_EMQX_DEFAULT": json.dumps(broker.connection()),
                PEPPER: '{"conn_type": "generic", "password": "a long secret"}',
            },
            "arguments": self.arguments,
            "store": store,
            "at": at,
        }

    def result(self, broker: FakeEmqx) -> tuple[dict[str, bool], list[Any]]:
        """Give the users, with whether they have their new password, and the rejected rows."""
        users = {user_id: broker.verify(user_id, f"p{user_id[1:]}") for user_id in sorted(broker.users)}
        rows = [json.loads(line) for line in self.report_path.read_text().splitlines()]
        return users, sorted(
            (row["line"], row["id"], row["reason"]) for row in rows if row["outcome"] == "rejected"
        )


def run(killer: Killer, seed: int, folder: Path, version: str, mode: str, kills: int) -> int:
    """
    Run a task undisturbed, and then one that is killed; both must end alike.

    :return: how many times it was killed: an attempt may end before its time has come.
    """
    chance = random.Random(f"{seed} {version} {mode}")
    case = Case(chance, folder, version, mode)
    with case.broker() as broker:
        began = time.monotonic()
        killer.begin(case.job(broker))
        undisturbed = killer.end()
        lasts = time.monotonic() - began
        asks = broker.request_count
        expected = case.result(broker)
    for left in ("state", "store"):
        (folder / left).unlink(missing_ok=True)
    killed = 0
    with case.broker() as broker:
        for _ in range(kills):
            how = chance.choice(("time", "request", "call", "call"))
            at = (chance.choice(PARTS), int(2 ** chance.uniform(0, 9))) if how == "call" else None
            process = killer.begin(case.job(broker, case.store, at))
            if how == "time":
                time.sleep(chance.uniform(0, lasts))
            elif how == "request":
                until = broker.request_count + chance.randint(1, asks)
                while broker.request_count < until and _alive(process):
                    time.sleep(0.0005)
            if how != "call":
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            killed += killer.end()["killed"]
        killer.begin(case.job(broker, case.store))
        summary = killer.end()
        assert case.result(broker) == expected, (seed, version, mode, case.arguments, case.store)
        assert (
            summary["read"]
            == summary["written"] + summary["deleted"] + summary["skipped"] + summary["rejected"]
        )
        _compare(undisturbed, summary, mode)
        assert not (case.store and Path(case.store).exists())
    return killed


def _compare(undisturbed: dict[str, Any], summary: dict[str, Any], mode: str) -> None:
    """Hold the sums of the last attempt to what the documentation says of them."""
    assert (summary["read"], summary["rejected"]) == (undisturbed["read"], undisturbed["rejected"])
    # what a killed attempt had done, and was not kept, is there already
    verb = "deleted" if mode == "delete" else "written"
    more = summary["skipped"] - undisturbed["skipped"]
    assert undisturbed[verb] - summary[verb] == more >= 0
    assert mode in ("create", "delete") or not more
    assert summary["pruned"] <= undisturbed["pruned"]
    if None not in (summary["created"], undisturbed["created"]):
        assert summary["created"] <= undisturbed["created"]


def _alive(process: int) -> bool:
    # a child that has ended waits as a zombie until its parent asks
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# ---------------------------------------------------------------------- in the process that waits for jobs


class Store:
    """A file in the place of Airflow's task state store, replaced as a whole or not at all."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def get(self, key: str) -> Any:
        return json.loads(self._path.read_text()).get(key) if self._path.exists() else None

    def set(self, key: str, value: Any) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({key: value}))
        part.replace(self._path)

    def delete(self, key: str) -> None:
        self._path.unlink(missing_ok=True)


def kill_at(part: str, calls: int) -> None:
    """Let this process kill itself at a call of a function of one of the package's modules, in any thread."""
    name, left = f"{os.sep}{part}.py", calls

    def count(frame: Any, event: str, argument: object) -> None:
        nonlocal left
        code = frame.f_code.co_filename
        if event == "call" and code.endswith(name) and "airflow_provider_emqx" in code:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)


def attempt(job: dict[str, Any]) -> dict[str, Any]:
    from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
    from airflow_provider_emqx.provisioning import progress

    progress.EVERY = 0.0
    os.environ.update(job["environment"])
    operator = EmqxProvisionUsersOperator(task_id="x", **job["arguments"])
    context: Any = {"task_state_store": Store(job["store"])} if job["store"] else {}
    if job["at"]:
        kill_at(*job["at"])
    return operator.execute(context)  # type: ignore[no-any-return]


if __name__ == "__main__":
    serve(attempt, "airflow_provider_emqx.operators.auth", "airflow_provider_emqx.provisioning.task")

"""
Tasks that Airflow stops: processes that get a SIGTERM while they work.

A process with everything imported waits for jobs, and forks for each. What a task does with the signal is what Airflow
does: from 3.0 on it calls ``on_kill`` and goes on until it ends or SIGKILL comes, before it also raises.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from typing import Any


class Stopper:
    """The process that waits for jobs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._tell() == "ready"

    def close(self) -> None:
        self._process.communicate()

    def begin(self, job: dict[str, Any]) -> int:
        """Begin a task and return the id of its process."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._tell())

    def end(self) -> dict[str, Any]:
        """Wait for the task's end; return its result, what it pushed, and the name of the error that ended it."""
        return json.loads(self._tell())  # type: ignore[no-any-return]

    def _tell(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


# ---------------------------------------------------------------------- in the process that waits for jobs


class Terminated(BaseException):
    """What Airflow before 3.0 raises."""


class TI:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def run(job: dict[str, Any]) -> dict[str, Any]:
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(job["connection"])
    module, _, name = job["operator"].rpartition(".")
    operator = getattr(importlib.import_module(module), name)(task_id="x", **job["arguments"])
    ti = TI()
    told: dict[str, Any] = {"result": None, "pushed": ti.pushed, "error": None}

    def on_term(number: int, frame: object) -> None:
        operator.on_kill()
        if job["raises"]:
            raise Terminated

    signal.signal(signal.SIGTERM, on_term)
    try:
        told["result"] = operator.execute({"ti": ti})
    except BaseException as error:
        told["error"] = type(error).__name__
    return told


def serve() -> None:
    # Airflow writes to standard output as well
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import asyncio  # noqa: F401  what a task would import itself

    import aiohttp  # noqa: F401
    import requests  # noqa: F401

    import airflow_provider_emqx.hooks.emqx
    import airflow_provider_emqx.operators.auth
    import airflow_provider_emqx.operators.topics  # noqa: F401
    from airflow_provider_emqx.provisioning import chunks

    # many small requests, so that there is much to interrupt
    chunks.Pace.__init__.__defaults__ = (40, 100, *chunks.Pace.__init__.__defaults__[2:])
    print("ready", file=out)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(run(json.loads(line)), pipe)
            os._exit(0)
        os.close(writing)
        print(child, file=out)
        with os.fdopen(reading) as pipe:
            content = pipe.read()
        os.waitpid(child, 0)
        print(content or json.dumps({"error": "nothing told"}), file=out)


if __name__ == "__main__":
    serve()

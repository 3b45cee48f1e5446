"""
Tasks in processes that tests stop or kill.

A process with everything imported waits for jobs, and forks for each, so that a task begins within milliseconds.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Forking:
    """
    The process that waits for jobs.

    :param module: that calls :func:`serve` where it is run.
    """

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=Path(__file__).parent.parent,
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
        """Wait for the task's end; return whether it was killed, and what it told otherwise."""
        return json.loads(self._tell())  # type: ignore[no-any-return]

    def _tell(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def serve(work: Callable[[dict[str, Any]], dict[str, Any]], *modules: str) -> None:
    """
    Wait for jobs.

    :param work: does a job in a process of its own, and returns what is told of it.
    :param modules: what it would import otherwise.
    """
    # Airflow writes to standard output as well
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from airflow_provider_emqx.provisioning import chunks

    for module in ("asyncio", "aiohttp", "requests", "airflow_provider_emqx.hooks.emqx", *modules):
        importlib.import_module(module)
    # many small requests, so that there is much to interrupt
    chunks.Pace.__init__.__defaults__ = (40, 100, *chunks.Pace.__init__.__defaults__[2:])
    print("ready", file=out)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            try:
                told = work(json.loads(line))
            except BaseException as error:
                told = {"error": repr(error)}
            sys.setprofile(None)
            os.write(writing, json.dumps(told).encode())
            os._exit(0)
        os.close(writing)
        print(child, file=out)
        with os.fdopen(reading, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        print(
            json.dumps({"killed": killed, **(json.loads(content) if content and not killed else {})}),
            file=out,
        )

"""
Tasks that Airflow stops: processes that get a SIGTERM while they work.

What a task does with the signal is what Airflow does: from 3.0 on it calls ``on_kill`` and goes on until it ends or
SIGKILL comes, before it also raises.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
from typing import Any

from tests.processes import Forking, serve


class Stopper(Forking):
    """The process that waits for jobs."""

    def __init__(self) -> None:
        super().__init__(__name__)


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


if __name__ == "__main__":
    serve(run, "airflow_provider_emqx.operators.auth", "airflow_provider_emqx.operators.topics")

"""What the tests of commands share beside their fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_emqx.testing import FakeEmqx

#: connects devices and says how they answer
Fleet = Callable[..., list[str]]


class TaskInstance:
    """What the operator looks at of an attempt."""

    dag_id, run_id, task_id, map_index = "dag", "run", "task", -1

    def __init__(self, try_number: int = 1) -> None:
        self.try_number = try_number
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def lines(path: Path) -> dict[str, dict[str, Any]]:
    """Return the report's last line of each device."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["clientid"]: row for row in found if row["clientid"]}


def got(broker: FakeEmqx, clientid: str) -> int:
    """Return how often a device got a command."""
    return len([message for message in broker.received(clientid) if message.topic.endswith("/command")])

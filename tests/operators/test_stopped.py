"""A task that Airflow stops ends after the requests under way, and tells exactly what it has done."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.conftest import GENERATIONS
from tests.operators.stopped import Stopper

COUNT = 2_000
IDS = [f"d{number}" for number in range(COUNT)]
TOPICS = [f"t/{number}" for number in range(500)]


class Job(NamedTuple):
    """
    One operator at work.

    :param operator: its class.
    :param arguments: its arguments.
    :param prepare: what the broker needs for it.
    :param done: counts what the broker has done of it.
    :param told: counts what a result tells as done.
    :param every: how many there are to do.
    :param outcome: of those done, in the report, if there is one.
    """

    operator: str
    arguments: dict[str, Any]
    prepare: Callable[[FakeEmqx], Any]
    done: Callable[[FakeEmqx], int]
    told: Callable[[dict[str, Any]], int]
    every: int = COUNT
    outcome: str = ""


def count(outcome: str) -> Callable[[dict[str, Any]], int]:
    return lambda result: int(result["counts"].get(outcome, 0))


def users(broker: FakeEmqx) -> None:
    for name in IDS:
        broker.add_user(name, "old")


def retained(broker: FakeEmqx) -> None:
    if not broker.version.startswith("4"):
        broker.limit_retained(None)
    for name in IDS:
        broker.publish(f"r/{name}", b"x", retain=True)


def listener(broker: FakeEmqx) -> None:
    broker.connect("listener")
    broker.subscribe("listener", "cmd/#")


JOBS = {
    "kick": Job(
        "operators.clients.EmqxKickClientsOperator",
        {"clientids": IDS},
        lambda broker: broker.connect_many(IDS),
        lambda broker: COUNT - len(broker.clients),
        count("kicked"),
        outcome="kicked",
    ),
    "clear": Job(
        "operators.topics.EmqxClearRetainedOperator",
        {"topics": [f"r/{name}" for name in IDS]},
        retained,
        lambda broker: COUNT - len(broker.retained),
        count("deleted"),
        outcome="deleted",
    ),
    "subscribe": Job(
        "operators.clients.EmqxSubscribeOperator",
        {"clientids": IDS, "topics": "t"},
        lambda broker: broker.connect_many(IDS),
        lambda broker: sum(bool(client.subscriptions) for client in broker.clients.values()),
        count("subscribed"),
        outcome="subscribed",
    ),
    "publish": Job(
        "operators.topics.EmqxPublishOperator",
        {"messages": [{"topic": f"cmd/{number}", "payload": "x"} for number in range(6_000)]},
        listener,
        lambda broker: len(broker.received("listener")),
        lambda result: int(sum(result["counts"].values()) - result["counts"].get("unknown", 0)),
        6_000,
    ),
    "ban": Job(
        "operators.auth.EmqxBanOperator",
        {"kind": "username", "who": IDS, "until": "infinity"},
        lambda broker: None,
        lambda broker: len(broker.bans),
        count("banned"),
        outcome="banned",
    ),
    "upsert": Job(
        "operators.auth.EmqxProvisionUsersOperator",
        {"source": [{"user_id": name, "password": "p"} for name in IDS]},
        lambda broker: None,
        lambda broker: len(broker.users),
        lambda result: int(result["written"]),
    ),
    "delete": Job(
        "operators.auth.EmqxProvisionUsersOperator",
        {"source": [{"user_id": name} for name in IDS], "mode": "delete"},
        users,
        lambda broker: COUNT - len(broker.users),
        lambda result: int(result["deleted"]),
    ),
    "prune": Job(
        "operators.auth.EmqxProvisionUsersOperator",
        {"source": [{"user_id": "other"}], "mode": "prune", "scope": "d*", "max_deletes": "100%"},
        users,
        lambda broker: COUNT - len(broker.users),
        lambda result: int(result["pruned"]),
        outcome="pruned",
    ),
    "measure": Job(
        "operators.topics.EmqxTopicMetricsOperator",
        {"topics": TOPICS, "action": "register"},
        lambda broker: None,
        lambda broker: len(broker.topic_metrics),
        lambda result: len(result["topics"]),
        len(TOPICS),
    ),
}


@pytest.fixture(scope="module")
def stopper() -> Iterator[Stopper]:
    made = Stopper()
    yield made
    made.close()


@pytest.mark.parametrize("raises", [False, True], ids=["goes_on", "raises"])
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("version", GENERATIONS)
def test_a_task_that_is_stopped_tells_what_it_has_done(
    stopper: Stopper, tmp_path: Path, version: str, name: str, raises: bool
) -> None:
    job, report = JOBS[name], tmp_path / "report.jsonl"
    with FakeEmqx(version, pace=(4_000.0, 1_500.0), log_requests=False) as broker:
        job.prepare(broker)
        process = stopper.begin(
            {
                "operator": f"airflow_provider_emqx.{job.operator}",
                "arguments": job.arguments | ({"report_path": str(report)} if job.outcome else {}),
                "connection": broker.connection(),
                "raises": raises,
            }
        )
        while not job.done(broker):
            time.sleep(0.001)
        os.kill(process, signal.SIGTERM)
        told = stopper.end()
        done = job.done(broker)
    assert told["error"] == ("Terminated" if raises else "EmqxStoppedError"), told
    result = told["pushed"].get("return_value")
    assert 0 < done < job.every, (done, result)
    if raises:
        # it may be raised anywhere, in the middle of a request too
        assert result is None or job.told(result) <= done, (done, result)
    else:
        assert job.told(result) == done, (done, json.dumps(result)[:500])
    if job.outcome:
        rows = [json.loads(line) for line in report.read_text().splitlines()]
        assert sum(row["outcome"] == job.outcome for row in rows) == (job.told(result) if result else 0)

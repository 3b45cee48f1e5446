"""Messages that start DAGs, while the triggerer is killed at the worst moment."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.needs import needs
from tests.secrets.planted import PAYLOAD
from tests.standalone.running import Airflow, until

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(900)]

SESSION = "told-watcher"


@needs("apache-airflow", "3.3", "says when it has stored an event")
def test_no_message_is_lost_between_delivery_and_storing(airflow: Airflow, broker: FakeEmqx) -> None:
    def listens() -> bool:
        client = broker.clients.get(SESSION)
        return client is not None and client.connected and bool(client.subscriptions)

    def stored() -> list[str]:
        # a request that fails, as on a locked database, says nothing of what is stored
        answer = until(lambda: airflow.get("assets/events?limit=1000&order_by=-timestamp"), 60, airflow.tell)
        events = answer["asset_events"]
        payloads: list[dict[str, Any]] = [event["extra"].get("payload", {}) for event in events]
        assert PAYLOAD not in str(events)
        return [
            message["topic"]
            for payload in payloads
            if payload.get("event") == "messages"
            for message in payload["messages"]
        ]

    sent: set[str] = set()

    def deliver() -> None:
        """Send some messages, and return as soon as the first ones are on their way to the triggerer."""
        first = len(sent)
        for number in range(15):
            topic = f"told/{first}/{number}"
            sent.add(topic)
            broker.publish(topic, PAYLOAD, qos=1)
        deadline = time.monotonic() + 60
        while not broker.clients[SESSION].inflight:
            assert time.monotonic() < deadline, airflow.tell()
            time.sleep(0.001)

    until(listens, 300, airflow.tell)
    before_storing = 0
    for _ in range(4):
        already = len(sent)
        airflow.kill_triggerer(deliver)
        before_storing += not (
            set(stored()) & {topic for topic in sent if topic.startswith(f"told/{already}/")}
        )
        until(listens, 300, airflow.tell)
    # else this would prove nothing
    assert before_storing >= 3
    until(lambda: set(stored()) >= sent, 300, lambda: f"{sent - set(stored())} {airflow.tell()}")
    # what is stored is acknowledged, and does not come again
    until(lambda: not broker.clients[SESSION].inflight and not broker.clients[SESSION].mqueue, 120)
    count = len(stored())
    airflow.kill_triggerer()
    until(lambda: not broker.clients[SESSION].connected, 120, airflow.tell)
    until(listens, 300, airflow.tell)
    broker.publish("told/end", PAYLOAD, qos=1)
    until(lambda: "told/end" in stored(), 300, airflow.tell)
    assert len(stored()) == count + 1
    runs = until(
        lambda: [
            run
            for run in airflow.get("dags/on_message/dagRuns?limit=100")["dag_runs"]
            if run["state"] == "success"
        ],
        300,
        airflow.tell,
    )
    assert runs


def test_a_wait_for_a_message_goes_on_when_worker_and_triggerer_are_killed(
    airflow: Airflow, broker: FakeEmqx
) -> None:
    run = airflow.trigger("wait_for_messages")

    def told() -> str:
        return f"{airflow.states('wait_for_messages', run)} {airflow.tell()}"

    def sessions() -> dict[str, bool]:
        """Whether somebody is connected to the session of each wait."""
        found = {}
        for client in list(broker.clients.values()):
            for topic in ("answers/worker", "answers/triggerer"):
                if topic in client.subscriptions:
                    found[topic] = client.connected
        return found

    both = {"answers/worker": True, "answers/triggerer": True}
    until(lambda: sessions() == both, 240, told)
    airflow.kill_task("wait_for_messages", run, "worker", worker=True)
    airflow.kill_triggerer()
    until(lambda: not any(sessions().values()), 60, told)
    # nobody listens: the broker keeps what is expected, and what is not
    assert len(sessions()) == 2
    for topic in both:
        for payload in ("not yet", PAYLOAD, "later"):
            broker.publish(topic, payload, qos=1)
    until(lambda: set(airflow.states("wait_for_messages", run).values()) == {"success"}, 300, told)
    for task in ("worker", "triggerer"):
        result = airflow.result("wait_for_messages", run, task)
        assert result == {
            "topic": f"answers/{task}",
            "qos": 1,
            "retained": False,
            "size": len(PAYLOAD.encode()),
        }
    # the sessions have ended with the tasks
    assert sessions() == {}

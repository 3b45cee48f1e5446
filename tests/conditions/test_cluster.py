"""What a look at the cluster says."""

from __future__ import annotations

import time

from airflow_provider_emqx.conditions.kinds import load
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx


def test_thousands_of_alarms_are_one_short_line(broker: FakeEmqx) -> None:
    """EMQX raises one per congested client, and this is logged at every look."""
    for number in range(3_000):
        broker.raise_alarm(f"conn_congestion/device-{number:04d}/user")
    condition = load("cluster_healthy", {"no_alarms": "*"})
    with EmqxHook() as hook:
        outcome = hook.run(condition.ask(hook.api, time.time()))
    assert not outcome.met
    assert "3,000 active alarms: conn_congestion/device-0000/user, " in outcome.text
    assert len(outcome.text) < 1_000
    assert len(outcome.details["alarms"]) == 3_000

"""What sensors that wait on a worker do when the broker misbehaves meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConnectionError, EmqxServerError
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.testing import FakeEmqx


def sensor(**arguments: Any) -> EmqxClientOnlineSensor:
    return EmqxClientOnlineSensor(task_id="sensor", clientids="dev-1", poke_interval=0.01, **arguments)


def test_a_broker_that_is_down_for_a_while_is_outlived(broker: FakeEmqx) -> None:
    broker.connect("dev-1")
    waiting = sensor(max_failures=2)
    broker.stop()
    assert not waiting.poke({})
    assert not waiting.poke({})
    broker.start()
    assert waiting.poke({})


@pytest.mark.parametrize("kind", ["reset", "truncated", "garbage", "status"])
def test_failures_in_a_row_are_counted_and_the_last_one_is_raised(broker: FakeEmqx, kind: str) -> None:
    waiting = sensor(max_failures=1)
    assert not waiting.poke({})
    broker.order_fault(kind, status=500, times=10_000)
    assert not waiting.poke({})
    with pytest.raises((EmqxConnectionError, EmqxServerError)):
        waiting.poke({})


def test_a_look_that_succeeds_clears_the_count(broker: FakeEmqx) -> None:
    waiting = sensor(max_failures=1)
    for _ in range(3):
        broker.order_fault("status", status=503, times=10_000)
        assert not waiting.poke({})
        broker.clear_faults()
        assert not waiting.poke({})


def test_in_reschedule_mode_failures_are_not_counted(broker: FakeEmqx) -> None:
    waiting = sensor(max_failures=0, mode="reschedule")
    broker.stop()
    assert not waiting.poke({})
    assert not waiting.poke({})


def test_silent_fail_waits_on(broker: FakeEmqx, airflow_db: None) -> None:
    waiting = sensor(max_failures=0, silent_fail=True, timeout=0.5, soft_fail=True)
    broker.stop()
    with pytest.raises(AirflowSkipException, match="timed out"):
        waiting.execute({})


def test_a_wrong_key_is_tried_once(broker: FakeEmqx) -> None:
    broker.remove_key("key")
    with pytest.raises(EmqxAuthError):
        sensor().poke({})
    asked = [request.path for request in broker.requests if "/clients/dev-1" in request.path]
    assert len(asked) == 1


def test_a_key_that_is_replaced_during_the_wait_is_taken_over(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = sensor()
    assert not waiting.poke({})
    broker.remove_key("key")
    broker.add_key("new", "newer")
    replaced = {**broker.connection(), "login": "new", "password": "newer"}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(replaced))
    broker.connect("dev-1")
    assert waiting.poke({})


def test_a_broker_that_moves_during_the_wait_is_found_again(
    broker: FakeEmqx, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = sensor(max_failures=0)
    assert not waiting.poke({})
    broker.stop()
    with FakeEmqx(version) as moved:
        moved.connect("dev-1")
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(moved.connection()))
        assert waiting.poke({})


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_a_skip_tells_why(broker: FakeEmqx, airflow_db: None, flag: str) -> None:
    """Airflow's own words would be that the flag is set, or how long it took."""
    late = sensor(timeout=0, **{flag: True})
    with pytest.raises(AirflowSkipException, match=rf"{flag}.*timed out.*not online: dev-1"):
        late.execute({})
    broker.remove_key("key")
    with pytest.raises(AirflowSkipException, match=rf"{flag}.*GET /clients/dev-1.*401"):
        sensor(**{flag: True}).execute({})

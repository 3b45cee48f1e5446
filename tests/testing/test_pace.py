from __future__ import annotations

import json

import pytest

from airflow_provider_emqx.testing import PACE_V4, PACE_V5, FakeEmqx
from airflow_provider_emqx.testing.http import Answer
from airflow_provider_emqx.testing.pace import Pace
from tests.testing.calls import IMPORT, call


def written(rows: int) -> Answer:
    answer = Answer(200)
    answer.written = rows
    return answer


def test_requests_queue_for_one_server() -> None:
    pace = Pace(rows=1000, calls=10)
    assert pace.wait(0.0, written(0)) == pytest.approx(0.1)
    assert pace.wait(0.0, written(0)) == pytest.approx(0.2)
    assert pace.wait(0.15, written(100)) == pytest.approx(0.05 + 0.1 + 0.1)
    assert pace.wait(5.0, written(0)) == pytest.approx(0.1)  # idle since then


def test_what_a_call_costs_depends_on_what_it_looks_at() -> None:
    broker = FakeEmqx(log_requests=False)
    broker.connect_many(f"d{number}" for number in range(100))
    dispatcher = broker._dispatcher

    def cost(path: str) -> tuple[float, float]:
        from airflow_provider_emqx.testing.http import Request

        headers = {"Authorization": "Basic a2V5OnNlY3JldA=="}
        answer = dispatcher.answer(Request("GET", f"/api/v5{path}", headers, b""))
        assert answer.status == 200
        return answer.cost, answer.read

    assert cost("/clients/d1")[0] == pytest.approx(7_000 / 11_900)
    assert cost("/clients?limit=100") == (1.0, pytest.approx(100 * 100e-6))
    assert cost("/clients?limit=100&fields=clientid") == (1.0, pytest.approx(100 * 14e-6))
    assert cost("/clients?clientid=d1") == (1.0, pytest.approx(100e-6 + 100 * 4e-6))


@pytest.mark.parametrize("pace", [(0, 1), (1, 0), (-1, 5)])
def test_a_pace_is_above_0(pace: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        FakeEmqx(pace=pace)


@pytest.mark.parametrize(("version", "pace"), [("4.4.19", PACE_V4), ("5.8.9", PACE_V5)])
def test_a_paced_broker_does_the_same_work(version: str, pace: tuple[float, float]) -> None:
    with FakeEmqx(version, pace=pace) as broker:
        name = "username" if version == "4.4.19" else "user_id"
        rows = [{name: f"u{number}", "password": "p"} for number in range(50)]
        path = "/auth_username" if version == "4.4.19" else IMPORT + "?type=plain"
        assert call(broker, "POST", path, rows).status == 200
        assert len(broker.users) == 50
        assert json.loads(broker.requests[0].body) == rows

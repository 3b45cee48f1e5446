"""One sensor for ten thousand devices."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.testing import FakeEmqx
from tests.sensors.conftest import before_question


def test_a_fleet_of_ten_thousand_is_waited_for(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx, tmp_path: Path
) -> None:
    ids = [f"device-{number:05}" for number in range(10_000)]
    file = tmp_path / "fleet.txt"
    file.write_text("\n".join(ids))
    broker.connect_many(ids[:9_000])
    coming = threading.Timer(0.2, broker.connect_many, [ids[9_000:9_905]])
    coming.start()
    state, result = wait(
        EmqxClientOnlineSensor, clientids_path=str(file), quorum="99%", timeout=120, poke_interval=1, **mode
    )
    coming.join()
    assert state == "success"
    assert (result["awaited"], result["needed"]) == (10_000, 9_900)
    assert result["online"] == 10_000 - result["missing_count"] >= 9_900
    assert set(result["missing"]) >= set(ids[9_905:])
    # sweeps, and the missing ones once more before the result says so
    single = [request for request in broker.requests if "/clients/" in request.path]
    assert len(single) <= 100


def test_missing_ids_go_to_a_file(wait: Any, mode: dict[str, Any], broker: FakeEmqx, tmp_path: Path) -> None:
    ids = [f"device-{number:05}" for number in range(3_000)]
    file, missing = tmp_path / "fleet.txt", tmp_path / "missing.txt"
    file.write_text("\n".join(ids))
    coming = threading.Timer(0.2, broker.connect, [ids[0]])
    coming.start()
    arguments = {"clientids_path": str(file), "quorum": "any", "missing_path": str(missing)}
    state, result = wait(EmqxClientOnlineSensor, **arguments, **mode)
    coming.join()
    assert (state, result["missing_count"], len(result["missing"])) == ("success", 2_999, 1_000)
    assert missing.read_text().split() == ids[1:]


def test_a_thousand_and_one_ids_are_not_handed_to_the_triggerer(wait: Any, broker: FakeEmqx) -> None:
    ids = [f"device-{number:05}" for number in range(1_001)]
    assert wait(EmqxClientOnlineSensor, clientids=ids, deferrable=True)[0] == "failed"
    assert broker.requests == []


def test_a_broker_that_is_down_for_a_while_is_outlived(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx
) -> None:
    def outage() -> None:
        broker.stop()
        broker.connect("dev-1")
        # long enough that looks fail: nobody sees them
        threading.Timer(0.5, broker.start).start()

    # a function of the broker cannot stop it
    before_question(broker, 3, threading.Thread(target=outage).start)
    assert wait(EmqxClientOnlineSensor, clientids="dev-1", **mode)[0] == "success"


def test_a_key_that_is_refused_meanwhile_ends_the_wait(
    wait: Any, mode: dict[str, Any], broker: FakeEmqx
) -> None:
    before_question(broker, 3, lambda: broker.remove_key("key"))
    assert wait(EmqxClientOnlineSensor, clientids="dev-1", **mode)[0] == "failed"
    refused = [
        request for request in broker.requests if request.status == 401 and "/clients/" in request.path
    ]
    assert len(refused) == 1


def test_stalls_are_outlived(wait: Any, mode: dict[str, Any], broker: FakeEmqx) -> None:
    broker.order_fault("stall", seconds=0.2, times=2)
    broker.connect_later("dev-1", 0.2)
    assert wait(EmqxClientOnlineSensor, clientids="dev-1", **mode)[0] == "success"

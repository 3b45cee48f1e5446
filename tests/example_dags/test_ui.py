"""Every example DAG runs with its own parameters at the broker of ``make ui``."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from tests.needs import needs

pytest.importorskip("airflow.sdk", reason="needs apache-airflow 3.0: make ui starts an Airflow 3")
pytestmark = needs(
    "apache-airflow", "3.2", "object storage takes relative paths, as the DAGs' parameters have them"
)

ROOT = Path(__file__).parent.parent.parent
DAGS = sorted(path.stem for path in (ROOT / "example_dags").glob("*.py"))
RUNS = [
    (name, version)
    for name in DAGS
    for version in ("4.4.19", "5.8.9")
    # hashes need EMQX 5.7
    if (name, version) not in (("provision_in_shards", "4.4.19"), ("move_to_emqx_5", "4.4.19"))
    # that one waits for a person, see test_approval.py
    and name != "approve_then_sync"
]


def load(path: Path) -> Any:
    """Load a file as a module of its own: other tests change the DAGs that they import."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world() -> Any:
    return load(ROOT / ".ci" / "ui_broker.py")


@pytest.fixture
def living(version: str, world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeEmqx]:
    """The broker of ``make ui``, whose days are a little shorter here."""
    monkeypatch.chdir(tmp_path)
    world.write_files()
    broker = FakeEmqx(
        version, nodes=world.NODES, edition="Enterprise", password_hash_algorithm=world.ALGORITHM
    )
    world.furnish(broker)
    ended = threading.Event()

    def live() -> None:
        second = 0
        while not ended.wait(0.02):
            world.live(broker, second)
            second += 1

    living = threading.Thread(target=live)
    with broker:
        monkeypatch.setenv(
            "AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(mqtt_url=broker.mqtt_url))
        )
        monkeypatch.setenv("AIRFLOW_CONN_DEVICE_PEPPER", "generic://:a-long-enough-pepper@")
        living.start()
        yield broker
        ended.set()
        living.join()


@pytest.fixture
def pools(airflow_db: None) -> None:
    from airflow.models.pool import Pool

    Pool.create_or_update_pool("emqx", slots=1, description="", include_deferred=False)


@pytest.mark.parametrize(("name", "version"), RUNS)
def test_a_dag_runs_with_its_own_parameters(
    name: str, living: FakeEmqx, pools: None, run_dag: Callable[..., Any]
) -> None:
    dag = load(ROOT / "example_dags" / f"{name}.py").dag
    for task in dag.tasks:
        if hasattr(task, "poke_interval"):
            task.poke_interval = 0.2
        if hasattr(task, "poll_interval"):
            task.poll_interval = 0.2
        for span in ("stable_for", "pause"):
            if getattr(task, span, None):
                setattr(task, span, 0.1)
    if name == "upgrade_node":
        # an evacuation waits a minute here and there
        living.before_each_request(lambda method, path: living.advance(5))
    assert run_dag(dag).state == "success"


def test_the_night_finds_something_to_do(
    living: FakeEmqx, world: Any, pools: None, run_dag: Callable[..., Any]
) -> None:
    dag = load(ROOT / "example_dags" / "nightly_devices.py").dag
    assert run_dag(dag, run_conf={"dry_run": False}).state == "success"
    assert set(living.users) == set(world.USERS)
    assert not set(world.RETIRED) & set(living.clients)


DESTRUCTIVE = [
    "control_access",
    "kick_stale_clients",
    "look_after_topics",
    "nightly_devices",
    "nightly_upkeep",
]


@pytest.mark.parametrize("name", DESTRUCTIVE)
def test_a_destructive_dag_takes_nothing_away_unless_it_is_told_to(
    name: str, living: FakeEmqx, world: Any, pools: None, run_dag: Callable[..., Any]
) -> None:
    dag = load(ROOT / "example_dags" / f"{name}.py").dag

    def kept() -> tuple[set[str], set[str], int]:
        with EmqxHook() as hook:
            history = len(list(hook.list_alarms(activated=False)))
        return set(living.users), set(living.retained), history

    before = kept()
    assert dag.schedule is None
    assert run_dag(dag).state == "success"
    assert kept() == before
    assert {"example-device-lost", "gateway-1", *world.RETIRED} <= set(living.clients)


@pytest.mark.parametrize("name", ["command_device", "roll_out_firmware", "wait_for_device", "wait_for_done"])
def test_a_dag_names_devices_that_no_fleet_of_ones_own_has(name: str, world: Any) -> None:
    params = load(ROOT / "example_dags" / f"{name}.py").dag.params.dump()
    devices = params["devices"] if "devices" in params else [params["clientid"]]
    assert set(devices) <= set(world.DEVICES)
    assert all(device.startswith("example-device-") for device in devices)
    assert params.get("topic", f"cmd/{devices[0]}") == f"cmd/{devices[0]}"


def test_the_files_are_made_without_a_broker(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ui_broker.py", "--files-only"])
    world.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "acl.csv",
        "devices.csv",
        "export.json",
        "fleet.txt",
    ]


def test_the_past_is_of_dags_and_devices_that_exist(world: Any, tmp_path: Path) -> None:
    past = load(ROOT / ".ci" / "ui_runs.py")
    dags = {
        name: load(ROOT / "example_dags" / f"{name}.py").dag for name in ("provision_users", "nightly_upkeep")
    }
    assert tuple(dag.dag_id for dag in dags.values()) == (past.PROVISION, past.UPKEEP)
    assert past.SCOPE == world.SCOPE
    for day in range(past.DAYS):
        past.write(tmp_path / "devices.csv", day)
        header, *rows = (tmp_path / "devices.csv").read_text().splitlines()
        assert header == "user_id,password"
        assert all(row.startswith(world.SCOPE) for row in rows)
        # few enough for the limit of the DAG, which is 5 %
        assert sum(row.endswith(",") for row in rows) + 1 < 0.05 * len(rows)

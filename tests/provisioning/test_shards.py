from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.provisioning.shards import Shard

SUMS = ("read", "written", "skipped", "rejected", "created")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = [f"d{i},p{i}" for i in range(1_500)]
    for at, bad in enumerate(
        ["d5,again", ",p", "..,p", "few", "too,many,fields", "d7,", '"open,x', "d1400,again"]
    ):
        lines.insert(100 * at + 50, bad)
    path = tmp_path / "devices.csv"
    path.write_bytes("\n".join(["user_id,password", *lines]).encode() + b"\nm\xff,p\nd8,again\n")
    return path


def execute(**arguments: Any) -> dict[str, Any]:
    return EmqxProvisionUsersOperator(task_id="x", **arguments).execute({})  # type: ignore[no-any-return]


def test_the_sums_of_the_shards_are_those_of_a_single_run(broker: Any, source: Path, tmp_path: Path) -> None:
    parts = [execute(source=source, shard=(i, 4), report_path=tmp_path / f"{i}.jsonl") for i in range(4)]
    users = set(broker.users)
    lines = sorted(line for i in range(4) for line in (tmp_path / f"{i}.jsonl").read_text().splitlines())
    assert min(part["read"] for part in parts) > 200
    broker_version = type(broker)(broker.version)
    with broker_version as fresh, pytest.MonkeyPatch.context() as patch:
        import json

        patch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fresh.connection()))
        single = execute(source=source, report_path=tmp_path / "single.jsonl")
        assert set(fresh.users) == users
    assert {name: sum(part[name] for part in parts) for name in SUMS} == {name: single[name] for name in SUMS}
    assert lines == sorted((tmp_path / "single.jsonl").read_text().splitlines())


def test_shards_are_mapped_tasks(broker: Any, run_dag: Any, source: Path, version: str) -> None:
    with DAG(f"shards_{version.replace('.', '_')}") as dag:
        write = EmqxProvisionUsersOperator.partial(task_id="write", source=str(source), retries=0).expand(
            shard=[(0, 2), (1, 2)]
        )
        prune = EmqxProvisionUsersOperator(
            task_id="prune", source=str(source), mode="prune", scope="d*", max_deletes=5, retries=0
        )
        write >> prune
    broker.add_user("d-gone", "p")
    run = run_dag(dag)
    # one id of the file cannot be read, so that nobody is deleted
    assert run.state == "success"
    assert len(broker.users) == 1_501
    text = source.read_bytes().replace(b"m\xff", b"m")
    source.write_bytes(text)
    assert run_dag(dag).state == "success"
    assert "d-gone" not in broker.users
    assert len(broker.users) == 1_501


@pytest.mark.parametrize(
    ("given", "read"),
    [(None, None), ("", None), ((0, 1), (0, 1)), ([3, 4], (3, 4)), ("1/2", (1, 2)), ("(1, 2)", (1, 2))],
)
def test_a_shard_is_read(given: Any, read: tuple[int, int] | None) -> None:
    assert Shard.read(given) == read


@pytest.mark.parametrize("given", [(4, 4), (-1, 4), (0, 0), (0,), (0, 1, 2), "half", ("a", "b"), 5])
def test_what_is_no_part_of_a_whole_is_refused(given: Any) -> None:
    with pytest.raises(EmqxConfigError, match="shard must be"):
        Shard.read(given)


@pytest.mark.parametrize("version", ["5.8.9"])
def test_the_example_dag(broker: Any, run_dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from example_dags.provision_in_shards import dag

    monkeypatch.setenv("AIRFLOW_CONN_DEVICE_PEPPER", '{"conn_type": "generic", "password": "a long secret"}')
    source = tmp_path / "devices.csv"
    source.write_text("user_id,password\n" + "".join(f"sensor-{i},p{i}\n" for i in range(100)))
    for number in range(4):
        broker.add_user(f"sensor-gone-{number}", "p")
    run = run_dag(dag, run_conf={"source": str(source), "scope": "sensor-*", "dry_run": False})
    assert run.state == "success"
    assert set(broker.users) == {f"sensor-{i}" for i in range(100)}
    assert broker.verify("sensor-7", "p7")
    told = run.get_task_instance("summarize").xcom_pull(task_ids="summarize")
    assert told == "100 written in 4 parts, 4 deleted"

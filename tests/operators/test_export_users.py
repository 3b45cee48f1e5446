from __future__ import annotations

import csv
import gzip
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError
from airflow_provider_emqx.operators.auth import EmqxExportUsersOperator, EmqxProvisionUsersOperator

STRANGE = ["a,b", 'c"d', "設備", "e\nf", "plain"]


def execute(**arguments: Any) -> dict[str, Any]:
    return EmqxExportUsersOperator(task_id="x", **arguments).execute({})  # type: ignore[no-any-return]


@pytest.fixture
def filled(broker: Any) -> Any:
    for user_id in STRANGE:
        broker.add_user(user_id, "S3cret")
    return broker


@pytest.mark.parametrize("name", ["users.csv", "users.jsonl", "users.csv.gz", "new/users.jsonl.gz"])
def test_ids_and_flags_are_written_and_nothing_else(
    filled: Any, tmp_path: Path, version: str, name: str
) -> None:
    path = tmp_path / name
    summary = execute(output_path=str(path))
    four = version.startswith("4")
    assert summary == {
        "users": 5,
        "superusers": None if four else 0,
        "output_path": str(path),
        "listing_moved": False,
        "left_out": 0,
        "password_hash_algorithm": None,
    }
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    assert b"S3cret" not in content
    if ".csv" in name:
        rows = list(csv.DictReader(content.decode().splitlines(keepends=True)))
        assert {row["is_superuser"] for row in rows} == {"false"}
    else:
        rows = [json.loads(line) for line in content.splitlines()]
        assert {row["is_superuser"] for row in rows} == {None if four else False}
    assert sorted(row["user_id"] for row in rows) == sorted(STRANGE)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize("name", ["users.csv", "users.jsonl.gz"])
def test_an_export_can_be_the_source_of_a_deletion(filled: Any, tmp_path: Path, name: str) -> None:
    execute(output_path=tmp_path / name)
    EmqxProvisionUsersOperator(task_id="x", source=tmp_path / name, mode="delete").execute({})
    assert not filled.users


@pytest.mark.parametrize("version", ["5.8.9"])
def test_superusers_only(filled: Any, tmp_path: Path) -> None:
    filled.add_user("root", "p", is_superuser=True)
    assert execute(output_path=tmp_path / "x.csv", is_superuser="true")["users"] == 1
    assert (tmp_path / "x.csv").read_text().split() == ["user_id,is_superuser", "root,true"]
    assert execute(output_path=tmp_path / "x.csv", is_superuser="")["superusers"] == 1


def test_many_pages_and_no_user_at_all(broker: Any, tmp_path: Path) -> None:
    assert execute(output_path=tmp_path / "x.csv")["users"] == 0
    for number in range(12_000):
        broker.add_user(f"d{number}", "p")
    assert execute(output_path=f"file://{tmp_path}/x.csv")["users"] == 12_000
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 12_001


def test_a_wrong_name_and_a_broker_that_refuses_leave_the_file_alone(broker: Any, tmp_path: Path) -> None:
    with pytest.raises(EmqxConfigError, match="must end in"):
        execute(output_path=tmp_path / "x.txt")
    (tmp_path / "x.csv").write_text("of yesterday")
    broker.order_fault("status", status=401, match=lambda method, path: "user" in path, times=9)
    with pytest.raises(EmqxAuthError):
        execute(output_path=tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "of yesterday"


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl.gz"])
@pytest.mark.parametrize("url", ["", "file://"])
def test_an_export_that_fails_leaves_the_local_file_alone(
    broker: Any, tmp_path: Path, name: str, url: str
) -> None:
    for number in range(12_000):
        broker.add_user(f"d{number}", "p")
    (tmp_path / name).write_text("of yesterday")
    broker.order_fault("status", status=401, match="/users?", after=1, times=9)
    with pytest.raises(EmqxAuthError):
        execute(output_path=f"{url}{tmp_path}/{name}")
    assert (tmp_path / name).read_text() == "of yesterday"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_link_stays_a_link_and_a_pipe_is_written_as_it_is(filled: Any, tmp_path: Path) -> None:
    (tmp_path / "x.csv").symlink_to(tmp_path / "real.csv")
    execute(output_path=tmp_path / "x.csv")
    assert (tmp_path / "x.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("user_id")
    os.mkfifo(tmp_path / "pipe.csv")
    reader = os.open(tmp_path / "pipe.csv", os.O_RDONLY | os.O_NONBLOCK)
    execute(output_path=tmp_path / "pipe.csv")
    assert os.read(reader, 1 << 16).startswith(b"user_id")
    os.close(reader)

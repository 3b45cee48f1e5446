from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxError
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator
from tests.servers import postgresql

pytest.importorskip("airflow.providers.sqlite", reason="needs apache-airflow-providers-sqlite")

ROWS = 2_500
QUERY = "SELECT device AS user_id, secret AS password, admin AS is_superuser FROM devices ORDER BY device"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "devices.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE devices (device TEXT, secret TEXT, admin BOOLEAN, number INTEGER)")
        connection.executemany(
            "INSERT INTO devices VALUES (?, ?, ?, ?)",
            [(f"d{i:04d}", f"p{i}" if i != 7 else None, False, i) for i in range(ROWS)],
        )
    monkeypatch.setenv("AIRFLOW_CONN_DEVICES", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


def execute(**arguments: Any) -> dict[str, Any]:
    arguments = {"task_id": "x", "sql": QUERY, "sql_conn_id": "devices", **arguments}
    return SqlToEmqxUsersOperator(**arguments).execute({})  # type: ignore[no-any-return]


def test_rows_of_a_query_become_users(broker: Any, database: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    summary = execute(report_path=report)
    assert (summary["read"], summary["written"], summary["rejected"]) == (ROWS, ROWS - 1, 1)
    assert broker.verify("d2499", "p2499")
    assert json.loads(report.read_text()) == {
        "id": "d0007",
        "line": 8,
        "outcome": "rejected",
        "reason": "password is missing",
    }


def test_a_database_kept_in_sync(broker: Any, database: Path) -> None:
    for number in range(5):
        broker.add_user(f"d-gone-{number}", "p")
    broker.add_user("other", "p")
    summary = execute(mode="sync", scope="d*")
    assert summary["pruned"] == 5
    assert "other" in broker.users
    # its row was rejected, so that it would have stayed
    assert "d0007" not in broker.users


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
def test_a_query_by_archive(broker: Any, database: Path) -> None:
    for number in range(5):
        broker.add_user(f"d-gone-{number}", "p")
    broker.add_user("d0001", "p1")
    summary = execute(mode="sync", scope="d*", bulk="archive")
    assert (summary["written"], summary["created"], summary["unchanged"]) == (ROWS - 1, ROWS - 2, 1)
    assert (summary["rejected"], summary["pruned"]) == (1, 5)
    assert broker.verify("d2499", "p2499")
    assert not broker.state.backups


def test_parameters_columns_and_names_in_capitals(broker: Any, database: Path) -> None:
    summary = execute(
        sql="SELECT device AS DEVICE, secret AS PASSWORD FROM devices WHERE device < ?",
        parameters=["d0005"],
        columns={"user_id": "Device"},
        fetch_size=2,
    )
    assert summary["written"] == 5


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("size", ["x", 0, -5, 2.5])
def test_a_fetch_size_that_is_no_number_of_rows_is_refused(broker: Any, database: Path, size: Any) -> None:
    with pytest.raises(EmqxConfigError, match="fetch_size must be a"):
        execute(fetch_size=size)
    assert not broker.requests


def test_numbers_are_rejected(broker: Any, database: Path) -> None:
    with pytest.raises(EmqxConfigError, match="all 2,500 rows"):
        execute(sql="SELECT number AS user_id, secret AS password FROM devices")


def test_what_cannot_be_read_is_told_before_anything_is_sent(
    broker: Any, database: Path, monkeypatch: Any
) -> None:
    with pytest.raises(EmqxConfigError, match="no column 'password', only user_id"):
        execute(sql="SELECT device AS user_id FROM devices")
    with pytest.raises(EmqxConfigError, match="the column 'password' twice"):
        execute(sql="SELECT device AS user_id, secret AS password, 'x' AS PASSWORD FROM devices")
    with pytest.raises(EmqxError, match="connection 'devices' failed: OperationalError"):
        execute(sql="SELECT * FROM nothing")
    monkeypatch.setenv("AIRFLOW_CONN_DEVICES", json.dumps(broker.connection()))
    with pytest.raises(EmqxConfigError, match="no database"):
        execute()
    assert not broker.requests


def test_a_run_that_fails_leaves_no_connection_to_the_database(
    broker: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.sqlite.hooks.sqlite import SqliteHook

    opened: list[sqlite3.Connection] = []
    get_conn = SqliteHook.get_conn

    def kept(hook: Any) -> sqlite3.Connection:
        opened.append(get_conn(hook))
        return opened[-1]

    monkeypatch.setattr(SqliteHook, "get_conn", kept)
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps({**broker.connection(), "password": "wrong"}))
    # the error holds on to the frames that read
    with pytest.raises(EmqxAuthError) as caught:
        execute(fetch_size=10)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")
    assert len(opened) == 1
    assert caught.value.__traceback__


def test_it_runs_in_a_dag_with_templates(broker: Any, run_dag: Any, database: Path, version: str) -> None:
    with DAG(f"sql_{version.replace('.', '_')}", params={"below": "d0003"}) as dag:
        SqlToEmqxUsersOperator(
            task_id="x",
            sql=QUERY.replace("ORDER", "WHERE device < '{{ params.below }}' ORDER"),
            sql_conn_id="devices",
        )
    assert run_dag(dag).state == "success"
    assert sorted(broker.users) == ["d0000", "d0001", "d0002"]


# ---------------------------------------------------------------------- a real PostgreSQL


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict[str, Any]]:
    """A PostgreSQL server of the tests' own."""
    pytest.importorskip("airflow.providers.postgres", reason="needs apache-airflow-providers-postgres")
    programs = shutil.which("pg_ctl") and shutil.which("initdb")
    if not programs:
        pytest.skip("needs PostgreSQL")
    with postgresql() as connection:
        yield connection


def test_postgresql_keeps_the_result_and_gives_it_out_as_it_is_asked_for(
    broker: Any, postgres: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DEVICES", json.dumps(postgres))
    summary = execute(
        sql="SELECT 'd' || i AS user_id, 'ü' || i AS password, i < 0 AS is_superuser "
        "FROM generate_series(1, %(count)s) AS i",
        parameters={"count": 3_000},
        fetch_size=400,
    )
    assert summary["written"] == 3_000
    assert broker.verify("d3000", "ü3000")
    # the division by zero comes when most rows have been fetched: with a result read at once none would be written
    with pytest.raises(EmqxError, match="connection 'devices' failed"):
        execute(
            sql="SELECT 'e' || i AS user_id, 'p' || 1 / (2000 - i) AS password FROM generate_series(1, 3000) AS i",
            fetch_size=400,
        )
    assert sum(user_id.startswith("e") for user_id in broker.users) == 1_600


def test_a_cursor_that_gives_dicts_and_padded_columns(
    broker: Any, mocker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    cursor = mocker.MagicMock()
    cursor.description = [("user_id",), ("password",)]
    row = {"user_id": "dev-1   ", "password": "pw  "}
    cursor.fetchmany.side_effect = lambda size: next(pages)
    hook = mocker.MagicMock(spec=DbApiHook)
    hook.get_conn.return_value.cursor.return_value = cursor
    mocker.patch("airflow_provider_emqx.transfers.reading._hook", return_value=hook)
    pages = iter([[row], []])
    with pytest.raises(EmqxError, match="every row|rejected"):
        execute(sql="SELECT 1", sql_conn_id="db")
    pages = iter([[row], []])
    assert execute(sql="SELECT 1", sql_conn_id="db", source_options={"strip": True})["written"] == 1
    assert broker.verify("dev-1", "pw")


@pytest.mark.parametrize("uri", ["generic://host", "no-such-type://host"])
def test_a_connection_without_a_hook_is_told_in_our_words(
    broker: Any, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", uri)
    with pytest.raises(EmqxConfigError, match="has no hook here .*expected a connection of a database"):
        execute(sql="SELECT 1", sql_conn_id="db")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"format": "csv"}, "format is for files"),
        ({"source_options": {"delimiter": ";"}}, "delimiter is for files"),
    ],
)
def test_what_describes_a_file_is_refused_for_a_query(given: dict[str, Any], told: str) -> None:
    with pytest.raises(EmqxConfigError, match=told):
        SqlToEmqxUsersOperator(task_id="x", sql="SELECT 1", sql_conn_id="db", **given)

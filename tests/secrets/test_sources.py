"""Of what may hold rows, Airflow shows a path or a URL, before and after rendering, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.conditions import ids
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hidden import Hidden, plain
from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier
from airflow_provider_emqx.operators.auth import EmqxProvisionAclOperator, EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.sources import read_source
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator

PASSWORD = "pl4nted-PASS"
ROW = {"user_id": "dev-1", "password": PASSWORD}


class Rows:
    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter([ROW])

    def __repr__(self) -> str:
        return f"Rows({ROW})"


class Frame:
    """What pandas' DataFrame is to us."""

    columns = ("user_id", "password")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __eq__(self, other: object) -> Any:
        raise ValueError("The truth value of a DataFrame is ambiguous")

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self, orient: str) -> list[dict[str, str]]:
        assert orient == "records"
        return [ROW]

    def __repr__(self) -> str:
        return f"Frame({ROW})"


TEXTS = [
    json.dumps([ROW]),
    str([ROW]),
    str(tuple(ROW.items())),
    json.dumps(ROW),
    f"user_id,password\ndev-1,{PASSWORD}\n",
    f"dev-1,{PASSWORD}",
    f"dev-1;{PASSWORD}",
    f"/site/dev-1,{PASSWORD}",
    f"dev-1\t{PASSWORD}",
    f"dev-1 {PASSWORD}",
    f"s3://user:{PASSWORD}@bucket/x.csv",
    f"https://host/x.csv?signature={PASSWORD}",
    f"{PASSWORD}",
]
OTHERS = [[ROW], (ROW,), ROW, {1: ROW}.values(), Rows(), Frame(), (row for row in [ROW]), PASSWORD.encode()]
PLACES = [
    "/data/devices.csv",
    "/data/batch #2.csv",
    "[x] 4.csv",
    "batch 3?.csv",
    "devices.csv.gz",
    "data/2026-01-01/*.jsonl",
    "s3://bucket/exports/{{ ds }}/",
    "s3://aws_default@bucket/x.parquet",
    "{{ ds }}.csv",
    "/data/{{ params['day'] }}.csv",
    Path("anything"),
]
OPERATORS = [EmqxProvisionUsersOperator, EmqxProvisionAclOperator]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("source", [*TEXTS, *OTHERS])
def test_rows_are_hidden_before_and_after_rendering(operator: Any, source: Any) -> None:
    task = operator(task_id="t", source=source)
    assert isinstance(task.source, Hidden)
    assert PASSWORD not in f"{task.source!r} {task.source!s} {task.source.serialize()}"
    task.render_template_fields({})
    assert isinstance(task.source, Hidden)
    # Jinja leaves out a line break at the end
    expected = source.rstrip("\n") if isinstance(source, str) else source
    assert plain(task.source) is expected or plain(task.source) == expected


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_template_that_renders_to_rows_is_hidden(operator: Any, text: str) -> None:
    task = operator(task_id="t", source="{{ rows }}")
    task.render_template_fields({"rows": text})
    assert isinstance(task.source, Hidden)
    assert plain(task.source) == text


@pytest.mark.parametrize("source", PLACES, ids=str)
def test_a_path_or_url_is_shown(source: Any) -> None:
    for operator in OPERATORS:
        assert operator(task_id="t", source=source).source is source


def test_a_template_is_shown_once_it_is_a_path() -> None:
    task = EmqxProvisionUsersOperator(task_id="t", source="{{ params.source }}")
    assert isinstance(task.source, Hidden)
    task.render_template_fields({"params": {"source": "/data/devices.csv"}})
    assert task.source == "/data/devices.csv"


@pytest.mark.parametrize("text", [text for text in TEXTS if "://" not in text and text[0] != "/"])
def test_text_that_may_be_rows_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(EmqxConfigError, match="neither a URL nor a path that exists here") as caught:
        read_source(text, Format())
    assert PASSWORD not in str(caught.value)


def test_a_file_of_any_name_is_read_if_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("devices", "a,b {1}"):
        Path(name).write_text("user_id,password\ndev-1,pw\n")
        blocks = list(read_source(name, Format(name="csv")).blocks)
        assert sum(len(block.lines) for block in blocks) == 1


def test_a_data_frame_is_read_row_by_row() -> None:
    blocks = list(read_source(Frame(), Format()).blocks)
    assert [list(column) for column in blocks[0].columns[:2]] == [["dev-1"], [PASSWORD]]


def test_what_else_users_send_is_hidden() -> None:
    properties = {"user_properties": {"token": PASSWORD}}
    query = SqlToEmqxUsersOperator(task_id="q", sql="s", sql_conn_id="c", parameters={"key": PASSWORD})
    publish = EmqxPublishOperator(task_id="p", topic="t", payload="x", properties=properties)
    query.render_template_fields({})
    publish.render_template_fields({})
    notifier = EmqxPublishNotifier(topic="t", payload="x", properties=properties)
    for hidden in (query.parameters, publish.properties, notifier.properties):
        assert isinstance(hidden, Hidden)
        assert PASSWORD not in repr(hidden)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fleet.txt", f"clientid,password\ndev-1,{PASSWORD}\n"),
        ("fleet.txt", f"dev-0\ndev-1;{PASSWORD}\n"),
        ("fleet.txt", f"dev-1\t{PASSWORD}\n"),
        ("fleet.txt", f"dev-1 {PASSWORD}\ndev-2 {PASSWORD}\n"),
        ("fleet.txt", json.dumps({"clientid": "dev-1", "password": PASSWORD})),
        ("fleet.txt", json.dumps([{"clientid": "dev-1", "password": PASSWORD}], indent=1)),
        ("fleet.csv", f"password\n{PASSWORD}\n"),
        ("fleet.CSV.gz", f"{PASSWORD}\n"),
    ],
)
def test_a_file_of_rows_is_no_file_of_client_ids(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(EmqxConfigError, match="fleet.*write the ids alone") as caught:
        ids.read_file(str(file))
    assert PASSWORD not in str(caught.value)


def test_a_file_of_client_ids_may_hold_spaces_and_braces_within_ids(tmp_path: Path) -> None:
    file = tmp_path / "fleet.txt"
    file.write_text("dev-1\nsite 7/dev{2}\n\ndev-1\n")
    assert ids.read_file(str(file)) == ["dev-1", "site 7/dev{2}"]


@pytest.mark.parametrize("clientids", [str([ROW]), json.dumps([ROW]), [ROW], [(PASSWORD,)]], ids=str)
def test_rows_in_place_of_client_ids_are_refused_without_being_shown(clientids: Any) -> None:
    with pytest.raises(EmqxConfigError) as caught:
        ids.given(clientids, None)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:S3cretOfTheUrl@bucket/x.csv",
        "http://user:S3cretOfTheUrl@127.0.0.1:1/x.csv",
        "http://127.0.0.1:1/x.csv?X-Amz-Signature=S3cretOfTheUrl&a=S3cretOfTheUrl",
    ],
)
def test_no_error_names_the_credentials_of_a_url(url: str) -> None:
    from airflow_provider_emqx.files import shown
    from airflow_provider_emqx.provisioning.blocks import Format
    from airflow_provider_emqx.provisioning.sources import read_source

    assert "S3cret" not in shown(url)
    with pytest.raises(Exception) as caught:
        list(read_source(url, Format()).blocks)
    told = f"{caught.value!s} {caught.value!r}"
    assert "S3cret" not in told


def test_rows_beside_the_output_of_a_task_are_hidden_and_wait_for_it() -> None:
    from airflow.providers.common.compat.sdk import DAG, BaseOperator

    from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
    from airflow_provider_emqx.operators.topics import EmqxPublishOperator

    with DAG("mixed", schedule=None):
        other = BaseOperator(task_id="other")
        rows = [{"user_id": "a", "password": "S3cretBesideIt"}, {"user_id": other.output, "password": "x"}]
        mixed = EmqxProvisionUsersOperator(task_id="mixed", source=rows)
        publish = EmqxPublishOperator(
            task_id="publish", messages=[{"topic": "t", "payload": "S3cretBesideIt"}, other.output]
        )
        alone = EmqxProvisionUsersOperator(task_id="alone", source=other.output)
    assert mixed.upstream_task_ids == publish.upstream_task_ids == alone.upstream_task_ids == {"other"}
    assert "S3cret" not in f"{mixed.source!r} {publish.messages!r}"

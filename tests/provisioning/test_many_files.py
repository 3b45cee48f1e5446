from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.auth import EmqxProvisionAclOperator, EmqxProvisionUsersOperator
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.sources import Source, _known, find, read_file, takes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "devices"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.csv").write_text("user_id,password\nb1,p\n,p\n")
    (folder / "a.jsonl").write_text(
        '{"user_id": "a1", "password": "p"}\n{"user_id": "b1", "password": "p"}\n'
    )
    (folder / "c.json.gz").write_bytes(gzip.compress(b'[{"user_id": "c1", "password": "p"}]'))
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.csv").write_text("")
    (folder / "README.md").write_text("no rows")
    (folder / "sub" / "d.csv").write_text("user_id,password\nd1,p\n")
    return folder


def names(source: Any, folder: Path) -> list[str]:
    return [
        str(file).removeprefix("file://").removeprefix(f"{folder}/") for file in find(source, Format()).files
    ]


def test_a_directory_stands_for_its_files_of_rows(folder: Path) -> None:
    expected = ["a.jsonl", "b.csv", "c.json.gz"]
    assert names(str(folder), folder) == expected
    assert names(folder, folder) == expected
    assert names(f"file://{folder}/", folder) == expected


def test_a_pattern_stands_for_the_files_that_match(folder: Path) -> None:
    assert names(f"{folder}/*.csv", folder) == ["b.csv"]
    assert names(f"{folder}/**/*.csv", folder) == ["b.csv", "sub/d.csv"]
    assert names(f"file://{folder}/*.csv", folder) == ["b.csv"]
    assert names(f"file://{folder}/[ab]*", folder) == ["a.jsonl", "b.csv"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "devices[1].csv"
    path.write_text("user_id,password\na,p\n")
    assert names(path, tmp_path) == ["devices[1].csv"]


def test_a_file_that_is_missing_is_not_left_out_in_silence(broker: Any, folder: Path) -> None:
    (folder / "d.csv").symlink_to(folder / "gone.csv")
    for source in (folder, folder / "*.csv"):
        with pytest.raises(EmqxConfigError, match="file '.*d.csv' not found"):
            EmqxProvisionUsersOperator(task_id="x", source=source, mode="sync", scope="*").execute({})


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A directory of files whose names look like patterns and web addresses."""
    odd = tmp_path / "[odd] #1?"
    odd.mkdir()
    for at, name in enumerate(("batch 1.csv", "batch #2.csv", "batch 3?.csv", "[x] 4.csv", "5%20.csv")):
        rows = "".join(f"d{at}-{i},p\n" for i in range(20))
        (odd / name).write_text(f"user_id,password\n{rows}")
    return odd


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("url", ["", "file://"])
@pytest.mark.parametrize("place", ["", "/", "/*.csv", "/*"])
def test_names_are_neither_web_addresses_nor_patterns(broker: Any, odd: Path, url: str, place: str) -> None:
    operator = EmqxProvisionUsersOperator(
        task_id="x", source=f"{url}{odd}{place}", mode="sync", scope="d*", report_path=odd.parent / "r.jsonl"
    )
    assert operator.execute({})["written"] == len(broker.users) == 100
    assert operator.execute({})["pruned"] == 0


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("url", ["", "file://"])
def test_a_file_that_exists_is_read_whatever_its_name(broker: Any, odd: Path, url: str) -> None:
    for file in odd.iterdir():
        (odd.parent / "[odd] #1?x").mkdir(exist_ok=True)
        source = f"{url}{file}"
        assert find(source, Format()).files == [source]
        assert EmqxProvisionUsersOperator(task_id="x", source=source).execute({})["written"] == 20
    assert len(broker.users) == 100


def test_only_what_a_store_takes_off_a_name_is_no_part_of_it() -> None:
    for url in (
        "https://example.com/x.csv?token=a.b",
        "https://example.com/x.csv#part",
        "s3://fleet/x.csv?versionId=a.b",
        "gs://fleet/x.csv#1700000000000000",
    ):
        assert _known(url) == "csv"
    for url in ("s3://fleet/x.csv?v=1", "s3://fleet/x.csv#1", "gs://fleet/x.csv?v", "file:///x.csv?y"):
        assert _known(url) is None
    assert _known("s3://fleet/a?b#c.jsonl.zst") == "jsonl"


def unread(folder: Path) -> list[str]:
    return [f"{folder}/README.md", f"{folder}/sub"]


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("url", ["", "file://"])
@pytest.mark.parametrize("report", ["r.jsonl", "r.csv"])
def test_what_is_not_read_is_told_and_keeps_all_users(
    broker: Any, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, report: str
) -> None:
    broker.add_user("gone", "p")
    for mode in ("sync", "prune"):
        caplog.clear()
        operator = EmqxProvisionUsersOperator(
            task_id="x", source=f"{url}{folder}", mode=mode, scope="*", report_path=tmp_path / report
        )
        summary = operator.execute({})
        assert [name.removeprefix("file://") for name in summary["unread"]] == unread(folder)
        assert (summary["pruned"], "gone" in broker.users) == (0, True)
        told = (tmp_path / report).read_text()
        assert told.count("unread") == 2
        for name in unread(folder):
            assert name in told
            assert name in caplog.text
        assert "Nobody is deleted: 2 files or directories of the source are not read" in caplog.text


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("place", "how", "named"),
    [
        ("/*.csv", {}, []),
        ("/sub", {}, []),
        ("", {"format": "csv"}, ["sub"]),
        ("/sub/", {"format": "csv"}, []),
    ],
)
def test_a_pattern_or_a_format_says_which_files_are_meant(
    broker: Any, folder: Path, place: str, how: dict[str, str], named: list[str]
) -> None:
    for name in ("README.md", "a.jsonl", "c.json.gz"):
        (folder / name).write_text("user_id,password\nx,p\n")
    broker.add_user("gone", "p")
    operator = EmqxProvisionUsersOperator(
        task_id="x", source=f"{folder}{place}", mode="sync", scope="*", max_rejected="90%", **how
    )
    summary = operator.execute({})
    assert summary["unread"] == [f"{folder}/{name}" for name in named]
    assert (summary["pruned"], "gone" in broker.users) == (1, False)


@pytest.mark.parametrize("version", ["5.8.9"])
def test_rules_of_files_that_are_not_read_are_told(broker: Any, folder: Path, tmp_path: Path) -> None:
    (folder / "b.csv").write_text("username,topic,permission\na,t,allow\n")
    for name in ("a.jsonl", "c.json.gz"):
        (folder / name).unlink()
    report = tmp_path / "r.jsonl"
    summary = EmqxProvisionAclOperator(task_id="x", source=folder, report_path=report).execute({})
    assert (summary["written"], summary["unread"]) == (1, unread(folder))
    assert [json.loads(line)["file"] for line in report.read_text().splitlines()] == unread(folder)


def test_no_files_are_an_error(tmp_path: Path) -> None:
    for source in (tmp_path, f"{tmp_path}/*.csv", f"file://{tmp_path}/", f"file://{tmp_path}/*.csv"):
        with pytest.raises(EmqxConfigError, match="no data files found"):
            find(source, Format())


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_rejected_rows_tell_their_file(broker: Any, folder: Path, tmp_path: Path, name: str) -> None:
    report = tmp_path / name
    (folder / "README.md").unlink()
    (folder / "sub").rename(folder / "_sub")
    operator = EmqxProvisionUsersOperator(task_id="x", source=str(folder), report_path=report)
    summary = operator.execute({})
    assert sorted(broker.users) == ["a1", "b1", "c1"]
    assert (summary["read"], summary["rejected"]) == (5, 2)
    if name == "r.jsonl":
        told = [json.loads(line) for line in report.read_text().splitlines()]
        assert [(row["file"], row["line"], row["id"]) for row in told] == [
            (f"{folder}/b.csv", 2, "b1"),
            (f"{folder}/b.csv", 3, ""),
        ]
    else:
        assert report.read_text().splitlines()[0] == "id,line,outcome,reason,file"
        assert report.read_text().splitlines()[1].endswith(f"{folder}/b.csv")
    without = EmqxProvisionUsersOperator(task_id="x", source=str(folder)).execute({})
    assert without["rejected_rows"][0]["file"] == f"{folder}/b.csv"


def parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("what", ["report_path", "state_path"])
@pytest.mark.parametrize("url", ["", "file://"])
def test_nothing_is_written_over_the_source(
    broker: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, url: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", '{"conn_type": "generic", "password": "a long secret"}')
    before = (folder / "b.csv").read_text()
    for source in (folder, folder / "b.csv"):
        target = {
            what: f"{url}{folder}/sub/../b.csv" if not url else f"{url}{folder}/b.csv",
            "pepper_conn_id": "pepper",
        }
        with pytest.raises(EmqxConfigError, match=f"the {what} .* is one of the files of the source"):
            EmqxProvisionUsersOperator(task_id="x", source=f"{url}{source}", **target).execute({})
    with pytest.raises(EmqxConfigError, match="is one of the files of the source"):
        EmqxProvisionAclOperator(task_id="x", source=folder, report_path=folder / "b.csv").execute({})
    assert (folder / "b.csv").read_text() == before
    assert not broker.requests


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("source", "target", "refused"),
    [
        ("", "report.jsonl", True),
        ("/", "report.jsonl", True),
        ("/*", "report.jsonl", True),
        ("/*.jsonl", "report.jsonl", True),
        ("/**/*.jsonl", "report.jsonl", True),
        ("/**/*.jsonl", "sub/sub/report.jsonl", True),
        ("/s?b/*", "sub/report.jsonl", True),
        ("", "sub/report.jsonl", False),
        ("", "_report.jsonl", False),
        ("", "../report.jsonl", False),
        ("/*.csv", "report.jsonl", False),
        ("/*.jsonl", "sub/report.jsonl", False),
        ("/b.csv", "report.jsonl", False),
    ],
)
@pytest.mark.parametrize("url", ["", "file://"])
def test_a_report_is_no_file_of_the_next_runs_source(
    broker: Any, folder: Path, source: str, target: str, refused: bool, url: str
) -> None:
    def execute() -> Any:
        report = str((folder / target).resolve())
        return EmqxProvisionUsersOperator(
            task_id="x", source=f"{url}{folder}{source}", report_path=report
        ).execute({})

    if refused:
        with pytest.raises(EmqxConfigError, match="the report_path .* would be at the next run"):
            execute()
        assert not broker.requests
        assert not (folder / target).exists()
    else:
        read = execute()["read"]
        assert execute()["read"] == read > 0


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_file_whose_name_looks_like_a_pattern_is_no_pattern(broker: Any, folder: Path) -> None:
    (folder / "b[1].jsonl").write_text('{"user_id": "x", "password": "p"}\n')
    source, report = folder / "b[1].jsonl", folder / "b1.jsonl"
    assert (
        EmqxProvisionUsersOperator(task_id="x", source=source, report_path=report).execute({})["written"] == 1
    )


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("url", ["", "file://"])
def test_report_and_state_are_two_files(
    broker: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", '{"conn_type": "generic", "password": "a long secret"}')
    same = {
        "report_path": f"{url}{folder}/r.csv",
        "state_path": folder / "sub" / ".." / "r.csv",
        "pepper_conn_id": "pepper",
    }
    with pytest.raises(EmqxConfigError, match="report_path and state_path are both"):
        EmqxProvisionUsersOperator(task_id="x", source=folder / "b.csv", **same).execute({})
    assert not broker.requests
    assert not (folder / "r.csv").exists()


def test_the_connection_in_a_url_makes_no_other_file() -> None:
    source = Source(iter(()), ["s3://fleet/a@b.csv"])
    source.spare(report_path="s3://aws@other/a@b.csv", state_path="s3://aws@fleet/b.csv")
    with pytest.raises(EmqxConfigError, match="is one of the files of the source"):
        source.spare(report_path="s3://aws@fleet/a@b.csv")
    with pytest.raises(EmqxConfigError, match="report_path and state_path are both"):
        source.spare(report_path="s3://aws@fleet/r.csv", state_path="s3://fleet/r.csv")
    assert takes("s3://aws@fleet/", "", Format(), "s3://fleet/r.csv")
    assert takes("s3://aws@fleet/in/", "*/*.csv", Format(), "s3://fleet/in/x/r.csv")
    assert not takes("s3://aws@fleet/", "", Format(), "s3://fleet/in/r.csv")
    assert not takes("s3://aws@fleet/in/", "", Format(), "s3://fleet/r.csv")


def test_parquet(broker: Any, tmp_path: Path) -> None:
    count = 1_300
    columns = {
        "note": ["x"] * count,
        "device": [f"d{i}" for i in range(count)],
        "password": [None if i == 7 else f"p{i}" for i in range(count)],
        "number": list(range(count)),
    }
    path = parquet(tmp_path / "devices.parquet", columns)
    for source in (str(path), f"file://{path}"):
        operator = EmqxProvisionUsersOperator(task_id="x", source=source, columns={"user_id": "device"})
        summary = operator.execute({})
        assert (summary["written"], summary["rejected"]) == (count - 1, 1)
        assert summary["rejected_rows"] == [
            {"id": "d7", "line": 8, "outcome": "rejected", "reason": "password is missing"}
        ]
    assert broker.verify("d1299", "p1299")
    operator = EmqxProvisionUsersOperator(task_id="x", source=str(path), columns={"user_id": "number"})
    with pytest.raises(EmqxConfigError, match="all 1,300 rows"):
        operator.execute({})


def test_text_of_parquet_that_is_not_utf8_costs_its_own_row_only(broker: Any, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    offsets = b"".join(at.to_bytes(4, "little") for at in (0, 1, 2, 3))
    ids = arrow.Array.from_buffers(
        arrow.string(), 3, [None, arrow.py_buffer(offsets), arrow.py_buffer(b"a\xffc")]
    )
    write_table(arrow.table({"user_id": ids, "password": ["1", "2", "3"]}), tmp_path / "x.parquet")
    result = EmqxProvisionUsersOperator(task_id="x", source=tmp_path / "x.parquet").execute({})
    assert (result["written"], result["rejected"]) == (2, 1)
    assert result["rejected_rows"][0]["reason"] == "user_id is not valid UTF-8"
    assert sorted(broker.users) == ["a", "c"]


def test_parquet_that_is_none_or_lacks_a_column(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(EmqxConfigError, match="not a Parquet file"):
        list(read_file(tmp_path / "x.parquet", Format()))
    path = parquet(tmp_path / "y.parquet", {"user_id": ["a"], "name": ["b"]})
    with pytest.raises(EmqxConfigError, match="no column 'password'"):
        list(read_file(path, Format()))


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("operator", "content"),
    [
        (EmqxProvisionUsersOperator, 'user_id,password\na,"p\nb,"q"\nc,r"\n'),
        (EmqxProvisionAclOperator, 'username,topic,permission\n"a,t,allow\n"b",t,allow\nc",t,allow\n'),
    ],
)
def test_a_file_whose_writer_quotes_nothing_is_read_as_it_is(
    broker: Any, tmp_path: Path, operator: type[Any], content: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    assert operator(task_id="x", source=path, source_options={"quoting": "none"}).execute({})["written"] == 3
    if operator is EmqxProvisionUsersOperator:
        assert broker.verify("a", '"p')
        assert broker.verify("b", '"q"')


@pytest.mark.parametrize("version", ["5.8.9"])
def test_rows_and_fields_may_stand_inside_of_objects(broker: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    device = {"device": {"id": "a"}, "password": "p", "topic": "t", "permission": "allow"}
    path.write_text(json.dumps({"data": {"items": [device]}}))
    for operator, field in ((EmqxProvisionUsersOperator, "user_id"), (EmqxProvisionAclOperator, "clientid")):
        if operator is EmqxProvisionAclOperator:
            del device["password"]
            path.write_text(json.dumps({"data": {"items": [device]}}))
        made = operator(
            task_id="x", source=path, source_options={"rows": "data.items"}, columns={field: "device.id"}
        )
        assert "source_options" in made.template_fields
        assert made.execute({})["written"] == 1
    assert broker.verify("a", "p")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("operator", "content"),
    [
        (EmqxProvisionUsersOperator, "user_id,password\n{},p\nv,\n"),
        (EmqxProvisionAclOperator, "username,topic,permission\n{},t,allow\nv,t,x\n"),
    ],
)
def test_the_name_of_a_file_need_not_be_utf_8(
    broker: Any, tmp_path: Path, operator: type[Any], content: str, suffix: str
) -> None:
    folder, report = tmp_path / "devices", tmp_path / f"report.{suffix}"
    folder.mkdir()
    for name in ("a\udcff.csv", "b.csv"):
        (folder / name).write_text(content.format(name[0]))
    summary = operator(task_id="x", source=str(folder), report_path=str(report)).execute({})
    assert (summary["written"], summary["rejected"]) == (2, 2)
    assert "a\\udcff.csv" in report.read_text().replace("\\\\", "\\")

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_emqx.row_files import append_figures

pytestmark = pytest.mark.parametrize("url", ["", "file://"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "time,count\n5,1\n"),
        ("\n", "\ntime,count\n5,1\n"),
        (" \r\n\n", " \r\n\ntime,count\n5,1\n"),
        ("\ufeff", "\ufeff\ntime,count\n5,1\n"),
        ("count,time", "count,time\n1,5\n"),
        ("count,time\n", "count,time\n1,5\n"),
        ("\ncount,time\r\n", "\ncount,time\r\n1,5\n"),
        ("count,time\n0,4", "count,time\n0,4\n1,5\n"),
        ("count,time\r0,4\r", "count,time\r0,4\r1,5\n"),
    ],
)
def test_a_row_is_appended_to_any_csv_file(tmp_path: Path, url: str, before: str, after: str) -> None:
    path = tmp_path / "h.csv"
    path.write_bytes(before.encode())
    append_figures(f"{url}{path}", {"time": 5, "count": 1})
    assert path.read_bytes().decode() == after


@pytest.mark.parametrize("before", ["", "\n", '{"time": 4}', '{"time": 4}\n', '{"time": 4}\n\n{"time"'])
def test_a_row_is_appended_to_any_json_lines_file(tmp_path: Path, url: str, before: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(before)
    for time in (5, 6):
        append_figures(f"{url}{path}", {"time": time})
    assert path.read_text().startswith(before)
    assert [json.loads(line) for line in path.read_text().split("\n")[-3:-1]] == [{"time": 5}, {"time": 6}]

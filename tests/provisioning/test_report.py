from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path

import pytest

from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.arguments import limit
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.provisioning.blocks import Bad
from airflow_provider_emqx.provisioning.chunks import Chunk
from airflow_provider_emqx.provisioning.outcomes import Outcome
from airflow_provider_emqx.provisioning.report import Tally, judge, report_of, row_of
from airflow_provider_emqx.provisioning.terms import UserTerms

OUTCOMES = [Outcome(7, 'a,"ü', "skipped", "exists"), Outcome(3, None, "rejected", "too few fields: 1")]


def done(written: int, rejected: int, result: BulkResult | None = None) -> Chunk:
    users = [{"user_id": f"d{i}"} for i in range(written)]
    bad = [Bad(i, f"b{i}", "bad") for i in range(rejected)]
    return Chunk(list(range(written)), users, bad=bad, result=result or BulkResult(written, None, None, None))


def test_a_report_has_one_line_per_row_in_their_order(tmp_path: Path) -> None:
    for name in ("r.jsonl", "r.csv"):
        with report_of(tmp_path / name) as report:
            report.write(map(row_of, OUTCOMES[::-1]))
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()] == [
        {"id": None, "line": 3, "outcome": "rejected", "reason": "too few fields: 1"},
        {"id": 'a,"ü', "line": 7, "outcome": "skipped", "reason": "exists"},
    ]
    with open(tmp_path / "r.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["id", "line", "outcome", "reason"],
            ["", "3", "rejected", "too few fields: 1"],
            ['a,"ü', "7", "skipped", "exists"],
        ]


def test_a_local_report_is_its_owners_even_if_it_was_everybodys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.jsonl"
    path.parent.mkdir()
    path.write_text("old")
    os.chmod(path, 0o644)
    for target in (path, tmp_path / "other" / "r.jsonl"):
        with report_of(target):
            pass
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert target.read_text() == ""


def test_a_disk_that_is_full_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    target = tmp_path / "full.csv"
    target.symlink_to("/dev/full")
    mode = stat.S_IMODE(os.stat("/dev/full").st_mode)
    rejected = [Outcome(line, f"d{line}", "rejected", "password is empty") for line in range(1_000)]
    for rows in (rejected, rejected[:1]):
        with (
            pytest.raises(EmqxConfigError, match="full.csv' cannot be written: No space"),
            report_of(target) as report,
        ):
            report.write(map(row_of, rows))
    assert stat.S_IMODE(os.stat("/dev/full").st_mode) == mode


def test_a_report_at_a_url_goes_through_object_storage(tmp_path: Path) -> None:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    for number, target in enumerate(
        (f"file://{tmp_path}/0.jsonl", ObjectStoragePath(f"file://{tmp_path}/1.jsonl"))
    ):
        with report_of(target) as report:
            report.write(map(row_of, OUTCOMES))
        assert len((tmp_path / f"{number}.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("target", ["report.txt", "report", "/proc/none/r.csv", "nosuch://x/r.jsonl"])
def test_a_report_that_cannot_be_written_is_refused_at_the_start(target: str) -> None:
    with (
        pytest.raises(
            EmqxConfigError, match="report_path must end|report .* cannot be written|cannot be opened"
        ),
        report_of(target),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "of", "count"),
    [
        (None, 10, None),
        (5, 10, 5),
        ("5", 10, 5),
        (0, 10, 0),
        ("0", 10, 0),
        (0.05, 100, 5),
        ("5%", 100, 5),
        ("5 %", 100, 5),
        ("0.05", 119, 5),
        (1.0, 7, 7),
        ("100%", 7, 7),
        ("0.5%", 1_000, 5),
    ],
)
def test_a_limit_is_a_count_or_a_share(given: float | str | None, of: int, count: int | None) -> None:
    assert limit(given, of, "max_rejected") == count


@pytest.mark.parametrize("given", ["many", "-1", -1, "150%", 1.5, True, "nan", "5%%"])
def test_a_limit_that_is_neither_is_refused(given: float | str) -> None:
    with pytest.raises(EmqxConfigError, match="max_rejected must be a count"):
        limit(given, 100, "max_rejected")


def test_a_limit_without_a_value_is_not_no_limit() -> None:
    with pytest.raises(EmqxConfigError, match="max_rejected has no value"):
        limit("", 100, "max_rejected")


@pytest.mark.parametrize(
    ("rejected", "on_rejected", "max_rejected", "fails"),
    [
        (0, "fail", None, False),
        (1, "report", None, False),
        (1, "fail", None, True),
        (5, "report", 5, False),
        (6, "report", 5, True),
        (5, "report", "5%", False),
        (6, "report", "5%", True),
        (1, "report", 0, True),
        (5, "fail", 5, False),
        (100, "report", None, True),
        (100, "report", "100%", True),
    ],
)
def test_the_verdict_on_100_rows(
    rejected: int, on_rejected: str, max_rejected: str | int | None, fails: bool
) -> None:
    tally = Tally()
    tally.add(done(100 - rejected, rejected))
    assert (
        judge(tally, 100, UserTerms(on_rejected=on_rejected, max_rejected=max_rejected)) is not None
    ) is fails


def test_the_sums_must_match_what_was_read() -> None:
    tally = Tally()
    tally.add(done(3, 1))
    tally.check(4)
    tally.add(done(3, 0, BulkResult(2)))
    with pytest.raises(EmqxError, match="7 rows were read, but 6 have an outcome"):
        tally.check(7)


def test_a_count_that_one_answer_lacks_is_not_told() -> None:
    tally = Tally()
    tally.add(done(2, 0, BulkResult(2, created=1, updated=1, unchanged=0)))
    assert tally.summary(2)["created"] == 1
    tally.add(done(0, 1))
    assert tally.summary(3)["created"] == 1
    tally.add(done(2, 0, BulkResult(2, None, None, None)))
    assert tally.summary(5)["created"] is None


def test_the_first_100_rejected_rows_are_kept() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add(done(0, 60))
    assert len(tally.rejected_rows) == 100
    assert tally.rejected == 180

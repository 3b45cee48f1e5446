from __future__ import annotations

import json

from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.api.bulk import MAX_BODY
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.check import Checker
from airflow_provider_emqx.provisioning.chunks import Chunk, Pace, cut
from airflow_provider_emqx.provisioning.sources import read_rows


def chunks(passwords: list[str], pace: Pace | None = None) -> list[Chunk]:
    rows = [{"user_id": f"d{i}", "password": password} for i, password in enumerate(passwords)]
    checker = Checker(Broker("v5", (5, 8, 9)))
    return list(cut(map(checker.check, read_rows(rows, Format())), pace or Pace(rows=1_000)))


def test_no_row_is_lost_or_doubled_and_none_changes_place() -> None:
    cuts = chunks(["p"] * 12_345, Pace(rows=700))
    assert [line for chunk in cuts for line in chunk.lines] == list(range(1, 12_346))
    assert [user["user_id"] for chunk in cuts for user in chunk.users] == [f"d{i}" for i in range(12_345)]
    assert all(len(chunk.users) <= 700 for chunk in cuts)


def test_a_chunk_may_be_smaller_than_what_is_read_at_a_time() -> None:
    cuts = chunks(["p"] * 1_100, Pace(rows=30))
    assert sum(len(chunk.users) for chunk in cuts) == 1_100
    assert all(len(chunk.users) <= 30 for chunk in cuts)


def test_a_body_stays_below_the_limit_whatever_is_in_it() -> None:
    for password in ("x" * 90_000, "\x01" * 100_000, "設" * 90_000, '"\\' * 60_000):
        cuts = chunks([password] * 120)
        assert sum(len(chunk.users) for chunk in cuts) == 120
        assert all(len(json.dumps(chunk.users, ensure_ascii=False).encode()) < MAX_BODY for chunk in cuts)
        assert len(cuts) < 20


def test_a_row_that_fits_into_no_request_is_rejected_and_the_others_go() -> None:
    cuts = chunks(["a", "x" * 7_950_000, "b", "y" * 7_000_000])
    assert [user["user_id"] for chunk in cuts for user in chunk.users] == ["d0", "d2", "d3"]
    [bad] = [bad for chunk in cuts for bad in chunk.bad]
    assert (bad.line, bad.user_id) == (2, "d1")
    assert "too large" in bad.reason


def test_rejected_rows_are_given_out_though_no_good_one_comes() -> None:
    assert max(len(chunk.bad) for chunk in chunks([""] * 5_000)) <= 1_500


def test_chunks_grow_while_the_broker_is_fast_and_shrink_when_it_is_slow() -> None:
    pace = Pace(rows=500, most=5_000, target=5.0)
    pace.took(500, 0.01)
    assert pace.rows == 2_000
    pace.took(2_000, 0.05)
    assert pace.rows == 5_000
    pace.took(5_000, 50.0)
    assert pace.rows == 500
    pace.took(500, 50.0)
    assert pace.rows == 50
    pace.took(1, 100.0)
    assert pace.rows == 1

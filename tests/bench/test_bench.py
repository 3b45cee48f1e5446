"""The benchmark runs, and its table says what it has to; how fast anything is, is for ``make bench`` to tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import bulk, cost
from tests.bench.setting import V4, V5, Generation, write_csv
from tests.bench.table import Line, Ratio, machine, render, take_turns


def test_a_missed_target_is_shown() -> None:
    table = render(
        [Line("speed", "2", "at most 1", False), Line("size", "1", "at most 1", True), Line("age", "7")]
    )
    assert table.splitlines() == [
        "|       | measured | target    | met    |",
        "| ----- | -------- | --------- | ------ |",
        "| speed | 2        | at most 1 | **no** |",
        "| size  | 1        | at most 1 | yes    |",
        "| age   | 7        |           |        |",
    ]


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    ratio = Ratio([2.0, 1.0, 30.0], [1.0, 1.0, 10.0])
    assert ratio.value == 2.0
    assert str(ratio) == "2.00 (1.00 to 3.00)"


def test_contestants_take_turns_and_change_their_order() -> None:
    order: list[str] = []

    def contestant(name: str, number: int) -> float:
        order.append(f"{name}{number}")
        return number

    figures = take_turns(2, lambda number: contestant("a", number), lambda number: contestant("b", number))
    assert figures == [[0, 1], [0, 1]]
    assert order == ["a0", "b0", "b1", "a1"]


def test_the_machine_is_described() -> None:
    assert "cores" in machine()


@pytest.mark.parametrize("generation", [V4, V5], ids=["v4", "v5"])
def test_the_bare_loop_sends_what_the_operator_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generation: Generation
) -> None:
    from airflow_provider_emqx.testing import FakeEmqx

    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", "")
    bodies = bulk._bodies(tmp_path, generation, 600)
    with FakeEmqx(generation.version) as fake:
        bulk._post_bodies(fake.url, generation, bodies, 3)
        assert sorted(fake.users) == [f"bench-b03-{number:07d}" for number in range(600)]
        assert [len(request.body) for request in fake.requests] == [len(body) for body in bodies]


def test_the_parts_of_the_work_can_be_taken_apart(tmp_path: Path) -> None:
    parts = cost._parts(write_csv(tmp_path / "users.csv", "part", 600))
    assert list(parts) == ["read", "check and chunk", "encode", "account"]
    assert all(part() >= 0 for part in parts.values())

"""In a pattern of names ``*`` stands for any text, and everything else for itself."""

from __future__ import annotations

import pytest

from airflow_provider_emqx.patterns import common_part, like, one_of


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        ("dev-1", ["dev-1"], ["dev-10", "xdev-1", "dev-1\n", "DEV-1"]),
        ("dev-*", ["dev-", "dev-1", "dev-\n1"], ["dev", "xdev-1"]),
        ("*-1", ["-1", "dev-1"], ["dev-1x"]),
        ("a*b**c", ["abc", "a1b2c"], ["ab", "acb"]),
        ("d?v[1-3]", ["d?v[1-3]"], ["dev1", "dev[1-3]"]),
        ("a.c|d", ["a.c|d"], ["abc", "d"]),
        ("*", ["", "x"], []),
    ],
)
def test_only_a_star_is_special(pattern: str, names: list[str], others: list[str]) -> None:
    assert all(like(pattern).fullmatch(name) for name in names)
    assert not any(like(pattern).fullmatch(name) for name in others)


def test_a_name_is_like_one_of_several_or_of_none() -> None:
    assert [name for name in ("a", "b1", "b2", "ab") if one_of(["a", "b*"]).fullmatch(name)] == [
        "a",
        "b1",
        "b2",
    ]
    assert not one_of([]).fullmatch("")


@pytest.mark.parametrize(
    ("pattern", "part"), [("sensor-*", "sensor-"), ("a*bcd*", "bcd"), ("dev[1", "dev[1"), ("*", ""), ("", "")]
)
def test_the_longest_part_that_all_names_have(pattern: str, part: str) -> None:
    assert common_part(pattern) == part

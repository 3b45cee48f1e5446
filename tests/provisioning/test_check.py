from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.check import Checker
from airflow_provider_emqx.provisioning.sources import read_rows

BROKER = Broker("v5", (5, 8, 9))


def check(
    *rows: dict[str, Any], ids_only: bool = False
) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    checker = Checker(BROKER, ids_only)
    users, bad = [], []
    for block in read_rows(rows, Format()):
        checked = checker.check(block)
        users += checked.users
        bad += [one[:3] for one in checked.bad]
        assert len(checked.lines) == len(checked.users)
    return users, bad


@pytest.mark.parametrize(
    "user_id",
    [
        "a",
        "a b",
        " a",
        "ü",
        "設備",
        "a/b#c?d%2F+",
        "...",
        "a\tb",
        "device\x7f",
        '"quoted"',
        "😀",
        "x" * 600,
        "ü" * 1_000,
    ],
)
@pytest.mark.parametrize("password", ["p", "pass word", "пароль", "a\nb", "x" * 100_000, " "])
def test_any_text_may_be_an_id_and_a_password(user_id: str, password: str) -> None:
    assert check({"user_id": user_id, "password": password}) == (
        [{"user_id": user_id, "password": password, "is_superuser": False}],
        [],
    )


@pytest.mark.parametrize("user_id", ["plain", "ü"])
@pytest.mark.parametrize(
    ("flag", "meant"), [(Decimal(1), True), (1.0, True), (Decimal(0), False), (0.0, False)]
)
def test_numbers_of_databases_are_flags_whatever_else_the_row_has(
    user_id: str, flag: Any, meant: bool
) -> None:
    users, bad = check({"user_id": user_id, "password": "p", "is_superuser": flag})
    assert [user["is_superuser"] for user in users] == [meant]
    assert not bad


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"password": "S3cret"}, "user_id is missing"),
        ({"user_id": "", "password": "S3cret"}, "user_id is empty"),
        ({"user_id": ".", "password": "S3cret"}, "user_id '.' cannot be used"),
        ({"user_id": "..", "password": "S3cret"}, "user_id '..' cannot be used"),
        ({"user_id": 17, "password": "S3cret"}, "user_id is a number, not text"),
        ({"user_id": True, "password": "S3cret"}, "user_id is true or false, not text"),
        ({"user_id": ["a"], "password": "S3cret"}, "user_id is a list, not text"),
        ({"user_id": b"a", "password": "S3cret"}, "user_id is of type bytes, not text"),
        ({"user_id": "a\0b", "password": "S3cret"}, "user_id holds a NUL character"),
        ({"user_id": "a\udcff", "password": "S3cret"}, "user_id is not valid UTF-8"),
        ({"user_id": "x" * 8_000, "password": "S3cret"}, "user_id is too long"),
        ({"user_id": "設" * 1_000, "password": "S3cret"}, "user_id is too long"),
        ({"user_id": "a"}, "password is missing"),
        ({"user_id": "a", "password": None}, "password is missing"),
        ({"user_id": "a", "password": ""}, "password is empty"),
        ({"user_id": "a", "password": 12345678}, "password is a number, not text"),
        ({"user_id": "a", "password": 1.5}, "password is a number, not text"),
        ({"user_id": "a", "password": False}, "password is true or false, not text"),
        ({"user_id": "a", "password": {"x": "S3cret"}}, "password is an object, not text"),
        ({"user_id": "a", "password": b"S3cret"}, "password is of type bytes, not text"),
        ({"user_id": "a", "password": "S3cret\udc80"}, "password is not valid UTF-8"),
        (
            {"user_id": "a", "password": "S3cret", "is_superuser": "maybe"},
            "is_superuser must be true or false",
        ),
        ({"user_id": "a", "password": "S3cret", "is_superuser": 2}, "is_superuser must be true or false"),
        ({"user_id": "a", "password": "S3cret", "is_superuser": []}, "is_superuser must be true or false"),
    ],
)
def test_a_bad_row_is_rejected_with_a_reason_that_shows_no_password(row: dict[str, Any], reason: str) -> None:
    good = {"user_id": "good", "password": "p"}
    users, bad = check(good, row, {**good, "user_id": "good2"})
    assert [user["user_id"] for user in users] == ["good", "good2"]
    [(line, user_id, told)] = bad
    assert line == 2
    assert user_id == row.get("user_id")
    assert reason in told
    assert "S3cret" not in told
    assert "12345678" not in told


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *[(text, True) for text in ("true", "True", "TRUE", "tRue", "1", "yes", "Yes", " true ", True, 1)],
        *[(text, False) for text in ("false", "False", "0", "no", "NO", "", " ", None, False, 0)],
    ],
)
def test_the_superuser_flag_is_read(given: object, meant: bool) -> None:
    users, bad = check({"user_id": "a", "password": "p", "is_superuser": given})
    assert not bad
    assert users[0]["is_superuser"] is meant


def test_of_duplicates_the_first_good_row_wins() -> None:
    users, bad = check(
        {"user_id": "a", "password": ""},
        {"user_id": "a", "password": "first"},
        {"user_id": "b", "password": "p"},
        {"user_id": "a", "password": "second"},
        {"user_id": "b", "password": "p"},
    )
    assert [(user["user_id"], user["password"]) for user in users] == [("a", "first"), ("b", "p")]
    assert [(line, user_id) for line, user_id, _ in bad] == [(1, "a"), (5, "b"), (4, "a")]
    assert all("duplicate" in reason for *_, reason in bad[1:])


def test_a_row_that_deletes_needs_an_id_only() -> None:
    users, bad = check({"user_id": "a"}, {"user_id": ".."}, {"user_id": "a"}, ids_only=True)
    assert users == [{"user_id": "a"}]
    assert [line for line, *_ in bad] == [2, 3]

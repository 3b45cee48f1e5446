"""White space, spreadsheets, words for nothing, and columns that no row has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionAclOperator, EmqxProvisionUsersOperator
from airflow_provider_emqx.testing import FakeEmqx
from tests.operators.run import execute


def written(directory: Path, name: str, content: str) -> str:
    path = directory / name
    path.write_text(content, encoding="utf-8", newline="")
    return str(path)


def provision(source: Any, **arguments: Any) -> Any:
    return execute(EmqxProvisionUsersOperator, source=source, **arguments)


SPACED = {
    "csv": "user_id, password \ndev-1, pw1\ndev-2,pw2\ndev-3 ,pw3\n",
    "jsonl": '{"user_id": "dev-1", "password": " pw1"}\n{"user_id": "dev-2", "password": "pw2"}\n'
    '{"user_id": "dev-3 ", "password": "pw3"}\n',
    "json": '[{"user_id": "dev-1", "password": " pw1"}, {"user_id": "dev-2", "password": "pw2"}, '
    '{"user_id": "dev-3 ", "password": "pw3"}]',
}


@pytest.mark.parametrize("suffix", SPACED)
def test_white_space_around_an_id_or_a_password_is_told_and_rejected(
    broker: FakeEmqx, tmp_path: Path, suffix: str
) -> None:
    source = written(tmp_path, f"devices.{suffix}", SPACED[suffix])
    result = provision(source)
    assert (result["written"], result["rejected"]) == (1, 2)
    assert [row["id"] for row in result["rejected_rows"]] == ["dev-1", "dev-3 "]
    reasons = [row["reason"] for row in result["rejected_rows"]]
    assert [reason.partition(" ")[0] for reason in reasons] == ["password", "user_id"]
    assert all("strip=True" in reason and "strip=False" in reason for reason in reasons)
    assert "pw1" not in json.dumps(result)


@pytest.mark.parametrize("suffix", SPACED)
@pytest.mark.parametrize(
    ("strip", "ids", "password"),
    [(True, "dev-3", "pw1"), ("false", "dev-3 ", " pw1"), ("True", "dev-3", "pw1")],
)
def test_white_space_is_taken_off_or_kept_as_the_user_says(
    broker: FakeEmqx, tmp_path: Path, suffix: str, strip: Any, ids: str, password: str
) -> None:
    source = written(tmp_path, f"devices.{suffix}", SPACED[suffix])
    assert provision(source, source_options={"strip": strip})["written"] == 3
    assert set(broker.users) == {"dev-1", "dev-2", ids}
    assert broker.verify("dev-1", password)


def test_a_row_with_white_space_keeps_its_user_from_being_deleted(broker: FakeEmqx) -> None:
    for name in ("dev-1", "dev-2", "dev-gone"):
        broker.add_user(name, "old")
    rows = [{"user_id": " dev-1", "password": "x"}, {"user_id": "dev-2", "password": "x"}]
    assert provision(rows, mode="sync", scope="dev-*")["pruned"] == 1
    assert set(broker.users) == {"dev-1", "dev-2"}


@pytest.mark.parametrize("name", ["username", "topic"])
def test_white_space_in_acl_rules_is_told_too(broker: FakeEmqx, name: str) -> None:
    row = {"username": "alice", "topic": "a/b", "permission": "allow"}
    rows = [{**row, name: f"{row[name]} "}, {**row, "username": "bob"}]
    result = execute(EmqxProvisionAclOperator, source=rows)
    assert (result["written"], result["rejected"]) == (1, 1)
    assert "white space" in result["rejected_rows"][0]["reason"]
    assert execute(EmqxProvisionAclOperator, source=rows, source_options={"strip": True})["written"] == 2
    with EmqxHook() as hook:
        assert [rule["topic"] for rule in hook.list_acl_rules({"username": "alice"})] == ["a/b"]


def test_a_spreadsheets_first_line_names_the_delimiter(broker: FakeEmqx, tmp_path: Path) -> None:
    source = written(
        tmp_path, "devices.csv", "\ufeffsep=;\r\nuser_id;password\r\ndev-1;a,b\r\ndev-2;c\r\n,;\r\n"
    )
    result = provision(source)
    assert broker.verify("dev-1", "a,b")
    assert (result["written"], [row["line"] for row in result["rejected_rows"]]) == (2, [5])


@pytest.mark.parametrize("made", ["8.61234E+14", "8,6E+14", '="0043"'])
def test_what_a_spreadsheet_has_made_of_a_number_is_no_id(broker: FakeEmqx, made: str) -> None:
    rows = [
        {"user_id": made, "password": "x"},
        {"user_id": "1E+x", "password": "x"},
        {"user_id": "=x", "password": "x"},
    ]
    result = provision(rows)
    assert "spreadsheet" in result["rejected_rows"][0]["reason"]
    assert set(broker.users) == {"1E+x", "=x"}


@pytest.mark.parametrize("nothing", ["\\N", "NULL", "nan", "None"])
def test_a_word_for_nothing_is_no_password(broker: FakeEmqx, nothing: str) -> None:
    result = provision([{"user_id": "a", "password": nothing}, {"user_id": "b", "password": f"{nothing}!"}])
    assert nothing in result["rejected_rows"][0]["reason"]
    assert set(broker.users) == {"b"}


# columns


def objects(kind: str, count: int, directory: Path, **more: Any) -> Any:
    rows = [{"user_id": f"dev-{number}", "password": "x", **more} for number in range(count)]
    if kind == "list":
        return rows
    if kind == "json":
        return written(directory, "devices.json", json.dumps(rows))
    return written(directory, "devices.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize("kind", ["list", "json", "jsonl"])
@pytest.mark.parametrize("field", ["is_superuser", "acl"])
@pytest.mark.parametrize("count", [3, 2_000])
def test_a_mapped_column_that_no_row_has_is_an_error_before_anything_is_written(
    broker: FakeEmqx, tmp_path: Path, kind: str, field: str, count: int
) -> None:
    source = objects(kind, count, tmp_path)
    with pytest.raises(EmqxConfigError, match=r"'admni'.*none of the"):
        provision(source, columns={field: "admni"})
    assert not broker.users


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("kind", ["list", "json", "jsonl"])
def test_a_mapped_column_may_be_rare_and_of_long_sources_the_run_ends_as_failed(
    broker: FakeEmqx, tmp_path: Path, kind: str
) -> None:
    rows = objects("list", 10_600, tmp_path)
    with pytest.raises(EmqxConfigError, match="none of the 10,600 rows"):
        provision(rows, columns={"is_superuser": "admin"})
    rows[-1]["admin"] = True
    assert provision(rows, columns={"is_superuser": "admin"})["written"] == 10_600
    assert broker.users["dev-10599"].is_superuser


# sources of another shape


class Series:
    """What pandas and numpy have in common."""

    __array__ = None

    def __iter__(self) -> Any:
        return iter([1, 2])

    def __eq__(self, other: object) -> Any:
        raise ValueError("The truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("source", [Series(), {"user_id": "a"}, 7, b"a", object()])
def test_sources_of_another_shape_are_refused_in_our_words(broker: FakeEmqx, source: Any) -> None:
    with pytest.raises(EmqxConfigError, match="source must be a path, a URL or a list of rows, not"):
        provision(source)
    assert broker.requests == []


@pytest.mark.parametrize("name", ["scope", "protect", "shard", "max_deletes", "rate_limit"])
def test_nothing_asks_an_array_whether_it_is_empty(broker: FakeEmqx, name: str) -> None:
    arguments: dict[str, Any] = {"scope": "dev-*", name: Series()}
    with pytest.raises(EmqxConfigError):
        provision([{"user_id": "a", "password": "x"}], mode="sync", **arguments)
    assert broker.requests == []


def test_a_generator_is_a_source(broker: FakeEmqx) -> None:
    rows = ({"user_id": f"dev-{number}", "password": "x"} for number in range(3))
    assert provision(rows)["written"] == 3

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.sources import read_source
from airflow_provider_emqx.provisioning.task import provision
from airflow_provider_emqx.provisioning.terms import UserTerms
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.testing.passwords import make_hash

SHA256 = {"name": "sha256", "salt_position": "prefix"}
BCRYPT = {"name": "bcrypt", "salt_rounds": 5}


@pytest.fixture
def algorithm() -> dict[str, Any]:
    return SHA256


@pytest.fixture
def broker(version: str, algorithm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    with FakeEmqx(version, password_hash_algorithm=algorithm) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        yield fake


def run(rows: list[dict[str, Any]], **terms: Any) -> dict[str, Any]:
    with EmqxHook() as hook:
        return provision(hook, read_source(rows, Format()), UserTerms(**terms), lambda summary: None)


def plain(count: int, password: str = "p") -> list[dict[str, Any]]:
    return [{"user_id": f"d{i}", "password": f"{password}{i}"} for i in range(count)]


@pytest.mark.parametrize("version", ["5.7.2", "5.8.9", "6.1.0"])
@pytest.mark.parametrize(
    "algorithm", [SHA256, BCRYPT, {"name": "pbkdf2", "mac_fun": "sha256", "iterations": 10}], ids=str
)
def test_hashing_here_lets_devices_in_and_leaves_unchanged_ones_alone(broker: FakeEmqx, version: str) -> None:
    how = {"hash_passwords": True, "pepper": "pepper"}
    first = run(plain(20), **how)
    assert first["written"] == 20
    assert all(broker.verify(f"d{i}", f"p{i}") for i in range(20))
    assert not [request for request in broker.requests if b"p19" in (request.body or b"")]
    rows = plain(20)
    rows[3]["password"] = "new"
    again = run(rows, **how)
    assert broker.verify("d3", "new")
    assert again["written"] == 20
    if version != "5.7.2":
        assert (again["created"], again["updated"], again["unchanged"]) == (0, 1, 19)


@pytest.mark.parametrize("version", ["5.8.9"])
def test_ready_made_hashes_are_taken_beside_plain_passwords(broker: FakeEmqx) -> None:
    password_hash, salt = make_hash(SHA256, "secret")
    rows = [
        {"user_id": "hashed", "password_hash": password_hash, "salt": salt},
        {"user_id": "big", "password_hash": password_hash.upper(), "salt": salt, "is_superuser": "1"},
        {"user_id": "plain", "password": "p"},
        {"user_id": "both", "password": "p", "password_hash": password_hash},
        {"user_id": "short", "password_hash": password_hash[:-1]},
        {"user_id": "number", "password_hash": 5},
        {"user_id": "salt", "password": "p", "salt": "x"},
        {"user_id": "none"},
    ]
    summary = run(rows)
    assert sorted(broker.users) == ["big", "hashed", "plain"]
    assert broker.verify("hashed", "secret")
    assert broker.verify("big", "secret")
    assert broker.users["big"].password_hash == password_hash
    assert broker.users["big"].is_superuser
    assert [row["id"] for row in summary["rejected_rows"]] == ["both", "short", "number", "salt", "none"]
    assert password_hash not in json.dumps(summary)
    for mode in ("create", "upsert"):
        again = run(rows[:2], mode=mode)
        assert again["skipped" if mode == "create" else "unchanged"] == 2


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_few_hashes_are_created_by_import_without_touching_others(broker: FakeEmqx) -> None:
    password_hash, salt = make_hash(SHA256, "secret")
    run([{"user_id": "there", "password": "old"}])
    rows = [{"user_id": one, "password_hash": password_hash, "salt": salt} for one in ("there", "new")]
    summary = run(rows, mode="create")
    assert (summary["written"], summary["skipped"]) == (1, 1)
    assert broker.verify("there", "old")
    assert broker.verify("new", "secret")


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("algorithm", [BCRYPT], ids=str)
def test_hashes_of_another_algorithm_never_reach_the_broker(broker: FakeEmqx) -> None:
    password_hash, salt = make_hash(SHA256, "secret")
    with pytest.raises(EmqxConfigError, match="all 3 rows"):
        run([{"user_id": f"d{i}", "password_hash": password_hash, "salt": salt} for i in range(3)])
    assert not [request for request in broker.requests if request.method != "GET"]


@pytest.mark.parametrize("version", ["4.4.19", "5.6.1"])
def test_brokers_that_take_no_hashes(broker: FakeEmqx, version: str) -> None:
    with pytest.raises(EmqxUnsupportedError, match="EMQX 5.7 or newer"):
        run(plain(2), hash_passwords=True, pepper="pepper")
    password_hash, salt = make_hash(SHA256, "secret")
    summary = run([{"user_id": "a", "password_hash": password_hash, "salt": salt}, *plain(1)])
    assert "EMQX 5.7 or newer" in summary["rejected_rows"][0]["reason"]
    assert list(broker.users) == ["d0"]


def test_hashing_needs_a_pepper() -> None:
    with pytest.raises(EmqxConfigError, match="pepper_conn_id"):
        UserTerms(hash_passwords=True)


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("algorithm", "rows"),
    [(SHA256, 500), (BCRYPT, 50), ({"name": "pbkdf2", "mac_fun": "sha", "iterations": 9_000}, 50)],
)
def test_the_first_request_is_small_where_the_broker_takes_its_time_to_hash(
    broker: FakeEmqx, rows: int
) -> None:
    run(plain(600))
    imports = [request for request in broker.requests if "import_users" in request.path]
    assert imports[0].body.count(b"user_id") == rows

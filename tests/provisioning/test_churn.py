"""Others delete users while a run lists them, so that rows move to pages that were read already."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_emqx.api import area
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.sources import read_source
from airflow_provider_emqx.provisioning.task import provision
from airflow_provider_emqx.provisioning.terms import UserTerms

PAGE = 500
COUNT = 1_300


def run(rows: Any, **terms: Any) -> dict[str, Any]:
    with EmqxHook() as hook:
        return provision(hook, read_source(rows, Format()), UserTerms(**terms), lambda summary: None)


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"user_id": f"d{i:04}", "password": f"new{i}"} for i in numbers]


@pytest.fixture
def churn(broker: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """
    A broker with users of ours and, before them in its listing, of others.

    :return: lets so many of the others be deleted whenever a page after the first is about to be read.
    """
    monkeypatch.setattr(area, "_LONGEST", PAGE)
    others = [f"z{i:04}" for i in range(400)]
    for user_id in others + [f"d{i:04}" for i in range(COUNT)]:
        broker.add_user(user_id, "old")

    def start(at_once: int) -> None:
        def before(method: str, path: str) -> None:
            page = re.search(r"\bpage=(\d+)", path.replace("_page", "page"))
            if method == "GET" and page and int(page[1]) > 1:
                for _ in range(min(at_once, len(others))):
                    del broker.users[others.pop()]

        broker.before_each_request(before)

    return start


@pytest.mark.parametrize("version", ["4.4.19", "5.6.1", "5.8.9", "6.1.0"])
def test_create_overwrites_nobody_whom_the_listing_has_missed(
    broker: Any, churn: Callable[[int], None]
) -> None:
    churn(20)
    summary = run(rows(*range(COUNT + 10)), mode="create")
    assert not [i for i in range(COUNT) if not broker.verify(f"d{i:04}", "old")]
    assert all(broker.verify(f"d{i:04}", f"new{i}") for i in range(COUNT, COUNT + 10))
    assert (summary["written"], summary["skipped"]) == (10, COUNT)


@pytest.mark.parametrize("mode", ["create", "upsert", "delete"])
def test_a_dry_run_counts_whom_the_listing_has_missed(
    churn: Callable[[int], None], mode: str, version: str
) -> None:
    churn(20)
    given = rows(*range(COUNT + 10))
    summary = run(given, mode=mode, dry_run=True)
    assert {name: summary[name] for name in ("written", "deleted", "skipped", "created", "updated")} == {
        "create": {"written": 10, "deleted": 0, "skipped": COUNT, "created": 10, "updated": 0},
        "upsert": {"written": COUNT + 10, "deleted": 0, "skipped": 0, "created": 10, "updated": COUNT},
        "delete": {"written": 0, "deleted": COUNT, "skipped": 10, "created": None, "updated": None},
    }[mode]


@pytest.mark.parametrize("mode", ["sync", "prune"])
def test_whom_the_first_listing_has_missed_is_deleted_too(
    broker: Any, churn: Callable[[int], None], mode: str
) -> None:
    churn(100)
    # of two scopes all users are listed
    terms = {"mode": mode, "scope": ["d*", "nobody-*"], "max_deletes": "100%"}
    assert run(rows(1), dry_run=True, **terms)["pruned"] == COUNT - 1
    churn(30)
    summary = run(rows(1), **terms)
    assert {user_id for user_id in broker.users if user_id.startswith("d")} == {"d0001"}
    assert (summary["pruned"], summary["listing_moved"]) == (COUNT - 1, False)


def test_a_listing_that_never_stands_still_is_told(
    churn: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    churn(5)
    summary = run(rows(1), mode="prune", scope="*", protect="z*", max_deletes="100%")
    assert summary["listing_moved"] is True
    assert "listing changed while its pages were read, 5 times in a row" in caplog.text


def listings(broker: Any) -> list[str]:
    """Return the pages of users that were asked for, but for looks whether there are users at all."""
    paths = [request.path for request in broker.requests if request.method == "GET"]
    return [path for path in paths if re.search(r"(users|auth_username)\?.*limit=\d{2}", path)]


@pytest.mark.parametrize("version", ["4.4.19", "5.3.0", "5.8.9", "6.1.0"])
@pytest.mark.parametrize("mode", ["sync", "prune"])
def test_only_who_may_be_in_scope_is_listed(
    broker: Any, monkeypatch: pytest.MonkeyPatch, mode: str, version: str
) -> None:
    monkeypatch.setattr(area, "_LONGEST", PAGE)
    for i in range(3 * PAGE):
        broker.add_user(f"z{i:04}", "old")
    for user_id in ("dev-1", "dev-2", "xdev-1"):
        broker.add_user(user_id, "old")
    # one outside of the scope, which is there
    given = [{"user_id": "dev-1", "password": "p"}, {"user_id": "z0001", "password": "p"}]
    terms = {"mode": mode, "scope": "dev-*"}
    before = run(given, dry_run=True, **terms)
    assert len(listings(broker)) == 1
    summary = run(given, **terms)
    assert (before["pruned"], summary["pruned"], summary["listing_moved"]) == (1, 1, False)
    assert (before["created"], before["updated"]) == ((0, 0) if mode == "prune" else (0, 2))
    assert {"dev-1", "xdev-1"} == {user_id for user_id in broker.users if "dev-" in user_id}


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_user_whose_id_is_a_number_hides_nobody(broker: Any, churn: Callable[[int], None]) -> None:
    with EmqxHook() as hook:
        path = "/authentication/password_based%3Abuilt_in_database/users"
        hook.request("POST", path, json={"user_id": 7, "password": "old"})
    summary = run(rows(1), mode="prune", scope="d*", max_deletes="100%")
    assert (summary["pruned"], summary["unaddressable"]) == (COUNT - 1, 0)


@pytest.mark.parametrize(
    ("scope", "part"),
    [
        ("sensor-*", "sensor-"),
        ("site-*-pumps*", "-pumps"),
        ("a.b+lamp*", "lamp"),
        ("*", None),
        ("ü*", None),
        (["a-*", "b-*"], None),
    ],
)
def test_what_all_ids_in_scope_have(scope: Any, part: str | None) -> None:
    assert UserTerms(mode="sync", scope=scope).part_of_all() == part


def test_a_listing_of_one_page_is_read_once_and_nobody_is_asked_for(broker: Any) -> None:
    for i in range(5):
        broker.add_user(f"d{i:04}", "old")
    summary = run(rows(*range(8)), mode="sync", scope="d*", dry_run=True)
    assert (summary["created"], summary["updated"], summary["listing_moved"]) == (3, 5, False)
    assert len([request for request in broker.requests if "limit=10000" in request.path]) == 1
    assert not [request for request in broker.requests if "d000" in request.path]

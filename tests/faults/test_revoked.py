"""A key that is revoked, or expires, between two requests."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.sources import read_source
from airflow_provider_emqx.provisioning.task import provision
from airflow_provider_emqx.provisioning.terms import UserTerms
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport.session import _BLOCK

#: more than a page of any listing has
MANY = 25_000


def says_what_to_do(error: EmqxError) -> None:
    assert type(error) is EmqxAuthError
    assert error.attempts == 1
    assert "HTTP 401" in str(error)
    assert "secret of the connection" in str(error)


def refused(broker: FakeEmqx) -> int:
    return sum(request.status == 401 for request in broker.requests)


def test_a_listing_gives_the_rows_before_and_then_the_error(broker: FakeEmqx) -> None:
    broker.connect_many(f"dev-{number}" for number in range(MANY))
    with EmqxHook() as hook:
        rows = hook.list_clients()
        found = [next(rows)["clientid"]]
        broker.remove_key("key")
        with pytest.raises(EmqxAuthError) as caught:
            found.extend(row["clientid"] for row in rows)
        # nothing is left to be read as if it were the end of a whole listing
        assert list(rows) == []
    says_what_to_do(caught.value)
    assert 1 < len(set(found)) == len(found) < MANY
    assert refused(broker) == 1


def test_a_listing_of_an_event_loop_gives_the_rows_before_and_then_the_error(broker: FakeEmqx) -> None:

    broker.connect_many(f"dev-{number}" for number in range(MANY))
    found: list[str] = []

    async def main() -> None:
        async with EmqxHook().async_client() as client:
            listing = client.api.clients.list()
            async for row in client.rows(listing):
                if not found:
                    broker.remove_key("key")
                found.append(row["clientid"])

    with pytest.raises(EmqxAuthError) as caught:
        asyncio.run(main())
    says_what_to_do(caught.value)
    assert 1 < len(set(found)) == len(found) < MANY
    assert refused(broker) == 1


def test_of_many_operations_each_is_told_and_none_repeated(broker: FakeEmqx) -> None:
    def operations(hook: EmqxHook) -> Iterator[Any]:
        for number in range(_BLOCK + 50):
            if number == _BLOCK:
                broker.remove_key("key")
            yield hook.api.users.upsert({"user_id": f"d{number}", "password": "p"})

    with EmqxHook() as hook:
        answers = list(hook.run_many(operations(hook)))
    errors = [answer for answer in answers if isinstance(answer, EmqxError)]
    assert set(broker.users) == {f"d{number}" for number in range(_BLOCK)}
    assert len(errors) == 50
    assert errors == answers[_BLOCK:]
    for error in errors:
        says_what_to_do(error)
    assert refused(broker) == 50


@pytest.mark.parametrize("mode", ["upsert", "create", "sync", "delete"])
def test_provisioning_tells_what_was_done_before(
    broker: FakeEmqx, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(MANY // 10):
        broker.add_user(f"old{number}" if mode != "delete" else f"d{number}", "old")
    there = set(broker.users)

    def source() -> Iterator[dict[str, Any]]:
        yield {"user_id": "", "password": "p"}
        for number in range(MANY):
            if number == MANY // 2 or (mode == "delete" and number == MANY // 20):
                broker.remove_key("key")
            yield {"user_id": f"d{number}", "password": "p"}

    report, pushed = tmp_path / "report.csv", []
    terms = UserTerms(
        mode=mode, report_path=report, **({"scope": "*", "max_deletes": "100%"} if mode == "sync" else {})
    )
    with EmqxHook() as hook, pytest.raises(EmqxAuthError) as caught:
        provision(hook, read_source(source(), Format()), terms, pushed.append)
    says_what_to_do(caught.value)
    (summary,) = pushed
    now = set(broker.users)
    if mode == "delete":
        # of a chunk of single requests that broke off, some are done and none is told
        assert 0 < summary["deleted"] <= len(there - now) < len(there)
        assert {f"d{number}" for number in range(summary["deleted"])} <= there - now
    else:
        assert summary["chunks"]["count"] > 1
        assert 0 < summary["written"] == len(now - there) < MANY
        assert now == there | {f"d{number}" for number in range(summary["written"])}
    assert (summary["rejected"], summary["pruned"]) == (1, 0)
    assert report.read_text().count("rejected") == 1
    assert f"{summary['deleted' if mode == 'delete' else 'written']:,} " in caplog.text
    assert "Ended early" in caplog.text
    # a chunk, or the single requests of one
    assert refused(broker) == 1 if mode != "delete" else 1 <= refused(broker) <= len(there)


def test_provisioning_goes_on_with_the_new_key(broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"user_id": f"d{number}", "password": "p"} for number in range(MANY)]

    def source() -> Iterator[dict[str, Any]]:
        yield from rows[:10_000]
        broker.remove_key("key")
        yield from rows[10_000:]

    with EmqxHook() as hook, pytest.raises(EmqxAuthError):
        list(hook.provision_users(source(), "create"))
    before = len(broker.users)
    broker.add_key("new", "newer")
    replaced = {**broker.connection(), "login": "new", "password": "newer"}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(replaced))
    with EmqxHook() as hook:
        told = [outcome.outcome for outcome in hook.provision_users(rows, "create")]
    assert told == ["skipped"] * before + ["written"] * (MANY - before)

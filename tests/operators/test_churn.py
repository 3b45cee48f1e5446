"""Others come and go while an operator lists what it acts on, so that rows move to pages that were read already."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.api import area
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxBanOperator, EmqxExportUsersOperator, EmqxUnbanOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator, EmqxListClientsOperator
from airflow_provider_emqx.operators.topics import EmqxClearRetainedOperator, EmqxListSubscriptionsOperator

PAGE = 20
COUNT = 50
OTHERS = 40

Churn = Callable[[Callable[[str], object], int, int], None]


@pytest.fixture
def churn(broker: Any, monkeypatch: pytest.MonkeyPatch) -> Churn:
    """
    Let something be done to so many others, at most, whenever a page after the first is about to be read.

    :return: given what is done to one of them, how many at once, and how many there are.
    """
    monkeypatch.setattr(area, "_LONGEST", PAGE)

    def start(away: Callable[[str], object], at_once: int, count: int = OTHERS) -> None:
        others = iter([f"a{i:03}" for i in range(count)])

        def before(method: str, path: str) -> None:
            page = re.search(r"\bpage=(\d+)", path.replace("_page", "page"))
            if method == "GET" and page and int(page[1]) > 1:
                for _, name in zip(range(at_once), others, strict=False):
                    away(name)

        broker.before_each_request(before)

    return start


def names(prefix: str = "d") -> list[str]:
    return [f"{prefix}{i:03}" for i in range(COUNT)]


def clients(broker: Any) -> None:
    for clientid in [f"a{i:03}" for i in range(OTHERS)] + names():
        broker.connect(clientid, username="fleet", clean_start=True)


def kick(**arguments: Any) -> dict[str, Any]:
    return EmqxKickClientsOperator(task_id="kick", filters={"username": "fleet"}, **arguments).execute({})


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_kick_by_filter_misses_nobody(broker: Any, churn: Churn, dry_run: bool) -> None:
    clients(broker)
    churn(broker.disconnect, 10)
    result = kick(dry_run=dry_run)
    assert set(names()) <= set(result["kicked"])
    assert result["listing_moved"] is False
    assert dry_run or not broker.clients


def test_a_kick_whose_listing_never_stands_still_says_so(
    broker: Any, churn: Churn, caplog: pytest.LogCaptureFixture
) -> None:
    clients(broker)
    churn(broker.disconnect, 1)
    result = kick(dry_run=True)
    assert result["listing_moved"] is True
    assert "changed while its pages were read, 5 times in a row" in caplog.text


def test_a_ban_of_a_username_kicks_everybody(broker: Any, churn: Churn) -> None:
    clients(broker)
    churn(broker.disconnect, 10)
    EmqxBanOperator(task_id="b", kind="username", who="fleet", duration=60, kick=True).execute({})
    assert not broker.clients


@pytest.mark.parametrize("version", ["5.8.9", "6.1.0"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_no_retained_message_is_left(broker: Any, churn: Churn, dry_run: bool) -> None:
    with EmqxHook() as hook:
        hook.publish(
            [
                {"topic": f"s/{name}", "payload": "1", "retain": True}
                for name in [f"a{i:03}" for i in range(OTHERS)] + names()
            ]
        )
    churn(lambda name: broker.retained.pop(f"s/{name}"), 10)
    result = EmqxClearRetainedOperator(task_id="c", topic_filter="s/#", dry_run=dry_run).execute({})
    assert {f"s/{name}" for name in names()} <= set(result["deleted"])
    assert result["listing_moved"] is False
    assert dry_run or not broker.retained


@pytest.mark.parametrize("dry_run", [True, False])
def test_no_ban_is_left(broker: Any, churn: Churn, dry_run: bool) -> None:
    with EmqxHook() as hook:
        for name in [f"a{i:03}" for i in range(OTHERS)] + names():
            hook.ban("clientid", name, "infinity", "lab")
    churn(lambda name: broker.state.bans.pop(("clientid", name)), 10)
    result = EmqxUnbanOperator(task_id="u", reason="lab", dry_run=dry_run).execute({})
    assert {("clientid", name) for name in names()} <= {(ban["as"], ban["who"]) for ban in result["unbanned"]}
    assert result["listing_moved"] is False
    assert dry_run or not broker.state.bans


def exported(broker: Any, folder: Path) -> dict[str, Any]:
    return EmqxExportUsersOperator(task_id="e", output_path=str(folder / "users.csv")).execute({})


def test_an_export_of_users_says_whether_the_listing_has_moved(
    broker: Any, churn: Churn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for user_id in [f"a{i:03}" for i in range(OTHERS)] + names():
        broker.add_user(user_id, "p")
    assert exported(broker, tmp_path)["listing_moved"] is False
    assert "changed while its pages were read" not in caplog.text
    churn(broker.users.pop, 1)
    assert exported(broker, tmp_path)["listing_moved"] is True
    assert "changed while its pages were read" in caplog.text


@pytest.mark.parametrize("filters", [{}, {"clientid_pattern": "d*"}])
def test_listed_clients_say_whether_the_listing_has_moved(
    broker: Any, churn: Churn, filters: dict[str, Any]
) -> None:
    def listed() -> dict[str, Any]:
        return EmqxListClientsOperator(task_id="l", filters=filters).execute({})

    clients(broker)
    # the broker counts no rows of a filter like this one
    assert listed()["listing_moved"] is (None if filters else False)
    churn(broker.disconnect, 1)
    assert listed()["listing_moved"] is (None if filters else True)


def test_listed_subscriptions_say_whether_the_listing_has_moved(broker: Any, churn: Churn) -> None:
    clients(broker)
    for clientid in list(broker.clients):
        broker.subscribe(clientid, "t")
    operator = EmqxListSubscriptionsOperator(task_id="l")
    assert operator.execute({})["listing_moved"] is False
    churn(broker.disconnect, 1)
    assert operator.execute({})["listing_moved"] is True


def test_the_hook_says_whether_a_listing_has_moved(broker: Any, churn: Churn) -> None:
    clients(broker)
    churn(broker.disconnect, 1)
    with EmqxHook() as hook:
        assert hook.listing_moved is False
        list(hook.list_clients())
        assert hook.listing_moved is True

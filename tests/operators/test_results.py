"""Results have the keys that type checkers are told."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_emqx import results
from airflow_provider_emqx.commands.record import Record
from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxProvisionUsersOperator,
    EmqxUnbanOperator,
)
from airflow_provider_emqx.operators.clients import (
    EmqxKickClientsOperator,
    EmqxSubscribeOperator,
    EmqxUnsubscribeOperator,
)
from airflow_provider_emqx.operators.topics import EmqxClearRetainedOperator
from tests.operators.run import execute, has_keys_of


@pytest.mark.parametrize(
    ("operator", "kind", "arguments"),
    [
        (EmqxSubscribeOperator, results.SubscribeResult, {"clientids": "dev-1", "topics": "a"}),
        (EmqxUnsubscribeOperator, results.SubscribeResult, {"clientids": "dev-1", "topics": "a"}),
        (EmqxKickClientsOperator, results.KickResult, {"clientids": ["dev-1", "dev-2"]}),
        (EmqxClearRetainedOperator, results.ClearRetainedResult, {"topics": ["a"]}),
        (EmqxBanOperator, results.BanResult, {"kind": "clientid", "who": "x", "duration": 60}),
        (EmqxUnbanOperator, results.UnbanResult, {"kind": "clientid", "who": "x"}),
        (
            EmqxProvisionUsersOperator,
            results.ProvisionUsersResult,
            {"source": [{"user_id": "a", "password": "b"}, {"user_id": "c"}]},
        ),
    ],
)
def test_results_have_their_keys(broker: Any, operator: type, kind: type, arguments: dict[str, Any]) -> None:
    broker.connect("dev-1")
    assert has_keys_of(execute(operator, **arguments), kind)


def test_parts_of_results_have_their_keys(broker: Any) -> None:
    ban = execute(EmqxBanOperator, kind="username", source=[{"who": "x"}, {"who": ""}], duration=60)
    assert [has_keys_of(row, results.RejectedBan) for row in ban["rejected"]] == [True]
    users = execute(EmqxProvisionUsersOperator, source=[{"user_id": "a", "password": "b"}, {"user_id": "c"}])
    assert [has_keys_of(row, results.RejectedRow) for row in users["rejected_rows"]] == [True]


def test_a_command_has_its_keys() -> None:
    assert has_keys_of(Record("command", None).result([]), results.CommandResult)

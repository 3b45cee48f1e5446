"""Users and ACL rules in a namespace of EMQX 6."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from airflow_provider_emqx.exceptions import EmqxBadRequestError
from airflow_provider_emqx.hooks.emqx import EmqxHook

pytestmark = pytest.mark.live


@pytest.fixture
def tenant(namespace: str) -> Iterator[EmqxHook]:
    """A hook whose connection names the namespace."""
    with EmqxHook("emqx_namespace") as hook:
        yield hook


def remove(hook: EmqxHook, user_ids: list[str]) -> None:
    for user_id in user_ids:
        hook.delete_user(user_id)


def test_users_of_a_namespace_are_its_own(
    hook: EmqxHook, tenant: EmqxHook, users: None, undo: ExitStack, name: Callable[..., str]
) -> None:
    user_id = name()
    undo.callback(remove, tenant, [user_id])
    undo.callback(remove, hook, [user_id])
    tenant.create_user(user_id, "first")
    assert hook.get_user(user_id) is None
    assert [row["user_id"] for row in tenant.list_users()] == [user_id]
    assert tenant.update_user(user_id, "second")["user_id"] == user_id
    hook.create_user(user_id, "other")
    assert hook.delete_user(user_id) is True
    assert tenant.get_user(user_id) is not None
    assert tenant.delete_user(user_id) is True
    assert list(tenant.list_users()) == []


def test_bulk_writes_of_a_namespace_stay_in_it(
    hook: EmqxHook, tenant: EmqxHook, users: None, undo: ExitStack, name: Callable[..., str]
) -> None:
    base = name("-")
    ids = [f"{base}{number}" for number in range(20)]
    undo.callback(remove, tenant, ids)
    undo.callback(remove, hook, ids)
    rows = [{"user_id": user_id, "password": "secret"} for user_id in ids]

    def outcomes(mode: str, count: int, **options: str) -> list[str]:
        return [row.outcome for row in tenant.provision_users(rows[:count], mode=mode, **options)]

    assert outcomes("upsert", 20) == ["written"] * 20
    assert {row["user_id"] for row in tenant.list_users()} == set(ids)
    assert outcomes("create", 20) == ["skipped"] * 20
    # a tenth of the users in scope, or 100 if that is more, may go
    assert sorted(outcomes("sync", 15, scope=f"{base}*")) == ["pruned"] * 5 + ["written"] * 15
    assert outcomes("delete", 10) == ["deleted"] * 10
    assert {row["user_id"] for row in tenant.list_users()} == set(ids[10:15])
    assert not any(row["user_id"] in ids for row in hook.list_users())


def test_a_superuser_in_a_namespace_is_refused_and_does_not_cost_the_others(
    tenant: EmqxHook, users: None, undo: ExitStack, name: Callable[..., str]
) -> None:
    if not tenant.broker.at_least(6, 1, 4):
        pytest.skip("before EMQX 6.1.4 a user in a namespace may be a superuser")
    ids = [name() for _ in range(3)]
    undo.callback(remove, tenant, ids)
    rows = [{"user_id": user_id, "password": "x", "is_superuser": user_id == ids[1]} for user_id in ids]
    assert [row.outcome for row in tenant.provision_users(rows)] == ["written", "rejected", "written"]
    with pytest.raises(EmqxBadRequestError, match="superuser"):
        tenant.create_user(ids[1], "x", is_superuser=True)
    assert {row["user_id"] for row in tenant.list_users()} == {ids[0], ids[2]}


@pytest.mark.parametrize("kind", ["username", "clientid"])
def test_acl_rules_of_a_namespace_are_its_own(
    hook: EmqxHook, tenant: EmqxHook, acl: None, undo: ExitStack, name: Callable[..., str], kind: str
) -> None:
    subject = {kind: name()}
    undo.callback(tenant.delete_acl_rules, subject)
    undo.callback(hook.delete_acl_rules, subject)
    tenant.set_acl_rules(subject, [{"topic": "a/#", "permission": "allow", "action": "publish"}])
    tenant.add_acl_rules(subject, [{"topic": "#", "permission": "deny"}], position="last")
    assert [rule["topic"] for rule in tenant.list_acl_rules(subject)] == ["a/#", "#"]
    assert subject[kind] in {row[kind] for row in tenant.list_acl_subjects(kind)}
    assert hook.list_acl_rules(subject) == []
    assert subject[kind] not in {row[kind] for row in hook.list_acl_subjects(kind)}
    assert tenant.delete_acl_rules(subject)
    assert tenant.list_acl_rules(subject) == []

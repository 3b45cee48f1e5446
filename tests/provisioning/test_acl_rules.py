from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator

OWN = {"topic": "devices/${username}/#", "permission": "allow"}
LAST = {"topic": "#", "permission": "deny"}
ONE = [{"topic": "a/b", "permission": "allow", "action": "publish"}]


def execute(source: Any, **arguments: Any) -> dict[str, Any]:
    return EmqxProvisionUsersOperator(task_id="x", source=source, **arguments).execute({})  # type: ignore[no-any-return]


def topics(subject: Any) -> list[tuple[str, str]]:
    with EmqxHook() as hook:
        return [(rule["topic"], rule["permission"]) for rule in hook.list_acl_rules(subject)]


def users(count: int) -> list[dict[str, Any]]:
    return [{"user_id": f"d{i}", "password": "p"} for i in range(count)]


def test_one_rule_for_all_is_put_first_once(broker: Any) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules("all", [LAST])
    assert execute(users(3), acl_rules=[OWN])["acl_changed"] is True
    expected = [("devices/${username}/#", "allow"), ("#", "deny")]
    assert topics("all") == expected
    broker.requests.clear()
    assert execute(users(3), acl_rules=[OWN])["acl_changed"] is False
    assert topics("all") == expected
    assert not [request for request in broker.requests if "acl" in request.path and request.method != "GET"]


@pytest.mark.parametrize("version", ["6.3.0"])
def test_a_rule_that_denies_guests_only_does_not_pass_for_one_that_denies_all(broker: Any) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules("all", [{**LAST, "username_re": "^guest-"}])
    assert execute(users(1), acl_rules=[LAST])["acl_changed"] is True
    assert [rule.get("username_re") for rule in broker.acl_rules("all")] == [None, "^guest-"]
    assert execute(users(1), acl_rules=[LAST])["acl_changed"] is False


def test_a_dry_run_changes_no_rules(broker: Any) -> None:
    rows = [{**users(1)[0], "acl": ONE}]
    # as all figures of a dry run: what a run would have done
    assert execute(rows, acl_rules=[OWN], dry_run=True)["acl_changed"] is True
    assert topics("all") == topics("username:d0") == []


@pytest.mark.parametrize("mode", ["upsert", "create"])
def test_rules_of_a_user_come_from_a_column(broker: Any, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.csv"
    text = json.dumps(ONE).replace('"', '""')
    path.write_text(f'user_id,password,rules\nd0,p,"{text}"\nd1,p,\nd2,p,[]\nd3,p,nonsense\nd4,p,"[{{}}]"\n')
    summary = execute(path, columns={"acl": "rules"}, mode=mode)
    assert (summary["written"], summary["rejected"]) == (3, 2)
    assert all("acl" in row["reason"] for row in summary["rejected_rows"])
    assert topics("username:d0") == [("a/b", "allow")]
    assert topics("username:d1") == topics("username:d2") == []
    assert sorted(broker.users) == ["d0", "d1", "d2"]


@pytest.mark.parametrize(
    ("version", "mode", "refused"),
    [
        ("4.4.19", "upsert", "PUT /api/v4/auth_username/d1"),
        ("5.3.0", "upsert", "/users/d1"),
        ("5.3.0", "create", "POST "),
        ("5.8.9", "create", "POST "),
        ("4.4.19", "create", None),
        ("5.8.9", "create", None),
    ],
)
def test_a_user_who_is_not_written_gets_no_rules(
    broker: Any, version: str, mode: str, refused: str | None
) -> None:
    """Refused by the broker, or there already: the rules of that name may be somebody else's."""
    there = ("d0", "d1", "d2") if mode == "upsert" else () if refused else ("d1",)
    with EmqxHook() as hook:
        for user_id in there:
            hook.create_user(user_id, "old")
        for user_id in ("d0", "d1", "d2"):
            hook.set_acl_rules(f"username:{user_id}", [LAST])
    if refused:
        broker.order_fault("status", status=400, match=refused)
    summary = execute([{**row, "acl": ONE} for row in users(3)], mode=mode)
    assert (summary["written"], summary["rejected"] + summary["skipped"]) == (2, 1)
    assert summary["rejected"] == (1 if refused else 0)
    (left_out,) = {"d1"} if there else {"d0", "d1", "d2"} - set(broker.users)
    for user_id in ("d0", "d1", "d2"):
        expected = ("#", "deny") if user_id == left_out else ("a/b", "allow")
        assert topics(f"username:{user_id}") == [expected]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_rules_with_hashes_and_a_state_file(
    broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", '{"conn_type": "generic", "password": "a long secret"}')
    rows = [{**row, "acl": ONE} for row in users(3)]
    execute(rows, hash_passwords=True, pepper_conn_id="pepper")
    assert topics("username:d2") == [("a/b", "allow")]
    assert broker.verify("d2", "p")
    state = {"state_path": tmp_path / "state", "pepper_conn_id": "pepper"}
    execute(rows, **state)
    rows[1]["acl"] = [{"topic": "new", "permission": "deny"}]
    assert execute(rows, **state)["unchanged"] == 2
    assert topics("username:d1") == [("new", "deny")]


@pytest.mark.parametrize("version", ["4.4.19"])
def test_rules_that_the_generation_lacks_reject_their_row(broker: Any) -> None:
    rows = [{**users(1)[0], "acl": [{"topic": "a", "permission": "allow", "retain": True}]}]
    with pytest.raises(EmqxConfigError, match="all 1 rows"):
        execute(rows)
    assert not broker.users


@pytest.mark.parametrize("version", ["4.4.19"])
def test_a_rule_that_emqx_4_could_not_delete_costs_its_row_only(broker: Any) -> None:
    rows = [{**users(1)[0], "acl": [{"topic": "..", "permission": "allow"}]}, *users(3)[1:]]
    summary = execute(rows)
    assert (summary["written"], summary["rejected"]) == (2, 1)
    assert sorted(broker.users) == ["d1", "d2"]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_rules_that_cannot_be_put_back_are_told(broker: Any) -> None:
    with EmqxHook() as hook:
        for user_id in ("d0", "d1", "d2"):
            hook.set_acl_rules(f"username:{user_id}", [LAST])
    broker.order_fault("status", status=400, match="POST /api/v5/authentication/")
    broker.order_fault("status", status=400, match="PUT /api/v5/authorization/", after=3)
    summary = execute([{**row, "acl": ONE} for row in users(3)], mode="create")
    (rejected,) = summary["rejected_rows"]
    assert "ACL rules were replaced before, and the former ones could not be put back" in rejected["reason"]
    assert summary["written"] == 2


def test_a_user_that_is_made_between_looking_and_creating_keeps_its_rules(broker: Any) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules("username:d1", [LAST])

    def others(method: str, path: str) -> None:
        if method == "POST" and "acl" not in path and "d1" not in broker.users:
            broker.add_user("d1", "theirs")

    broker.before_each_request(others)
    summary = execute([{**row, "acl": ONE} for row in users(3)], mode="create")
    assert (summary["written"], summary["skipped"]) == (2, 1)
    assert broker.verify("d1", "theirs")
    assert topics("username:d1") == [("#", "deny")]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_user_whose_creation_was_not_answered_has_its_rules(broker: Any) -> None:
    """It exists when it is tried again, and is most likely ours."""
    broker.order_fault("reset_after", match="POST /api/v5/authentication/")
    summary = execute([{**users(1)[0], "acl": ONE}, *users(3)[1:]], mode="create")
    assert (summary["written"], summary["skipped"]) == (2, 1)
    assert topics("username:d0") == [("a/b", "allow")]


@pytest.mark.parametrize("rules", ["text", {"topic": "a"}, [{"topic": "a"}], [{"permission": "allow"}], [5]])
def test_rules_that_cannot_be_right_are_refused_before_anything_is_sent(broker: Any, rules: Any) -> None:
    with pytest.raises(EmqxConfigError):
        execute(users(1), acl_rules=rules)
    assert not broker.requests

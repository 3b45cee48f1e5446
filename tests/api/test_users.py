from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api.base import Broker, Reply
from airflow_provider_emqx.api.bulk import BulkResult
from airflow_provider_emqx.api.generations import api_of
from tests.api.play import play

V4, V5, OLD = Broker("v4", (4, 4, 19)), Broker("v5", (5, 8, 9)), Broker("v5", (5, 6, 1))
USERS = "/authentication/password_based%3Abuilt_in_database/users"
EXISTS = errors.EmqxAlreadyExistsError(409, "ALREADY_EXISTS", "User already exists")
ABSENT = errors.EmqxNotFoundError(404, "NOT_FOUND", "User not found")
NO_AUTHENTICATOR = errors.EmqxNotFoundError(404, "NOT_FOUND", "Authenticator 'x' does not exist")


def user(user_id: str, password: str = "pw", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "password": password, "is_superuser": False, **more}


def lost(error: errors.EmqxError) -> errors.EmqxError:
    copy = type(error)(*error.args)
    copy.maybe_applied = True
    return copy


def sent(request: Any) -> Any:
    return json.loads(request.body)


def test_an_absent_user_is_none() -> None:
    assert play(api_of(V5).users.get("u"), ABSENT)[0] is None
    assert play(api_of(V4).users.get("u"), Reply(200, {}))[0] is None


@pytest.mark.parametrize(
    "operation",
    [
        lambda: api_of(V5).users.get("u"),
        lambda: api_of(V5).users.update("u", "p"),
        lambda: api_of(V5).users.delete("u"),
        lambda: api_of(V5).users.create("u", "p"),
        lambda: api_of(V5).users.list(),
        lambda: api_of(V5).users.upsert_many([user("u")]),
        lambda: api_of(V5).users.user_id_type(),
    ],
)
def test_a_missing_authenticator_is_no_missing_user(operation: Any) -> None:
    with pytest.raises(errors.EmqxConfigError, match="no authenticator"):
        play(operation(), NO_AUTHENTICATOR)


def test_posting_to_a_missing_authenticator_is_told_the_same_way() -> None:
    refusal = errors.EmqxBadRequestError(400, "BAD_REQUEST", "User error: {not_found,{authenticator,…}}")
    with pytest.raises(errors.EmqxConfigError, match="no authenticator"):
        play(api_of(V5).users.create("u", "p"), refusal)


@pytest.mark.parametrize("user_id", ["", ".", ".."])
@pytest.mark.parametrize("broker", [V4, V5])
def test_ids_that_would_reach_something_else_are_refused_before_anything_is_sent(
    broker: Broker, user_id: str
) -> None:
    users = api_of(broker).users
    for operation in (
        users.get(user_id),
        users.create(user_id, "p"),
        users.update(user_id, "p"),
        users.delete(user_id),
    ):
        with pytest.raises(errors.EmqxConfigError):
            play(operation)


def test_the_superuser_flag_is_always_sent_on_update() -> None:
    _, [request] = play(api_of(V5).users.update("u", "p"), Reply(200, {"user_id": "u"}))
    assert request.json == {"password": "p", "is_superuser": False}


def test_a_delete_that_was_done_by_a_lost_attempt_counts_as_done() -> None:
    assert play(api_of(V5).users.delete("u"), Reply(204))[0] is True
    assert play(api_of(V5).users.delete("u"), ABSENT)[0] is False
    assert play(api_of(V5).users.delete("u"), lost(ABSENT))[0] is True
    assert play(api_of(V4).users.delete("u"), Reply(200))[0] is None


@pytest.mark.parametrize("broker", [V4, V5])
def test_a_create_after_a_lost_attempt_does_not_claim_what_may_be_anothers(broker: Broker) -> None:
    users = api_of(broker).users
    with pytest.raises(errors.EmqxAlreadyExistsError):
        play(users.create("u", "p"), EXISTS)
    with pytest.raises(errors.EmqxOutcomeUnknownError):
        play(users.create("u", "p"), lost(EXISTS))


def test_a_superuser_is_refused_on_emqx_4() -> None:
    for operation in (api_of(V4).users.create("u", "p", True), api_of(V4).users.update("u", "p", True)):
        with pytest.raises(errors.EmqxUnsupportedError):
            play(operation)


def test_v4_users_have_v5_names() -> None:
    page, [request] = play(
        api_of(Broker("v4", (4, 4, 19), user_id_type="clientid")).users.list(),
        Reply(200, [{"clientid": "c1", "created_at": 1795407810266}], {"hasnext": False}),
    )
    assert request.path == "/auth_clientid"
    assert page.rows == [
        {"user_id": "c1", "is_superuser": None, "created_at": "2026-11-23T04:23:30.266+00:00"}
    ]
    assert page.next is None


def test_v5_upsert_is_one_import() -> None:
    result, [request] = play(
        api_of(V5).users.upsert_many([user("a"), user("b", is_superuser=True)]),
        Reply(200, {"total": 2, "success": 1, "override": 1, "skipped": 0, "failed": 0}),
    )
    assert result == BulkResult(2, created=1, updated=1, unchanged=0)
    assert request.params == {"type": "plain"}
    assert request.may_repeat
    assert sent(request) == [user("a"), user("b", is_superuser=True)]


def test_an_import_that_only_says_204_leaves_the_counts_open() -> None:
    result, _ = play(api_of(Broker("v5", (5, 7, 2))).users.upsert_many([user("a")]), Reply(204))
    assert result == BulkResult(1, None, None, None)


def test_counts_that_do_not_add_up_are_an_error() -> None:
    with pytest.raises(errors.EmqxError, match="sum does not match"):
        play(api_of(V5).users.upsert_many([user("a"), user("b")]), Reply(200, {"total": 2, "success": 1}))


def test_a_refused_import_is_cut_down_to_the_bad_row() -> None:
    refused = errors.EmqxBadRequestError(400, "BAD_REQUEST", "no")
    one = Reply(200, {"total": 1, "success": 1, "override": 0, "skipped": 0})
    two = Reply(200, {"total": 2, "success": 2, "override": 0, "skipped": 0})
    result, requests = play(
        api_of(V5).users.upsert_many([user(name) for name in "abcdefghijklmnop"]),
        refused,
        two,
        refused,
        one,
        refused,
        *[two] * 6,
    )
    assert result == BulkResult(15, 15, 0, 0, others={3: ("rejected", "no")})
    assert ["".join(row["user_id"] for row in sent(request)) for request in requests] == [
        *("abcdefghijklmnop", "ab", "cd", "c", "d", "ef", "gh", "ij", "kl", "mn", "op")
    ]


def test_rows_that_are_all_refused_cost_little_more_than_a_request_each() -> None:
    operation = api_of(V5).users.upsert_many([user(f"d{number}") for number in range(512)])
    requests = 512 + 64 + 8 + 1
    result, _ = play(operation, *[errors.EmqxBadRequestError(400, "BAD_REQUEST", "no")] * requests)
    assert result.others == dict.fromkeys(range(512), ("rejected", "no"))


def test_users_that_the_broker_counts_as_failed_are_found_and_the_others_are_counted_once() -> None:
    def counts(total: int, success: int, failed: int, skipped: int) -> Reply:
        data = {"total": total, "success": success, "failed": failed, "override": 0, "skipped": skipped}
        return Reply(200, data)

    result, requests = play(
        api_of(V5).users.upsert_many([user("a"), user("b"), user("c")]),
        counts(3, 2, 1, 0),
        counts(1, 0, 0, 1),
        counts(1, 0, 1, 0),
        counts(1, 0, 0, 1),
    )
    reason = "EMQX counts this user as failed and does not say why"
    assert result == BulkResult(2, 2, 0, 0, others={1: ("rejected", reason)})
    assert [len(sent(request)) for request in requests] == [3, 1, 1, 1]


def test_a_superuser_in_a_namespace_is_not_sent_where_the_broker_takes_none() -> None:
    broker = Broker("v5", (6, 1, 4), namespace="tenant-1")
    result, [request] = play(
        api_of(broker).users.upsert_many([user("a"), user("root", is_superuser=True)]),
        Reply(200, {"total": 1, "success": 1, "failed": 0, "override": 0, "skipped": 0}),
    )
    assert [row["user_id"] for row in sent(request)] == ["a"]
    assert result.done == 1
    assert "namespace" in result.others[1][1]


def test_hashes_and_plain_passwords_go_in_separate_imports() -> None:
    hashed = {"user_id": "h", "password_hash": "ab", "salt": "cd", "is_superuser": False}
    one = Reply(200, {"total": 1, "success": 0, "override": 0, "skipped": 1})
    result, requests = play(api_of(V5).users.upsert_many([hashed, user("p")]), one, one)
    assert [request.params for request in requests] == [{"type": "plain"}, {"type": "hash"}]
    assert (result.done, result.unchanged) == (2, 2)


@pytest.mark.parametrize("broker", [OLD, Broker("v5", (5, 5, 0)), Broker("v5", (5, 0, 0)), Broker("v5")])
def test_brokers_that_could_lose_users_by_an_import_never_see_one(broker: Broker) -> None:
    with pytest.raises(errors.EmqxUnsupportedError, match="one by one"):
        play(api_of(broker).users.upsert_many([user("new"), user("old")]))


def test_a_namespace_goes_with_every_request() -> None:
    broker = Broker("v5", (6, 1, 0), namespace="tenant-1")
    _, [request] = play(api_of(broker).users.get("u"), Reply(200, {"user_id": "u"}))
    assert request.params == {"ns": "tenant-1"}
    _, [request] = play(api_of(broker).users.upsert_many([user("u")]), Reply(204))
    assert sent(request)[0]["namespace"] == "tenant-1"


def test_v4_creation_is_an_array_that_leaves_alone_who_exists() -> None:
    result, [request] = play(
        api_of(V4).users.create_many([user("a"), user("b"), user("c")]),
        Reply(200, {"a": "ok", "b": "{error,existed}", "c": "{error,password}"}),
    )
    assert (result.done, result.created, result.updated) == (1, 1, 0)
    assert result.others[1] == ("skipped", "exists")
    assert result.others[2][0] == "rejected"
    assert sent(request) == [{"username": name, "password": "pw"} for name in "abc"]


def test_v4_rows_that_its_api_cannot_take_are_refused_and_no_empty_array_is_sent() -> None:
    hashed = {"user_id": "h", "password_hash": "ab", "is_superuser": False}
    result, requests = play(api_of(V4).users.create_many([user("s", is_superuser=True), hashed]))
    assert sorted(result.others) == [0, 1]
    assert requests == []


def test_v4_rows_that_a_lost_attempt_may_have_created_are_set_apart() -> None:
    reply = Reply(200, {"a": "{error,existed}"}, maybe_applied=True)
    result, _ = play(api_of(V4).users.create_many([user("a")]), reply)
    assert result.others == {
        0: ("skipped", "exists, perhaps created by an attempt of this run whose response was lost")
    }


def test_an_answer_that_leaves_a_row_out_is_an_error() -> None:
    with pytest.raises(errors.EmqxServerError, match="the outcome of 'b'"):
        play(api_of(V4).users.create_many([user("a"), user("b")]), Reply(200, {"a": "ok"}))


@pytest.mark.parametrize("broker", [V4, V5, OLD])
def test_the_same_id_twice_in_one_bulk_write_is_refused(broker: Broker) -> None:
    users = api_of(broker).users
    for write in (users.upsert_many, users.create_many):
        with pytest.raises(errors.EmqxConfigError, match="'a'"):
            play(write([user("a"), user("a")]))


def test_scram_users_are_not_imported_since_their_keys_cannot_be() -> None:
    scram = Broker("v5", (5, 8, 9), authenticator="scram:built_in_database")
    with pytest.raises(errors.EmqxUnsupportedError, match="one by one"):
        play(api_of(scram).users.upsert_many([user("a"), user("b")]))


@pytest.mark.parametrize("authenticator", ["password_based:mysql", "jwt", "scram:http"])
@pytest.mark.parametrize("call", ["list", "get", "create", "update", "delete", "upsert", "upsert_one"])
def test_users_that_are_kept_elsewhere_are_not_asked_for(authenticator: str, call: str) -> None:
    broker = Broker("v5", (5, 8, 9), authenticator=authenticator)
    operation: Any = {
        "list": lambda: api_of(broker).users.list(),
        "get": lambda: api_of(broker).users.get("a"),
        "create": lambda: api_of(broker).users.create("a", "p"),
        "update": lambda: api_of(broker).users.update("a", "p"),
        "delete": lambda: api_of(broker).users.delete("a"),
        "upsert": lambda: api_of(broker).users.upsert_many([user("a")]),
        "upsert_one": lambda: api_of(broker).users.upsert(user("a")),
    }[call]()
    with pytest.raises(errors.EmqxConfigError, match="not in EMQX's built-in database"):
        next(operation)

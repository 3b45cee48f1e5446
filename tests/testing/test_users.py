from __future__ import annotations

import hashlib
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import AUTHENTICATOR, IMPORT, USERS, call, upload

PLAIN, HASH = IMPORT + "?type=plain", IMPORT + "?type=hash"


def hashed(user_id: str, password_hash: str, salt: str = "s") -> dict[str, Any]:
    return {"user_id": user_id, "password_hash": password_hash, "salt": salt}


def test_import_counts_what_it_made_of_the_rows() -> None:
    with FakeEmqx("5.8.9") as broker:
        broker.add_user("old", "1")
        rows = [
            {"user_id": "old", "password": "2"},
            {"user_id": "new", "password": "3", "is_superuser": "true"},
        ]
        reply = call(broker, "POST", PLAIN, rows)
        assert reply.body == {"total": 2, "success": 1, "override": 1, "skipped": 0, "failed": 0}
        assert broker.verify("old", "2")
        assert broker.users["new"].is_superuser is True
        assert call(broker, "POST", PLAIN, rows).body["override"] == 2  # a fresh salt is drawn


def test_import_of_the_same_hash_is_skipped_and_of_another_one_overrides() -> None:
    with FakeEmqx("5.8.9") as broker:
        first = call(broker, "POST", HASH, [hashed("u", "aa"), hashed("v", "bb")])
        again = call(broker, "POST", HASH, [hashed("u", "aa"), hashed("v", "cc"), hashed("w", "dd")])
        assert first.body["success"] == 2
        assert (again.body["skipped"], again.body["override"], again.body["success"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("version", "status"), [("5.5.0", 204), ("5.8.1", 204), ("5.8.2", 200), ("6.1.0", 200)]
)
def test_import_answers_with_counts_since_5_8_2(version: str, status: int) -> None:
    with FakeEmqx(version) as broker:
        assert call(broker, "POST", PLAIN, [{"user_id": "u", "password": "p"}]).status == status
        assert broker.verify("u", "p")


def test_before_5_5_import_takes_files_with_hashes_only_and_keeps_the_rows_before_a_bad_one() -> None:
    with FakeEmqx("5.3.0") as broker:
        assert call(broker, "POST", PLAIN, [{"user_id": "u", "password": "p"}]).status == 415
        assert upload(broker, PLAIN, "u.csv", b"user_id,password\nu,p\n").status == 400
        assert upload(broker, HASH, "u.csv", b"user_id,password_hash,salt\nu,aa,bb\n").status == 204
        bad = b'[{"user_id":"first","password_hash":"aa"},{"user_id":"second"}]'
        assert upload(broker, HASH, "u.json", bad).status == 400
        assert set(broker.users) == {"u", "first"}
        assert upload(broker, HASH, "u.json", b"[]").status == 204


@pytest.mark.parametrize(("version", "left"), [("5.5.1", set()), ("5.6.1", set()), ("5.7.0", {"old"})])
def test_a_failed_import_deletes_everyone_it_names_on_5_5_and_5_6(version: str, left: set[str]) -> None:
    with FakeEmqx(version) as broker:
        broker.add_user("old", "p")
        rows = [{"user_id": "old", "password": "x"}, {"user_id": "bad"}]
        assert call(broker, "POST", PLAIN, rows).status == 400
        assert set(broker.users) == left


def test_csv_splits_at_spaces_and_collapses_empty_fields() -> None:
    with FakeEmqx() as broker:
        assert (
            upload(broker, PLAIN, "u.csv", b"user_id,password,is_superuser\nu,two words\n").body["success"]
            == 1
        )
        assert broker.users["u"].password == "two"
        assert (
            upload(broker, PLAIN, "u.csv", b"user_id,password,is_superuser\nv,,true\n").body["code"]
            == "BAD_REQUEST"
        )
        assert upload(broker, PLAIN, "u.txt", b"user_id,password\nv,p\n").status == 400


def test_update_without_the_flag_drops_superuser() -> None:
    with FakeEmqx() as broker:
        broker.add_user("u", "p", is_superuser=True)
        assert call(broker, "PUT", USERS + "/u", {"password": "q"}).body["is_superuser"] is False
        assert broker.verify("u", "q")


def test_a_numeric_id_is_stored_out_of_reach_and_breaks_every_search() -> None:
    with FakeEmqx() as broker:
        broker.add_user("text", "p")
        assert call(broker, "POST", USERS, {"user_id": 5, "password": "p"}).status == 201
        assert call(broker, "GET", USERS + "/5").status == 404
        assert call(broker, "GET", USERS).body["meta"]["count"] == 2
        assert call(broker, "GET", USERS + "?like_user_id=t").status == 400


def test_a_full_page_of_a_search_claims_that_there_is_more() -> None:
    with FakeEmqx() as broker:
        for number in range(4):
            broker.add_user(f"u{number}", "p")
        second = call(broker, "GET", USERS + "?like_user_id=u&limit=2&page=2").body
        third = call(broker, "GET", USERS + "?like_user_id=u&limit=2&page=3").body
        assert (len(second["data"]), second["meta"]["hasnext"]) == (2, True)
        assert (third["data"], third["meta"]["hasnext"]) == ([], False)
        assert call(broker, "GET", USERS + "?limit=2&page=2").body["meta"]["hasnext"] is False


@pytest.mark.parametrize(("version", "highest"), [("5.4.1", 1000), ("5.5.0", 10000)])
def test_the_highest_limit(version: str, highest: int) -> None:
    with FakeEmqx(version) as broker:
        assert call(broker, "GET", f"{USERS}?limit={highest}").status == 200
        assert call(broker, "GET", f"{USERS}?limit={highest + 1}").status == 400


def test_without_an_authenticator() -> None:
    with FakeEmqx(authenticator=False) as broker:
        assert call(broker, "GET", "/authentication").body == []
        assert call(broker, "GET", USERS).status == 404
        assert call(broker, "POST", PLAIN, [{"user_id": "u", "password": "p"}]).status == 404
    with FakeEmqx("4.4.19", authenticator=False) as broker:
        reply = call(broker, "GET", "/auth_username")
        assert (reply.status, reply.body) == (404, "Not found.")


def test_the_authenticator_tells_what_ids_mean_and_how_passwords_are_hashed() -> None:
    algorithm = {"name": "sha512", "salt_position": "prefix"}
    with FakeEmqx(user_id_type="clientid", password_hash_algorithm=algorithm) as broker:
        config = call(broker, "GET", AUTHENTICATOR).body
        assert (config["user_id_type"], config["password_hash_algorithm"]) == ("clientid", algorithm)


@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "plain", "salt_position": "disable"},
        {"name": "md5", "salt_position": "prefix"},
        {"name": "sha", "salt_position": "suffix"},
        {"name": "sha256", "salt_position": "suffix"},
        {"name": "sha512", "salt_position": "prefix"},
        {"name": "bcrypt", "salt_rounds": 5},
        {"name": "pbkdf2", "mac_fun": "sha256", "iterations": 10},
        {"name": "pbkdf2", "mac_fun": "sha", "iterations": 10, "dk_length": 16},
    ],
)
def test_devices_get_in_with_the_password_behind_an_imported_hash(algorithm: dict[str, Any]) -> None:
    with FakeEmqx(password_hash_algorithm=algorithm) as broker:
        password_hash, salt = broker.make_hash("pässword")
        call(broker, "POST", HASH, [hashed("u", password_hash, salt)])
        assert broker.verify("u", "pässword")
        assert not broker.verify("u", "wrong")


def test_a_hash_with_the_salt_on_the_wrong_side_locks_the_device_out() -> None:
    with FakeEmqx(password_hash_algorithm={"name": "sha256", "salt_position": "suffix"}) as broker:
        call(broker, "POST", HASH, [hashed("u", hashlib.sha256(b"saltsecret").hexdigest(), "salt")])
        call(broker, "POST", HASH, [hashed("v", hashlib.sha256(b"secretsalt").hexdigest(), "salt")])
        assert not broker.verify("u", "secret")
        assert broker.verify("v", "secret")
        assert not broker.connect("d", "u", "secret")
        assert broker.connect("d", "v", "secret")


def test_namespaces_since_6_1() -> None:
    with FakeEmqx("6.1.0") as broker:
        created = call(broker, "POST", USERS, {"user_id": "u", "password": "p", "namespace": "n"})
        assert created.body == {"user_id": "u", "is_superuser": False, "namespace": "n"}
        call(broker, "POST", PLAIN, [{"user_id": "i", "password": "p", "namespace": "n"}])
        assert call(broker, "GET", USERS + "/u").status == 404
        assert call(broker, "GET", USERS + "/u?ns=n").status == 200
        assert {row["user_id"] for row in call(broker, "GET", USERS + "?ns=n").body["data"]} == {"u", "i"}
        assert not broker.users


def test_users_are_read_in_managed_namespaces_only_since_6_3() -> None:
    row = {"user_id": "u", "password": "p", "namespace": "n"}
    with FakeEmqx("6.3.0") as broker:
        assert call(broker, "POST", USERS, row).status == 201
        for method, path in (
            ("GET", USERS + "?ns=n"),
            ("GET", USERS + "/u?ns=n"),
            ("DELETE", USERS + "/u?ns=n"),
        ):
            assert call(broker, method, path).status == 400
        broker.add_namespace("n")
        assert call(broker, "GET", "/mt/managed_ns_list").body == ["n"]
        assert call(broker, "POST", "/mt/ns/n", {}).status == 400
        assert call(broker, "GET", USERS + "/u?ns=n").status == 200
        assert call(broker, "DELETE", "/mt/ns/n").status == 204
        assert call(broker, "GET", USERS + "?ns=n").body["message"] == "Managed namespace not found"
    with pytest.raises(RuntimeError, match=r"6\.1"):
        FakeEmqx("5.8.9").add_namespace("n")


def test_an_import_into_several_namespaces_is_one_transaction() -> None:
    with FakeEmqx("6.1.0") as broker:
        rows = [{"user_id": "a", "password": "p", "namespace": "m"}, {"user_id": "b", "namespace": "n"}]
        assert call(broker, "POST", PLAIN, rows).status == 400
        assert call(broker, "GET", USERS + "/a?ns=m").status == 404


# 4.4


def test_v4_array_results_are_keyed_by_name_so_that_the_first_row_hides_the_second() -> None:
    rows = [
        {"username": "u", "password": "1"},
        {"username": "u", "password": ""},
        {"password": "x"},
        {"username": "", "password": "x"},
        {"username": "v"},
    ]
    with FakeEmqx("4.4.19") as broker:
        results = call(broker, "POST", "/auth_username", rows).body["data"]
        assert results == {
            "u": "ok",
            "undefined": "{error,login}",
            "": "{error,login}",
            "v": "{error,password}",
        }
        assert set(broker.users) == {"u"}


def test_v4_crashes_on_an_empty_array_and_on_query_parameters_beside_one() -> None:
    with FakeEmqx("4.4.19") as broker:
        for path, body in (
            ("/auth_username", []),
            ("/auth_username?x=1", [{"username": "u", "password": "p"}]),
        ):
            reply = call(broker, "POST", path, body)
            assert (reply.status, reply.body) == (500, "Internal Error")
        assert not broker.users


def test_v4_keeps_usernames_and_client_ids_apart() -> None:
    with FakeEmqx("4.4.19", user_id_type="clientid") as broker:
        call(broker, "POST", "/auth_clientid", {"clientid": "x", "password": "1"})
        call(broker, "POST", "/auth_username", {"username": "x", "password": "2"})
        assert broker.verify("x", "1")
        assert broker.users_of("username")["x"].password == "2"


def test_v4_pages_are_sorted_one_by_one_the_newest_first() -> None:
    with FakeEmqx("4.4.19") as broker:
        for number in range(4):
            broker.add_user(f"u{number}", "p")
            broker.advance(1)
        pages = [call(broker, "GET", f"/auth_username?_limit=2&_page={page}").body for page in (1, 2)]
        assert [[row["username"] for row in page["data"]] for page in pages] == [["u1", "u0"], ["u3", "u2"]]
        assert [page["meta"]["hasnext"] for page in pages] == [True, False]

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning.hashing import Algorithm, Hasher
from airflow_provider_emqx.testing.passwords import check, make_hash

SIMPLE = [
    {"name": name, "salt_position": position}
    for name in ("plain", "md5", "sha", "sha256", "sha512")
    for position in ("prefix", "suffix", "disable")
]
PBKDF2 = [
    {"name": "pbkdf2", "mac_fun": mac, "iterations": 50, **({"dk_length": length} if length else {})}
    for mac, length in (("sha", None), ("sha256", None), ("sha256", 20), ("sha512", 64), ("md5", None))
]
ALGORITHMS = [*SIMPLE, *PBKDF2, {"name": "bcrypt", "salt_rounds": 5}]


def algorithm(given: dict[str, Any]) -> Algorithm:
    return Algorithm.of({"id": "password_based:built_in_database", "password_hash_algorithm": given})


def user(user_id: str = "d1", password: str = "pässword") -> dict[str, Any]:
    return {"user_id": user_id, "password": password, "is_superuser": False}


@pytest.mark.parametrize("given", ALGORITHMS, ids=str)
def test_a_hash_lets_its_device_in_and_no_other(given: dict[str, Any]) -> None:
    hashed = Hasher(algorithm(given), "pepper").hashed(user())
    assert set(hashed) == {"user_id", "password_hash", "salt", "is_superuser"}
    assert check(given, hashed["password_hash"], hashed["salt"], "pässword")
    assert not check(given, hashed["password_hash"], hashed["salt"], "password")


@pytest.mark.parametrize("given", ALGORITHMS, ids=str)
def test_the_same_row_has_the_same_hash_at_every_run(given: dict[str, Any]) -> None:
    assert Hasher(algorithm(given), "pepper").hashed(user()) == Hasher(algorithm(given), "pepper").hashed(
        user()
    )


@pytest.mark.parametrize(
    "given",
    [one for one in ALGORITHMS if one.get("salt_position") != "disable" and one["name"] != "plain"],
    ids=str,
)
def test_two_users_with_one_password_have_two_hashes(given: dict[str, Any]) -> None:
    hasher = Hasher(algorithm(given), "pepper")
    one, other = hasher.hashed(user("d1")), hasher.hashed(user("d2"))
    assert one["password_hash"] != other["password_hash"]
    assert one["password_hash"] != Hasher(algorithm(given), "other").hashed(user("d1"))["password_hash"]


@pytest.mark.parametrize("given", ALGORITHMS, ids=str)
def test_a_hash_that_somebody_else_made_for_this_algorithm_is_taken(given: dict[str, Any]) -> None:
    password_hash, salt = make_hash(given, "secret")
    assert algorithm(given).wrong(password_hash, salt) is None


@pytest.mark.parametrize(
    ("given", "password_hash", "salt", "reason"),
    [
        ({"name": "sha256", "salt_position": "prefix"}, "a" * 32, "", "must have 64 hex digits"),
        ({"name": "sha256", "salt_position": "prefix"}, "g" * 64, "", "must have 64 hex digits"),
        ({"name": "sha256", "salt_position": "prefix"}, "secret", "x", "the authenticator expects sha256"),
        ({"name": "sha256", "salt_position": "disable"}, "a" * 64, "x", "there is a salt"),
        ({"name": "md5", "salt_position": "suffix"}, "a" * 64, "", "must have 32 hex digits"),
        ({"name": "bcrypt"}, "a" * 64, "", "not a bcrypt hash"),
        ({"name": "bcrypt"}, "$2y$10$" + "a" * 53, "", "not a bcrypt hash"),
        (
            {"name": "pbkdf2", "mac_fun": "sha256", "iterations": 9, "dk_length": 20},
            "a" * 64,
            "x",
            "40 hex digits",
        ),
        ({"name": "sha512", "salt_position": "prefix"}, "$2b$10$" + "a" * 53, "", "128 hex digits"),
    ],
)
def test_a_hash_that_would_lock_its_device_out_is_wrong(
    given: dict[str, Any], password_hash: str, salt: str, reason: str
) -> None:
    told = algorithm(given).wrong(password_hash, salt)
    assert told is not None
    assert reason in told
    assert password_hash not in told


def test_bcrypt_takes_72_bytes_of_a_password() -> None:
    hasher = Hasher(algorithm({"name": "bcrypt", "salt_rounds": 5}), "pepper")
    assert hasher.wrong("ü" * 36) is None
    assert "72 bytes" in (hasher.wrong("ü" * 36 + "x") or "")
    assert Hasher(algorithm(SIMPLE[-1]), "pepper").wrong("x" * 1_000) is None


def test_pbkdf2_without_a_length_has_that_of_its_hash_function() -> None:
    assert (
        algorithm({"name": "pbkdf2", "mac_fun": "sha", "iterations": 1}).length == hashlib.sha1().digest_size
    )


def test_an_algorithm_of_the_future_is_refused() -> None:
    with pytest.raises(EmqxConfigError, match="'argon2'"):
        algorithm({"name": "argon2"})

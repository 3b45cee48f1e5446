from __future__ import annotations

import json

import pytest

from airflow_provider_emqx.api.base import Request
from airflow_provider_emqx.api.reason import clean

BARE = Request("GET", "/x")


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        ("Client ID not found", "Client ID not found"),
        (
            "Authenticator 'password_based:redis' does not exist",
            "Authenticator 'password_based:redis' does not exist",
        ),
        (
            '{"value":20000,"reason":{"expected":"1..10000"},"path":"limit","kind":"validation_error"}',
            "limit: expected 1..10000",
        ),
        (
            '[{"reason":"required_field","path":"root.a","kind":"x"},{"reason":"bad","path":"root.b","kind":"x"}]',
            "a: required_field; b: bad",
        ),
        ('"plain_import_requires_password_field"', "plain_import_requires_password_field"),
        ("[67,97,110,110,111,116]", "Cannot"),
        ("several\nlines\x00 and \x1b[31mcolour", "several lines and [31mcolour"),
    ],
)
def test_the_brokers_words_are_made_readable(message: str, cleaned: str) -> None:
    assert clean(message, BARE) == cleaned


def test_a_body_that_is_one_text_is_a_secret() -> None:
    request = Request("POST", "/publish", json='planted-text {% if "')
    said = clean('Content-Length: 28 "planted-text {% if"', request)
    assert "planted-text" not in said
    assert "planted-text" not in clean('at planted-text {% if "', request)


def test_a_rejected_value_is_left_out() -> None:
    echoed = json.dumps([{"user_id": "u8", "password": "planted-pw"}])
    schema = f'{{"value":{echoed},"reason":"bad_value_for_struct","path":"root","kind":"validation_error"}}'
    for message in (schema, '{add,#{password => <<"planted-pw">>}}', 'crash "planted-pw"'):
        assert "planted-pw" not in clean(message, BARE)


@pytest.mark.parametrize("field", ["password", "password_hash", "salt", "payload"])
def test_a_message_that_shows_a_secret_of_the_request_is_withheld(field: str) -> None:
    for request in (
        Request("POST", "/x", json=[{"user_id": "u", field: "hunter2"}]),
        Request("POST", "/x", body=json.dumps([{"user_id": "u", field: "hunter2"}]).encode()),
    ):
        assert "hunter2" not in clean("cannot take hunter2 as it is", request)


def test_a_short_password_does_not_hide_every_message() -> None:
    request = Request("POST", "/x", json={"password": "a"})
    assert clean("bad_format", request) == "bad_format"
    assert "withheld" in clean("cannot take a as it is", request)


def test_a_long_message_is_cut() -> None:
    assert len(clean("x" * 5_000, BARE)) == 300


def test_no_beginning_of_a_secret_is_left_where_a_long_message_is_cut() -> None:
    request = Request("POST", "/x", json={"password": "pl4nted-password-of-a-user"})
    said = clean("x " * 145 + "pl4nted-password-of-a-user", request)
    assert "pl4nted" not in said

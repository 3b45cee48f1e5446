from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_emqx import arguments
from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.api.filters import CLIENT_FILTERS, read_filters
from airflow_provider_emqx.api.messages import message_row
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning.acl import _subject
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.check import Checker
from airflow_provider_emqx.provisioning.sources import read_rows


def _of_an_argument(value: Any) -> bool:
    return arguments.boolean("x", value)


def _of_a_filter(value: Any) -> bool:
    found: bool = read_filters(CLIENT_FILTERS, {"clean_start": value})["clean_start"]
    return found


def _of_a_message(value: Any) -> bool:
    found: bool = message_row({"topic": "t", "payload": "", "retain": value}, 1)["retain"]
    return found


def _of_a_user(value: Any) -> bool:
    rows = [{"user_id": "a", "password": "S3cret-pass", "is_superuser": value}]
    (block,) = read_rows(rows, Format())
    checked = Checker(Broker("v5", (5, 8, 9)), False).check(block)
    if checked.bad:
        raise EmqxConfigError(checked.bad[0].reason)
    found: bool = checked.users[0]["is_superuser"]
    return found


READERS = [_of_an_argument, _of_a_filter, _of_a_message, _of_a_user]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (value, True)
            for value in (True, 1, Decimal(1), "true", "True", " TRUE ", "1", "yes", "Yes", "on")
        ),
        *((value, False) for value in (False, 0, "false", "False", "0", "no", "off", "OFF")),
    ],
)
def test_the_same_words_are_true_and_false_everywhere(
    read: Callable[[Any], bool], value: Any, expected: bool
) -> None:
    assert read(value) is expected


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("value", ["perhaps", 2, "2", [], "None of these"])
def test_what_is_neither_is_refused_with_the_same_words_everywhere(
    read: Callable[[Any], bool], value: Any
) -> None:
    with pytest.raises(EmqxConfigError, match="must be true or false"):
        read(value)


@pytest.mark.parametrize(
    "read",
    [
        arguments.boolean,
        arguments.number,
        arguments.positive,
        arguments.whole,
        arguments.span,
        arguments.text,
        arguments.texts,
        arguments.mapping,
        lambda name, value: arguments.limit(value, 10, name),
        lambda name, value: arguments.choice(name, value, ("a", "b")),
    ],
)
def test_a_template_without_a_value_is_refused_by_every_reader(read: Callable[[str, Any], Any]) -> None:
    with pytest.raises(EmqxConfigError, match="x has no value; expected "):
        read("x", "")
    assert arguments.optional(read, "x", "") is None
    assert arguments.optional(read, "x", None) is None


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (arguments.number, "-1.5", -1.5),
        (arguments.number, "5.0", 5),
        (arguments.whole, "9007199254740993", 2**53 + 1),
        (arguments.span, "60", 60),
        (arguments.span, timedelta(minutes=1), 60),
        (arguments.texts, "a", ["a"]),
        (arguments.texts, ("a", "b"), ["a", "b"]),
        (arguments.texts, '["a", "b"]', ["a", "b"]),
        (arguments.texts, "['a', 'b']", ["a", "b"]),
        (arguments.texts, "[ab]", ["[ab]"]),
        (arguments.texts, None, []),
        (arguments.mapping, '{"a": 1}', {"a": 1}),
        (arguments.mapping, "{'a': 1}", {"a": 1}),
    ],
)
def test_a_value_may_be_the_text_that_a_template_makes_of_it(
    read: Callable[[str, Any], Any], value: Any, expected: Any
) -> None:
    assert read("x", value) == expected


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (arguments.number, "nan"),
        (arguments.number, True),
        (arguments.positive, 0),
        (arguments.whole, 1.5),
        (arguments.span, timedelta(0)),
        (arguments.span, "1e12"),
        (arguments.texts, 5),
        (arguments.texts, b"a"),
        (arguments.mapping, ["a"]),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(read: Callable[[str, Any], Any], value: Any) -> None:
    with pytest.raises(EmqxConfigError, match="^x must be "):
        read("x", value)


def test_no_error_shows_rows_or_names_with_values() -> None:
    for read in (arguments.texts, arguments.mapping, arguments.text, arguments.boolean):
        for value in ([{"password": "S3cret"}], "[{'password': 'S3cret'}]", {1: "S3cret"}):
            if read in (arguments.text, arguments.boolean) and isinstance(value, str):
                continue
            with pytest.raises(EmqxConfigError) as caught:
                read("x", value)
            assert "S3cret" not in str(caught.value)


def test_rules_for_all_clients_are_told_with_the_same_words() -> None:
    assert _subject(None, None, "on") == ("all", "")
    assert _subject("alice", None, "off") == ("username", "alice")
    with pytest.raises(EmqxConfigError, match="all must be true or false"):
        _subject(None, None, "perhaps")

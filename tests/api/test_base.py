from __future__ import annotations

import pytest

from airflow_provider_emqx.api.base import Broker, Request, path
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxUnsupportedError


def test_a_segment_is_encoded_whole() -> None:
    assert path("clients", "dev/a b%#?ü+") == "/clients/dev%2Fa%20b%25%23%3F%C3%BC%2B"


@pytest.mark.parametrize("segment", ["", ".", "..", "\ud800", None, 7, "x" * 64_000])
def test_a_segment_that_would_reach_something_else_is_refused(segment: object) -> None:
    with pytest.raises(EmqxConfigError):
        path("authentication", "password_based:built_in_database", "users", segment)  # type: ignore[arg-type]


def test_dots_inside_a_longer_id_are_fine() -> None:
    assert path("clients", "..a") == "/clients/..a"
    assert path("clients", "a/../b") == "/clients/a%2F..%2Fb"


def test_a_request_does_not_show_its_body() -> None:
    request = Request("POST", "/x", json={"password": "planted"}, body=b"planted")
    assert "planted" not in f"{request} {request!r}"


def test_only_post_is_unrepeatable_by_default() -> None:
    assert [Request(method, "/x").may_repeat for method in ("GET", "PUT", "DELETE", "POST")] == [
        True,
        True,
        True,
        False,
    ]
    assert Request("POST", "/x", repeatable=True).may_repeat


def test_an_unknown_version_is_never_new_enough_but_is_let_through_where_asked() -> None:
    unknown, old = Broker("v5"), Broker("v5", (5, 4, 1))
    assert not unknown.at_least(5)
    unknown.require("a ban of a network", 5, 6)
    with pytest.raises(
        EmqxUnsupportedError, match=r"a ban of a network needs EMQX 5\.6 or newer; this is EMQX 5\.4\.1"
    ):
        old.require("a ban of a network", 5, 6)

from __future__ import annotations

import pytest

from airflow_provider_emqx.api.base import Broker, Operation, Reply, Request, ahead, path
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxNotFoundError, EmqxUnsupportedError
from tests.api.play import play


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


def ask(done: list[str], *paths: str) -> Operation[list[object]]:
    """Ask for some paths and note when work is done."""
    answers: list[object] = []
    for one in paths:
        done.append(one)
        try:
            reply = yield Request("GET", one)
        except EmqxNotFoundError as error:
            answers.append(error.status)
        else:
            answers.append(reply.data)
    return answers


def test_work_done_ahead_ends_at_the_first_request() -> None:
    done: list[str] = []
    operation = ahead(ask(done, "/a", "/b", "/c"))
    assert done == ["/a"]
    result, asked = play(operation, Reply(200, 1), EmqxNotFoundError(404, "", "", "GET /b"), Reply(200, 3))
    assert result == [1, 404, 3]
    assert [request.path for request in asked] == done == ["/a", "/b", "/c"]


def test_an_operation_without_a_request_is_done_ahead_as_a_whole() -> None:
    assert play(ahead(ask([]))) == ([], [])


def test_an_error_that_ends_an_operation_ends_it_ahead_as_well() -> None:
    error = EmqxUnsupportedError("not here")
    with pytest.raises(EmqxUnsupportedError) as raised:
        play(ahead(ask([], "/a", "/b")), error)
    assert raised.value is error

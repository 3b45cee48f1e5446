from __future__ import annotations

import logging
import time
from email.utils import formatdate
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api.base import Reply, Request
from airflow_provider_emqx.transport import exchange
from airflow_provider_emqx.transport.settings import Settings

SETTINGS = Settings("https://broker.example.com", "/api/v5", key="key", secret="secret")


def test_the_target_is_path_and_query_byte_for_byte() -> None:
    request = Request(
        "GET", "/clients/a%2Fb", {"like_clientid": "a+b c", "page": 1, "none": None, "flag": True}
    )
    assert (
        exchange.target(request, "/api/v5")
        == "/api/v5/clients/a%2Fb?like_clientid=a%2Bb%20c&page=1&flag=true"
    )


def test_a_list_repeats_its_parameter() -> None:
    request = Request("GET", "/clients", {"clientid": ["a", "b"]})
    assert exchange.target(request, "/api/v5") == "/api/v5/clients?clientid=a&clientid=b"


def test_a_raw_request_counts_from_the_origin() -> None:
    assert exchange.target(Request("GET", "/status", raw=True), "/api/v5") == "/status"


@pytest.mark.parametrize("value", [{"x": {1, 2}}, {"x": float("nan")}, {"x": "\ud800"}])
def test_a_body_that_is_no_json_is_refused_without_being_shown(value: Any) -> None:
    with pytest.raises(errors.EmqxConfigError):
        exchange.body(Request("POST", "/x", json=value))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after_in_seconds(header: str, seconds: float | None) -> None:
    assert exchange.answer(429, {"Retry-After": header}, b"").retry_after == seconds


def test_retry_after_as_a_date() -> None:
    later = exchange.answer(503, {"Retry-After": formatdate(time.time() + 60, usegmt=True)}, b"").retry_after
    assert later is not None
    assert 50 < later < 61
    assert exchange.answer(503, {"Retry-After": formatdate(0, usegmt=True)}, b"").retry_after == 0


@pytest.mark.parametrize(
    ("location", "origin"),
    [
        ("https://sso.example.com:8443/login?token=planted", "https://sso.example.com:8443"),
        ("/login?token=planted", "another path of the same host"),
        ("https://[broken", "elsewhere"),
        ("https://\udcff\udcfe", "elsewhere"),
        ("https://a\x1b[31m", "elsewhere"),
    ],
)
def test_of_a_redirect_only_the_origin_is_kept(location: str, origin: str) -> None:
    assert exchange.answer(302, {"Location": location}, b"").location == origin


REPEATABLE, ONCE = Request("GET", "/x"), Request("POST", "/publish")
LOST = [
    errors.EmqxConnectionError("reset", "", True),
    errors.EmqxTimeoutError("timeout", "", True),
    errors.EmqxServerError(502),
    errors.EmqxServerError(504),
    errors.EmqxServerError(200, "", "the answer is no JSON"),
]
NEVER_SENT = [errors.EmqxConnectionError("refused", "", False), errors.EmqxTimeoutError("connect", "", False)]
NOT_NOW = [
    errors.EmqxServerError(503),
    errors.EmqxServerError(200, "101"),
    errors.EmqxServerError(500, "NODE_DOWN"),
    errors.EmqxServerError(500, "RPC_ERROR"),
    errors.EmqxServerError(400, "BAD_RPC"),
]
FINAL = [
    errors.EmqxConnectionError("certificate", "", False, False),
    errors.EmqxAuthError(401),
    errors.EmqxForbiddenError(403),
    errors.EmqxBadRequestError(400),
    errors.EmqxNotFoundError(404),
    errors.EmqxAlreadyExistsError(409),
    errors.EmqxConfigError("x"),
    errors.EmqxUnsupportedError("x"),
]


@pytest.mark.parametrize(
    ("outcomes", "repeatable", "once", "once_by_leave"),
    [
        (LOST, True, False, False),
        (NEVER_SENT, True, True, True),
        ([errors.EmqxRateLimitError()], True, True, True),
        (NOT_NOW, True, False, True),
        ([errors.EmqxServerError(500, "INTERNAL_ERROR")], True, False, False),
        (FINAL, False, False, False),
    ],
)
def test_the_retry_table(
    outcomes: list[errors.EmqxError], repeatable: bool, once: bool, once_by_leave: bool
) -> None:
    from dataclasses import replace

    for error in outcomes:
        assert exchange.Exchange(REPEATABLE, SETTINGS).worth_retrying(error) is repeatable, error
        assert exchange.Exchange(ONCE, SETTINGS).worth_retrying(error) is once, error
        assert (
            exchange.Exchange(ONCE, replace(SETTINGS, retry_unsafe=True)).worth_retrying(error)
            is once_by_leave
        )


@pytest.mark.parametrize("error", LOST, ids=repr)
def test_a_lost_unrepeatable_request_ends_as_unknown(error: errors.EmqxError) -> None:
    assert isinstance(exchange.Exchange(ONCE, SETTINGS).final(error), errors.EmqxOutcomeUnknownError)
    assert exchange.Exchange(REPEATABLE, SETTINGS).final(error) is error


def test_the_rate_limit_spaces_requests_evenly() -> None:
    now = [100.0]
    limit = exchange.RateLimit(10, clock=lambda: now[0])
    assert [round(limit.reserve(), 3) for _ in range(3)] == [0.0, 0.1, 0.2]
    now[0] = 200.0
    assert limit.reserve() == 0.0
    assert exchange.RateLimit(None).reserve() == 0.0


def test_neither_header_nor_secret_shows_in_any_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert "secret" not in repr(SETTINGS)
    assert exchange.headers(SETTINGS)["Authorization"] == "Basic a2V5OnNlY3JldA=="
    assert "a2V5OnNlY3JldA" not in caplog.text


@pytest.mark.parametrize(
    ("error", "applied"),
    [
        (errors.EmqxConnectionError("reset", "", True), True),
        (errors.EmqxConnectionError("refused", "", False), False),
        (errors.EmqxServerError(500, "INTERNAL_ERROR"), True),
        (errors.EmqxServerError(524), True),
        (errors.EmqxServerError(503), False),
        (errors.EmqxServerError(408), False),
        (errors.EmqxNotFoundError(404), False),
        (errors.EmqxAuthError(401), False),
    ],
)
def test_an_error_tells_whether_the_work_may_have_been_done(error: errors.EmqxError, applied: bool) -> None:
    assert exchange.Exchange(REPEATABLE, SETTINGS).final(error).maybe_applied is applied
    assert exchange.Exchange(ONCE, SETTINGS).final(error).maybe_applied is applied


def test_the_wait_of_our_own_rate_limit_does_not_count_against_the_deadline() -> None:
    now = [100.0]
    asked = exchange.Exchange(REPEATABLE, SETTINGS, clock=lambda: now[0])
    now[0] += 400.0
    assert asked.remaining == 0.001
    asked.put_off(400.0)
    assert asked.remaining == SETTINGS.deadline


def test_pauses_double_up_to_half_a_minute_and_are_half_chance() -> None:
    from types import SimpleNamespace

    asked = exchange.Exchange(REPEATABLE, SETTINGS)
    error = errors.EmqxServerError(503)
    state: Any = SimpleNamespace(outcome=SimpleNamespace(failed=True, exception=lambda: error))
    pauses = []
    for attempt in range(1, 12):
        state.attempt_number = attempt
        asked._note(state)
        pauses.append(asked._pause(state))
    for pause, longest in zip(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30], strict=True):
        assert longest / 2 <= pause <= longest


def test_an_answer_of_another_shape_leaves_it_unknown_only_what_must_not_be_repeated() -> None:
    def reads_a_row(request: Request) -> Any:
        reply = yield request
        return reply.row

    for request, expected in (
        (REPEATABLE, errors.EmqxServerError),
        (Request("DELETE", "/x"), errors.EmqxServerError),
        (Request("POST", "/x", repeatable=True), errors.EmqxServerError),
        (ONCE, errors.EmqxOutcomeUnknownError),
    ):
        operation = reads_a_row(request)
        with pytest.raises(expected):
            exchange.proceed(operation, next(operation), Reply(200, "no row"))

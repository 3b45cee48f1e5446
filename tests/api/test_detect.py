from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api import detect
from airflow_provider_emqx.api.base import Broker, Reply
from tests.api.play import play

NOW = datetime(2026, 11, 23, 4, 23, 28, tzinfo=UTC)
NOTHING = Reply(404, b"")
V4_LIST = Reply(200, b'{"code":0,"data":[],"meta":{"count":0}}')
V5_REFUSAL = Reply(401, b'{"code":"BAD_API_KEY_OR_SECRET","message":"Check api_key/api_secret"}')
HTML = Reply(200, b"<html>welcome</html>")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ([Reply(200, b"Node emqx@127.0.0.1 is started\n")], ("v5", "/api/v5")),
        ([Reply(503, b"Node emqx@127.0.0.1 is starting\n")], ("v5", "/api/v5")),
        ([NOTHING, V5_REFUSAL], ("v5", "/api/v5")),
        ([NOTHING, NOTHING, V4_LIST], ("v4", "/api/v4")),
        ([NOTHING, Reply(401, b"UNAUTHORIZED"), Reply(401, b"UNAUTHORIZED")], ("v4", "/api/v4")),
        ([HTML, HTML, HTML, V4_LIST], ("v4", "/api")),
    ],
)
def test_the_generation_is_found_by_what_answers(script: list[Reply], found: tuple[str, str]) -> None:
    assert play(detect.generation(""), *script)[0] == found


def test_what_is_not_emqx_is_said_to_be_so() -> None:
    with pytest.raises(errors.EmqxConfigError, match="not EMQX's management API"):
        play(detect.generation(""), HTML, HTML, HTML, HTML)


def test_a_prefix_stays_before_the_api() -> None:
    found, [request] = play(detect.generation("/emqx"), Reply(200, b"Node x is started"))
    assert found == ("v5", "/emqx/api/v5")
    assert request.path == "/emqx/api/v5/status"


def test_serverless_is_not_asked() -> None:
    assert play(detect.generation("", serverless=True)) == (("v5", "/api/v5"), [])
    assert play(detect.version(Broker("v5", serverless=True), NOW)) == ((None, 0), [])


def test_the_oldest_node_counts() -> None:
    nodes = Reply(200, [{"version": "5.8.9"}, {"version": "5.7.2"}, {"node": "x", "error": "down"}])
    assert play(detect.version(Broker("v5"), NOW), nodes)[0] == ((5, 7, 2), 0)


@pytest.mark.parametrize(
    ("local", "minutes"),
    [("2026-11-23 04:23:28", 0), ("2026-11-23 12:23:40", 480), ("2026-11-23 09:53:20", 330), ("", 0)],
)
def test_a_v4_brokers_clock_tells_its_time_zone(local: str, minutes: int) -> None:
    reply = Reply(200, [{"version": "4.4.19", "datetime": local}])
    assert play(detect.version(Broker("v4"), NOW), reply)[0] == ((4, 4, 19), minutes)


@pytest.mark.parametrize(
    "error",
    [
        errors.EmqxAuthError(401),
        errors.EmqxForbiddenError(403),
        errors.EmqxUnsupportedError("x"),
    ],
)
def test_a_version_that_the_key_may_not_see_is_unknown(error: Exception) -> None:
    assert play(detect.version(Broker("v5"), NOW), error)[0] == (None, 0)


@pytest.mark.parametrize("error", [errors.EmqxNotFoundError(404), errors.EmqxNotReadyError(404)])
def test_no_other_failure_makes_the_version_unknown(error: errors.EmqxError) -> None:
    with pytest.raises(type(error)):
        play(detect.version(Broker("v5"), NOW), error)


@pytest.mark.parametrize(
    ("text", "version"),
    [("5.8.9", (5, 8, 9)), ("v6.1.0-rc.1", (6, 1, 0)), ("4.4", (4, 4)), ("", None), ("newest", None)],
)
def test_versions_are_read(text: str, version: Any) -> None:
    assert detect.parse_version(text) == version

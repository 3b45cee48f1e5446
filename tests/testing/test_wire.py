from __future__ import annotations

import http.client

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import AUTHENTICATOR, IMPORT, USERS, call, raw_exchange

MEGABYTES_8 = 8_000_000


@pytest.mark.parametrize(("version", "limit"), [("4.4.19", 100), ("5.8.9", 1000)])
def test_a_connection_is_closed_after_its_share_of_requests_and_says_so(version: str, limit: int) -> None:
    with FakeEmqx(version) as broker:
        connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=10)
        announced = []
        for _ in range(limit):
            connection.request("GET", "/status")
            response = connection.getresponse()
            response.read()
            announced.append(response.headers.get("Connection"))
        connection.close()
        assert announced == [None] * (limit - 1) + ["close"]
        assert broker.connection_count == 1


def test_an_idle_connection_is_closed_without_a_word() -> None:
    with FakeEmqx("4.4.19", idle_timeout=0.5) as broker:
        received = raw_exchange(broker, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")
    assert b"connection: close" not in received.lower()


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
def test_a_request_line_above_8000_bytes_is_refused(version: str) -> None:
    with FakeEmqx(version) as broker:
        room = 8000 - len("GET  HTTP/1.1") - len(broker.base_path + "/clients?x=")
        assert call(broker, "GET", "/clients?x=" + "a" * room).status == 200
        refused = call(broker, "GET", "/clients?x=" + "a" * (room + 1))
        assert (refused.status, refused.body) == (414, "")


@pytest.mark.parametrize(
    ("version", "path", "status", "body"),
    [
        ("4.4.19", "/auth_username", 400, "Bad Request"),
        ("5.8.9", IMPORT + "?type=plain", 500, ""),
        ("5.10.0", IMPORT + "?type=plain", 500, ""),
    ],
)
def test_a_body_above_8_megabytes_is_lost(version: str, path: str, status: int, body: str) -> None:
    content = b"[" + b" " * MEGABYTES_8 + b"]"
    with FakeEmqx(version) as broker:
        reply = call(broker, "POST", path, raw=content, headers={"Content-Type": "application/json"})
    assert (reply.status, reply.body) == (status, body)


def test_later_versions_read_big_bodies() -> None:
    content = b'[{"user_id":"u","password":"p"}' + b" " * MEGABYTES_8 + b"]"
    with FakeEmqx("5.10.1") as broker:
        reply = call(
            broker, "POST", IMPORT + "?type=plain", raw=content, headers={"Content-Type": "application/json"}
        )
        assert (reply.status, reply.body["success"]) == (200, 1)


@pytest.mark.parametrize("dots", ["..", "%2E%2E", "%2e."])
def test_v5_folds_dot_segments_after_decoding_so_that_the_authenticator_goes(dots: str) -> None:
    with FakeEmqx() as broker:
        broker.add_user("u", "p")
        assert call(broker, "DELETE", f"{USERS}/{dots}").status == 204
        assert not broker.users
        assert call(broker, "GET", AUTHENTICATOR).status == 404


def test_v5_unban_of_dots_clears_every_ban() -> None:
    with FakeEmqx() as broker:
        call(broker, "POST", "/banned", {"as": "clientid", "who": "d"})
        assert call(broker, "DELETE", "/banned/clientid/%2E%2E").status == 204
        assert not broker.bans


def test_v4_takes_dots_as_they_are_and_drops_empty_segments() -> None:
    with FakeEmqx("4.4.19") as broker:
        broker.add_user("..", "p")
        assert call(broker, "GET", "/auth_username/..").body["data"]["username"] == ".."
        call(broker, "POST", "/topic-metrics", {"topic": "t"})
        assert call(broker, "DELETE", "/topic-metrics/").body == {"code": 0}
        assert call(broker, "GET", "/topic-metrics").body["data"] == []


@pytest.mark.parametrize(("version", "status"), [("4.4.19", 500), ("5.8.9", 400)])
def test_a_bad_percent_escape(version: str, status: int) -> None:
    with FakeEmqx(version) as broker:
        assert call(broker, "GET", "/clients/%zz").status == status


def test_v5_wants_json_declared_as_such_and_v4_does_not_care() -> None:
    with FakeEmqx() as broker:
        refused = call(broker, "POST", "/publish", raw=b"{}", headers={"Content-Type": "text/plain"})
        assert (refused.status, refused.body["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    with FakeEmqx("4.4.19") as broker:
        sent = b'{"topic":"t","payload":"x"}'
        assert (
            call(broker, "POST", "/mqtt/publish", raw=sent, headers={"Content-Type": "text/plain"}).status
            == 200
        )


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
def test_python_reads_more_than_json_and_a_broker_does_not(version: str) -> None:
    path = "/mqtt/publish" if version == "4.4.19" else "/publish"
    with FakeEmqx(version) as broker:
        body = b'{"topic": "t", "payload": NaN}'
        headers = {"Content-Type": "application/json"}
        assert call(broker, "POST", path, raw=body, headers=headers).status == 400


def test_204_has_no_length() -> None:
    with FakeEmqx() as broker:
        answer = call(broker, "DELETE", "/alarms")
        assert (answer.status, answer.headers["Content-Length"]) == (204, None)


def test_unknown_paths_and_methods() -> None:
    with FakeEmqx() as broker:
        unknown = call(broker, "GET", "/nothing")
        assert (unknown.status, unknown.body["code"]) == (404, "NOT_FOUND")
        assert (
            call(broker, "GET", "/nothing", headers={"Accept": "*/*"}).headers["Content-Type"] == "text/html"
        )
        wrong = call(broker, "PATCH", "/clients/x")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "DELETE, GET")
        assert call(broker, "GET", "/api/v4/clients").status == 404
    with FakeEmqx("4.4.19") as broker:
        assert call(broker, "GET", "/api/v5/clients").body == ""
        routes = call(broker, "GET", "/api/v4/").body["data"]
        assert {"method": "GET", "path": "/clients/:bin:clientid"}.items() <= next(
            row for row in routes if row["name"] == "get_client"
        ).items()


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("5.8.9", True),
        ("5.10.3", True),
        ("5.10.4", False),
        ("6.0.2", True),
        ("6.0.3", False),
        ("6.2.0", True),
    ],
)
def test_the_status_page_hides_the_version_in_later_releases(version: str, shown: bool) -> None:
    with FakeEmqx(version) as broker:
        reply = call(broker, "GET", "/api/v5/status?format=json", key=None)
        assert ("rel_vsn" in reply.body) is shown
        assert call(broker, "GET", "/status", key=None).body.startswith("Node emqx@127.0.0.1 is started")

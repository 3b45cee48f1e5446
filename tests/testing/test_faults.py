from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import USERS, call, raw_exchange, read

NEW_USER = {"user_id": "u", "password": "p"}


def test_a_status_is_answered_in_place_of_the_work() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("status", status=429, headers={"Retry-After": "7"}, body='{"code":"X"}')
        refused = call(broker, "POST", USERS, NEW_USER)
        assert (refused.status, refused.headers["Retry-After"], refused.body) == (429, "7", {"code": "X"})
        assert not broker.users
        assert (broker.requests[0].status, broker.requests[0].done, broker.requests[0].fault) == (
            429,
            False,
            "status",
        )
        assert call(broker, "POST", USERS, NEW_USER).status == 201


@pytest.mark.parametrize(("kind", "done"), [("reset", False), ("reset_after", True)])
def test_a_reset_comes_before_or_after_the_work(kind: str, done: bool) -> None:
    with FakeEmqx() as broker:
        broker.order_fault(kind)
        with pytest.raises(ConnectionResetError):
            call(broker, "POST", USERS, NEW_USER)
        assert ("u" in broker.users) is done
        assert broker.requests[0].done is done


def test_a_stall_answers_late_and_stopping_does_not_wait_for_it() -> None:
    broker = FakeEmqx().start()
    broker.order_fault("stall", seconds=0.01)
    assert call(broker, "POST", USERS, NEW_USER).status == 201
    broker.order_fault("stall", seconds=600)
    with pytest.raises(TimeoutError):
        call(broker, "DELETE", USERS + "/u", timeout=1)
    assert not broker.users
    broker.stop()


def test_a_slow_answer_is_whole() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("slow", seconds=0.05)
        assert call(broker, "POST", USERS, NEW_USER).body == {"user_id": "u", "is_superuser": False}


def test_a_truncated_answer_ends_in_the_middle() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("truncated")
        with pytest.raises(http.client.IncompleteRead):
            call(broker, "POST", USERS, NEW_USER)
        assert "u" in broker.users


def test_a_truncated_answer_without_a_body_is_none_either() -> None:
    with FakeEmqx() as broker:
        broker.add_user("u", "p")
        broker.order_fault("truncated")
        with pytest.raises(http.client.BadStatusLine):
            call(broker, "DELETE", USERS + "/u")
        assert not broker.users


def test_a_wrong_length_cuts_the_body() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("wrong_length")
        assert call(broker, "POST", USERS, NEW_USER).body == '{"user_id":"u","is_superuser":false'


def test_garbage_is_no_http() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("garbage")
        with pytest.raises(http.client.BadStatusLine):
            call(broker, "GET", "/clients")


def test_a_redirect_names_its_target() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("redirect", headers={"Location": "https://elsewhere.example/api/v5"})
        reply = call(broker, "GET", "/clients")
        assert (reply.status, reply.headers["Location"]) == (302, "https://elsewhere.example/api/v5")


def test_a_connection_closed_in_silence_after_some_requests() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("close", after=2)
        connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=5)
        for _ in range(3):
            connection.request("GET", "/status")
            assert read(connection.getresponse()).headers["Connection"] is None
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            connection.request("GET", "/status")
            connection.getresponse()
        connection.close()


def test_orders_are_used_up_in_turn_and_only_by_those_they_mean() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("status", status=502, match="GET /api/v5/clients", times=2)
        broker.order_fault("status", status=503, match=lambda method, path: "limit=7" in path)
        assert broker.pending_faults == 2
        assert call(broker, "GET", "/nodes").status == 200
        statuses = [call(broker, "GET", "/clients?limit=7").status for _ in range(4)]
        assert statuses == [502, 502, 503, 200]
        broker.order_fault("reset")
        broker.clear_faults()
        assert call(broker, "GET", "/nodes").status == 200


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown fault 'explode'"):
        FakeEmqx().order_fault("explode")


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "reset", "times": 0},
        {"kind": "reset", "after": -1},
        {"kind": "stall", "seconds": -1},
        {"kind": "redirect"},
    ],
)
def test_orders_that_make_no_sense_are_refused(order: dict[str, Any]) -> None:
    broker = FakeEmqx()
    with pytest.raises(ValueError, match=r"times|Location"):
        broker.order_fault(**order)
    assert broker.pending_faults == 0


def test_faults_hit_pipelines_of_raw_bytes_too() -> None:
    request = b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with FakeEmqx() as broker:
        broker.order_fault("truncated")
        head, _, body = raw_exchange(broker, request).partition(b"\r\n\r\n")
        announced = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert len(body) < announced


def test_a_reset_is_a_tcp_reset() -> None:
    with FakeEmqx() as broker:
        broker.order_fault("reset")
        with socket.create_connection(("127.0.0.1", broker.port), timeout=5) as connection:
            connection.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                connection.recv(100)


def test_serverless_limits_calls_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEmqx("serverless", rate_limit=True) as broker:
        moment = broker.now()
        monkeypatch.setattr(broker.state, "now", lambda: moment)
        replies = [call(broker, "GET", "/clients") for _ in range(11)]
        assert [reply.status for reply in replies] == [200] * 10 + [429]
        assert replies[-1].headers["Retry-After"] == "1"
        monkeypatch.setattr(broker.state, "now", lambda: moment + 1)
        assert call(broker, "GET", "/clients").status == 200


def test_the_world_may_change_between_two_pages() -> None:
    with FakeEmqx() as broker:
        broker.connect_many(["a", "b", "c"])

        def leave(method: str, path: str) -> None:
            if "page=2" in path:
                broker.disconnect("c")

        broker.before_each_request(leave)
        pages = [call(broker, "GET", f"/clients?limit=2&page={page}").body for page in (1, 2)]
        assert [[row["clientid"] for row in page["data"]] for page in pages] == [["c", "b"], []]
        broker.before_each_request(None)
        assert call(broker, "GET", "/clients?page=2").status == 200

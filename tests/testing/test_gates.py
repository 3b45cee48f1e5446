"""What a version does not serve is not there."""

from __future__ import annotations

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import AUTHENTICATOR, USERS, call

RULES = "/authorization/sources/built_in_database/rules"


@pytest.mark.parametrize(
    ("method", "path", "without", "with_it"),
    [
        ("POST", "/clients/kickout/bulk", "5.0.26", "5.1.0"),
        ("GET", "/clients_v2", "5.6.1", "5.7.0"),
        ("GET", "/sessions_count", "5.5.1", "5.6.0"),
        ("GET", "/clients/x/mqueue_messages", "5.5.1", "5.6.0"),
        ("DELETE", "/mqtt/retainer/messages", "5.4.1", "5.5.0"),
        ("DELETE", "/mqtt/delayed/messages/t", "5.5.1", "5.6.0"),
        ("DELETE", "/banned", "5.0.26", "5.1.0"),
        ("POST", "/alarms/force_deactivate", "5.8.7", "5.8.8"),
        ("POST", "/alarms/force_deactivate", "5.9.1", "5.9.2"),
        ("POST", "/alarms/force_deactivate", "5.10.0", "5.10.1"),
        ("GET", "/actions", "5.3.2", "5.4.0"),
        ("GET", "/sources", "5.5.1", "5.6.0"),
        ("GET", "/bridges", "6.0.0", "5.10.0"),
        ("GET", "/data/files", "5.3.2", "5.4.0"),
        ("GET", "/load_rebalance/status", "5.8.9", "5.9.0"),
        ("GET", "/license", "5.8.9", "5.9.0"),
    ],
)
def test_routes(method: str, path: str, without: str, with_it: str) -> None:
    for version, there in ((without, False), (with_it, True)):
        with FakeEmqx(version) as broker:
            reply = call(broker, method, path, [] if "bulk" in path else None)
            missing = reply.status == 405 or reply.body == {
                "code": "NOT_FOUND",
                "message": "Request Path Not Found",
            }
            assert missing is not there


def test_enterprise_has_rebalancing_earlier() -> None:
    for version in ("4.4.19", "5.1.0"):
        with FakeEmqx(version, edition="Enterprise") as broker:
            assert call(broker, "GET", "/load_rebalance/status").body == {"status": "disabled"}


@pytest.mark.parametrize(("version", "found"), [("5.5.1", ["b"]), ("5.6.0", ["b", "a"])])
def test_repeated_client_ids_and_fields_since_5_6(version: str, found: list[str]) -> None:
    with FakeEmqx(version) as broker:
        broker.connect_many(["a", "b", "c"])
        rows = call(broker, "GET", "/clients?clientid=a&clientid=b&fields=clientid").body["data"]
        assert [row["clientid"] for row in rows] == found
        assert (len(rows[0]) == 1) is (version == "5.6.0")


@pytest.mark.parametrize(("version", "status"), [("5.5.1", 400), ("5.6.0", 200)])
def test_bans_by_pattern_since_5_6(version: str, status: int) -> None:
    with FakeEmqx(version) as broker:
        assert call(broker, "POST", "/banned", {"as": "clientid_re", "who": "^x"}).status == status


@pytest.mark.parametrize(("version", "until"), [("5.7.2", "20"), ("5.8.0", "infinity")])
def test_bans_without_an_end(version: str, until: str) -> None:
    with FakeEmqx(version) as broker:
        assert call(broker, "POST", "/banned", {"as": "clientid", "who": "x"}).body["until"].startswith(until)


@pytest.mark.parametrize(("version", "found"), [("5.8.0", 2), ("5.8.1", 1)])
def test_ban_filters_since_5_8_1(version: str, found: int) -> None:
    with FakeEmqx(version) as broker:
        for who in ("x1", "y1"):
            call(broker, "POST", "/banned", {"as": "clientid", "who": who})
        assert len(call(broker, "GET", "/banned?like_clientid=%5Ex").body["data"]) == found
        both = call(broker, "GET", "/banned?clientid=x1&username=u")
        assert both.status == (400 if version == "5.8.1" else 200)


@pytest.mark.parametrize(
    ("version", "payload"), [("5.10.3", b"aGk="), ("5.10.4", b"hi"), ("6.0.2", b"aGk="), ("6.0.3", b"hi")]
)
def test_the_v4_name_of_the_encoding(version: str, payload: bytes) -> None:
    with FakeEmqx(version) as broker:
        broker.connect("d")
        broker.subscribe("d", "t")
        call(broker, "POST", "/publish", {"topic": "t", "payload": "aGk=", "encoding": "base64"})
        assert broker.received("d")[0].payload == payload


def test_serverless_serves_what_it_documents_in_its_own_shapes() -> None:
    with FakeEmqx("serverless") as broker:
        broker.connect("d")
        broker.subscribe("d", "t")
        broker.add_user("u", "p")
        assert call(broker, "GET", USERS + "/u").body == {"data": {"user_id": "u", "is_superuser": False}}
        assert call(broker, "GET", "/clients/d/subscriptions").body["data"][0]["topic"] == "t"
        assert "data" in call(broker, "POST", "/clients/d/subscribe/bulk", [{"topic": "x"}]).body
        assert call(broker, "POST", "/publish", {"topic": "t", "payload": "x"}).status == 200
        assert call(broker, "GET", RULES + "/users").status == 200
        assert len(call(broker, "GET", "/clients?like_clientid=nothing").body["data"]) == 1  # ignored
        for path in (
            "/nodes",
            "/stats",
            "/banned",
            "/alarms",
            "/topics",
            "/rules",
            "/mqtt/retainer/messages",
            AUTHENTICATOR,
        ):
            assert call(broker, "GET", path).status == 404
        assert call(broker, "GET", "/status").status == 404


def test_serverless_has_room_for_2000_users() -> None:
    with FakeEmqx("serverless") as broker:
        for number in range(1999):
            broker.add_user(f"u{number}", "p")
        assert call(broker, "POST", USERS, {"user_id": "a", "password": "p"}).status == 201
        assert call(broker, "POST", USERS, {"user_id": "b", "password": "p"}).status == 400
        assert (
            call(
                broker,
                "POST",
                AUTHENTICATOR + "/import_users?type=plain",
                [{"user_id": "b", "password": "p"}],
            ).status
            == 400
        )
        assert len(broker.users) == 2000


# keys


@pytest.mark.parametrize(
    ("role", "reads", "writes", "publishes"),
    [("administrator", 200, 201, 202), ("viewer", 200, 403, 403), ("publisher", 403, 403, 202)],
)
def test_roles_of_keys(role: str, reads: int, writes: int, publishes: int) -> None:
    with FakeEmqx(edition="Enterprise") as broker:
        broker.add_key("k", "s", role=role)
        key = ("k", "s")
        assert call(broker, "GET", "/nodes", key=key).status == reads
        refused = call(broker, "POST", USERS, {"user_id": "u", "password": "p"}, key=key)
        assert refused.status == writes
        assert call(broker, "POST", "/publish", {"topic": "t", "payload": "x"}, key=key).status == publishes
        if writes == 403:
            assert refused.body["code"] == "UNAUTHORIZED_ROLE"
            assert not broker.users


@pytest.mark.parametrize(("version", "code"), [("4.4.19", None), ("5.8.9", "BAD_API_KEY_OR_SECRET")])
def test_wrong_expired_and_removed_keys(version: str, code: str | None) -> None:
    with FakeEmqx(version) as broker:
        broker.add_key("old", "s")
        assert call(broker, "GET", "/nodes", key=("old", "s")).status == 200
        broker.add_key("old", "s", expired=True)
        replies = [
            call(broker, "GET", "/nodes", key=key)
            for key in (("old", "s"), ("key", "wrong"), ("nobody", "s"))
        ]
        broker.remove_key("key")
        replies.append(call(broker, "GET", "/nodes"))
        assert [reply.status for reply in replies] == [401] * 4
        assert {reply.body if code is None else reply.body["code"] for reply in replies} == {
            code or "UNAUTHORIZED"
        }


def test_a_key_may_be_limited_to_some_routes() -> None:
    with FakeEmqx() as broker:
        broker.add_key(
            "k", "s", allow=lambda method, route: (method, route) == ("GET", "/clients/{clientid}")
        )
        broker.connect("d")
        assert call(broker, "GET", "/clients/d", key=("k", "s")).status == 200
        assert call(broker, "DELETE", "/clients/d", key=("k", "s")).status == 403
        assert "d" in broker.clients

from __future__ import annotations

import json

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import call

RULES = "/authorization/sources/built_in_database/rules"
RULE = {"topic": "t", "permission": "allow", "action": "publish"}


def test_v5_refuses_an_array_as_a_whole_if_one_has_a_record() -> None:
    with FakeEmqx() as broker:
        call(broker, "PUT", RULES + "/users/b", {"username": "b", "rules": []})
        rows = [{"username": name, "rules": [RULE]} for name in ("a", "b")]
        assert call(broker, "POST", RULES + "/users", rows).status == 409
        assert (broker.acl_rules("username", "a"), call(broker, "GET", RULES + "/users/a").status) == (
            [],
            404,
        )


def test_v5_put_replaces_the_list_and_crashes_on_another_name() -> None:
    with FakeEmqx() as broker:
        path = RULES + "/clients/d"
        call(broker, "PUT", path, {"clientid": "d", "rules": [RULE]})
        call(broker, "PUT", path, {"clientid": "d", "rules": [{**RULE, "topic": "u"}]})
        assert [rule["topic"] for rule in call(broker, "GET", path).body["rules"]] == ["u"]
        crashed = call(broker, "PUT", path, {"clientid": "other", "rules": []})
        assert (crashed.status, crashed.body["code"]) == (500, "INTERNAL_ERROR")


def test_v5_has_room_for_100_rules_each() -> None:
    with FakeEmqx() as broker:
        assert call(broker, "PUT", RULES + "/users/u", {"username": "u", "rules": [RULE] * 100}).status == 204
        assert call(broker, "PUT", RULES + "/users/u", {"username": "u", "rules": [RULE] * 101}).status == 400


def test_v5_purges_only_while_the_source_is_disabled() -> None:
    with FakeEmqx() as broker:
        call(broker, "POST", RULES + "/all", {"rules": [RULE]})
        assert [rule["topic"] for rule in broker.acl_rules("all")] == ["t"]
        assert call(broker, "DELETE", RULES).status == 400
        source = "/authorization/sources/built_in_database"
        call(broker, "PUT", source, {"type": "built_in_database", "enable": False})
        assert call(broker, "DELETE", RULES).status == 204
        assert broker.acl_rules("all") == []


def test_v5_without_the_source() -> None:
    with FakeEmqx(authorization=False) as broker:
        for path in ("/users", "/clients", "/all", "/users/u"):
            assert call(broker, "GET", RULES + path).status == 404


def test_v4_stores_pubsub_as_two_rows_and_puts_what_is_added_again_in_front() -> None:
    row = {"username": "u", "topic": "t", "access": "allow"}
    with FakeEmqx("4.4.19") as broker:
        call(broker, "POST", "/acl", {**row, "action": "pubsub"})
        call(broker, "POST", "/acl", {**row, "action": "pub", "access": "deny"})
        rows = call(broker, "GET", "/acl/username/u").body["data"]
        assert [(row["action"], row["access"]) for row in rows] == [("pub", "deny"), ("sub", "allow")]
        assert [rule["action"] for rule in broker.acl_rules("username", "u")] == ["pub", "sub"]
        assert call(broker, "DELETE", "/acl/username/u/topic/t").body == {"code": 0}
        assert call(broker, "GET", "/acl/username/u").body["data"] == []


def test_v4_answers_an_array_backwards() -> None:
    rows = [{"topic": topic, "action": "pub", "access": "allow"} for topic in ("a", "b")]
    with FakeEmqx("4.4.19") as broker:
        results = call(broker, "POST", "/acl", rows).body["data"]
        assert [row["topic"] for row in results] == ["b", "a"]


def test_v4_crashes_on_a_rule_for_two() -> None:
    both = {"username": "u", "clientid": "d", "topic": "t", "action": "pub", "access": "allow"}
    with FakeEmqx("4.4.19") as broker:
        assert call(broker, "POST", "/acl", both).status == 500


def test_v4_lists_50_a_page_and_never_says_that_there_is_more() -> None:
    with FakeEmqx("4.4.19") as broker:
        rows = [{"username": f"u{n}", "topic": "t", "action": "pub", "access": "allow"} for n in range(60)]
        call(broker, "POST", "/acl", rows)
        body = call(broker, "GET", "/acl/username").body
        assert (len(body["data"]), body["meta"]) == (50, {"page": 1, "limit": 50, "count": 60})


def test_v4_ban_without_a_reason_crashes_and_a_new_one_replaces_the_old() -> None:
    ban = {"as": "clientid", "who": "d", "reason": "a"}
    with FakeEmqx("4.4.19") as broker:
        assert call(broker, "POST", "/banned", {"as": "clientid", "who": "d"}).status == 500
        call(broker, "POST", "/banned", ban)
        call(broker, "POST", "/banned", {**ban, "reason": "b", "until": 1})  # long past, taken all the same
        assert [(one.reason, one.until) for one in broker.bans.values()] == [("b", 1)]


def test_v5_replaces_only_a_ban_that_has_lapsed() -> None:
    with FakeEmqx() as broker:
        until = int(broker.now()) + 60
        ban = {"as": "clientid", "who": "d", "until": until}
        assert call(broker, "POST", "/banned", ban).status == 200
        assert call(broker, "POST", "/banned", {**ban, "until": "infinity"}).body["code"] == "ALREADY_EXISTS"
        broker.advance(61)
        assert call(broker, "POST", "/banned", {**ban, "until": "infinity"}).status == 200


@pytest.mark.parametrize(
    ("kind", "who"), [("peerhost", "nonsense"), ("peerhost_net", "10.0.0.0/99"), ("clientid_re", "(")]
)
def test_v5_refuses_bans_that_mean_nothing(kind: str, who: str) -> None:
    with FakeEmqx() as broker:
        assert call(broker, "POST", "/banned", {"as": kind, "who": who}).status == 400
        assert not broker.bans


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
@pytest.mark.parametrize(
    ("kind", "who", "kept"),
    [
        ("peerhost", "2001:DB8:0::1", "2001:db8::1"),
        ("peerhost_net", "10.1.2.3/8", "10.0.0.0/8"),
    ],
)
def test_addresses_are_kept_in_their_usual_spelling(version: str, kind: str, who: str, kept: str) -> None:
    with FakeEmqx(version) as broker:
        call(broker, "POST", "/banned", {"as": kind, "who": who, "reason": "x"})
        assert set(broker.bans) == ({(kind, kept)} if version == "5.8.9" or kind == "peerhost" else set())


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
def test_bans_that_have_lapsed_are_not_listed(version: str) -> None:
    with FakeEmqx(version) as broker:
        until = int(broker.now()) + 60
        ban = {"as": "clientid", "who": "d", "reason": "x", "until": until}
        assert call(broker, "POST", "/banned", ban).status == 200
        assert call(broker, "GET", "/banned").body["meta"]["count"] == 1
        broker.advance(61)
        assert call(broker, "GET", "/banned").body["data"] == []


def test_v5_times_need_their_offset() -> None:
    with FakeEmqx() as broker:
        ban = {"as": "clientid", "who": "d", "until": "2099-01-01T00:00:00"}
        assert call(broker, "POST", "/banned", ban).status == 400
        assert call(broker, "POST", "/banned", {**ban, "until": ban["until"] + "+02:00"}).status == 200
        assert call(broker, "GET", "/clients?gte_connected_at=2020-01-01").status == 400


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
def test_cleaning_the_cache_of_one_and_of_all(version: str) -> None:
    one, everything = (
        ("/clients/d/acl_cache", "/acl-cache")
        if version == "4.4.19"
        else ("/clients/d/authorization/cache", "/authorization/cache")
    )
    with FakeEmqx(version) as broker:
        for path in (one, everything):
            broker.connect("d")
            broker.subscribe("d", "t")
            assert broker.clients["d"].acl_cache
            call(broker, "DELETE", path)
            assert not broker.clients["d"].acl_cache


def test_v5_rules_of_a_namespace_are_its_own_since_6_1() -> None:
    with FakeEmqx("6.1.0") as broker:
        body = {"username": "u", "rules": [RULE]}
        call(broker, "PUT", RULES + "/users/u?ns=n", body)
        call(broker, "POST", RULES + "/all?ns=n", {"rules": [RULE]})
        assert call(broker, "GET", RULES + "/users/u?ns=n").status == 200
        assert call(broker, "GET", RULES + "/users/u").status == 404
        assert call(broker, "GET", RULES + "/all").body == {"rules": []}
        assert len(call(broker, "GET", RULES + "/all?ns=n").body["rules"]) == 1


def test_v5_refuses_fields_of_rules_that_its_version_lacks_as_recorded() -> None:
    for version, unmatched in (("5.8.9", "qos,retain"), ("6.3.0", "clientid_re,ipaddr,...")):
        with FakeEmqx(version) as broker:
            rules = [{"topic": "#", "permission": "deny", "action": "all", "colour": "red"}]
            refused = call(broker, "POST", RULES + "/all", {"rules": rules})
            assert refused.status == 400
            assert json.loads(refused.body["message"]) == {
                "unmatched": unmatched,
                "unknown": "colour",
                "reason": "unknown_fields",
                "path": "root.rules.1",
                "kind": "validation_error",
            }
            assert call(broker, "GET", RULES + "/all").body == {"rules": []}


@pytest.mark.parametrize("field", ["username_re", "clientid_re", "ipaddr", "zone", "listener"])
def test_v5_limits_rules_to_some_clients_since_5_9(field: str) -> None:
    rule = {"topic": "#", "permission": "deny", "action": "all", field: "x"}
    for version, status in (("5.8.9", 400), ("6.3.0", 204)):
        with FakeEmqx(version) as broker:
            assert call(broker, "POST", RULES + "/all", {"rules": [rule]}).status == status
            kept = call(broker, "GET", RULES + "/all").body["rules"]
            assert kept == ([] if status == 400 else [{**rule, "qos": [0, 1, 2], "retain": "all"}])


def test_v5_refuses_a_namespace_in_the_body_of_rules_as_recorded() -> None:
    row = {"username": "n1", "namespace": "tenant1", "rules": [RULE]}
    with FakeEmqx("6.3.0") as broker:
        refused = call(broker, "POST", RULES + "/users", [row])
        assert refused.status == 400
        assert json.loads(refused.body["message"]) == {
            "unmatched": "none",
            "unknown": "namespace",
            "reason": "unknown_fields",
            "path": "root.1",
            "kind": "validation_error",
        }
        assert call(broker, "PUT", RULES + "/users/n1?ns=tenant1", row).status == 400
        assert call(broker, "GET", RULES + "/users/n1?ns=tenant1").status == 404

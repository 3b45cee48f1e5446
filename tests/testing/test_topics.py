from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.testing.calls import call


def listening(version: str = "5.8.9") -> FakeEmqx:
    broker = FakeEmqx(version)
    broker.connect("d", "u")
    broker.subscribe("d", "heard")
    return broker


def payloads(broker: FakeEmqx) -> list[bytes]:
    return [message.payload for message in broker.received("d")]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"topic": "a/#", "payload": "x"}, 144),
        ({"topic": "", "payload": "x"}, 144),
        ({"topic": "heard", "payload": "x" * 1_048_576}, 151),
        ({"topic": "heard", "payload": "?", "payload_encoding": "base64"}, 131),
    ],
)
def test_a_message_that_cannot_be_published(message: dict[str, Any], reason: int) -> None:
    with listening() as broker:
        for path, body in (
            ("/publish", message),
            ("/publish/bulk", [{"topic": "heard", "payload": "1"}, message]),
        ):
            refused = call(broker, "POST", path, body)
            assert (refused.status, refused.body["reason_code"]) == (400, reason)
            assert "code" not in refused.body
        assert payloads(broker) == []  # all rows are checked before the first one goes out


def test_a_batch_of_which_one_message_reaches_nobody_who_answers() -> None:
    with listening() as broker:
        broker.subscribe("d", "stuck")
        broker.refuse_dispatch("stuck")
        rows = [{"topic": topic, "payload": "x"} for topic in ("heard", "stuck", "unheard")]
        reply = call(broker, "POST", "/publish/bulk", rows)
        assert reply.status == 503
        assert [row.get("reason_code") for row in reply.body] == [None, 131, 16]
        assert payloads(broker) == [b"x"]
        assert call(broker, "POST", "/publish", rows[1]).status == 503


@pytest.mark.parametrize("payload", [5, True, {"a": 1}, None])
def test_v5_payloads_are_text(payload: Any) -> None:
    with listening() as broker:
        assert call(broker, "POST", "/publish", {"topic": "heard", "payload": payload}).status == 400
        assert payloads(broker) == []


def test_properties_reach_the_device() -> None:
    properties = {"response_topic": "r", "user_properties": {"a": "b"}, "message_expiry_interval": 60}
    with listening() as broker:
        call(broker, "POST", "/publish", {"topic": "heard", "payload": "x", "properties": properties})
        assert broker.received("d")[0].properties == properties


def test_v4_splits_topics_at_commas_and_forgets_the_bad_ones() -> None:
    with listening("4.4.19") as broker:
        reply = call(
            broker, "POST", "/mqtt/publish", {"topic": "heard,a/#,other", "payload": "x", "return": True}
        )
        assert len(reply.body["data"]["msgids"]) == 2
        assert payloads(broker) == [b"x"]


def test_v4_payloads_may_be_any_json() -> None:
    with listening("4.4.19") as broker:
        call(broker, "POST", "/mqtt/publish", {"topic": "heard", "payload": {"a": 1}})
        assert payloads(broker) == [b'{"a": 1}']


def test_v4_batches_answer_0_whatever_happened_to_their_rows() -> None:
    with listening("4.4.19") as broker:
        rows = [
            {"topic": "heard", "payload": "1"},
            {"topic": "#", "payload": "2"},
            {"topic": 5, "payload": "3"},
        ]
        assert call(broker, "POST", "/mqtt/publish_batch", rows).body == {
            "data": [
                {"topic": "heard", "code": 0},
                {"topic": "#", "code": 115},
                {"code": 108, "message": "bad_params"},
            ],
            "code": 0,
        }
        assert call(broker, "POST", "/mqtt/publish_batch", []).status == 500


def test_v4_subscribes_and_says_bad_qos() -> None:
    with FakeEmqx("4.4.19") as broker:
        broker.connect("d")
        asked = {"clientid": "d", "topics": "a,b", "qos": 1}
        assert call(broker, "POST", "/mqtt/subscribe", asked).body == {"code": 0}
        assert call(broker, "POST", "/mqtt/subscribe", {**asked, "qos": 3}).body["code"] == 116
        assert set(broker.clients["d"].subscriptions) == {"a", "b"}


def test_v5_subscribes_a_client_in_three_shapes() -> None:
    with FakeEmqx() as broker:
        broker.connect("d")
        path = "/clients/d/subscribe/bulk"
        assert isinstance(call(broker, "POST", path, [{"topic": "a"}, {"topic": "b"}]).body, list)
        partly = call(broker, "POST", path, [{"topic": "c"}, {"topic": "$share/g/t", "nl": 1}])
        assert partly.status == 200
        assert [row["topic"] for row in partly.body["succeed"]] == ["c"]
        assert partly.body["failed"][0]["data"][0]["topic"] == "$share/g/t"
        assert call(broker, "POST", "/clients/d/subscribe", {"topic": "$share/g/t", "nl": 1}).status == 400
        assert set(broker.clients["d"].subscriptions) == {"a", "b", "c"}


@pytest.mark.parametrize(("version", "name"), [("4.4.19", "_match_topic"), ("5.8.9", "match_topic")])
def test_match_topic_finds_what_a_filter_covers(version: str, name: str) -> None:
    with listening(version) as broker:
        broker.subscribe("d", "a/b")
        broker.subscribe("d", "a/+")
        rows = call(broker, "GET", f"/subscriptions?{name}=a%2F%23").body["data"]
        assert {row["topic"] for row in rows} == {"a/b", "a/+"}


@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
def test_subscription_filters(version: str) -> None:
    with listening(version) as broker:
        broker.connect("e")
        broker.subscribe("e", "$share/g/heard", qos=2)
        v4 = version == "4.4.19"
        share = "share" if v4 else "share_group"
        for query, found in (
            ("clientid=d", "d"),
            ("qos=2", "e"),
            (f"{share}=g", "e"),
            # v4 finds shared ones as well, v5 by their group only
            ("topic=heard", "ed" if v4 else "d"),
            (f"topic=heard&{share}=g", "e"),
            ("topic=$share/g/heard", ""),
        ):
            rows = call(broker, "GET", f"/subscriptions?{query}").body["data"]
            assert {row["clientid"] for row in rows} == set(found), query


def test_v5_shows_routes_of_shared_subscriptions_with_their_group() -> None:
    with FakeEmqx() as broker:
        broker.connect("d")
        for topic in ("t", "$share/g/t", "$share/h/t", "$queue/t", "u"):
            broker.subscribe("d", topic)
        groups = {"$share/g/t", "$share/h/t", "$queue/t"}
        for query, found in (
            ("", {"t", "u", *groups}),
            ("?topic=t", {"t", *groups}),
            ("?topic=$share/g/t", {"$share/g/t"}),
            ("?node=emqx@127.0.0.1", {"t", "u"}),
            ("/t", {"t", *groups}),
        ):
            body = call(broker, "GET", f"/topics{query}").body
            rows = body if query == "/t" else body["data"]
            assert {row["topic"] for row in rows} == found, query
        assert call(broker, "GET", "/topics/%24share%2Fg%2Ft").status == 404
        assert call(broker, "GET", "/topics?topic=$share/g").body["code"] == "INVALID_PARAMTER"


def test_v4_shows_routes_of_shared_subscriptions_without_their_group() -> None:
    with listening("4.4.19") as broker:
        broker.subscribe("d", "$share/g/heard")
        for path in ("/routes", "/routes/heard"):
            assert [row["topic"] for row in call(broker, "GET", path).body["data"]] == ["heard", "heard"]


def test_v5_subscriptions_of_a_node_that_does_not_run_are_an_error() -> None:
    with listening() as broker:
        assert call(broker, "GET", "/subscriptions?node=emqx@127.0.0.1").body["meta"]["count"] == 1
        refused = call(broker, "GET", "/subscriptions?node=nope@127.0.0.1")
        assert (refused.status, refused.body["code"]) == (500, "NODE_DOWN")


@pytest.mark.parametrize(
    "message", [{"properties": 5}, {"properties": "x"}, {"topic": 5}, {"retain": "maybe"}, {"qos": 3}]
)
def test_v5_refuses_messages_of_the_wrong_types(message: dict[str, Any]) -> None:
    with listening() as broker:
        refused = call(broker, "POST", "/publish", {"topic": "heard", "payload": "x", **message})
        assert (refused.status, refused.body["code"]) == (400, "BAD_REQUEST")
        assert payloads(broker) == []


def test_v5_topic_metrics_count_and_know_their_limits() -> None:
    with listening() as broker:
        call(broker, "POST", "/mqtt/topic_metrics", {"topic": "heard"})
        call(broker, "POST", "/publish", {"topic": "heard", "payload": "x", "qos": 1})
        metrics = call(broker, "GET", "/mqtt/topic_metrics/heard").body["metrics"]
        assert (metrics["messages.in.count"], metrics["messages.out.count"]) == (1, 1)
        assert broker.topic_metrics["heard"].counts["messages.qos1.in.count"] == 1
        rows = call(broker, "PUT", "/mqtt/topic_metrics", {"action": "reset"}).body
        assert rows == [call(broker, "GET", "/mqtt/topic_metrics/heard").body]
        assert rows[0]["metrics"]["messages.in.count"] == 0
        for number in range(511):
            call(broker, "POST", "/mqtt/topic_metrics", {"topic": f"t{number}"})
        full = call(broker, "POST", "/mqtt/topic_metrics", {"topic": "one more"})
        assert (full.status, full.body["code"]) == (409, "EXCEED_LIMIT")


def test_v4_topic_metrics_need_their_module() -> None:
    with FakeEmqx("4.4.19", modules=False) as broker:
        for method in ("GET", "POST"):
            assert call(broker, method, "/topic-metrics", {"topic": "t"}).body == {
                "message": "module_not_loaded"
            }


def test_retained_messages_by_filter() -> None:
    with FakeEmqx() as broker:
        for topic in ("a/1", "a/2", "b/1"):
            broker.publish(topic, "x", retain=True)
        path = "/mqtt/retainer/message/"
        assert call(broker, "GET", path + "a%2F%2B").body["topic"] == "a/1"
        assert call(broker, "DELETE", path + "a%2F%2B").status == 204  # every match goes
        assert set(broker.retained) == {"b/1"}
        assert call(broker, "DELETE", "/mqtt/retainer/messages").status == 204
        assert not broker.retained


@pytest.mark.parametrize(
    ("version", "shown"), [("5.8.4", None), ("5.8.5", "1000/s"), ("5.8.9", "1000/s"), ("6.3.0", "1000/s")]
)
def test_the_retainer_shows_its_rate(version: str, shown: str | None) -> None:
    with FakeEmqx(version) as broker:
        assert call(broker, "GET", "/mqtt/retainer").body.get("max_publish_rate") == shown
        broker.limit_retained(None)
        last = call(broker, "GET", "/mqtt/retainer").body.get("max_publish_rate")
        assert last == ("infinity" if shown else None)


def test_what_exceeds_the_retainers_rate_is_delivered_but_neither_stored_nor_cleared() -> None:
    with FakeEmqx("5.8.9") as broker:
        broker.connect("dev-1")
        broker.subscribe("dev-1", "state/#")
        broker.limit_retained(2)
        before = broker.now()
        for number in range(60):
            broker.publish(f"state/{number}", "x", retain=True)
        seconds = int(broker.now()) - int(before) + 1
        assert len(broker.received("dev-1")) == 60
        assert 2 <= len(broker.retained) <= min(2 * seconds, 59)
        assert {"state/0", "state/1"} <= set(broker.retained)
        broker.advance(1)
        broker.publish("state/0", "", retain=True)
        assert "state/0" not in broker.retained


def test_clearing_retained_messages_takes_places_too() -> None:
    with FakeEmqx("5.8.9") as broker:
        for number in range(60):
            broker.publish(f"state/{number}", "x", retain=True)
        broker.limit_retained(2)
        broker.advance(1)
        for topic in list(broker.retained):
            broker.publish(topic, "", retain=True)
        assert 0 < len(broker.retained) <= 58


def test_no_limit_of_retained_messages_on_emqx_4() -> None:
    with FakeEmqx("4.4.19") as broker:
        for number in range(1_100):
            broker.publish(f"state/{number}", "x", retain=True)
        assert len(broker.retained) == 1_100
        with pytest.raises(ValueError, match="does not have this limit"):
            broker.limit_retained(10)

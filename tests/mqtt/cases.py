"""Tests that every MQTT broker passes; modules that have a fixture ``world`` import them."""

from __future__ import annotations

import itertools
import time

import pytest
from paho.mqtt.properties import Properties

from tests.mqtt.world import World

VERSIONS = pytest.mark.parametrize("mqtt_version", [4, 5], ids=["3.1.1", "5"])


@VERSIONS
@pytest.mark.parametrize(("sent", "granted"), list(itertools.product([0, 1, 2], [0, 1, 2])))
def test_a_message_arrives_once_with_the_lower_quality(
    world: World, mqtt_version: int, sent: int, granted: int
) -> None:
    here = world.client("here", version=mqtt_version)
    there = world.client("there", version=mqtt_version)
    assert here.subscribe(world.topic("a/+/c/#"), granted) == granted
    assert there.publish(world.topic("a/b/c/d"), b"\x00payload", sent) == 0
    message = here.receive()
    assert (message.topic, message.payload, message.qos) == (
        world.topic("a/b/c/d"),
        b"\x00payload",
        min(sent, granted),
    )
    assert world.payloads(here) == []


@VERSIONS
def test_messages_come_in_order(world: World, mqtt_version: int) -> None:
    here = world.client("here", version=mqtt_version)
    there = world.client("there", version=mqtt_version)
    here.subscribe(world.topic("n"), 1)
    for number in range(100):
        there.publish(world.topic("n"), b"%d" % number, 1)
    assert [int(here.receive().payload) for _ in range(100)] == list(range(100))


def test_whoever_has_unsubscribed_gets_nothing(world: World) -> None:
    here, old = world.client("here"), world.client("old", version=4)
    for one in (here, old):
        one.subscribe(world.topic("a"))
    assert here.unsubscribe(world.topic("a")) == [0]
    assert here.unsubscribe(world.topic("a")) == [0x11]
    old.unsubscribe(world.topic("a"))
    here.publish(world.topic("a"), b"x")
    assert (world.payloads(here), world.payloads(old)) == ([], [])


@VERSIONS
def test_a_retained_message_waits_for_later_subscribers_until_it_is_deleted(
    world: World, mqtt_version: int
) -> None:
    there = world.client("there", version=mqtt_version)
    there.publish(world.topic("state"), b"on", 1, retain=True)
    here = world.client("here", version=mqtt_version)
    here.subscribe(world.topic("#"), 1)
    message = here.receive()
    assert (message.payload, message.retain, message.qos) == (b"on", True, 1)
    there.publish(world.topic("state"), b"off", 1, retain=True)
    live = here.receive()
    assert (live.payload, live.retain) == (b"off", False)
    there.publish(world.topic("state"), b"", 1, retain=True)
    late = world.client("late", version=mqtt_version)
    late.subscribe(world.topic("state"))
    assert world.payloads(late) == []


def test_retain_handling_and_retain_as_published(world: World) -> None:
    there, here = world.client("there"), world.client("here")
    there.publish(world.topic("state"), b"on", retain=True)
    here.subscribe(world.topic("state"), retainHandling=2)
    assert world.payloads(here) == []
    here.subscribe(world.topic("state"), retainHandling=1)
    assert world.payloads(here) == []
    there.publish(world.topic("state"), b"off", retain=True)
    assert not here.receive().retain
    other = world.client("other")
    other.subscribe(world.topic("state"), retainHandling=1)
    assert other.receive().payload == b"off"
    exact = world.client("exact")
    exact.subscribe(world.topic("state"), retainAsPublished=True, retainHandling=2)
    there.publish(world.topic("state"), b"on", retain=True)
    assert exact.receive().retain
    there.publish(world.topic("state"), retain=True)


def test_no_local_keeps_a_clients_own_messages_from_it(world: World) -> None:
    here, there = world.client("here"), world.client("there")
    here.subscribe(world.topic("a"), noLocal=True)
    here.publish(world.topic("a"), b"mine")
    there.publish(world.topic("a"), b"other")
    assert world.payloads(here) == [b"other"]


@VERSIONS
def test_a_will_is_published_when_the_connection_breaks_and_not_after_a_goodbye(
    world: World, mqtt_version: int
) -> None:
    here = world.client("here")
    here.subscribe(world.topic("gone/+"), 1)
    polite = world.client("polite", version=mqtt_version, will=(world.topic("gone/polite"), b"bye", {}))
    polite.close()
    lost = world.client("lost", version=mqtt_version, will=(world.topic("gone/lost"), b"bye", {}))
    lost.drop()
    message = here.receive()
    assert (message.topic, message.payload, message.qos) == (world.topic("gone/lost"), b"bye", 1)
    assert world.payloads(here) == []


def test_a_goodbye_may_ask_for_the_will(world: World) -> None:
    here = world.client("here")
    here.subscribe(world.topic("gone"))
    world.client("there", will=(world.topic("gone"), b"bye", {"UserProperty": ("a", "b")})).close(code=4)
    message = here.receive()
    assert message.payload == b"bye"
    assert properties_of(message)["UserProperty"] == [("a", "b")]


def test_a_delayed_will_is_not_published_if_the_client_is_back_in_time(world: World) -> None:
    here = world.client("here")
    here.subscribe(world.topic("gone/+"))
    for name in ("back", "away"):
        will = (world.topic(f"gone/{name}"), b"bye", {"WillDelayInterval": 1})
        world.client(name, expiry=60, will=will).drop()
    world.client("back", clean=False, expiry=0)
    if world.pass_time is not None:
        world.pass_time(2)
    assert here.receive().topic == world.topic("gone/away")
    assert world.payloads(here) == []
    world.client("away").close()


@VERSIONS
def test_a_session_keeps_subscriptions_and_messages_for_a_client_that_comes_back(
    world: World, mqtt_version: int
) -> None:
    first = world.client("here", version=mqtt_version, clean=False, expiry=60)
    assert not first.resumed
    first.subscribe(world.topic("a"), 1)
    first.drop()
    there = world.client("there")
    for number in range(50):
        there.publish(world.topic("a"), b"%d" % number, 1)
    again = world.client("here", version=mqtt_version, clean=False, expiry=60)
    assert again.resumed
    assert [int(again.receive().payload) for _ in range(50)] == list(range(50))
    again.close()
    anew = world.client("here", version=mqtt_version)
    assert not anew.resumed
    there.publish(world.topic("a"), b"x")
    assert world.payloads(anew) == []


def test_a_session_without_expiry_ends_with_the_connection(world: World) -> None:
    first = world.client("here", clean=False)
    first.subscribe(world.topic("a"), 1)
    first.close()
    again = world.client("here", clean=False)
    assert not again.resumed
    there = world.client("there")
    assert there.publish(world.topic("a"), b"x") == 0x10


def test_what_was_not_acknowledged_comes_again(world: World) -> None:
    first = world.client("here", clean=False, expiry=60, manual_ack=True)
    first.subscribe(world.topic("a"), 1)
    there = world.client("there")
    for number in range(3):
        there.publish(world.topic("a"), b"%d" % number, 1)
    messages = [first.receive() for _ in range(3)]
    assert not messages[0].dup
    first.ack(messages[0])
    assert world.payloads(first) == []
    first.drop()
    again = world.client("here", clean=False, expiry=0)
    second, third = again.receive(), again.receive()
    assert [(bytes(one.payload), one.dup) for one in (second, third)] == [(b"1", True), (b"2", True)]


def test_no_more_is_on_its_way_than_the_client_can_take(world: World) -> None:
    here = world.client("here", manual_ack=True, ReceiveMaximum=2)
    here.subscribe(world.topic("a"), 1)
    there = world.client("there")
    for number in range(5):
        there.publish(world.topic("a"), b"%d" % number, 1)
    first, second = here.receive(), here.receive()
    assert world.payloads(here) == []
    here.ack(first)
    here.ack(second)
    assert [here.receive().payload, here.receive().payload] == [b"2", b"3"]


def test_a_client_is_not_sent_more_than_it_can_hold(world: World) -> None:
    here, there = world.client("here", MaximumPacketSize=200), world.client("there")
    here.subscribe(world.topic("a"), 1)
    there.publish(world.topic("a"), b"x" * 300)
    there.publish(world.topic("a"), b"small")
    assert world.payloads(here) == [b"small"]


@VERSIONS
def test_a_second_connection_with_the_same_id_ends_the_first(world: World, mqtt_version: int) -> None:
    first = world.client("here", version=mqtt_version)
    second = world.client("here", version=mqtt_version)
    assert first.closed.wait(10)
    if mqtt_version == 5 and world.kind == "emqx":  # mosquitto just hangs up
        assert first.closed_by is not None
        assert first.closed_by.value == 0x8E
    assert second.subscribe(world.topic("a")) == 0


def test_each_message_goes_to_one_member_of_a_group(world: World) -> None:
    members = [world.client(f"member-{number}") for number in range(3)]
    other, there = world.client("other"), world.client("there")
    for member in members:
        member.subscribe(f"$share/group/{world.topic('jobs/+')}", 1)
    other.subscribe(world.topic("jobs/#"), 1)
    sent = {b"%d" % number for number in range(30)}
    for payload in sent:
        assert there.publish(world.topic("jobs/a"), payload) == 0
    shares = [world.payloads(member) for member in members]
    assert sorted(itertools.chain(*shares)) == sorted(sent)
    assert sorted(world.payloads(other)) == sorted(sent)


def test_a_request_carries_where_to_answer_and_what_to_answer_with(world: World) -> None:
    device, asker = world.client("device"), world.client("asker")
    device.subscribe(world.topic("command"), 1)
    asker.subscribe(world.topic("reply"), 1)
    asker.publish(
        world.topic("command"),
        b"do",
        ResponseTopic=world.topic("reply"),
        CorrelationData=b"\x00\xff1",
        ContentType="text/plain",
        UserProperty=[("a", "1"), ("a", "2")],
    )
    request = properties_of(device.receive())
    assert request == {
        "ResponseTopic": world.topic("reply"),
        "CorrelationData": b"\x00\xff1",
        "ContentType": "text/plain",
        "UserProperty": [("a", "1"), ("a", "2")],
    }
    device.publish(request["ResponseTopic"], b"done", CorrelationData=request["CorrelationData"])
    reply = asker.receive()
    assert (reply.payload, properties_of(reply)) == (b"done", {"CorrelationData": b"\x00\xff1"})


def test_a_client_of_3_1_1_gets_the_message_without_the_properties(world: World) -> None:
    device, asker = world.client("device", version=4), world.client("asker")
    device.subscribe(world.topic("command"), 1)
    asker.publish(world.topic("command"), b"do", ResponseTopic=world.topic("r"), CorrelationData=b"1")
    assert device.receive().payload == b"do"


def test_the_broker_says_that_nobody_has_subscribed(world: World) -> None:
    here = world.client("here")
    assert here.publish(world.topic("nobody"), b"x", qos=1) == 0x10
    here.subscribe(world.topic("nobody"))
    assert here.publish(world.topic("nobody"), b"x", qos=1) == 0
    assert world.client("old", version=4).publish(world.topic("no-one"), b"x") == 0


def test_a_message_tells_for_how_long_it_is_good(world: World) -> None:
    here = world.client("here", clean=False, expiry=60)
    here.subscribe(world.topic("a"), 1)
    here.close()
    there = world.client("there")
    there.publish(world.topic("a"), b"short", MessageExpiryInterval=1)
    there.publish(world.topic("a"), b"long", MessageExpiryInterval=1_000)
    if world.pass_time is not None:
        world.pass_time(2)
    else:
        time.sleep(2.1)  # the broker's own clock decides, and its grain is a second
    again = world.client("here", clean=False)
    message = again.receive()
    assert message.payload == b"long"
    assert 990 <= properties_of(message)["MessageExpiryInterval"] <= 998


def properties_of(message: object) -> dict[str, object]:
    """Return a message's properties by paho's names."""
    properties: Properties = message.properties  # type: ignore[attr-defined]
    return {
        name: getattr(properties, name)
        for name in (
            "ResponseTopic",
            "CorrelationData",
            "ContentType",
            "UserProperty",
            "MessageExpiryInterval",
        )
        if hasattr(properties, name)
    }

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxOutcomeUnknownError,
    EmqxServerError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from tests.operators.run import TI, execute, sent

V4, V5 = "4.4.19", "5.8.9"


def publish(**arguments: Any) -> dict[str, Any]:
    return execute(EmqxPublishOperator, **arguments)


@pytest.fixture
def device(broker: Any) -> Any:
    broker.connect("dev-1")
    broker.subscribe("dev-1", "cmd/#", qos=2)
    return broker


def payloads(broker: Any, clientid: str = "dev-1") -> list[bytes]:
    return [message.payload for message in broker.received(clientid)]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("text ü", "text ü".encode()),
        (b"\x00\xff", b"\x00\xff"),
        ({"on": True, "name": "ü"}, '{"on": true, "name": "ü"}'.encode()),
        ([1, 2], b"[1, 2]"),
        (7, b"7"),
        ("", b""),
    ],
)
def test_a_payload_of_any_kind_arrives(device: Any, payload: Any, expected: bytes) -> None:
    result = publish(topic="cmd/dev-1", payload=payload, qos=1)
    assert payloads(device) == [expected]
    assert device.received("dev-1")[0].qos == 1
    assert result["messages"] == 1
    assert result["results"][0]["status"] == ("accepted" if device.version == V4 else "delivered")


def test_what_templates_render_to_text_is_understood(device: Any) -> None:
    publish(topic="cmd/x", payload="1", qos="2", retain="True", require_subscribers="False")
    (message,) = device.received("dev-1")
    assert message.qos == 2
    assert list(device.retained) == ["cmd/x"]


def test_nobody_listening_is_no_failure(broker: Any) -> None:
    result = publish(topic="nobody/listens", payload="x")
    assert result["counts"] == {"accepted" if broker.version == V4 else "no_subscribers": 1}


@pytest.mark.parametrize("version", [V5])
def test_nobody_listening_is_a_failure_if_subscribers_are_required(broker: Any) -> None:
    ti = TI()
    with pytest.raises(EmqxError, match=r"1 of 1 messages.*'nobody/listens': no_subscribers"):
        publish(topic="nobody/listens", payload="x", require_subscribers=True, ti=ti)
    assert ti.pushed["return_value"]["counts"] == {"no_subscribers": 1}


@pytest.mark.parametrize("version", [V4])
def test_requiring_subscribers_is_refused_where_the_broker_does_not_tell(broker: Any) -> None:
    with pytest.raises(EmqxUnsupportedError, match="Nothing was sent"):
        publish(topic="a", payload="x", require_subscribers=True)
    assert sent(broker) == []


def test_properties_arrive(device: Any) -> None:
    publish(
        topic="cmd/x", payload="1", properties={"message_expiry_interval": 60, "user_properties": {"a": "b"}}
    )
    (message,) = device.received("dev-1")
    assert message.properties["message_expiry_interval"] == 60


def test_each_message_of_a_batch_has_its_result_in_order(device: Any) -> None:
    messages = [{"topic": f"cmd/{i}" if i % 2 else f"other/{i}", "payload": str(i)} for i in range(2_500)]
    result = publish(messages=messages)
    assert result["messages"] == 2_500
    assert len(result["results"]) == 1_000
    assert [row["topic"] for row in result["results"]] == [message["topic"] for message in messages[:1_000]]
    assert len(payloads(device)) == 1_250
    assert len([line for line in sent(device) if "batch" in line or "bulk" in line]) == 3
    if device.version == V5:
        assert result["counts"] == {"no_subscribers": 1_250, "delivered": 1_250}


def test_no_request_is_larger_than_four_megabytes(device: Any) -> None:
    messages = [{"topic": "cmd/big", "payload": "x" * 900_000} for _ in range(10)]
    publish(messages=messages)
    assert len(payloads(device)) == 10
    assert len(sent(device)) == 3


def test_no_messages_at_all_is_well(broker: Any) -> None:
    assert publish(messages=[])["messages"] == 0
    assert sent(broker) == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"topic": "", "payload": "x"}, "must not be empty"),
        ({"topic": "a/#", "payload": "x"}, "wildcard"),
        ({"topic": "a/+/b", "payload": "x"}, "wildcard"),
        ({"topic": "a\x00", "payload": "x"}, "null character"),
        ({"topic": "x" * 65_536, "payload": "x"}, "65536 bytes"),
        ({"topic": "\ud800", "payload": "x"}, "surrogate"),
        ({"topic": 7, "payload": "x"}, "must be text"),
        ({"payload": "x"}, "must be text"),
        ({"topic": "a"}, "needs a payload"),
        ({"topic": "a", "payload": {1, 2}}, "neither text nor bytes"),
        ({"topic": "a", "payload": float("nan")}, "neither text nor bytes"),
        ({"topic": "a", "payload": "\ud800"}, "surrogate"),
        ({"topic": "a", "payload": "x", "qos": 3}, "qos must be 0, 1 or 2"),
        ({"topic": "a", "payload": "x", "qos": True}, "qos must be 0, 1 or 2"),
        ({"topic": "a", "payload": "x", "retain": "perhaps"}, "retain must be true or false"),
        ({"topic": "a", "payload": "%%%", "payload_encoding": "base64"}, "said to be base64"),
        ({"topic": "a", "payload": "x", "payload_encoding": "rot13"}, "payload_encoding"),
        ({"topic": "a", "payload": "x", "colour": "red"}, "unknown field 'colour'"),
        ({"topic": "a", "payload": "x", "properties": {"colour": 1}}, "unknown property 'colour'"),
        ({"topic": "a", "payload": "x", "properties": {"message_expiry_interval": -1}}, "whole seconds"),
        ({"topic": "a", "payload": "x" * 8_000_000}, "larger than a request"),
        ("a", "must be a dict"),
    ],
)
def test_a_bad_message_is_refused_before_the_good_ones_beside_it_are_sent(
    broker: Any, message: Any, said: str
) -> None:
    good = [{"topic": "cmd/1", "payload": "S3cret-payload"} for _ in range(1_001)]
    with pytest.raises(EmqxConfigError, match=f"message 1002: .*{said}") as caught:
        publish(messages=[*good, message])
    assert sent(broker) == []
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize("version", [V4])
def test_a_comma_in_a_topic_is_refused_where_the_broker_would_split_it(broker: Any) -> None:
    for arguments in ({"topic": "a,b", "payload": "x"}, {"messages": [{"topic": "a,b", "payload": "x"}]}):
        with pytest.raises(EmqxConfigError, match="comma"):
            publish(**arguments)
    assert sent(broker) == []


@pytest.mark.parametrize("version", [V5])
def test_a_comma_in_a_topic_is_a_character_like_others_elsewhere(device: Any) -> None:
    publish(topic="cmd/a,b", payload="x")
    assert [message.topic for message in device.received("dev-1")] == ["cmd/a,b"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"topic": "a"},
        {"payload": "a"},
        {"topic": "a", "payload": "x", "messages": []},
        {"messages": "a"},
        {"messages": 7},
    ],
)
def test_it_must_be_clear_what_to_publish(broker: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        publish(**arguments)
    assert sent(broker) == []


@pytest.mark.parametrize("kind", ["reset_after", "truncated", "garbage"])
def test_a_message_whose_answer_was_lost_is_not_sent_again(device: Any, kind: str) -> None:
    device.order_fault(kind, match="POST")
    with pytest.raises(EmqxOutcomeUnknownError):
        publish(topic="cmd/dev-1", payload="once")
    assert payloads(device) == [b"once"]


def test_a_lost_answer_in_the_midst_tells_of_every_message(device: Any) -> None:
    device.order_fault("reset_after", match="POST", after=1)
    ti = TI()
    with pytest.raises(EmqxError, match="1,000 unknown"):
        publish(messages=[{"topic": "cmd/1", "payload": str(i)} for i in range(3_000)], ti=ti)
    told = "accepted" if device.version == V4 else "delivered"
    assert ti.pushed["return_value"]["counts"] == {told: 1_000, "unknown": 1_000, "not_sent": 1_000}
    assert payloads(device) == [str(i).encode() for i in range(2_000)]


@pytest.mark.parametrize("version", [V5])
def test_one_message_that_the_broker_refuses_does_not_keep_back_the_others(device: Any) -> None:
    messages = [{"topic": "cmd/1", "payload": str(i)} for i in range(7)]
    messages[4]["payload"] = "x" * 2_000_000
    ti = TI()
    with pytest.raises(EmqxError, match=r"1 of 7 .*packet_too_large"):
        publish(messages=messages, ti=ti)
    assert ti.pushed["return_value"]["counts"] == {"delivered": 6, "failed": 1}
    assert ti.pushed["return_value"]["results"][4]["status"] == "failed"
    assert payloads(device) == [b"0", b"1", b"2", b"3", b"5", b"6"]


@pytest.mark.parametrize("version", [V5])
def test_what_the_broker_could_not_pass_on_is_sent_again_only_if_asked_for(device: Any) -> None:
    messages = [{"topic": "cmd/ok", "payload": "1"}, {"topic": "cmd/stuck", "payload": "2"}]
    device.refuse_dispatch("cmd/stuck")
    with pytest.raises(EmqxError, match=r"'cmd/stuck': failed \(failed_to_dispatch\)"):
        publish(messages=messages)
    bulk = [line for line in sent(device) if line.endswith("/publish/bulk")]
    assert len(bulk) == 1
    assert payloads(device) == [b"1"]


def test_a_dag_publishes_what_another_task_returns_and_airflow_does_not_show_it(
    run_dag: Any, device: Any
) -> None:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields

    with DAG("publish", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def commands() -> list[dict[str, Any]]:
            return [{"topic": "cmd/1", "payload": {"code": "S3cret-1"}, "qos": 1}]

        made = commands()
        EmqxPublishOperator(task_id="many", messages=made)
        EmqxPublishOperator(
            task_id="one", topic="cmd/{{ dag.dag_id }}", payload={"run": "S3cret {{ dag.dag_id }}"}
        )
        EmqxPublishOperator.partial(task_id="mapped", payload="m").expand(topic=["cmd/m1", "cmd/m2"])
    run = run_dag(dag)
    assert run.state == "success"
    assert sorted(payloads(device)) == sorted(
        [b'{"code": "S3cret-1"}', b'{"run": "S3cret publish"}', b"m", b"m"]
    )
    for name in ("many", "one"):
        shown = RenderedTaskInstanceFields.get_templated_fields(run.get_task_instance(name))
        assert "S3cret" not in json.dumps(shown, default=str)


@pytest.mark.parametrize("version", [V5])
def test_with_retry_unsafe_only_what_was_not_passed_on_is_sent_again(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_emqx.transport.stopping import Stop

    pauses: list[float] = []

    def heal(stop: Stop, seconds: float) -> None:
        """The subscriber can be reached again while the hook waits for the second time."""
        pauses.append(seconds)
        if len(pauses) == 2:
            device.state.undeliverable.clear()

    monkeypatch.setattr(Stop, "sleep", heal)
    device.refuse_dispatch("cmd/stuck")
    messages = [{"topic": "cmd/ok", "payload": "1"}, {"topic": "cmd/stuck", "payload": "2"}]
    assert publish(messages=messages, retry_unsafe=True)["counts"] == {"delivered": 2}
    bodies = [json.loads(served.body) for served in device.requests if served.path.endswith("/publish/bulk")]
    assert [[row["topic"] for row in body] for body in bodies] == [
        ["cmd/ok", "cmd/stuck"],
        ["cmd/stuck"],
        ["cmd/stuck"],
    ]
    assert payloads(device) == [b"1", b"2"]


@pytest.mark.parametrize(
    "own", [{"qos": 1}, {"retain": "true"}, {"properties": {"content_type": "text/plain"}}]
)
def test_what_belongs_to_one_message_is_refused_beside_several(broker: Any, own: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError, match=f"{next(iter(own))} goes with topic and payload"):
        execute(EmqxPublishOperator, messages=[{"topic": "a", "payload": "x"}], **own)
    assert sent(broker) == []
    defaults = {"qos": "0", "retain": "False", "properties": {}}
    result = execute(EmqxPublishOperator, messages=[{"topic": "a", "payload": "x"}], **defaults)
    assert result["messages"] == 1


def test_numbers_in_properties_may_be_text(broker: Any) -> None:
    broker.connect("d")
    broker.subscribe("d", "a")
    properties = {"message_expiry_interval": "60", "payload_format_indicator": "1"}
    execute(EmqxPublishOperator, topic="a", payload="x", properties=properties)
    sent_body = json.loads(next(served.body for served in broker.requests if served.method == "POST"))
    assert sent_body["properties"] == {"message_expiry_interval": 60, "payload_format_indicator": 1}
    with pytest.raises(EmqxConfigError, match="must be whole seconds"):
        execute(EmqxPublishOperator, topic="a", payload="x", properties={"message_expiry_interval": "soon"})


@pytest.mark.parametrize("version", [V5])
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"code": "SERVICE_UNAVAILABLE", "message": "busy"}'])
def test_several_messages_that_a_proxy_did_not_pass_on_are_not_unknown(broker: Any, body: bytes) -> None:
    messages = [{"topic": "a", "payload": "x"}, {"topic": "b", "payload": "y"}]
    broker.order_fault("status", match="POST", status=503, body=body)
    with pytest.raises(EmqxServerError, match="HTTP 503"):
        publish(messages=messages)
    assert len(sent(broker)) == 1
    broker.order_fault("status", match="POST", status=503, body=body)
    assert publish(messages=messages, retry_unsafe=True)["counts"] == {"no_subscribers": 2}
    assert len(sent(broker)) == 3


@pytest.mark.parametrize("version", [V5, "6.3.0-beta.2"])
def test_a_message_that_waits_is_delayed_and_neither_lost_nor_delivered(broker: Any) -> None:
    broker.connect("d")
    broker.subscribe("d", "later")
    assert publish(topic="$delayed/30/later", payload="x")["results"][0]["status"] == "delayed"
    messages = [{"topic": "$delayed/30/later", "payload": "y"}, {"topic": "later", "payload": "z"}]
    assert publish(messages=messages)["counts"] == {"delayed": 1, "delivered": 1}
    assert payloads(broker, "d") == [b"z"]
    broker.advance(31)
    assert sorted(payloads(broker, "d")) == [b"x", b"y", b"z"]


@pytest.mark.parametrize("version", [V5, "6.3.0-beta.2"])
def test_subscribers_of_a_message_that_waits_are_not_required(broker: Any) -> None:
    messages = [{"topic": "later", "payload": "x"}, {"topic": "$delayed/30/later", "payload": "y"}]
    with pytest.raises(EmqxConfigError, match="does not go with"):
        publish(messages=messages, require_subscribers=True)
    assert sent(broker) == []


@pytest.mark.parametrize("topic", ["$delayed/abc/x", "$delayed/30", "$delayed//x", "$delayed/30/"])
def test_a_delay_that_the_broker_cannot_read_is_refused(broker: Any, topic: str) -> None:
    with pytest.raises(EmqxConfigError, match="has no delay"):
        publish(topic=topic, payload="x")
    assert sent(broker) == []

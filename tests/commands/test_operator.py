from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxError, EmqxForbiddenError
from airflow_provider_emqx.operators.commands import EmqxCommandOperator
from airflow_provider_emqx.testing import FakeEmqx
from tests.commands.fleet import Fleet, TaskInstance, got, lines


def operator(clientids: Any, **options: Any) -> EmqxCommandOperator:
    return EmqxCommandOperator(
        task_id="task", clientids=clientids, **{"payload": "do", "timeout": 30, **options}
    )


def test_every_device_replies(broker: FakeEmqx, fleet: Fleet, tmp_path: Path) -> None:
    clientids = fleet(250)
    report = tmp_path / "new" / "report.jsonl"
    result = operator(clientids, report_path=report).execute({})
    assert result["counts"] == {
        "replied": 250, "failed": 0, "no_reply": 0, "not_delivered": 0, "unknown": 0, "unaddressable": 0
    }  # fmt: skip
    assert sorted(result["replied"]) == sorted(clientids)
    assert (result["selected"], result["left"], result["waves"]) == (250, [], 1)
    assert {got(broker, clientid) for clientid in clientids} == {1}
    assert {row["outcome"] for row in lines(report).values()} == {"replied"}
    assert len(report.read_text().splitlines()) == 251  # and what was decided of the wave
    assert report.stat().st_mode & 0o777 == 0o600
    assert [clientid for clientid in broker.clients if clientid.startswith("airflow-")] == []


def test_each_device_ends_in_the_outcome_that_is_its_own(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    fleet(["good"], '{"ok": true, "more": 1}')
    fleet(["bad"], '{"ok": false}')
    fleet(["odd"], "no JSON")
    fleet(["large"], b"[" + b" " * 1_000_000)
    fleet(["silent"], lambda _: None)
    fleet(["foreign"], lambda _: broker.publish("devices/dev-foreign/reply", '{"ok": true}', 1))
    names = ["good", "bad", "odd", "large", "silent", "foreign", "absent", "a+b", "a#"]
    task = operator(
        [f"dev-{name}" for name in names],
        success={"ok": True},
        timeout=0.5,
        max_failed="100%",
        report_path=tmp_path / "report.jsonl",
    )
    result = task.execute({})
    told = lines(tmp_path / "report.jsonl")
    assert {name: told[f"dev-{name}"]["outcome"] for name in names} == {
        "good": "replied",
        "bad": "failed",
        "odd": "failed",
        "large": "failed",
        "silent": "no_reply",
        "foreign": "no_reply",
        "absent": "not_delivered",
        "a+b": "unaddressable",
        "a#": "unaddressable",
    }
    assert told["dev-bad"]["reason"] == "the reply differs from success in 'ok'"
    assert told["dev-odd"]["reason"] == "the reply is not a JSON object"
    assert "1,000,001 bytes" in told["dev-large"]["reason"]
    assert told["dev-foreign"]["reason"] == "what it sent did not carry the mark of this command"
    assert sum(result["counts"].values()) == len(names)
    assert {
        "outcome": "unaddressable",
        "reason": "the client id is empty or contains + or #, which a topic cannot",
        "count": 2,
        "id": "dev-a+b",
    } in result["reasons"]


def test_devices_without_mqtt_5_answer_with_a_field_of_json(broker: FakeEmqx, fleet: Fleet) -> None:
    def answer(clientid: str, more: dict[str, Any]) -> Callable[[Any], None]:
        def said(message: Any) -> None:
            command = json.loads(message.payload)
            assert command["do"] == "blink"
            reply = {"id": command["id"], **more}
            broker.publish(f"devices/{clientid}/reply", json.dumps(reply), 1, clientid=clientid)

        return said

    fleet(["good"], answer("dev-good", {"done": "yes"}))
    fleet(["bad"], answer("dev-bad", {"done": "no"}))
    fleet(["other"], answer("dev-other", {"id": "of-another-command", "done": "yes"}))
    # one device cannot answer for another
    fleet(["thief"], answer("dev-good", {"done": "yes"}))
    result = operator(
        ["dev-good", "dev-bad", "dev-other", "dev-thief"],
        payload={"do": "blink"},
        reply_field="id",
        success={"done": "yes"},
        timeout=0.5,
        max_failed=3,
    ).execute({})
    assert (result["replied"], result["failed"]) == (["dev-good"], ["dev-bad"])
    assert sorted(result["no_reply"]) == ["dev-other", "dev-thief"]


def test_names_with_levels_and_percent_signs_are_names(broker: FakeEmqx, fleet: Fleet) -> None:
    # what the API cannot name in its paths, MQTT can
    dots = [".", ".."]
    for clientid in dots:
        broker.connect(clientid, on_message=lambda message: broker.reply(message, '{"ok": true}'))
        broker.subscribe(clientid, f"devices/{clientid}/command", 1)
    clientids = [*fleet(["a/b", "%c", "{clientid}", "ü ", "$x", "a/reply/c"]), *dots]
    result = operator(["", *clientids], max_failed=1).execute({})
    assert (sorted(result["replied"]), result["unaddressable"]) == (sorted(clientids), [""])


def test_duplicates_retained_replies_and_those_who_were_not_asked_count_for_nothing(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    def twice(message: Any) -> None:
        for answer in ('{"ok": false}', '{"ok": true}', '{"ok": true}'):
            broker.reply(message, answer)

    fleet(["twice"], twice)
    fleet(["one"])
    stranger: list[Any] = []
    broker.connect("dev-stranger", on_message=stranger.append)
    for topic in ("devices/dev-one/reply", "devices/dev-stranger/reply"):
        broker.publish(topic, '{"ok": true}', 1, retain=True)
    broker.subscribe("dev-stranger", "devices/+/command", 1)

    def tell(message: Any) -> None:
        broker.publish("devices/dev-stranger/reply", '{"ok": true}', 1, properties=message.properties)
        broker.reply(message, '{"ok": true}')

    fleet(["last"], tell)
    result = operator(["dev-twice", "dev-one", "dev-last"], success={"ok": True}, max_failed=1).execute({})
    assert (result["failed"], sorted(result["replied"])) == (["dev-twice"], ["dev-last", "dev-one"])
    assert sum(result["counts"].values()) == 3


@pytest.mark.parametrize("reply_field", [None, "id"])
def test_huge_replies_and_those_that_are_no_json_cost_the_others_nothing(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path, reply_field: str | None
) -> None:
    """A broker may let devices publish more than EMQX's 1 MB."""

    def answer(clientid: str, more: str) -> Callable[[Any], None]:
        def said(message: Any) -> None:
            marked = json.loads(message.payload) if reply_field else {}
            reply = json.dumps({**marked, "ok": True})[:-1] + more
            broker.reply(message, reply, clientid=clientid)

        return said

    kinds = {"good": "}", "cut": "", "huge": "," + " " * 10_000_000 + '"a": 1}'}
    for name, more in kinds.items():
        for number in range(3):
            fleet([f"{name}-{number}"], answer(f"dev-{name}-{number}", more))
    task = operator(
        [f"dev-{name}-{number}" for number in range(3) for name in kinds],
        payload={"do": "report"},
        reply_field=reply_field,
        success={"ok": True},
        timeout=5 if reply_field else 60,
        max_failed="100%",
        keep_replies=True,
        report_path=tmp_path / "report.jsonl",
    )
    result = task.execute({})
    told = lines(tmp_path / "report.jsonl")
    # without its mark nobody knows what a device answers to
    unread = "no_reply" if reply_field else "failed"
    for number in range(3):
        assert told[f"dev-good-{number}"]["outcome"] == "replied"
        assert told[f"dev-cut-{number}"]["outcome"] == unread
        assert told[f"dev-huge-{number}"]["outcome"] == unread
        assert "the device sent 10,0" in told[f"dev-huge-{number}"]["reason"]
    assert sum(result["counts"].values()) == 9
    assert (tmp_path / "report.jsonl").stat().st_size < 20_000


def test_the_broker_drops_what_is_larger_than_the_task_takes(broker: FakeEmqx, fleet: Fleet) -> None:
    vast, good = fleet(["vast"], " " * 17_000_000), fleet(["good"])
    result = operator([*vast, *good], timeout=1, max_failed=1).execute({})
    assert (result["no_reply"], result["replied"]) == (vast, good)


def test_enough_replies_end_the_wait(broker: FakeEmqx, fleet: Fleet) -> None:
    answering, silent = fleet(9), fleet(["silent"], lambda _: None)
    result = operator([*answering, *silent], quorum="90%", timeout=1_000).execute({})
    assert result["counts"]["replied"] == 9
    assert result["no_reply"] == silent
    assert [(one["outcome"], one["reason"], one["count"], one["id"]) for one in result["reasons"]] == [
        ("no_reply", "enough devices had replied before it did", 1, silent[0])
    ]


def test_too_few_replies_fail_the_task_and_stop_the_waves(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    silent, answering = fleet(["x"], lambda _: None), fleet(25)
    ti = TaskInstance()
    task = operator([*silent, *answering], wave_size=10, timeout=0.3, report_path=tmp_path / "report.jsonl")
    with pytest.raises(
        EmqxError, match=r"9 of the 10 devices of wave 1.*Nothing was sent to 16 devices"
    ) as caught:
        task.execute({"ti": ti})
    assert "a retry goes on with them" in str(caught.value)
    assert ti.pushed["return_value"]["left_count"] == 16
    assert ti.pushed["return_value"]["counts"]["no_reply"] == 1
    # the retry goes on with those only
    again = TaskInstance(2)
    result = task.execute({"ti": again})
    assert (result["counts"]["replied"], result["no_reply"], result["waves"]) == (25, silent, 3)
    assert {got(broker, clientid) for clientid in [*silent, *answering]} == {1}
    # and a third attempt has nothing to do
    assert task.execute({"ti": TaskInstance(3)})["counts"] == result["counts"]
    assert {got(broker, clientid) for clientid in [*silent, *answering]} == {1}


def test_a_retry_that_has_nothing_to_send_fails_as_the_attempt_before(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    silent, answering, report = fleet(["x"], lambda _: None), fleet(2), tmp_path / "report.jsonl"
    task = operator([*silent, *answering], timeout=0.3, report_path=report)
    for attempt in (1, 2):
        with pytest.raises(EmqxError, match=r"2 of the 3 devices of wave 1 have replied"):
            task.execute({"ti": TaskInstance(attempt)})
        # the report of a task that fails has a line for each device as well, and one for the wave
        assert len(report.read_text().splitlines()) == 4
    assert {got(broker, clientid) for clientid in [*silent, *answering]} == {1}


def test_a_device_that_is_named_twice_gets_the_command_once(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    clientids = fleet(3)
    assert operator([*clientids, *clientids], wave_size=2).execute({})["counts"]["replied"] == 3
    (tmp_path / "fleet.txt").write_text("\n".join([*clientids, *clientids]))
    task = EmqxCommandOperator(task_id="task", clientids_path=str(tmp_path / "fleet.txt"), payload="do")
    assert task.execute({})["counts"]["replied"] == 3
    assert {got(broker, clientid) for clientid in clientids} == {2}


def test_a_share_of_failures_is_tolerated_over_all_waves(broker: FakeEmqx, fleet: Fleet) -> None:
    silent, answering = fleet(["x", "y"], lambda _: None), fleet(18)
    task = operator([silent[0], *answering, silent[1]], wave_size="50%", timeout=0.3, max_failed="10%")
    result = task.execute({})
    assert (result["counts"]["replied"], result["waves"]) == (18, 2)
    with pytest.raises(EmqxError, match="max_failed"):
        operator([*silent, *answering], wave_size="50%", timeout=0.3, max_failed="10%").execute({})


def test_a_retry_gives_the_command_again_only_if_asked(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    silent, answering = fleet(["x"], lambda _: None), fleet(2)
    report = tmp_path / "report.jsonl"
    with pytest.raises(EmqxError):
        operator([*silent, *answering], timeout=0.3, report_path=report).execute({"ti": TaskInstance()})
    fleet(["x"])
    result = operator([*silent, *answering], report_path=report, resend="no_reply").execute(
        {"ti": TaskInstance(2)}
    )
    assert result["counts"]["replied"] == 3
    assert [got(broker, clientid) for clientid in [*silent, *answering]] == [2, 1, 1]


def test_without_a_report_a_retry_sends_nothing(broker: FakeEmqx, fleet: Fleet) -> None:
    clientids = fleet(1)
    with pytest.raises(EmqxConfigError, match=r"attempt 2.*nothing was sent"):
        operator(clientids).execute({"ti": TaskInstance(2)})
    assert got(broker, "dev-0") == 0
    assert operator(clientids, resend="all").execute({"ti": TaskInstance(2)})["replied"] == clientids


def test_another_run_does_not_take_the_report_of_this_one_for_its_own(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    clientids, report = fleet(2), tmp_path / "report.jsonl"
    operator(clientids, report_path=report).execute({"ti": TaskInstance()})
    other = TaskInstance()
    other.run_id = "another"
    operator(clientids, report_path=report).execute({"ti": other})
    assert [got(broker, clientid) for clientid in clientids] == [2, 2]
    assert len(lines(report)) == 2


def test_replies_are_kept_only_if_asked_for(broker: FakeEmqx, fleet: Fleet, tmp_path: Path) -> None:
    clientids, report = fleet(1, "hush-1" + "x" * 2_000), tmp_path / "report.jsonl"
    result = operator(clientids, report_path=report).execute({})
    assert "hush-1" not in json.dumps(result) + report.read_text()
    result = operator(clientids, report_path=tmp_path / "kept.jsonl", keep_replies=True).execute({})
    assert result["replies"] == {"dev-0": ("hush-1" + "x" * 2_000)[:1_000]}
    assert lines(tmp_path / "kept.jsonl")["dev-0"]["reply"] == result["replies"]["dev-0"]


def test_nothing_is_sent_where_replies_could_not_be_heard(
    broker: FakeEmqx, fleet: Fleet, tmp_path: Path
) -> None:
    fleet(1)
    broker.add_user("airflow", "secret")
    login = {"mqtt_url": broker.mqtt_url, "mqtt_username": "airflow"}
    for password, error in (("wrong", EmqxAuthError), ("secret", EmqxForbiddenError)):
        os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(
            broker.connection(**login, mqtt_password=password)
        )
        task = operator("dev-0", report_path=tmp_path / "report.jsonl")
        with task.hook() as hook:
            hook.set_acl_rules(
                {"username": "airflow"},
                [{"topic": "devices/+/reply", "action": "subscribe", "permission": "deny"}],
            )
        with pytest.raises(error):
            task.execute({"ti": TaskInstance()})
        assert got(broker, "dev-0") == 0
        assert lines(tmp_path / "report.jsonl") == {}


def test_what_the_account_may_not_say_to_some_costs_the_others_nothing(
    broker: FakeEmqx, fleet: Fleet
) -> None:
    clientids = fleet(3)
    broker.add_user("airflow", "secret")
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(
        broker.connection(mqtt_url=broker.mqtt_url, mqtt_username="airflow", mqtt_password="secret")
    )
    task = operator(clientids, max_failed=1)
    with task.hook() as hook:
        hook.set_acl_rules(
            {"username": "airflow"},
            [{"topic": "devices/dev-1/command", "action": "publish", "permission": "deny"}],
        )
    result = task.execute({})
    assert (result["failed"], result["counts"]["replied"]) == (["dev-1"], 2)
    assert "0x87" in result["reasons"][0]["reason"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"clientids": None}, "either clientids or clientids_path"),
        ({"clientids": []}, "empty"),
        ({"clientids": [1]}, "must be text"),
        ({"topic": "devices/command"}, "topic must have {clientid}"),
        ({"topic": "devices/+/command"}, "topic must have {clientid}"),
        ({"topic": "devices/+/{clientid}"}, "wildcard"),
        ({"topic": "devices/dev-{clientid}"}, "topic must have {clientid}"),
        ({"topic": "{clientid}/{clientid}"}, "topic must have {clientid}"),
        ({"reply_topic": "devices/#"}, "reply_topic must have {clientid}"),
        ({"reply_topic": "devices/{clientid}/command"}, "are the same"),
        ({"payload": object()}, "payload must be text"),
        ({"payload": "no JSON", "reply_field": "id"}, "JSON object"),
        ({"success": "no JSON"}, "success must be a dict"),
        ({"quorum": "most"}, "quorum must be"),
        ({"timeout": ""}, "timeout has no value"),
        ({"timeout": -1}, "timeout must be"),
        ({"pause": "soon"}, "pause must be"),
        ({"wave_size": "200%"}, "wave_size must be"),
        ({"max_failed": "few"}, "max_failed must be"),
        ({"keep_replies": "perhaps"}, "keep_replies must be"),
        ({"resend": "nothing"}, "unknown outcome 'nothing'"),
        ({"deferrable": True}, "deferrable needs report_path"),
    ],
)
def test_what_cannot_be_right_is_refused_when_the_dag_is_parsed(options: dict[str, Any], why: str) -> None:
    with pytest.raises(EmqxConfigError, match=why):
        operator(**{"clientids": "dev-1", **options})


def test_a_template_is_checked_when_it_is_rendered() -> None:
    task = operator("{{ params.devices }}", quorum="most")
    with pytest.raises(EmqxConfigError, match="quorum"):
        task.execute({})


def test_the_payload_is_shown_to_nobody(
    broker: FakeEmqx, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    task = operator(fleet(1), payload={"password": "hush-1"}, success={"ok": True})
    caplog.set_level("DEBUG")
    task.execute({})
    assert "hush-1" not in repr(task.payload) + caplog.text
    assert broker.received("dev-0")[0].payload == b'{"password": "hush-1"}'


def test_a_fleet_from_a_file(broker: FakeEmqx, fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "fleet.txt").write_text("\n".join([*fleet(20), "."]))
    task = EmqxCommandOperator(task_id="task", clientids_path=str(tmp_path / "fleet.txt"), payload="do")
    task.max_failed = 1
    result = task.execute({})
    assert (result["counts"]["replied"], result["not_delivered"]) == (20, ["."])


def test_a_broker_that_comes_up_late_is_waited_for(broker: FakeEmqx, fleet: Fleet) -> None:
    clientids = fleet(1)
    broker.stop()
    # the first connect must find nobody
    starting = threading.Timer(0.3, broker.start)
    starting.start()
    assert operator(clientids).execute({})["replied"] == clientids
    starting.join()


def test_a_wait_that_is_over_at_once_hears_what_was_answered(broker: FakeEmqx, fleet: Fleet) -> None:
    clientids = fleet(40, lambda message: broker.reply(message, "ok", seconds=0.2))
    assert operator(clientids, timeout=0.001).execute({})["counts"]["replied"] == 40


def test_a_large_wave_that_answers_at_once_is_sent_no_faster_than_it_is_heard(
    broker: FakeEmqx, fleet: Fleet
) -> None:
    """The broker keeps 1,000 messages for a client, and drops the oldest."""
    clientids = fleet(2_000)
    assert operator(clientids).execute({})["counts"]["replied"] == 2_000

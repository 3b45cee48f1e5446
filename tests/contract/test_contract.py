"""FakeEmqx is held to what real brokers answered: both recordings are replayed, step by step, on a real socket."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx

HERE = Path(__file__).parent
VERSIONS = ("4.4.19", "5.8.9")

#: Steps that are not served yet, each with the reason. A step that passes must leave this list.
NOT_YET: dict[tuple[str, str], str] = {}

#: Values of these keys change from run to run: any value of the same type will do ...
VOLATILE = frozenset(
    [
        *("uptime", "load1", "load5", "load15", "memory_total", "memory_used", "process_used", "max_fds"),
        *("otp_release", "heap_size", "reductions", "port", "current_conns", "cursor", "size", "duration"),
        *("recv_oct", "send_oct", "recv_cnt", "send_cnt", "recv_pkt", "send_pkt", "send_msg"),
        *("bytes.received", "bytes.sent", "messages.retained", "updated_time", "created_at_sec"),
        *("activate_at", "deactivate_at", "details", "license"),
    ]
)
#: ... and of these the form must be the same too: every run of digits (and of hexadecimal ones) counts as one.
SHAPED = frozenset(
    [
        *(
            "created_at",
            "connected_at",
            "disconnected_at",
            "create_time",
            "reset_time",
            "publish_at",
            "datetime",
        ),
        *("at", "until", "id", "msgid", "filename", "bind", "listen_on", "protocol"),
    ]
)
#: 4.4 lists hash tables, and 5.8 keeps bans in one: the order of rows is the table's, not a promise.
UNORDERED = frozenset(
    [
        *(("4.4.19", f"clients-{form}") for form in ("all", "fuzzy", "conn-state", "huge-limit")),
        *(("4.4.19", step) for step in ("node-clients", "routes", "subscriptions", "modules")),
        *(("4.4.19", f"auth_{one}-list{form}") for one in ("username", "clientid") for form in ("", "-like")),
        ("5.8.9", "banned-list"),
    ]
)
#: Pages of such tables: which rows are on which page is the table's affair too; their number and form count.
SOME_ROWS = frozenset(
    [
        *(("4.4.19", f"clients-page{page}") for page in ("", "-2")),
        *(
            ("4.4.19", f"auth_{one}-list-page{page}")
            for one in ("username", "clientid")
            for page in ("", "2")
        ),
    ]
)


@cache
def steps(version: str) -> list[dict[str, Any]]:
    with (HERE / f"emqx-{version}.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def exchanges() -> Iterator[Any]:
    for version in VERSIONS:
        for number, step in enumerate(steps(version)):
            if "request" in step:
                yield pytest.param(version, number, id=f"{version}-{step['id']}")


def prepared(version: str) -> FakeEmqx:
    """Return a broker as the recorded ones were before the first step."""
    if version == "5.8.9":
        broker = FakeEmqx(version, key="labkey", secret="labsecret")
        broker.add_user("labuser", "labpass")
        broker.state.cluster_name = "emqxlab"
        broker.close_listener("ssl:default")
        broker.close_listener("wss:default")
        broker.export_backup()
    else:
        broker = FakeEmqx(version, key="labkey", secret="labsecret", nodes=["emqx41@127.0.0.1"])
        broker.connect("earlier")
        broker.disconnect("earlier")
        for number in range(3):
            broker.publish(f"$SYS/{number}", "x", retain=True)
        broker.raise_alarm("high_cpu_usage", "94.68040546200888% cpu usage", {"usage": 94.68040546200888})
        broker.end_alarm("high_cpu_usage")
        for name in [name for name in broker.state.mqtt.metrics if name.startswith("messages.")]:
            del broker.state.mqtt.metrics[name]  # $SYS messages are not counted
    return broker


@pytest.fixture(scope="module")
def replayed() -> dict[str, dict[int, dict[str, Any]]]:
    """Replay the recordings: version -> number of the step -> what FakeEmqx answered."""
    return {version: replay(version) for version in VERSIONS}


def replay(version: str) -> dict[int, dict[str, Any]]:
    answers = {}
    with prepared(version) as broker:
        for number, step in enumerate(steps(version)):
            if "mqtt" in step:
                play_device(broker, step)
            else:
                answers[number] = exchange(broker, step["request"])
    return answers


def play_device(broker: FakeEmqx, step: dict[str, Any]) -> None:
    clientid = step.get("clientid", "")
    if step["mqtt"] == "connect":
        accepted = broker.connect(
            clientid,
            step.get("username"),
            step.get("password"),
            version=step["version"],
            session_expiry=step.get("session_expiry", 0),
        )
        assert accepted is step["result"]["connected"]
    elif step["mqtt"] == "subscribe":
        broker.subscribe(clientid, step["topic"], step["qos"])
    elif step["mqtt"] == "disconnect":
        assert broker.disconnect(clientid)
    else:
        assert step["mqtt"] == "sleep"
        broker.advance(step["s"])


def exchange(broker: FakeEmqx, request: dict[str, Any]) -> dict[str, Any]:
    """Send one recorded request, its path byte for byte."""
    target = broker.base_path + request["path"] + (f"?{request['query']}" if request.get("query") else "")
    headers = {"Accept": "*/*"}
    user = request.get("auth", ["labkey", "labsecret"])
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
    body = None
    if "json" in request:
        body, headers["Content-Type"] = json.dumps(request["json"]).encode(), "application/json"
    elif "body" in request:
        body, headers["Content-Type"] = request["body"].encode(), "application/json"
    elif "file" in request:
        body, headers["Content-Type"] = multipart(request["file"])
    connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=30)
    try:
        connection.request(request["method"], target, body, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    answer = {"status": response.status, "content_type": response.headers.get("Content-Type")}
    try:
        answer["json"] = json.loads(content)
    except ValueError:
        answer["text"] = content.decode()[:2000]
    return answer


def multipart(file: dict[str, str]) -> tuple[bytes, str]:
    boundary = "0123456789abcdef"
    kind = file.get("type", "text/csv")
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="filename"; filename="{file["name"]}"\r\n'
    body = f"{head}Content-Type: {kind}\r\n\r\n{file['content']}\r\n--{boundary}--\r\n"
    return body.encode(), f"multipart/form-data; boundary={boundary}"


def shape(text: str) -> str:
    return re.sub(r"[0-9A-F]{32}|\d+", "0", text)


def spoken(message: str) -> str:
    """Return an error message without the times in it and without the Erlang stack after it."""
    message = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME", message)
    message = re.sub(r"\b1[78]\d{8}\b", "EPOCH", message)
    return re.sub(r", \[.*\]$", "", message) if message.startswith("error, ") else message


def kind(value: Any) -> str:
    return (
        "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    )


def comparable(value: Any, step: tuple[str, str], key: str = "") -> Any:
    """Reduce a body to what must be equal."""
    if key in VOLATILE:
        return kind(value)
    if key in SHAPED and not isinstance(value, (dict, list)):
        return shape(value) if isinstance(value, str) else kind(value)
    if key == "shutdown_count" or (key == "rules" and isinstance(value, str)):
        return "any"
    if key == "message" and isinstance(value, str):
        return spoken(value)
    if isinstance(value, dict):
        return {name: comparable(inner, step, name) for name, inner in value.items()}
    if isinstance(value, list) and key == "data" and step in SOME_ROWS:
        return [{name: kind(inner) for name, inner in row.items()} for row in value]
    if isinstance(value, list):
        rows = [comparable(inner, step, key) for inner in value]
        return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True)) if step in UNORDERED else rows
    return value


@pytest.mark.parametrize(("version", "number"), list(exchanges()))
def test_fake_emqx_answers_as_recorded(
    replayed: dict[str, dict[int, dict[str, Any]]], version: str, number: int, request: pytest.FixtureRequest
) -> None:
    step = steps(version)[number]
    name = (version, step["id"])
    if name in NOT_YET:
        request.applymarker(pytest.mark.xfail(strict=True, reason=NOT_YET[name]))
    answer = replayed[version][number]
    recorded = step["response"]
    assert (answer["status"], answer["content_type"]) == (recorded["status"], recorded["content_type"])
    assert comparable(answer.get("json"), name) == comparable(recorded.get("json"), name)
    assert answer.get("text") == recorded.get("text")


def test_every_step_is_replayed() -> None:
    assert [sum("request" in step for step in steps(version)) for version in VERSIONS] == [163, 218]


def test_not_yet_names_recorded_steps_only() -> None:
    known = {(version, step.get("id")) for version in VERSIONS for step in steps(version)}
    assert set(NOT_YET) <= known

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxError, EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionAclOperator
from airflow_provider_emqx.transport import pulse
from tests.operators.run import TI, execute, sent

V4, V5 = "4.4.19", "5.8.9"
ROWS = [
    {"username": "alice", "topic": "a/#", "permission": "allow", "action": "publish"},
    {"clientid": "dev-1", "topic": "b", "permission": "deny"},
    {"username": "alice", "topic": "a/secret", "permission": "deny", "action": "all"},
    {"all": "true", "topic": "$SYS/#", "permission": "deny", "action": "subscribe"},
]


def provision(source: Any, **arguments: Any) -> dict[str, Any]:
    return execute(EmqxProvisionAclOperator, source=source, **arguments)


def rules(subject: Any) -> list[tuple[str, str, str]]:
    with EmqxHook() as hook:
        return [(rule["topic"], rule["permission"], rule["action"]) for rule in hook.list_acl_rules(subject)]


def write(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"acl.{kind}"
    names = ["username", "clientid", "all", "topic", "permission", "action"]
    text = {
        "csv": "\n".join([",".join(names), *(",".join(row.get(name, "") for name in names) for row in ROWS)]),
        "json": json.dumps(ROWS),
        "jsonl": "\n".join(map(json.dumps, ROWS)),
    }[kind.removesuffix(".gz")]
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("kind", ["list", "csv", "json", "jsonl", "csv.gz", "json.gz"])
def test_rows_become_the_rules_of_their_subjects_in_order(broker: Any, tmp_path: Path, kind: str) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules({"username": "alice"}, [{"topic": "stale", "permission": "allow"}])
        hook.set_acl_rules({"username": "bob"}, [{"topic": "stays", "permission": "allow"}])
    result = provision(ROWS if kind == "list" else write(tmp_path, kind))
    assert result == {
        "read": 4,
        "written": 4,
        "skipped": 0,
        "rejected": 0,
        "subjects": 3,
        "dry_run": False,
        "report_path": None,
        "plan": None,
        "reasons": [],
        "guards": [],
        "rejected_rows": [],
        "unread": [],
    }
    assert rules("username:alice") == [("a/#", "allow", "publish"), ("a/secret", "deny", "all")]
    assert rules({"clientid": "dev-1"}) == [("b", "deny", "all")]
    assert rules("all") == [("$SYS/#", "deny", "subscribe")]
    assert rules(("username", "bob")) == [("stays", "allow", "all")]
    assert provision(ROWS)["written"] == 4
    assert rules("username:alice") == [("a/#", "allow", "publish"), ("a/secret", "deny", "all")]


@pytest.mark.parametrize(
    "bad",
    [
        {"username": "alice", "topic": "", "permission": "deny"},
        {"username": "alice", "topic": "a/#/b", "permission": "deny"},
        {"username": "alice", "topic": "a", "permission": "perhaps"},
        {"username": "alice", "topic": "a", "permission": "deny", "action": "fly"},
        {"username": "alice", "topic": "a", "permission": "deny", "qos": "7"},
        {"username": "alice", "topic": "a", "permission": "deny", "colour": "red"},
    ],
)
def test_a_subject_with_a_bad_row_is_left_as_it_is_and_the_others_are_done(broker: Any, bad: Any) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules({"username": "alice"}, [{"topic": "old", "permission": "deny"}])
    result = provision([*ROWS, bad])
    assert (result["read"], result["written"], result["skipped"], result["rejected"]) == (5, 2, 2, 1)
    assert result["rejected_rows"][0]["line"] == 5
    assert rules("username:alice") == [("old", "deny", "all")]
    assert rules("clientid:dev-1") == [("b", "deny", "all")]


def test_rejected_rows_fail_the_task_if_asked_for_after_the_good_ones_are_done(broker: Any) -> None:
    ti = TI()
    with pytest.raises(EmqxConfigError, match="1 of 5 rows were rejected"):
        execute(EmqxProvisionAclOperator, ti, source=[*ROWS, "no row"], on_rejected="fail")
    assert ti.pushed["return_value"]["written"] == 4
    assert rules("clientid:dev-1") == [("b", "deny", "all")]
    with pytest.raises(EmqxConfigError, match="all 1 rows"):
        provision([{"username": "..", "topic": "a", "permission": "deny"}])


@pytest.mark.parametrize("version", ["4.4.19"])
@pytest.mark.parametrize("theirs", [True, False])
def test_a_rule_that_emqx_4_could_not_delete_costs_its_subject_only(broker: Any, theirs: bool) -> None:
    topic = "x" * 8_000
    if theirs:
        with EmqxHook() as hook:
            rule = {"username": "bad", "topic": topic, "action": "pub", "access": "deny"}
            hook.request("POST", "/acl", json=rule)
    bad = {"username": "bad", "topic": "a" if theirs else topic, "permission": "deny"}
    result = provision([bad, *ROWS])
    assert (result["written"], result["rejected"]) == (4, 1)
    assert "cannot delete the ACL rule" in result["rejected_rows"][0]["reason"]


def test_a_dry_run_writes_nothing(broker: Any) -> None:
    assert provision(ROWS, dry_run="true")["written"] == 4
    assert sent(broker) == []


def test_a_dry_run_without_a_value_is_refused(broker: Any) -> None:
    with pytest.raises(EmqxConfigError, match="dry_run has no value"):
        EmqxProvisionAclOperator(task_id="x", source=[], dry_run="").execute({})
    assert not broker.requests


def test_the_log_tells_no_count_that_the_broker_does_not_give(
    broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    provision(ROWS)
    assert caplog.messages[-1] == "        4  written"
    assert not [line for line in caplog.messages if "created" in line]


def test_a_failure_says_where_the_rejected_rows_are(broker: Any, tmp_path: Path) -> None:
    with pytest.raises(EmqxConfigError, match=r"4 written, 1 rejected\. The first of them are in the result"):
        provision([*ROWS, "no row"], on_rejected="fail")
    report = tmp_path / "report.jsonl"
    with pytest.raises(EmqxConfigError, match=f"4 written, 1 rejected. The report is {report}"):
        provision([*ROWS, "no row"], on_rejected="fail", report_path=str(report))


def test_rules_are_deleted_by_subject(broker: Any) -> None:
    provision(ROWS)
    result = provision([{"username": "alice"}, {"clientid": "ghost"}], mode="delete")
    assert result["subjects"] == 2
    assert rules("username:alice") == []
    assert rules("clientid:dev-1") == [("b", "deny", "all")]


@pytest.mark.parametrize("version", [V4])
def test_rules_that_the_broker_cannot_hold_are_rejected_with_their_rows(broker: Any) -> None:
    result = provision([*ROWS, {"username": "x", "topic": "a", "permission": "deny", "qos": "1"}])
    assert (result["written"], result["rejected"]) == (4, 1)
    assert "EMQX 4 cannot tell QoS" in result["rejected_rows"][0]["reason"]


@pytest.mark.parametrize("version", [V5])
def test_qos_and_retain_are_written(broker: Any) -> None:
    provision([{"username": "x", "topic": "a", "permission": "deny", "qos": "0,1", "retain": "true"}])
    with EmqxHook() as hook:
        (rule,) = hook.list_acl_rules("username:x")
    assert (rule["qos"], rule["retain"]) == ([0, 1], True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("acl.csv", b"\xff\xfe\x00"),
        ("acl.json", b'[{"topic": "a"'),
        ("acl.json", b'{"topic": "a"}'),
        ("acl.jsonl", b'{"topic": "a", "permission": "deny"}\n{"topic'),
        ("acl.csv.gz", b"no gzip"),
        ("acl.xml", b"<acl/>"),
    ],
)
def test_a_source_that_breaks_off_changes_nothing(
    broker: Any, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EmqxConfigError):
        provision(tmp_path / name)
    assert sent(broker) == []


@pytest.mark.parametrize("source", [7, {"username": "a"}, "missing.csv"])
def test_a_source_that_is_none_is_refused(broker: Any, source: Any) -> None:
    with pytest.raises(EmqxConfigError):
        provision(source)
    assert broker.requests == []


@pytest.mark.parametrize("version", [V5])
def test_a_file_that_breaks_off_after_good_rows_changes_nothing(broker: Any, tmp_path: Path) -> None:
    ti, text = TI(), "username,topic,permission\n" + "".join(f"u{i},a/{i},allow\n" for i in range(30_000))
    (tmp_path / "acl.csv.gz").write_bytes(gzip.compress(text.encode())[:-2_000])
    with pytest.raises(EmqxConfigError, match="damaged or cut off"):
        execute(EmqxProvisionAclOperator, ti, source=tmp_path / "acl.csv.gz")
    assert sent(broker) == []
    assert (ti.pushed["return_value"]["read"] > 1_000, ti.pushed["return_value"]["written"]) == (True, 0)


@pytest.mark.parametrize("version", [V5])
def test_files_may_have_other_names_marks_and_encodings(broker: Any, tmp_path: Path) -> None:
    text = "device;topic;permission\nmüller;a;allow\n"
    (tmp_path / "acl.txt").write_bytes(text.encode("latin-1"))
    how = {
        "format": "csv",
        "columns": {"clientid": "device"},
        "source_options": {"delimiter": ";", "encoding": "latin-1"},
    }
    assert provision(tmp_path / "acl.txt", **how)["written"] == 1
    assert rules("clientid:müller") == [("a", "allow", "all")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("username,topic\na,b\n", "no column 'permission'"),
        (
            "username,topic,permission,acton\na,b,allow,publish\n",
            "unknown field 'acton'; expected one of username",
        ),
        ("username;topic;permission\na;b;allow\n", "unknown field 'username;topic;permission'"),
        ("", "the file is empty"),
    ],
)
def test_a_header_that_cannot_be_right_refuses_the_file(
    broker: Any, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "acl.csv").write_text(text)
    with pytest.raises(EmqxConfigError, match=message):
        provision(tmp_path / "acl.csv")
    assert broker.requests == []


@pytest.mark.parametrize("version", [V5])
def test_files_of_a_directory_are_read_as_one(broker: Any, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "1.csv").write_text(
        "username,topic,permission\nalice,first,allow\nalice,a/#/b,deny\n"
    )
    (tmp_path / "rules" / "2.jsonl").write_text(
        '{"username": "alice", "topic": "x", "permission": "deny"}\n'
        '{"clientid": "c", "topic": "y", "permission": "deny"}'
    )
    report = tmp_path / "r.jsonl"
    result = provision(tmp_path / "rules", report_path=report)
    assert (result["read"], result["written"], result["skipped"], result["rejected"]) == (4, 1, 2, 1)
    assert [row["line"] for row in result["rejected_rows"]] == [3]
    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["id"], row["line"], row["outcome"], Path(row["file"]).name) for row in told] == [
        ("username:alice", 3, "rejected", "1.csv"),
        ("username:alice", 2, "skipped", "1.csv"),
        ("username:alice", 1, "skipped", "2.jsonl"),
    ]
    assert report.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("acl.csv", 'alice,"a/#,deny'),
        ("acl.csv", "alice,a,b,deny"),
        ("acl.csv", "alice,a"),
        ("acl.jsonl", '{"username": "alice", "topic"'),
        ("acl.jsonl", '{"username": "al\\u0069ce", "topic"'),
        ("acl.jsonl", "{username: alice}"),
        ("acl.jsonl", '[{"username": "alice"}]'),
    ],
)
def test_a_row_too_broken_to_tell_its_subject_spoils_whoever_it_may_have_meant(
    broker: Any, tmp_path: Path, name: str, line: str
) -> None:
    good = {
        "acl.csv": ["username,topic,permission", "alice,#,allow", "bob,b,allow"],
        "acl.jsonl": [
            json.dumps({"username": user, "topic": topic, "permission": "allow"})
            for user, topic in (("alice", "#"), ("bob", "b"))
        ],
    }[name]
    (tmp_path / name).write_text("\n".join([*good, line, ""]))
    result = provision(tmp_path / name)
    assert (result["read"], result["written"], result["skipped"], result["rejected"]) == (3, 1, 1, 1)
    assert rules("username:alice") == []
    assert rules("username:bob") == [("b", "allow", "all")]


def test_a_report_tells_what_was_not_done_and_a_dry_run_everything(broker: Any, tmp_path: Path) -> None:
    source = [*ROWS, {"clientid": "dev-1", "topic": "", "permission": "deny"}]
    report = tmp_path / "r.csv"
    assert provision(source, report_path=report)["report_path"] == str(report)
    lines = report.read_text().splitlines()
    assert lines[0] == "id,line,outcome,reason"
    assert lines[1].startswith("clientid:dev-1,5,rejected,")
    assert lines[2:] == ["clientid:dev-1,2,skipped,another row of the same name was rejected"]
    provision(source, report_path=report, dry_run=True)
    assert len(report.read_text().splitlines()) == 1 + len(source)


@pytest.mark.parametrize(("limit", "fails"), [(0, True), ("19%", True), ("20%", False), (1, False)])
def test_more_rejected_rows_than_allowed_fail_the_task(broker: Any, limit: Any, fails: bool) -> None:
    ti = TI()
    arguments = {"source": [*ROWS, "no row"], "max_rejected": limit}
    if fails:
        with pytest.raises(EmqxConfigError, match="1 of 5 rows were rejected, and max_rejected"):
            execute(EmqxProvisionAclOperator, ti, **arguments)
    else:
        execute(EmqxProvisionAclOperator, ti, **arguments)
    assert rules("clientid:dev-1") == [("b", "deny", "all")]


@pytest.mark.parametrize("version", [V5])
def test_rules_of_many_are_written_in_their_order(broker: Any) -> None:
    rows = [
        {"username": f"u{i % 700}", "topic": f"t/{i // 700}", "permission": "allow"} for i in range(2_100)
    ]
    result = provision(iter(rows))
    assert (result["written"], result["subjects"]) == (2_100, 700)
    assert [topic for topic, *_ in rules("username:u699")] == ["t/0", "t/1", "t/2"]


@pytest.mark.parametrize("version", [V5])
def test_what_a_rate_limit_means_is_told(broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    provision(ROWS, rate_limit=2)
    assert (
        "At 2 requests per second, and at least one request per subject, about 3 subjects take 2 s"
        in caplog.text
    )


def test_a_broker_that_fails_leaves_a_summary(broker: Any) -> None:
    ti = TI()
    broker.order_fault("status", status=401, match=lambda method, path: method != "GET", times=99)
    with pytest.raises(EmqxError):
        execute(EmqxProvisionAclOperator, ti, source=ROWS)
    assert (ti.pushed["return_value"]["read"], ti.pushed["return_value"]["written"]) == (4, 0)


# the hook's methods


@pytest.mark.parametrize("version", ["5.8.9"])
def test_the_log_tells_how_far_a_run_is_and_where_it_ended(
    broker: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"username": f"u{i}", "topic": "a", "permission": "allow"} for i in range(200)]
    provision(rows)
    assert "rows read; so far" not in caplog.text
    monkeypatch.setattr(pulse, "EVERY", 0.0)
    provision(rows)
    lines = [message for message in caplog.messages if "200 rows read; so far" in message]
    assert len(lines) > 200
    assert "199 written" in lines[-1]
    assert "Ended early" not in caplog.text
    broker.order_fault("status", status=401, match=lambda method, path: method != "GET", after=100, times=999)
    with pytest.raises(EmqxAuthError):
        provision(rows)
    assert [message for message in caplog.messages if message.startswith("Ended early: 200 rows read; ")]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_source_that_breaks_off_tells_that_nothing_was_done(
    broker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = "".join(f"u{i},a,allow\n" for i in range(100_000))
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(f"username,topic,permission\n{good}".encode())[:-9])
    with pytest.raises(EmqxError):
        provision(tmp_path / "x.csv.gz")
    assert "rows/s: nothing done" in caplog.text
    assert not [request for request in broker.requests if request.method != "GET"]


def test_rules_are_added_before_and_after_those_there_are(broker: Any) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules("clientid:d", [{"topic": "m", "permission": "allow"}])
        hook.add_acl_rules(
            "clientid:d", [{"topic": "a", "permission": "deny"}, {"topic": "b", "permission": "deny"}]
        )
        hook.add_acl_rules("clientid:d", [{"topic": "z", "permission": "allow"}], position="last")
        assert [rule["topic"] for rule in hook.list_acl_rules("clientid:d")] == ["a", "b", "m", "z"]
        hook.add_acl_rules("clientid:d", [{"topic": "m", "permission": "allow"}])
        assert [rule["topic"] for rule in hook.list_acl_rules("clientid:d")] == ["m", "a", "b", "z"]
        assert next(iter(hook.list_acl_subjects("clientid")))["clientid"] == "d"
        assert hook.delete_acl_rules("clientid:d") is True
        assert hook.delete_acl_rules("clientid:d") is False
        assert hook.list_acl_rules("clientid:d") == []


@pytest.mark.parametrize("version", [V4])
def test_of_two_rules_for_one_topic_the_first_counts_where_only_one_can_be_kept(broker: Any) -> None:
    with EmqxHook() as hook:
        wanted = [
            {"topic": "t", "permission": "allow", "action": "publish"},
            {"topic": "t", "permission": "deny", "action": "all"},
        ]
        hook.set_acl_rules("clientid:d", wanted)
        assert rules("clientid:d") == [("t", "allow", "publish"), ("t", "deny", "subscribe")]


@pytest.mark.parametrize("version", [V5])
@pytest.mark.parametrize("call", ["set", "list", "delete"])
def test_a_broker_without_the_source_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, version: str, call: str
) -> None:
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx(version=version, authorization=False) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        with EmqxHook() as hook, pytest.raises(EmqxError, match="Built-in Database"):
            if call == "set":
                hook.set_acl_rules("clientid:d", [{"topic": "t", "permission": "allow"}])
            elif call == "list":
                hook.list_acl_rules("clientid:d")
            else:
                hook.delete_acl_rules("clientid:d")


@pytest.mark.parametrize(
    "subject", ["", "alice", {}, {"user": "a"}, {"username": ".."}, "username:", 7, None, ("username",)]
)
def test_nobody_s_rules_are_changed_if_it_is_not_clear_whose(broker: Any, subject: Any) -> None:
    with EmqxHook() as hook:
        for call in (hook.list_acl_rules, hook.delete_acl_rules):
            with pytest.raises(EmqxConfigError):
                call(subject)
        with pytest.raises(EmqxConfigError):
            hook.set_acl_rules(subject, [{"topic": "a", "permission": "deny"}])
    assert sent(broker) == []


def test_unsupported_rules_are_told_apart_from_wrong_ones(broker: Any) -> None:
    rule = {"topic": "t", "permission": "allow", "retain": True}
    with EmqxHook() as hook:
        if broker.version == V4:
            with pytest.raises(EmqxUnsupportedError):
                hook.set_acl_rules("clientid:d", [rule])
            assert sent(broker) == []
        else:
            hook.set_acl_rules("clientid:d", [rule])
            assert hook.list_acl_rules("clientid:d")[0]["retain"] is True


@pytest.mark.parametrize(
    "row",
    [
        {"topic": "#", "permission": "allow"},
        {"username": "", "topic": "#", "permission": "allow"},
        {"username": "", "clientid": "", "all": "", "topic": "#", "permission": "allow"},
        {"username": "alice", "all": True, "topic": "#", "permission": "allow"},
        {"all": "perhaps", "topic": "#", "permission": "allow"},
    ],
)
@pytest.mark.parametrize("mode", ["set", "delete"])
def test_a_row_that_names_nobody_is_not_for_everybody(broker: Any, row: dict[str, Any], mode: str) -> None:
    with EmqxHook() as hook:
        hook.set_acl_rules("all", [{"topic": "kept", "permission": "deny"}])
    result = provision([row, ROWS[1]], mode=mode)
    assert (result["written"], result["rejected"]) == (1, 1)
    assert rules("all") == [("kept", "deny", "all")]


def test_a_failure_outside_of_a_dag_run_tells_its_reason(broker: Any) -> None:
    with pytest.raises(EmqxConfigError, match="all 1 rows of the source were rejected"):
        EmqxProvisionAclOperator(task_id="t", source=[{"topic": "#", "permission": "allow"}]).execute({})


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
def test_a_file_may_limit_rules_to_some_clients_where_the_broker_can(
    broker: Any, tmp_path: Path, version: str
) -> None:
    path = tmp_path / "acl.csv"
    path.write_text("all,username,topic,permission,ipaddr\ntrue,,#,deny,10.0.0.0/8\n,alice,a,allow,\n")
    summary = EmqxProvisionAclOperator(task_id="x", source=path).execute({})
    can = version == "6.3.0"
    assert (summary["written"], summary["rejected"]) == ((2, 0) if can else (1, 1))
    assert [rule["ipaddr"] for rule in broker.acl_rules("all")] == (["10.0.0.0/8"] if can else [])
    assert [rule["topic"] for rule in broker.acl_rules("username", "alice")] == ["a"]

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxConnectionError
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator

SECRET = "S3cret-of-a-device"
BAD_LINES = [
    f",{SECRET}",
    f".,{SECRET}",
    f"..,{SECRET}",
    "no-password,",
    f"d0,{SECRET}",
    f"too,{SECRET},many",
    SECRET,
    f'"quote,{SECRET}',
]


class TI:
    """Takes the place of a task instance."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = json.loads(json.dumps(value))


def execute(source: Any, ti: TI | None = None, **arguments: Any) -> dict[str, Any]:
    operator = EmqxProvisionUsersOperator(task_id="provision", source=source, **arguments)
    summary = operator.execute({"ti": ti or TI()})  # type: ignore[typeddict-item]
    json.dumps(summary)
    return summary


@pytest.fixture
def bad_file(tmp_path: Path) -> Path:
    """20 good rows, and a bad one of every kind between them."""
    good = [f"d{i},p{i}" for i in range(20)]
    lines = ["user_id,password", *good[:10], *BAD_LINES, *good[10:]]
    path = tmp_path / "devices.csv"
    path.write_bytes("\n".join(lines).encode() + b"\nlatin-\xfc," + SECRET.encode() + b"\n")
    return path


def test_good_rows_beside_bad_ones_are_provisioned_and_the_report_tells_of_the_bad_ones(
    broker: Any, bad_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    report = tmp_path / "report.jsonl"
    summary = execute(bad_file, report_path=str(report))
    assert {
        name: summary[name] for name in ("read", "written", "deleted", "skipped", "rejected", "pruned")
    } == {
        "read": 29,
        "written": 20,
        "deleted": 0,
        "skipped": 0,
        "rejected": 9,
        "pruned": 0,
    }
    assert sorted(broker.users) == sorted(f"d{i}" for i in range(20))
    assert all(broker.verify(f"d{i}", f"p{i}") for i in range(20))
    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert [row["line"] for row in told] == [*range(12, 20), 30]
    assert [row["id"] for row in told] == [
        "",
        ".",
        "..",
        "no-password",
        "d0",
        None,
        None,
        None,
        "latin-\\udcfc",
    ]
    assert all(row["outcome"] == "rejected" and row["reason"] for row in told)
    for text in (report.read_text(), json.dumps(summary), caplog.text):
        assert SECRET not in text
    assert stat.S_IMODE(os.stat(report).st_mode) == 0o600


@pytest.mark.parametrize("with_report", [True, False])
def test_the_rejected_rows_are_in_the_result(
    broker: Any, bad_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, with_report: bool
) -> None:
    summary = execute(str(bad_file), **({"report_path": tmp_path / "rejected.csv"} if with_report else {}))
    assert [row["line"] for row in summary["rejected_rows"]] == [*range(12, 20), 30]
    assert summary["rejected_rows"][3]["id"] == "no-password"
    assert summary["rejected_rows"][3]["reason"] == "password is empty"
    assert SECRET not in caplog.text + json.dumps(summary)


@pytest.mark.parametrize("with_report", [True, False])
def test_why_rows_were_rejected_is_in_log_and_result(
    broker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, with_report: bool
) -> None:
    caplog.set_level("INFO")
    rows = [{"user_id": f"d{number}", "password": "" if number % 2 else "p"} for number in range(20)]
    rows += [{"user_id": "..", "password": "p"}, {"user_id": "d0", "password": "p"}]
    report = {"report_path": str(tmp_path / "rejected.jsonl")} if with_report else {}
    summary = execute(rows, **report)
    assert [(told["count"], told["reason"], told["line"], told["id"]) for told in summary["reasons"]] == [
        (10, "password is empty", 2, "d1"),
        (1, "user_id '..' cannot be used: in a path of the API it means something else", 21, ".."),
        (1, "duplicate: an earlier row has this user_id", 22, "d0"),
    ]
    title, *lines = caplog.messages[-len(summary["reasons"]) - 3 - with_report :]
    assert title.startswith("22 rows read; ")
    assert title.endswith(" rows/s")
    assert lines[0].startswith("       10  written")
    assert lines[1:3] == [
        "       12  rejected",
        "10 rejected: password is empty; for example line 2, id 'd1'",
    ]
    assert lines[5:] == ([f"Report: {report['report_path']}"] if with_report else [])


def test_the_log_says_how_near_the_limits_were(broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for number in range(10):
        broker.add_user(f"d{number}", "p")
    rows = [{"user_id": f"d{number}", "password": "p"} for number in range(8)] + [{"user_id": "bad"}]
    summary = execute(rows, mode="sync", scope="d*", max_rejected="20%", max_deletes=5)
    assert summary["guards"] == [
        {"name": "max_rejected", "count": 1, "allowed": 1, "of": 9, "exceeded": False},
        {"name": "max_deletes", "count": 2, "allowed": 5, "of": 10, "exceeded": False},
    ]
    assert "Limit max_rejected: 1 of 9, 1 allowed" in caplog.messages
    assert "Limit max_deletes: 2 of 10, 5 allowed" in caplog.messages


def test_a_limit_that_ends_the_run_is_in_its_result(broker: Any) -> None:
    for number in range(10):
        broker.add_user(f"d{number}", "p")
    ti, rows = TI(), [{"user_id": "d0", "password": "p"}]
    with pytest.raises(EmqxConfigError, match="the limit is 5"):
        execute(rows, ti, mode="sync", scope="d*", max_deletes=5)
    assert ti.pushed["return_value"]["guards"] == [
        {"name": "max_deletes", "count": 9, "allowed": 5, "of": 10, "exceeded": True}
    ]


def test_reasons_that_differ_from_row_to_row_do_not_grow_without_bound(broker: Any) -> None:
    from airflow_provider_emqx.outcomes import REJECTED
    from airflow_provider_emqx.provisioning.outcomes import Outcome
    from airflow_provider_emqx.provisioning.report import Tally

    tally = Tally()
    tally.add_others([Outcome(number, "x", REJECTED, f"reason {number}") for number in range(5_000)])
    assert len(tally.reasons) <= 1_001
    told = tally.reasons.most_frequent()
    assert (len(told), told[0]["reason"], told[0]["count"]) == (10, "other reasons", 4_000)


def test_listing_and_deleting_have_times_and_a_rate_of_their_own(
    broker: Any, caplog: pytest.LogCaptureFixture, mocker: Any
) -> None:
    caplog.set_level("INFO")
    mocker.patch("airflow_provider_emqx.transport.pulse.EVERY", 0.0)
    for number in range(30):
        broker.add_user(f"gone-{number}", "p")
    summary = execute(
        [{"user_id": "gone-0", "password": "p"}], mode="prune", scope="gone-*", max_deletes="100%"
    )
    assert (summary["pruned"], summary["phases"]["prune"] > 0) == (29, True)
    assert any(
        line.startswith("Deleting users that are not in the source: 29 so far; ") for line in caplog.messages
    )
    assert any(
        line.startswith("       29  pruned: ") and line.endswith(" users/s") for line in caplog.messages
    )
    assert not [line for line in caplog.messages if " 0 rows/s" in line or " 0 users/s" in line]


@pytest.mark.parametrize("mode", ["sync", "prune"])
def test_every_phase_says_how_far_it_is(
    broker: Any, caplog: pytest.LogCaptureFixture, mocker: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    caplog.set_level("INFO")
    mocker.patch("airflow_provider_emqx.transport.pulse.EVERY", 0.0)
    # a word after every two deletions
    mocker.patch("airflow_provider_emqx.provisioning.engine.EVERY", 0.01)
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(rate_limit=200)))
    for number in range(7):
        broker.add_user(f"gone-{number}", "p")
    summary = execute([{"user_id": "gone-0", "password": "p"}], mode=mode, scope="gone-*")
    assert summary["pruned"] == 6
    told = caplog.messages
    assert [line for line in told if line.startswith("Listing: 7 rows so far; ") and line.endswith(" rows/s")]
    assert [line for line in told if line.startswith("1 rows read; so far 1 ")]
    assert "Comparing: 6 users in scope so far are not in the source" in told
    deleting = "Deleting users that are not in the source: "
    assert [line.removeprefix(deleting)[0] for line in told if line.startswith(deleting)] == ["2", "4", "6"]


@pytest.mark.parametrize(
    ("version", "mode"),
    [("4.4.19", "delete"), ("5.8.9", "delete"), ("4.4.19", "upsert"), ("5.3.0", "upsert")],
)
def test_rows_of_a_request_each_are_told_from_the_first_few_seconds_on(
    broker: Any, caplog: pytest.LogCaptureFixture, mocker: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    caplog.set_level("INFO")
    mocker.patch("airflow_provider_emqx.transport.pulse.EVERY", 0.0)
    mocker.patch("airflow_provider_emqx.provisioning.engine.EVERY", 0.01)
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(rate_limit=200)))
    rows = [{"user_id": f"d{number}", "password": "p"} for number in range(12)]
    for row in rows:
        broker.add_user(row["user_id"], "p")
    execute(rows, mode=mode)
    told = [line for line in caplog.messages if "rows read; so far " in line]
    assert "so far 2 " in told[0]


@pytest.mark.parametrize("mode", ["sync", "create", "prune"])
def test_the_rate_of_the_rows_is_that_of_the_rows(
    broker: Any, caplog: pytest.LogCaptureFixture, mode: str, version: str
) -> None:
    for number in range(3):
        broker.add_user(f"d{number}", "p")
    rows = [{"user_id": f"d{number}", "password": "p"} for number in range(700)]
    broker.order_fault("stall", match="limit=10000", after=0, times=1, seconds=1.0)
    summary = execute(rows, mode=mode, **({} if mode == "create" else {"scope": "d*"}))
    phases = summary["phases"]
    if mode == "create" and version == "4.4.19":
        return  # nobody is listed
    assert phases["list"] >= 1.0
    # times are rounded, and the rest of them may be short
    assert summary["rows_per_second"] > 700 / (summary["seconds"] - phases["list"] / 2)
    assert any(line.startswith("Time: ") and "list " in line for line in caplog.messages)


@pytest.mark.parametrize("version", ["5.8.9"])
def test_the_listing_of_create_is_not_told_as_writing(broker: Any) -> None:
    broker.add_user("d0", "p")
    rows = [{"user_id": f"d{number}", "password": "p"} for number in range(8_000)]
    broker.order_fault("stall", match="/users?", after=0, times=1, seconds=0.5)
    summary = execute(rows, mode="create")
    assert summary["skipped"] == 1
    assert summary["phases"]["list"] >= 0.5
    assert summary["phases"]["write"] < summary["seconds"] - 0.4


def test_the_report_of_a_dry_run_is_a_plan(
    broker: Any, bad_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = tmp_path / "would-be.csv"
    execute(str(bad_file), dry_run=True, report_path=report)
    assert len(report.read_text().splitlines()) == 1 + 29
    assert f"Report: {report}" in caplog.messages
    assert "DRY RUN, nothing was written. 29 rows read" in caplog.text


def test_a_second_run_doubles_and_loses_nothing_and_a_changed_row_is_updated(
    broker: Any, tmp_path: Path, version: str
) -> None:
    path = tmp_path / "devices.csv"
    path.write_text("user_id,password\n" + "".join(f"d{i},p{i}\n" for i in range(700)))
    first = execute(path)
    assert first["created"] == 700
    assert set(first["phases"]) == {"read", "hash", "list", "write", "prune"}
    assert first["phases"]["read"] > 0
    assert first["phases"]["write"] > 0
    assert first["chunks"] == {"count": 2, "rows": 500, "most": 500}
    assert first["rows_per_second"] > 0
    second = execute(path)
    assert (second["written"], second["created"], second["updated"]) == (700, 0, 700)
    path.write_text("user_id,password\nd5,new\n")
    execute(path)
    assert len(broker.users) == 700
    assert broker.verify("d5", "new")
    assert broker.verify("d6", "p6")


def test_create_and_delete(broker: Any, tmp_path: Path) -> None:
    execute([{"user_id": "a", "password": "first"}])
    report = tmp_path / "r.csv"
    rows = [{"user_id": "a", "password": "x"}, {"user_id": "b", "password": "y"}]
    summary = execute(rows, mode="create", report_path=report)
    assert (summary["written"], summary["skipped"]) == (1, 1)
    assert "a,1,skipped,exists" in report.read_text()
    assert broker.verify("a", "first")
    assert execute([{"user_id": "a"}, {"user_id": "b"}], mode="delete")["deleted"] == 2
    assert not broker.users


def test_arguments_may_come_from_templates_as_text(broker: Any) -> None:
    rows = [{"user_id": f"d{i}", "password": "p"} for i in range(9)] + [{"user_id": ""}]
    summary = execute(
        rows, dry_run="True", max_rejected="10%", rate_limit="1000", user_id_type="", report_path=""
    )
    assert summary["dry_run"] is True
    assert (summary["written"], summary["rejected"]) == (9, 1)
    assert not broker.users


@pytest.mark.parametrize(
    "arguments",
    [{"on_rejected": "fail"}, {"max_rejected": 8}, {"max_rejected": "10%"}, {"max_rejected": 0.1}],
)
def test_too_many_rejected_rows_fail_the_task_after_the_good_ones_are_done(
    broker: Any, bad_file: Path, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    ti, report = TI(), tmp_path / "report.csv"
    with pytest.raises(EmqxConfigError, match="9 of 29 rows were rejected") as caught:
        execute(bad_file, ti, report_path=report, **arguments)
    assert str(report) in str(caught.value)
    assert len(broker.users) == 20
    assert len(report.read_text().splitlines()) == 10
    assert ti.pushed["return_value"]["rejected"] == 9


def test_a_source_of_which_every_row_is_rejected_fails(broker: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("user_id,password\n,a\nb,\n")
    with pytest.raises(EmqxConfigError, match="all 2 rows of the source were rejected"):
        execute(path, max_rejected="100%")


def test_a_source_without_rows_is_a_warning(
    broker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("user_id,password\n")
    assert execute(path)["read"] == 0
    assert "no rows" in caplog.text


def test_json_that_breaks_in_the_middle_fails_after_the_rows_before_it(broker: Any, tmp_path: Path) -> None:
    path, ti, report = tmp_path / "x.json", TI(), tmp_path / "r.jsonl"
    path.write_text(
        '[{"user_id": "a", "password": "p"},\n{"user_id": "", "password": "p"},\n{"user_id": "b",'
    )
    with pytest.raises(EmqxConfigError, match=r"x.json, line 3: .*\(byte"):
        execute(path, ti, report_path=report)
    assert list(broker.users) == ["a"]
    assert '"line": 2' in report.read_text()
    assert ti.pushed["return_value"]["written"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "/none/x.csv"}, "not found"),
        ({"source": ""}, "source has no value"),
        ({"source": None}, "source has no value"),
        ({"source": 5}, "source must be"),
        ({"source": [], "mode": "replace"}, "mode must be one of"),
        ({"source": [], "on_rejected": "ignore"}, "on_rejected must be"),
        ({"source": [], "max_rejected": "few"}, "max_rejected must be"),
        ({"source": [], "report_path": "r.txt"}, "report_path must end in"),
        ({"source": [], "dry_run": "perhaps"}, "dry_run must be true or false"),
        ({"source": [], "dry_run": ""}, "dry_run has no value"),
        ({"source": [], "max_rejected": ""}, "max_rejected has no value"),
        ({"source": [], "mode": "sync", "scope": "d*", "max_deletes": ""}, "max_deletes has no value"),
        ({"source": [], "mode": "sync", "scope": "d*", "max_deletes": "None"}, "max_deletes has no value"),
        ({"source": [], "dry_run": "None"}, "dry_run has no value"),
        ({"source": [], "rate_limit": "0"}, "rate_limit must be a number above 0"),
        ({"source": [], "columns": {"name": "x"}}, "unknown key 'name'"),
        ({"source": [], "format": "xml"}, "format must be one of"),
    ],
)
def test_bad_arguments_are_refused_before_the_broker_hears_of_it(
    broker: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(EmqxConfigError, match=message):
        execute(**arguments)
    assert not broker.requests


def test_a_wrong_key_and_a_broker_that_is_down_are_one_clear_sentence(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = broker.connection(attempts=1)
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps({**connection, "password": "wrong"}))
    with pytest.raises(EmqxAuthError, match="401") as wrong:
        execute([{"user_id": "a", "password": SECRET}])
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
    broker.stop()
    with pytest.raises(EmqxConnectionError) as down:
        execute([{"user_id": "a", "password": SECRET}])
    for error in (wrong, down):
        assert "\n" not in str(error.value)
        assert SECRET not in str(error.value)


def test_the_constructor_does_no_more_than_keep_its_arguments() -> None:
    operator = EmqxProvisionUsersOperator(
        task_id="x", source="{{ ds }}.csv", mode="{{ m }}", dry_run="{{ d }}"
    )
    assert operator.source == "{{ ds }}.csv"
    assert all(hasattr(operator, name) for name in operator.template_fields)


def test_rows_in_the_dag_are_shown_nowhere() -> None:
    rows = [{"user_id": "a", "key": SECRET}]
    operator = EmqxProvisionUsersOperator(task_id="x", source=rows)
    assert operator.source.serialize() == "(not shown)"
    for text in (
        repr(operator.source),
        str(operator.source),
        repr(operator),
        str(operator.source.serialize()),
    ):
        assert SECRET not in text
    operator.source = "file.csv"
    assert operator.source == "file.csv"


# ---------------------------------------------------------------------- real DAG runs


def rendered(run: Any, task_id: str) -> str:
    """Give what Airflow stored of a task's rendered fields, as its UI shows it, and of the DAG itself."""
    from airflow import settings
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from sqlalchemy import text

    fields = RenderedTaskInstanceFields.get_templated_fields(run.get_task_instance(task_id))
    with settings.Session() as session:
        dags = session.execute(
            text("select data from serialized_dag where dag_id = :d"), {"d": run.dag_id}
        ).all()
    assert fields
    return str(fields) + str(dags)


def test_a_dag_takes_rows_from_templates_xcom_and_files(
    broker: Any, run_dag: Any, bad_file: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    many = [{"user_id": f"x{i}", "key": SECRET} for i in range(300)]
    with DAG(f"provision_{version.replace('.', '_')}") as dag:

        @task
        def devices() -> list[dict[str, str]]:
            return many

        columns = {"password": "key"}
        EmqxProvisionUsersOperator(task_id="file", source=f"{{{{ '{bad_file}' }}}}")
        EmqxProvisionUsersOperator(task_id="xcom", source=devices(), columns=columns)
        EmqxProvisionUsersOperator(
            task_id="inline", source=[{"user_id": "{{ 'i' }}1", "key": SECRET}, *many], columns=columns
        )
        EmqxProvisionUsersOperator.partial(task_id="mapped", columns=columns).expand(
            source=[[{"user_id": "m1", "key": SECRET}], [{"user_id": "m2", "key": SECRET}]]
        )
    run = run_dag(dag)
    assert run.state == "success"
    assert broker.verify("d0", "p0")
    for user_id in ("x0", "x299", "i1", "m1", "m2"):
        assert broker.verify(user_id, SECRET), user_id
    assert len(broker.users) == 20 + 300 + 3
    assert run.get_task_instance("file").xcom_pull(task_ids="file")["rejected"] == 9


def test_airflow_stores_no_password_of_rows(broker: Any, run_dag: Any, version: str) -> None:
    with DAG(f"secrets_{version.replace('.', '_')}") as dag:

        @task
        def devices() -> list[dict[str, str]]:
            return [{"user_id": f"x{i}", "key": SECRET} for i in range(300)]

        EmqxProvisionUsersOperator(task_id="xcom", source=devices(), columns={"password": "key"})
        EmqxProvisionUsersOperator(
            task_id="inline", source=[{"user_id": "a", "key": SECRET}], columns={"password": "key"}
        )
    run = run_dag(dag)
    assert run.state == "success"
    for task_id in ("xcom", "inline"):
        assert SECRET not in rendered(run, task_id)


def test_a_list_that_waits_for_other_tasks_keeps_its_dependencies(broker: Any, run_dag: Any) -> None:
    with DAG(f"waits_{broker.version.replace('.', '_')}", schedule=None) as dag:

        @task
        def password() -> str:
            return SECRET

        operator = EmqxProvisionUsersOperator(
            task_id="x", source=[{"user_id": "a", "password": password()}, {"user_id": "b", "password": "p"}]
        )
    assert operator.upstream_task_ids == {"password"}
    assert repr(operator.source) == "(not shown)"
    assert run_dag(dag).state == "success"
    assert broker.verify("a", SECRET)
    assert broker.verify("b", "p")


def test_the_example_dag(broker: Any, run_dag: Any, tmp_path: Path) -> None:
    from example_dags.provision_users import dag

    source, report = tmp_path / "devices.csv", tmp_path / "rejected.jsonl"
    source.write_text("user_id,password\n" + "".join(f"d{i},p{i}\n" for i in range(40)) + ",nobody\n")
    conf = {"source": str(source), "report_path": str(report)}
    # a parameter left out has, in dag.test(), the value of the run before
    run = run_dag(dag, run_conf={**conf, "mode": "upsert"})
    assert run.state == "success"
    assert len(broker.users) == 40
    assert len(report.read_text().splitlines()) == 1
    told = run.get_task_instance("summarize").xcom_pull(task_ids="summarize")
    assert told == f"41 rows: 40 written, 1 rejected, see {report}"
    run = run_dag(dag, run_conf={**conf, "mode": "delete"})
    assert run.state == "success"
    assert not broker.users


@pytest.mark.parametrize("given", ["['d-root', 'd-x*']", '["d-root", "d-x*"]', ["d-root", "d-x*"]])
def test_lists_may_come_from_templates(broker: Any, given: Any) -> None:
    for user_id in ("d-root", "d-x1", "d-gone", "e-gone", "other"):
        broker.add_user(user_id, "p")
    scope = "['d-*', 'e-*']" if isinstance(given, str) else ["d-*", "e-*"]
    summary = execute([{"user_id": "d-1", "password": "p"}], mode="sync", scope=scope, protect=given)
    assert summary["pruned"] == 2
    assert sorted(broker.users) == ["d-1", "d-root", "d-x1", "other"]


def test_a_template_without_a_value_protects_nobody_and_is_refused(broker: Any) -> None:
    broker.add_user("d-root", "p")
    with pytest.raises(EmqxConfigError, match="protect has no value"):
        execute([{"user_id": "d-1", "password": "p"}], mode="sync", scope="d-*", protect="")
    assert list(broker.users) == ["d-root"]


def test_names_of_columns_may_come_from_a_template(broker: Any) -> None:
    rows = [{"device": "d-1", "key": "p"}]
    assert execute(rows, columns='{"user_id": "device", "password": "key"}')["written"] == 1
    assert execute(rows, columns="{'user_id': 'device', 'password': 'key'}")["written"] == 1
    assert execute([{"user_id": "d-2", "password": "p"}], columns="")["written"] == 1


@pytest.mark.parametrize(
    "given",
    [
        {"delimiter": ";", "strip": True, "rows": None},
        {"delimiter": ";", "strip": "true"},
        '{"delimiter": ";", "strip": true}',
        "{'delimiter': ';', 'strip': 'True'}",
    ],
)
def test_source_options_may_come_from_a_template(broker: Any, tmp_path: Path, given: Any) -> None:
    source = tmp_path / "x.csv"
    source.write_text("user_id;password\nd-1; p\n")
    assert execute(source, source_options=given)["written"] == 1
    assert broker.verify("d-1", "p")
    for literal in ("{{ params.how }}", {"delimiter": "{{ params.mark }}"}):
        operator = EmqxProvisionUsersOperator(task_id="x", source=source, source_options=literal)
        assert "source_options" in operator.template_fields

"""What a type checker sees of a DAG and of an async task of a user's."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator

from airflow_provider_emqx import choices, keywords
from airflow_provider_emqx.conditions.kinds import KINDS
from airflow_provider_emqx.operators.affected import BaseActingOperator, BaseSelectingOperator
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.base import BaseEmqxOperator
from airflow_provider_emqx.operators.planning import BasePlanningOperator
from airflow_provider_emqx.operators.sourced import BaseProvisionOperator, BaseSourceOperator
from airflow_provider_emqx.sensors.base import BaseEmqxSensor, BaseThresholdSensor
from airflow_provider_emqx.sensors.clients import EmqxClientOfflineSensor
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator
from airflow_provider_emqx.triggers.emqx import EmqxEventTrigger

#: a line ends with the error that is expected there, or with the type that is revealed; all others are right
DAG = '''
from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.choices import Template
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxBanOperator, EmqxExportUsersOperator, EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator, EmqxListClientsOperator
from airflow_provider_emqx.operators.cluster import EmqxApiOperator, EmqxSetRuleStateOperator
from airflow_provider_emqx.operators.cluster import EmqxMetricsSnapshotOperator
from airflow_provider_emqx.operators.topics import EmqxPublishOperator, EmqxTopicMetricsOperator
from airflow_provider_emqx.results import KickResult
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.sensors.cluster import EmqxMetricSensor
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator
from airflow_provider_emqx.triggers.emqx import EmqxEventTrigger


@task
def fleet() -> list[str]:
    return ["dev-1"]


def told(context: Any) -> None:
    """A callback."""


with DAG("types", default_args={"retries": 2}) as dag:
    clientids = fleet()
    users = EmqxProvisionUsersOperator(
        task_id="users",
        source="{{ params.source }}",
        mode=Template("{{ params.mode }}"),
        dry_run="{{ params.dry_run }}",
        max_rejected="5%",
        report_path=Path("report.jsonl"),
        shard=(0, 4),
        rate_limit="{{ var.value.rate }}",
        retries=3,
        retry_delay=timedelta(minutes=1),
        on_failure_callback=[told],
        on_success_callback=told,
        pool="emqx",
        outlets=[],
        trigger_rule="all_done",
        dag=dag,
    )
    EmqxProvisionUsersOperator(task_id="a", source=[{"user_id": "a", "password": "b"}], mode="sync", scope="dev-*")
    EmqxProvisionUsersOperator(task_id="b", source=users.output, format="csv", source_options={"delimiter": ";"})
    EmqxProvisionUsersOperator.partial(task_id="c", source="a.csv").expand(shard=[(0, 2), (1, 2)])
    SqlToEmqxUsersOperator(task_id="d", sql="SELECT 1", sql_conn_id="db", mode="create", pool="emqx")
    EmqxKickClientsOperator(task_id="e", clientids=clientids, max_affected=5, exclude=["a*"], rate_limit=10)
    EmqxKickClientsOperator(task_id="f", clientids="{{ params.clientid }}", dry_run=True)
    EmqxPublishOperator(task_id="g", topic="t", payload={"a": 1}, qos="{{ params.qos }}", retain=True)
    EmqxPublishOperator(task_id="h", topic="t", payload="", qos=1)
    EmqxClientOnlineSensor(task_id="i", clientids=clientids, stable_for=timedelta(minutes=1), mode="reschedule")
    EmqxClientOnlineSensor(task_id="j", clientids="a", deferrable=True, poke_interval=5, timeout=60, soft_fail=True)
    EmqxMetricSensor(task_id="k", metric="connections.count", threshold=users.output, comparison="<=", node="n")
    EmqxEventTrigger(event="condition_met", kind="clients_online", parameters={"clientids": ["a"]})

    EmqxProvisionUsersOperator(task_id="l", source="a", mod="sync")  # error: Unexpected keyword argument "mod"
    EmqxProvisionUsersOperator(task_id="m", source="a", mode="synk")  # error: Argument "mode"
    EmqxProvisionUsersOperator(task_id="n", source="a", format="excel")  # error: Argument "format"
    EmqxProvisionUsersOperator(task_id="o", source="a", on_rejected="ignore")  # error: Argument "on_rejected"
    EmqxProvisionUsersOperator(source="a")  # error: Missing named argument "task_id"
    EmqxProvisionUsersOperator(task_id="ah", source="a", source_options={"d": 1})  # error: Argument "source_options"
    EmqxExportUsersOperator(task_id="p", output_path="a.csv", user_id_type="user")  # error: Argument "user_id_type"
    SqlToEmqxUsersOperator(task_id="q", sql="a", sql_conn_id="b", scop="a")  # error: Unexpected keyword argument "scop"
    EmqxBanOperator(task_id="r", kind="client", who="a", duration=60)  # error: Argument "kind"
    EmqxKickClientsOperator(task_id="s", clientids=3)  # error: Argument "clientids"
    EmqxKickClientsOperator(task_id="t", clientids="a", max_afected=5)  # error: Unexpected keyword argument
    EmqxKickClientsOperator(task_id="u", clientids="a", retrys=5)  # error: Unexpected keyword argument "retrys"
    EmqxListClientsOperator(task_id="v", filter={"username": "a"})  # error: Unexpected keyword argument "filter"
    EmqxPublishOperator(task_id="w", topic="t", payload="", qos=7)  # error: Argument "qos"
    EmqxPublishOperator(task_id="x", topic="t", payload="", retries="three")  # error: Argument "retries"
    EmqxTopicMetricsOperator(task_id="y", action="reed")  # error: Argument "action"
    EmqxSetRuleStateOperator(task_id="z", names="r", state="on")  # error: Argument "state"
    EmqxMetricsSnapshotOperator(task_id="aa", sections=["stat"])  # error: List item 0
    EmqxApiOperator(task_id="ab", path="/status", method="GOT")  # error: Argument "method"
    EmqxClientOnlineSensor(task_id="ac", clientids=3)  # error: Argument "clientids"
    EmqxClientOnlineSensor(task_id="ad", clientids="a", mode="push")  # error: Argument "mode"
    EmqxClientOnlineSensor(task_id="ae", clientids="a", deferable=True)  # error: Unexpected keyword argument
    EmqxMetricSensor(task_id="af", metric="a", threshold=1, comparison=">")  # error: Argument "comparison"
    EmqxMetricSensor(task_id="ag", metric="a")  # error: Missing named argument "threshold"
    EmqxEventTrigger(event="client_onlin")  # error: Argument "event"
    EmqxEventTrigger(event="condition_met", kind="clients_onlin")  # error: Argument "kind"


@task
def rows(summary: dict[str, int]) -> None:
    with EmqxHook(user_id_type="clientid") as hook:
        hook.ban("client", "a", "infinity")  # error: Argument 1
        hook.add_acl_rules("all", [], position="top")  # error: Argument "position"
        list(hook.provision_users([], mode="synk"))  # error: Argument "mode"
        reveal_type(hook.get_user("a"))  # type: UserRow | None
        reveal_type(next(hook.list_clients()))  # type: ClientRow
        reveal_type([row.outcome for row in hook.provision_users([], mode="create")])  # type: list[str]


class Kick(EmqxKickClientsOperator):
    def execute(self, context: Any) -> KickResult:
        listed = EmqxListClientsOperator(task_id="list").execute(context)
        reveal_type(listed["rows"])  # type: list[ClientRow]
        result = super().execute(context)
        reveal_type(result["kicked"])  # type: list[str]
        metrics = EmqxTopicMetricsOperator(task_id="m").execute(context)["metrics"]
        reveal_type(metrics)  # type: dict[str, dict[str, float] | None]
        result["kickd"]  # error: TypedDict "KickResult" has no key "kickd"
        summary = EmqxProvisionUsersOperator(task_id="users", source="a.csv").execute(context)
        reveal_type(summary["written"])  # type: int
        reveal_type(summary["rejected_rows"][0]["reason"])  # type: str
        transferred = SqlToEmqxUsersOperator(task_id="sql", sql="SELECT 1", sql_conn_id="db").execute(context)
        reveal_type(transferred["phases"])  # type: dict[str, float]
        summary["limited_by"] == "disk"  # error: Non-overlapping equality check
        published = EmqxPublishOperator(task_id="publish", topic="t", payload="").execute(context)
        reveal_type(published["results"][0]["id"])  # type: str | None
        return result


@task
async def names() -> list[str]:
    hook = EmqxHook()
    user = await hook.arun(hook.api.users.get("dev-1"))
    reveal_type(user)  # type: UserRow | None
    found = []
    async for row in hook.arows(hook.api.users.list()):
        reveal_type(row)  # type: UserRow
        reveal_type(row["user_id"])  # type: str
        row["userid"]  # error: TypedDict "UserRow" has no key "userid"
        found.append(row["user_id"])
    return found
'''


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """What mypy says of the DAG, by line."""
    pytest.importorskip("mypy", reason="needs mypy")
    directory = tmp_path_factory.mktemp("types")
    (directory / "dag.py").write_text(DAG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--hide-error-context", "--no-error-summary",
         "--no-color-output", "--cache-dir", str(directory / "cache"), str(directory / "dag.py")],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    lines: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        found = re.match(r".*dag\.py:(\d+): (?:error|note): (.*)", line)
        assert found, line
        lines.setdefault(int(found[1]), []).append(found[2])
    return lines


def test_mistakes_are_errors_and_what_is_right_is_not(said: dict[int, list[str]]) -> None:
    expected = {
        number: found[1]
        for number, line in enumerate(DAG.split("\n"), 1)
        if (found := re.search(r"  # error: (.*)", line))
    }
    assert len(expected) > 25
    texts = {n: " ".join(said.get(n, ["nothing"])) for n in {*expected, *said}}
    revealed = {n for n, text in texts.items() if "Revealed type is" in text}
    assert {n: text for n, text in texts.items() if n not in expected and n not in revealed} == {}
    assert {n: texts[n] for n, text in expected.items() if text not in texts[n]} == {}


def test_rows_and_results_have_types(said: dict[int, list[str]]) -> None:
    for number, line in enumerate(DAG.split("\n"), 1):
        if found := re.search(r"reveal_type.*  # type: (.*)", line):
            (text,) = said[number]
            revealed = re.search(r'Revealed type is "(.*)"', text)
            assert revealed, text
            assert _short(revealed[1]) == found[1]


def _short(revealed: str) -> str:
    """Return a revealed type without modules and without the fields of a TypedDict."""
    text = re.sub(r"TypedDict\('?([\w.]+)'?, {.*?}\)", r"\1", revealed)
    return re.sub(r"\b[a-z_]\w*(?:\.[a-z_]\w*)*\.(\w+)", r"\1", text)


@pytest.mark.parametrize(
    ("names", "cls"),
    [(keywords.OperatorKeywords, BaseOperator), (keywords.SensorKeywords, BaseSensorOperator)],
)
def test_all_arguments_of_the_installed_airflow_are_allowed(names: type, cls: type) -> None:
    own = {
        name
        for base in cls.__mro__
        for name, parameter in inspect.signature(base.__init__).parameters.items()  # type: ignore[misc]
        if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    assert own - set(names.__annotations__) == set()


@pytest.mark.parametrize(
    ("names", "cls"),
    [
        (keywords.EmqxOperatorKeywords, BaseEmqxOperator),
        (keywords.ActingKeywords, BaseActingOperator),
        (keywords.SelectingKeywords, BaseSelectingOperator),
        (keywords.PlanningKeywords, BasePlanningOperator),
        (keywords.SourceKeywords, BaseSourceOperator),
        (keywords.ProvisionKeywords, BaseProvisionOperator),
        (keywords.UsersKeywords, EmqxProvisionUsersOperator),
        (keywords.EmqxSensorKeywords, BaseEmqxSensor),
        (keywords.ThresholdKeywords, BaseThresholdSensor),
        (keywords.ClientsKeywords, EmqxClientOfflineSensor.__base__),
    ],
)
def test_what_is_handed_on_is_what_the_base_takes(names: Any, cls: Any) -> None:
    airflow = keywords.SensorKeywords if issubclass(cls, BaseSensorOperator) else keywords.OperatorKeywords
    handed = set(names.__annotations__) - set(airflow.__annotations__)
    taken = {
        name
        for base in cls.__mro__
        if base.__module__.startswith("airflow_provider_emqx.")
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    # what a subclass declares itself, or takes in another way
    own = {
        BaseThresholdSensor: {"metric"},
        BaseSourceOperator: {"source"},
        BaseProvisionOperator: {"source", "mode"},
        EmqxProvisionUsersOperator: {"source", *_OF_FILES},
    }
    assert handed == taken - own.get(cls, set())


_OF_FILES = {"format"}


def test_a_transfer_hides_what_is_about_files() -> None:
    assert _OF_FILES.isdisjoint(SqlToEmqxUsersOperator.template_fields)


def test_words_for_type_checkers_are_those_that_are_checked() -> None:
    assert set(get_args(choices.ConditionKind)) == set(KINDS)
    for event in get_args(choices.Event):
        if event != "condition_met":
            assert EmqxEventTrigger(event=event).event == event

"""Every operator runs in a DAG, from templates, and Airflow stores and shows nothing of bodies and payloads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
    EmqxUnbanOperator,
)
from airflow_provider_emqx.operators.clients import (
    EmqxKickClientsOperator,
    EmqxListClientsOperator,
    EmqxSubscribeOperator,
    EmqxUnsubscribeOperator,
)
from airflow_provider_emqx.operators.cluster import (
    EmqxApiOperator,
    EmqxBackupOperator,
    EmqxClearAlarmsOperator,
    EmqxMetricsSnapshotOperator,
    EmqxSetRuleStateOperator,
)
from airflow_provider_emqx.operators.topics import (
    EmqxClearRetainedOperator,
    EmqxListSubscriptionsOperator,
    EmqxPublishOperator,
    EmqxTopicMetricsOperator,
)

SECRET = "S3cret-of-the-body"


def test_every_operator_runs_from_templates(broker: Any, run_dag: Any, tmp_path: Path) -> None:
    broker.connect("dev-1", username="alice")
    broker.connect("dev-2", username="bob")
    broker.add_rule("r1", 'SELECT * FROM "t/#"')
    broker.publish("old/state", b"x", retain=True)
    params = {
        "ids": ["dev-1"],
        "topic": "cmd/x",
        "dir": str(tmp_path),
        "rules": [{"username": "alice", "topic": "a", "permission": "allow"}],
        "secret": SECRET,
    }
    path = "/mqtt/publish" if broker.version.startswith("4") else "/publish"
    with DAG(
        "all",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        params=params,
        render_template_as_native_obj=False,
    ) as dag:
        one = [
            EmqxSubscribeOperator(
                task_id="subscribe", clientids="{{ params.ids }}", topics="{{ params.topic }}"
            ),
            EmqxListSubscriptionsOperator(
                task_id="subscriptions", filters={"receiving": "{{ params.topic }}"}
            ),
            EmqxPublishOperator(
                task_id="publish", topic="{{ params.topic }}", payload="{{ params.secret }}", qos="{{ 1 }}"
            ),
            EmqxApiOperator(
                task_id="request",
                method="POST",
                path=path,
                json={"topic": "{{ params.topic }}", "payload": "{{ params.secret }}", "clientid": "x"},
            ),
            EmqxUnsubscribeOperator(
                task_id="unsubscribe", clientids="{{ params.ids }}", topics=["{{ params.topic }}"]
            ),
            EmqxListClientsOperator(
                task_id="clients",
                filters={"username": "{{ 'bob' }}"},
                output_path="{{ params.dir }}/clients.jsonl",
            ),
            EmqxTopicMetricsOperator(task_id="measure", action="register", topics="{{ params.topic }}"),
            EmqxClearRetainedOperator(task_id="clear", topics="{{ ['old/state'] }}", max_affected="{{ 5 }}"),
            EmqxBanOperator(
                task_id="ban", who="{{ params.ids | tojson }}", duration="{{ 3600 }}", kick="{{ True }}"
            ),
            EmqxUnbanOperator(task_id="unban", by="airflow", dry_run="{{ True }}"),
            EmqxKickClientsOperator(task_id="kick", username_pattern="{{ 'bo' }}*", max_affected="100%"),
            EmqxMetricsSnapshotOperator(
                task_id="figures",
                output_path="{{ params.dir }}/figures.csv",
                metrics="{{ 'stats.live_connections.count' }}",
            ),
            EmqxBackupOperator(task_id="backup", backup_dir="{{ params.dir }}/backups", keep="{{ 2 }}"),
            EmqxClearAlarmsOperator(task_id="alarms", history="{{ True }}"),
            EmqxSetRuleStateOperator(task_id="rule", names="{{ 'r1' }}", state="{{ 'disabled' }}"),
        ]
        for before, after in pairwise(one):
            before >> after
        EmqxProvisionAclOperator(task_id="acl", source=params["rules"])
        EmqxSetRuleStateOperator.partial(task_id="mapped", state="enabled").expand(names=["r1"]) << one[-1]
    run = run_dag(dag)
    states = {ti.task_id: ti.state for ti in run.get_task_instances()}
    assert set(states.values()) == {"success"}, states

    def result(task_id: str) -> Any:
        return run.get_task_instance(task_id).xcom_pull(task_ids=task_id)

    assert [row["clientid"] for row in result("subscriptions")["rows"]] == ["dev-1"]
    assert [message.payload.decode() for message in broker.received("dev-1")] in ([], [SECRET, SECRET])
    assert [row["clientid"] for row in result("clients")["rows"]] == ["dev-2"]
    assert result("measure") == {"topics": {"cmd/x": True}, "metrics": {}}
    assert result("ban")["kicked"] == ["dev-1"]
    assert len(result("unban")["unbanned"]) == 1
    assert result("kick")["kicked"] == ["dev-2"]
    assert result("figures")["stats.live_connections.count"] == 0
    assert result("rule")["r1"]["enable"] is False
    assert not broker.retained
    assert not broker.clients
    assert not _shown(run)


def _shown(run: Any) -> list[str]:
    """Give the tasks whose rendered fields or results hold the secret."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields

    found = []
    for ti in run.get_task_instances():
        stored = [
            RenderedTaskInstanceFields.get_templated_fields(ti),
            ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index),
        ]
        if SECRET in json.dumps(stored, default=str):
            found.append(ti.task_id)
    return found


@pytest.mark.parametrize(
    ("operator_class", "arguments"),
    [
        (EmqxProvisionUsersOperator, {"source": "devices.csv"}),
        (EmqxProvisionAclOperator, {"source": "acl.csv"}),
        (EmqxKickClientsOperator, {"clientids": "dev-1"}),
        (EmqxClearRetainedOperator, {"topics": "t"}),
        (EmqxUnbanOperator, {"reason": "spam"}),
    ],
)
def test_the_parameter_dry_run_leaves_airflows_own_method_alone(
    operator_class: Any, arguments: dict[str, Any]
) -> None:
    operator = operator_class(task_id="task", dry_run="{{ params.dry_run }}", **arguments)
    assert operator.plan_only == "{{ params.dry_run }}"
    assert "plan_only" in operator.template_fields
    # what `airflow tasks test --dry-run` calls; Airflow 3 has no such method any more
    assert callable(getattr(operator, "dry_run", print))

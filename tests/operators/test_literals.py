"""Arguments that cannot be right are refused when the DAG is parsed, unless they are known only when the task runs."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
    EmqxUnbanOperator,
)
from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.operators.cluster import EmqxSetRuleStateOperator
from airflow_provider_emqx.operators.topics import EmqxClearRetainedOperator, EmqxTopicMetricsOperator
from airflow_provider_emqx.sensors.cluster import EmqxClusterHealthSensor, EmqxMetricSensor
from airflow_provider_emqx.sensors.topics import EmqxSubscriptionSensor

USERS = {"source": "devices.csv"}
WRONG: list[tuple[type, dict[str, Any], str]] = [
    (EmqxProvisionUsersOperator, {**USERS, "mode": "synk"}, "mode must be one of"),
    (EmqxProvisionUsersOperator, {**USERS, "mode": "sync"}, "give scope"),
    (EmqxProvisionUsersOperator, {**USERS, "scope": "dev-"}, "are for the modes"),
    (EmqxProvisionUsersOperator, {**USERS, "max_rejected": "many"}, "max_rejected"),
    (EmqxProvisionUsersOperator, {**USERS, "on_rejected": "ignore"}, "on_rejected"),
    (EmqxProvisionUsersOperator, {**USERS, "format": "xml"}, "format must be one of"),
    (EmqxProvisionUsersOperator, {**USERS, "columns": {"name": "x"}}, "unknown key"),
    (EmqxProvisionUsersOperator, {**USERS, "hash_passwords": True}, "need pepper_conn_id"),
    (EmqxProvisionUsersOperator, {**USERS, "strip": "perhaps"}, "strip must be"),
    (EmqxProvisionUsersOperator, {**USERS, "acl_rules": [{"topic": "a"}]}, "permission"),
    (EmqxProvisionAclOperator, {"source": "acl.csv", "mode": "sync"}, "mode must be"),
    (EmqxProvisionAclOperator, {"source": "acl.csv", "max_rejected": "many"}, "max_rejected"),
    (EmqxBanOperator, {"who": "a", "kind": "name", "duration": 1}, "name"),
    (EmqxBanOperator, {"who": "a", "kind": "clientid"}, "until or duration"),
    (EmqxBanOperator, {"who": "a", "kind": "peerhost", "duration": 1, "kick": True}, "kick goes with"),
    (EmqxUnbanOperator, {}, "which bans end"),
    (EmqxUnbanOperator, {"who": "a"}, "who needs kind"),
    (EmqxKickClientsOperator, {}, "who is to be kicked"),
    (EmqxKickClientsOperator, {"clientids": "a", "clientid_like": "b"}, "who is to be kicked"),
    (EmqxClearRetainedOperator, {}, "what is to be deleted"),
    (EmqxClearRetainedOperator, {"topics": "a", "older_than": 5}, "older_than goes with"),
    (EmqxTopicMetricsOperator, {"action": "count"}, "action must be one of"),
    (EmqxTopicMetricsOperator, {"action": "register"}, "needs topics"),
    (EmqxSetRuleStateOperator, {"names": "a", "state": "on"}, "state must be one of"),
    (EmqxSetRuleStateOperator, {"names": "a", "state": "restarted"}, "cannot be restarted"),
    (EmqxClusterHealthSensor, {"nodes": "some"}, "nodes"),
    (EmqxMetricSensor, {"metric": "x", "threshold": "many"}, "threshold"),
    (EmqxSubscriptionSensor, {"topic": "a", "min_subscribers": 0}, "min_subscribers"),
]


@pytest.mark.parametrize(("made", "arguments", "message"), WRONG)
def test_it_is_refused_when_the_dag_is_parsed(made: type, arguments: dict[str, Any], message: str) -> None:
    with DAG("parsed", schedule=None), pytest.raises(EmqxConfigError, match=message):
        made(task_id="task", **arguments)


@pytest.mark.parametrize(
    ("made", "arguments"),
    [
        (EmqxProvisionUsersOperator, {**USERS, "mode": "{{ params.mode }}"}),
        (EmqxProvisionUsersOperator, {**USERS, "mode": "{{ params.mode }}", "scope": "dev-"}),
        (EmqxProvisionUsersOperator, {**USERS, "mode": "sync", "scope": "{{ params.scope }}"}),
        (EmqxProvisionUsersOperator, {**USERS, "hash_passwords": "{{ params.hash }}"}),
        (EmqxProvisionUsersOperator, {**USERS, "acl_rules": [{"topic": "{{ params.topic }}"}]}),
        (EmqxProvisionAclOperator, {"source": "acl.csv", "mode": "{{ params.mode }}"}),
        (EmqxBanOperator, {"who": "a", "kind": "{{ params.kind }}", "duration": 1}),
        (EmqxKickClientsOperator, {"clientids": "{{ params.ids }}"}),
        (EmqxTopicMetricsOperator, {"action": "{{ params.action }}"}),
        (EmqxMetricSensor, {"metric": "x", "threshold": "{{ params.many }}"}),
    ],
)
def test_a_template_is_not_judged(made: type, arguments: dict[str, Any]) -> None:
    with DAG("parsed", schedule=None):
        made(task_id="task", **arguments)


def test_neither_is_the_output_of_another_task() -> None:
    with DAG("parsed", schedule=None):
        other: Any = BaseOperator(task_id="other")
        EmqxProvisionUsersOperator(task_id="users", mode=other.output, source=other.output)
        EmqxKickClientsOperator(task_id="kick", clientids=other.output)
        EmqxProvisionUsersOperator.partial(task_id="mapped", mode="sync", scope="dev-").expand(
            source=other.output
        )

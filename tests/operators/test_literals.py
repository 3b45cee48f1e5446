"""Arguments that cannot be right are refused when the DAG is parsed, unless they are known only when the task runs."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxExportUsersOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
    EmqxUnbanOperator,
)
from airflow_provider_emqx.operators.clients import (
    EmqxKickClientsOperator,
    EmqxListClientsOperator,
    EmqxSubscribeOperator,
)
from airflow_provider_emqx.operators.cluster import (
    EmqxApiOperator,
    EmqxBackupOperator,
    EmqxClearAlarmsOperator,
    EmqxEvacuateNodeOperator,
    EmqxMetricsSnapshotOperator,
    EmqxSetRuleStateOperator,
)
from airflow_provider_emqx.operators.topics import (
    EmqxClearRetainedOperator,
    EmqxListSubscriptionsOperator,
    EmqxPublishOperator,
    EmqxTopicMetricsOperator,
)
from airflow_provider_emqx.sensors.cluster import EmqxClusterHealthSensor, EmqxMetricSensor
from airflow_provider_emqx.sensors.topics import EmqxSubscriptionSensor

USERS = {"source": "devices.csv"}
MESSAGE = {"topic": "a", "payload": "x"}
WRONG: list[tuple[type, dict[str, Any], str]] = [
    (EmqxProvisionUsersOperator, {**USERS, "mode": "synk"}, "mode must be one of"),
    (EmqxProvisionUsersOperator, {**USERS, "mode": "sync"}, "set scope"),
    (EmqxProvisionUsersOperator, {**USERS, "scope": "dev-*"}, "are for the modes"),
    (EmqxProvisionUsersOperator, {**USERS, "max_rejected": "many"}, "max_rejected"),
    (EmqxProvisionUsersOperator, {**USERS, "on_rejected": "ignore"}, "on_rejected"),
    (EmqxProvisionUsersOperator, {**USERS, "format": "xml"}, "format must be one of"),
    (EmqxProvisionUsersOperator, {**USERS, "columns": {"name": "x"}}, "unknown key"),
    (EmqxProvisionUsersOperator, {**USERS, "hash_passwords": True}, "need pepper_conn_id"),
    (EmqxProvisionUsersOperator, {**USERS, "source_options": {"strip": "perhaps"}}, "strip must be"),
    (
        EmqxProvisionUsersOperator,
        {**USERS, "source_options": {"sep": ";"}},
        "unknown source option 'sep'; expected",
    ),
    (EmqxProvisionUsersOperator, {**USERS, "source_options": {"delimiter": 5}}, "'delimiter' must be text"),
    (EmqxProvisionUsersOperator, {**USERS, "source_options": ["strip"]}, "source_options must be a dict"),
    (
        EmqxProvisionAclOperator,
        {"source": "acl.csv", "source_options": {"quoting": "all"}},
        "quoting must be",
    ),
    (EmqxBanOperator, {"source": "b.csv", "source_options": {"delimiter": ";;"}}, "delimiter must be one"),
    (EmqxProvisionUsersOperator, {**USERS, "acl_rules": [{"topic": "a"}]}, "permission"),
    (EmqxProvisionAclOperator, {"source": "acl.csv", "mode": "sync"}, "mode must be"),
    (EmqxProvisionAclOperator, {"source": "acl.csv", "max_rejected": "many"}, "max_rejected"),
    (EmqxBanOperator, {"who": "a", "kind": "name", "duration": 1}, "name"),
    (EmqxBanOperator, {"who": "a", "kind": "clientid"}, "until or duration"),
    (EmqxBanOperator, {"who": "a", "kind": "peerhost", "duration": 1, "kick": True}, "kick goes with"),
    (EmqxUnbanOperator, {}, "which bans end"),
    (EmqxUnbanOperator, {"who": "a"}, "who needs kind"),
    (EmqxKickClientsOperator, {}, "who is to be kicked"),
    (EmqxKickClientsOperator, {"clientids": "a", "clientid_pattern": "b"}, "who is to be kicked"),
    (EmqxClearRetainedOperator, {}, "what is to be deleted"),
    (EmqxClearRetainedOperator, {"topics": "a", "older_than": 5}, "older_than goes with"),
    (EmqxTopicMetricsOperator, {"action": "count"}, "action must be one of"),
    (EmqxTopicMetricsOperator, {"action": "register"}, "needs topics"),
    (EmqxSetRuleStateOperator, {"names": "a", "state": "on"}, "state must be one of"),
    (EmqxSetRuleStateOperator, {"names": "a", "state": "restarted"}, "cannot be restarted"),
    (EmqxPublishOperator, {"topic": "a"}, "either topic and payload, or messages"),
    (EmqxPublishOperator, {**MESSAGE, "messages": []}, "not both"),
    (EmqxPublishOperator, {**MESSAGE, "qos": 3}, "qos must be"),
    (EmqxPublishOperator, {**MESSAGE, "topic": "a/#"}, "wildcard"),
    (EmqxPublishOperator, {**MESSAGE, "retain": "perhaps"}, "retain must be"),
    (EmqxPublishOperator, {**MESSAGE, "properties": {"colour": "red"}}, "property 'colour'"),
    (EmqxPublishOperator, {**MESSAGE, "retry_unsafe": "perhaps"}, "retry_unsafe must be"),
    (EmqxPublishOperator, {"messages": [MESSAGE, {"topic": "a"}]}, "message 2: a message needs a payload"),
    (EmqxPublishOperator, {"messages": "all"}, "messages must be"),
    (
        EmqxPublishOperator,
        {**MESSAGE, "topic": "$delayed/5/a", "require_subscribers": True},
        "require_subscribers does not go",
    ),
    (EmqxBackupOperator, {"backup_dir": ""}, "backup_dir is empty"),
    (EmqxBackupOperator, {"backup_dir": "backups", "keep": 0}, "keep must be"),
    (EmqxBackupOperator, {"backup_dir": "backups", "keep_on_broker": 1.5}, "keep_on_broker must be"),
    (EmqxMetricsSnapshotOperator, {"sections": "state"}, "sections must be"),
    (EmqxMetricsSnapshotOperator, {"sections": []}, "sections must be"),
    (EmqxMetricsSnapshotOperator, {"output_path": "figures.txt"}, r"must end in \.jsonl"),
    (EmqxMetricsSnapshotOperator, {"metrics": [1]}, "metrics must be"),
    (EmqxClearAlarmsOperator, {"history": "perhaps"}, "history must be"),
    (EmqxEvacuateNodeOperator, {"node": ".."}, "cannot be used"),
    (EmqxEvacuateNodeOperator, {"node": "emqx@a", "settings": {"colour": "red"}}, "unknown setting 'colour'"),
    (EmqxEvacuateNodeOperator, {"node": "emqx@a", "timeout": "soon"}, "timeout must be"),
    (EmqxEvacuateNodeOperator, {"node": "emqx@a", "poll_interval": -1}, "poll_interval must be"),
    (EmqxApiOperator, {"path": "clients"}, "must begin with /"),
    (EmqxApiOperator, {"path": "/clients/.."}, "dot segment"),
    (EmqxApiOperator, {"path": "/clients", "method": "FETCH"}, "method must be one of"),
    (EmqxApiOperator, {"path": "/clients", "idempotent": "perhaps"}, "idempotent must be"),
    (EmqxApiOperator, {"path": "/clients", "query": "all"}, "query must be"),
    (EmqxApiOperator, {"path": "/clients", "rate_limit": 0}, "rate_limit must be"),
    (EmqxListClientsOperator, {"filters": "connected"}, "filters must be"),
    (EmqxListSubscriptionsOperator, {"filters": ["connected"]}, "filters must be"),
    (EmqxSubscribeOperator, {"clientids": "", "topics": "a"}, "clientids has no value"),
    (EmqxSubscribeOperator, {"clientids": "..", "topics": "a"}, "cannot be used"),
    (EmqxExportUsersOperator, {"output_path": "users.txt"}, "output_path must end in .jsonl or .csv"),
    (
        EmqxExportUsersOperator,
        {"output_path": "users.csv", "is_superuser": "perhaps"},
        "is_superuser must be",
    ),
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
        (EmqxProvisionUsersOperator, {**USERS, "mode": "{{ params.mode }}", "scope": "dev-*"}),
        (EmqxProvisionUsersOperator, {**USERS, "mode": "sync", "scope": "{{ params.scope }}"}),
        (EmqxProvisionUsersOperator, {**USERS, "hash_passwords": "{{ params.hash }}"}),
        (EmqxProvisionUsersOperator, {**USERS, "acl_rules": [{"topic": "{{ params.topic }}"}]}),
        (EmqxProvisionAclOperator, {"source": "acl.csv", "mode": "{{ params.mode }}"}),
        (EmqxBanOperator, {"who": "a", "kind": "{{ params.kind }}", "duration": 1}),
        (EmqxKickClientsOperator, {"clientids": "{{ params.ids }}"}),
        (EmqxTopicMetricsOperator, {"action": "{{ params.action }}"}),
        (EmqxPublishOperator, {"topic": "{{ params.topic }}", "payload": "x"}),
        (EmqxPublishOperator, {**MESSAGE, "qos": "{{ params.qos }}"}),
        (EmqxPublishOperator, {"messages": "{{ params.messages }}"}),
        (EmqxBackupOperator, {"backup_dir": "{{ params.target }}"}),
        (EmqxBackupOperator, {"backup_dir": "backups", "keep": "{{ params.keep }}"}),
        (EmqxMetricsSnapshotOperator, {"output_path": "{{ params.output }}"}),
        (EmqxEvacuateNodeOperator, {"node": "{{ params.node }}"}),
        (EmqxApiOperator, {"path": "{{ params.path }}", "rate_limit": "{{ params.rate }}"}),
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
        EmqxProvisionUsersOperator.partial(task_id="mapped", mode="sync", scope="dev-*").expand(
            source=other.output
        )
        EmqxPublishOperator(task_id="publish", topic="a", payload=other.output)
        EmqxPublishOperator(task_id="publish_all", messages=other.output)
        EmqxPublishOperator.partial(task_id="publish_each", topic="a").expand(payload=other.output)


def test_what_is_refused_then_shows_no_payload() -> None:
    with DAG("parsed", schedule=None), pytest.raises(EmqxConfigError, match="payload") as caught:
        EmqxPublishOperator(task_id="task", topic="a", payload={1, "a-secret"})
    assert "a-secret" not in str(caught.value)

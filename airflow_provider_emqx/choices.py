"""The words that arguments may be, for type checkers and for the checks when a DAG runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NewType, TypeAlias

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

#: marks a template where one of several words is expected, as in ``mode=Template("{{ params.mode }}")``: a type checker
#: cannot tell it from a word that is misspelt. Without a type checker plain text does.
Template = NewType("Template", str)
#: what is one of the words only when the task runs
Rendered: TypeAlias = "Template | XComArg"

#: what is done with users
UsersMode = Literal["upsert", "create", "delete", "sync", "prune"]
#: how many users are written and deleted at a time
Bulk = Literal["archive"]
#: what is done with ACL rules
AclMode = Literal["set", "delete"]
#: how a source is written
SourceFormat = Literal["csv", "json", "jsonl", "parquet", "emqx4-export", "emqx-archive"]
Quoting = Literal["standard", "none"]
#: how a task ends that has rejected rows
OnRejected = Literal["report", "fail"]
#: which users of EMQX 4 are meant
UserIdType = Literal["username", "clientid"]
#: what is banned; the last three since EMQX 5.6
BanKind = Literal["clientid", "username", "peerhost", "clientid_re", "username_re", "peerhost_net"]
#: where ACL rules are put
Position = Literal["first", "last"]
Comparison = Literal[">=", "<="]
#: quality of service; other text than a digit is a template
Qos = Literal[0, 1, 2] | str
TopicMetricsAction = Literal["register", "read", "reset", "unregister"]
#: figures of a broker
Section = Literal["stats", "metrics", "rates", "topic_metrics"]
#: a rule of the rule engine, or what it is connected to
IntegrationKind = Literal["action", "source", "connector"]
RuleKind = Literal["rule", "action", "source", "connector"]
RuleState = Literal["enabled", "disabled", "restarted"]
Method = Literal["GET", "POST", "PUT", "DELETE", "PATCH"]
#: messages that wait for a client: not sent yet, or not acknowledged
QueueKind = Literal["mqueue", "inflight"]
#: how payloads are returned
PayloadEncoding = Literal["none", "base64", "plain"]
#: what a watcher of an asset waits for
Event = Literal["client_online", "client_offline", "alarm_activated", "condition_met"]
#: what a watcher or a deferred sensor waits for
ConditionKind = Literal[
    "clients_online",
    "clients_offline",
    "topic_subscribed",
    "topic_metric",
    "message_retained",
    "cluster_healthy",
    "cluster_metric",
    "rule_healthy",
    "node_evacuated",
]

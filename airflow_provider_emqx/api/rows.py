"""
Rows of the API that users get, with the field names of EMQX 5.

Every row may have more fields than are listed here, depending on the version; what an older broker lacks is ``None`` or
missing.
"""

from __future__ import annotations

from typing import Any, TypedDict


class AuthenticatorRow(TypedDict, total=False):
    """A way in which clients can log in; secrets are masked by the broker."""

    id: str
    mechanism: str
    backend: str
    enable: bool
    user_id_type: str
    password_hash_algorithm: dict[str, Any]


class UserRow(TypedDict, total=False):
    """A user of the built-in database; ``is_superuser`` is ``None`` on EMQX 4, ``created_at`` is of EMQX 4 only."""

    user_id: str
    is_superuser: bool | None
    created_at: str | None


class AclRuleRow(TypedDict, total=False):
    """An ACL rule; the fields after ``retain`` limit it to some clients, on EMQX 5.9 and newer."""

    topic: str
    permission: str
    action: str
    qos: list[int]
    retain: str | bool
    username_re: str
    clientid_re: str
    ipaddr: str
    zone: str
    zone_re: str
    listener: str
    listener_re: str


class AclSubjectRow(TypedDict, total=False):
    """Whoever has ACL rules, ``username`` or ``clientid``, with the rules."""

    username: str
    clientid: str
    rules: list[AclRuleRow]


#: the field ``as`` is a word of Python
BanRow = TypedDict(
    "BanRow",
    {"as": str, "who": str, "by": str | None, "reason": str | None, "at": str | None, "until": str | None},
    total=False,
)


class ClientRow(TypedDict, total=False):
    """An MQTT client, connected or a kept session; times are RFC 3339."""

    clientid: str
    username: str | None
    connected: bool
    connected_at: str | None
    disconnected_at: str | None
    created_at: str | None
    ip_address: str
    port: int
    node: str
    clean_start: bool
    expiry_interval: int
    keepalive: int
    proto_name: str
    proto_ver: int
    mqueue_len: int
    mqueue_dropped: int
    subscriptions_cnt: int
    client_attrs: dict[str, str] | None
    durable: bool | None
    listener: str | None


class SubscriptionRow(TypedDict, total=False):
    """A subscription."""

    clientid: str
    topic: str
    qos: int
    nl: int | None
    rap: int | None
    rh: int | None
    node: str
    durable: bool | None


class RouteRow(TypedDict, total=False):
    """A subscribed topic filter, on a node."""

    topic: str
    node: str | None
    session: str


class TopicMetricsRow(TypedDict):
    """Metrics of a measured topic, as ``{"messages.in.count": 3, …}``."""

    topic: str
    create_time: str | None
    reset_time: str | None
    metrics: dict[str, float]


class MessageRow(TypedDict, total=False):
    """A retained or delayed message; ``payload`` is base64, and missing in listings."""

    topic: str
    msgid: str
    qos: int
    payload: str
    publish_at: str
    expected_at: str
    delayed_interval: int
    from_clientid: str
    from_username: str | None
    node: str


class PublishedRow(TypedDict):
    """The outcome of a published message: see :func:`~airflow_provider_emqx.api.messages.published`."""

    topic: str
    status: str
    id: str | None
    reason: str | None


class NodeRow(TypedDict, total=False):
    """A node of the cluster; ``uptime`` is in milliseconds."""

    node: str
    node_status: str | None
    version: str | None
    uptime: int | None
    connections: int | None
    live_connections: int | None


class AlarmRow(TypedDict, total=False):
    """An alarm; ``duration`` is in milliseconds."""

    node: str
    name: str
    message: str
    details: Any
    duration: int | None
    activate_at: str | None
    deactivate_at: str | None


class ListenerRow(TypedDict, total=False):
    """A listener, with its state summed over the nodes and of each node."""

    id: str | None
    type: str
    name: str | None
    bind: str
    enable: bool
    acceptors: int
    status: dict[str, Any]
    node_status: list[dict[str, Any]]


class BackupRow(TypedDict):
    """A backup on a node's disk; ``size`` is in bytes."""

    filename: str
    node: str
    size: int
    created_at: str | None


# the classes of operations have a method ``list``, which hides the type of this name in their annotations
AclRuleRows = list[AclRuleRow]
AuthenticatorRows = list[AuthenticatorRow]
ListenerRows = list[ListenerRow]
NodeRows = list[NodeRow]
PublishedRows = list[PublishedRow]
SubscriptionRows = list[SubscriptionRow]
TopicMetricsRows = list[TopicMetricsRow]

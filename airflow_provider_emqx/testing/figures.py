"""Counters and gauges: what each generation shows under which name, and what they come to."""

from __future__ import annotations

from collections import Counter

from airflow_provider_emqx.testing.state import State

_BOTH = (
    "bytes.received",
    "bytes.sent",
    "client.authenticate",
    "client.connack",
    "client.connect",
    "client.connected",
    "client.disconnected",
    "client.subscribe",
    "client.unsubscribe",
    "delivery.dropped",
    "delivery.dropped.expired",
    "delivery.dropped.no_local",
    "delivery.dropped.qos0_msg",
    "delivery.dropped.queue_full",
    "delivery.dropped.too_large",
    "messages.acked",
    "messages.delayed",
    "messages.delivered",
    "messages.dropped",
    "messages.dropped.await_pubrel_timeout",
    "messages.dropped.no_subscribers",
    "messages.forward",
    "messages.publish",
    "messages.qos0.received",
    "messages.qos0.sent",
    "messages.qos1.received",
    "messages.qos1.sent",
    "messages.qos2.received",
    "messages.qos2.sent",
    "messages.received",
    "messages.sent",
    "packets.auth.received",
    "packets.auth.sent",
    "packets.connack.auth_error",
    "packets.connack.error",
    "packets.connack.sent",
    "packets.connect.received",
    "packets.disconnect.received",
    "packets.disconnect.sent",
    "packets.pingreq.received",
    "packets.pingresp.sent",
    "packets.puback.inuse",
    "packets.puback.missed",
    "packets.puback.received",
    "packets.puback.sent",
    "packets.pubcomp.inuse",
    "packets.pubcomp.missed",
    "packets.pubcomp.received",
    "packets.pubcomp.sent",
    "packets.publish.auth_error",
    "packets.publish.dropped",
    "packets.publish.error",
    "packets.publish.inuse",
    "packets.publish.received",
    "packets.publish.sent",
    "packets.pubrec.inuse",
    "packets.pubrec.missed",
    "packets.pubrec.received",
    "packets.pubrec.sent",
    "packets.pubrel.missed",
    "packets.pubrel.received",
    "packets.pubrel.sent",
    "packets.received",
    "packets.sent",
    "packets.suback.sent",
    "packets.subscribe.auth_error",
    "packets.subscribe.error",
    "packets.subscribe.received",
    "packets.unsuback.sent",
    "packets.unsubscribe.error",
    "packets.unsubscribe.received",
    "session.created",
    "session.discarded",
    "session.resumed",
    "session.terminated",
)
#: Counters of API v4.
METRICS_V4 = (
    *_BOTH,
    "client.acl.allow",
    "client.acl.cache_hit",
    "client.acl.deny",
    "client.auth.failure",
    "client.auth.success",
    "client.auth.success.anonymous",
    "client.check_acl",
    "messages.retained",
    "session.takeovered",
)
#: Counters of API v5.
METRICS_V5 = (
    *_BOTH,
    "authentication.failure",
    "authentication.success",
    "authentication.success.anonymous",
    "authorization.allow",
    "authorization.cache_hit",
    "authorization.cache_miss",
    "authorization.deny",
    "authorization.matched.allow",
    "authorization.matched.deny",
    "authorization.nomatch",
    "authorization.superuser",
    "client.auth.anonymous",
    "client.authorize",
    "messages.persisted",
    "messages.transformation_failed",
    "messages.transformation_succeeded",
    "messages.validation_failed",
    "messages.validation_succeeded",
    "overload_protection.delay.ok",
    "overload_protection.delay.timeout",
    "overload_protection.gc",
    "overload_protection.hibernation",
    "overload_protection.new_conn",
    "session.takenover",
)
#: Counters of API v5 that the recorded 6.3 has besides; it lacks ``packets.publish.dropped``.
METRICS_SINCE_6_3 = (
    "actions.executed",
    "actions.messages",
    "client.post_authn",
    "delivery.dropped.filter",
    "messages.dropped.quota_exceeded",
    "messages.dropped.receive_maximum",
    "messages.retained",
    "packets.publish.quota_exceeded",
    "rules.matched",
    "session.disconnected",
)
#: Gauges of API v4; each is shown as ``.count`` and ``.max``.
STATS_V4 = (
    "channels",
    "connections",
    "delayed",
    "live_connections",
    "retained",
    "routes",
    "sessions",
    "suboptions",
    "subscribers",
    "subscriptions",
    "subscriptions.shared",
    "topics",
)
#: Gauges of API v5.
STATS_V5 = (
    "channels",
    "cluster_sessions",
    "connections",
    "delayed",
    "live_connections",
    "retained",
    "sessions",
    "suboptions",
    "subscribers",
    "subscriptions",
    "subscriptions.shared",
    "topics",
)


def count_on(state: State, node: str | None) -> Counter[str]:
    """Count what the stats show, on one node or (``None``) in the cluster."""
    mqtt = state.mqtt
    counts: Counter[str] = Counter()
    shared = 0
    for client in mqtt.clients.values():
        if node is None or client.node == node:
            counts["sessions"] += 1
            counts["live_connections"] += client.connected
            counts["subscriptions"] += len(client.subscriptions)
            counts["subscribers"] += bool(client.subscriptions)
            shared += sum(topic.startswith("$share/") for topic in client.subscriptions)
    counts["connections"] = counts["channels"] = counts["sessions"]
    counts["suboptions"] = counts["subscriptions"]
    counts["subscriptions.shared"] = shared
    counts["cluster_sessions"] = len(mqtt.clients)
    counts["topics"] = counts["routes"] = len({route[:2] for route in mqtt.routes()})
    counts["retained"] = len(mqtt.retained)
    counts["delayed"] = len(mqtt.delayed)
    return counts


def stats_row(counts: Counter[str], names: tuple[str, ...]) -> dict[str, int]:
    """Return gauges as both generations show them."""
    return {f"{name}.{kind}": counts[name] for name in names for kind in ("count", "max")}

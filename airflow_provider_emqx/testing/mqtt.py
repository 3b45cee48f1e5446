"""The MQTT side of the double: sessions, subscriptions, delivery, retained and delayed messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_emqx.testing.tables import Table

MQUEUE_MAX = 1000
#: Session expiry of an MQTT 3.1.1 client that asked to keep its session (EMQX's default, seconds).
V311_EXPIRY = 7200
#: Session expiry that never comes.
FOREVER = 0xFFFFFFFF


def matches(topic: str, topic_filter: str) -> bool:
    """Tell whether a topic (or, as EMQX's listings use it, a subscribed filter) is matched by a filter."""
    if topic == topic_filter:
        return True
    if topic.startswith("$") and topic_filter[:1] in {"+", "#"}:
        return False
    words, pattern = topic.split("/"), topic_filter.split("/")
    for position, word in enumerate(pattern):
        if word == "#":
            return True
        if position >= len(words) or word not in {"+", words[position]}:
            return False
    return len(words) == len(pattern)


def has_wildcard(topic: str) -> bool:
    """Tell whether a text is a filter rather than a topic name."""
    return any(word in {"+", "#"} for word in topic.split("/"))


def valid_topic_name(topic: str) -> bool:
    """Tell whether one can publish to this topic."""
    return 0 < len(topic.encode("utf-8", "surrogateescape")) <= 65535 and not (
        set(topic) & {"+", "#"} or "\x00" in topic
    )


def valid_topic_filter(topic: str) -> bool:
    """Tell whether one can subscribe to this filter."""
    _, topic = parse_filter(topic)
    words = topic.split("/")
    return (
        bool(topic)
        and all(word in {"+", "#"} or not set(word) & {"+", "#"} for word in words)
        and "#" not in words[:-1]
    )


def parse_filter(topic_filter: str) -> tuple[str | None, str]:
    """Split a shared subscription into ``(group, filter)``; the group of a plain filter is ``None``."""
    if topic_filter.startswith("$share/"):
        _, group, rest = [*topic_filter.split("/", 2), "", ""][:3]
        return group, rest
    if topic_filter.startswith("$queue/"):
        return "$queue", topic_filter[len("$queue/") :]
    return None, topic_filter


def join_filter(group: str | None, topic: str) -> str:
    """Write a subscription as :func:`parse_filter` reads it."""
    if group is None:
        return topic
    return f"$queue/{topic}" if group == "$queue" else f"$share/{group}/{topic}"


@dataclass(slots=True)
class Message:
    """One application message.

    :param topic: Topic name.
    :param payload: Payload, decoded.
    :param qos: Quality of service.
    :param retain: Retain flag as the receiver sees it.
    :param properties: MQTT 5 properties, as they were given to the API.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: dict[str, Any] = field(default_factory=dict)
    msgid: str = ""
    at: float = 0.0
    from_clientid: str = "http_api"
    from_username: str = ""


@dataclass(slots=True)
class Subscription:
    """One subscription of one client."""

    topic: str
    qos: int = 0
    nl: int = 0
    rap: int = 0
    rh: int = 0


@dataclass(slots=True)
class Client:
    """One client or session that the broker knows."""

    clientid: str
    username: str | None
    node: str
    created_at: float
    connected_at: float
    proto_ver: int = 5
    clean_start: bool = True
    expiry: int = 0
    keepalive: int = 60
    ip_address: str = "127.0.0.1"
    port: int = 50000
    zone: str = "external"
    connected: bool = True
    disconnected_at: float | None = None
    reconnects: bool = False
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    mqueue: list[Message] = field(default_factory=list)
    mqueue_dropped: int = 0
    received: int = 0
    acl_cache: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lifetime(self) -> int:
        """For how many seconds the session outlives its connection."""
        if self.proto_ver < 5:
            return 0 if self.clean_start else self.expiry or V311_EXPIRY
        return self.expiry


class Sessions:
    """All clients of the cluster and what they exchange.

    :param now: The broker's clock.
    :param schedule: Calls a function after so many seconds of that clock.
    """

    def __init__(
        self, now: Callable[[], float], schedule: Callable[[float, Callable[[], object]], None]
    ) -> None:
        self._now = now
        self._schedule = schedule
        self.clients: Table[Client] = Table()
        self.inboxes: dict[str, list[Message]] = {}
        self.retained: Table[Message] = Table()
        #: how many messages are retained, or cleared, in one second at most; the others are only delivered
        self.retained_per_second: int | None = None
        self._retained_in = (0, 0)  # a second, and how many messages it has had
        self.delayed: dict[str, tuple[float, Message]] = {}
        self.metrics: Counter[str] = Counter()
        self.topic_metrics: dict[str, TopicMetrics] = {}
        self.shared_turn: Counter[tuple[str, str]] = Counter()
        self.delays = True  # else ``$delayed/`` topics are topics like any other
        self.max_delayed = 0
        self._by_topic: dict[str, dict[str, dict[str, Subscription]]] = {}  # topic -> as subscribed -> client
        self._by_filter: dict[str, dict[str, dict[str, Subscription]]] = {}
        self._sequence = 0

    # clients

    def connect(self, client: Client) -> None:
        """Let a client in: a session that it left behind is resumed or ended."""
        old = self.clients.get(client.clientid)
        if old is not None:
            if client.clean_start:
                self.remove(old.clientid)
            else:
                client.subscriptions = old.subscriptions
                client.created_at = old.created_at
                client.mqueue_dropped = old.mqueue_dropped
                pending, old.mqueue = old.mqueue, []
                self.clients[client.clientid] = client
                self.inboxes.setdefault(client.clientid, []).extend(pending)
                self.metrics["session.resumed"] += 1
                return
        self.clients[client.clientid] = client
        self.metrics["session.created"] += 1

    def disconnect(self, clientid: str, keep: bool = True) -> bool:
        """Close a client's connection; its session stays if it asked for that.

        :return: ``False`` when it was not connected.
        """
        client = self.clients.get(clientid)
        if client is None or not client.connected:
            return False
        self.metrics["client.disconnected"] += 1
        lifetime = client.lifetime
        if keep and lifetime > 0:
            client.connected = False
            client.disconnected_at = self._now()
            if lifetime != FOREVER:
                self._schedule(lifetime, lambda: self._expire(client))
        else:
            self.remove(clientid)
            self.metrics["session.terminated"] += 1
        return True

    def remove(self, clientid: str) -> Client | None:
        """End a session with all that belongs to it."""
        client: Client | None = self.clients.pop(clientid, None)
        if client is not None:
            for topic in list(client.subscriptions):
                self._unroute(client, topic)
        return client

    def online(self) -> list[Client]:
        """Return the clients that are connected."""
        return [client for client in self.clients.values() if client.connected]

    # subscriptions

    def subscribe(self, client: Client, subscription: Subscription) -> None:
        """Subscribe; retained messages that match are delivered."""
        is_new = subscription.topic not in client.subscriptions
        client.subscriptions[subscription.topic] = subscription
        group, topic = parse_filter(subscription.topic)
        index = self._by_filter if has_wildcard(topic) else self._by_topic
        index.setdefault(topic, {}).setdefault(subscription.topic, {})[client.clientid] = subscription
        if group is None and (subscription.rh == 0 or (subscription.rh == 1 and is_new)):
            found = (
                [message for message in self.retained.values() if matches(message.topic, topic)]
                if has_wildcard(topic)
                else [message for message in [self.retained.get(topic)] if message]
            )
            for message in found:
                self._hand_over(client, subscription, message, retain=True)

    def unsubscribe(self, client: Client, topic: str) -> bool:
        """Unsubscribe; ``False`` when there was no such subscription."""
        if topic not in client.subscriptions:
            return False
        self._unroute(client, topic)
        del client.subscriptions[topic]
        return True

    def _unroute(self, client: Client, as_subscribed: str) -> None:
        _, topic = parse_filter(as_subscribed)
        index = self._by_filter if has_wildcard(topic) else self._by_topic
        group = index.get(topic, {})
        members = group.get(as_subscribed, {})
        members.pop(client.clientid, None)
        if not members:
            group.pop(as_subscribed, None)
        if not group:
            index.pop(topic, None)

    def routes(self) -> list[tuple[str | None, str, str]]:
        """Return group (``None``: not shared), filter and node of every route, in order of filters."""
        found = {
            (parse_filter(as_subscribed)[0], topic, self.clients[clientid].node)
            for index in (self._by_topic, self._by_filter)
            for topic, groups in index.items()
            for as_subscribed, members in groups.items()
            for clientid in members
        }
        return sorted(found, key=lambda route: (route[1], route[0] or "", route[2]))

    def subscriptions(self) -> Iterator[tuple[Client, Subscription]]:
        """Return every subscription, in ascending order of client ids."""
        for clientid in reversed(self.clients.descending()):
            client = self.clients[clientid]
            for topic in sorted(client.subscriptions):
                yield client, client.subscriptions[topic]

    # messages

    def next_id(self) -> str:
        """Return a message id of the form that EMQX prints: 32 hexadecimal digits."""
        self._sequence += 1
        return f"{int(self._now() * 1_000_000):016X}F443{self._sequence & 0xFFFFFFFFFFFF:012X}"

    def publish(self, message: Message) -> int:
        """Route a message.

        :return: To how many subscriptions it went; -1 when it was stored for later (``$delayed/``).
        """
        message.msgid = message.msgid or self.next_id()
        message.at = self._now()
        self.metrics["messages.publish"] += 1
        self.metrics["messages.received"] += 1
        self.metrics[f"messages.qos{message.qos}.received"] += 1
        if self.delays and message.topic.startswith("$delayed/"):
            _, seconds, topic = [*message.topic.split("/", 2), ""][:3]
            if seconds.isdecimal() and topic:
                later = replace(message, topic=topic)
                self.delayed[message.msgid] = (self._now() + int(seconds), later)
                msgid = message.msgid
                self._schedule(int(seconds), lambda: self._release(msgid))
                self.metrics["messages.delayed"] += 1
                return -1
        if message.retain and self._may_retain():
            if message.payload:
                self.retained[message.topic] = replace(message)
                self.metrics["messages.retained"] += 1
            else:
                self.retained.pop(message.topic, None)
        delivered = self._route(message)
        measured = self.topic_metrics.get(message.topic)
        if measured is not None:
            measured.count("in", message.qos)
            if not delivered:
                measured.counts["messages.dropped.count"] += 1
        if not delivered:
            self.metrics["messages.dropped"] += 1
            self.metrics["messages.dropped.no_subscribers"] += 1
        return delivered

    def _may_retain(self) -> bool:
        """Take one of the second's places in the retainer."""
        second = int(self._now())
        count = self._retained_in[1] if self._retained_in[0] == second else 0
        if self.retained_per_second is not None and count >= self.retained_per_second:
            return False
        self._retained_in = (second, count + 1)
        return True

    def _route(self, message: Message) -> int:
        groups = dict(self._by_topic.get(message.topic, {}))
        for topic_filter, found in self._by_filter.items():
            if matches(message.topic, topic_filter):
                groups.update(found)
        delivered = 0
        for as_subscribed, members in groups.items():
            targets = list(members.items())
            if as_subscribed.startswith(("$share/", "$queue/")) and targets:
                online = [pair for pair in targets if self.clients[pair[0]].connected] or targets
                turn = self.shared_turn[as_subscribed, message.topic]
                self.shared_turn[as_subscribed, message.topic] += 1
                targets = [online[turn % len(online)]]
            for clientid, subscription in targets:
                if subscription.nl and clientid == message.from_clientid:
                    continue
                retain = message.retain and bool(subscription.rap)
                self._hand_over(self.clients[clientid], subscription, message, retain)
                delivered += 1
        return delivered

    def _hand_over(self, client: Client, subscription: Subscription, message: Message, retain: bool) -> None:
        qos = min(message.qos, subscription.qos)
        copy = replace(message, qos=qos, retain=retain)
        if client.connected:
            self.inboxes.setdefault(client.clientid, []).append(copy)
            client.received += 1
            self.metrics["messages.delivered"] += 1
            self.metrics["messages.sent"] += 1
            self.metrics[f"messages.qos{qos}.sent"] += 1
            measured = self.topic_metrics.get(message.topic)
            if measured is not None:
                measured.count("out", qos)
            return
        client.mqueue.append(copy)
        if len(client.mqueue) > MQUEUE_MAX:
            del client.mqueue[0]
            client.mqueue_dropped += 1
            self.metrics["delivery.dropped"] += 1
            self.metrics["delivery.dropped.queue_full"] += 1

    def _release(self, msgid: str) -> None:
        """Publish a delayed message, unless it was deleted meanwhile."""
        entry = self.delayed.pop(msgid, None)
        if entry is not None:
            self.publish(entry[1])

    def _expire(self, client: Client) -> None:
        """End a session whose client stayed away too long."""
        if self.clients.get(client.clientid) is client and not client.connected:
            self.remove(client.clientid)


#: Topics that can be registered for metrics.
MAX_TOPIC_METRICS = 512
TOPIC_METRICS = tuple(
    f"messages.{kind}"
    for kind in ("in", "out", "dropped", *(f"qos{qos}.{way}" for qos in range(3) for way in ("in", "out")))
)


class TopicMetrics:
    """Counters of one registered topic.

    :param now: Time of registration, seconds since the epoch.
    """

    __slots__ = ("counts", "create_time")

    def __init__(self, now: float) -> None:
        self.create_time = now
        self.counts: Counter[str] = Counter()

    def count(self, way: str, qos: int) -> None:
        """Count a message that came in or went out."""
        self.counts[f"messages.{way}.count"] += 1
        self.counts[f"messages.qos{qos}.{way}.count"] += 1

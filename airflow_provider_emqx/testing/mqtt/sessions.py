"""The MQTT side of the double: sessions, subscriptions, delivery, retained and delayed messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from airflow_provider_emqx.testing.mqtt.packets import Reason
from airflow_provider_emqx.testing.mqtt.topics import has_wildcard, matches, parse_filter
from airflow_provider_emqx.testing.tables import Table

MQUEUE_MAX = 1000
#: Session expiry of an MQTT 3.1.1 client that asked to keep its session (EMQX's default, seconds).
V311_EXPIRY = 7200
#: Session expiry that never comes.
FOREVER = 0xFFFFFFFF


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
    identifier: int | None = None


class Link(Protocol):
    """The connection of a client that is there over a socket. Both methods may be called from any thread."""

    def wake(self) -> None:
        """Send what waits in the client's queue."""

    def close(self, reason: Reason) -> None:
        """End the connection."""


@dataclass(slots=True)
class Will:
    """The message that a client leaves for when its connection ends without DISCONNECT."""

    message: Message
    delay: int = 0


@dataclass(slots=True)
class Sent:
    """A message on its way to a client over a socket; ``released`` once PUBREC has come, with QoS 2."""

    message: Message
    released: bool = False


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
    on_message: Callable[[Message], object] | None = None
    link: Link | None = None
    will: Will | None = None
    inflight: dict[int, Sent] = field(default_factory=dict)
    awaiting_rel: set[int] = field(default_factory=set)
    last_packet_id: int = 0

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
        #: makes the message of a client that has come (``None``) or gone (why); without it none is published
        self.announcement: Callable[[Client, str | None], Message] | None = None
        self.max_delayed = 0
        self._by_topic: dict[str, dict[str, dict[str, Subscription]]] = {}  # topic -> as subscribed -> client
        self._by_filter: dict[str, dict[str, dict[str, Subscription]]] = {}
        self._of_system: set[str] = set()  # filters that somebody hears the broker itself by
        self._sequence = 0

    # clients

    def connect(self, client: Client) -> None:
        """Accept a client: its former session is resumed or ended."""
        old = self.clients.get(client.clientid)
        if old is not None:
            if client.clean_start:
                self.remove(old.clientid, Reason.SESSION_TAKEN_OVER, why="discarded")
            else:
                if old.connected:
                    self._announce(old, "takenover")
                if old.link is not None:
                    old.link.close(Reason.SESSION_TAKEN_OVER)
                client.subscriptions = old.subscriptions
                client.created_at = old.created_at
                client.mqueue_dropped = old.mqueue_dropped
                client.inflight, client.awaiting_rel = old.inflight, old.awaiting_rel
                client.last_packet_id = old.last_packet_id
                pending, old.mqueue = old.mqueue, []
                self.clients[client.clientid] = client
                if client.link is not None:
                    client.mqueue = pending
                else:
                    self.inboxes.setdefault(client.clientid, []).extend(pending)
                self.metrics["session.resumed"] += 1
                self._announce(client)
                return
        self.clients[client.clientid] = client
        self.metrics["session.created"] += 1
        self._announce(client)

    def _announce(self, client: Client, why: str | None = None) -> None:
        # most of the time nobody listens to what the broker says of itself
        if self.announcement is not None and self._of_system:
            # it counts in no metric
            self._route(self.announcement(client, why))

    def disconnect(
        self, clientid: str, reason: Reason = Reason.ADMINISTRATIVE_ACTION, why: str = "normal"
    ) -> bool:
        """Close a client's connection; its session stays if it asked for that.

        :param why: What the broker says of it.
        :return: ``False`` when it was not connected.
        """
        client = self.clients.get(clientid)
        if client is None or not client.connected:
            return False
        self.metrics["client.disconnected"] += 1
        lifetime = client.lifetime
        link, client.link = client.link, None
        if link is not None:
            link.close(reason)
        client.connected = False
        client.disconnected_at = self._now()
        self._announce(client, why)
        will = client.will
        if lifetime > 0:
            if lifetime != FOREVER:
                self._schedule(lifetime, lambda: self._expire(client))
            if will is not None and will.delay:
                self._schedule(min(will.delay, lifetime), lambda: self._speak(client))
                return True
        else:
            self.remove(clientid)
            self.metrics["session.terminated"] += 1
        self._speak(client)
        return True

    def remove(
        self, clientid: str, reason: Reason = Reason.ADMINISTRATIVE_ACTION, why: str | None = None
    ) -> Client | None:
        """End a session with all that belongs to it.

        :param why: What the broker says of it if it was connected; ``None``: nothing.
        """
        client: Client | None = self.clients.pop(clientid, None)
        if client is not None:
            if client.connected and why is not None:
                self._announce(client, why)
            for topic in list(client.subscriptions):
                self._unroute(client, topic)
            if client.link is not None:
                client.link.close(reason)
        return client

    def _speak(self, client: Client) -> None:
        """Publish a client's will, unless it is back."""
        will, client.will = client.will, None
        current = self.clients.get(client.clientid)
        if will is not None and (current is None or current is client):
            self.publish(will.message)

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
        if topic.startswith("$SYS/"):
            self._of_system.add(topic)
        if group is None and (subscription.rh == 0 or (subscription.rh == 1 and is_new)):
            found = (
                [message for message in self.retained.values() if matches(message.topic, topic)]
                if has_wildcard(topic)
                else [message for message in [self.retained.get(topic)] if message]
            )
            for message in found:
                self._hand_over(client, subscription, message, retain=True)

    def unsubscribe(self, client: Client, topic: str) -> bool:
        """Unsubscribe; ``False`` if the subscription did not exist."""
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
            self._of_system.discard(topic)

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
        """Reserve one of the second's places in the retainer."""
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
        if subscription.identifier is not None:
            copy.properties = {**message.properties, "subscription_identifier": subscription.identifier}
        if client.connected and client.link is None:
            self.count_sent(client, copy)
            if client.on_message is not None:
                client.on_message(copy)
            return
        client.mqueue.append(copy)
        if client.link is not None:
            client.link.wake()
            if not qos:
                # is sent at once, however many wait to be acknowledged
                return
        if len(client.mqueue) > MQUEUE_MAX:
            del client.mqueue[0]
            client.mqueue_dropped += 1
            self.metrics["delivery.dropped"] += 1
            self.metrics["delivery.dropped.queue_full"] += 1

    def count_sent(self, client: Client, message: Message) -> None:
        """Count a message that is sent to a client, and keep it for inspection."""
        self.inboxes.setdefault(client.clientid, []).append(message)
        client.received += 1
        self.metrics["messages.delivered"] += 1
        self.metrics["messages.sent"] += 1
        self.metrics[f"messages.qos{message.qos}.sent"] += 1
        measured = self.topic_metrics.get(message.topic)
        if measured is not None:
            measured.count("out", message.qos)

    def outgoing(self, client: Client, most: int) -> Iterator[tuple[int, Message]]:
        """Return what is to be sent to a client over a socket now: packet identifier (0 with QoS 0) and message.

        :param most: How many may be on their way without an acknowledgement.
        """
        waiting: list[Message] = []
        queue, client.mqueue = client.mqueue, waiting
        for message in queue:
            left = self.seconds_left(message)
            if left is not None and left <= 0:
                self.metrics["delivery.dropped"] += 1
                self.metrics["delivery.dropped.expired"] += 1
            elif message.qos and len(client.inflight) >= most:
                waiting.append(message)
            else:
                packet_id = self._packet_id(client) if message.qos else 0
                if packet_id:
                    client.inflight[packet_id] = Sent(message)
                self.count_sent(client, message)
                yield packet_id, message

    def seconds_left(self, message: Message) -> int | None:
        """Return after how many seconds a message expires; ``None``: never."""
        expiry = message.properties.get("message_expiry_interval")
        return None if expiry is None else int(message.at + expiry - self._now())

    @staticmethod
    def _packet_id(client: Client) -> int:
        while True:
            client.last_packet_id = client.last_packet_id % 0xFFFF + 1
            if client.last_packet_id not in client.inflight:
                return client.last_packet_id

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

"""One MQTT connection: what a client sends is done, what the broker has for it is sent."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_emqx.testing.mqtt.packets import (
    Connect,
    Kind,
    MalformedError,
    Packet,
    Properties,
    Publish,
    Reason,
    read_ack,
    read_connect,
    read_disconnect,
    read_publish,
    read_subscribe,
    read_unsubscribe,
    split,
    write_ack,
    write_connack,
    write_disconnect,
    write_granted,
    write_pingresp,
    write_publish,
)
from airflow_provider_emqx.testing.mqtt.rights import allowed
from airflow_provider_emqx.testing.mqtt.sessions import Client, Message, Sent, Subscription, Will
from airflow_provider_emqx.testing.mqtt.topics import parse_filter, valid_topic_filter, valid_topic_name

if TYPE_CHECKING:
    from airflow_provider_emqx.testing.state import State

# EMQX's defaults
MAX_PACKET_SIZE = 1_048_576
MAX_INFLIGHT = 32
MAX_AWAITING_REL = 100
MAX_TOPIC_ALIAS = 65_535
CONNECT_TIMEOUT = 15.0
KEEPALIVE_FACTOR = 1.5


class Connection:
    """The broker's side of one connection.

    :meth:`wake` and :meth:`close` may be called from any thread that holds the state's lock, all else is the loop's.

    :param state: The broker.
    :param write: Sends bytes.
    :param hang_up: Closes the transport.
    :param address: Address and port of the client.
    """

    def __init__(
        self,
        state: State,
        write: Callable[[bytes], object],
        hang_up: Callable[[], object],
        address: tuple[str, int],
    ) -> None:
        self._state = state
        self._write = write
        self._hang_up = hang_up
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._client: Client | None = None
        self._ended = self._woken = False
        self._aliases: dict[int, str] = {}
        self._most_inflight = MAX_INFLIGHT
        self._largest = MAX_PACKET_SIZE
        self._heard = self._loop.time()
        self._silence = CONNECT_TIMEOUT
        self._timer = self._loop.call_later(self._silence, self._check_alive)

    # transport

    def feed(self, data: bytes) -> None:
        """Process bytes that have arrived."""
        self._heard = self._loop.time()
        self._buffer += data
        try:
            for packet in split(self._buffer, MAX_PACKET_SIZE):
                if self._ended:
                    return
                with self._state.lock:
                    self._state.tick()
                    self._handle(packet)
        except MalformedError as error:
            if self._client is None and error.reason == Reason.UNSUPPORTED_PROTOCOL_VERSION:
                self._write(write_connack(4, False, error.reason, {}))
            self._end(error.reason)

    def lost(self) -> None:
        """Handle a closed transport."""
        self._ended = True
        self._timer.cancel()
        with self._state.lock:
            client = self._client
            if client is not None and client.link is self:
                client.link = None
                if self._state.mqtt.clients.get(client.clientid) is client:
                    self._state.mqtt.disconnect(client.clientid, why="tcp_closed")

    def _end(self, reason: Reason) -> None:
        if not self._ended:
            self._ended = True
            if self._client is not None and self._client.proto_ver >= 5:
                self._write(write_disconnect(reason))
            self._hang_up()

    def _check_alive(self) -> None:
        left = self._heard + self._silence - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_alive)
        else:
            self._end(Reason.KEEP_ALIVE_TIMEOUT)

    # what the broker wants of it

    def wake(self) -> None:
        """Send what waits in the client's queue, soon."""
        if not self._woken and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._flush)

    def close(self, reason: Reason) -> None:
        """End the connection, soon."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end, reason)

    def _flush(self) -> None:
        with self._state.lock:
            self._woken = False
            if self._client is not None and not self._ended:
                for packet_id, message in self._state.mqtt.outgoing(self._client, self._most_inflight):
                    self._send(self._client, packet_id, message)

    def _send(self, client: Client, packet_id: int, message: Message, dup: bool = False) -> None:
        properties: Properties = dict(message.properties)
        left = self._state.mqtt.seconds_left(message)
        if left is not None:
            properties["message_expiry_interval"] = max(0, left)
        publish = Publish(
            message.topic, message.payload, message.qos, message.retain, dup, packet_id, properties
        )
        data = write_publish(publish, client.proto_ver)
        if len(data) <= self._largest:
            self._write(data)
            return
        client.inflight.pop(packet_id, None)
        self._state.mqtt.metrics["delivery.dropped"] += 1
        self._state.mqtt.metrics["delivery.dropped.too_large"] += 1

    # what the client wants

    def _handle(self, packet: Packet) -> None:
        client = self._client
        if client is None:
            if packet.kind != Kind.CONNECT:
                raise MalformedError(Reason.PROTOCOL_ERROR)
            self._connect(read_connect(packet.body))
        elif packet.kind == Kind.PUBLISH:
            self._publish(client, read_publish(packet, client.proto_ver))
        elif packet.kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP):
            self._acknowledge(client, packet.kind, *read_ack(packet.body))
        elif packet.kind == Kind.SUBSCRIBE:
            self._subscribe(client, packet.body)
        elif packet.kind == Kind.UNSUBSCRIBE:
            packet_id, topics = read_unsubscribe(packet.body, client.proto_ver)
            codes = [
                Reason.SUCCESS
                if self._state.mqtt.unsubscribe(client, topic)
                else Reason.NO_SUBSCRIPTION_EXISTED
                for topic in topics
            ]
            self._write(write_granted(Kind.UNSUBACK, packet_id, client.proto_ver, list(codes)))
        elif packet.kind == Kind.PINGREQ:
            self._write(write_pingresp())
        elif packet.kind == Kind.DISCONNECT:
            self._disconnect(client, *read_disconnect(packet.body, client.proto_ver))
        else:
            raise MalformedError(Reason.PROTOCOL_ERROR)

    def _connect(self, connect: Connect) -> None:
        state, version, properties = self._state, connect.version, connect.properties
        answer: Properties = {}
        clientid = connect.clientid
        reason = Reason.SUCCESS
        if not clientid:
            clientid = f"auto-{secrets.token_hex(8)}"
            answer["assigned_client_identifier"] = clientid
            if version < 5 and not connect.clean_start:
                reason = Reason.CLIENT_IDENTIFIER_NOT_VALID
        if connect.will is not None and not valid_topic_name(connect.will.topic):
            raise MalformedError(Reason.TOPIC_NAME_INVALID)
        now = state.now()
        client = Client(
            clientid,
            connect.username,
            state.next_node(),
            now,
            now,
            proto_ver=version,
            clean_start=connect.clean_start,
            expiry=properties.get("session_expiry_interval", 0),
            keepalive=connect.keepalive,
            ip_address=self._address[0],
            port=self._address[1],
            link=self,
            will=self._will(connect.will, client=clientid, username=connect.username),
        )
        old = state.mqtt.clients.get(clientid)
        reason = reason or state.connect(client, connect.password)
        if reason != Reason.SUCCESS:
            self._write(write_connack(version, False, reason, {}))
            self._end(reason)
            return
        self._client = client
        self._silence = connect.keepalive * KEEPALIVE_FACTOR or float("inf")
        self._timer.cancel()
        if connect.keepalive:
            self._timer = self._loop.call_later(self._silence, self._check_alive)
        self._most_inflight = min(properties.get("receive_maximum", 65_535), MAX_INFLIGHT)
        self._largest = properties.get("maximum_packet_size", float("inf"))
        answer |= {"maximum_packet_size": MAX_PACKET_SIZE, "topic_alias_maximum": MAX_TOPIC_ALIAS}
        present = old is not None and not connect.clean_start
        self._write(write_connack(version, present, reason, answer))
        for packet_id, sent in client.inflight.items():
            if sent.released:
                self._write(write_ack(Kind.PUBREL, packet_id, version))
            else:
                self._send(client, packet_id, sent.message, dup=True)
        self.wake()

    @staticmethod
    def _will(will: Publish | None, client: str, username: str | None) -> Will | None:
        if will is None:
            return None
        properties = dict(will.properties)
        delay = properties.pop("will_delay_interval", 0)
        message = Message(
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            properties,
            from_clientid=client,
            from_username=username or "",
        )
        return Will(message, delay)

    def _publish(self, client: Client, publish: Publish) -> None:
        state = self._state
        topic = self._topic(publish)
        reason = Reason.SUCCESS
        if publish.qos == 2 and publish.packet_id in client.awaiting_rel:
            reason = Reason.PACKET_IDENTIFIER_IN_USE
        elif publish.qos == 2 and len(client.awaiting_rel) >= MAX_AWAITING_REL:
            raise MalformedError(Reason.RECEIVE_MAXIMUM_EXCEEDED)
        elif not allowed(state, client, "publish", topic, publish.qos, publish.retain):
            reason = Reason.NOT_AUTHORIZED
            state.mqtt.metrics["packets.publish.auth_error"] += 1
        else:
            if publish.qos == 2:
                client.awaiting_rel.add(publish.packet_id)
            message = Message(
                topic,
                publish.payload,
                publish.qos,
                publish.retain,
                publish.properties,
                from_clientid=client.clientid,
                from_username=client.username or "",
            )
            if state.mqtt.publish(message) == 0:
                reason = Reason.NO_MATCHING_SUBSCRIBERS
        if publish.qos:
            kind = Kind.PUBACK if publish.qos == 1 else Kind.PUBREC
            self._write(write_ack(kind, publish.packet_id, client.proto_ver, reason))

    def _topic(self, publish: Publish) -> str:
        """Return the topic of a message, which an alias may stand for."""
        alias = publish.properties.pop("topic_alias", None)
        if alias is not None:
            if not alias:
                raise MalformedError(Reason.TOPIC_ALIAS_INVALID)
            if publish.topic:
                self._aliases[alias] = publish.topic
            elif alias not in self._aliases:
                raise MalformedError(Reason.PROTOCOL_ERROR)
        topic = publish.topic or self._aliases.get(alias or 0, "")
        response = publish.properties.get("response_topic", "a")
        if not valid_topic_name(topic) or not valid_topic_name(response):
            raise MalformedError(Reason.TOPIC_NAME_INVALID)
        return topic

    def _acknowledge(self, client: Client, kind: Kind, packet_id: int, code: int) -> None:
        sent: Sent | None = client.inflight.get(packet_id)
        known = Reason.SUCCESS if sent is not None else Reason.PACKET_IDENTIFIER_NOT_FOUND
        if kind == Kind.PUBREL:
            known = Reason.SUCCESS
            if packet_id not in client.awaiting_rel:
                known = Reason.PACKET_IDENTIFIER_NOT_FOUND
            client.awaiting_rel.discard(packet_id)
            self._write(write_ack(Kind.PUBCOMP, packet_id, client.proto_ver, known))
        elif kind == Kind.PUBREC and code < 0x80:
            if sent is not None:
                sent.released = True
            self._write(write_ack(Kind.PUBREL, packet_id, client.proto_ver, known))
        elif sent is not None:
            del client.inflight[packet_id]
            self._state.mqtt.metrics["messages.acked"] += 1
            if client.mqueue:
                self.wake()

    def _subscribe(self, client: Client, body: bytes) -> None:
        state, mqtt = self._state, self._state.mqtt
        packet_id, wanted, properties = read_subscribe(body, client.proto_ver)
        codes: list[int] = []
        granted: list[Subscription] = []
        for one in wanted:
            group, topic = parse_filter(one.topic)
            if not valid_topic_filter(one.topic):
                codes.append(Reason.TOPIC_FILTER_INVALID)
            elif group is not None and one.nl:
                raise MalformedError(Reason.PROTOCOL_ERROR)
            elif not allowed(state, client, "subscribe", topic, one.qos):
                codes.append(Reason.NOT_AUTHORIZED)
                mqtt.metrics["packets.subscribe.auth_error"] += 1
            else:
                codes.append(one.qos)
                identifier = properties.get("subscription_identifier")
                granted.append(Subscription(one.topic, one.qos, one.nl, one.rap, one.rh, identifier))
        self._write(write_granted(Kind.SUBACK, packet_id, client.proto_ver, codes))
        for subscription in granted:
            mqtt.subscribe(client, subscription)
            mqtt.metrics["client.subscribe"] += 1

    def _disconnect(self, client: Client, code: int, properties: Properties) -> None:
        expiry = properties.get("session_expiry_interval")
        if expiry is not None:
            if expiry and not client.expiry:
                raise MalformedError(Reason.PROTOCOL_ERROR)
            client.expiry = expiry
        if code != Reason.WITH_WILL:
            client.will = None
        client.link = None
        self._ended = True
        self._state.mqtt.disconnect(client.clientid)
        self._hang_up()

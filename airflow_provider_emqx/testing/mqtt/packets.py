"""MQTT 3.1, 3.1.1 and 5 on the wire: bytes become packets, packets become bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Kind(IntEnum):
    """Packet types."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Reason(IntEnum):
    """Reason codes of MQTT 5 that the broker sends or understands."""

    SUCCESS = 0x00
    WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    BANNED = 0x8A
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    ADMINISTRATIVE_ACTION = 0x98
    USE_ANOTHER_SERVER = 0x9C


#: what MQTT 3 says instead of a reason code of MQTT 5 in CONNACK
_RETURN_CODES = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_PROTOCOL_VERSION: 1,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: 2,
    Reason.USE_ANOTHER_SERVER: 3,
    Reason.BAD_USER_NAME_OR_PASSWORD: 4,
}
#: the properties of MQTT 5: number, name, form
_PROPERTIES = (
    (0x01, "payload_format_indicator", "byte"),
    (0x02, "message_expiry_interval", "four"),
    (0x03, "content_type", "text"),
    (0x08, "response_topic", "text"),
    (0x09, "correlation_data", "binary"),
    (0x0B, "subscription_identifier", "varint"),
    (0x11, "session_expiry_interval", "four"),
    (0x12, "assigned_client_identifier", "text"),
    (0x13, "server_keep_alive", "two"),
    (0x15, "authentication_method", "text"),
    (0x16, "authentication_data", "binary"),
    (0x17, "request_problem_information", "byte"),
    (0x18, "will_delay_interval", "four"),
    (0x19, "request_response_information", "byte"),
    (0x1A, "response_information", "text"),
    (0x1C, "server_reference", "text"),
    (0x1F, "reason_string", "text"),
    (0x21, "receive_maximum", "two"),
    (0x22, "topic_alias_maximum", "two"),
    (0x23, "topic_alias", "two"),
    (0x24, "maximum_qos", "byte"),
    (0x25, "retain_available", "byte"),
    (0x26, "user_properties", "pair"),
    (0x27, "maximum_packet_size", "four"),
    (0x28, "wildcard_subscription_available", "byte"),
    (0x29, "subscription_identifier_available", "byte"),
    (0x2A, "shared_subscription_available", "byte"),
)
_BY_NUMBER = {number: (name, form) for number, name, form in _PROPERTIES}
_BY_NAME = {name: (number, form) for number, name, form in _PROPERTIES}

Properties = dict[str, Any]


class MalformedError(Exception):
    """Bytes are not MQTT, or MQTT that the standard forbids.

    :param reason: Reason code of the DISCONNECT.
    """

    def __init__(self, reason: Reason = Reason.MALFORMED_PACKET) -> None:
        super().__init__(reason.name)
        self.reason = reason


@dataclass(slots=True)
class Packet:
    """A packet whose body was not read yet."""

    kind: Kind
    flags: int
    body: bytes


@dataclass(slots=True)
class Publish:
    """PUBLISH."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Connect:
    """CONNECT."""

    version: int
    clientid: str
    clean_start: bool
    keepalive: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    will: Publish | None = None
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Wanted:
    """One subscription of a SUBSCRIBE."""

    topic: str
    qos: int
    nl: int
    rap: int
    rh: int


def split(buffer: bytearray, largest: int) -> Iterator[Packet]:
    """Split complete packets off the front of what has arrived.

    :param buffer: What has arrived; what is left in it is the beginning of a packet.
    :param largest: Most bytes of a packet.
    """
    while buffer:
        kind, flags = buffer[0] >> 4, buffer[0] & 0x0F
        if kind not in set(Kind) or (kind != Kind.PUBLISH and flags != _FLAGS.get(Kind(kind), 0)):
            raise MalformedError
        length = shift = 0
        body = 1
        for byte in buffer[1:5]:
            length |= (byte & 0x7F) << shift
            shift += 7
            body += 1
            if byte < 0x80:
                break
        else:
            if len(buffer) >= 5:
                raise MalformedError
            return
        end = body + length
        if end > largest:
            raise MalformedError(Reason.PACKET_TOO_LARGE)
        if len(buffer) < end:
            return
        packet = Packet(Kind(kind), flags, bytes(buffer[body:end]))
        del buffer[:end]
        yield packet


_FLAGS = {Kind.PUBREL: 2, Kind.SUBSCRIBE: 2, Kind.UNSUBSCRIBE: 2}


class _Reader:
    """Reads the body of a packet from its beginning to its end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise MalformedError
        self._at += count
        return self._body[self._at - count : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return int.from_bytes(self.take(2))

    def four(self) -> int:
        return int.from_bytes(self.take(4))

    def varint(self) -> int:
        value = 0
        for shift in range(0, 28, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedError

    def binary(self) -> bytes:
        return self.take(self.two())

    def text(self) -> str:
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:
            raise MalformedError from None
        if "\0" in text:
            raise MalformedError
        return text

    def pair(self) -> tuple[str, str]:
        return self.text(), self.text()

    def properties(self, version: int) -> Properties:
        if version < 5:
            return {}
        found: Properties = {}
        inner = _Reader(self.take(self.varint()))
        while inner.left:
            name, form = _BY_NUMBER.get(inner.byte(), ("", ""))
            if not name:
                raise MalformedError
            value = getattr(inner, form)()
            if form == "pair":
                found.setdefault(name, []).append(value)
            elif name in found:
                raise MalformedError(Reason.PROTOCOL_ERROR)
            else:
                found[name] = value
        return found


def read_connect(body: bytes) -> Connect:
    """Read CONNECT."""
    reader = _Reader(body)
    name, version, flags, keepalive = reader.text(), reader.byte(), reader.byte(), reader.two()
    if (name, version) not in {("MQIsdp", 3), ("MQTT", 4), ("MQTT", 5)}:
        raise MalformedError(Reason.UNSUPPORTED_PROTOCOL_VERSION)
    properties = reader.properties(version)
    clientid = reader.text()
    will = None
    if flags & 0x04:
        will_properties = reader.properties(version)
        topic, payload = reader.text(), reader.binary()
        will = Publish(topic, payload, flags >> 3 & 3, bool(flags & 0x20), properties=will_properties)
    username = reader.text() if flags & 0x80 else None
    try:
        password = reader.binary().decode() if flags & 0x40 else None
    except UnicodeDecodeError:
        raise MalformedError from None
    if flags & 1 or reader.left or (will and will.qos > 2):
        raise MalformedError
    return Connect(version, clientid, bool(flags & 2), keepalive, username, password, will, properties)


def read_publish(packet: Packet, version: int) -> Publish:
    """Read PUBLISH."""
    reader, qos = _Reader(packet.body), packet.flags >> 1 & 3
    topic = reader.text()
    packet_id = reader.two() if qos else 0
    if qos > 2 or (qos and not packet_id):
        raise MalformedError
    properties = reader.properties(version)
    payload = reader.take(reader.left)
    return Publish(topic, payload, qos, bool(packet.flags & 1), bool(packet.flags & 8), packet_id, properties)


def read_ack(body: bytes) -> tuple[int, int]:
    """Read PUBACK, PUBREC, PUBREL or PUBCOMP: packet identifier and reason code."""
    reader = _Reader(body)
    return reader.two(), reader.byte() if reader.left else 0


def read_subscribe(body: bytes, version: int) -> tuple[int, list[Wanted], Properties]:
    """Read SUBSCRIBE: packet identifier, subscriptions, properties."""
    reader = _Reader(body)
    packet_id, properties, wanted = reader.two(), reader.properties(version), []
    while reader.left:
        topic, options = reader.text(), reader.byte()
        qos = options & 3
        if qos > 2 or options >> 4 > 2:
            raise MalformedError(Reason.PROTOCOL_ERROR)
        wanted.append(Wanted(topic, qos, options >> 2 & 1, options >> 3 & 1, options >> 4 & 3))
    if not wanted:
        raise MalformedError(Reason.PROTOCOL_ERROR)
    return packet_id, wanted, properties


def read_unsubscribe(body: bytes, version: int) -> tuple[int, list[str]]:
    """Read UNSUBSCRIBE: packet identifier and filters."""
    reader = _Reader(body)
    packet_id, _, topics = reader.two(), reader.properties(version), []
    while reader.left:
        topics.append(reader.text())
    if not topics:
        raise MalformedError(Reason.PROTOCOL_ERROR)
    return packet_id, topics


def read_disconnect(body: bytes, version: int) -> tuple[int, Properties]:
    """Read DISCONNECT: reason code and properties."""
    reader = _Reader(body)
    reason = reader.byte() if reader.left else 0
    return reason, reader.properties(version) if reader.left else {}


def write_connack(version: int, session_present: bool, reason: Reason, properties: Properties) -> bytes:
    """Write CONNACK; every refusal that MQTT 3 has no code for is "not authorized" there."""
    code = reason if version >= 5 else _RETURN_CODES.get(reason, 5)
    return _packet(Kind.CONNACK, 0, bytes([session_present, code]) + _properties(properties, version))


def write_publish(publish: Publish, version: int) -> bytes:
    """Write PUBLISH."""
    flags = publish.dup << 3 | publish.qos << 1 | publish.retain
    packet_id = struct.pack("!H", publish.packet_id) if publish.qos else b""
    head = _text(publish.topic) + packet_id + _properties(publish.properties, version)
    return _packet(Kind.PUBLISH, flags, head + publish.payload)


def write_ack(kind: Kind, packet_id: int, version: int, reason: Reason = Reason.SUCCESS) -> bytes:
    """Write PUBACK, PUBREC, PUBREL or PUBCOMP."""
    code = bytes([reason]) if version >= 5 and reason else b""
    return _packet(kind, _FLAGS.get(kind, 0), struct.pack("!H", packet_id) + code)


def write_granted(kind: Kind, packet_id: int, version: int, codes: list[int]) -> bytes:
    """Write SUBACK or UNSUBACK with a code for each filter; MQTT 3 knows one refusal, and none of unsubscribing."""
    if version < 5:
        codes = [] if kind == Kind.UNSUBACK else [min(128, code) for code in codes]
    return _packet(kind, 0, struct.pack("!H", packet_id) + _properties({}, version) + bytes(codes))


def write_pingresp() -> bytes:
    """Write PINGRESP."""
    return _packet(Kind.PINGRESP, 0, b"")


def write_disconnect(reason: Reason) -> bytes:
    """Write DISCONNECT, which brokers send since MQTT 5 only."""
    return _packet(Kind.DISCONNECT, 0, bytes([reason, 0]))


def _packet(kind: Kind, flags: int, body: bytes) -> bytes:
    return bytes([kind << 4 | flags]) + _varint(len(body)) + body


def _properties(properties: Mapping[str, Any], version: int) -> bytes:
    if version < 5:
        return b""
    body = b""
    for name, value in properties.items():
        number, form = _BY_NAME[name]
        values = value if form == "pair" else [value]
        for one in values.items() if isinstance(values, Mapping) else values:
            body += bytes([number]) + _WRITERS[form](one)
    return _varint(len(body)) + body


def _varint(value: int) -> bytes:
    written = b""
    while True:
        value, byte = value >> 7, value & 0x7F
        written += bytes([byte | (0x80 if value else 0)])
        if not value:
            return written


def _binary(value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(content)) + content


def _text(text: str) -> bytes:
    return _binary(text)


_WRITERS: dict[str, Any] = {
    "byte": lambda value: struct.pack("!B", value),
    "two": lambda value: struct.pack("!H", value),
    "four": lambda value: struct.pack("!I", value),
    "varint": _varint,
    "binary": _binary,
    "text": _text,
    "pair": lambda value: _text(value[0]) + _text(value[1]),
}

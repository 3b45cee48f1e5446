"""An MQTT listener for FakeEmqx, which has none: enough of MQTT 3.1.1 for what real clients do in tests."""

from __future__ import annotations

import select
import socket
import socketserver
import struct
import threading
from types import TracebackType
from typing import Any

from airflow_provider_emqx.testing import FakeEmqx

_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE, _UNSUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 3, 4, 8, 10, 12, 14
_MOST_WAITED = 0.02


class Gateway:
    """
    Lets MQTT clients connect to a FakeEmqx, while the ``with`` statement runs.

    :param broker: the broker; without TLS, QoS 0 and 1, no wills.
    """

    def __init__(self, broker: FakeEmqx) -> None:
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.broker = broker
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Gateway:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    broker: FakeEmqx


class _Connection(socketserver.BaseRequestHandler):
    server: Any
    request: socket.socket

    def handle(self) -> None:
        self.broker: FakeEmqx = self.server.broker
        kind, _, body = self._read()
        if kind != _CONNECT or not self._let_in(body):
            return
        mine = self.broker.clients[self.clientid]
        sent = len(self.broker.received(self.clientid))
        try:
            while self.broker.clients.get(self.clientid) is mine and mine.connected:
                if select.select([self.request], [], [], _MOST_WAITED)[0]:
                    kind, flags, body = self._read()
                    if kind == _DISCONNECT:
                        break
                    self._serve(kind, flags, body)
                for message in self.broker.received(self.clientid)[sent:]:
                    self._write(0x30 | int(message.retain), _text(message.topic.encode()) + message.payload)
                    sent += 1
        except OSError:
            pass
        if self.broker.clients.get(self.clientid) is mine:
            self.broker.disconnect(self.clientid)

    def _let_in(self, body: bytes) -> bool:
        flags, rest = body[7], body[10:]
        fields = []
        for wanted in (True, flags & 0x80, flags & 0x40):
            field, rest = _cut(rest) if wanted else (None, rest)
            fields.append(None if field is None else field.decode())
        clientid, username, password = fields
        self.clientid = clientid or "nobody"
        let_in = self.broker.connect(
            self.clientid, username, password, clean_start=bool(flags & 2), version=4
        )
        self._write(0x20, bytes([0, 0 if let_in else 5]))
        return let_in

    def _serve(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _PINGREQ:
            self._write(0xD0, b"")
        elif kind == _PUBLISH:
            topic, rest = _cut(body)
            qos = flags >> 1 & 3
            if qos:
                self._write(0x40, rest[:2])
                rest = rest[2:]
            self.broker.publish(topic.decode(), rest, qos, bool(flags & 1), self.clientid)
        elif kind in (_SUBSCRIBE, _UNSUBSCRIBE):
            number, rest, granted = body[:2], body[2:], b""
            while rest:
                topic, rest = _cut(rest)
                if kind == _SUBSCRIBE:
                    granted += rest[:1]
                    self.broker.subscribe(self.clientid, topic.decode(), rest[0])
                    rest = rest[1:]
                else:
                    self.broker.unsubscribe(self.clientid, topic.decode())
            self._write(0x90 if kind == _SUBSCRIBE else 0xB0, number + granted)

    def _read(self) -> tuple[int, int, bytes]:
        """Read one packet: kind, flags, body."""
        first = self._bytes(1)[0]
        length, shift = 0, 0
        while True:
            byte = self._bytes(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first >> 4, first & 0x0F, self._bytes(length)

    def _bytes(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self.request.recv(count - len(found))
            if not part:
                raise ConnectionError("the client is gone")
            found += part
        return found

    def _write(self, first: int, body: bytes) -> None:
        length, left = b"", len(body)
        while True:
            left, byte = left >> 7, left & 0x7F
            length += bytes([byte | (0x80 if left else 0)])
            if not left:
                break
        self.request.sendall(bytes([first]) + length + body)


def _text(content: bytes) -> bytes:
    return struct.pack("!H", len(content)) + content


def _cut(body: bytes) -> tuple[bytes, bytes]:
    length = struct.unpack("!H", body[:2])[0]
    return body[2 : 2 + length], body[2 + length :]

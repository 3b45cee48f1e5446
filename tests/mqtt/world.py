"""What the MQTT tests need of a broker, whichever it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.mqtt.peer import Peer

_number = itertools.count(1)


class World:
    """
    A broker, and names in it that nobody else has.

    :param kind: ``"emqx"`` or ``"mosquitto"``.
    :param url: of its MQTT listener.
    :param prefix: what client ids and topics begin with.
    :param login: username and password of all clients.
    :param pass_time: lets seconds pass for the broker.
    """

    def __init__(
        self,
        kind: str,
        url: str,
        prefix: str = "t",
        login: tuple[str, str] | None = None,
        pass_time: Callable[[float], object] | None = None,
    ) -> None:
        self.kind, self.url, self.login, self.pass_time = kind, url, login, pass_time
        self.prefix = f"{prefix}{next(_number)}"
        self.clients = ExitStack()

    def name(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def topic(self, topic: str) -> str:
        return f"{self.prefix}/{topic}"

    def client(self, name: str, **options: Any) -> Peer:
        """Connect a client; it is disconnected at the end."""
        options.setdefault("login", self.login)
        peer = Peer(self.url, self.name(name), **options)
        self.clients.callback(peer.close)
        return peer

    def payloads(self, peer: Peer) -> list[bytes]:
        """Return what a client has received since the last look."""
        return peer.payloads(self.topic(f"fence/{next(_number)}"))

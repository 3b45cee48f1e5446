"""A device: an MQTT client of the real protocol."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

from paho.mqtt.client import CONNACK_ACCEPTED, Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

#: longest wait for anything that the broker does on its own
PATIENCE = 10.0


class Device:
    """
    One MQTT client; connect it with :meth:`connect`, which says whether it was let in.

    :param url: ``mqtt://host:1883`` or ``mqtts://host:8883``.
    :param clientid: client id.
    :param username: username, if it is to log in.
    :param password: password.
    """

    def __init__(
        self, url: str, clientid: str, username: str | None = None, password: str | None = None
    ) -> None:
        self.name = clientid
        self._address = urlsplit(url)
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=clientid, reconnect_on_failure=False)
        if username is not None:
            self._client.username_pw_set(username, password)
        if self._address.scheme == "mqtts":
            self._client.tls_set()
        self._answered = threading.Event()
        self._refused = True
        self._subscribed: queue.Queue[bool] = queue.Queue()
        self.messages: queue.Queue[MQTTMessage] = queue.Queue()
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self._answered.set()
        self._client.on_subscribe = lambda _client, _data, _id, codes, _properties: self._subscribed.put(
            not any(code.is_failure for code in codes)
        )
        self._client.on_message = lambda _client, _data, message: self.messages.put(message)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> bool:
        """Connect, and tell whether the broker let the device in."""
        self._answered.clear()
        self._refused = True
        port = self._address.port or (8883 if self._address.scheme == "mqtts" else 1883)
        self._client.connect(self._address.hostname or "", port)
        self._client.loop_start()
        assert self._answered.wait(PATIENCE), f"no answer at the MQTT port {self._address.netloc}"
        if self._refused:
            self._client.loop_stop()
        return not self._refused

    def _on_connect(
        self, _client: object, _data: object, _flags: object, reason: object, _more: object
    ) -> None:
        self._refused = reason != CONNACK_ACCEPTED and bool(getattr(reason, "is_failure", True))
        self._answered.set()

    @property
    def connected(self) -> bool:
        """Whether the connection stands."""
        return self._client.is_connected()

    def subscribe(self, topic: str, qos: int = 0) -> bool:
        """Subscribe, and tell whether the broker granted it."""
        self._client.subscribe(topic, qos)
        return self._subscribed.get(timeout=PATIENCE)

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        """Publish, and wait until it is out."""
        self._client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE)

    def receive(self) -> bytes:
        """Wait for the next message and give its payload."""
        return bytes(self.messages.get(timeout=PATIENCE).payload)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def eventually(holds: Callable[[], object]) -> bool:
    """Look until something holds: brokers do much of what they are asked for a moment after they have answered."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True

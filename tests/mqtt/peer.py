"""An MQTT client of the real protocol for tests: what it asks for is answered before a method returns."""

from __future__ import annotations

import os
import queue
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, Client, MQTTMessage, MQTTProtocolVersion
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

#: longest wait for anything that a broker answers
PATIENCE = 10.0


class Peer:
    """
    One client with one connection.

    :param url: ``mqtt://host:1883``, ``mqtts://host:8883`` or ``ws://host:8083/mqtt``.
    :param clientid: client id.
    :param version: of MQTT, 4 (3.1.1) or 5.
    :param clean: begin with an empty session.
    :param expiry: seconds for which the session outlives the connection; MQTT 5.
    :param will: topic, payload, and properties of a will.
    :param login: username and password.
    :param manual_ack: acknowledge messages only by :meth:`ack`.
    :param keepalive: seconds.
    :param properties: of CONNECT, as paho names them.
    """

    def __init__(
        self,
        url: str,
        clientid: str,
        *,
        version: int = 5,
        clean: bool = True,
        expiry: int = 0,
        will: tuple[str, bytes, dict[str, Any]] | None = None,
        login: tuple[str, str] | None = None,
        manual_ack: bool = False,
        keepalive: int = 60,
        **properties: Any,
    ) -> None:
        self.name, self.version = clientid, version
        self.messages: queue.Queue[MQTTMessage] = queue.Queue()
        self.closed = threading.Event()
        self.closed_by: ReasonCode | None = None
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        address = urlsplit(url)
        five = version == 5
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            clientid,
            clean_session=None if five else clean,
            protocol=MQTTProtocolVersion(version),
            transport="websockets" if address.scheme == "ws" else "tcp",
            reconnect_on_failure=False,
            manual_ack=manual_ack,
        )
        if address.scheme == "ws":
            self._client.ws_set_options(address.path)
        if address.scheme == "mqtts":
            self._client.tls_set()
        if login is not None:
            self._client.username_pw_set(*login)
        if will is not None:
            topic, payload, will_properties = will
            more = make(PacketTypes.WILLMESSAGE, will_properties) if five else None
            self._client.will_set(topic, payload, 1, properties=more)
        self._client.on_connect = lambda _c, _d, flags, code, more: self._answers.put(
            ("connect", (code, flags.session_present, more))
        )
        self._client.on_subscribe = lambda _c, _d, _id, codes, _p: self._answers.put(("subscribe", codes))
        self._client.on_unsubscribe = lambda _c, _d, _id, codes, _p: self._answers.put(("unsubscribe", codes))
        self._client.on_publish = lambda _c, _d, _id, code, _p: self._answers.put(("publish", code))
        self._client.on_message = lambda _c, _d, message: self.messages.put(message)
        self._client.on_disconnect = self._on_disconnect
        more = {"SessionExpiryInterval": expiry, **properties} if five else {}
        self._client.connect(
            address.hostname or "",
            address.port or {"mqtts": 8883, "ws": 8083}.get(address.scheme, 1883),
            keepalive,
            clean_start=clean if five else MQTT_CLEAN_START_FIRST_ONLY,
            properties=make(PacketTypes.CONNECT, more) if five else None,
        )
        self._client.loop_start()
        #: reason code, whether there was a session, and properties of CONNACK
        self.code, self.resumed, self.granted = self._answer("connect")

    def _on_disconnect(self, _c: Any, _d: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self.closed_by = code
        self.closed.set()

    def _answer(self, kind: str) -> Any:
        got, answer = self._answers.get(timeout=PATIENCE)
        assert got == kind, f"{got} came before the answer to {kind}"
        return answer

    def subscribe(self, topic: str, qos: int = 0, **options: Any) -> int:
        """Subscribe, and return the code that the broker answers."""
        if self.version == 5:
            self._client.subscribe(topic, options=SubscribeOptions(qos, **options))
        else:
            self._client.subscribe(topic, qos)
        return int(self._answer("subscribe")[0].value)

    def unsubscribe(self, topic: str) -> list[int]:
        """Unsubscribe, and return the codes that the broker answers."""
        self._client.unsubscribe(topic)
        return [code.value for code in self._answer("unsubscribe")]

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 1, retain: bool = False, **properties: Any
    ) -> int:
        """Publish, and return the code of the acknowledgement; 0 without one."""
        more = make(PacketTypes.PUBLISH, properties) if self.version == 5 else None
        self._client.publish(topic, payload, qos, retain, more)
        return int(self._answer("publish").value)

    def receive(self) -> MQTTMessage:
        """Wait for the next message."""
        return self.messages.get(timeout=PATIENCE)

    def payloads(self, fence: str) -> list[bytes]:
        """Return what has come since the last look; a message to itself marks the end."""
        self.subscribe(fence)
        self.publish(fence, b"fence", qos=0)
        found = []
        while (message := self.receive()).topic != fence:
            found.append(bytes(message.payload))
        return found

    def ack(self, message: MQTTMessage) -> None:
        """Acknowledge a message."""
        self._client.ack(message.mid, message.qos)

    def drop(self) -> None:
        """End the connection without DISCONNECT."""
        sock: Any = self._client.socket()
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
        assert self.closed.wait(PATIENCE)
        self._client.loop_stop()

    def close(self, code: int = 0) -> None:
        """Disconnect."""
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=code) if code and self.version == 5 else None
        self._client.disconnect(reason)
        self._client.loop_stop()


def make(kind: int, values: dict[str, Any]) -> Properties:
    """Make properties as paho wants them."""
    properties = Properties(kind)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties

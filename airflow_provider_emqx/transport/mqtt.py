"""An MQTT connection for an event loop: paho-mqtt's client, with answers that are awaited, and our errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.names import topic_filter, topic_name
from airflow_provider_emqx.exceptions import (
    EmqxApiError,
    EmqxAuthError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxConnectionError,
    EmqxError,
    EmqxForbiddenError,
    EmqxOutcomeUnknownError,
    EmqxRateLimitError,
    EmqxServerError,
    EmqxTimeoutError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.transport.settings import MqttSettings
from airflow_provider_emqx.transport.sockets import tls_context

if TYPE_CHECKING:
    from types import TracebackType

    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

#: bytes of the largest packet that is taken; EMQX's own default is 1 MB, and what is larger than this it drops
LARGEST = 16_000_000
#: messages that may be on their way, in either direction, without an acknowledgement
IN_FLIGHT = 100
#: bytes of payloads that may wait to be received before further messages of QoS 0 are dropped
_MOST_WAITING = 32_000_000
#: topic filters in one SUBSCRIBE
_FILTERS = 100
#: bytes of a PUBLISH at most beside payload, topics and correlation data
_OVERHEAD = 24
_KEEPALIVE = 30
_NO_SUBSCRIBERS = 0x10
#: reason codes that have an error of their own; all others that say "no" are an EmqxApiError
_ERRORS: Mapping[int, type[EmqxApiError]] = {
    0x83: EmqxBadRequestError,  # implementation specific error
    0x85: EmqxBadRequestError,
    0x86: EmqxAuthError,
    0x87: EmqxForbiddenError,
    0x88: EmqxServerError,
    0x89: EmqxServerError,
    0x8A: EmqxAuthError,
    0x8F: EmqxBadRequestError,
    0x90: EmqxBadRequestError,
    0x95: EmqxBadRequestError,
    0x96: EmqxRateLimitError,
    0x97: EmqxRateLimitError,
    0x9C: EmqxServerError,
    0x9F: EmqxRateLimitError,
}


def pause(failures: int, longest: float) -> float:
    """
    Return the seconds before the next attempt to connect: increasing.

    :param failures: consecutive ones.
    :param longest: longest pause.
    """
    return min(2.0 ** min(failures - 1, 10), longest)


@dataclass(frozen=True, slots=True)
class Received:
    """
    A message from the broker.

    :param topic: topic name.
    :param payload: payload.
    :param qos: quality of service.
    :param retain: whether it was retained.
    :param duplicate: whether the broker may have sent it before.
    :param response_topic: where an answer is expected, MQTT 5.
    :param correlation_data: what the answer is to carry, or carries, MQTT 5.
    :param mid: packet identifier, for :meth:`MqttClient.acknowledge`.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    duplicate: bool
    response_topic: str | None
    correlation_data: bytes | None = field(repr=False)
    mid: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """
    A message to publish.

    :param topic: topic name.
    :param payload: payload.
    :param qos: quality of service: 0 or 1.
    :param retain: whether the broker keeps it for later subscribers.
    :param response_topic: where an answer is expected.
    :param correlation_data: what the answer is to carry.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 1
    retain: bool = False
    response_topic: str | None = None
    correlation_data: bytes | None = field(default=None, repr=False)


class MqttClient:
    """
    One MQTT 5 connection, in a running event loop: ``async with MqttClient(…) as client``.

    It never connects again by itself, and so sends nothing twice: what was published and not acknowledged when the
    connection broke is an :class:`~airflow_provider_emqx.exceptions.EmqxOutcomeUnknownError`. All methods are for the
    loop in which it was opened.

    :param settings: address, credentials, timeouts.
    :param clientid: client id.
    :param clean_start: whether to begin with an empty session.
    :param session_expiry: seconds for which the broker keeps the session after the connection.
    :param receive_maximum: messages of QoS 1 that the broker sends before they are acknowledged.
    """

    def __init__(
        self,
        settings: MqttSettings,
        clientid: str,
        *,
        clean_start: bool = True,
        session_expiry: int = 0,
        receive_maximum: int = IN_FLIGHT,
    ) -> None:
        self._settings = settings
        self.clientid = clientid
        self._clean_start = clean_start
        self._session_expiry = session_expiry
        self._receive_maximum = receive_maximum
        #: messages of QoS 0 that were dropped because too many wait for :meth:`receive`
        self.dropped = 0
        self._waiting_bytes = 0
        #: whether the broker had a session for this client id
        self.resumed = False
        self._received: asyncio.Queue[Received | None] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._largest = float("inf")
        self._error: EmqxError | None = None
        self._left_expiry = session_expiry
        self._socket: Any = None
        self._properties: Properties | None = None

    async def __aenter__(self) -> MqttClient:
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._client = await asyncio.to_thread(self._make)
        opening = self._loop.run_in_executor(None, self._open)
        try:
            self._socket = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise
        self._loop.add_reader(self._socket, self._read)
        self._beat = self._loop.call_later(1, self._misc)
        self._want_write()
        try:
            await self._in_time(self._connected, "CONNECT")
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._error is None:
                self._client.disconnect(properties=self._goodbye())
                # a socket that takes nothing more is left alone after a while
                async with asyncio.timeout(self._settings.connect_timeout):
                    await self._closed
        except TimeoutError:
            pass
        finally:
            self._close()

    def _goodbye(self) -> Properties | None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        if self._left_expiry == self._session_expiry:
            return None
        properties = Properties(PacketTypes.DISCONNECT)
        properties.SessionExpiryInterval = self._left_expiry
        return properties

    # ------------------------------------------------------------------ what it is for

    async def subscribe(self, filters: Iterable[str], qos: int = 1, retain_handling: int = 0) -> None:
        """
        Subscribe.

        :param filters: topic filters.
        :param qos: highest quality of service of what is to come.
        :param retain_handling: 0: retained messages come first, 1: only if the subscription is new to the
            session, 2: not at all.
        :raises EmqxForbiddenError: if the account may not subscribe to one of them.
        :raises EmqxError: if one was refused, or the connection broke.
        """
        from paho.mqtt.subscribeoptions import SubscribeOptions

        given = [topic_filter(one) for one in filters]
        for start in range(0, len(given), _FILTERS):
            part = given[start : start + _FILTERS]
            options = SubscribeOptions(qos, retainHandling=retain_handling)
            self._check(f"SUBSCRIBE {part[0]}")
            _, mid = self._client.subscribe([(one, options) for one in part])
            codes = await self._in_time(self._answer(mid), f"SUBSCRIBE {part[0]}")
            for topic, code in zip(part, codes, strict=True):
                if code.is_failure:
                    raise _refusal(code, f"SUBSCRIBE {topic}")

    async def unsubscribe(self, filters: Iterable[str]) -> None:
        """
        Unsubscribe.

        :param filters: topic filters.
        :raises EmqxError: if the connection broke.
        """
        given = [topic_filter(one) for one in filters]
        for start in range(0, len(given), _FILTERS):
            asked = f"UNSUBSCRIBE {given[start]}"
            self._check(asked)
            _, mid = self._client.unsubscribe(given[start : start + _FILTERS])
            # that one had not subscribed is what the broker says to it, and no failure
            await self._in_time(self._answer(mid), asked)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
    ) -> bool:
        """
        Publish a message, described as an :class:`Outgoing`; with QoS 1, wait until the broker has it.

        :return: whether anybody has subscribed, as far as the broker tells: with QoS 0 it does not.
        :raises EmqxConfigError: if nothing was sent, because it cannot be right.
        :raises EmqxForbiddenError: if the account may not publish to it.
        :raises EmqxOutcomeUnknownError: if the connection broke before the broker had acknowledged it.
        :raises EmqxError: if it was refused otherwise, or nothing could be sent.
        """
        message = Outgoing(topic, payload, qos, retain, response_topic, correlation_data)
        [told] = await self.publish_all([message])
        if isinstance(told, EmqxError):
            raise told
        return told

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[bool | EmqxError]:
        """
        Publish messages, as many at a time as the broker takes, and wait until it has them.

        A task for each would leave the garbage collector so much to look at that it looks at all that Airflow has.

        :param messages: what to publish.
        :return: for each, in their order, what :meth:`publish` would have returned or raised.
        """
        sent: list[asyncio.Future[ReasonCode] | bool | EmqxError] = []
        for message in messages:
            try:
                sent.append(await self._send(message))
            except EmqxError as error:
                sent.append(error)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.read_timeout):
                for one in sent:
                    if isinstance(one, asyncio.Future):
                        with suppress(EmqxError):
                            await one
        return [
            self._told(one, message) if isinstance(one, asyncio.Future) else one
            for one, message in zip(sent, messages, strict=True)
        ]

    async def _send(self, message: Outgoing) -> asyncio.Future[ReasonCode] | bool:
        """Send a message; with QoS 1 return what the broker's acknowledgement ends."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        asked = f"PUBLISH {topic_name(message.topic)}"
        if self._settings.read_only:
            raise EmqxConfigError("the connection is read-only: nothing was published", asked)
        response, correlation = message.response_topic, message.correlation_data
        size = len(message.payload) + len(message.topic.encode()) + len((response or "").encode())
        size += len(correlation or b"") + _OVERHEAD
        if size > self._largest:
            raise EmqxConfigError(
                f"the message has {size:,} bytes; the broker takes at most {int(self._largest):,}", asked
            )
        if message.qos:
            await self._slot(asked)
        self._check(asked)
        # paho makes sixty objects for each; it has packed them when its publish() returns
        properties = self._properties = self._properties or Properties(PacketTypes.PUBLISH)
        properties.clear()
        if response is not None:
            properties.ResponseTopic = response
        if correlation is not None:
            properties.CorrelationData = correlation
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain, properties)
        return self._answer(info.mid) if message.qos else True

    async def _slot(self, asked: str) -> None:
        """Wait until the broker has acknowledged enough for another message; its acknowledgement ends the slot."""
        if self._slots.locked():
            try:
                async with asyncio.timeout(self._settings.read_timeout):
                    await self._slots.acquire()
            except TimeoutError:
                raise self._silence(asked) from None
        else:
            await self._slots.acquire()
        if self._error is not None:
            self._slots.release()

    def _told(self, answer: asyncio.Future[ReasonCode], message: Outgoing) -> bool | EmqxError:
        """Return what the broker's acknowledgement says; without one it is not known what became of the message."""
        asked = f"PUBLISH {message.topic}"
        came = answer.done() and not answer.cancelled()
        problem = answer.exception() if came else self._silence(asked)
        if problem is not None:
            why = getattr(problem, "message", str(problem))
            return EmqxOutcomeUnknownError(f"whether the message was published is not known: {why}", asked)
        code = answer.result()
        return _refusal(code, asked) if code.is_failure else bool(code.value != _NO_SUBSCRIBERS)

    async def receive(self) -> Received:
        """
        Wait for the next message.

        :raises EmqxConnectionError: if the connection broke, after all messages that came before.
        """
        message = await self._received.get()
        if message is None:
            self._received.put_nowait(None)
            self._check("")
            raise EmqxConnectionError("the connection was closed")
        self._waiting_bytes -= len(message.payload)
        return message

    def waiting(self, most: int) -> list[Received]:
        """
        Return messages that have come already, without waiting.

        :param most: how many at most.
        """
        found: list[Received] = []
        while len(found) < most and not self._received.empty():
            message = self._received.get_nowait()
            if message is None:
                self._received.put_nowait(None)
                break
            self._waiting_bytes -= len(message.payload)
            found.append(message)
        return found

    def end_session(self) -> None:
        """End the session on the broker when the connection is closed."""
        self.leave_session(0)

    def leave_session(self, seconds: int) -> None:
        """
        Change for how long the broker keeps the session when the connection is closed.

        :param seconds: 0 ends it; one that was opened without an expiry always ends.
        """
        self._left_expiry = seconds if self._session_expiry else 0

    def acknowledge(self, message: Received) -> None:
        """
        Acknowledge a message, so that the broker does not send it again.

        :param message: as received.
        """
        if self._error is None:
            self._client.ack(message.mid, message.qos)

    # ------------------------------------------------------------------ opening

    def _make(self) -> Client:
        """Make paho's client; importing it takes a tenth of a second."""
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        except ImportError as error:
            raise EmqxConfigError(
                f"MQTT needs paho-mqtt 2.1 or newer ({error}): install airflow-provider-emqx[mqtt] on workers and "
                "triggerers"
            ) from None
        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            self.clientid,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="tcp" if settings.path is None else "websockets",
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout
        client.max_inflight_messages = 0  # the slots are the limit
        if settings.path is not None:
            client.ws_set_options(settings.path)
        if settings.tls:
            client.tls_set_context(tls_context(settings.verify))
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = lambda _c, _d, mid, codes, _p: self._on_answer(mid, codes)
        client.on_unsubscribe = lambda _c, _d, mid, codes, _p: self._on_answer(mid, codes)
        client.on_publish = lambda _c, _d, mid, code, _p: self._on_published(mid, code)
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        client.on_socket_close = lambda _c, _d, sock: self._forget_socket(sock)
        return client

    def _open(self) -> Any:
        """Connect the socket, which blocks, in a thread."""
        import socket
        import ssl

        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        settings, where = self._settings, self._settings.url
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._session_expiry
        properties.MaximumPacketSize = LARGEST
        properties.ReceiveMaximum = self._receive_maximum
        try:
            self._client.connect(
                settings.host,
                settings.port,
                _KEEPALIVE,
                clean_start=self._clean_start,
                properties=properties,
            )
        except ssl.SSLCertVerificationError as error:
            raise EmqxConnectionError(
                f"the certificate of {where} does not verify: {error.verify_message}. If the authority is your own, "
                "give its file in the field Verify TLS certificate",
                "CONNECT",
                False,
                False,
            ) from None
        except TimeoutError:
            raise EmqxTimeoutError(
                f"no connection to {where} within {settings.connect_timeout:g} s", "CONNECT"
            ) from None
        except ssl.SSLError as error:
            raise EmqxConnectionError(
                f"no TLS connection to {where} ({error.reason or type(error).__name__}): check that it is a listener "
                "for TLS",
                "CONNECT",
            ) from None
        except OSError as error:
            raise EmqxConnectionError(
                f"no connection to {where}: {error.strerror or type(error).__name__}", "CONNECT"
            ) from None
        connected: Any = self._client.socket()
        # many small packets, each of which would wait for the one before to be confirmed
        with socket.socket(fileno=os.dup(connected.fileno())) as same:
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def _on_connect(self, _c: Client, _d: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if self._connected.done():
            return
        if code.is_failure:
            self._connected.set_exception(_not_let_in(code))
            return
        self.resumed = bool(flags.session_present)
        self._largest = getattr(properties, "MaximumPacketSize", self._largest)
        self._slots = asyncio.Semaphore(min(IN_FLIGHT, getattr(properties, "ReceiveMaximum", IN_FLIGHT)))
        self._connected.set_result(None)

    # ------------------------------------------------------------------ the socket

    def _read(self) -> None:
        # bytes that TLS has decrypted already make no socket readable
        while self._client.loop_read() == 0 and self._socket is not None and _pending(self._socket):
            pass

    def _on_register_write(self, *_: object) -> None:
        # also called in the thread that connects
        self._loop.call_soon_threadsafe(self._want_write)

    def _on_unregister_write(self, _c: Client, _d: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _want_write(self) -> None:
        if self._socket is not None and self._client.want_write():
            self._loop.add_writer(self._socket, self._client.loop_write)

    def _misc(self) -> None:
        if self._client.loop_misc() == 0:
            self._beat = self._loop.call_later(1, self._misc)

    def _forget_socket(self, sock: Any) -> None:
        if sock is self._socket:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            self._socket = None

    def _close(self) -> None:
        """Release everything; pending calls fail."""
        self._beat.cancel()
        if self._socket is not None:
            sock = self._socket
            self._forget_socket(sock)
            sock.close()
        self._lose(EmqxConnectionError("the connection was closed"))

    # ------------------------------------------------------------------ what comes back

    def _on_message(self, _c: Client, _d: Any, message: MQTTMessage) -> None:
        properties = message.properties
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        if not message.qos and self._waiting_bytes > _MOST_WAITING:
            # MQTT has no other way to slow them down; the broker holds back those of QoS 1 itself
            self.dropped += 1
            return
        self._waiting_bytes += len(message.payload)
        self._received.put_nowait(
            Received(
                topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                message.dup,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                message.mid,
            )
        )

    def _answer(self, mid: int | None) -> asyncio.Future[Any]:
        waiting: asyncio.Future[Any] = self._loop.create_future()
        if self._error is None:
            self._answers[mid or 0] = waiting
        else:
            # the connection broke while it was being written to
            self._fail(waiting, self._error)
        return waiting

    def _on_answer(self, mid: int, answer: Any) -> None:
        waiting = self._answers.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _on_published(self, mid: int, code: ReasonCode) -> None:
        # with QoS 0 it was written, and had no slot
        if mid in self._answers:
            self._slots.release()
            self._on_answer(mid, code)

    async def _in_time(self, waiting: asyncio.Future[Any], asked: str) -> Any:
        try:
            async with asyncio.timeout(self._settings.read_timeout):
                return await waiting
        except TimeoutError:
            raise self._silence(asked) from None
        except EmqxConnectionError as error:
            raise type(error)(error.message, asked) from None

    def _silence(self, asked: str) -> EmqxTimeoutError:
        return EmqxTimeoutError(
            f"no answer from {self._settings.url} within {self._settings.read_timeout:g} s", asked, True
        )

    def _check(self, asked: str) -> None:
        if self._error is not None:
            raise EmqxConnectionError(getattr(self._error, "message", str(self._error)), asked)

    def _on_disconnect(self, _c: Client, _d: Any, flags: Any, code: ReasonCode, _properties: Any) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
        why = f": {code}" if flags.is_disconnect_packet_from_server else ""
        hint = "" if self._connected.done() else ": check that it is a listener for MQTT"
        self._lose(
            EmqxConnectionError(f"{self._settings.url} has ended the connection{why or hint}", sent=True)
        )

    def _lose(self, error: EmqxError) -> None:
        if self._error is not None:
            return
        self._error = error
        for waiting in [self._connected, *self._answers.values()]:
            if not waiting.done():
                self._fail(waiting, error)
        self._answers.clear()
        # whoever waits for a slot finds out, one after another
        self._slots.release()
        self._received.put_nowait(None)

    @staticmethod
    def _fail(waiting: asyncio.Future[Any], error: EmqxError) -> None:
        waiting.set_exception(error)
        waiting.exception()  # nobody may be waiting any more


def _close_late(opening: asyncio.Future[Any]) -> None:
    """Close a socket that was connected after nobody wanted it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _pending(sock: Any) -> bool:
    pending: Callable[[], int] | None = getattr(sock, "pending", None)
    return pending is not None and pending() > 0


def _refusal(code: ReasonCode, asked: str) -> EmqxApiError:
    hint = "The account needs an ACL rule that allows it" if code.value == 0x87 else ""
    kind = _ERRORS.get(code.value, EmqxApiError)
    return kind(0, f"{code} (0x{code.value:02x})", "", asked, hint)


def _not_let_in(code: ReasonCode) -> EmqxError:
    if code.value == 0x84:
        return EmqxUnsupportedError("the broker does not speak MQTT 5", "CONNECT")
    if code.value in (0x86, 0x87):
        hint = "Check MQTT username and MQTT password of the connection"
        return EmqxAuthError(0, f"{code} (0x{code.value:02x})", "", "CONNECT", hint)
    return _refusal(code, "CONNECT")

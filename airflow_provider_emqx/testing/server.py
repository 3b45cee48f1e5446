"""The wire: a thread with an event loop that serves one broker on loopback, faults included."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from airflow_provider_emqx.testing.dispatch import Dispatcher
from airflow_provider_emqx.testing.faults import Fault, Faults
from airflow_provider_emqx.testing.http import Answer, Request
from airflow_provider_emqx.testing.mqtt.listener import WEBSOCKET_PATH, MqttListener
from airflow_provider_emqx.testing.pace import HALF_A_TICK, Exit, Pace
from airflow_provider_emqx.testing.ports import Port

if TYPE_CHECKING:
    from aiohttp import web

#: Bytes of a request line that cowboy reads.
MAX_REQUEST_LINE = 8000


class Served(NamedTuple):
    """One request that arrived.

    :param method: HTTP method.
    :param path: Path with query, byte for byte as it was sent.
    :param status: Status that was answered, or would have been: a fault may have kept it from the client; 0 if it
        was never made.
    :param body: Body as it was sent.
    :param done: The broker did what it was asked to do.
    :param fault: Kind of the fault that hit it, or ``None``.
    :param headers: Request headers.
    """

    method: str
    path: str
    status: int
    body: bytes
    done: bool
    fault: str | None
    headers: Any


class Server:
    """Serves a dispatcher on a port of loopback, from a thread of its own.

    :param dispatcher: Answers the requests.
    :param port: Port, 0 for a free one; the same port is taken again after a stop.
    :param mqtt_port: Port for MQTT, in the same way.
    :param requests_per_connection: After so many, the answer has ``Connection: close``.
    :param idle_timeout: Seconds after which an idle connection is closed.
    :param pace: ``None``: as fast as it goes.
    :param log_requests: Keep what arrived in ``requests``.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        port: int,
        mqtt_port: int,
        requests_per_connection: int,
        idle_timeout: float,
        pace: Pace | None,
        log_requests: bool,
    ) -> None:
        self.dispatcher = dispatcher
        self._port = Port(port)
        self.mqtt = MqttListener(dispatcher.state, mqtt_port)
        self.requests_per_connection = requests_per_connection
        self.idle_timeout = idle_timeout
        self.pace = pace
        self.log_requests = log_requests
        self.faults = Faults()
        self.before: Callable[[str, str], object] | None = None
        self.requests: list[Served] = []
        self.request_count = 0
        self.connection_count = 0
        self._state = dispatcher.state
        self._lock = dispatcher.state.lock
        self._alarm: asyncio.TimerHandle | None = None
        self._served: WeakKeyDictionary[asyncio.BaseTransport, int] = WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._exit: Exit | None = None

    @property
    def port(self) -> int:
        """The port, as soon as it is known."""
        return self._port.number

    def start(self) -> None:
        """Listen; returns when requests are served."""
        if self._thread is not None:
            raise RuntimeError("this FakeEmqx is already running")
        # here, so that a missing library is an error at once and not a thread that never gets ready
        import aiohttp.web  # noqa: F401

        # here too: a thread that cannot have one would never get ready either
        loop = asyncio.new_event_loop()
        try:
            with ExitStack() as taken:
                listener = taken.enter_context(self._port.listen())
                mqtt = self.mqtt.bind()
                taken.pop_all()
        except OSError:
            loop.close()
            raise
        ready = threading.Event()
        self._loop, self._stop = loop, asyncio.Event()
        self._thread = threading.Thread(
            target=self._run,
            args=(loop, self._stop, listener, mqtt, ready),
            name=f"FakeEmqx:{self.port}",
            daemon=True,
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """
        Refuse connections and close those that are open at once, as a broker that goes down does.

        The ports stay taken until :meth:`release`, so that :meth:`start` finds them again.
        """
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None or loop is None or stop is None:
            return
        if thread is threading.current_thread():
            raise RuntimeError("a FakeEmqx cannot be stopped from its own thread (before_each_request)")
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        self._thread = self._loop = self._stop = None
        self._port.hold()
        self.mqtt.hold()

    def release(self) -> None:
        """Release the ports for other processes."""
        self._port.release()
        self.mqtt.release()

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: asyncio.Event,
        listener: socket.socket,
        mqtt: socket.socket,
        ready: threading.Event,
    ) -> None:
        try:
            loop.run_until_complete(self._main(stop, listener, mqtt, ready))
        finally:
            loop.close()

    async def _main(
        self, stop: asyncio.Event, listener: socket.socket, mqtt: socket.socket, ready: threading.Event
    ) -> None:
        from aiohttp import web

        self._exit = Exit() if self.pace else None
        web_server = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=self.idle_timeout,
            max_line_size=1 << 20,
            max_field_size=1 << 16,
            lingering_time=0,
        )
        loop = asyncio.get_running_loop()
        server = await loop.create_server(web_server, sock=listener)
        await self.mqtt.start(mqtt)
        with self._lock:
            self._state.on_schedule = lambda: loop.call_soon_threadsafe(self._set_alarm)
        self._set_alarm()
        ready.set()
        try:
            await stop.wait()
        finally:
            with self._lock:
                self._state.on_schedule = None
            self.mqtt.stop()
            server.close()
            for connection in web_server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            # Not web_server.shutdown(): it would wait for answers that are stalled.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def _set_alarm(self) -> None:
        """Do what is due, and schedule the next call."""
        if self._alarm is not None:
            self._alarm.cancel()
        with self._lock:
            self._state.tick()
            seconds = self._state.seconds_to_next()
        # a due date far away is beyond the loop's clock; a second later it is looked at again
        later = None if seconds is None else min(seconds + 0.001, 3600.0)
        loop = asyncio.get_running_loop()
        self._alarm = None if later is None else loop.call_later(later, self._set_alarm)

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        if incoming.path == WEBSOCKET_PATH and incoming.headers.get("upgrade", "").lower() == "websocket":
            return await self.mqtt.serve_websocket(incoming)
        arrived = time.monotonic()
        transport = incoming.transport
        if transport is None:
            return _response(Answer(500))
        served = self._served.get(transport, 0) + 1
        self._served[transport] = served
        if served == 1:
            self.connection_count += 1
        self.request_count += 1
        method, raw_path = incoming.method, incoming.raw_path
        # not incoming.read(), which refuses more than 1 MB; the broker's own limit is the dispatcher's business
        body = await incoming.content.read() if incoming.body_exists else b""
        fault: Fault | None = None
        done = True
        if len(method) + len(raw_path) + len("  HTTP/1.1") > MAX_REQUEST_LINE:
            answer = Answer(414)
            served = self.requests_per_connection
        else:
            with self._lock:
                if self.before is not None:
                    self.before(method, raw_path)
                fault = self.faults.take(method, raw_path) if self.faults.orders else None
                done = fault is None or fault.works
                if done:
                    answer = self.dispatcher.answer(Request(method, raw_path, incoming.headers, body))
                else:
                    answer = Answer(0)
        if self.log_requests:
            kind = fault.kind if fault else None
            status = answer.status if fault is None or done else fault.status
            self.requests.append(Served(method, raw_path, status, body, done, kind, incoming.headers))
        if self._exit is not None and self.pace is not None and done:
            wait = self.pace.wait(arrived, answer)
            if wait > HALF_A_TICK:
                await self._exit.wait_until(arrived + wait)
        if fault is not None:
            return await _misbehave(fault, answer, transport)
        return _response(answer, close=served >= self.requests_per_connection or not incoming.keep_alive)


@cache
def _response_class() -> Callable[[bytes, bool], web.StreamResponse]:
    from aiohttp import web

    class Response(web.StreamResponse):
        """Sends ready-made bytes in one write: what is on the wire is decided here and not by aiohttp."""

        def __init__(self, data: bytes, close: bool) -> None:
            super().__init__()
            self._data = data
            self._close = close

        @property
        def keep_alive(self) -> bool:
            return not self._close

        async def prepare(self, request: web.BaseRequest) -> None:
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError
            transport.write(self._data)

        async def write_eof(self, data: bytes = b"") -> None:
            pass

    return Response


def _response(answer: Answer, close: bool = False) -> web.StreamResponse:
    return _response_class()(_head(answer, len(answer.body), close) + answer.body, close)


def _head(answer: Answer, length: int, close: bool = False) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_phrase(answer.status)}",
        "server: Cowboy",
    ]
    if answer.status != 204:  # which has no length, as cowboy knows
        lines.append(f"content-length: {length}")
    if answer.content_type is not None:
        lines.append(f"content-type: {answer.content_type}")
    if close:
        lines.append("connection: close")
    if answer.headers:
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@cache
def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"


async def _misbehave(fault: Fault, answer: Answer, transport: asyncio.Transport) -> web.StreamResponse:
    """Disturb a connection as ordered; what is returned afterwards is lost if it is closed."""
    if fault.kind in {"status", "redirect"}:
        return _response(Answer(fault.status, fault.body, None, fault.headers))
    if fault.kind in {"reset", "reset_after"}:
        _reset(transport)
    elif fault.kind == "stall":
        await asyncio.sleep(fault.seconds)
    elif fault.kind == "close":
        _write(transport, _head(answer, len(answer.body)) + answer.body)
        transport.close()
    elif fault.kind == "slow":
        whole = _head(answer, len(answer.body)) + answer.body
        for start in range(len(whole)):
            if transport.is_closing():
                break
            _write(transport, whole[start : start + 1])
            await asyncio.sleep(fault.seconds / len(whole))
        transport.close()
    elif fault.kind == "truncated":
        head = _head(answer, len(answer.body) + 64)
        # without a body the middle is in the first line: headers that end early would pass for whole ones
        _write(transport, head + answer.body[: len(answer.body) // 2] if answer.body else head[:10])
        transport.close()
    elif fault.kind == "wrong_length":
        _write(transport, _head(answer, max(0, len(answer.body) - 1)) + answer.body)
        transport.close()
    elif fault.kind == "garbage":
        _write(transport, fault.body or b"\x00\xff\x16\x03garbage\r\n\r\n")
        transport.close()
    return _response(answer if answer.status else Answer(500))


def _write(transport: asyncio.Transport, data: bytes) -> None:
    if not transport.is_closing():
        transport.write(data)


def _reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset, so that the client sees one and not an orderly end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()

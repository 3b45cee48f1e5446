"""Where MQTT clients connect: a TCP port, and WebSockets at the path ``/mqtt`` of the API's port."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from airflow_provider_emqx.testing.mqtt.connection import Connection
from airflow_provider_emqx.testing.ports import Port

if TYPE_CHECKING:
    from aiohttp import web

    from airflow_provider_emqx.testing.state import State

WEBSOCKET_PATH = "/mqtt"


class MqttListener:
    """Serves MQTT for a broker, on the event loop of its server.

    :param state: The broker.
    :param port: TCP port on 127.0.0.1, 0 for a free one; the same port is taken again after a stop.
    """

    def __init__(self, state: State, port: int) -> None:
        self._port = Port(port)
        self._state = state
        self._server: asyncio.Server | None = None
        self._open: set[_Tcp] = set()
        self._sockets: set[Connection] = set()

    @property
    def port(self) -> int:
        """The TCP port, as soon as it is known."""
        return self._port.number

    def bind(self) -> socket.socket:
        """Bind the port."""
        return self._port.listen()

    def hold(self) -> None:
        """Keep the port while nobody listens."""
        self._port.hold()

    def release(self) -> None:
        """Release the port for other processes."""
        self._port.release()

    async def start(self, listener: socket.socket) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Tcp(self._state, self._open), sock=listener)

    def stop(self) -> None:
        """Close the port and every connection at once."""
        if self._server is not None:
            self._server.close()
        for connection in [*self._sockets, *(tcp.connection for tcp in self._open)]:
            if connection is not None:
                connection.lost()
        for tcp in list(self._open):
            if tcp.transport is not None:
                tcp.transport.abort()
        self._open.clear()
        self._sockets.clear()

    async def serve_websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a client over a WebSocket, until one of both ends it."""
        from aiohttp import web

        socket = web.WebSocketResponse(protocols=("mqtt",), max_msg_size=0)
        await socket.prepare(request)
        sending: asyncio.Queue[bytes | None] = asyncio.Queue()
        peer = request.transport.get_extra_info("peername") if request.transport else None
        connection = Connection(
            self._state, sending.put_nowait, lambda: sending.put_nowait(None), peer or ("127.0.0.1", 0)
        )
        self._sockets.add(connection)

        async def send() -> None:
            while (data := await sending.get()) is not None:
                await socket.send_bytes(data)
            await socket.close()

        sender = asyncio.create_task(send())
        try:
            async for message in socket:
                if isinstance(message.data, bytes):
                    connection.feed(message.data)
        finally:
            sender.cancel()
            self._sockets.discard(connection)
            connection.lost()
        return socket


class _Tcp(asyncio.Protocol):
    """Brings a connection's bytes to it."""

    def __init__(self, state: State, register: set[_Tcp]) -> None:
        self._state = state
        self._register = register
        self.transport: asyncio.Transport | None = None
        self.connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport
            peer = transport.get_extra_info("peername") or ("127.0.0.1", 0)
            self.connection = Connection(self._state, transport.write, transport.close, peer[:2])
            self._register.add(self)

    def data_received(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._register.discard(self)
        if self.connection is not None:
            self.connection.lost()

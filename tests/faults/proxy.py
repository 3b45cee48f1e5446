"""
A TCP and HTTP proxy that does damage on the way between a client and a broker.

Each request takes the next fault from a plan. Faults say whether the broker gets the request, and what the client gets
in place of the answer. The proxy counts the connections that clients hold open, and the requests that it let through.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

_RESET = struct.pack("ii", 1, 0)
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Fault:
    """
    What goes wrong with one request.

    :param name: how the answer is spoilt: a method ``_name`` of the proxy.
    :param forward: whether the broker gets the request, and does its work.
    :param detail: what the kind needs: a status, headers, seconds.
    """

    name: str
    forward: bool = False
    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        more = f" {self.status}" if self.status else ""
        extra = "".join(f" {name}: {value[:24]}" for name, value in self.headers)
        return f"{self.name}{more}{extra}{' after the work' if self.forward else ''}"


PASS = Fault("pass", forward=True)


@dataclass
class Answer:
    """The broker's answer, taken apart."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    request: Seen | None = None

    def head(self, length: int | None, *more: tuple[str, str]) -> bytes:
        kept = [
            (name, value)
            for name, value in self.headers
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "keep-alive")
        ]
        if length is not None:
            kept.append(("Content-Length", str(length)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in [*kept, *more])
        return f"HTTP/1.1 {self.status} {self.reason}\r\n{lines}\r\n".encode("latin-1")

    def whole(self, *more: tuple[str, str]) -> bytes:
        if self.status == 204:
            return self.head(None, *more)
        return self.head(len(self.body), *more) + self.body


@dataclass
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    fault: Fault = field(default=PASS)


class FaultyProxy:
    """
    Listens on loopback and forwards to a broker, with faults.

    :param upstream: port of the broker on loopback.
    :param plan: faults for the coming requests; after its end all goes well.
    :param tls: serve TLS with this context.
    :param per_connection: close each connection after so many requests.
    :param announce: say so with ``Connection: close``.
    """

    def __init__(
        self,
        upstream: int,
        plan: Iterable[Fault] = (),
        *,
        tls: ssl.SSLContext | None = None,
        per_connection: int | None = None,
        announce: bool = True,
    ) -> None:
        self.upstream = upstream
        self.plan: Iterator[Fault] = iter(plan)
        self.tls = tls
        self.per_connection = per_connection
        self.announce = announce
        #: what happens to a connection before its first byte is read: ``reset``, ``stall``, ``close`` or None
        self.at_accept: Callable[[], str | None] = lambda: None
        #: what happens to a request after the end of the plan
        self.otherwise: Callable[[Seen], Fault] = lambda request: PASS
        self.requests: list[Seen] = []
        self.port = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._busy = 0
        self._listener: socket.socket | None = None

    # ------------------------------------------------------------------ life

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections clients hold."""
        with self._lock:
            return len(self._open)

    def order(self, *faults: Fault) -> None:
        """Replace the plan."""
        self.plan = iter(faults)

    def start(self) -> FaultyProxy:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Cut everything: new connections are refused, the open ones reset."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # a thread in accept() would keep a closed listener alive
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            # wakes the thread that reads from it, which closes it
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> FaultyProxy:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def settle(self, seconds: float = 10.0) -> None:
        """Wait until no request is on its way to the broker any more."""
        self._wait(lambda: self._busy == 0, seconds)

    def wait_closed(self, seconds: float = 10.0) -> int:
        """Wait until clients have closed their connections; give how many they have not."""
        self._wait(lambda: not self._open, seconds)
        return self.open

    def _wait(self, met: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self._lock:
                if met():
                    return
            time.sleep(0.001)

    # ------------------------------------------------------------------ connections

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        served = connection
        upstream: http.client.HTTPConnection | None = None
        try:
            early = self.at_accept()
            if early == "reset":
                _reset(connection)
                return
            if early == "close":
                return
            if early == "stall":
                connection.recv(1)
                while connection.recv(65536):
                    pass
                return
            if self.tls is not None:
                served = self.tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.discard(connection)
                    self._open.add(served)
            upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
            self._converse(served, upstream)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            if upstream is not None:
                upstream.close()
            with suppress(OSError):
                served.close()
            with self._lock:
                self._open.discard(connection)
                self._open.discard(served)

    def _converse(self, connection: socket.socket, upstream: http.client.HTTPConnection) -> None:
        reader = connection.makefile("rb")
        count = 0
        while (request := _read_request(reader)) is not None:
            count += 1
            fault = next(self.plan, None) or self.otherwise(request)
            request.fault = fault
            with self._lock:
                self.requests.append(request)
                self._busy += 1
            try:
                answer = _forward(upstream, request) if fault.forward else Answer(200, "OK", [], b"{}")
            finally:
                with self._lock:
                    self._busy -= 1
            answer.request = request
            last = self.per_connection is not None and count >= self.per_connection
            if fault.name == "pass":
                closing = (("Connection", "close"),) if last and self.announce else ()
                connection.sendall(answer.whole(*closing))
                if last:
                    return
            elif not getattr(self, f"_{fault.name}")(connection, answer, fault):
                return

    # ------------------------------------------------------------------ faults; true: the connection lives on

    def _reset(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        _reset(connection)
        return False

    def _close(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        return False

    def _stall(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Answer nothing until the client gives up."""
        connection.settimeout(60)
        while connection.recv(65536):
            pass
        return False

    def _trickle(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Send the answer, headers included, byte by byte."""
        for byte in answer.whole():
            connection.sendall(bytes([byte]))
            time.sleep(fault.seconds)
        return True

    def _trickle_body(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        body = answer.body + b" " * 300
        connection.sendall(answer.head(len(body)))
        for byte in body:
            connection.sendall(bytes([byte]))
            time.sleep(fault.seconds)
        return True

    def _truncated(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        whole = answer.head(len(answer.body) + 10) + answer.body
        connection.sendall(whole[: max(1, int(len(whole) * fault.seconds))])
        return False

    def _doubled(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        connection.sendall(answer.whole() * 2)
        return True

    def _too_short(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Announce fewer bytes than are sent."""
        body = answer.body or b"{}"
        connection.sendall(answer.head(len(body) - 1) + body)
        return True

    def _too_long(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Announce more bytes than are sent, then end."""
        connection.sendall(answer.head(len(answer.body) + 7) + answer.body)
        return False

    def _no_length(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """End the answer with the connection, as HTTP/1.0 does: it may look whole."""
        connection.sendall(answer.head(None, ("Connection", "close")) + answer.body)
        return False

    def _chunked(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        if answer.status == 204:
            connection.sendall(answer.whole())
            return True
        head = answer.head(None, ("Transfer-Encoding", "chunked"))
        parts = [answer.body[start : start + 7] for start in range(0, len(answer.body), 7)]
        connection.sendall(
            head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        )
        return True

    def _broken_chunks(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        connection.sendall(answer.head(None, ("Transfer-Encoding", "chunked")) + b"zz\r\n" + answer.body)
        return False

    def _gzip(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        if answer.status == 204:
            connection.sendall(answer.whole())
            return True
        body = gzip.compress(answer.body)
        connection.sendall(answer.head(len(body), ("Content-Encoding", "gzip")) + body)
        return True

    def _no_gzip(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Claim gzip and send something else."""
        body = answer.body or b"{}"
        connection.sendall(answer.head(len(body), ("Content-Encoding", "gzip")) + body)
        return True

    def _interim(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + answer.whole())
        return True

    def _garbage(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        connection.sendall(fault.body)
        return False

    def _status(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        headers = [("Content-Type", "text/html"), *fault.headers]
        connection.sendall(Answer(fault.status, "Answer", headers, fault.body).whole())
        return True

    def _echo(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Refuse with all that was sent, in place of the mark in the fault's body."""
        request = answer.request
        assert request is not None
        sent = " ".join(
            [
                *(f"{name}: {value}" for name, value in request.headers),
                request.body.decode("utf-8", "replace"),
            ]
        )
        body = fault.body.replace(b"MARK", json.dumps(sent, ensure_ascii=False)[1:-1].encode())
        kind = "text/html" if body.startswith(b"<") else "application/json"
        connection.sendall(Answer(fault.status, "Answer", [("Content-Type", kind)], body).whole())
        return True

    def _close_unannounced(self, connection: socket.socket, answer: Answer, fault: Fault) -> bool:
        """Answer well, then end the connection that the client believes to be alive."""
        connection.sendall(answer.whole())
        return False


def _reset(connection: socket.socket) -> None:
    """Close with a TCP reset; the socket is closed for good when nobody reads from it any more."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with suppress(OSError):
        connection.close()


def _read_request(reader: Any) -> Seen | None:
    line = reader.readline(65537)
    if not line.endswith(b"\r\n"):
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = []
    while (line := reader.readline(65537)) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    body = reader.read(length)
    return Seen(method, target, headers, body) if len(body) == length else None


def _forward(upstream: http.client.HTTPConnection, request: Seen) -> Answer:
    # a new connection where the broker has closed the old one
    for attempt in (1, 2):
        try:
            upstream.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                upstream.putheader(name, value)
            upstream.endheaders(request.body or None)
            response = upstream.getresponse()
            break
        except (http.client.RemoteDisconnected, ConnectionError, http.client.CannotSendRequest):
            upstream.close()
            if attempt == 2:
                raise
    return Answer(response.status, response.reason or "OK", response.getheaders(), response.read())


def retry_after_forms() -> list[str]:
    """Every way to write ``Retry-After``, right and wrong, none of which asks for a wait."""
    return [
        "0",
        " 0 ",
        "-1",
        "0.5",
        "soon",
        "",
        "1e9x",
        "\u00b2",
        formatdate(time.time() - 60, usegmt=True),
        formatdate(0),
        "Mon, 32 Foo 20999 99:99:99 GMT",
        "0, 0",
    ]


LOCATIONS = (
    "https://sso.example.com/login?token=planted",
    "/login",
    "//elsewhere.example.com",
    "https://[broken",
    "http://\xff\xfe",
    "javascript:alert(1)",
    "",
)
GARBAGE = (b"\x00\x01\x02\xff\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 999999 X\r\n\r\n", b"HTTP/1.1\r\n\r\n",
           b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
           b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")  # fmt: skip


def quick_faults() -> list[Fault]:
    """Every fault that takes no time."""
    either = [Fault(name, forward) for name in ("reset", "close") for forward in (False, True)]
    spoilt = [
        Fault(name, True)
        for name in (
            "doubled", "too_short", "too_long", "no_length", "chunked", "broken_chunks", "gzip", "no_gzip", "interim",
            "close_unannounced",
        )
    ]  # fmt: skip
    cut = [Fault("truncated", True, seconds=share) for share in (0.01, 0.1, 0.5, 0.9, 0.99)]
    garbage = [Fault("garbage", forward, body=body) for body in GARBAGE for forward in (False, True)]
    redirects = [Fault("status", status=status, headers=(("Location", place),)) for place in LOCATIONS
                 for status in (301, 302, 307)]  # fmt: skip
    refusals = [
        Fault("status", status=status, body=PAGE) for status in (200, 401, 403, 404, 408, 413, 425, 431, 500)
    ]
    refusals += [Fault("status", status=status, body=b"") for status in (200, 401, 500)]
    # what a gateway says after the broker has done its work
    lost = [
        Fault("status", forward, status, PAGE) for status in (502, 504, 520, 524) for forward in (False, True)
    ]
    waits = [
        Fault("status", status=status, body=PAGE, headers=(("Retry-After", wait),))
        for status in (429, 503)
        for wait in retry_after_forms()
    ]
    return [*either, *spoilt, *cut, *garbage, *redirects, *refusals, *lost, *waits]

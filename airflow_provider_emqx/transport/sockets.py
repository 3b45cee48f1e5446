"""TLS context and sockets for both drivers: connections for requests that enforce a deadline."""

from __future__ import annotations

import os
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxConfigError

if TYPE_CHECKING:
    from ssl import SSLContext

    from requests.adapters import HTTPAdapter


def tls_context(verify: bool | str) -> SSLContext:
    """
    Make the TLS context, the same for both drivers, which by themselves would trust different authorities.

    :param verify: ``True`` for the authorities of the system and of ``certifi``, the path of a CA file, or ``False``.
    :raises EmqxConfigError: if the CA file cannot be used.
    """
    if not isinstance(verify, str):
        return _context(verify, 0)
    try:
        # a file that was replaced is read again
        return _context(verify, os.stat(verify).st_mtime_ns)
    except OSError as error:
        # ssl.SSLError, for a file without certificates, is one too
        raise EmqxConfigError(
            f"the CA file {verify!r} (field Verify TLS certificate) cannot be used: "
            f"{error.strerror or 'it holds no certificates in PEM form'}"
        ) from None


@lru_cache(maxsize=16)
def _context(verify: bool | str, _modified: int) -> SSLContext:
    """Make a context once: it takes tens of milliseconds, and a triggerer has many clients."""
    import ssl

    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    context = ssl.create_default_context()
    if verify:
        import certifi

        context.load_verify_locations(certifi.where())
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Watch(threading.local):
    """
    One attempt as its socket sees it; each thread has its own.

    A socket's timeout begins anew with each byte, so that an answer that trickles in would never end.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._patience = 0.0
        #: whether something of the request may have left this machine
        self.sent = False

    def begin(self, patience: float, left: float) -> None:
        """
        Begin an attempt.

        :param patience: longest time between two bytes, in seconds.
        :param left: seconds that are left for all.
        """
        self._until = time.monotonic() + left
        self._patience = patience
        self.sent = False

    @property
    def timeout(self) -> float:
        """Seconds that the next read or write may take."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return min(self._patience, left)


def _response_class(watch: Watch) -> Any:
    """Make the class of answers whose every read keeps to the watch."""
    import io
    from http.client import HTTPResponse, IncompleteRead

    class Reader(io.RawIOBase):
        def __init__(self, sock: Any, raw: Any) -> None:
            self._sock, self._raw = sock, raw
            self.ended = False

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int | None:
            self._sock.settimeout(watch.timeout)
            count: int | None = self._raw.readinto(buffer)
            self.ended = count == 0
            return count

        def close(self) -> None:
            self._raw.close()
            super().close()

    class Response(HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self._reader = Reader(sock, self.fp.detach())
            self.fp = io.BufferedReader(self._reader)

        def begin(self) -> None:
            super().begin()
            unread = self.length is None and not self.chunked and "Content-Length" in self.headers
            if self._reader.ended or unread:
                # http.client takes headers that break off for an answer without a body, and ignores a wrong length
                raise IncompleteRead(b"")

    return Response


def watched_adapter(watch: Watch, tls: SSLContext | None) -> HTTPAdapter:
    """
    Make the pool of connections of requests, with connections that keep to a watch.

    :param watch: begun by the caller before each attempt.
    :param tls: the TLS context, ``None`` for an address without TLS.
    """
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Watched(HTTPConnection):
        response_class = _response_class(watch)
        _connecting = False

        def connect(self) -> None:
            self._connecting = True
            try:
                super().connect()
            finally:
                self._connecting = False

        def send(self, data: Any) -> None:
            if self.sock is None:
                self.connect()
            # while connecting, what is sent is for a proxy, within the time for connecting
            if not self._connecting:
                watch.sent = True
                self.sock.settimeout(watch.timeout)
            super().send(data)

    class WatchedTls(Watched, HTTPSConnection):
        pass

    class Adapter(HTTPAdapter):
        _pool: Any = None

        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
            # before its first connection is made, for pools of a proxy as well
            pool.ConnectionCls = WatchedTls if pool.scheme == "https" else Watched
            self._pool = pool
            return pool

        def close(self) -> None:
            if self._pool is not None:
                # urllib3 leaves this to the garbage collector, which comes late after an error
                self._pool.close()
            super().close()

        def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
            host, _ = super().build_connection_pool_key_attributes(*args, **kwargs)
            return host, {"ssl_context": tls} if tls else {}

        def cert_verify(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing: the context knows what to trust, and the base class would add to it."""

    return Adapter()

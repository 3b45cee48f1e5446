"""A plain HTTP client for the tests of FakeEmqx: nothing of the provider is in it."""

from __future__ import annotations

import http.client
import json
import socket
from base64 import b64encode
from typing import Any, NamedTuple

from airflow_provider_emqx.testing import FakeEmqx

AUTHENTICATOR = "/authentication/password_based%3Abuilt_in_database"
USERS = AUTHENTICATOR + "/users"
IMPORT = AUTHENTICATOR + "/import_users"


class Reply(NamedTuple):
    """Status, decoded body (text if it is no JSON) and headers."""

    status: int
    body: Any
    headers: Any


def call(
    broker: FakeEmqx,
    method: str,
    path: str,
    body: Any = None,
    *,
    key: tuple[str, str] | None = ("key", "secret"),
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
    timeout: float = 10,
) -> Reply:
    """Send one request over a connection of its own; the path goes out byte for byte."""
    sent = {"Accept": "application/json", **(headers or {})}
    if key is not None:
        sent["Authorization"] = "Basic " + b64encode(":".join(key).encode()).decode()
    content = raw
    if body is not None:
        content = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=timeout)
    try:
        target = path if path.startswith(("/api/", "/status")) else broker.base_path + path
        connection.request(method, target, content, sent)
        return read(connection.getresponse())
    finally:
        connection.close()


def read(response: http.client.HTTPResponse) -> Reply:
    content = response.read()
    try:
        return Reply(response.status, json.loads(content), response.headers)
    except ValueError:
        return Reply(response.status, content.decode("utf-8", "replace"), response.headers)


def raw_exchange(broker: FakeEmqx, request: bytes, timeout: float = 10) -> bytes:
    """Send bytes and return what comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", broker.port), timeout=timeout) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def upload(broker: FakeEmqx, path: str, filename: str, content: bytes) -> Reply:
    """Send a file as a multipart form does."""
    boundary = "0123456789abcdef"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="filename"; filename="{filename}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return call(broker, "POST", path, raw=body, headers=headers)

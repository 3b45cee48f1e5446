"""Everything a driver must know to reach one broker."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """
    Address, credentials and limits of a broker's MQTT listener. ``repr`` shows no secret.

    :param host: name or address.
    :param port: TCP port.
    :param tls: whether to speak TLS.
    :param path: path of the WebSocket, ``None`` for MQTT over TCP.
    :param username: username, ``None`` for none.
    :param password: password, ``None`` for none.
    :param verify: whether to verify the server's certificate, or the path of a CA file.
    :param connect_timeout: seconds until the connection stands.
    :param read_timeout: seconds until an answer comes.
    :param read_only: publish nothing.
    """

    host: str
    port: int
    tls: bool = False
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    verify: bool | str = True
    connect_timeout: float = 5.0
    read_timeout: float = 65.0
    read_only: bool = False

    @property
    def url(self) -> str:
        """The address as errors name it."""
        scheme = ("mqtt" if self.path is None else "ws") + ("s" if self.tls else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{self.path or ''}"


@dataclass(frozen=True, slots=True)
class Settings:
    """
    One broker's address, credentials and limits. ``repr`` shows no secret.

    :param origin: scheme, host and port, as ``https://broker.example.com:8443``.
    :param base: path of the API below the origin, as ``/api/v5``; ``None`` if the generation is to be found out.
    :param prefix: path that a gateway puts before the API, mostly empty.
    :param generation: ``"v4"``, ``"v5"``, or ``None`` where it is to be found out.
    :param key: API key (v5) or AppID (v4).
    :param secret: API secret or AppSecret.
    :param version: the broker's version where the connection states it, as ``(5, 8, 9)``.
    :param authenticator: id of the v5 authenticator that holds the users.
    :param user_id_type: what v4 users are keyed by, ``"username"`` or ``"clientid"``.
    :param namespace: EMQX 6.1+ namespace.
    :param serverless: whether the address is one of EMQX Cloud Serverless.
    :param verify: whether to verify the server's certificate, or the path of a CA file.
    :param connect_timeout: seconds.
    :param read_timeout: seconds between two bytes of an answer.
    :param attempts: how often one exchange is tried at most.
    :param deadline: seconds for one exchange with all its attempts and waits.
    :param rate_limit: requests per second at most, ``None`` for no limit.
    :param proxy: URL of an HTTP proxy; proxies of the environment are never used.
    :param read_only: refuse every request but GET.
    :param retry_unsafe: repeat unrepeatable requests that the broker says it could not carry out.
    :param mqtt: its MQTT listener, if the connection names one.
    """

    origin: str
    base: str | None = None
    prefix: str = ""
    generation: str | None = None
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    version: tuple[int, ...] | None = None
    authenticator: str = "password_based:built_in_database"
    user_id_type: str = "username"
    namespace: str | None = None
    serverless: bool = False
    verify: bool | str = True
    connect_timeout: float = 5.0
    read_timeout: float = 65.0
    attempts: int = 4
    deadline: float = 300.0
    rate_limit: float | None = None
    proxy: str | None = field(default=None, repr=False)
    read_only: bool = False
    retry_unsafe: bool = False
    mqtt: MqttSettings | None = None

    @property
    def secrets(self) -> frozenset[str]:
        """Values that no error may repeat: key, secrets, the header's content, the proxy's password."""
        proxy = unquote(urlsplit(self.proxy or "").password or "")
        pair = self.authorization.removeprefix("Basic ")
        mqtt = self.mqtt.password if self.mqtt else None
        return frozenset(text for text in (self.key, self.secret, pair, proxy, mqtt) if text)

    @property
    def authorization(self) -> str:
        return "Basic " + b64encode(f"{self.key}:{self.secret}".encode()).decode()

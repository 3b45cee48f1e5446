"""The broker's state. Routes read and change it; :class:`FakeEmqx` lets tests do the same."""

from __future__ import annotations

import heapq
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow_provider_emqx.testing.mqtt.packets import Reason
from airflow_provider_emqx.testing.mqtt.presence import announcement
from airflow_provider_emqx.testing.mqtt.sessions import Client, Sessions
from airflow_provider_emqx.testing.passwords import SHA256_PREFIX, SHA256_SUFFIX, User
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.tables import Table

BUILT_IN = "password_based:built_in_database"
Version = tuple[int, ...]


def parse_version(text: str) -> Version:
    """Turn ``"5.8.9"`` into ``(5, 8, 9)``."""
    parts = text.split("-")[0].split(".")
    if not all(part.isdigit() for part in parts) or not 2 <= len(parts) <= 3:
        raise ValueError(f'version must look like "5.8.9" or be "serverless", not {text!r}')
    numbers = tuple(int(part) for part in parts)
    if numbers[0] not in {4, 5, 6}:
        raise ValueError(f"unknown version of EMQX: {text}")
    return numbers + (0,) * (3 - len(numbers))


@dataclass(slots=True)
class NodeInfo:
    """One node of the cluster."""

    name: str
    started_at: float
    running: bool = True
    role: str = "core"  # or "replicant"; API v5
    evacuation: Any = None  # an Eviction while it is being emptied

    @property
    def lets_in(self) -> bool:
        """Whether clients may connect: as long as an evacuation waits for health checks, they still may."""
        return self.evacuation is None or self.evacuation.state == "waiting_health_check"


ROLES = ("administrator", "viewer", "publisher")


@dataclass(slots=True)
class ApiKey:
    """Credentials of the management API."""

    key: str
    secret: str = field(repr=False)
    role: str = "administrator"
    expired: bool = False
    allow: Callable[[str, str], bool] | None = None


@dataclass(slots=True)
class Authenticator:
    """One authenticator of API v5 with its users, by namespace (``None`` is the global one)."""

    config: dict[str, Any]
    users: Table[User] = field(default_factory=Table)
    namespaces: dict[str, Table[User]] = field(default_factory=dict)
    tried: Counter[str] = field(default_factory=Counter)

    def users_of(self, namespace: str | None) -> Table[User]:
        """Return the users of a namespace."""
        return self.users if namespace is None else self.namespaces.setdefault(namespace, Table())


@dataclass(slots=True)
class Ban:
    """One ban. Times are seconds since the epoch; ``until`` is ``None`` for no end."""

    kind: str
    who: str
    by: str
    reason: str
    at: float
    until: float | None


@dataclass(slots=True)
class AclRow:
    """One ACL rule of 4.4; ``subject`` is ``username``, ``clientid`` or ``all``."""

    subject: str
    login: str
    topic: str
    action: str
    access: str


@dataclass(slots=True)
class Alarm:
    """One alarm, active or over."""

    node: str
    name: str
    message: str
    details: dict[str, Any]
    activate_at: float
    deactivate_at: float | None = None


@dataclass(slots=True)
class Resource:
    """A rule, action, source, connector or 4.4 resource: what the API shows, and whether it works."""

    kind: str
    id: str
    config: dict[str, Any]
    status: str = "connected"
    created_at: float = 0.0
    metrics: Counter[str] = field(default_factory=Counter)


def rule_topics(sql: str) -> list[str]:
    """Return what a rule selects from."""
    clause = re.search(r"\bFROM\b(.*?)(?:\bWHERE\b|$)", sql, re.IGNORECASE | re.DOTALL)
    return re.findall(r"[\"']([^\"']+)[\"']", clause.group(1)) if clause else []


@dataclass(slots=True)
class Backup:
    """One exported file."""

    filename: str
    node: str
    created_at: float
    content: bytes


class State:
    """All of one broker (cluster), without any socket.

    :param version: As in :class:`FakeEmqx`, and so for the others.
    """

    def __init__(
        self,
        version: str,
        *,
        nodes: list[str] | None,
        edition: str | None,
        user_id_type: str,
        password_hash_algorithm: Mapping[str, Any] | None,
        authenticator: bool,
        authorization: bool,
        modules: bool,
        utc_offset: float,
    ) -> None:
        self.serverless = version == "serverless"
        self.version_text = "5.8.9" if self.serverless else version
        self.version = parse_version(self.version_text)
        self.generation = "v4" if self.version < (5,) else "v5"
        self.edition = edition or ("Enterprise" if self.version >= (5, 9) else "Opensource")
        self.utc_offset = utc_offset
        self.lock = threading.RLock()
        self.offset = 0.0  # by how much a test has moved the clock
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._dues = 0
        self.on_schedule: Callable[[], object] | None = (
            None  # called with a new due date, for the thread that watches the clock
        )

        self.routes_at = -math.inf  # when a restarted broker serves its paths
        self.databases_at = -math.inf  # when it serves its users and rules

        started = self.now()
        names = nodes or ["emqx@127.0.0.1"]
        self.nodes = {name: NodeInfo(name, started) for name in names}
        self.mqtt = Sessions(self.now, self.schedule)
        self.announce_presence(True)
        if self.at_least(5, 8, 5):
            self.mqtt.retained_per_second = 1_000
        self._turn = 0
        self._port = 40000

        self.keys: dict[str, ApiKey] = {}
        algorithm = password_hash_algorithm or (SHA256_PREFIX if self.generation == "v4" else SHA256_SUFFIX)
        self._built_in = self._configuration(user_id_type, dict(algorithm))
        self.auth_plugin = authenticator  # 4.4: emqx_auth_mnesia is loaded
        self.v4_users: dict[str, Table[User]] = {"username": Table(), "clientid": Table()}
        self.authenticators: dict[str, Authenticator] = {}
        if authenticator and self.generation == "v5":
            self.authenticators[BUILT_IN] = Authenticator(self._built_in)
        self.acl_users: Table[list[dict[str, Any]]] = Table()
        self.acl_clients: Table[list[dict[str, Any]]] = Table()
        self.acl_namespaces: dict[tuple[str, str], Table[list[dict[str, Any]]]] = {}  # by namespace and kind
        self.acl_rows: dict[tuple[str, str, str, str], AclRow] = {}  # 4.4, oldest first
        self.authorization: dict[str, Any] | None = (
            {"enable": True, "max_rules": 100, "type": "built_in_database"} if authorization else None
        )
        self.namespaces: set[str] = set()  # managed ones, since 6.1
        self.bans: dict[tuple[str, str], Ban] = {}

        self.modules = modules  # 4.4: topic_metrics and delayed are loaded
        self.mqtt.delays = modules
        self.alarms: list[Alarm] = []
        self.past_alarms: list[Alarm] = []
        self.closed_listeners: set[str] = set()
        self.restarts: Counter[str] = Counter()  # listener or resource id -> how often restarted
        self.resources: dict[str, dict[str, Resource]] = {
            kind: {} for kind in ("rules", "actions", "sources", "connectors", "resources")
        }
        self.backups: dict[str, Backup] = {}
        #: 4.4: whether files are found to be read, and to be deleted
        self.backups_found = {"GET": True, "DELETE": True}
        self.imported: list[str] = []  # names of the backups that were imported, in order
        self.importing: set[str] = set()  # names of those that are being imported
        # ordered by a test: seconds that imports take, and records at which they end
        self.import_seconds: list[float] = []
        self.import_records: list[int] = []
        # users of gateways and listeners: group and id, then hash, salt and flag
        self.gateway_users: dict[tuple[Any, Any], tuple[Any, ...]] = {}
        self.rebalances: dict[str, Any] = {}  # coordinator -> Rebalance
        self.license_days = 365.0
        self.cluster_name = "emqxcl"
        self.undeliverable: set[str] = (
            set()
        )  # topics of which a publish finds subscribers but cannot reach them
        self.routes: list[Route] = []

    # clock

    def now(self) -> float:
        """Return the broker's time, seconds since the epoch."""
        return time.time() + self.offset

    def schedule(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function after so many seconds of the broker's clock."""
        self._dues += 1
        heapq.heappush(self._due, (self.now() + seconds, self._dues, function))
        if self.on_schedule is not None:
            self.on_schedule()

    def seconds_to_next(self) -> float | None:
        """Return when the next thing is due, in seconds; ``None``: nothing is."""
        return max(0.0, self._due[0][0] - self.now()) if self._due else None

    def tick(self) -> None:
        """Do what has become due. Called before every request and every check of a test."""
        while self._due and self._due[0][0] <= self.now():
            heapq.heappop(self._due)[2]()

    def advance(self, seconds: float) -> None:
        """Move the clock on, and do what becomes due on the way at its own time: it may bring about more."""
        end = self.offset + seconds
        while self._due and self._due[0][0] <= time.time() + end:
            self.offset = max(self.offset, self._due[0][0] - time.time())
            heapq.heappop(self._due)[2]()
        self.offset = end

    # versions

    def at_least(self, *version: int) -> bool:
        """Return whether the broker is of this version or a later one."""
        return self.version >= version

    # nodes

    @property
    def node(self) -> str:
        """The node that answers: the first one that runs."""
        return next((info.name for info in self.nodes.values() if info.running), next(iter(self.nodes)))

    def known_node(self, name: str) -> NodeInfo:
        """Return a node that a test named."""
        if name not in self.nodes:
            raise ValueError(f"unknown node {name!r}; expected one of {', '.join(self.nodes)}")
        return self.nodes[name]

    def running(self) -> list[NodeInfo]:
        """Return the nodes that run."""
        return [info for info in self.nodes.values() if info.running]

    def next_node(self) -> str:
        """Return the node that the next device lands on."""
        candidates = [info.name for info in self.running() if info.lets_in] or [self.node]
        self._turn += 1
        return candidates[self._turn % len(candidates)]

    def next_port(self) -> int:
        """Return a source port for the next device."""
        self._port = 40000 + (self._port - 39999) % 20000
        return self._port

    # alarms

    def end_alarms(self, ended: list[Alarm]) -> None:
        """Move alarms to the history."""
        for alarm in ended:
            self.alarms.remove(alarm)
            alarm.deactivate_at = self.now()
            self.past_alarms.insert(0, alarm)

    # users

    def _configuration(self, user_id_type: str, algorithm: dict[str, Any]) -> dict[str, Any]:
        config = {
            "id": BUILT_IN,
            "backend": "built_in_database",
            "enable": True,
            "mechanism": "password_based",
            "password_hash_algorithm": algorithm,
            "user_id_type": user_id_type,
        }
        if self.version >= (5, 8):
            config["bootstrap_file"] = "${EMQX_ETC_DIR}/auth-built-in-db-bootstrap.csv"
            config["bootstrap_type"] = "plain"
        if self.version >= (6, 3):
            config["precondition"] = ""
        return config

    def _built_in_now(self) -> dict[str, Any]:
        found = self.authenticators.get(BUILT_IN)
        return found.config if found else self._built_in

    @property
    def user_id_type(self) -> str:
        """Whether the ids of users are usernames or client ids."""
        return str(self._built_in_now()["user_id_type"])

    @property
    def algorithm(self) -> dict[str, Any]:
        """The hash algorithm of the built-in database."""
        algorithm: dict[str, Any] = self._built_in_now()["password_hash_algorithm"]
        return algorithm

    @property
    def users(self) -> Table[User]:
        """Users of the built-in database; on 4.4 those of ``user_id_type``."""
        if self.generation == "v4":
            return self.v4_users[self.user_id_type]
        authenticator = self.authenticators.get(BUILT_IN)
        return authenticator.users if authenticator else Table()

    def verify(self, user_id: str, password: str) -> bool:
        """Return whether a device with these credentials would get in."""
        user = self.users.get(user_id)
        return user is not None and user.accepts(password, self.algorithm)

    # bans

    def bans_in_force(self) -> list[Ban]:
        """Return the bans that have not lapsed, oldest first."""
        now = self.now()
        return [ban for ban in self.bans.values() if ban.until is None or ban.until > now]

    def ban(self, ban: Ban) -> None:
        """Put a ban in force, as the newest; one of a client id ends that client's session, other kinds end none."""
        self.bans.pop((ban.kind, ban.who), None)
        self.bans[ban.kind, ban.who] = ban
        if ban.kind == "clientid":
            self.kick(ban.who)

    def banned(self, clientid: str, username: str | None, ip_address: str) -> bool:
        """Return whether a ban keeps a device out."""
        import ipaddress

        for ban in self.bans_in_force():
            value = {"clientid": clientid, "username": username}.get(ban.kind.removesuffix("_re"), ip_address)
            if value is None:
                continue
            if ban.kind.endswith("_re"):
                hit = re.search(ban.who, value) is not None
            elif ban.kind == "peerhost_net":
                hit = ipaddress.ip_address(value) in ipaddress.ip_network(ban.who, strict=False)
            else:
                hit = ban.who == value
            if hit:
                return True
        return False

    # clients

    def user_id(self, client: Client) -> str | None:
        """Return under which id the built-in database knows a client."""
        return client.username if self.user_id_type == "username" else client.clientid

    def connect(self, client: Client, password: str | None) -> Reason:
        """Let a device connect, unless it is banned or its password is wrong.

        :return: Why it was not let in, or success.
        """
        metrics = self.mqtt.metrics
        for name in ("client.connect", "client.authenticate", "packets.received", "packets.connect.received"):
            metrics[name] += 1
        user_id = self.user_id(client) or ""
        authenticator = self.authenticators.get(BUILT_IN)
        refused = Reason.SUCCESS
        if not self.nodes[client.node].lets_in:
            refused = Reason.USE_ANOTHER_SERVER
        elif self.banned(client.clientid, client.username, client.ip_address):
            refused = Reason.BANNED
        elif password is not None and (authenticator or self.auth_plugin):
            if not self.verify(user_id, password):
                known = user_id in self.users
                refused = Reason.BAD_USER_NAME_OR_PASSWORD if known else Reason.NOT_AUTHORIZED
            if authenticator:
                authenticator.tried["failed" if refused else "success"] += 1
        generation_4 = self.generation == "v4"
        if refused:
            metrics["client.auth.failure" if generation_4 else "authentication.failure"] += 1
            metrics["packets.connack.auth_error"] += 1
            return refused
        self.mqtt.connect(client)
        for name in ("client.connack", "client.connected", "packets.connack.sent", "packets.sent"):
            metrics[name] += 1
        metrics["client.auth.success" if generation_4 else "authentication.success"] += 1
        if password is None:
            metrics[
                "client.auth.success.anonymous" if generation_4 else "authentication.success.anonymous"
            ] += 1
        return Reason.SUCCESS

    def announce_presence(self, wanted: bool) -> None:
        """Publish of clients that come and go, as brokers do by default, or not."""
        self.mqtt.announcement = partial(announcement, self) if wanted else None

    def kick(self, clientid: str) -> bool:
        """End a client's session; one that ``reconnects`` is back at once, unless it is banned."""
        client = self.mqtt.clients.get(clientid)
        if client is None:
            return False
        if client.connected:
            self.mqtt.metrics["client.disconnected"] += 1
            self.mqtt.metrics["session.terminated"] += 1
        self.mqtt.remove(clientid, why="kicked")
        if client.reconnects:
            now = self.now()
            again = Client(
                clientid,
                client.username,
                self.next_node(),
                now,
                now,
                proto_ver=client.proto_ver,
                clean_start=True,
                expiry=client.expiry,
                keepalive=client.keepalive,
                ip_address=client.ip_address,
                port=self.next_port(),
                zone=client.zone,
                reconnects=True,
            )
            self.connect(again, None)
        return True

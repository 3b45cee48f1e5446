"""FakeEmqx: a broker with its HTTP API and MQTT, for tests and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow_provider_emqx.testing import backups, rebalance
from airflow_provider_emqx.testing.dispatch import SERVERLESS_RATE, Dispatcher
from airflow_provider_emqx.testing.faults import KINDS, Fault, Match, Order
from airflow_provider_emqx.testing.mqtt.packets import Reason
from airflow_provider_emqx.testing.mqtt.sessions import FOREVER, Client, Message, Subscription, TopicMetrics
from airflow_provider_emqx.testing.mqtt.topics import valid_topic_filter, valid_topic_name
from airflow_provider_emqx.testing.pace import Pace
from airflow_provider_emqx.testing.passwords import User, make_hash
from airflow_provider_emqx.testing.server import Served, Server
from airflow_provider_emqx.testing.state import BUILT_IN, ROLES, Alarm, ApiKey, Ban, Resource, State
from airflow_provider_emqx.testing.tables import Table
from airflow_provider_emqx.testing.v5.cluster import LISTENERS


class FakeEmqx:
    """A double of EMQX on 127.0.0.1, in a thread of its own: its management API, and its MQTT listener.

    The API answers as the real brokers do, traps included, and is held to recordings of them. Devices are MQTT clients
    at :attr:`mqtt_url`, or exist in memory: :meth:`connect` and its neighbours play them. All methods may be called
    from any thread, also while the broker is stopped.

    .. code-block:: python

        with FakeEmqx("5.8.9") as broker:
            monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
            broker.connect("device-1")
            ...
            assert broker.received("device-1")[0].payload == b"reboot"

    :param version: Any version of EMQX 4.4, 5 or 6, or ``"serverless"`` for EMQX Cloud Serverless: what that
        version does not serve is not there.
    :param key: API key (4.4: AppID); :meth:`add_key` adds more.
    :param secret: Its secret.
    :param port: TCP port; 0 takes a free one. After :meth:`stop`, :meth:`start` takes the same one again.
    :param mqtt_port: TCP port for MQTT clients, in the same way.
    :param pace: ``(rows per second of bulk writes, calls per second)``: be as slow as a real broker, for
        instance :data:`PACE_V5`. Not given: as fast as possible.
    :param user_id_type: Whether the ids of users are usernames or client ids: ``"username"``, ``"clientid"``.
    :param password_hash_algorithm: As in the API, for instance ``{"name": "sha256", "salt_position": "prefix"}``.
    :param authenticator: The built-in database is configured (4.4: plugin ``emqx_auth_mnesia`` is loaded).
    :param authorization: The built-in database is a source of ACL rules (API v5).
    :param modules: The modules ``topic_metrics`` and ``delayed`` are loaded (4.4).
    :param edition: ``"Opensource"`` or ``"Enterprise"``; not given: Opensource before 5.9.
    :param nodes: Names of the cluster's nodes; the first one answers. See :meth:`stop_node`.
    :param base_path: Path of the API when it is not ``/api/v4`` or ``/api/v5``; ``"/api"`` is EMQX Cloud v4.
    :param rate_limit: Calls per second beyond which 429 is answered; ``True`` for Serverless' 10.
    :param idle_timeout: Seconds after which an idle connection is closed: 5 on 4.4, else 60.
    :param requests_per_connection: Requests after which a connection is closed: 100 on 4.4, else 1,000.
    :param utc_offset: Hours by which the node's clock is ahead of UTC; 4.4 prints times in that zone.
    :param log_requests: Keep what arrived in :attr:`requests`.
    """

    def __init__(
        self,
        version: str = "5.8.9",
        *,
        key: str = "key",
        secret: str = "secret",
        port: int = 0,
        mqtt_port: int = 0,
        pace: tuple[float, float] | None = None,
        user_id_type: str = "username",
        password_hash_algorithm: Mapping[str, Any] | None = None,
        authenticator: bool = True,
        authorization: bool = True,
        modules: bool = True,
        edition: str | None = None,
        nodes: list[str] | None = None,
        base_path: str | None = None,
        rate_limit: float | bool | None = None,
        idle_timeout: float | None = None,
        requests_per_connection: int | None = None,
        utc_offset: float = 0.0,
        log_requests: bool = True,
    ) -> None:
        if user_id_type not in {"username", "clientid"}:
            raise ValueError(f'user_id_type is "username" or "clientid", not {user_id_type!r}')
        if edition not in {None, "Opensource", "Enterprise"}:
            raise ValueError(f'edition is "Opensource" or "Enterprise", not {edition!r}')
        if base_path is not None and not base_path.startswith("/"):
            raise ValueError(f'base_path begins with a "/", as "/api" does; {base_path!r} does not')
        self.version = version
        self.key = key
        self.secret = secret
        self.state = State(
            version,
            nodes=nodes,
            edition=edition,
            user_id_type=user_id_type,
            password_hash_algorithm=password_hash_algorithm,
            authenticator=authenticator,
            authorization=authorization,
            modules=modules,
            utc_offset=utc_offset,
        )
        self.state.keys[key] = ApiKey(key, secret)
        v4 = self.state.generation == "v4"
        self.base_path = base_path or f"/api/{self.state.generation}"
        limit = float(SERVERLESS_RATE) if rate_limit is True else rate_limit or None
        self._dispatcher = Dispatcher(self.state, self.base_path, limit)
        self._server = Server(
            self._dispatcher,
            port=port,
            mqtt_port=mqtt_port,
            requests_per_connection=requests_per_connection or (100 if v4 else 1000),
            idle_timeout=idle_timeout if idle_timeout is not None else (5.0 if v4 else 60.0),
            pace=Pace(*pace) if pace else None,
            log_requests=log_requests,
        )

    # life

    def start(self) -> FakeEmqx:
        """Serve requests; returns when the port is open.

        :return: The broker itself.
        :raises OSError: if the port is taken.
        :raises RuntimeError: if it is running.
        """
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop: close the port and all connections, and keep the state.

        Does nothing if it is down. A function of :meth:`before_each_request` cannot call it, since it runs in the
        broker's own thread; a fault ``reset`` is what a client sees of a broker that goes down.
        """
        self._server.stop()

    def restart(self, boot_seconds: float = 0.0, database_seconds: float = 0.0) -> None:
        """Restart as EMQX does: the port opens first.

        Connections of clients end, and their sessions; users, rules and retained messages are kept. API v4 is served
        at once.

        :param boot_seconds: For so long every path, ``/status`` too, answers 404; EMQX 5 and 6.
        :param database_seconds: For so long after that users answer 400 ``not_initialized``, ACL rules and
            the list of authorization sources 500; EMQX 5.
        """
        self.stop()
        with self.state.lock:
            for clientid in list(self.state.mqtt.clients):
                self.state.mqtt.remove(clientid)
            self.state.routes_at = self.state.now() + boot_seconds
            self.state.databases_at = self.state.routes_at
            if not self.state.at_least(6, 0):
                self.state.databases_at += database_seconds
        self.start()

    def __enter__(self) -> FakeEmqx:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._server.release()

    def __repr__(self) -> str:
        return f"FakeEmqx({self.version!r}, port={self.port})"

    # address

    @property
    def port(self) -> int:
        """Port that is served; 0 before the first start if none was asked for."""
        return self._server.port

    @property
    def url(self) -> str:
        """Origin, as ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def mqtt_port(self) -> int:
        """Port for MQTT clients; 0 before the first start if none was asked for."""
        return self._server.mqtt.port

    @property
    def mqtt_url(self) -> str:
        """Address for MQTT clients, as ``mqtt://127.0.0.1:PORT``."""
        return f"mqtt://127.0.0.1:{self.mqtt_port}"

    @property
    def ws_url(self) -> str:
        """Address for MQTT clients over WebSocket, as ``ws://127.0.0.1:PORT/mqtt``."""
        return f"ws://127.0.0.1:{self.port}/mqtt"

    @property
    def api_url(self) -> str:
        """Base of the API, as ``http://127.0.0.1:PORT/api/v5``."""
        return self.url + self.base_path

    def connection(self, **extra: Any) -> dict[str, Any]:
        """Return an Airflow connection to this broker, for ``AIRFLOW_CONN_…`` as JSON.

        :param extra: Fields of the connection's extra, for instance ``attempts=2``.
        """
        host = self.url if self.base_path.startswith("/api/v") else self.api_url
        return {
            "conn_type": "emqx",
            "host": host,
            "login": self.key,
            "password": self.secret,
            "extra": extra,
        }

    # what arrived

    @property
    def requests(self) -> list[Served]:
        """The received requests in order: tuples of method, raw path with query, status, body, done, fault, headers."""
        return self._server.requests

    @property
    def request_count(self) -> int:
        """The number of received requests, also those that are not logged."""
        return self._server.request_count

    @property
    def connection_count(self) -> int:
        """Over how many connections they came."""
        return self._server.connection_count

    # keys

    def add_key(
        self,
        key: str,
        secret: str,
        *,
        role: str = "administrator",
        expired: bool = False,
        allow: Callable[[str, str], bool] | None = None,
    ) -> None:
        """Add or replace an API key.

        :param key: Key.
        :param secret: Secret.
        :param role: ``administrator``, ``viewer`` (reads only) or ``publisher`` (publishes only); API v5.
        :param expired: Refuse it from now on.
        :param allow: Tells by method and route pattern what this key may call, as keys of EMQX Cloud Dedicated.
        """
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; expected one of {', '.join(ROLES)}")
        with self.state.lock:
            self.state.keys[key] = ApiKey(key, secret, role, expired, allow)
            self._dispatcher.forget_keys()

    def remove_key(self, key: str) -> None:
        """Delete an API key.

        :param key: Key.
        """
        with self.state.lock:
            del self.state.keys[key]
            self._dispatcher.forget_keys()

    # faults

    def order_fault(
        self,
        kind: str,
        *,
        match: Match | None = None,
        times: int = 1,
        after: int = 0,
        status: int = 0,
        body: bytes | str = b"",
        headers: Mapping[str, str] | None = None,
        seconds: float = 1.0,
    ) -> None:
        """Make the next requests fail. Orders are used up in the order of the calls.

        :param kind: ``status``: answer ``status``, ``body``, ``headers`` and do nothing; ``redirect``: the same
            with ``Location`` in ``headers``; ``reset``: reset the connection before the work; ``reset_after``:
            after it; ``stall``: do the work, answer ``seconds`` later; ``slow``: send the answer byte by byte over
            ``seconds``; ``truncated``: end the answer in the middle; ``wrong_length``: announce a byte too few;
            ``garbage``: respond with something other than HTTP (``body`` if given); ``close``: answer, then close the
            connection without having said so.
        :param match: Selects requests: a part of ``"METHOD /path?query"``, or a function of method and
            raw path; not given: all.
        :param times: How many of them.
        :param after: How many of them succeed before that.
        :param status: Status of ``status`` (503 if not given) and ``redirect`` (302).
        :param body: Body of ``status`` and ``garbage``.
        :param headers: Headers of ``status`` and ``redirect``.
        :param seconds: Duration of ``stall`` and ``slow``.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind!r}; expected one of {', '.join(KINDS)}")
        if times < 1 or after < 0 or seconds < 0:
            raise ValueError("times must be 1 or more, after and seconds 0 or more")
        if kind == "redirect" and not any(name.lower() == "location" for name in headers or ()):
            raise ValueError('a redirect needs headers={"Location": …}')
        status = status or {"status": 503, "redirect": 302}.get(kind, 0)
        content = body.encode() if isinstance(body, str) else body
        fault = Fault(kind, status, content, headers or {}, seconds)
        with self.state.lock:
            self._server.faults.orders.append(Order(fault, match, times, after))

    def lose_import(self, seconds: float = 0.0) -> None:
        """Lose the response to the next import: the connection is reset, and the import ends later.

        Until then a repeated import of the file is answered with 400 ``enoent``. API v5.

        :param seconds: How long the import takes.
        """
        with self.state.lock:
            self.state.import_seconds.append(seconds)
        self.order_fault("reset_after", match="POST /api/v5/data/import")

    def cut_import(self, records: int) -> None:
        """Let the next import end early, with 204 all the same, as EMQX does if a table is cut. API v5.

        :param records: How many of each table are imported.
        """
        with self.state.lock:
            self.state.import_records.append(records)

    @property
    def pending_faults(self) -> int:
        """The number of orders that are not used up yet."""
        return len(self._server.faults.orders)

    def clear_faults(self) -> None:
        """Forget all orders."""
        with self.state.lock:
            self._server.faults.orders.clear()

    def before_each_request(self, function: Callable[[str, str], object] | None) -> None:
        """Call a function before every request is served: the world changes while a client looks at it.

        :param function: Called with method and raw path, in the broker's own thread: it may call all methods of the
            broker but :meth:`stop`, and must send it no requests. ``None`` ends it.
        """
        with self.state.lock:
            self._server.before = function

    # time

    def now(self) -> float:
        """Return the broker's time, seconds since the epoch."""
        return self.state.now()

    def advance(self, seconds: float) -> None:
        """Move the broker's clock: sessions expire, bans lapse, delayed messages and late devices come.

        :param seconds: By how much. What becomes due meanwhile happens at its own time.
        """
        with self.state.lock:
            self.state.advance(seconds)

    # devices

    @property
    def clients(self) -> Table[Client]:
        """All clients and sessions by client id."""
        with self.state.lock:
            self.state.tick()
            return self.state.mqtt.clients

    def connect(
        self,
        clientid: str,
        username: str | None = None,
        password: str | None = None,
        *,
        clean_start: bool = True,
        session_expiry: int = 0,
        version: int = 5,
        keepalive: int = 60,
        ip_address: str = "127.0.0.1",
        node: str | None = None,
        connected_at: float | None = None,
        reconnects: bool = False,
        on_message: Callable[[Message], object] | None = None,
    ) -> bool:
        """Connect a device.

        :param clientid: Client id.
        :param username: Username.
        :param password: Checked against the users if given; without one the device is let in.
        :param clean_start: Begin with an empty session.
        :param session_expiry: Seconds for which the session outlives the connection.
        :param version: MQTT version: 3, 4 (3.1.1) or 5.
        :param keepalive: Seconds.
        :param ip_address: Address that the broker sees.
        :param node: Node that it lands on; not given: the running ones in turn.
        :param connected_at: Since when it is connected, seconds since the epoch; not given: now.
        :param reconnects: It comes back at once when it is kicked.
        :param on_message: Called with each message that it receives; it may publish, subscribe and disconnect, as
            :meth:`reply` does, and must not wait.
        :return: ``False`` when the broker did not let it in: banned, a wrong password, or a node that is evacuated.
        """
        state = self.state
        if version not in {3, 4, 5}:
            raise ValueError(f"version is that of MQTT: 3, 4 or 5, not {version!r}")
        if node is not None and not state.known_node(node).running:
            raise ValueError(f"node {node} is stopped")
        with state.lock:
            state.tick()
            now = state.now() if connected_at is None else connected_at
            client = Client(
                clientid,
                username,
                node or state.next_node(),
                now,
                now,
                proto_ver=version,
                clean_start=clean_start,
                expiry=min(session_expiry, FOREVER),
                keepalive=keepalive,
                ip_address=ip_address,
                port=state.next_port(),
                reconnects=reconnects,
                on_message=on_message,
            )
            return state.connect(client, password) == Reason.SUCCESS

    def connect_later(self, clientid: str, seconds: float, **options: Any) -> None:
        """Connect a device after a while of the broker's clock.

        :param clientid: Client id.
        :param seconds: How long from now.
        :param options: As in :meth:`connect`.
        """
        with self.state.lock:
            self.state.schedule(seconds, lambda: self.connect(clientid, **options))

    def connect_many(self, clientids: Iterable[str], **options: Any) -> None:
        """Connect many devices.

        :param clientids: Client ids.
        :param options: As in :meth:`connect`.
        """
        with self.state.lock:
            for clientid in clientids:
                self.connect(clientid, **options)

    def disconnect(self, clientid: str) -> bool:
        """Close a device's connection; its session stays if it has an expiry.

        :param clientid: Client id.
        :return: ``False`` when it was not connected.
        """
        with self.state.lock:
            self.state.tick()
            return self.state.mqtt.disconnect(clientid)

    def announce_presence(self, wanted: bool) -> None:
        """Publish ``$SYS/brokers/NODE/clients/ID/connected`` and ``…/disconnected``, or not.

        :param wanted: As by default; else ``sys_topics.sys_event_messages`` is off, or on 4.4 its module ``presence``.
        """
        with self.state.lock:
            self.state.announce_presence(wanted)

    def disconnect_later(self, clientid: str, seconds: float) -> None:
        """Disconnect a device after a while of the broker's clock.

        :param clientid: Client id.
        :param seconds: How long from now.
        """
        with self.state.lock:
            self.state.schedule(seconds, lambda: self.disconnect(clientid))

    def subscribe(
        self, clientid: str, topic: str, qos: int = 0, *, nl: int = 0, rap: int = 0, rh: int = 0
    ) -> None:
        """Subscribe a device.

        :param clientid: A device that is connected or has a session.
        :param topic: Topic filter, ``$share/group/filter`` included.
        :param qos: Quality of service.
        :param nl: No local.
        :param rap: Retain as published.
        :param rh: Retain handling.
        """
        if not valid_topic_filter(topic):
            raise ValueError(f"{topic!r} is not a topic filter")
        with self.state.lock:
            client = self._device(clientid)
            self.state.mqtt.subscribe(client, Subscription(topic, qos, nl, rap, rh))
            entry = {"action": "subscribe", "qos": qos, "topic": topic, "result": "allow"}
            client.acl_cache.append({**entry, "at": self.state.now()})
            self.state.mqtt.metrics["client.subscribe"] += 1

    def unsubscribe(self, clientid: str, topic: str) -> bool:
        """Unsubscribe a device.

        :param clientid: A device that is connected or has a session.
        :param topic: Topic filter, as it was subscribed.
        :return: ``False`` if the subscription did not exist.
        """
        with self.state.lock:
            return self.state.mqtt.unsubscribe(self._device(clientid), topic)

    def _device(self, clientid: str) -> Client:
        self.state.tick()
        client: Client | None = self.state.mqtt.clients.get(clientid)
        if client is None:
            raise ValueError(f"{clientid!r} is not connected and has no session: connect() it first")
        return client

    def publish(
        self,
        topic: str,
        payload: bytes | str = b"",
        qos: int = 0,
        retain: bool = False,
        clientid: str = "device",
        properties: Mapping[str, Any] | None = None,
    ) -> int:
        """Publish as a device would.

        :param topic: Topic name.
        :param payload: Payload.
        :param qos: Quality of service.
        :param retain: The broker keeps it; an empty payload makes it forget.
        :param clientid: Who publishes; it need not be connected.
        :param properties: MQTT 5 properties, as ``{"response_topic": "a/b", "correlation_data": b"1"}``.
        :return: To how many subscriptions the message went; -1: it waits (``$delayed/…``).
        """
        if not valid_topic_name(topic) or qos not in {0, 1, 2}:
            raise ValueError(f"nobody can publish to {topic!r} with QoS {qos!r}")
        content = payload.encode() if isinstance(payload, str) else payload
        with self.state.lock:
            self.state.tick()
            message = Message(topic, content, qos, retain, dict(properties or {}), from_clientid=clientid)
            return self.state.mqtt.publish(message)

    def reply(
        self, command: Message, payload: bytes | str = b"", *, clientid: str = "device", seconds: float = 0.0
    ) -> None:
        """Answer a message as a device with MQTT 5 would: to its response topic, with its correlation data.

        :param command: A message with a response topic.
        :param payload: Payload.
        :param clientid: Who answers.
        :param seconds: After how many seconds of the broker's clock.
        """
        topic = command.properties["response_topic"]
        kept = {
            name: command.properties[name] for name in ("correlation_data",) if name in command.properties
        }
        with self.state.lock:
            if seconds:
                self.state.schedule(
                    seconds, lambda: self.publish(topic, payload, 1, clientid=clientid, properties=kept)
                )
            else:
                self.publish(topic, payload, 1, clientid=clientid, properties=kept)

    def received(self, clientid: str) -> list[Message]:
        """Return what a device has received, ever: messages with ``topic``, ``payload``, ``qos``, ``retain``.

        :param clientid: Client id.
        """
        with self.state.lock:
            self.state.tick()
            return list(self.state.mqtt.inboxes.get(clientid, ()))

    def forget_received(self, clientid: str) -> None:
        """Empty what :meth:`received` returns for a device.

        :param clientid: Client id.
        """
        with self.state.lock:
            self.state.mqtt.inboxes.pop(clientid, None)

    # users, rules, bans, messages

    @property
    def users(self) -> Table[User]:
        """Users of the built-in database by id; on 4.4 those of ``user_id_type``."""
        return self.state.users

    def users_of(self, user_id_type: str) -> Table[User]:
        """Return the users of one kind; 4.4 keeps both kinds apart.

        :param user_id_type: ``username`` or ``clientid``.
        """
        return self.state.v4_users[user_id_type] if self.state.generation == "v4" else self.state.users

    def add_user(self, user_id: str, password: str, is_superuser: bool = False) -> None:
        """Create a user, or replace it.

        :param user_id: Username or client id.
        :param password: Password.
        :param is_superuser: Superuser flag (API v5).
        """
        with self.state.lock:
            if self.state.generation == "v5" and BUILT_IN not in self.state.authenticators:
                raise RuntimeError("this broker has no authenticator, and so no users")
            self.users[user_id] = User(password, is_superuser, int(self.state.now() * 1000))

    def add_namespace(self, name: str) -> None:
        """Create a managed namespace; EMQX 6.1 and newer. 6.3 lists and reads users of those only.

        :param name: Name, as in the connection's field *Namespace*.
        """
        if not self.state.at_least(6, 1):
            raise RuntimeError("namespaces need EMQX 6.1 or newer")
        with self.state.lock:
            self.state.namespaces.add(name)

    def verify(self, user_id: str, password: str) -> bool:
        """Return whether a device with these credentials would get in.

        :param user_id: Username or client id.
        :param password: Password.
        """
        with self.state.lock:
            return self.state.verify(user_id, password)

    def make_hash(self, password: str, salt: str | None = None) -> tuple[str, str]:
        """Return ``(password_hash, salt)`` that this broker accepts in a hash import.

        :param password: Password.
        :param salt: Salt; drawn if not given.
        """
        return make_hash(self.state.algorithm, password, salt)

    def acl_rules(self, kind: str, name: str = "all") -> list[dict[str, Any]]:
        """Return the ACL rules of one subject in the order in which they count.

        :param kind: ``username``, ``clientid`` or ``all``.
        :param name: Username or client id.
        :return: Rules as the API of the generation shows them.
        """
        if kind not in {"username", "clientid", "all"}:
            raise ValueError(f'kind is "username", "clientid" or "all", not {kind!r}')
        state = self.state
        with state.lock:
            if state.generation == "v4":
                login = "$all" if kind == "all" else name
                rows = reversed(state.acl_rows.values())
                return [
                    {"topic": row.topic, "action": row.action, "access": row.access}
                    for row in rows
                    if (row.subject, row.login) == (kind, login)
                ]
            tables: dict[str, Mapping[str, list[dict[str, Any]]]] = {
                "username": state.acl_users,
                "clientid": state.acl_clients,
                "all": state.acl_namespaces.get(("", "all"), {}),
            }
            return list(tables[kind].get(name, []))

    @property
    def retained(self) -> Table[Message]:
        """Retained messages by topic."""
        with self.state.lock:
            self.state.tick()
            return self.state.mqtt.retained

    def limit_retained(self, per_second: int | None) -> None:
        """Set the retainer's ``max_publish_rate``: 1,000 messages per second from EMQX 5.8.5 on, without limit before.

        What is beyond is delivered, but neither stored nor cleared, and no answer tells.

        :param per_second: Messages in one second of the broker's clock; ``None`` for no limit.
        """
        if self.state.generation == "v4":
            raise ValueError("EMQX 4 does not have this limit")
        with self.state.lock:
            self.state.mqtt.retained_per_second = per_second

    @property
    def topic_metrics(self) -> Mapping[str, TopicMetrics]:
        """Topics that are registered for metrics, with their counters."""
        with self.state.lock:
            self.state.tick()
            return self.state.mqtt.topic_metrics

    @property
    def bans(self) -> dict[tuple[str, str], Ban]:
        """Bans by kind and value, for instance ``("clientid", "device-1")``; also those that have lapsed."""
        return self.state.bans

    # cluster

    def stop_node(self, name: str) -> None:
        """Stop a node: its clients disappear, and listings say ``stopped``.

        :param name: One of ``nodes``.
        """
        with self.state.lock:
            self.state.known_node(name).running = False
            for client in list(self.state.mqtt.clients.values()):
                if client.node == name:
                    self.state.mqtt.remove(client.clientid)

    def start_node(self, name: str) -> None:
        """Start a stopped node. Counters begin at 0 again.

        :param name: One of ``nodes``.
        """
        with self.state.lock:
            info = self.state.known_node(name)
            if name == next(iter(self.state.nodes)):  # the one that all counters are kept on
                self.state.mqtt.metrics.clear()
                for registered in self.state.mqtt.topic_metrics.values():
                    registered.counts.clear()
            info.running = True
            info.started_at = self.state.now()

    def raise_alarm(
        self, name: str, message: str = "", details: Mapping[str, Any] | None = None, node: str | None = None
    ) -> None:
        """Activate an alarm.

        :param name: Name, for instance ``high_cpu_usage``.
        :param message: What the listing says about it.
        :param details: Details.
        :param node: Node; not given: the one that answers.
        """
        with self.state.lock:
            now = self.state.now()
            alarm = Alarm(
                self.state.known_node(node or self.state.node).name, name, message, dict(details or {}), now
            )
            self.state.alarms.append(alarm)

    def end_alarm(self, name: str) -> None:
        """Deactivate the alarms of a name; they are found in the history then.

        :param name: As it was raised.
        """
        with self.state.lock:
            self.state.end_alarms([alarm for alarm in self.state.alarms if alarm.name == name])

    def close_listener(self, name: str) -> None:
        """Stop a listener; API v5.

        :param name: ``tcp:default``, ``ssl:default``, ``ws:default`` or ``wss:default``.
        """
        if name not in {f"{kind}:default" for kind in LISTENERS}:
            raise ValueError(f"unknown listener {name!r}")
        with self.state.lock:
            self.state.closed_listeners.add(name)

    def export_backup(self) -> str:
        """Export; returns the name of the file."""
        with self.state.lock:
            return backups.make(self.state).filename

    def lose_backups(self, *, deletable: bool = False) -> None:
        """List exports and answer ``not_found`` to whoever reads one, as a build of EMQX 4.4.19 from source does.

        :param deletable: Whether they are found to be deleted. In EMQX both look in the same way.
        """
        if self.state.generation != "v4":
            raise ValueError("only EMQX 4 is known to do so")
        with self.state.lock:
            self.state.backups_found = {"GET": False, "DELETE": deletable}

    def finish_evacuation(self, node: str) -> None:
        """Move all clients off an evacuating node at once, instead of second by second.

        :param node: One of ``nodes``.
        """
        with self.state.lock:
            rebalance.finish_evacuation(self.state, self.state.known_node(node))

    # data integration

    def add_rule(self, rule_id: str, sql: str, **config: Any) -> None:
        """Create a rule.

        :param rule_id: Id.
        :param sql: Statement, for instance ``SELECT * FROM "t/#"``.
        :param config: Further fields as in the API: ``enable`` (v5), ``enabled`` (4.4), ``actions``, ``description``.
        """
        statement = "rawsql" if self.state.generation == "v4" else "sql"
        self._add("rules", rule_id, {statement: sql, **config}, "connected")

    def add_action(self, action_id: str, *, status: str = "connected", **config: Any) -> None:
        """Create an action, for instance ``http:my_hook``.

        :param action_id: ``type:name``.
        :param status: ``connected``, ``connecting``, ``disconnected``, ``inconsistent``.
        :param config: Fields as in the API, for instance ``connector="my_hook"``, ``enable=False``.
        """
        self._add("actions", action_id, config, status)

    def add_connector(self, connector_id: str, *, status: str = "connected", **config: Any) -> None:
        """Create a connector.

        :param connector_id: ``type:name``.
        :param status: As in :meth:`add_action`.
        :param config: Fields as in the API.
        """
        self._add("connectors", connector_id, config, status)

    def add_source(self, source_id: str, *, status: str = "connected", **config: Any) -> None:
        """Create a source.

        :param source_id: ``type:name``.
        :param status: As in :meth:`add_action`.
        :param config: Fields as in the API.
        """
        self._add("sources", source_id, config, status)

    def add_resource(self, resource_id: str, *, alive: bool = True, **config: Any) -> None:
        """Create a resource of 4.4's rule engine.

        :param resource_id: Id, for instance ``resource:1234``.
        :param alive: It works.
        :param config: ``type``, ``config``, ``description``.
        """
        self._add("resources", resource_id, config, "connected" if alive else "disconnected")

    def set_status(self, resource_id: str, status: str) -> None:
        """Change whether an action, connector, source or resource works.

        :param resource_id: Its id.
        :param status: As in :meth:`add_action`.
        """
        with self.state.lock:
            found = [kind[resource_id] for kind in self.state.resources.values() if resource_id in kind]
            if not found:
                raise KeyError(resource_id)
            for resource in found:
                resource.status = status

    def _add(self, kind: str, resource_id: str, config: dict[str, Any], status: str) -> None:
        if kind in {"actions", "connectors", "sources"} and ":" not in resource_id:
            raise ValueError(f'{resource_id!r} is not an id; expected "type:name"')
        with self.state.lock:
            resource = Resource(kind, resource_id, config, status, self.state.now())
            self.state.resources[kind][resource_id] = resource

    @property
    def restarts(self) -> Mapping[str, int]:
        """The number of restarts over the API, by listener, action, connector or resource."""
        return self.state.restarts

    def refuse_dispatch(self, topic: str) -> None:
        """Let publishes to a topic fail with 503 ``failed_to_dispatch``; API v5.

        :param topic: Topic name.
        """
        with self.state.lock:
            self.state.undeliverable.add(topic)

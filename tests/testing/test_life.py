from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.testing.__main__ import main
from tests.testing.calls import USERS, call

VERSIONS = ("4.4.19", "5.8.9")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_broker_that_was_down_comes_back_on_the_same_port_with_all_it_knew(version: str) -> None:
    broker = FakeEmqx(version)
    broker.add_user("u1", "p1")
    broker.connect("d1")
    with broker:
        port = broker.port
    with pytest.raises(ConnectionRefusedError):
        call(broker, "GET", "/clients")
    broker.connect("d2")
    with broker:
        assert broker.port == port
        assert broker.verify("u1", "p1")
        assert {row["clientid"] for row in call(broker, "GET", "/clients").body["data"]} == {"d1", "d2"}


def test_stopping_closes_open_connections() -> None:
    with FakeEmqx() as broker:
        connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=5)
        connection.request("GET", "/status")
        connection.getresponse().read()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.request("GET", "/status")
        connection.getresponse()
    connection.close()


def test_starting_twice_is_refused() -> None:
    with FakeEmqx() as broker, pytest.raises(RuntimeError, match="already running"):
        broker.start()


def test_requests_tell_what_arrived_byte_for_byte() -> None:
    with FakeEmqx() as broker:
        call(broker, "POST", USERS + "?x=%2F", {"user_id": "u", "password": "p"})
        method, path, *_ = broker.requests[0]
        assert (method, path) == ("POST", f"/api/v5{USERS}?x=%2F")
        assert broker.requests[0].status == 201
        assert json.loads(broker.requests[0].body) == {"user_id": "u", "password": "p"}
        assert (broker.request_count, broker.connection_count) == (1, 1)


@pytest.mark.parametrize(
    ("options", "path"),
    [({}, ""), ({"version": "4.4.19"}, ""), ({"version": "4.4.19", "base_path": "/api"}, "/api")],
)
def test_connection_is_one_that_airflow_understands(options: dict[str, str], path: str) -> None:
    with FakeEmqx(**options) as broker:
        connection = broker.connection(attempts=2)
    assert connection == {
        "conn_type": "emqx",
        "host": broker.url + path,
        "login": "key",
        "password": "secret",
        "extra": {"attempts": 2},
    }


def test_cloud_v4_serves_the_api_below_its_own_path() -> None:
    with FakeEmqx("4.4.19", base_path="/api") as broker:
        assert call(broker, "GET", "/api/clients").body["code"] == 0
        assert call(broker, "GET", "/api/v4/clients").status == 404


@pytest.mark.parametrize("version", ["3.1.1", "7.0.0", "5", "five", "5.8.x"])
def test_versions_that_do_not_exist_are_refused(version: str) -> None:
    with pytest.raises(ValueError, match=r"version|no EMQX"):
        FakeEmqx(version)


@pytest.mark.parametrize(
    "options", [{"edition": "enterprise"}, {"base_path": "api"}, {"user_id_type": "email"}, {"pace": (0, 1)}]
)
def test_options_that_do_not_exist_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FakeEmqx(**options)


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        ("add_key", {"key": "k", "secret": "s", "role": "admin"}, "administrator"),
        ("connect", {"clientid": "d", "node": "emqx@typo"}, "emqx@127.0.0.1"),
        ("connect", {"clientid": "d", "version": 6}, "3, 4 or 5"),
        ("subscribe", {"clientid": "ghost", "topic": "t"}, "ghost"),
        ("unsubscribe", {"clientid": "ghost", "topic": "t"}, "ghost"),
        ("subscribe", {"clientid": "ghost", "topic": "a/#/b"}, "not a topic filter"),
        ("publish", {"topic": "a/#"}, "a/#"),
        ("publish", {"topic": "a", "qos": 3}, "QoS 3"),
        ("stop_node", {"name": "emqx@typo"}, "emqx@127.0.0.1"),
        ("start_node", {"name": "emqx@typo"}, "emqx@127.0.0.1"),
        ("raise_alarm", {"name": "a", "node": "emqx@typo"}, "emqx@127.0.0.1"),
        ("finish_evacuation", {"node": "emqx@127.0.0.1"}, "not being evacuated"),
        ("acl_rules", {"kind": "user"}, "username"),
        ("close_listener", {"name": "ssl"}, "ssl"),
        ("add_action", {"action_id": "my_hook"}, "type:name"),
    ],
)
def test_wrong_use_says_what_is_wrong(method: str, arguments: dict[str, Any], named: str) -> None:
    broker = FakeEmqx()
    with pytest.raises(ValueError, match=re.escape(named)):
        getattr(broker, method)(**arguments)


def test_a_device_cannot_land_on_a_stopped_node() -> None:
    broker = FakeEmqx(nodes=["emqx@a", "emqx@b"])
    broker.stop_node("emqx@b")
    with pytest.raises(ValueError, match="emqx@b is stopped"):
        broker.connect("d", node="emqx@b")


def test_users_need_an_authenticator() -> None:
    with pytest.raises(RuntimeError, match="no authenticator"):
        FakeEmqx(authenticator=False).add_user("u", "p")


def test_a_taken_port_is_an_error_at_once() -> None:
    with FakeEmqx() as broker, pytest.raises(OSError, match="in use"):
        FakeEmqx(port=broker.port).start()


def test_starting_without_a_free_descriptor_is_an_error_and_not_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted() -> None:
        raise OSError("too many open files")

    broker = FakeEmqx()
    with monkeypatch.context() as patch:
        patch.setattr("asyncio.new_event_loop", exhausted)
        with pytest.raises(OSError, match="too many"):
            broker.start()
    with broker:
        assert call(broker, "GET", "/status").status == 200


def test_stopping_it_from_its_own_thread_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with FakeEmqx() as broker:
        broker.before_each_request(lambda method, path: broker.stop())
        assert call(broker, "GET", "/clients").status == 500
        assert "cannot be stopped from its own thread" in caplog.text
        broker.before_each_request(None)
        assert call(broker, "GET", "/clients").status == 200


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux: open files are counted in /proc")
def test_nothing_is_left_of_a_broker_that_was_stopped() -> None:
    descriptors, threads = len(os.listdir("/proc/self/fd")), set(threading.enumerate())
    for _ in range(20):
        with FakeEmqx() as broker:
            broker.order_fault("reset_after")
            with pytest.raises(ConnectionResetError):
                call(broker, "POST", USERS, {"user_id": "u", "password": "p"})
            connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=5)
            connection.request("GET", "/status")
            connection.getresponse().read()
        connection.close()
    # a thread of an earlier test may have ended meanwhile
    assert set(threading.enumerate()) - threads == set()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2


def test_all_methods_may_be_called_while_requests_are_served() -> None:
    with FakeEmqx() as broker:
        ended = threading.Event()
        statuses: set[int] = set()

        def ask() -> None:
            while not ended.is_set():
                statuses.add(call(broker, "GET", "/clients?like_clientid=d&limit=10").status)
                statuses.add(call(broker, "GET", "/subscriptions").status)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(300):
            clientid = f"d{number}"
            broker.connect(clientid, session_expiry=number % 2)
            broker.subscribe(clientid, "t/#")
            broker.publish("t/1", "x", retain=True)
            broker.advance(1)
            broker.disconnect(clientid)
        ended.set()
        for thread in threads:
            thread.join()
        assert statuses == {200}


def test_importing_it_is_light() -> None:
    script = (
        "import sys, airflow_provider_emqx.testing as t; t.FakeEmqx(); "
        "print([name for name in ('aiohttp', 'requests', 'airflow', 'bcrypt') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--version", "9.9"], "unknown version of EMQX: 9.9"), (["--pace", "0,1"], "above 0")],
)
def test_as_a_process_it_says_what_is_wrong(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["testing", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert named in capsys.readouterr().err


def test_as_a_process_it_prints_its_url_and_has_users_and_devices() -> None:
    command = [sys.executable, "-m", "airflow_provider_emqx.testing"]
    arguments = [
        "--version",
        "4.4.19",
        "--users",
        "3",
        "--clients",
        "2",
        "--pace",
        "v4",
        "--key",
        "k",
        "--secret",
        "s",
    ]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        there = FakeEmqx("4.4.19", port=port)  # never started: only its address is used
        users = call(there, "GET", "/auth_username", key=("k", "s")).body["data"]
        assert {row["username"] for row in users} == {"user-0000000", "user-0000001", "user-0000002"}
        clients = call(there, "GET", "/clients", key=("k", "s")).body["data"]
        assert {row["clientid"] for row in clients} == {"device-0000000", "device-0000001"}
    finally:
        process.terminate()
        assert process.wait(10) == 0
        process.stdout.close()


def test_a_broker_that_is_down_keeps_its_ports(broker: FakeEmqx) -> None:
    ports = broker.port, broker.mqtt_port
    broker.stop()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
    broker.start()
    assert (broker.port, broker.mqtt_port) == ports
    for port in ports:
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_broker_that_is_closed_gives_its_ports_back() -> None:
    with FakeEmqx("5.8.9") as broker:
        ports = broker.port, broker.mqtt_port
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()

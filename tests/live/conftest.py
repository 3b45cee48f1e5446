"""
Fixtures of the suite for real brokers.

It makes only what begins with its own prefix, a new one for each run, and arranges the removal of a thing before it
makes it. See README.md in this directory.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook
from tests.live.devices import Device

#: what every name in the broker begins with, followed by letters of this run
COMMON = "airflow-live-"


@pytest.fixture(scope="session")
def prefix() -> str:
    return f"{COMMON}{secrets.token_hex(4)}-"


@pytest.fixture(scope="session")
def connection() -> str:
    """The connection to the broker, as Airflow keeps it in the environment."""
    missing = [
        name for name in ("EMQX_TEST_URL", "EMQX_TEST_KEY", "EMQX_TEST_SECRET") if not os.environ.get(name)
    ]
    if missing:
        pytest.skip(f"no real broker: {', '.join(missing)} not set")
    return json.dumps(
        {
            "conn_type": "emqx",
            "host": os.environ["EMQX_TEST_URL"],
            "login": os.environ["EMQX_TEST_KEY"],
            "password": os.environ["EMQX_TEST_SECRET"],
            "extra": json.loads(os.environ.get("EMQX_TEST_EXTRA") or "{}"),
        }
    )


@pytest.fixture(scope="session")
def hook(connection: str, prefix: str) -> Iterator[EmqxHook]:
    """A hook on the broker. After the last test nothing with the prefix may be left in the broker."""
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = connection
    with EmqxHook() as hook:
        yield hook
        left = list(_left_over(hook, prefix))
    del os.environ["AIRFLOW_CONN_EMQX_DEFAULT"]
    assert left == []


def _left_over(hook: EmqxHook, prefix: str) -> Iterator[str]:
    listings: list[Callable[[], Iterator[str]]] = [
        lambda: (f"user {row['user_id']}" for row in hook.list_users()),
        lambda: (f"ACL rules of {row['username']}" for row in hook.list_acl_subjects("username")),
        lambda: (f"ACL rules of {row['clientid']}" for row in hook.list_acl_subjects("clientid")),
        lambda: (f"ban of {row['who']}" for row in hook.list_bans()),
        lambda: (f"topic metrics of {row['topic']}" for row in hook.list_topic_metrics()),
        lambda: (f"client {row['clientid']}" for row in hook.list_clients(clientid_pattern=f"{prefix}*")),
        lambda: (f"retained message of {row['topic']}" for row in hook.list_retained(f"{prefix}/#")),
        lambda: (f"rule {row['id']}" for row in hook.list_rules()),
        lambda: (f"action {row['id']}" for row in hook.list_actions()),
        lambda: (f"connector {row['id']}" for row in hook.list_connectors()),
        lambda: (f"backup {row['filename']}" for row in hook.list_backups()),
        lambda: (f"namespace {name}" for name in namespaces(hook)),
    ]
    for listing in listings:
        try:
            yield from (name for name in listing() if prefix in name)
        except (EmqxUnsupportedError, EmqxConfigError):
            continue  # this broker keeps no such thing


def namespaces(hook: EmqxHook) -> Iterator[str]:
    """List the managed namespaces of EMQX 6."""
    if not hook.broker.at_least(6, 1):
        raise EmqxUnsupportedError(f"namespaces need EMQX 6.1 or newer; this is {hook.broker}")
    yield from hook.request("GET", "/mt/managed_ns_list")


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    """Removals for the end of the test, whatever comes of it: ``undo.callback(hook.delete_user, name)``."""
    with ExitStack() as stack:
        yield stack


_number = itertools.count(1)


@pytest.fixture
def name(prefix: str) -> Callable[..., str]:
    """Give a new name with the prefix."""
    return lambda ending="": f"{prefix}{next(_number)}{ending}"


@pytest.fixture(scope="session")
def users(hook: EmqxHook) -> None:
    """What tests of users need: a built-in database of users."""
    try:
        next(hook.list_users(), None)
    except (EmqxUnsupportedError, EmqxConfigError) as error:
        pytest.skip(f"the broker keeps no users: {error}")


@pytest.fixture(scope="session")
def acl(hook: EmqxHook) -> None:
    """What tests of ACL rules need: a built-in database of rules."""
    try:
        hook.list_acl_rules({"username": COMMON})
    except (EmqxUnsupportedError, EmqxConfigError) as error:
        pytest.skip(f"the broker keeps no ACL rules: {error}")


@pytest.fixture(scope="session")
def topic_metrics(hook: EmqxHook) -> None:
    """What tests of topic metrics need: EMQX 4's module for them, or EMQX 5 that is not Serverless."""
    try:
        next(hook.list_topic_metrics(), None)
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker does not measure topics: {error}")


@pytest.fixture(scope="session")
def retained(hook: EmqxHook) -> None:
    """What tests of reading retained messages need: EMQX 5 that is not Serverless."""
    try:
        next(hook.list_retained(COMMON), None)
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker does not show retained messages: {error}")


@pytest.fixture(scope="session")
def cluster(hook: EmqxHook) -> list[str]:
    """What tests of the cluster need: that the API shows the nodes. Gives the names of those that run."""
    try:
        rows = list(hook.list_nodes())
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker does not show its nodes: {error}")
    return [row["node"] for row in rows if row["node_status"] == "running"]


@pytest.fixture(scope="session")
def rules(hook: EmqxHook) -> None:
    """What tests of rules need: a rule engine."""
    try:
        next(hook.list_rules(), None)
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker has no rule engine: {error}")


@pytest.fixture(scope="session")
def backups(hook: EmqxHook) -> None:
    """What tests of backups need: EMQX 4, or EMQX 5.4 and newer that is not Serverless."""
    try:
        next(hook.list_backups(), None)
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker makes no backups over the API: {error}")


@pytest.fixture(scope="session")
def rebalance(hook: EmqxHook) -> None:
    """What tests of evacuation need: an Enterprise edition, or EMQX 5.9 and newer."""
    try:
        hook.get_rebalance_status()
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker evacuates no nodes: {error}")


@pytest.fixture(scope="session")
def disposable() -> None:
    """What tests need that touch more than what they made: a broker that is there for this suite only."""
    if os.environ.get("EMQX_TEST_DISPOSABLE") != "yes":
        pytest.skip("it touches more than what it made: EMQX_TEST_DISPOSABLE is not yes")


@pytest.fixture
def namespace(
    hook: EmqxHook,
    connection: str,
    undo: ExitStack,
    name: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A namespace of EMQX 6, made for the test, that the connection ``emqx_namespace`` leads to."""
    try:
        list(namespaces(hook))
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker has no namespaces: {error}")
    made, broker = name(), json.loads(connection)
    undo.callback(_delete_namespace, hook, made)
    hook.request("POST", f"/mt/ns/{made}", json={})
    there = {**broker, "extra": {**broker["extra"], "namespace": made}}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_NAMESPACE", json.dumps(there))
    return made


def _delete_namespace(hook: EmqxHook, namespace: str) -> None:
    if namespace in namespaces(hook):
        hook.request("DELETE", f"/mt/ns/{namespace}")


@pytest.fixture
def rule(hook: EmqxHook, rules: None, undo: ExitStack, name: Callable[..., str]) -> str:
    """A rule that does nothing with the messages to a topic that nobody else publishes to; gives its id."""
    rule_id = name()
    sql = f'SELECT payload FROM "{rule_id}/#"'
    undo.callback(delete_any, hook, f"/rules/{rule_id}")
    if hook.api_version == "v4":
        actions = [{"name": "do_nothing", "params": {}}]
        hook.request("POST", "/rules", json={"id": rule_id, "rawsql": sql, "actions": actions})
    else:
        hook.request("POST", "/rules", json={"id": rule_id, "name": rule_id, "sql": sql, "actions": []})
    return rule_id


@pytest.fixture
def connector(hook: EmqxHook, rules: None, undo: ExitStack, name: Callable[..., str]) -> str:
    """A connection to an HTTP server that is not there, disabled where that can be; gives its id."""
    made, address = name(), "http://127.0.0.1:9"
    if hook.api_version == "v4":
        undo.callback(delete_any, hook, f"/resources/{made}")
        row = {"id": made, "type": "web_hook", "config": {"url": address}, "description": made}
        try:
            hook.request("POST", "/resources", json=row)
        except EmqxBadRequestError as error:
            pytest.skip(f"the broker makes no resources of the type web_hook: {error}")
        return made
    try:
        next(hook.list_connectors(), None)
    except EmqxUnsupportedError as error:
        pytest.skip(f"the broker has no connectors: {error}")
    undo.callback(delete_any, hook, f"/connectors/http:{made}")
    hook.request("POST", "/connectors", json={"type": "http", "name": made, "url": address, "enable": False})
    return f"http:{made}"


@pytest.fixture
def action(hook: EmqxHook, connector: str, undo: ExitStack, name: Callable[..., str]) -> str:
    """An action of EMQX 5.4 and newer that sends to the connector, disabled; gives its id."""
    if hook.api_version == "v4":
        pytest.skip("in EMQX 4 actions are parts of their rules")
    made = name()
    undo.callback(delete_any, hook, f"/actions/http:{made}")
    row = {"type": "http", "name": made, "connector": connector.partition(":")[2], "enable": False}
    hook.request("POST", "/actions", json={**row, "parameters": {"path": "/", "method": "post"}})
    return f"http:{made}"


def delete_any(hook: EmqxHook, path: str) -> None:
    """Delete what may be gone already, or was never made."""
    with suppress(EmqxNotFoundError):
        hook.request("DELETE", path)


@pytest.fixture(scope="session")
def mqtt() -> str:
    """Address of the broker's MQTT listener."""
    if not os.environ.get("EMQX_TEST_MQTT"):
        pytest.skip("no devices: EMQX_TEST_MQTT is not set")
    return os.environ["EMQX_TEST_MQTT"]


@pytest.fixture
def account(
    mqtt: str,
    hook: EmqxHook,
    connection: str,
    undo: ExitStack,
    name: Callable[..., str],
    users: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], tuple[str, str]]:
    """
    Make an account of the broker, and the Airflow connection ``emqx_KIND`` that has it on the MQTT side; gives its
    username and password.
    """

    def make(kind: str) -> tuple[str, str]:
        username, password = name(f"-{kind}"), secrets.token_hex(8)
        undo.callback(hook.delete_user, username)
        hook.create_user(username, password)
        given = json.loads(connection)
        given["extra"] |= {"mqtt_url": mqtt, "mqtt_username": username, "mqtt_password": password}
        monkeypatch.setenv(f"AIRFLOW_CONN_EMQX_{kind.upper()}", json.dumps(given))
        return username, password

    return make


@pytest.fixture
def device(
    mqtt: str, hook: EmqxHook, undo: ExitStack, name: Callable[..., str], users: None
) -> Callable[..., Device]:
    """Connect a device that logs in as a user made for it; gives the device, whose name is client id and username."""

    def make() -> Device:
        who, password = name("-device"), secrets.token_hex(8)
        undo.callback(hook.delete_user, who)
        hook.create_user(who, password)
        device = Device(mqtt, who, who, password)
        undo.callback(device.close)
        assert device.connect(), f"{who} was not let in"
        return device

    return make

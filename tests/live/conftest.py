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
from contextlib import ExitStack

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxUnsupportedError
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
        lambda: (f"client {row['clientid']}" for row in hook.list_clients(like_clientid=prefix)),
        lambda: (f"retained message of {row['topic']}" for row in hook.list_retained(f"{prefix}/#")),
    ]
    for listing in listings:
        try:
            yield from (name for name in listing() if prefix in name)
        except (EmqxUnsupportedError, EmqxConfigError):
            continue  # this broker keeps no such thing


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
def mqtt() -> str:
    """Address of the broker's MQTT listener."""
    if not os.environ.get("EMQX_TEST_MQTT"):
        pytest.skip("no devices: EMQX_TEST_MQTT is not set")
    return os.environ["EMQX_TEST_MQTT"]


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

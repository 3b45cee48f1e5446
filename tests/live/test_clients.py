"""Clients: finding them, waiting for them, their subscriptions, kicking them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.exceptions import EmqxNotFoundError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from tests.live.devices import Device, eventually

pytestmark = pytest.mark.live


def test_a_client_that_is_not_there_is_none(hook: EmqxHook, name: Callable[..., str]) -> None:
    absent = name()
    assert hook.get_client(absent) is None
    assert list(hook.list_clients(clientid=absent)) == []
    assert hook.kick_clients(absent) == {"kicked": [], "absent": [absent], "still_connected": []}
    with pytest.raises(EmqxNotFoundError):
        hook.subscribe(absent, "a/b")


def test_a_device_is_found_by_its_name_and_by_a_part_of_it(
    hook: EmqxHook, device: Callable[..., Device], prefix: str
) -> None:
    here, other = device(), device()
    assert eventually(lambda: (hook.get_client(here.name) or {}).get("connected") is True)
    assert [row["clientid"] for row in hook.list_clients(clientid=here.name)] == [here.name]
    found = {row["clientid"] for row in hook.list_clients(clientid_pattern=f"{prefix}*")}
    assert {here.name, other.name} <= found


@pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
def test_a_sensor_waits_for_a_device(
    hook: EmqxHook,
    users: None,
    mqtt: str,
    undo: Any,
    name: Callable[..., str],
    run_dag: Callable[..., Any],
    deferrable: bool,
) -> None:
    who = name()
    undo.callback(hook.delete_user, who)
    hook.create_user(who, "secret")
    late = Device(mqtt, who, who, "secret")
    undo.callback(late.close)
    with DAG("live_waiting") as dag:
        EmqxClientOnlineSensor(
            task_id="wait", clientids=who, poke_interval=1, timeout=60, deferrable=deferrable
        )
    coming = threading.Timer(2.0, late.connect)
    coming.start()
    run = run_dag(dag)
    coming.join()
    assert run.state == "success"
    assert run.get_task_instance("wait").xcom_pull(task_ids="wait")["online"] == 1


def test_the_api_subscribes_and_unsubscribes_a_device(
    hook: EmqxHook, device: Callable[..., Device], prefix: str
) -> None:
    listener = device()
    topics = [f"{prefix}/commands/#", f"{prefix}/ä b/+"]

    def subscribed() -> set[str]:
        return {row["topic"] for row in hook.list_client_subscriptions(listener.name)}

    assert [row["subscribed"] for row in hook.subscribe(listener.name, topics)] == [True, True]
    assert eventually(lambda: subscribed() == set(topics))
    assert [row["unsubscribed"] for row in hook.unsubscribe(listener.name, topics)] == [True, True]
    assert eventually(lambda: subscribed() == set())


def test_a_kicked_device_is_gone(hook: EmqxHook, device: Callable[..., Device]) -> None:
    first, second = device(), device()
    result = hook.kick_clients([first.name, second.name])
    assert sorted(result["kicked"]) == sorted([first.name, second.name])
    assert eventually(lambda: not first.connected and not second.connected)
    assert hook.get_client(first.name) is None

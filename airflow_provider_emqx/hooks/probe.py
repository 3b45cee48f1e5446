"""The connection test: one line about the broker, within ten seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_emqx.api.base import Broker, Operation, Reply, Request
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.exceptions import EmqxForbiddenError, EmqxTimeoutError
from airflow_provider_emqx.transport.identity import identify
from airflow_provider_emqx.transport.settings import Settings
from airflow_provider_emqx.transport.sync import SyncClient

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.mqtt import MqttClient

T = TypeVar("T")

_SECONDS = 10.0
_CONNECT = 3.0
_READ = 4.0


def probe(settings: Settings) -> str:
    """
    Read the broker's version and test the key.

    :param settings: the connection, read.
    :return: one line for the person who pressed Test.
    :raises EmqxError: saying what is wrong.
    """
    quick = replace(
        settings,
        attempts=1,
        deadline=_SECONDS,
        connect_timeout=min(settings.connect_timeout, _CONNECT),
        read_timeout=min(settings.read_timeout, _READ),
        rate_limit=None,
    )
    client = SyncClient(quick)
    until = time.monotonic() + _SECONDS
    try:
        broker: Broker = client.run(_within(until, identify(quick, client.set_base, datetime.now(UTC))))
        where = f"API {broker.generation} at {quick.origin}"
        if broker.version and settings.version is None:
            return f"{broker}, {where}"
        try:
            client.run(_within(until, api_of(broker).clients.list(limit=1)))
        except EmqxForbiddenError as error:
            return (
                f"{broker}, {where}. The key is valid but may not list clients ({error.code or 'HTTP 403'}): it works "
                "only for the calls that its role and scopes cover"
            )
        hidden = "" if broker.version or broker.serverless else ", which the key may not see"
        return f"{broker}{hidden}, {where}"
    finally:
        client.close()


def probe_mqtt(settings: Settings) -> str:
    """
    Connect to the MQTT listener.

    :param settings: the connection, read.
    :return: one line, empty where the connection names no listener.
    :raises EmqxError: saying what is wrong.
    """
    if settings.mqtt is None:
        return ""
    from airflow_provider_emqx.transport.mqtt import MqttClient

    quick = replace(
        settings.mqtt,
        connect_timeout=min(settings.connect_timeout, _CONNECT),
        read_timeout=min(settings.read_timeout, _READ),
    )

    # in a thread of its own: the caller's may have an event loop that runs
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _connect(MqttClient(quick, f"airflow-test-{token_hex(4)}"))).result()
    return f"MQTT 5 at {quick.url}"


async def _connect(client: MqttClient) -> None:
    async with client:
        pass


def _within(until: float, operation: Operation[T]) -> Generator[Request, Reply, T]:
    """Return every request of an operation only the time that is left of the whole test."""
    request = next(operation)
    try:
        while True:
            left = until - time.monotonic() - _CONNECT
            if left <= 0:
                raise EmqxTimeoutError(f"the broker did not answer within {_SECONDS:g} s", str(request), True)
            try:
                reply = yield replace(request, timeout=min(left, _READ))
            except Exception as error:
                request = operation.throw(error)
            else:
                request = operation.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]

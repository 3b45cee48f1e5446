"""Learns once per client which broker it talks to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from airflow_provider_emqx.api import detect
from airflow_provider_emqx.api.base import Broker, Operation
from airflow_provider_emqx.exceptions import EmqxUnsupportedError
from airflow_provider_emqx.transport.settings import Settings


def identify(settings: Settings, set_base: Callable[[str], None], now: datetime) -> Operation[Broker]:
    """
    Find generation, base path and version, as far as the settings don't state them.

    :param settings: what the connection says.
    :param set_base: told the base path as soon as it is known, since the version is asked below it.
    :param now: the present time.
    :raises EmqxUnsupportedError: for a namespace on a broker that is not known to have any.
    """
    generation, base = settings.generation, settings.base
    if generation is None or base is None:
        generation, base = yield from detect.generation(settings.prefix, settings.serverless)
    set_base(base)
    broker = Broker(
        generation,
        settings.version,
        settings.authenticator,
        settings.user_id_type,
        settings.namespace,
        settings.serverless,
    )
    if broker.version is None or generation == "v4":
        version, utc_offset = yield from detect.version(broker, now)
        broker = replace(broker, version=broker.version or version, utc_offset=utc_offset)
    if broker.namespace and not broker.at_least(6, 1):
        # older ones ignore it, and would act on the users and rules of the global namespace
        raise EmqxUnsupportedError(
            f"the connection's namespace {broker.namespace!r} needs EMQX 6.1 or newer; this is {broker}. "
            + (
                "Leave the namespace out"
                if broker.version
                else "If it is that new, state its version in the connection's field EMQX version"
            )
        )
    return broker

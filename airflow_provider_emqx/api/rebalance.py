"""Settings of evacuation and rebalancing, the same on both generations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_emqx.api.base import Broker, Row
from airflow_provider_emqx.arguments import whole
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxUnsupportedError

_BOTH = frozenset({"conn_evict_rate", "sess_evict_rate", "wait_takeover", "wait_health_check"})
EVACUATION = _BOTH | {"redirect_to", "migrate_to"}
REBALANCE = _BOTH | {
    "abs_conn_threshold",
    "rel_conn_threshold",
    "abs_sess_threshold",
    "rel_sess_threshold",
    "nodes",
}
_RATES = ("conn_evict_rate", "sess_evict_rate")


def options(given: Mapping[str, Any] | None, known: frozenset[str]) -> Row:
    """
    Validate the settings of an evacuation or a rebalancing.

    :return: what was given, rates as numbers, also where they were text, as templates give it.
    :raises EmqxConfigError: for one that does not exist, and for rates that are not whole numbers above 0.
    """
    settings = {name: value for name, value in (given or {}).items() if value is not None}
    for name, value in settings.items():
        if name not in known:
            raise EmqxConfigError(f"unknown setting {name!r}; expected one of {', '.join(sorted(known))}")
        if name in _RATES:
            settings[name] = whole(name, value)
    return settings


def unsupported(broker: Broker) -> EmqxUnsupportedError:
    return EmqxUnsupportedError(
        f"evacuating nodes and rebalancing need EMQX Enterprise, or EMQX 5.9 or newer; this is {broker}"
    )

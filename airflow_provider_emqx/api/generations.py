"""The one place that chooses between the two generations of the API."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_emqx.api.base import Answer, Broker, Reply, Request
from airflow_provider_emqx.api.v4 import replies as v4
from airflow_provider_emqx.api.v4.api import ApiV4
from airflow_provider_emqx.api.v5 import replies as v5
from airflow_provider_emqx.api.v5.api import Api


def api_of(broker: Broker) -> Api:
    """Return the operations of a broker."""
    return ApiV4(broker) if broker.is_v4 else Api(broker)


def reader_of(base: str) -> Callable[[Request, Answer], Reply]:
    """
    Return what reads the answers of the API at a base path.

    :param base: as ``/api/v5``; EMQX 4 has several.
    """
    return v5.read if base.endswith("/v5") else v4.read

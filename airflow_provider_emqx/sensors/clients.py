"""Wait for MQTT clients."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

from airflow_provider_emqx.conditions.base import Condition
from airflow_provider_emqx.conditions.clients import ClientsOffline, ClientsOnline
from airflow_provider_emqx.sensors.base import BaseEmqxSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath, XComArg

    from airflow_provider_emqx.keywords import ClientsKeywords, EmqxSensorKeywords


class _ClientSensor(BaseEmqxSensor):
    """
    Base class of the sensors that wait for clients.

    :param clientids: one client id, or several. An ``ObjectStoragePath`` is taken as ``clientids_path``.
    :param clientids_path: in place of ``clientids``, a file with one id per line, as ``s3://bucket/fleet.txt``.
        Needed for a deferred wait for more than 1,000 clients; the triggerer must reach it as well.
    :param quorum: how many of them must be so at the same time: ``"all"``, ``"any"``, a count, or a share such as
        ``"95%"``.
    :param missing_path: file to write the missing ids to if there are more than 1,000, as ``s3://bucket/missing.txt``.
    """

    template_fields: Sequence[str] = (
        *BaseEmqxSensor.template_fields,
        "clientids",
        "clientids_path",
        "quorum",
        "missing_path",
    )

    def __init__(
        self,
        *,
        clientids: str | Sequence[str] | ObjectStoragePath | XComArg | None = None,
        clientids_path: str | XComArg | None = None,
        quorum: str | int | XComArg = "all",
        missing_path: str | XComArg | None = None,
        **kwargs: Unpack[EmqxSensorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.clientids: Any = clientids
        self.clientids_path: Any = clientids_path
        self.quorum: Any = quorum
        self.missing_path: Any = missing_path


class EmqxClientOnlineSensor(_ClientSensor):
    """
    Wait until MQTT clients are online: known to the broker **and** connected (a kept session alone is not).

    A few clients are read one by one (v4 and v5 ``GET /clients/{clientid}``), many by one listing
    (``GET /clients``, on EMQX 5.6 and newer with ``fields``), whichever is cheaper for the broker.

    The task's result: ``{"awaited", "needed", "online", "missing_count", "missing"}``, the last one a list of at most
    1,000 ids, and ``missing_path`` if there are more and a file for them was named.

    :param stable_for: seconds (or a ``timedelta``) for which each must have been connected without a break, by the
        broker's clock against the worker's or triggerer's. Default: any.
    """

    template_fields: Sequence[str] = (*_ClientSensor.template_fields, "stable_for")

    def __init__(
        self,
        *,
        stable_for: float | str | timedelta | XComArg | None = None,
        **kwargs: Unpack[ClientsKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.stable_for = stable_for
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return ClientsOnline(self.clientids, self.clientids_path, self.quorum, self.stable_for)


class EmqxClientOfflineSensor(_ClientSensor):
    """
    Wait until MQTT clients are offline: unknown to the broker, or a session that is kept without a connection.

    The requests are those of :class:`EmqxClientOnlineSensor`.

    The task's result: ``{"awaited", "needed", "offline", "missing_count", "missing"}``, where the missing ones are
    those still online, at most 1,000 of them, and ``missing_path`` if there are more and a file for them was named.
    """

    def __init__(self, **kwargs: Unpack[ClientsKeywords]) -> None:
        super().__init__(**kwargs)
        self.check_literals()

    def condition(self) -> Condition:
        """Return the condition for the rendered arguments."""
        return ClientsOffline(self.clientids, self.clientids_path, self.quorum)

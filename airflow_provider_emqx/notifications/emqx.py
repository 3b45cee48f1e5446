"""A notifier that publishes a message about a task or DAG run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hidden import HiddenField, RendersHidden, plain

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_emqx.choices import Qos


class EmqxPublishNotifier(RendersHidden, BaseNotifier):
    """
    Publish a message when a task or DAG run succeeds, fails or is late.

    v5 ``POST /publish``, v4 ``POST /mqtt/publish``. Its own errors are logged and never fail anything.

    Use it as ``on_failure_callback=EmqxPublishNotifier(topic="airflow/failed", payload={"run": "{{ run_id }}"})``.

    :param topic: without wildcards. On EMQX 4 without commas.
    :param payload: text, bytes, or anything that can be written as JSON.
    :param qos: 0, 1 or 2.
    :param retain: keep it for later subscribers, as for a topic that holds the state of the last run.
    :param properties: MQTT 5 properties.
    """

    template_fields: Sequence[str] = ("topic", "payload", "properties", "emqx_conn_id")

    payload = HiddenField()
    properties = HiddenField()

    def __init__(
        self,
        *,
        topic: str,
        payload: Any,
        qos: Qos = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
        emqx_conn_id: str = "emqx_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.emqx_conn_id = emqx_conn_id

    def notify(self, context: Context) -> None:
        """
        Publish.

        :param context: of the task or DAG run.
        """
        from airflow_provider_emqx.hooks.emqx import EmqxHook

        try:
            with EmqxHook(self.emqx_conn_id) as hook:
                hook.publish(self._message())
        except Exception as error:
            self._failed(error)

    async def async_notify(self, context: Context) -> None:
        """
        Publish from an event loop.

        :param context: of the task or DAG run.
        """
        from airflow_provider_emqx.hooks.emqx import EmqxHook

        try:
            async with EmqxHook(self.emqx_conn_id).async_client() as client:
                await client.run(client.api.messages.publish(self._message()))
        except Exception as error:
            self._failed(error)

    def _message(self) -> dict[str, Any]:
        payload = plain(self.payload)
        message = {"topic": self.topic, "payload": payload, "qos": self.qos, "retain": self.retain}
        properties = plain(self.properties)
        return {**message, "properties": properties} if properties else message

    def _failed(self, error: Exception) -> None:
        # texts of other errors could hold what is being sent
        reason = str(error) if isinstance(error, EmqxError) else type(error).__name__
        self.log.error("The notification to topic %r was not published. %s", self.topic, reason)

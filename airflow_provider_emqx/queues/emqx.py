"""The queue of common.messaging, which needs Airflow 3.0.1 or newer and the extra ``messaging`` of this package."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from airflow.providers.common.compat.triggers import BaseEventTrigger

from airflow_provider_emqx.triggers.messages import EmqxMessageTrigger

try:
    from airflow.providers.common.messaging.providers.base_provider import BaseMessageQueueProvider
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        f"common.messaging needs the extra airflow-provider-emqx[messaging] ({error})"
    ) from None


class EmqxMessageQueueProvider(BaseMessageQueueProvider):
    """
    Messages over MQTT as a queue: ``MessageQueueTrigger(scheme="emqx", topic="devices/+/done")``.

    All other arguments are those of :class:`~airflow_provider_emqx.triggers.messages.EmqxMessageTrigger`.
    """

    scheme = "emqx"

    def trigger_class(self) -> type[BaseEventTrigger]:
        """Return the trigger that listens."""
        return EmqxMessageTrigger

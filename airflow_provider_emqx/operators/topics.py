"""Operators for publishing, retained messages, topic metrics and subscriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxUnsupportedError
from airflow_provider_emqx.operators.base import MOST_LISTED, BaseEmqxOperator, boolean, hidden, hide, plain

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class EmqxPublishOperator(BaseEmqxOperator):
    """
    Publish one message, or several.

    v5 ``POST /publish`` and ``/publish/bulk``, v4 ``POST /mqtt/publish`` and ``/mqtt/publish_batch``, in requests of at
    most 1,000 messages and 4 MB. All messages are checked before the first one is sent. That nobody has subscribed is
    no failure, unless ``require_subscribers``.

    No message is sent twice: if an answer is lost, the task fails and says which messages may have arrived; a retry of
    the task publishes them again. Airflow neither stores nor shows the payloads.

    :param topic: of one message, without wildcards (templated). On EMQX 4 without commas.
    :param payload: of one message (templated): text, bytes, or anything that can be written as JSON; ``""`` is an empty
        one, which deletes the retained message if ``retain``.
    :param qos: of one message: 0, 1 or 2 (templated).
    :param retain: of one message: keep it for later subscribers (templated).
    :param properties: of one message, MQTT 5: ``payload_format_indicator``, ``message_expiry_interval`` (s),
        ``response_topic``, ``correlation_data``, ``content_type``, ``user_properties`` (templated).
    :param messages: in place of all these, a list of dicts of the same names, and ``payload_encoding`` (``"base64"``
        if a text payload is base64 of the real one) (templated).
    :param require_subscribers: fail if a message reached nobody (templated); EMQX 5 and newer.
    :param retry_unsafe: send a message again that the broker says it could not pass on at the moment; it may arrive
        twice (templated).
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: ``{"messages", "counts": {status: …}, "results": […]}``: how many, what became of how many, and of the
        first 1,000 each ``{"topic", "status", "id", "reason"}``, as
        :meth:`~airflow_provider_emqx.hooks.topics.TopicMethods.publish` gives it.
    :raises EmqxConfigError: for messages that cannot be right; nothing is sent.
    :raises EmqxError: if a message was not published, or may not have been.
    """

    template_fields: Sequence[str] = (
        "topic",
        "payload",
        "qos",
        "retain",
        "properties",
        "messages",
        "require_subscribers",
        "retry_unsafe",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        topic: str | XComArg | None = None,
        payload: Any = None,
        qos: int | str = 0,
        retain: bool | str = False,
        properties: Mapping[str, Any] | None = None,
        messages: Sequence[Mapping[str, Any]] | XComArg | None = None,
        require_subscribers: bool | str = False,
        retry_unsafe: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.messages = messages
        self.require_subscribers = require_subscribers
        self.retry_unsafe = retry_unsafe

    @property
    def payload(self) -> Any:
        """The payload, wrapped so that Airflow does not show it."""
        return hidden(self._payload)

    @payload.setter
    def payload(self, value: Any) -> None:
        self._payload = hide(value)

    @property
    def messages(self) -> Any:
        """The messages, wrapped so that Airflow does not show them."""
        return hidden(self._messages)

    @messages.setter
    def messages(self, value: Any) -> None:
        self._messages = hide(value)

    def execute(self, context: Context) -> dict[str, Any]:
        """Publish."""
        messages = self._given()
        demanding = boolean("require_subscribers", self.require_subscribers)
        with self.hook(retry_unsafe=boolean("retry_unsafe", self.retry_unsafe)) as hook:
            if demanding and hook.api_version == "v4":
                raise EmqxUnsupportedError(
                    f"require_subscribers needs EMQX 5 or newer; this is {hook.broker}, which does not tell whether "
                    "anybody has subscribed. Nothing was sent"
                )
            results = hook.publish(messages) if messages else []
        counts: dict[str, int] = {}
        for result in results:
            counts[result["status"]] = counts.get(result["status"], 0) + 1
        words = ", ".join(f"{count:,} {status}" for status, count in counts.items()) or "no messages"
        self.log.info("Published: %s", words)
        summary = {"messages": len(results), "counts": counts, "results": results[:MOST_LISTED]}
        bad = ["failed", "unknown", "not_sent", *(["no_subscribers"] if demanding else [])]
        failures = [result for result in results if result["status"] in bad]
        if failures:
            # where to look, although the task fails
            context["ti"].xcom_push(key="return_value", value=summary)
            first = failures[0]
            reason = f" ({first['reason']})" if first["reason"] else ""
            raise EmqxError(
                f"{len(failures):,} of {len(results):,} messages were not published as asked: {words}. The first one, "
                f"to {first['topic']!r}: {first['status']}{reason}. A retry publishes all of them again"
            )
        return summary

    def _given(self) -> list[Mapping[str, Any]]:
        messages = plain(self._messages)
        if messages is None:
            if self.topic is None or plain(self._payload) is None:
                raise EmqxConfigError("give either topic and payload, or messages")
            message = {
                "topic": self.topic,
                "payload": plain(self._payload),
                "qos": self.qos,
                "retain": self.retain,
            }
            return [{**message, "properties": self.properties} if self.properties else message]
        if self.topic is not None or plain(self._payload) is not None:
            raise EmqxConfigError("give either topic and payload, or messages, not both")
        if isinstance(messages, Mapping):
            return [messages]
        if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
            raise EmqxConfigError(f"messages must be a list of dicts, not {type(messages).__name__}")
        return list(messages)

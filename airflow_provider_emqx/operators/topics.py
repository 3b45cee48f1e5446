"""Operators for publishing, retained messages, topic metrics and subscriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Unpack, cast, get_args

from airflow_provider_emqx.arguments import boolean, choice, mapping, seconds, texts
from airflow_provider_emqx.choices import TopicMetricsAction
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxUnsupportedError
from airflow_provider_emqx.hidden import HiddenField, plain
from airflow_provider_emqx.operators.affected import Affected, BaseSelectingOperator
from airflow_provider_emqx.operators.base import (
    BaseEmqxOperator,
    told_on_failure,
)
from airflow_provider_emqx.operators.listing import write_rows
from airflow_provider_emqx.outcomes import (
    ABSENT,
    CHANGED,
    DELETED,
    FAILED,
    MOST_LISTED,
    UNADDRESSABLE,
    UNKNOWN,
)
from airflow_provider_emqx.plans.file import CLEAR

if TYPE_CHECKING:
    import os

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.api.rows import PublishedRow, SubscriptionRow
    from airflow_provider_emqx.choices import Qos, Rendered, TopicMetricsAction
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.keywords import EmqxOperatorKeywords, SelectingKeywords
    from airflow_provider_emqx.results import (
        ClearRetainedResult,
        ListResult,
        PublishResult,
        TopicMetricsResult,
    )


class EmqxPublishOperator(BaseEmqxOperator):
    """
    Publish one message, or several.

    v5 ``POST /publish`` and ``/publish/bulk``, v4 ``POST /mqtt/publish`` and ``/mqtt/publish_batch``, in requests of at
    most 1,000 messages and 4 MB. All messages are validated before the first one is sent. A message without subscribers
    is not a failure, unless ``require_subscribers``. Retained messages are sent no faster than the broker stores them,
    by default 1,000 per second on EMQX 5.8.5 and newer.

    No message is sent twice: if an answer is lost, the task fails and says which messages may have arrived; a retry of
    the task publishes them again. Airflow neither stores nor shows the payloads.

    :param topic: of one message, without wildcards. On EMQX 4 without commas.
    :param payload: of one message: text, bytes, or anything that can be written as JSON; ``""`` is an empty
        one, which deletes the retained message if ``retain``.
    :param qos: of one message: 0, 1 or 2.
    :param retain: of one message: keep it for later subscribers.
    :param properties: of one message, MQTT 5: ``payload_format_indicator``, ``message_expiry_interval`` (s),
        ``response_topic``, ``correlation_data``, ``content_type``, ``user_properties``.
    :param messages: in place of all these, a list of dicts of the same names, and ``payload_encoding`` (``"base64"``
        if a text payload is base64 of the real one).
    :param require_subscribers: fail if a message reached nobody; EMQX 5 and newer, not with ``$delayed/…``.
    :param retry_unsafe: send a message again that the broker says it could not pass on at the moment; it may arrive
        twice.
    :return: ``{"messages", "counts": {status: …}, "results": […]}``: how many, what became of how many, and of the
        first 1,000 each ``{"topic", "status", "id", "reason"}``, as
        :meth:`~airflow_provider_emqx.hooks.topics.TopicMethods.publish` gives it.
    :raises EmqxConfigError: for invalid messages; nothing is sent.
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

    payload = HiddenField()
    messages = HiddenField()
    properties = HiddenField()

    def __init__(
        self,
        *,
        topic: str | XComArg | None = None,
        payload: Any = None,
        qos: Qos | XComArg = 0,
        retain: bool | str | XComArg = False,
        properties: Mapping[str, Any] | XComArg | None = None,
        messages: Sequence[Mapping[str, Any]] | XComArg | None = None,
        require_subscribers: bool | str | XComArg = False,
        retry_unsafe: bool | str | XComArg = False,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.topic: Any = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.messages = messages
        self.require_subscribers = require_subscribers
        self.retry_unsafe = retry_unsafe
        self.check_literals()

    def check(self) -> None:
        """Refuse invalid messages."""
        from airflow_provider_emqx.api.messages import message_row

        boolean("retry_unsafe", self.retry_unsafe)
        for place, message in enumerate(self._given(), 1):
            message_row(message, place)

    def execute(self, context: Context) -> PublishResult:
        """Publish."""
        # the hook checks each message, as check() does
        messages = self._given()
        demanding = boolean("require_subscribers", self.require_subscribers)
        results: list[PublishedRow] = []
        counts: dict[str, int] = {}
        bad = [FAILED, UNKNOWN, "not_sent", *(["no_subscribers"] if demanding else [])]
        first_bad: PublishedRow | None = None

        def summary() -> PublishResult:
            return {"messages": sum(counts.values()), "counts": counts, "results": results}

        def words() -> str:
            return ", ".join(f"{count:,} {status}" for status, count in counts.items()) or "no messages"

        with (
            self.hook(retry_unsafe=boolean("retry_unsafe", self.retry_unsafe)) as hook,
            # which messages were sent, although the task fails
            told_on_failure(context, lambda: counts and summary()),
        ):
            if demanding and hook.api_version == "v4":
                raise EmqxUnsupportedError(
                    f"require_subscribers needs EMQX 5 or newer; this is {hook.broker}, which does not tell whether "
                    "anybody has subscribed. Nothing was sent"
                )
            try:
                for part in hook.publish_in_parts(messages) if messages else ():
                    for result in part:
                        counts[result["status"]] = counts.get(result["status"], 0) + 1
                        if first_bad is None and result["status"] in bad:
                            first_bad = result
                    results += part[: MOST_LISTED - len(results)]
            finally:
                self.log.info("Of %d messages: %s", len(messages), words())
            if first_bad is not None:
                failures = sum(counts.get(status, 0) for status in bad)
                reason = f" ({first_bad['reason']})" if first_bad["reason"] else ""
                raise EmqxError(
                    f"{failures:,} of {len(messages):,} messages were not published as asked: {words()}. The first "
                    f"one, to {first_bad['topic']!r}: {first_bad['status']}{reason}. A retry publishes all of them "
                    "again"
                )
        return summary()

    def _given(self) -> list[Mapping[str, Any]]:
        from airflow_provider_emqx.api.messages import is_delayed

        messages: list[Any] = self._one_or_several()
        if boolean("require_subscribers", self.require_subscribers) and any(
            isinstance(message, Mapping) and is_delayed(str(message.get("topic"))) for message in messages
        ):
            raise EmqxConfigError(
                "require_subscribers does not go with $delayed/…: who gets such a message shows only when its time has "
                "come. Nothing was sent"
            )
        return messages

    def _one_or_several(self) -> list[Mapping[str, Any]]:
        messages = plain(self.messages)
        if messages is None:
            if self.topic is None or plain(self.payload) is None:
                raise EmqxConfigError("give either topic and payload, or messages")
            message = {
                "topic": self.topic,
                "payload": plain(self.payload),
                "qos": self.qos,
                "retain": self.retain,
            }
            properties = plain(self.properties)
            return [{**message, "properties": properties} if properties else message]
        if self.topic is not None or plain(self.payload) is not None:
            raise EmqxConfigError("give either topic and payload, or messages, not both")
        own = {
            "qos": (self.qos, 0),
            "retain": (self.retain, False),
            "properties": (plain(self.properties) or None, None),
        }
        for name, (value, default) in own.items():
            if str(value).lower() != str(default).lower():
                raise EmqxConfigError(f"{name} goes with topic and payload; with messages each has its own")
        if isinstance(messages, Mapping):
            return [messages]
        if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
            raise EmqxConfigError(f"messages must be a list of dicts, not {type(messages).__name__}")
        return list(messages)


#: messages that are deleted before the progress of a plan is written down
_PART = 1_000


class EmqxClearRetainedOperator(BaseSelectingOperator):
    """
    Delete retained messages: those of named topics, or those that a filter selects.

    v5 ``GET /mqtt/retainer/messages``, ``DELETE /mqtt/retainer/message/{topic}``. On EMQX 4 and Serverless, which can
    list none, only ``topics``, by an empty retained message to each, which its subscribers receive.

    With a filter each message is looked at right before: one that was replaced since is left alone.

    :param topic_filter: wildcards allowed, as ``state/#``; ``#`` does not match topics that begin with
        ``$``. EMQX 5 and newer.
    :param topics: in place of a filter, topics without wildcards.
    :param older_than: filter: published at least so many seconds ago, or a ``timedelta``. By the broker's
        clock against the worker's.
    :return: ``{"deleted": […], "absent": […], "changed": […], "unaddressable": […], "failed": […], "unknown": […],
        "counts": {…}, "selected", "excluded", "listing_moved", "dry_run", "reasons": […], "guards": […],
        "report_path"}``; ``changed`` were replaced since the selection, ``unaddressable`` are topics that the filter
        selects and no request can name (``.``, ``..``), and with ``dry_run`` ``deleted`` are those that would be. It
        is stored also when the task fails or is stopped.
    :raises EmqxConfigError: for invalid arguments, and for more messages than ``max_affected``; nothing
        is deleted.
    """

    template_fields: Sequence[str] = (
        "topic_filter",
        "topics",
        "older_than",
        *BaseSelectingOperator.template_fields,
    )

    def __init__(
        self,
        *,
        topic_filter: str | XComArg | None = None,
        topics: str | Sequence[str] | XComArg | None = None,
        older_than: float | str | timedelta | XComArg | None = None,
        **kwargs: Unpack[SelectingKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.topic_filter: Any = topic_filter
        self.topics = topics
        self.older_than = older_than
        self.check_literals()

    def check(self) -> None:
        """Refuse a selection that says nothing, or too much."""
        if (self.topics is None) == (self.topic_filter is None):
            raise EmqxConfigError("give either topics or topic_filter, to say what is to be deleted")
        if seconds("older_than", self.older_than) is not None and self.topics is not None:
            raise EmqxConfigError(
                "older_than goes with topic_filter; named topics are deleted whatever their age"
            )

    def dashboard_page(self) -> str:
        """Return the page of the retained messages."""
        return "retained"

    def execute(self, context: Context) -> ClearRetainedResult:
        """Select, check, delete."""
        from airflow_provider_emqx.api.base import fits_path
        from airflow_provider_emqx.api.names import topic_name

        self.check()
        age = seconds("older_than", self.older_than)
        dry_run = boolean("dry_run", self.plan_only)
        outcomes = (DELETED, ABSENT, CHANGED, UNADDRESSABLE)
        found: dict[str, Any]
        left: list[str]
        with (
            self.hook() as hook,
            self.job(hook, "clear_retained") as job,
            Affected(
                context, "topic", outcomes, self.report_path, job, lambda topic: (CLEAR, topic)
            ) as affected,
        ):
            if job.is_finished:
                found, left = {}, []
            elif self.topics is not None:
                found = {topic_name(topic): None for topic in texts("topics", self.topics)}
                left = []
                for topic in found:
                    self._check(hook, topic)
            else:
                found = self._select(hook, age, job.now)
                left = [topic for topic in self.without_excluded(list(found)) if not fits_path(topic)]
            selected = self.without_excluded(list(found))
            chosen = {topic: found[topic] for topic in selected if topic not in left}
            affected.select(
                len(selected),
                excluded=len(found) - len(selected),
                listing_moved=hook.listing_moved,
                dry_run=dry_run,
            )
            affected.hold(self.max_affected, len(chosen), "retained messages", lambda: _retained(hook))
            affected.add(UNADDRESSABLE, left)
            job.add((CLEAR, topic, msgid or "") for topic, msgid in chosen.items())
            affected.settle()
            if dry_run:
                affected.add(DELETED, chosen)
            else:
                for part in job.parts(CLEAR, list(chosen), _PART):
                    self._delete(hook, {topic: chosen[topic] for topic in part}, affected)
                affected.raise_failure()
                job.finish()
            affected.tell("retained messages")
        return cast("ClearRetainedResult", affected.result())

    @staticmethod
    def _check(hook: EmqxHook, topic: str) -> None:
        """Refuse a topic whose message this broker cannot be asked to delete."""
        from airflow_provider_emqx.api.base import path

        hook.api.messages.check({"topic": topic, "payload": ""})
        if hook.api_version == "v5" and not hook.broker.serverless:
            path(topic)

    def _select(self, hook: EmqxHook, age: float | None, now: datetime) -> dict[str, Any]:
        from airflow_provider_emqx.api.filters import read_time

        latest = None if age is None else now - timedelta(seconds=age)
        return {
            row["topic"]: row["msgid"]
            for row in hook.settled_rows(
                lambda: hook.api.messages.list_retained(pattern=self.topic_filter or "")
            )
            if latest is None or read_time(row["publish_at"]) <= latest
        }

    @staticmethod
    def _delete(hook: EmqxHook, chosen: dict[str, Any], affected: Affected) -> None:
        messages = hook.api.messages

        def delete(topic: str, msgid: str | None) -> Any:
            if msgid is not None:
                message = yield from messages.get_retained(topic)
                if message is None:
                    return ABSENT
                if message.get("msgid") != msgid:
                    return CHANGED
            deleted = yield from messages.delete_retained(topic)
            # where the broker does not tell, nothing is retained there afterwards
            return ABSENT if deleted is False else DELETED

        for topic, outcome in hook.run_each((topic, delete(topic, chosen[topic])) for topic in chosen):
            affected.add(outcome, [topic])


class EmqxTopicMetricsOperator(BaseEmqxOperator):
    """
    Measure topics: start, read, reset, or stop.

    v5 ``/mqtt/topic_metrics``, v4 ``/topic-metrics`` (its module must be loaded). A broker measures 512 topics at most.

    :param action: ``"register"``, ``"read"``, ``"reset"`` or ``"unregister"``.
    :param topics: without wildcards; ``None`` for all measured topics.
    :return: ``{"topics": {topic: changed, …}, "metrics": {topic: {"messages.in.count": 3, …}, …}}``: whether a topic
        is newly measured, was reset, or was measured until now (``None`` on EMQX 4, which does not tell); and what was
        read, ``None`` where the topic is not measured. It is stored also when the task fails.
    :raises EmqxNotFoundError: if a topic to reset is not measured.
    """

    template_fields: Sequence[str] = ("action", "topics", *BaseEmqxOperator.template_fields)

    def __init__(
        self,
        *,
        action: TopicMetricsAction | Rendered = "read",
        topics: str | Sequence[str] | XComArg | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.action = action
        self.topics = topics
        self.check_literals()

    def check(self) -> None:
        """Refuse an unknown action, and one that needs topics without any."""
        choice("action", self.action, get_args(TopicMetricsAction))
        if self.topics is None and self.action == "register":
            raise EmqxConfigError("register needs topics")

    def execute(self, context: Context) -> TopicMetricsResult:
        """Measure the topics."""
        from airflow_provider_emqx.api.names import topic_name

        self.check()
        names = None if self.topics is None else [topic_name(topic) for topic in texts("topics", self.topics)]
        result: TopicMetricsResult = {"topics": {}, "metrics": {}}
        with self.hook() as hook, told_on_failure(context, lambda: result):
            if names is None or self.action == "read":
                measured = {row["topic"]: row["metrics"] for row in hook.list_topic_metrics()}
                names = list(measured) if names is None else names
            if self.action == "read":
                result["metrics"] = {topic: measured.get(topic) for topic in names}
            else:
                for topic in names:
                    result["topics"][topic] = self._change(hook, topic)
        self.log.info("Topic metrics: %s, %d topics", self.action, len(names))
        return result

    def _change(self, hook: EmqxHook, topic: str) -> bool | None:
        if self.action == "register":
            return hook.register_topic_metrics(topic)
        if self.action == "unregister":
            return hook.unregister_topic_metrics(topic)
        hook.reset_topic_metrics(topic)
        return True


class EmqxListSubscriptionsOperator(BaseEmqxOperator):
    """
    List subscriptions: v4 and v5 ``GET /subscriptions``.

    :param filters: as of :meth:`~airflow_provider_emqx.hooks.topics.TopicMethods.list_subscriptions`, as
        ``{"receiving": "cmd/dev-1"}``; all must hold.
    :param output_path: path or URL of a JSON Lines file for all rows: the result holds 1,000.
    :return: ``{"count", "rows", "output_path", "listing_moved"}``; the last says whether subscriptions came or went
        between two pages, so that rows may be missing, and is ``None`` where that is not known.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"filters": "json"}
    template_fields: Sequence[str] = ("filters", "output_path", *BaseEmqxOperator.template_fields)

    def __init__(
        self,
        *,
        filters: Mapping[str, Any] | str | XComArg | None = None,
        output_path: str | os.PathLike[str] | XComArg | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.output_path: Any = output_path
        self.check_literals()

    def check(self) -> None:
        """Refuse filters other than a dict."""
        mapping("filters", self.filters)

    def dashboard_page(self) -> str:
        """Return the page of the subscriptions."""
        return "subscriptions/subscription"

    def execute(self, context: Context) -> ListResult[SubscriptionRow]:
        """List."""
        filters = mapping("filters", self.filters)
        with self.hook() as hook:
            listing = hook.api.topics.list_subscriptions(filters=filters)
            return write_rows(hook, listing, self.output_path)


def _retained(hook: EmqxHook) -> int:
    return int(hook.get_stats().get("retained.count", 0))

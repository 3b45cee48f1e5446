"""
Results of operators, as their tasks store them in XCom, for type checkers.

Lists hold 1,000 entries at most; the counts beside them are complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, NotRequired, TypeAlias, TypedDict, TypeVar

from airflow_provider_emqx.api.rows import BanRow, PublishedRow

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_R = TypeVar("_R")

#: what a run spent most of its time on
LimitedBy = Literal["broker", "hashing", "reading"]


class Reason(TypedDict):
    """
    A reason for an outcome other than the one wanted, how often it was met, and an example.

    ``id`` is the name of the example; ``line`` and ``file`` say where a source has it, the latter if the source is
    several files.
    """

    outcome: str
    reason: str
    count: int
    id: str | None
    line: NotRequired[int]
    file: NotRequired[str]


class Guard(TypedDict):
    """
    A limit that a run was held to, by the name of the argument.

    ``count`` is what was counted, and ``allowed`` the number that it was compared with. ``of`` is what a share is taken
    of, ``None`` for a limit that is a count. ``exceeded`` says whether the limit ended the run.
    """

    name: str
    count: int
    allowed: int
    of: int | None
    exceeded: bool


class ListResult(TypedDict, Generic[_R]):
    """The rows of a listing; ``listing_moved`` is ``None`` where it is not known."""

    count: int
    rows: list[_R]
    output_path: str | None
    listing_moved: bool | None


class PlanResult(TypedDict):
    """
    A plan that was written or carried out, with the number of changes of each kind.

    ``done`` counts the changes that this attempt has made, and ``not_done`` the others by what became of them:
    ``before`` are those of earlier attempts, ``left`` those that were not begun.
    """

    path: str
    digest: str
    changes: dict[str, int]
    done: int
    not_done: dict[str, int]


class _Acting(TypedDict):
    counts: dict[str, int]
    selected: int
    reasons: list[Reason]
    guards: list[Guard]
    report_path: str | None


class _Selecting(_Acting):
    plan: PlanResult | None
    excluded: int
    listing_moved: bool | None
    dry_run: bool


class SubscriptionName(TypedDict):
    """A subscription of a client; without ``topic`` where nothing could be done for the client."""

    clientid: str
    topic: NotRequired[str]


class SubscribeResult(_Acting):
    """The outcomes of subscriptions: they were ``subscribed`` or ``unsubscribed``, as the operator does."""

    subscribed: NotRequired[list[SubscriptionName]]
    unsubscribed: NotRequired[list[SubscriptionName]]
    failed: list[SubscriptionName]
    unknown: list[SubscriptionName]


class KickResult(_Selecting):
    """The outcomes of kicked clients."""

    kicked: list[str]
    absent: list[str]
    still_connected: list[str]
    changed: list[str]
    unaddressable: list[str]
    failed: list[str]
    unknown: list[str]


class ClearRetainedResult(_Selecting):
    """The outcomes of deleted retained messages, by topic."""

    deleted: list[str]
    absent: list[str]
    changed: list[str]
    unaddressable: list[str]
    failed: list[str]
    unknown: list[str]


class RejectedBan(TypedDict):
    """A row of a source that is not a ban."""

    line: int
    who: str | None
    reason: str


class BanResult(_Acting):
    """The outcomes of bans, and of the clients that were kicked; ``failed`` and ``unknown`` name either."""

    banned: list[BanRow]
    kicked: list[str]
    still_connected: list[str]
    unaddressable: list[str]
    rejected: list[RejectedBan]
    failed: list[BanRow | str]
    unknown: list[BanRow | str]
    over: int
    plan: PlanResult | None
    dry_run: bool


class UnbanResult(_Selecting):
    """The outcomes of bans that were to end; each has ``as`` and ``who``."""

    unbanned: list[BanRow]
    still_banned: list[BanRow]
    unaddressable: list[BanRow]
    failed: list[BanRow]
    unknown: list[BanRow]


class PublishResult(TypedDict):
    """The outcomes of messages; ``counts`` is by status."""

    messages: int
    counts: dict[str, int]
    results: list[PublishedRow]


class RejectedRow(TypedDict):
    """A rejected row, one of the first 100; ``file`` is of a source of several files."""

    id: str | None
    line: int | None
    outcome: str
    reason: str
    file: NotRequired[str]


class Totals(TypedDict):
    """The rows of a source and of users that are not in it, by outcome; what the broker does not tell is ``None``."""

    read: int
    written: int
    deleted: int
    skipped: int
    rejected: int
    pruned: int
    unaddressable: int
    created: int | None
    updated: int | None
    unchanged: int | None
    not_carried: int
    seconds: float
    rows_per_second: int


class _Provisioning(TypedDict):
    dry_run: bool
    report_path: str | None
    plan: PlanResult | None
    reasons: list[Reason]
    guards: list[Guard]
    rejected_rows: list[RejectedRow]
    unread: list[str]


class ProvisionUsersResult(Totals, _Provisioning):
    """
    The summary of provisioned users.

    ``phases`` is in seconds. ``limited_by`` is what took most of the time: the broker, hashing in the task, or reading
    and validating rows.
    """

    phases: dict[str, float]
    limited_by: LimitedBy
    chunks: dict[str, int]
    acl_changed: bool
    listing_moved: bool | None


class ProvisionAclResult(_Provisioning):
    """The summary of provisioned ACL rules."""

    read: int
    written: int
    skipped: int
    rejected: int
    subjects: int


class WrittenUsers(TypedDict):
    """A file of users; ``superusers`` is ``None`` on EMQX 4."""

    users: int
    superusers: int | None
    output_path: str


class ExportUsersResult(WrittenUsers):
    """A file of users, and what it lacks."""

    listing_moved: bool | None
    left_out: int
    password_hash_algorithm: str | None


class WrittenBackup(TypedDict):
    """A file in a directory of backups; ``size`` is in bytes."""

    backup_path: str
    size: int
    sha256: str


class TakenBackup(WrittenBackup):
    """A backup, with its name on the broker."""

    filename: str
    node: str


class BackupResult(TypedDict):
    """A backup, and the older ones that were deleted; a dry run takes no backup."""

    backup_path: str | None
    filename: str | None
    node: str | None
    size: int | None
    sha256: str | None
    deleted: list[str]
    deleted_on_broker: list[str]
    dry_run: bool
    plan: PlanResult | None


class BackupContents(TypedDict):
    """Contents of a backup; ``tables`` has the number of records by name."""

    version: str
    edition: str | None
    tables: dict[str, int]
    configuration: bool
    files: int


class RestoreResult(BackupContents):
    """An imported backup."""

    backup_path: str
    node: str | None
    dry_run: bool
    plan: PlanResult | None


class ClearAlarmsResult(TypedDict):
    """The names of alarms that were deactivated, were not active, and are active afterwards."""

    deactivated: list[str]
    not_active: list[str]
    active: list[str]
    history_cleared: bool


class TopicMetricsResult(TypedDict):
    """
    The topics that an action was for.

    ``topics`` says of each whether it was changed: newly measured, reset, or no longer measured, ``None`` on EMQX 4,
    which does not tell. ``metrics`` are those that were read, ``None`` for a topic that is not measured.
    """

    topics: dict[str, bool | None]
    metrics: dict[str, dict[str, float] | None]


#: ``time``, and figures under the names that the broker has for them; ``None`` for one that it does not have
MetricsSnapshot: TypeAlias = dict[str, float | str | None]


class RuleStateResult(TypedDict):
    """The state of a rule, action, source or connector."""

    enable: bool | None
    status: str | None


class EvacuateNodeResult(TypedDict):
    """The last check of an evacuated node: how much was left on it."""

    node: str
    state: str
    connected: int | None
    sessions: int | None
    seconds: float
    stopped: bool


class CommandResult(_Acting):
    """The outcomes of a command, by client id; ``replies`` is there if replies are kept."""

    replied: list[str]
    failed: list[str]
    no_reply: list[str]
    not_delivered: list[str]
    unknown: list[str]
    unaddressable: list[str]
    left: list[str]
    left_count: int
    waves: int
    replies: NotRequired[dict[str, str]]


def keep_result(context: Context, result: Any) -> None:
    """
    Store the result of a failing task, for downstream tasks that run nevertheless.

    :param context: of the task; one without a task instance, as of a test, stores nothing.
    :param result: as the task would have returned it.
    """
    ti = context.get("ti")
    if ti is not None:
        ti.xcom_push(key="return_value", value=result)

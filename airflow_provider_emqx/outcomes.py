"""Outcomes, shared by everything that acts on many objects."""

from __future__ import annotations

from airflow_provider_emqx.exceptions import EmqxError, EmqxOutcomeUnknownError

#: done, in one of these ways
WRITTEN, DELETED = "written", "deleted"
#: deleted because it is not in the source
PRUNED = "pruned"
#: left alone; a reason says why
SKIPPED = "skipped"
#: refused, by this package or by the broker; a reason says why
REJECTED = "rejected"
#: an error says why it was not done
FAILED = "failed"
#: may have been done: the response was lost, or the task was interrupted
UNKNOWN = "unknown"
#: left unchanged: its name cannot be part of a request
UNADDRESSABLE = "unaddressable"
#: the clients' sessions were ended, they are connected all the same, or the filters no longer select them
KICKED, STILL_CONNECTED, CHANGED = "kicked", "still_connected", "changed"
BANNED, UNBANNED, STILL_BANNED = "banned", "unbanned", "still_banned"
#: what a device made of a command, besides ``failed``
REPLIED, NO_REPLY, NOT_DELIVERED = "replied", "no_reply", "not_delivered"
#: a file or directory beside those of a source
UNREAD = "unread"

#: entries of one list in a result, an event, or a trigger's arguments, which Airflow keeps in its database: of any more
#: the result tells the number, and a file has them if one is asked for
MOST_LISTED = 1_000

#: why something was skipped
EXISTS, ABSENT, KEPT = "exists", "absent", "kept"
MAYBE_OURS = "exists, perhaps created by an attempt of this run whose response was lost"


def told_as(error: BaseException) -> str:
    """
    Return the outcome of an operation that ended with an error.

    :param error: one of ours, or the interruption of a task.
    """
    if isinstance(error, EmqxError) and not isinstance(error, EmqxOutcomeUnknownError):
        return UNKNOWN if error.maybe_applied else FAILED
    return UNKNOWN

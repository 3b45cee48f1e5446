"""The outcome of one row."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """
    The outcome of one row, or of one user that is not in the source.

    :param line: where the row starts in its file, or its position in a list, from 1; 0 for a user that is not in the
        source.
    :param user_id: its id, ``None`` where the row has none that may be shown.
    :param outcome: ``"written"``, ``"deleted"``, ``"skipped"`` or ``"rejected"``; of a user that is not in the source
        ``"pruned"``, or ``"unaddressable"`` if it cannot be deleted because of its id.
    :param reason: why it was skipped, rejected or pruned, else empty.
    :param file: which file it is from, where there are several.
    """

    line: int
    user_id: str | None
    outcome: str
    reason: str = ""
    file: str = ""


def shown(user_id: object) -> str | None:
    """
    Make an id fit for logs, reports and databases: no control characters, no broken text, not endless.

    :param user_id: whatever stood in the id's place.
    """
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        user_id = str(user_id)
    if not isinstance(user_id, str):
        return None
    if len(user_id) > 1_000:
        user_id = user_id[:1_000] + "…"
    if user_id.isprintable():
        return user_id
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in user_id)

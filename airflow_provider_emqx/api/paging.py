"""End of the lists of both generations."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Reply


def has_next(reply: Reply, page: int, limit: int) -> bool:
    """
    Return whether another page follows.

    ``hasnext`` decides where it is sent (an empty page may well be followed by more), else the count (-1 on v4 as soon
    as there is a filter), else a short page. The broker's own ``limit`` counts: something before it may allow less than
    was asked for, and the rest of the list would be lost.
    """
    used = reply.meta.get("limit")
    if isinstance(used, int) and 0 < used < limit:
        limit = used
    more, count = reply.meta.get("hasnext"), reply.meta.get("count")
    if isinstance(more, bool):
        return more
    if isinstance(count, int) and count >= 0:
        return page * limit < count
    return len(reply.data) >= limit

"""How the lists of both generations end, and how long the pages are that we ask for."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker, Reply

_LONGEST = 10_000


def page_limit(broker: Broker) -> int:
    """
    Give the longest page that the broker is known to accept.

    v5: 10,000 rows since EMQX 5.5, 1,000 before. v4 has no maximum; its default of 10,000 is taken.
    """
    return _LONGEST if broker.generation == "v4" or broker.serverless or broker.at_least(5, 5) else 1_000


def has_next(reply: Reply, page: int, limit: int) -> bool:
    """
    Tell whether another page follows.

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

"""How v4 lists end, and how long the pages are that we ask for."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Reply

#: v4 has no maximum; its own default for clients and users is taken
PAGE_LIMIT = 10_000


def has_next(reply: Reply, page: int, limit: int) -> bool:
    """
    Tell whether another page follows.

    ``hasnext`` decides where it is sent, else the count (-1 as soon as there is a filter), else a short page.
    """
    meta = reply.meta
    if isinstance(meta.get("hasnext"), bool):
        return bool(meta["hasnext"])
    if isinstance(meta.get("count"), int) and meta["count"] >= 0:
        return page * limit < meta["count"]
    return len(reply.data) >= limit

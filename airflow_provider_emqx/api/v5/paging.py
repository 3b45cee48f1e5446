"""How v5 lists end, and how long their pages may be."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker, Reply


def page_limit(broker: Broker) -> int:
    """Give the longest page that the broker is known to accept: 10,000 rows since EMQX 5.5, 1,000 before."""
    return 10_000 if broker.at_least(5, 5) else 1_000


def has_next(reply: Reply, page: int, limit: int) -> bool:
    """
    Tell whether another page follows.

    ``hasnext`` decides where it is sent (an empty page may well be followed by more), else the count, else a short page.
    """
    meta = reply.meta
    if isinstance(meta.get("hasnext"), bool):
        return bool(meta["hasnext"])
    if isinstance(meta.get("count"), int) and meta["count"] >= 0:
        return page * limit < meta["count"]
    return len(reply.data) >= limit

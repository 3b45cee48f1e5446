"""Base class of the classes of operations."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker, Row

_LONGEST = 10_000


class Area:
    """
    Base of the classes that hold the operations of one area each.

    The class for EMQX 5 and 6 is the base of the one for EMQX 4, which overrides what differs.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    @property
    def page_limit(self) -> int:
        """
        The longest page, in rows, that the broker is known to accept.

        10,000 since EMQX 5.5, 1,000 before. EMQX 4 has no maximum; its default of 10,000 is taken.
        """
        broker = self.broker
        return _LONGEST if broker.is_v4 or broker.serverless or broker.at_least(5, 5) else 1_000

    def query(self, page: int, limit: int) -> Row:
        """Return the query parameters that ask for one page of a listing."""
        return {"_page": page, "_limit": limit} if self.broker.is_v4 else {"page": page, "limit": limit}

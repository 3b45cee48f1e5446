"""Says before the first write how long a run will take at the limit of requests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)


def tell_rate(hook: Session, count: int | None, what: str = "row", at_once: int = 1, more: str = "") -> None:
    """
    Log what the connection's ``rate_limit`` means for a run; without one, nothing.

    :param count: of what there is to do, ``None`` where it is not known.
    :param what: name of one of these.
    :param at_once: how many of these one request carries at most.
    :param more: what takes a request each besides.
    """
    rate = hook.settings.rate_limit
    if rate is None:
        return
    carries = (
        f"at least one request per {what}" if at_once == 1 else f"up to {at_once:,} {what}s in a request"
    )
    known = 1_000 if count is None else count
    # the first requests are small ones, by which the broker's speed is learnt
    requests = known if at_once == 1 else -(-known // at_once) + 2 * (known > 500)
    log.info(
        "At %g requests per second, and %s, %s %ss take %s or more%s",
        rate,
        carries,
        f"about {count:,}" if count is not None else "1,000",
        what,
        duration(requests / rate),
        f"; add one request for {more}" if more else "",
    )


def duration(seconds: float) -> str:
    """
    Write a span of time as one number.

    :param seconds: the span.
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"

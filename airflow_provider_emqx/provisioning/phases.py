"""The time that the parts of a run take, and which of them limits it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from airflow_provider_emqx.results import LimitedBy

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: seconds; of a shorter run it does not matter what limits it
_SHORT = 1.0
_LIMITS: dict[LimitedBy, tuple[str, str]] = {
    "broker": ("the broker", "shards are hardly faster"),
    "hashing": ("hashing", "shards on several workers are faster"),
    # each of them reads the whole source
    "reading": ("reading", "shards are hardly faster"),
}


class Phases:
    """
    Seconds that a run spends on each part of its work.

    ``read`` and ``hash`` are the task's own work, and go on while the broker does its part, ``write``. ``list`` comes
    before that, and ``prune`` after it.
    """

    def __init__(self) -> None:
        self.seconds = {"read": 0.0, "hash": 0.0, "list": 0.0, "write": 0.0, "prune": 0.0}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """
        Add the time that a block takes.

        :param phase: that it is part of.
        """
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] += time.monotonic() - start

    def timed(self, phase: str, items: Iterator[_T]) -> Iterator[_T]:
        """
        Add the time that an iterator needs for its items, but not what is done with them.

        :param phase: that it is part of.
        :param items: of the iterator.
        """
        while True:
            with self.time(phase):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @property
    def limited_by(self) -> LimitedBy:
        """Return what took most of the time, and so determines how long the run takes."""
        if self._broker >= self.seconds["read"] + self.seconds["hash"]:
            return "broker"
        return "hashing" if self.seconds["hash"] >= self.seconds["read"] else "reading"

    @property
    def _broker(self) -> float:
        return self.seconds["list"] + self.seconds["write"] + self.seconds["prune"]

    def tell(self) -> None:
        """Log what limits the run, and whether shards would make it faster."""
        if sum(self.seconds.values()) < _SHORT:
            return
        limit, shards = _LIMITS[self.limited_by]
        log.info(
            "Limited by %s: reading took %.1f s, hashing %.1f s, the broker %.1f s; %s",
            limit,
            self.seconds["read"],
            self.seconds["hash"],
            self._broker,
            shards,
        )

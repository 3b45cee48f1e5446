"""Faults that a test orders: the broker, or something between it and the client, misbehaves on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

KINDS = (
    "status",
    "redirect",
    "reset",
    "reset_after",
    "stall",
    "slow",
    "truncated",
    "garbage",
    "wrong_length",
    "close",
)

#: Kinds of which the broker still does the work that was asked for.
WORKING = frozenset({"reset_after", "stall", "slow", "truncated", "garbage", "wrong_length", "close"})

Match = str | Callable[[str, str], bool]


class Fault(NamedTuple):
    """The state of an order: see :meth:`FakeEmqx.order_fault`."""

    kind: str
    status: int
    body: bytes
    headers: Mapping[str, str]
    seconds: float

    @property
    def works(self) -> bool:
        """Whether the broker does the work all the same."""
        return self.kind in WORKING


class Order:
    """A fault that waits for its requests."""

    __slots__ = ("after", "fault", "match", "times")

    def __init__(self, fault: Fault, match: Match | None, times: int, after: int) -> None:
        self.fault = fault
        self.match = match
        self.times = times
        self.after = after

    def matches(self, method: str, raw_path: str) -> bool:
        """Return whether a request is meant."""
        if self.match is None:
            return True
        if isinstance(self.match, str):
            return self.match in f"{method} {raw_path}"
        return self.match(method, raw_path)


class Faults:
    """Orders in the sequence in which they were given; the first one that fits a request is used up by it."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def take(self, method: str, raw_path: str) -> Fault | None:
        """Return the fault of a request, or ``None``."""
        for order in self.orders:
            if not order.matches(method, raw_path):
                continue
            if order.after > 0:
                order.after -= 1
                continue
            order.times -= 1
            if order.times <= 0:
                self.orders.remove(order)
            return order.fault
        return None

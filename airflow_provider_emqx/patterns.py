"""Patterns of names: ``*`` stands for any text, also none, and everything else for itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def one_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return an expression whose ``fullmatch`` matches names like one of ``patterns``, case-sensitively."""
    alternatives = (".*".join(map(re.escape, re.split(r"\*+", pattern))) for pattern in patterns)
    return re.compile("|".join(alternatives) or r"(?!)", re.DOTALL)


@lru_cache(maxsize=256)
def like(pattern: str) -> re.Pattern[str]:
    """Return an expression whose ``fullmatch`` matches names like ``pattern``, case-sensitively."""
    return one_of([pattern])


def common_part(pattern: str) -> str:
    """Return the longest text that every name like ``pattern`` has; empty if it may be any."""
    return max(pattern.split("*"), key=len)

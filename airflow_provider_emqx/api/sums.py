"""Figures of a cluster made from those of its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_emqx.api.base import Row

#: every node counts the whole cluster's
_SHARED = frozenset(
    f"{name}.{figure}"
    for name in ("retained", "topics", "routes", "subscriptions.shared")
    for figure in ("count", "max")
)


def summed(nodes: Iterable[Mapping[str, Any]]) -> Row:
    """
    Sum up the metrics of nodes, as v5 does for ``aggregate=true``.

    :param nodes: metrics by name, one mapping per node; values other than numbers are left out.
    """
    total: Row = {}
    for figures in nodes:
        for name, value in figures.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if name in _SHARED:
                total[name] = max(total.get(name, 0), value)
            else:
                total[name] = total.get(name, 0) + value
    return total

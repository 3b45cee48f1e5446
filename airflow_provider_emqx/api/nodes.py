"""Names of nodes: an unknown one is refused here, because brokers answer it with a timeout or a missing route."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_emqx.api.base import path
from airflow_provider_emqx.api.rows import NodeRow
from airflow_provider_emqx.exceptions import EmqxConfigError


def known_node(node: str, rows: Sequence[NodeRow]) -> str:
    """
    Check a node's name against those of the cluster.

    :param node: as ``emqx@10.0.0.1``.
    :param rows: the cluster's nodes.
    :raises EmqxConfigError: naming the nodes that there are.
    """
    path(node)
    names = sorted(str(row.get("node")) for row in rows)
    if node not in names:
        raise EmqxConfigError(f"the cluster has no running node {node!r}; it has {', '.join(names)}")
    return node

"""The operations of EMQX's management API, EMQX 5 and 6 (``/api/v5``)."""

from __future__ import annotations

from airflow_provider_emqx.api.v5 import auth, clients, cluster, nodes, replies, topics

__all__ = ["auth", "clients", "cluster", "nodes", "replies", "topics"]

"""The operations of EMQX's management API, EMQX 4 (``/api/v4``)."""

from __future__ import annotations

from airflow_provider_emqx.api.v4 import auth, clients, cluster, nodes, replies, topics

__all__ = ["auth", "clients", "cluster", "nodes", "replies", "topics"]

"""Metrics of topics, written the same for both generations."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Row

#: the most topics that a broker measures
MOST = 512


def metrics_row(topic: str, row: Row, metrics: Row) -> Row:
    """
    Write one topic's metrics: v4 tells no times, and some versions of v5 say ``message.`` for ``messages.``.

    :param topic: the topic.
    :param row: with ``create_time`` and ``reset_time`` where the broker tells them.
    :param metrics: counters and rates by name.
    """
    return {
        "topic": topic,
        "create_time": row.get("create_time"),
        "reset_time": row.get("reset_time"),
        "metrics": {
            f"messages.{name.removeprefix('message.')}" if name.startswith("message.") else name: value
            for name, value in metrics.items()
        },
    }

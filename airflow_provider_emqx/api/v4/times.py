"""v4 times as v5 writes them: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_emqx.api.base import Broker


def from_local(broker: Broker, text: str | None) -> str | None:
    """Convert ``"2026-11-23 04:23:28"``, the broker's local time without an offset."""
    try:
        local = _read(text or "")
    except ValueError:
        return None
    return (
        (local - timedelta(minutes=broker.utc_offset)).replace(tzinfo=UTC).isoformat(timespec="milliseconds")
    )


def _read(text: str) -> datetime:
    try:
        # many times as fast, and a sweep has thousands
        return datetime.fromisoformat(text)
    except ValueError:
        # times without leading zeros
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")


def from_milliseconds(value: int | None) -> str | None:
    """Convert milliseconds since 1970."""
    if not isinstance(value, (int, float)):
        return None
    return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")


def from_export(broker: Broker, value: str | int | None) -> str | None:
    """Convert a backup's time: ``"2026-11-23 4:23:32"`` without leading zeros, or seconds since 1970."""
    if isinstance(value, int):
        return from_milliseconds(value * 1000)
    return from_local(broker, value)

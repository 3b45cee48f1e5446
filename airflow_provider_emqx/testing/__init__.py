"""A broker for tests: :class:`FakeEmqx` serves EMQX's management API on loopback."""

from __future__ import annotations

from airflow_provider_emqx.testing.broker import FakeEmqx
from airflow_provider_emqx.testing.pace import PACE_V4, PACE_V5

__all__ = ["PACE_V4", "PACE_V5", "FakeEmqx"]

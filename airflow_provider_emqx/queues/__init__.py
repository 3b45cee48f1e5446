"""Queues of common.messaging."""

from __future__ import annotations

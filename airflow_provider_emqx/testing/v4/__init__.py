"""Routes of API v4: EMQX 4.4."""

from __future__ import annotations

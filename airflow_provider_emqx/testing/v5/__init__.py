"""Routes of API v5: EMQX 5 and 6."""

from __future__ import annotations

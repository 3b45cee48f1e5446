from __future__ import annotations

from tests.client.conftest import driver

__all__ = ["driver"]

from __future__ import annotations

from tests.transport.conftest import driver

__all__ = ["driver"]

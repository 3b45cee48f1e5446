"""Base class of the triggers that wait for one task."""

from __future__ import annotations

import inspect
from typing import Any

from airflow.triggers.base import BaseTrigger


class BaseEmqxTrigger(BaseTrigger):
    """
    Base class of the triggers that wait for one task.

    Each argument is an attribute of the same name.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments from which a restart recreates the trigger: plain JSON without credentials."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {
            name: getattr(self, name) for name in inspect.signature(cls).parameters
        }

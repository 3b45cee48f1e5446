"""Messages that tasks wait for, and that start DAGs."""

from __future__ import annotations

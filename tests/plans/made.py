"""Helpers for tests of plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def lines(plan: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in plan.read_text(encoding="utf-8").splitlines()]


def changes(plan: Path) -> list[tuple[str, str]]:
    """Return kind and id of each change in a plan."""
    return [(line["kind"], line["id"]) for line in lines(plan)[1:-1]]

"""Helpers for tests of plans."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any


def lines(plan: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in plan.read_text(encoding="utf-8").splitlines()]


def changes(plan: Path) -> list[tuple[str, str]]:
    """Return kind and id of each change in a plan."""
    return [(line["kind"], line["id"]) for line in lines(plan)[1:-1]]


def resealed(parts: list[bytes]) -> bytes:
    """Return the lines of a plan with the digest that fits them, as somebody writes it who knows how it is made."""
    end = json.loads(parts[-1])
    del end["digest"]
    end["changes"] = dict(Counter(json.loads(line)["kind"] for line in parts[1:-1]))
    digest = hashlib.sha256(b"".join(parts[:-1]))
    digest.update(json.dumps(end, sort_keys=True).encode())
    return b"".join(parts[:-1]) + json.dumps({**end, "digest": digest.hexdigest()}).encode() + b"\n"

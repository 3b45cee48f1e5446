"""
Find code of the package that nothing uses, with vulture.

Tests, scripts and example DAGs are read as users, but their own findings are not reported: fixtures and the like are
called by name. Neither are public names in the modules that users import: their callers live elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vulture import Vulture
from vulture.core import Item

PACKAGE = Path("airflow_provider_emqx")
USERS = ["tests", ".ci", "example_dags"]
PUBLIC = (
    "api/rows.py",
    "choices.py",
    "exceptions.py",
    "hooks",
    "keywords.py",
    "links.py",
    "notifications",
    "operators",
    "queues",
    "results.py",
    "sensors",
    "testing/broker.py",
    "transfers",
    "triggers",
)

#: What Airflow, the standard library, requests, aiohttp and paho-mqtt look up by name.
LOOKED_UP = [
    "ConnectionCls",
    "SessionExpiryInterval",
    "__cause__",
    "_retry_connection",
    "cert_verify",
    "lineage_context",
    "connection_lost",
    "connection_made",
    "data_received",
    "exc",
    "exc_info",
    "keep_alive",
    "max_inflight_messages",
    "on_disconnect",
    "on_publish",
    "on_unsubscribe",
    "on_socket_*",
    "on_subscribe",
    "prepare",
    "readable",
    "response_class",
    "ti_key",
    "trace",
    "write_eof",
]


def main() -> int:
    """Print one line per finding; 1 if there is any."""
    vulture = Vulture(ignore_names=LOOKED_UP)
    vulture.scavenge([str(PACKAGE), *(user for user in USERS if Path(user).is_dir())])
    if vulture.exit_code == 1:
        return 1  # a file that cannot be read, as vulture has said
    found = [
        item
        for item in vulture.get_unused_code(min_confidence=60)
        if Path(item.filename).resolve().is_relative_to(PACKAGE.resolve()) and not is_public(item)
    ]
    for item in found:
        print(item.get_report())
    return 1 if found else 0


def is_public(item: Item) -> bool:
    """Say whether users may call it: a public name in a module that they import."""
    path = Path(item.filename).resolve().relative_to(PACKAGE.resolve()).as_posix()
    return not item.name.startswith("_") and any(
        path == name or path.startswith(f"{name}/") for name in PUBLIC
    )


if __name__ == "__main__":
    sys.exit(main())

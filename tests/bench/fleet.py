"""A night of a large fleet: a million users kept in sync."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.setting import V5, provision_elsewhere, write_csv
from tests.bench.table import Line

MB = 1_000_000


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure a synchronisation, then hashing in shards."""
    yield from _sync(folder, quick)
    yield from _shards(folder, quick)


def _sync(folder: Path, quick: bool) -> Iterator[Line]:
    rows = 100_000 if quick else 1_000_000
    few = 10_000
    from airflow_provider_emqx.testing import FakeEmqx
    from airflow_provider_emqx.testing.pace import PACE_V5

    new, changed, gone = rows // 100, rows // 200, rows // 1_000
    with FakeEmqx(V5.version, pace=PACE_V5, log_requests=False) as fake:
        os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
        (small,) = provision_elsewhere(_source(folder, few, 0), {"mode": "sync", "scope": "fleet-*"})
        for number in range(few, rows - new + gone):
            fake.add_user(_id(number), _password(number))
        before = fake.request_count
        # those who are gone have the last numbers of the old ones, the new ones come after them
        source = _source(folder, rows, changed, skip=range(rows - new, rows - new + gone))
        (usage,) = provision_elsewhere(source, {"mode": "sync", "scope": "fleet-*"})
        requests = fake.request_count - before
        users = len(fake.users)
    result = usage.result
    if (users, result["created"], result["pruned"]) != (rows, new, gone):
        raise RuntimeError(f"{users} users in the end: {result}")
    what = f"v5: sync of {rows:,} users"
    yield Line(
        f"{what}, {new:,} new, {changed:,} changed, {gone:,} gone",
        f"{usage.wall:.1f} s, {requests:,} requests",
    )
    yield Line(f"{what}, our own CPU", f"{usage.cpu:.1f} s, {usage.cpu / usage.wall:.0%} of the time")
    allowed = 64 * MB + 16 * (rows - few)
    more = usage.peak - small.peak
    yield Line(
        f"{what}, peak memory above {few:,} users",
        f"{more / MB:.1f} MB ({usage.peak / MB:.0f} MB in all)",
        f"at most {allowed / MB:.1f} MB",
        more <= allowed,
    )


#: algorithms, what limits a run that hashes with them, and how many rows take a few seconds
ALGORITHMS: tuple[tuple[str, dict[str, Any], str, int], ...] = (
    ("sha256", {"name": "sha256", "salt_position": "prefix"}, "broker", 200_000),
    ("bcrypt (8 rounds)", {"name": "bcrypt", "salt_rounds": 8}, "hashing", 400),
    (
        "PBKDF2 (10,000 iterations)",
        {"name": "pbkdf2", "mac_fun": "sha256", "iterations": 10_000, "dk_length": 32},
        "hashing",
        1_600,
    ),
)


def _shards(folder: Path, quick: bool) -> Iterator[Line]:
    """Hash in one task, in two and in four mapped ones, and see what limits the one."""
    from airflow_provider_emqx.testing import FakeEmqx
    from airflow_provider_emqx.testing.pace import PACE_V5

    os.environ["AIRFLOW_CONN_PEPPER"] = json.dumps({"conn_type": "generic", "password": "bench" * 8})
    hashed = {"hash_passwords": True, "pepper_conn_id": "pepper"}
    for name, algorithm, limit, rows in ALGORITHMS:
        counts, rows = ((1, 2), rows // 8) if quick else ((1, 2, 4), rows)
        source = write_csv(folder / "hashed.csv", "hashed", rows)
        walls = []
        limited_by = ""
        for shards in counts:
            tasks = [{**hashed, "shard": [part, shards]} for part in range(shards)]
            # a broker of its own each time, so that all users are new
            with FakeEmqx(
                V5.version, pace=PACE_V5, password_hash_algorithm=algorithm, log_requests=False
            ) as fake:
                os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
                parts = provision_elsewhere(source, *tasks)
            sums = {total: sum(part.result[total] or 0 for part in parts) for total in ("read", "created")}
            if sums != {"read": rows, "created": rows}:
                raise RuntimeError(f"{shards} shards did not do all the work: {sums}")
            walls.append(max(part.wall for part in parts))
            limited_by = limited_by or parts[0].result["limited_by"]
        faster = [
            f"with {shards} {walls[0] / wall:.2f} times as fast"
            for shards, wall in zip(counts[1:], walls[1:], strict=True)
        ]
        yield Line(
            f"v5: {rows:,} users hashed with {name}, by several processes",
            f"{walls[0]:.1f} s with one, {', '.join(faster)}; limited by {limited_by}",
            f"limited by {limit}",
            limited_by == limit,
        )


def _source(folder: Path, rows: int, changed: int, skip: range = range(0)) -> Path:
    path = folder / "fleet.csv"
    with path.open("w") as file:
        file.write("user_id,password\n")
        for number in range(rows + len(skip)):
            if number not in skip:
                renewed = "-renewed" if number < changed else ""
                file.write(f"{_id(number)},{_password(number)}{renewed}\n")
    return path


def _id(number: int) -> str:
    return f"fleet-{number:07d}"


def _password(number: int) -> str:
    return f"password-{number:012d}"

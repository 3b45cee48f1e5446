"""A night of a large fleet: a million users kept in sync."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench.setting import V5, provision_elsewhere, write_csv
from tests.bench.table import Line

MB = 1_000_000


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure a synchronisation, then hashing in shards."""
    yield from _sync(folder, quick)
    yield _shards(folder, 50 if quick else 400)


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


def _shards(folder: Path, rows: int) -> Line:
    """Hash with bcrypt, once in one task and once in four mapped ones."""
    from airflow_provider_emqx.testing import FakeEmqx

    shards, rounds = 4, 8
    os.environ["AIRFLOW_CONN_PEPPER"] = json.dumps({"conn_type": "generic", "password": "bench" * 8})
    hashed = {"hash_passwords": True, "pepper_conn_id": "pepper"}
    algorithm = {"name": "bcrypt", "salt_rounds": rounds}
    source = write_csv(folder / "hashed.csv", "hashed", rows)
    with FakeEmqx(V5.version, password_hash_algorithm=algorithm, log_requests=False) as fake:
        os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
        (one,) = provision_elsewhere(source, hashed)
        parts = provision_elsewhere(source, *({**hashed, "shard": [part, shards]} for part in range(shards)))
    sums = {name: sum(part.result[name] or 0 for part in parts) for name in ("read", "written", "unchanged")}
    if sums != {"read": rows, "written": rows, "unchanged": rows}:
        raise RuntimeError(f"the shards did not do what the single task did: {sums}")
    longest = max(part.wall for part in parts)
    return Line(
        f"v5: {rows:,} users hashed with bcrypt ({rounds} rounds), {shards} shards at once",
        f"{longest:.1f} s, a single task {one.wall:.1f} s: {one.wall / longest:.2f} times faster",
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

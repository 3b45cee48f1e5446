"""A night of a large fleet: a million users kept in sync."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench.setting import V5, provision_elsewhere
from tests.bench.table import Line

MB = 1_000_000


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure one synchronisation, and a small one to compare memory with."""
    rows = 100_000 if quick else 1_000_000
    few = 10_000
    from airflow_provider_emqx.testing import FakeEmqx
    from airflow_provider_emqx.testing.pace import PACE_V5

    new, changed, gone = rows // 100, rows // 200, rows // 1_000
    with FakeEmqx(V5.version, pace=PACE_V5, log_requests=False) as fake:
        os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
        small = provision_elsewhere(_source(folder, few, 0), mode="sync", scope="fleet-")
        for number in range(few, rows - new + gone):
            fake.add_user(_id(number), _password(number))
        before = fake.request_count
        # those who are gone have the last numbers of the old ones, the new ones come after them
        source = _source(folder, rows, changed, skip=range(rows - new, rows - new + gone))
        usage = provision_elsewhere(source, mode="sync", scope="fleet-")
        requests = fake.request_count - before
        users = len(fake.users)
    result = usage.result
    if (users, result["created"], result["pruned"]) != (rows, new, gone):
        raise RuntimeError(f"{users} users in the end: {result}")
    what = f"v5: sync of {rows:,} users ({new:,} new, {changed:,} changed, {gone:,} gone)"
    yield Line(f"{what}, wall time", f"{usage.wall:.1f} s, {requests:,} requests")
    yield Line(f"{what}, our own CPU", f"{usage.cpu:.1f} s, {usage.cpu / usage.wall:.0%} of the wall time")
    allowed = 64 * MB + 16 * (rows - few)
    more = usage.peak - small.peak
    yield Line(
        f"{what}, peak memory above one of {few:,}",
        f"{more / MB:.1f} MB ({usage.peak / MB:.0f} MB in all)",
        f"at most {allowed / MB:.1f} MB",
        more <= allowed,
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

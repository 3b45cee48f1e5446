"""A night of a large fleet: a million users kept in sync."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.setting import V5, provision_elsewhere, write_csv
from tests.bench.table import Line, Ratio, take_turns

MB = 1_000_000


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure a synchronisation, then hashing in shards."""
    yield from _sync(folder, quick)
    os.environ["AIRFLOW_CONN_PEPPER"] = json.dumps({"conn_type": "generic", "password": "bench" * 8})
    for hashing in HASHING:
        yield from hashing.lines(folder, quick)


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


@dataclass(frozen=True)
class Hashing:
    """
    A source whose passwords are hashed.

    :param name: of the algorithm.
    :param algorithm: as the authenticator has it.
    :param rows: that take a few seconds.
    :param limited_by: what is to take most of the time of one process.
    """

    name: str
    algorithm: dict[str, Any]
    rows: int
    limited_by: str

    def lines(self, folder: Path, quick: bool) -> Iterator[Line]:
        """Measure it in one process, and how much faster several are."""
        rows, rounds, several = (self.rows // 8, 1, (2,)) if quick else (self.rows, 3, (2, 4))
        source = write_csv(folder / "hashed.csv", "hashed", rows)
        limits: set[str] = set()
        one, *others = take_turns(
            rounds, *(partial(self._seconds, processes, source, rows, limits) for processes in (1, *several))
        )
        what = f"v5: {rows:,} users hashed with {self.name}"
        yield Line(
            f"{what}, one process",
            f"{statistics.median(one):.1f} s, limited by {' and '.join(sorted(limits))}",
            f"limited by {self.limited_by}",
            limits == {self.limited_by},
        )
        for processes, seconds in zip(several, others, strict=True):
            yield Line(f"{what}, {processes} processes, times as fast", str(Ratio(one, seconds)))

    def _seconds(self, processes: int, source: Path, rows: int, limits: set[str], number: int) -> float:
        from airflow_provider_emqx.testing import FakeEmqx
        from airflow_provider_emqx.testing.pace import PACE_V5

        options = {"hash_passwords": True, "pepper_conn_id": "pepper"}
        tasks = [{**options, "shard": [part, processes]} for part in range(processes)]
        # a broker of its own each time, so that all users are new
        with FakeEmqx(
            V5.version, pace=PACE_V5, password_hash_algorithm=self.algorithm, log_requests=False
        ) as fake:
            os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
            parts = provision_elsewhere(source, *tasks)
        sums = {total: sum(part.result[total] or 0 for part in parts) for total in ("read", "created")}
        if sums != {"read": rows, "created": rows}:
            raise RuntimeError(f"{processes} shards did not do all the work: {sums}")
        if processes == 1:
            limits.add(parts[0].result["limited_by"])
        return max(part.wall for part in parts)


HASHING = (
    Hashing("sha256", {"name": "sha256", "salt_position": "prefix"}, 100_000, "broker"),
    Hashing("bcrypt (8 rounds)", {"name": "bcrypt", "salt_rounds": 8}, 400, "hashing"),
    Hashing(
        "PBKDF2 (10,000 iterations)",
        {"name": "pbkdf2", "mac_fun": "sha256", "iterations": 10_000, "dk_length": 32},
        1_600,
        "hashing",
    ),
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

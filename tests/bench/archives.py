"""Users by archive beside users by requests, at the speeds that real brokers have."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.setting import V5, Usage, provision_elsewhere, users
from tests.bench.table import Line

MB = 1_000_000
#: rows of an import, and single deletions, in a second
PACE = (40_000.0, 3_125.0)
#: times that archives are to be faster
DELETIONS, SYNC = 20.0, 3.0


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure deletions, then a synchronisation with few changes."""
    yield from _deletions(folder, 5_000 if quick else 100_000, quick)
    yield from _sync(folder, 20_000 if quick else 1_000_000, quick)


def _deletions(folder: Path, rows: int, quick: bool) -> Iterator[Line]:
    """Prune all users but a tenth, in both ways."""
    from airflow_provider_emqx.testing import FakeEmqx

    kept = rows // 10
    source = _write(folder / "kept.csv", kept)
    terms = {"mode": "prune", "scope": "bench-*", "max_deletes": "100%"}
    taken: list[Usage] = []
    with FakeEmqx(V5.version, pace=PACE, log_requests=False) as fake:
        os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
        for bulk in ({}, {"bulk": "archive"}):
            for user_id, password in users("fleet", kept + rows):
                fake.add_user(user_id, password)
            (usage,) = provision_elsewhere(source, {**terms, **bulk})
            if (usage.result["pruned"], len(fake.users)) != (rows, kept):
                raise RuntimeError(f"not everybody was deleted: {usage.result}")
            taken.append(usage)
    single, archive = (usage.result["phases"]["prune"] for usage in taken)
    what = f"v5: {rows:,} of {rows + kept:,} users pruned"
    yield Line(
        f"{what} by archive, times faster than by single requests",
        f"{single / archive:.0f} ({single:.1f} s, {archive:.2f} s)",
        f"at least {DELETIONS:.0f}",
        None if quick else single / archive >= DELETIONS,
    )
    yield Line(
        f"{what}, whole tasks, times faster", f"{taken[0].wall / taken[1].wall:.1f} ({taken[1].wall:.1f} s)"
    )


def _sync(folder: Path, rows: int, quick: bool) -> Iterator[Line]:
    """Change a hundredth of the users, in both ways."""
    from airflow_provider_emqx.testing import FakeEmqx
    from airflow_provider_emqx.testing.pace import PACE_V5

    few, changed = 10_000, rows // 100
    terms: dict[str, Any] = {"mode": "sync", "scope": "bench-*"}
    by_archive = {**terms, "bulk": "archive"}
    with FakeEmqx(V5.version, pace=PACE_V5, log_requests=False) as fake:
        os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
        (small,) = provision_elsewhere(_write(folder / "few.csv", few), by_archive)
        for user_id, password in users("fleet", rows):
            fake.add_user(user_id, password)
        (today,) = provision_elsewhere(_write(folder / "sync.csv", rows, changed), terms)
        (archive,) = provision_elsewhere(_write(folder / "sync.csv", rows, 2 * changed), by_archive)
    if (archive.result["updated"], archive.result["unchanged"]) != (changed, rows - changed):
        raise RuntimeError(f"not just the changed users were written: {archive.result}")
    what = f"v5: sync of {rows:,} users, {changed:,} changed"
    yield Line(
        f"{what}, by archive, times faster than by requests",
        f"{today.wall / archive.wall:.1f} ({today.wall:.0f} s, {archive.wall:.1f} s)",
        f"at least {SYNC:.0f}",
        None if quick else today.wall / archive.wall >= SYNC,
    )
    yield Line(
        f"{what}, by archive, our own CPU per row",
        f"{archive.cpu / rows * 1e6:.2f} us ({today.cpu / rows * 1e6:.2f} us by requests)",
    )
    # the export, twice while it is received, the index, and two chunks of rows
    allowed = 64 * MB + (2 * 70 + 23 + 16) * (rows - few) + 2 * 100_000 * 1_000
    more = archive.peak - small.peak
    yield Line(
        f"{what}, by archive, peak memory above {few:,} users",
        f"{more / MB:.1f} MB ({archive.peak / MB:.0f} MB in all)",
        f"at most {allowed / MB:.1f} MB",
        more <= allowed,
    )


def _write(path: Path, rows: int, changed: int = 0) -> Path:
    with path.open("w") as file:
        file.write("user_id,password\n")
        for number, (user_id, password) in enumerate(users("fleet", rows)):
            file.write(f"{user_id},{password}{'-renewed' if number < changed else ''}\n")
    return path

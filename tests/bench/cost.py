"""What our own work costs: CPU per row, with its parts, and memory."""

from __future__ import annotations

import csv
import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.setting import (
    V5,
    Generation,
    bare_session,
    broker,
    provision,
    provision_elsewhere,
    write_csv,
)
from tests.bench.table import Line, take_turns

MB = 1_000_000
#: rows that the plain loop sends at a time, as many as the provider does
CHUNK = 5_000


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure CPU, then memory."""
    yield from _cpu(folder, *((10_000, 1) if quick else (100_000, 5)))
    yield from _memory(folder, 100_000 if quick else 1_000_000)


# ---------------------------------------------------------------- CPU


def _cpu(folder: Path, rows: int, rounds: int) -> Iterator[Line]:
    source = write_csv(folder / "cpu.csv", "cpu", rows)
    with broker(V5, paced=False) as origin:
        # what is imported once is not measured, and all rounds find the same users
        provision(source)
        parts = _parts(source)
        ours, plain, *shares = take_turns(
            rounds,
            lambda _: _cpu_time(lambda: provision(source)),
            lambda _: _cpu_time(lambda: _plain_loop(source, origin, V5)),
            *(lambda _, part=part: part() for part in parts.values()),
        )
    per_row = {name: _micro(share, rows) for name, share in zip(parts, shares, strict=True)}
    total = _micro(ours, rows)
    per_row["send, wait and the rest"] = total - sum(per_row.values())
    yield Line(
        "CPU per row, from a line of CSV to its accounted outcome",
        f"{total:.2f} us",
        "at most 5 us",
        total <= 5,
    )
    yield from (Line(f"CPU per row, of it: {name}", f"{micro:.2f} us") for name, micro in per_row.items())
    yield Line("CPU per row, a plain loop that checks nothing", f"{_micro(plain, rows):.2f} us")


def _cpu_time(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _micro(seconds: list[float], rows: int) -> float:
    return statistics.median(seconds) / rows * 1e6


def _plain_loop(source: Path, origin: str, generation: Generation) -> int:
    """Do what somebody writes down who needs it once."""
    written = 0
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def send(chunk: list[dict[str, Any]]) -> int:
        reply = session.post(
            origin + generation.bulk,
            data=encode(chunk).encode(),
            headers={"Content-Type": "application/json"},
        )
        reply.raise_for_status()
        counts = reply.json()
        return int(counts["success"] + counts["override"])

    with bare_session() as session, source.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        chunk = []
        for user_id, password, flag in rows:
            chunk.append({"user_id": user_id, "password": password, "is_superuser": flag == "true"})
            if len(chunk) == CHUNK:
                written += send(chunk)
                chunk = []
        return written + (send(chunk) if chunk else 0)


def _parts(source: Path) -> dict[str, Callable[[], float]]:
    """Take the provider's work apart; each part gives its CPU time for the whole source."""
    from airflow_provider_emqx.api.base import Broker, Reply
    from airflow_provider_emqx.api.bulk import BulkResult
    from airflow_provider_emqx.api.v5.users import Users
    from airflow_provider_emqx.provisioning.blocks import Format
    from airflow_provider_emqx.provisioning.check import Checker
    from airflow_provider_emqx.provisioning.chunks import Chunk, Pace, cut
    from airflow_provider_emqx.provisioning.report import Tally
    from airflow_provider_emqx.provisioning.sources import read_file

    target = Broker("v5", (5, 8, 9))

    def chunked(blocks: Any) -> list[Chunk]:
        return list(cut(map(Checker(target).check, blocks), Pace(CHUNK)))

    chunks = chunked(read_file(str(source), Format()))

    def read() -> float:
        return _cpu_time(lambda: sum(len(block.lines) for block in read_file(str(source), Format())))

    def check() -> float:
        blocks = list(read_file(str(source), Format()))
        return _cpu_time(lambda: chunked(blocks))

    def encode() -> float:
        return _cpu_time(lambda: [upsert(chunk) for chunk in chunks])

    def upsert(chunk: Chunk) -> object:
        """Run the operation against an answer that is already there."""
        operation = Users(target).upsert_many(chunk.users)
        next(operation)
        counts = {"total": len(chunk.users), "success": len(chunk.users)}
        try:
            operation.send(Reply(200, counts))
        except StopIteration as done:
            return done.value
        raise RuntimeError("one chunk took more than one request")

    def account() -> float:
        tally = Tally()
        for chunk in chunks:
            chunk.result = BulkResult(len(chunk.users), len(chunk.users))
        return _cpu_time(lambda: deque(map(tally.add, chunks), maxlen=0))

    return {
        "read": read,
        "check and chunk": check,
        "encode": encode,
        "account": account,
    }


# ---------------------------------------------------------------- memory


def _memory(folder: Path, rows: int) -> Iterator[Line]:
    few = 10_000
    small, large = (_peak(write_csv(folder / f"{count}.csv", "mem", count)) for count in (few, rows))
    allowed = 64 * MB + 16 * (rows - few)
    yield Line(
        f"peak memory of {rows:,} rows above {few:,} rows",
        f"{(large - small) / MB:.1f} MB ({large / MB:.0f} MB in all)",
        f"at most {allowed / MB:.1f} MB",
        large - small <= allowed,
    )


def _peak(source: Path) -> int:
    with broker(V5, paced=False):
        peak = provision_elsewhere(source, {})[0].peak
    source.unlink()
    return peak

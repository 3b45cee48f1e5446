"""The whole table, behind ``make bench``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import archives, bulk, calls, commands, cost, fleet, presence, waiting
from tests.bench.setting import prepare_airflow
from tests.bench.table import Line, machine, render


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and tell by the exit status whether every target was met."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    quick = parser.parse_args(arguments).quick
    where, start = machine(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="emqx-bench-") as folder:
        prepare_airflow(Path(folder))
        lines = []
        for line in measured(Path(folder), quick):
            print(f"{line.what}: {line.measured}", file=sys.stderr, flush=True)
            lines.append(line)
    print(f"\n{where}; it took {time.monotonic() - start:.0f} s\n")
    print(render(lines))
    missed = sum(line.met is False for line in lines)
    if missed:
        print(f"\n{missed} of {sum(line.met is not None for line in lines)} targets missed")
    return 1 if missed else 0


def measured(folder: Path, quick: bool) -> Iterator[Line]:
    """Give the lines, one measurement after another."""
    yield from bulk.lines(folder, quick)
    yield from cost.lines(folder, quick)
    yield from fleet.lines(folder, quick)
    yield from archives.lines(folder, quick)
    yield from calls.lines(quick)
    yield from waiting.lines(quick)
    yield from presence.lines(quick)
    yield from commands.lines(folder, quick)

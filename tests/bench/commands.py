"""
What a command to a fleet costs, in one task: every device is told, and every reply is counted.

``python -m tests.bench.commands`` prints this part of the table alone.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench.setting import V4, V5, broker, print_part
from tests.bench.table import Line
from tests.bench.waiting import Cost, tick


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure a fleet on both generations, whose devices answer at once."""
    size = 500 if quick else 10_000
    for generation in (V5, V4):
        name = f"{generation.name}: a command to {size:,} devices"
        with broker(generation, "--clients", str(size), "--answer", paced=False):
            report = folder / f"commands-{generation.name}.jsonl"
            start = time.monotonic()
            cost = asyncio.run(_command(size, report))
            took = time.monotonic() - start
        counts = _counted(report)
        replied = counts.get("replied", 0)
        yield Line(
            name, f"{took:.1f} s, {replied:,} replies", f"all {size:,} counted", counts == {"replied": size}
        )
        yield Line(f"{name}, CPU per device", f"{cost.cpu / size * 1e6:.0f} us")
        yield Line(f"{name}, event loop", f"{cost.lag * 1e3:.0f} ms", "held at most 50 ms", cost.lag <= 0.05)


def _counted(report: Path) -> Counter[str]:
    """Count what is in the report, not what is remembered."""
    from airflow_provider_emqx.commands.record import Record

    return Counter(row.outcome for row in Record("bench", report).rows.values())


async def _command(size: int, report: Path) -> Cost:
    from airflow_provider_emqx.commands.exchange import Exchange
    from airflow_provider_emqx.commands.order import Order
    from airflow_provider_emqx.commands.record import Record
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    order = Order("bench", "devices/{clientid}/command", "devices/{clientid}/reply", success={"ok": True})
    record = Record(order.command, report)
    exchange = Exchange(EmqxHook(), order, record)
    clientids = [f"device-{number:07d}" for number in range(size)]
    gc.collect()
    cost = Cost()
    ticker = asyncio.create_task(tick(cost))
    cpu = time.process_time()
    await exchange.send(clientids, 1, lambda _: b'{"do": "report"}', 60)
    await exchange.wait(size, time.time() + 60)
    cost.cpu = time.process_time() - cpu
    ticker.cancel()
    return cost


if __name__ == "__main__":
    print_part(lines)

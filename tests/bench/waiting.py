"""
What a round of waits costs: as many triggers as are awaited clients, in one event loop.

Beside it: as many GETs by a bare loop of aiohttp, which is what every wait asking for itself would come to at best.

``python -m tests.bench.waiting`` prints this part of the table alone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.setting import (
    IN_FLIGHT,
    KEY,
    SECRET,
    V4,
    V5,
    Generation,
    broker,
    forget_mqtt,
    print_part,
)
from tests.bench.table import Line

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

    from airflow_provider_emqx.api.base import Answer

#: awaited clients, connected ones, and over how many connections the waits are spread
CASES = ((10, 10_000, 1), (1_000, 10_000, 1), (10_000, 10_000, 1), (10_000, 10_000, 10), (100, 100_000, 1))
INTERVAL = 3.0
ROUNDS = 2


@dataclass
class Cost:
    """
    What one round has cost.

    :param requests: sent.
    :param received: bytes of the bodies that came back.
    :param cpu: seconds of this process.
    :param lag: longest time for which the event loop was held, in seconds.
    """

    requests: float = 0.0
    received: float = 0.0
    cpu: float = 0.0
    lag: float = 0.0


def lines(quick: bool) -> Iterator[Line]:
    """Measure each case on both generations."""
    cases = ((10, 1_000, 1), (1_000, 1_000, 1), (1_000, 1_000, 10)) if quick else CASES
    most = max(awaited for awaited, _, _ in cases)
    for generation in (V5, V4):
        connected = 0
        bare = Cost()
        for awaited, size, spread in cases:
            with broker(generation, "--clients", str(size), paced=False) as origin:
                if awaited == most and size != connected:
                    bare = asyncio.run(_bare(origin, generation, awaited))
                    connected = size
                    name = f"{generation.name}: {awaited:,} GETs among {size:,} clients, bare loop"
                    yield Line(name, _shown(bare))
                cost = asyncio.run(_waits(awaited, spread))
            name = f"{generation.name}: a round of {awaited:,} waits among {size:,} clients"
            name += f", over {spread} connections" if spread > 1 else ""
            yield Line(
                f"{name}, event loop", f"{cost.lag * 1e3:.0f} ms", "held at most 50 ms", cost.lag <= 0.05
            )
            if awaited == most and spread == 1:
                share = cost.cpu / bare.cpu
                yield Line(
                    name, f"{_shown(cost)}; CPU {share:.3f} of the bare loop's", "at most 0.1", share <= 0.1
                )
            else:
                yield Line(name, _shown(cost))


def _shown(cost: Cost) -> str:
    return f"{cost.requests:,.0f} requests, {cost.received / 1e3:,.0f} kB, {cost.cpu * 1e3:,.0f} ms CPU"


def _ids(count: int) -> list[str]:
    return [f"device-{number:07d}" for number in range(count)]


async def _waits(awaited: int, spread: int) -> Cost:
    """Let every trigger wait for its client to go offline, which it never does."""
    from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger

    forget_mqtt()
    for number in range(spread):
        os.environ[f"AIRFLOW_CONN_EMQX_{number}"] = os.environ["AIRFLOW_CONN_EMQX_DEFAULT"]
    with counted() as cost:
        waits: list[asyncio.Task[TriggerEvent]] = []
        for number, clientid in enumerate(_ids(awaited)):
            trigger = EmqxConditionTrigger(
                kind="clients_offline",
                parameters={"clientids": [clientid], "quorum": "all"},
                poll_interval=INTERVAL,
                emqx_conn_id=f"emqx_{number % spread}",
            )
            waits.append(asyncio.create_task(anext(trigger.run())))  # type: ignore[arg-type]
        # the first look is one and a half intervals away at most, and connects
        await asyncio.sleep(INTERVAL * 2.5)
        gc.collect()
        cost.requests = cost.received = 0.0
        cpu = time.process_time()
        await asyncio.sleep(INTERVAL * ROUNDS)
        cost.cpu = time.process_time() - cpu
        requests, received = cost.requests, cost.received
        # in rounds of its own, since it takes CPU itself
        ticker = asyncio.create_task(tick(cost))
        await asyncio.sleep(INTERVAL * ROUNDS)
        ticker.cancel()
        for wait in waits:
            wait.cancel()
        ended = await asyncio.gather(*waits, return_exceptions=True)
        if not all(isinstance(one, asyncio.CancelledError) for one in ended):
            raise RuntimeError(f"a wait ended: {ended[0]!r}")
    return Cost(requests / ROUNDS, received / ROUNDS, cost.cpu / ROUNDS, cost.lag)


@contextmanager
def counted() -> Iterator[Cost]:
    """Count the responses of the management API."""
    from airflow_provider_emqx.transport import exchange as wire

    cost = Cost()
    answer = wire.answer

    def count(
        status: int, header: Mapping[str, str], content: bytes, secrets: frozenset[str] = frozenset()
    ) -> Answer:
        cost.requests += 1
        cost.received += len(content)
        return answer(status, header, content, secrets)

    wire.answer = count
    try:
        yield cost
    finally:
        wire.answer = answer


async def tick(cost: Cost) -> None:
    """Measure for how long the event loop's thread works before a coroutine gets its turn that asks for one."""
    while True:
        # time of this thread: what else the machine does would count as ours otherwise
        before = time.thread_time()
        await asyncio.sleep(0.005)
        cost.lag = max(cost.lag, time.thread_time() - before)


async def _bare(origin: str, generation: Generation, awaited: int) -> Cost:
    import aiohttp

    cost = Cost()
    authorization = "Basic " + b64encode(f"{KEY}:{SECRET}".encode()).decode()
    ids = iter(_ids(awaited))
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(
        connector=connector, headers={"Authorization": authorization}
    ) as session:

        async def ask() -> None:
            for clientid in ids:
                async with session.get(f"{origin}/api/{generation.name}/clients/{clientid}") as response:
                    content = await response.read()
                cost.requests += 1
                cost.received += len(content)
                row = json.loads(content)
                if not (row["data"][0] if generation is V4 else row)["connected"]:
                    raise RuntimeError(clientid)

        gc.collect()
        cpu = time.process_time()
        await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))
        cost.cpu = time.process_time() - cpu
    return cost


if __name__ == "__main__":
    print_part(lambda folder, quick: lines(quick))

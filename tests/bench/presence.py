"""
Waits that the broker wakes, beside the same waits that poll.

Broker and devices are processes of their own. ``python -m tests.bench.presence`` prints this part of the table alone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.bench.setting import ROOT, V4, V5, broker, forget_mqtt, print_part
from tests.bench.table import Line
from tests.bench.waiting import counted, tick

#: seconds between two checks of a wait here, and between those that the figures are for
INTERVAL, USUAL = 1.5, 60.0
#: intervals that are measured: with announcements a wait checks once in half as many
ROUNDS = 20
#: devices that connect in a second
PER_SECOND = 200


@dataclass
class Figures:
    """
    What waits cost while nothing happens, and how soon they end when it does.

    :param requests: of one wait in one hour, if it polls every :data:`USUAL` seconds.
    :param cpu: seconds of this process in that hour, for all waits.
    :param lag: longest time for which the event loop was held, in seconds.
    :param delays: from the connection of a device to the end of its wait, in seconds.
    """

    requests: float = 0.0
    cpu: float = 0.0
    lag: float = 0.0
    delays: list[float] = field(default_factory=list)


def lines(quick: bool) -> Iterator[Line]:
    """Measure waits on both generations."""
    count = 100 if quick else 1_000
    for generation in (V5, V4):
        with broker(generation, "--clients", str(count)):
            address = json.loads(os.environ["AIRFLOW_CONN_EMQX_DEFAULT"])["extra"]["mqtt_url"]
            woken = asyncio.run(_waits(count, address))
        with broker(generation, "--clients", str(count)):
            forget_mqtt()
            polled = asyncio.run(_waits(count, None))
        name = f"{generation.name}: {count:,} waits that the broker wakes"
        median, late = statistics.median(woken.delays), statistics.quantiles(woken.delays, n=100)[98]
        yield Line(
            f"{name}, from the connect to the end of the wait",
            f"median {median * 1e3:.0f} ms, 99 % within {late * 1e3:.0f} ms",
            "median at most 300 ms",
            median <= 0.3,
        )
        yield Line(
            f"{name}, requests per hour and wait",
            f"{woken.requests:.3f}, polling every minute {polled.requests:.3f}",
            "at most 0.1",
            woken.requests <= 0.1,
        )
        share = woken.cpu / polled.cpu
        yield Line(f"{name}, CPU", f"{share:.2f} of polling", "at most 0.3", share <= 0.3)
        yield Line(
            f"{name}, event loop", f"{woken.lag * 1e3:.0f} ms", "held at most 50 ms", woken.lag <= 0.05
        )


def _name(number: int) -> str:
    return f"late-{number:07d}"


async def _waits(count: int, address: str | None) -> Figures:
    """
    Let every trigger wait for a device of its own.

    :param count: of waits.
    :param address: of MQTT, where the devices connect in the end; ``None``: they never do.
    """
    from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger

    ended: dict[str, float] = {}

    async def wait(clientid: str) -> None:
        trigger = EmqxConditionTrigger(
            kind="clients_online",
            parameters={"clientids": [clientid], "quorum": "all"},
            poll_interval=INTERVAL,
        )
        event: Any = await anext(trigger.run())
        if event.payload["status"] != "met":
            raise RuntimeError(event.payload)
        ended[clientid] = time.monotonic()

    figures = Figures()
    with counted() as cost:
        gc.collect()
        # Airflow's own objects: to walk through them takes the collector a tenth of a second, whatever is done
        gc.freeze()
        waits = [asyncio.create_task(wait(_name(number))) for number in range(count)]
        # the first checks find out what the broker is
        await asyncio.sleep(4 * INTERVAL)
        cost.requests, cpu = 0.0, time.process_time()
        await asyncio.sleep(ROUNDS * INTERVAL)
        hour = 3600 / USUAL / ROUNDS
        figures.requests, figures.cpu = cost.requests * hour / count, (time.process_time() - cpu) * hour
        if address is not None:
            ticker = asyncio.create_task(tick(cost))
            with _devices(address, count) as process:
                begun = json.loads(await asyncio.to_thread(process.stdout.readline))
                async with asyncio.timeout(60):
                    await asyncio.gather(*waits)
            ticker.cancel()
            figures.lag = cost.lag
            figures.delays = [ended[clientid] - at for clientid, at in begun.items()]
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        gc.unfreeze()
    return figures


@contextmanager
def _devices(address: str, count: int) -> Iterator[Any]:
    """Run a process of devices, which says in one line when each was connected, by the clock of the machine."""
    command = [sys.executable, "-m", "tests.bench.presence", "devices", address, str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.communicate()


def _connect(address: str, count: int) -> None:
    where = urlsplit(address)
    begun: dict[str, float] = {}
    devices = []
    for number in range(count):
        name = _name(number).encode()
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
        device = socket.create_connection((where.hostname, where.port))
        device.sendall(bytes([0x10, len(body)]) + body)
        if device.recv(4) != b"\x20\x02\x00\x00":
            raise RuntimeError(f"{name!r} was not let in")
        begun[name.decode()] = time.monotonic()
        devices.append(device)
        time.sleep(1 / PER_SECOND)
    print(json.dumps(begun), flush=True)
    # they stay until all waits have ended
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:2] == ["devices"]:
        _connect(sys.argv[2], int(sys.argv[3]))
    else:
        print_part(lambda folder, quick: lines(quick))

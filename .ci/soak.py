"""
Drive every operation of the hook through random faults, and hold the broker's state against what was said.

Usage: ``python .ci/soak.py [--steps 120000] [--kills 1000] [--commands 1000] [--seed N]``. The same tests as in
``make test``, with other seeds, on more versions, and long enough to see what grows: open files, threads and memory are
compared between beginning and end. Before that, provisioning tasks are killed at random points and must end as if they
had not been, and commands go to fleets while brokers restart, connections break, and workers and triggerers are killed.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
HOME = tempfile.TemporaryDirectory(prefix="airflow-provider-emqx-soak-")
os.environ.update(
    {
        "AIRFLOW_HOME": HOME.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME.name}/airflow.db",
    }
)

VERSIONS = ("4.4.19", "5.3.0", "5.8.9", "6.1.0")
DRIVERS = ("requests", "aiohttp")
ROUND = 500


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Every operation through random faults, many times.")
    parser.add_argument("--steps", type=int, default=120_000)
    parser.add_argument("--kills", type=int, default=1_000, help="kill provisioning tasks so many times")
    parser.add_argument("--commands", type=int, default=1_000, help="give so many commands to fleets")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args(arguments)

    import logging

    from tests.faults.operations import OPERATIONS
    from tests.faults.world import world

    logging.disable(logging.CRITICAL)
    kill(options.kills, options.seed)
    if not command(options.commands, options.seed):
        return 1
    names = sorted(OPERATIONS)
    done, began, rounds = 0, time.monotonic(), 0
    ended: dict[str, int] = {}
    first: tuple[int, int, int] | None = None
    print(f"{options.steps} operations, seed {options.seed}")
    while done < options.steps:
        version, driver = VERSIONS[rounds % len(VERSIONS)], DRIVERS[rounds // len(VERSIONS) % len(DRIVERS)]
        seed = options.seed + rounds
        with world(version, driver, seed) as w:
            for _ in range(ROUND):
                name = w.chance.choice(names)
                try:
                    OPERATIONS[name](w)
                except BaseException:
                    print(
                        f"seed {seed}, EMQX {version}, {driver}, operation {w.count}: {' | '.join(w.story)}"
                    )
                    raise
        done, rounds = done + ROUND, rounds + 1
        for how, count in w.errors.items():
            ended[how] = ended.get(how, 0) + count
        if rounds == 2 * len(VERSIONS) * len(DRIVERS):
            first = usage()
        if rounds % (len(VERSIONS) * len(DRIVERS)) == 0:
            files, threads, memory = usage()
            speed = done / (time.monotonic() - began)
            print(f"{done:>8} done, {speed:.0f}/s, {files} files, {threads} threads, {memory} MB", flush=True)
    print(", ".join(f"{how} {count}" for how, count in sorted(ended.items(), key=lambda item: -item[1])))
    if first is None:
        return 0
    return 1 if grown(first) else 0


def kill(wanted: int, seed: int) -> None:
    """Kill provisioning tasks until it was done so many times."""
    from tests.provisioning.kills import MODES, killer, run

    killed = tasks = 0
    with killer() as process:
        while killed < wanted:
            version, mode = VERSIONS[tasks % len(VERSIONS)], MODES[tasks // len(VERSIONS) % len(MODES)]
            with tempfile.TemporaryDirectory() as folder:
                killed += run(process, seed + tasks, Path(folder), version, mode, kills=10)
            tasks += 1
            if tasks % (len(VERSIONS) * len(MODES)) == 0 or killed >= wanted:
                print(f"{killed:>8} times killed, {tasks} tasks ended as if they had not been", flush=True)


def command(wanted: int, seed: int) -> bool:
    """Give commands to fleets so many times; return whether nothing has grown."""
    from tests.commands.chaos import DEVICES, play

    faults: Counter[str] = Counter()
    first = None
    for number in range(wanted):
        with tempfile.TemporaryDirectory() as folder:
            faults += play(seed + number, VERSIONS[number % len(VERSIONS)], Path(folder)).faults
        if number + 1 == min(20, wanted):
            first = usage()
        if (number + 1) % 20 == 0 or number + 1 == wanted:
            files, threads, memory = usage()
            told = ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))
            print(
                f"{number + 1:>8} commands to {DEVICES} devices each, one outcome for each ({told}); "
                f"{files} files, {threads} threads, {memory} MB",
                flush=True,
            )
    return first is None or not grown(first)


def grown(first: tuple[int, int, int]) -> bool:
    """Say whether files, threads or memory have grown."""
    files, threads, memory = now = usage()
    if files > first[0] + 10 or threads > first[1] + 5 or memory > first[2] * 1.5 + 50:
        print(f"files, threads or MB have grown: from {first} to {now}")
        return True
    print(f"nothing has grown: files, threads, MB were {first}, are {now}")
    return False


def usage() -> tuple[int, int, int]:
    """Open files, threads, and the most memory used so far in MB."""
    gc.collect()
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return files, threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

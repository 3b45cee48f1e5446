"""What is measured, as lines of one table."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """
    One line of the table.

    :param what: is measured.
    :param measured: the figure, as it is to be read.
    :param target: what it is to be, empty where the figure is only shown.
    :param met: whether it is, ``None`` without a target.
    """

    what: str
    measured: str
    target: str = ""
    met: bool | None = None


class Ratio:
    """
    How two contestants compare that took turns.

    :param ours: one figure per round.
    :param theirs: the same of the other one.
    """

    def __init__(self, ours: Sequence[float], theirs: Sequence[float]) -> None:
        self._all = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        # of each round by itself: what else the machine did then has hit both
        self.value = statistics.median(self._all)

    def __str__(self) -> str:
        return f"{self.value:.2f} ({min(self._all):.2f} to {max(self._all):.2f})"


def take_turns(rounds: int, *contestants: Callable[[int], float]) -> list[list[float]]:
    """
    Let contestants run one after another, several times.

    :param rounds: how often.
    :param contestants: told the round's number, they give their figure. Every second round goes backwards, so that
        none of them always comes after the same one.
    :return: for each contestant its figures.
    """
    figures: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds):
        order = list(zip(contestants, figures, strict=True))
        for contestant, mine in order if number % 2 == 0 else reversed(order):
            mine.append(contestant(number))
    return figures


def render(lines: Sequence[Line]) -> str:
    """Write the lines as a Markdown table that is aligned for reading as text."""
    rows: list[tuple[str, ...]] = [("", "measured", "target", "met")]
    words = {True: "yes", False: "**no**", None: ""}
    rows += [(line.what, line.measured, line.target, words[line.met]) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def machine() -> str:
    """Say where and on what the figures were taken."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("apache-airflow", "requests", "aiohttp"))
    load = f"load average {os.getloadavg()[0]:.1f}"
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_revision()}; {_cpu()}, {cores} cores, {load} at the start; "
        f"{platform.system()}, Python {platform.python_version()}, {packages}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _revision() -> str:
    """Name the commit that was measured."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        f"commit {done.stdout.strip()}"
        if done.returncode == 0
        else f"version {version('airflow-provider-emqx')}"
    )

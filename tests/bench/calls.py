"""What one call of the hook, and the import of each module that DAG files use, cost beside doing without."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.setting import ROOT, V4, V5, Generation, bare_session, broker
from tests.bench.table import Line, Ratio, take_turns

PACKAGE = "airflow_provider_emqx"
PARTS = ("operators", "sensors", "triggers")
LIBRARIES = ("requests", "aiohttp")
LONGEST_IMPORT = 50


def lines(quick: bool) -> Iterator[Line]:
    """Measure calls on both generations, then imports."""
    for generation in (V5, V4):
        yield from _calls(generation, *((50, 2) if quick else (300, 9)))
    yield from _imports(2 if quick else 7)


# ---------------------------------------------------------------- calls


def _calls(generation: Generation, calls: int, rounds: int) -> Iterator[Line]:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    with (
        broker(generation, "--clients", "1") as origin,
        EmqxHook() as hook,
        bare_session() as session,
    ):
        url = f"{origin}/api/{generation.name}/clients/device-0000000"

        def bare() -> Any:
            response = session.get(url)
            response.raise_for_status()
            return response.json()

        def ours() -> Any:
            return hook.get_client("device-0000000")

        for call in (ours, bare):
            if not call():
                raise RuntimeError("the client was not found")
        mine: list[float] = []
        theirs: list[float] = []
        ratio = Ratio(
            *take_turns(
                rounds, lambda _: _several(ours, calls, mine), lambda _: _several(bare, calls, theirs)
            )
        )
    yield Line(
        f"{generation.name}: hook.get_client, time against requests.Session.get",
        f"{ratio}, p50 {_p50(mine)} against {_p50(theirs)}",
        "at most 1.20",
        ratio.value <= 1.2,
    )


def _several(call: Callable[[], object], calls: int, into: list[float]) -> float:
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    into += taken
    return sum(taken)


def _p50(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.2f} ms"


# ---------------------------------------------------------------- imports


def modules() -> list[str]:
    """Name the modules that DAG files import, as Airflow is told."""
    from airflow_provider_emqx.get_provider_info import get_provider_info

    info = get_provider_info()
    named = [name for part in PARTS for entry in info.get(part, ()) for name in entry["python-modules"]]
    notifiers = [name.rpartition(".")[0] for name in info.get("notifications", ())]
    transfers = [entry["python-module"] for entry in info.get("transfers", ())]
    return sorted({*named, *notifiers, *transfers})


def _imports(times: int) -> Iterator[Line]:
    for name, (taken, loaded) in imported(modules(), times).items():
        milliseconds = statistics.median(taken)
        yield Line(
            f"import of {name.removeprefix(PACKAGE + '.')}",
            ", and loads ".join([f"{milliseconds:.1f} ms", *loaded]),
            f"at most {LONGEST_IMPORT} ms, no {', no '.join(LIBRARIES)}",
            milliseconds <= LONGEST_IMPORT and not loaded,
        )


def imported(names: list[str], times: int) -> dict[str, tuple[list[float], list[str]]]:
    """
    Import modules, each one in processes of its own, all of which have just imported ``airflow.sdk``.

    :param names: of the modules.
    :param times: how often.
    :return: for each module the milliseconds of each import, and which libraries for HTTP were loaded with it.
    """
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTING, json.dumps([names, times, LIBRARIES])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    # Airflow may have something to say first
    return {name: (taken, loaded) for name, taken, loaded in json.loads(done.stdout.splitlines()[-1])}


#: forks, since Airflow itself takes seconds to import, and what a child imports is gone with it; without freeze() a
#: child would copy half of its parent's memory at its first garbage collection, and count that as importing
_IMPORTING = """
import gc, importlib, json, os, sys, time
import airflow.sdk
gc.freeze()
# an installed package is compiled
sys.dont_write_bytecode = False
names, times, libraries = json.loads(sys.argv[1])
answers = []
for name in names:
    taken, loaded = [], set()
    # the first one may have to compile
    for attempt in range(times + 1):
        reader, writer = os.pipe()
        if os.fork() == 0:
            start = time.perf_counter()
            importlib.import_module(name)
            milliseconds = 1000 * (time.perf_counter() - start)
            answer = [milliseconds, [library for library in libraries if library in sys.modules]]
            os.write(writer, json.dumps(answer).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            milliseconds, found = json.loads(answer.read())
        os.wait()
        loaded.update(found)
        taken += [milliseconds] if attempt else []
    answers.append([name, taken, sorted(loaded)])
print(json.dumps(answers))
"""

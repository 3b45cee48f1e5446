"""How a run of the suite ends, in one process and in several: what is skipped, what hangs, the last line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOOKS = "from tests.conftest import pytest_make_collect_report, pytest_runtest_makereport, pytest_timeout_set_timer\n"
ENDS = {
    "test_ends.py": """
import pytest

def test_passes(): pass
@pytest.mark.skip(reason="something is missing")
def test_skipped(): pass
@pytest.mark.skip(reason="needs pytest 9999: it is too old")
def test_too_old(): pass
@pytest.mark.xfail
def test_xfails(): assert False
""",
    "test_module.py": """
import pytest

pytest.skip("everything is missing", allow_module_level=True)
""",
}
HANGS = {
    "test_hangs.py": """
import asyncio, threading

class Gate:
    def __await__(self):
        yield from asyncio.get_running_loop().create_future()

async def outer(): await inner()
async def inner(): await Gate()

async def of_another_thread(ready):
    ready.set()
    await asyncio.Event().wait()

def test_hangs():
    ready = threading.Event()
    threading.Thread(target=asyncio.run, args=[of_another_thread(ready)], daemon=True).start()
    ready.wait()
    asyncio.run(outer())
"""
}


def run(folder: Path, files: dict[str, str], *arguments: str, **environment: str) -> str:
    """Run tests of a folder of their own with the hooks of this suite; returns what pytest wrote."""
    for name, text in {"conftest.py": HOOKS, "pytest.ini": "[pytest]\n", **files}.items():
        (folder / name).write_text(text)
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("NO_SKIPS", "PYTEST_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, str(folder)],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    ).stdout


processes = pytest.mark.parametrize("processes", [0, 2])


@processes
def test_where_nothing_may_be_skipped_what_is_missing_fails_the_run(tmp_path: Path, processes: int) -> None:
    written = run(tmp_path, ENDS, f"-n{processes}", "--continue-on-collection-errors", NO_SKIPS="1")
    last = written.splitlines()[-1]
    assert re.search(r"\b1 passed, 1 skipped, 1 xfailed, 2 errors in [\d.]+s", last), written
    assert "skipped in a run that must be complete: " in written
    assert "something is missing" in written
    assert "everything is missing" in written


@processes
def test_elsewhere_it_is_skipped(tmp_path: Path, processes: int) -> None:
    last = run(tmp_path, ENDS, f"-n{processes}").splitlines()[-1]
    assert re.search(r"\b1 passed, 3 skipped, 1 xfailed in [\d.]+s", last), last


@processes
def test_a_test_that_hangs_shows_what_every_task_awaits(tmp_path: Path, processes: int) -> None:
    written = run(tmp_path, HANGS, f"-n{processes}", "--timeout=1")
    tasks = written.partition("Captured tasks call")[2]
    for line in (
        "await inner()",
        "await Gate()",
        "in __await__",
        "await asyncio.Event().wait()",
        "await fut",
    ):
        assert line in tasks, written
    assert "1 failed" in written.splitlines()[-1]

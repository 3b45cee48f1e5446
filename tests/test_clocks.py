"""The tests wait for events; whatever waits for a clock is short, or says why it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: those of `make test-standalone`, `make test-live` and `make bench` wait for what is not ours
OTHERS = {"standalone", "live", "bench"}
FILES = sorted(path for path in TESTS.rglob("*.py") if path.relative_to(TESTS).parts[0] not in OTHERS)

_WAIT = re.compile(r"\b(?:sleep|Timer)\((\d+(?:\.\d+)?)\b")
LONGEST = 0.2


def long_waits(text: str) -> list[str]:
    """Return the lines that wait for longer without a comment beside or above them."""
    found = []
    above = ""
    for number, line in enumerate(text.splitlines(), 1):
        waits = [seconds for seconds in _WAIT.findall(line) if float(seconds) > LONGEST]
        reason = re.search(r"# (?!noqa)", line) or above.lstrip().startswith("#")
        if waits and not reason:
            found.append(f"{number}: {line.strip()}")
        above = line
    return found


def test_a_long_wait_is_found_unless_it_has_a_reason() -> None:
    assert long_waits("time.sleep(0.2)\nx\nawait asyncio.sleep(1)  # noqa: X\n") == [
        "3: await asyncio.sleep(1)  # noqa: X"
    ]
    assert long_waits("# the minute\nTimer(0.6, back)\nsleep(2)  # as above\n") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_nothing_waits_for_long_without_a_reason(path: Path) -> None:
    # what stands in texts of this file is no wait
    if path != Path(__file__):
        assert long_waits(path.read_text(encoding="utf-8")) == []

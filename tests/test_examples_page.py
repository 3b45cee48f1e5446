"""Every example DAG is on the page about them, and the pages show them as they are."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "example_dags").glob("[!_]*.py"))

_spec = importlib.util.spec_from_file_location("examples", ROOT / ".ci" / "examples.py")
assert _spec is not None
assert _spec.loader is not None
examples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(examples)


def test_every_example_is_in_the_table() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    assert sorted(listed) == [path.stem for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_begins_with_purpose_needs_and_how_to_run_it(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert [word for word in ("Purpose:", "Needs:", "Run:") if f"\n\n{word}" not in text] == []


@pytest.mark.parametrize("page", examples.PAGES, ids=lambda page: page.stem)
def test_a_page_shows_the_example_dags_as_they_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == examples.with_examples(text), "run make operations"
    # each one that is introduced is shown
    assert len(examples.SHOWN.findall(text)) == text.count(".py):\n")


def test_the_pages_show_example_dags() -> None:
    shown = {block["name"] for page in examples.PAGES for block in examples.SHOWN.finditer(page.read_text())}
    assert {"provision_users", "wait_for_device", "kick_stale_clients", "nightly_devices"} <= shown
    assert examples.code("wait_for_device").startswith("from typing import Any\n")

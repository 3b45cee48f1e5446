"""The Python in README and documentation fits the package: it parses, its imports and its arguments exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.hooks.emqx import EmqxHook
from tests.needs import older

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE), 1
    )
]


def classes() -> dict[str, Any]:
    """Return operators, sensors and triggers by their names."""
    info = get_provider_info()
    modules = [
        name
        for section in ("operators", "sensors", "triggers")
        for entry in info.get(section, ())
        for name in entry["python-modules"]
    ]
    modules += [path.rpartition(".")[0] for path in info.get("notifications", ())]
    modules += [entry["python-module"] for entry in info.get("transfers", ())]
    return {
        name: value
        for module in modules
        for name, value in vars(importlib.import_module(module)).items()
        if inspect.isclass(value) and not issubclass(value, Exception) and "Emqx" in name
    }


def arguments(cls: Any) -> set[str]:
    """Return the keyword arguments that a class takes, those of its bases included."""
    return {
        name
        for base in cls.__mro__
        if "__init__" in vars(base)
        for name in inspect.signature(base.__init__).parameters
    }


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Return calls by the name that is called; of ``X.partial(…).expand(…)`` both for X."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called: ast.expr = node.func
        while isinstance(called, ast.Attribute) and called.attr in ("partial", "expand"):
            called = called.value.func if isinstance(called.value, ast.Call) else called.value
        if isinstance(called, ast.Name):
            found.append((called.id, node))
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_code_on_a_page_fits_the_package(block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow_provider_emqx"):
            module = importlib.import_module(node.module or "")
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        # "hook" is what every page calls the hook
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hook":
            assert hasattr(EmqxHook, node.attr), node.attr
    known = classes()
    for name, call in calls(tree):
        if name in known:
            given = {keyword.arg for keyword in call.keywords if keyword.arg}
            assert given - arguments(known[name]) == set(), name


def test_there_is_code_to_look_at() -> None:
    assert len(BLOCKS) > 20
    assert {name for name, _ in calls(ast.parse("EmqxX.partial(a=1).expand(b=2)"))} == {"EmqxX"}


@pytest.mark.skipif(
    older("apache-airflow", "3.3")
    and not (older("apache-airflow", "3.2") and not older("apache-airflow", "3.0")),
    reason="needs apache-airflow 3: the README is for that, and the API server of 3.2 answers 500 to dag.test()",
)
def test_what_the_readme_shows_works_as_pasted(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page.partition("## Try it in five minutes")[2].partition("\n## ")[0]
    (rows, shown), (dag,), (commands,) = (
        re.findall(rf"^```{kind}\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
        for kind in ("text", "python", "bash")
    )
    (tmp_path / "devices.csv").write_text(rows)
    (tmp_path / "devices.py").write_text(dag)
    install, _, commands = commands.partition("\n")
    assert install == "pip install airflow-provider-emqx"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # "airflow" and "python" of the environment that runs this
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    run = subprocess.run(
        ["bash", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-6_000:]
    assert [line for line in shown.splitlines() if line not in output] == [], output[-6_000:]

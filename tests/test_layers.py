"""The check of the layers finds what it is there to find, and finds nothing in the package."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "layers.py"

_spec = importlib.util.spec_from_file_location("layers", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
layers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(layers)


def check(tmp_path: Path, module: str, source: str) -> list[str]:
    """Return what the check says of a package that has this one module, without the path."""
    package = tmp_path / "airflow_provider_emqx"
    file = package / module
    file.parent.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    file.write_text(source)
    return [line.removeprefix(str(file)) for line in layers.violations(package)]


def test_the_package_has_no_violation() -> None:
    assert list(layers.violations(ROOT / "airflow_provider_emqx")) == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        (
            "transport/sync.py",
            "from airflow_provider_emqx.hooks.emqx import EmqxHook",
            "transport must not import hooks",
        ),
        ("transport/sync.py", "import airflow_provider_emqx.hooks.emqx", "transport must not import hooks"),
        ("transport/sync.py", "from airflow_provider_emqx import hooks", "transport must not import hooks"),
        (
            "hooks/emqx.py",
            "def f():\n    from airflow_provider_emqx.triggers.emqx import T",
            "must not import triggers",
        ),
        (
            "sensors/clients.py",
            "from airflow_provider_emqx.operators.auth import X",
            "must not import operators",
        ),
        (
            "operators/auth.py",
            "from airflow_provider_emqx.testing import FakeEmqx",
            "must not import testing",
        ),
        ("testing/fake.py", "from airflow_provider_emqx.api.base import path", "testing must not import api"),
        ("api/v5/auth.py", "from .replies import read", "relative import"),
        ("api/v5/auth.py", "from airflow.exceptions import AirflowException", "api must not import Airflow"),
        ("api/v5/auth.py", "def f():\n    import time", "api must not import time"),
        ("api/v5/auth.py", "def f():\n    return datetime.now(UTC)", "api reads no clock"),
        ("transport/sync.py", "import requests", "requests is imported at module level"),
        (
            "transport/sync.py",
            "try:\n    from urllib3.util import Retry\nexcept ImportError: pass",
            "urllib3 is imported",
        ),
        ("transport/sync.py", "class C:\n    import aiohttp", "aiohttp is imported at module level"),
        ("hooks/emqx.py", "from airflow.hooks.base import BaseHook", "take it from"),
        ("utils.py", "", "utils is no known layer"),
    ],
)
def test_a_forbidden_import_is_reported_with_its_line(
    tmp_path: Path, module: str, source: str, expected: str
) -> None:
    (found,) = check(tmp_path, module, source)
    assert expected in found
    assert found.startswith(":")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("operators/auth.py", "from airflow_provider_emqx.hooks.emqx import EmqxHook"),
        ("triggers/emqx.py", "from airflow.triggers.base import BaseTrigger"),
        ("transport/sync.py", "def f():\n    import requests"),
        ("transport/sync.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import requests"),
        ("api/v5/auth.py", "from airflow_provider_emqx.api.base import path"),
        ("transfers/sql.py", "from airflow.providers.common.sql.hooks.sql import DbApiHook"),
        ("transport/sync.py", "from airflow_provider_emqx import __version__"),
    ],
)
def test_an_import_that_points_down_is_accepted(tmp_path: Path, module: str, source: str) -> None:
    assert check(tmp_path, module, source) == []


def test_the_program_fails_on_a_violation_and_on_a_wrong_path(tmp_path: Path) -> None:
    check(tmp_path, "transport/sync.py", "import requests")

    def run(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, check=False)

    found = run(tmp_path / "airflow_provider_emqx")
    assert (found.returncode, "requests" in found.stdout) == (1, True)
    assert run(tmp_path / "missing").returncode == 2
    assert run(ROOT / "airflow_provider_emqx").returncode == 0

"""What the page for testers shows runs as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_emqx.testing import FakeEmqx, faults
from tests.needs import older

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


@pytest.mark.skipif(
    older("apache-airflow", "3.3") and not older("apache-airflow", "3.2"),
    reason="needs apache-airflow 3.3: the API server that 3.2 makes anew for each task of dag.test() answers 500",
)
def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    files = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, flags=re.DOTALL)
    assert [name for name, _ in files] == ["conftest.py", "test_command_device.py", "test_tasks.py"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    (tmp_path / "dags").mkdir()
    shutil.copy(ROOT / "example_dags" / "command_device.py", tmp_path / "dags")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    # "airflow" of the environment that runs this
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6_000:]
    assert "13 passed" in run.stdout


def test_every_fault_is_in_the_table_with_what_it_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", PAGE, flags=re.MULTILINE)
    assert rows == [(kind, "yes" if kind in faults.WORKING else "no") for kind, _ in rows]
    assert {kind for kind, _ in rows} == set(faults.KINDS)


def test_every_method_in_the_text_about_devices_exists() -> None:
    section = PAGE.partition("## Devices\n")[2].partition("\n## ")[0]
    names = set(re.findall(r"`([a-z_]+)(?=[(`])", section)) - {"password"}
    assert len(names) > 15
    assert {name for name in names if not hasattr(FakeEmqx, name)} == set()

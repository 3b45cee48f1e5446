"""Sphinx configuration; build with ``make docs``."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Airflow writes a configuration file at its first import.
os.environ.setdefault("AIRFLOW_HOME", str(HERE / "_build" / "airflow"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
sys.path.insert(0, str(HERE.parent))

from airflow_provider_emqx import __version__  # noqa: E402
from airflow_provider_emqx.get_provider_info import get_provider_info  # noqa: E402

project = "airflow-provider-emqx"
author = "The airflow-provider-emqx contributors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
add_module_names = False


def public_modules() -> list[str]:
    """Return the modules that users import, as the provider's own metadata lists them, and the hook's parts."""
    info = get_provider_info()
    listed = {
        section: [name for entry in info[section] for name in entry["python-modules"]]
        for section in ("hooks", "operators", "sensors", "triggers")
    }
    modules = [
        *listed["hooks"],
        # what the hook can do is in one class per area of the API
        *(f"airflow_provider_emqx.hooks.{area}" for area in ("clients", "topics", "auth", "cluster")),
        # and what runs the operations of all areas
        "airflow_provider_emqx.client.session",
        *listed["operators"],
        *listed["sensors"],
        *listed["triggers"],
        *(path.rpartition(".")[0] for path in info.get("notifications", ())),
        *(entry["python-module"] for entry in info.get("transfers", ())),
        "airflow_provider_emqx.exceptions",
        "airflow_provider_emqx.testing",
    ]
    return list(dict.fromkeys(modules))


def write_reference() -> None:
    """Write one page of reference per public module."""
    directory = HERE / "reference"
    directory.mkdir(exist_ok=True)
    pages = {}
    for module in public_modules():
        title = module.removeprefix("airflow_provider_emqx.")
        pages[f"{title}.rst"] = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {module}\n"
    toctree = "\n".join(f"   {name.removesuffix('.rst')}" for name in pages)
    pages["index.rst"] = f"Reference\n=========\n\n.. toctree::\n\n{toctree}\n"
    for old in directory.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        page = directory / name
        # an untouched page is not built again
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


write_reference()


def setup(app: Any) -> None:
    """Keep functions beside the classes out of the reference: users import classes."""

    def skip(_app: Any, what: str, _name: str, value: Any, skipped: bool, _options: Any) -> bool | None:
        return True if what == "module" and inspect.isfunction(value) else None

    app.connect("autodoc-skip-member", skip)

"""Sphinx configuration; build with ``make docs``."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Airflow writes a configuration file at its first import.
os.environ.setdefault("AIRFLOW_HOME", str(HERE / "_build" / "airflow"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
sys.path[:0] = [str(HERE.parent), str(HERE)]

from parameters import complete_parameters  # noqa: E402

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
        "airflow_provider_emqx.transport.session",
        *listed["operators"],
        *listed["sensors"],
        *listed["triggers"],
        *(path.rpartition(".")[0] for path in info.get("notifications", ())),
        *(entry["python-module"] for entry in info.get("transfers", ())),
        "airflow_provider_emqx.exceptions",
        "airflow_provider_emqx.testing",
    ]
    return list(dict.fromkeys(modules))


#: pages that live outside of docs/, where GitHub looks for them
OUTSIDE = {"CONTRIBUTING": "contributing", "CHANGELOG": "changelog"}


def write_reference() -> None:
    """Write one page of reference per public module, and one for each page outside of docs/."""
    directory = HERE / "reference"
    directory.mkdir(exist_ok=True)
    pages = {}
    for module in public_modules():
        title = module.removeprefix("airflow_provider_emqx.")
        pages[f"{title}.rst"] = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {module}\n"
    toctree = "\n".join(f"   {name.removesuffix('.rst')}" for name in pages)
    pages["index.rst"] = f"Reference\n=========\n\n.. toctree::\n\n{toctree}\n"
    for name, page in OUTSIDE.items():
        text = (HERE.parent / f"{name}.md").read_text(encoding="utf-8")
        pages[f"{page}.md"] = text.replace("](docs/", "](../")
    for old in directory.iterdir():
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        page = directory / name
        # an untouched page is not built again
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


write_reference()


def for_sphinx(docname: str, text: str) -> str:
    """
    Return a page of docs/ as Sphinx needs it.

    The pages hold no directives, so that they read well on GitHub. There a link to a module leads to its source; in the
    built pages it leads to the reference.
    """
    text = re.sub(
        r"\]\(\.\./airflow_provider_emqx/([\w/]+?)(?:/__init__)?\.py\)",
        lambda link: f"](reference/{link[1].replace('/', '.')}.rst)",
        text,
    )
    for name, page in OUTSIDE.items():
        text = text.replace(f"](../{name}.md", f"](reference/{page}.md")
    if docname == "index":
        text = text.replace("](../airflow_provider_emqx)", "](reference/index.rst)")
        text += "".join(toctrees(text))
    return text


def toctrees(index: str) -> Iterator[str]:
    """Yield a hidden table of contents for each section of the index that lists pages."""
    for section in index.split("\n## ")[1:]:
        caption, _, body = section.partition("\n")
        if pages := re.findall(r"^- \[[^]]+\]\(([\w/.]+)\)", body, flags=re.MULTILINE):
            listed = "\n".join(page.rpartition(".")[0] for page in pages)
            yield f"\n\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n:hidden:\n\n{listed}\n```\n"


def setup(app: Any) -> None:
    """Adapt the pages, and leave functions beside the classes out of the reference: users import classes."""

    def skip(_app: Any, what: str, _name: str, value: Any, skipped: bool, _options: Any) -> bool | None:
        return True if what == "module" and inspect.isfunction(value) else None

    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", complete_parameters)

    def read(_app: Any, docname: str, source: list[str]) -> None:
        if not docname.startswith("reference/"):
            source[0] = for_sphinx(docname, source[0])

    app.connect("source-read", read)

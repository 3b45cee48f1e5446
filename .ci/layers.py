"""
Check that the imports of the package point down only.

Usage: ``python .ci/layers.py PACKAGE_DIRECTORY``; prints one line per violation and exits with 1 if there is any.

It reads the source and imports nothing. Imports inside functions count as well: what is imported late is still
depended on.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: What each part of the package may import from the package, besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "exceptions": set(),
    "choices": set(),
    "keywords": {"choices"},
    "results": {"api"},
    "run_log": {"outcomes", "results"},
    "arguments": {"exceptions"},
    "hidden": {"exceptions"},
    "files": {"exceptions"},
    "row_files": {"exceptions", "files"},
    "get_provider_info": set(),
    "archives": {"exceptions"},
    # a double that shared code with what it doubles would share its mistakes; archives are held to recorded ones
    "testing": {"archives"},
    "api": {"arguments", "choices", "exceptions", "outcomes", "patterns"},
    "outcomes": {"exceptions"},
    "patterns": set(),
    "transport": {"api", "arguments", "choices", "exceptions", "outcomes", "patterns", ""},
}
MAY_IMPORT["plans"] = {"files", "results", "row_files", "transport", *MAY_IMPORT["transport"]}
MAY_IMPORT["conditions"] = {"files", "row_files", "transport", *MAY_IMPORT["transport"]}
MAY_IMPORT["provisioning"] = {
    "run_log",
    "archives",
    "files",
    "keywords",
    "plans",
    "results",
    "row_files",
    "transport",
    *MAY_IMPORT["transport"],
}
MAY_IMPORT["hooks"] = {"get_provider_info", "provisioning", *MAY_IMPORT["provisioning"]}
MAY_IMPORT["links"] = {"hooks", *MAY_IMPORT["hooks"]}
MAY_IMPORT["pages"] = {"links"}
MAY_IMPORT["assets"] = set()
MAY_IMPORT["commands"] = {"files", "hooks", *MAY_IMPORT["hooks"]}
MAY_IMPORT["messages"] = {"conditions", "hooks", *MAY_IMPORT["hooks"]}
MAY_IMPORT["triggers"] = {"commands", "conditions", "hooks", "messages", *MAY_IMPORT["hooks"]}
for _top in ("operators", "sensors", "notifications", "transfers"):
    MAY_IMPORT[_top] = {
        "hidden",
        "keywords",
        "triggers",
        "provisioning",
        "assets",
        "links",
        *MAY_IMPORT["triggers"],
    }
# a transfer is an operator with a source of another kind
MAY_IMPORT["transfers"].add("operators")
MAY_IMPORT["queues"] = {"triggers", *MAY_IMPORT["triggers"]}

#: Never imported at module level: a DAG file that is parsed again and again would pay for it each time.
LATE = {"aiohttp", "bcrypt", "http", "paho", "pyarrow", "requests", "socket", "ssl", "tenacity", "urllib3"}

#: Never imported by ``api/``, which opens no socket, never sleeps and reads no clock.
IMPURE = LATE | {"asyncio", "logging", "os", "random", "threading", "time"}

#: Where Airflow's names come from, so that they are right on each supported Airflow.
AIRFLOW_SOURCES = (
    "airflow.providers.common.compat",
    "airflow.triggers.base",
    "airflow.triggers.shared_stream",
)
AIRFLOW_SOURCES_OF = {
    "assets": ("airflow.providers.openlineage",),
    "queues": ("airflow.providers.common.messaging",),
    "transfers": ("airflow.providers.common.sql",),
}


def violations(package: Path) -> Iterator[str]:
    """Yield one line, ``path:line: what is wrong``, for each import that breaks a rule."""
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        part = "" if parts == ("__init__",) else parts[0]
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        if part not in MAY_IMPORT:
            yield f"{file}:1: {part} is no known layer; add it to MAY_IMPORT in .ci/layers.py"
            continue
        for node, at_import in _imports(tree, at_import=True):
            for name in _names(node):
                if problem := _problem(package.name, part, name, at_import):
                    yield f"{file}:{node.lineno}: {problem}"
        if part == "api":
            for line in _clock_reads(tree):
                yield f"{file}:{line}: api reads no clock; take the time as an argument"


def _imports(tree: ast.AST, *, at_import: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield every import below the node, and whether it is executed when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, at_import
            continue
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            late = True
        yield from _imports(node, at_import=at_import and not late)


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        return ["." * node.level + (node.module or "")]
    # "from package import layer" names the layer only in the imported name.
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _problem(package: str, part: str, name: str, at_import: bool) -> str | None:
    top, _, rest = name.partition(".")
    if not top:
        return f"relative import {name}; write it from {package} on"
    if top == package:
        target = rest.partition(".")[0]
        # "from package import __version__" names no layer.
        target = "" if target == "__version__" else target
        if target != part and target not in MAY_IMPORT[part]:
            return f"{part or package} must not import {target or package}: imports point down only"
    elif top == "airflow":
        if part in ("api", "get_provider_info", "testing"):
            return f"{part} must not import Airflow"
        sources = AIRFLOW_SOURCES + AIRFLOW_SOURCES_OF.get(part, ())
        if not name.startswith(sources):
            return f"{name}: take it from airflow.providers.common.compat.sdk"
    elif part == "api" and top in IMPURE:
        return f"api must not import {top}"
    elif at_import and top in LATE and part != "testing":
        return f"{top} is imported at module level; import it in the function that uses it"
    return None


def _clock_reads(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="now" | "today" | "utcnow")):
                yield node.lineno


def main(arguments: list[str]) -> int:
    """Check the package whose directory is the one argument."""
    package = Path(arguments[0])
    if not (package / "__init__.py").is_file():
        print(f"{package} is no package", file=sys.stderr)
        return 2
    found = list(violations(package))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

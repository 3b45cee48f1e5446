"""
Write docs/operations.md: which operation there is on which broker, and as what.

Usage: ``python .ci/support.py [--check]``; with ``--check`` nothing is written, and the exit status says whether the
page is up to date.

Everything is derived from the code: the operations are the hook's methods; what an EMQX 4 lacks is what its function
refuses; versions and endpoints are those that the docstrings of ``api/`` name; what Serverless serves is told by the
routes of ``FakeEmqx``; operators are found by the operations that they call, sensors by the endpoints that they name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "operations.md"
AREAS = {
    "clients": "Clients",
    "topics": "Topics",
    "auth": "Users, ACL rules, bans",
    "cluster": "Cluster",
}
#: EMQX Cloud does these itself
NOT_IN_CLOUD = ("airflow_provider_emqx.api.v5.backups", "airflow_provider_emqx.api.v5.rebalance")
YES, NO = "yes", "–"

HEAD = """# Operations

What can be done on which broker, and as what: as a method of the [hook](reference/hooks.emqx.rst), as an operator, as
a sensor. A version such as "5.6+" is the oldest EMQX that can do it. What a broker lacks is refused with an error that
says what it needs.

Columns: **4** is EMQX 4.4 (API v4), **5, 6** are EMQX 5 and 6 (API v5), **Serverless** is EMQX Cloud Serverless,
**Dedicated** is EMQX Cloud Dedicated, Dedicated Flex and BYOC with EMQX 5, as far as the API key's list of paths
allows. Evacuation and rebalancing need the Enterprise edition before EMQX 5.9.

This page is generated from the code by `make operations`.
"""

TAIL = """
## Anything else

`EmqxHook.request()` and `EmqxApiOperator` send any request to the management API (gateways, EMQX Cloud v4's shadow
service, …), with the same authentication, retries, errors and care for secrets.
"""


def module(name: str) -> ModuleType:
    return importlib.import_module(f"airflow_provider_emqx.{name}")


def endpoints(text: str) -> set[str]:
    """Return the endpoints that a docstring names, as ``GET /clients/{}``."""
    found = re.findall(r"``((?:GET|POST|PUT|DELETE) (?:/|…)[^`\s?]*)", text)
    return {re.sub(r"\{[^}]*\}", "{}", endpoint) for endpoint in found}


def serverless_routes() -> set[str]:
    names = ("users", "clients", "topics", "acl", "bans", "cluster", "stored")
    routes = [route for name in names for route in _routes(name) if route.serverless]
    return {f"{route.method} {re.sub(r'{[^}]*}', '{}', route.pattern)}" for route in routes}


def _routes(name: str) -> list[Any]:
    try:
        return list(module(f"testing.v5.{name}").ROUTES)
    except ModuleNotFoundError:
        return []


def served(endpoint: str, routes: set[str]) -> bool:
    verb, _, path = endpoint.partition(" ")
    # "…" stands for a beginning that is clear from the context
    return any(
        route.startswith(f"{verb} ")
        and (route.endswith(path.lstrip("…")) if path[0] == "…" else route == endpoint)
        for route in routes
    )


@functools.cache
def public_classes(package: str) -> tuple[type, ...]:
    return tuple(_classes(package))


def _classes(package: str) -> Iterator[type]:
    for file in sorted((ROOT / "airflow_provider_emqx" / package).glob("*.py")):
        if file.stem == "__init__":
            continue
        found = module(f"{package}.{file.stem}")
        for name, value in sorted(vars(found).items()):
            if inspect.isclass(value) and value.__module__ == found.__name__ and name.startswith("Emqx"):
                yield value


def operators_of(name: str) -> list[str]:
    """Return the operators whose source calls the hook's method or the operation of this name."""
    call = re.compile(rf"(?:hook|topics|auth|clients|cluster)\.{name}\(")
    return [cls.__name__ for cls in public_classes("operators") if call.search(_source(cls))]


@functools.cache
def _source(cls: type) -> str:
    source = inspect.getsource(cls)
    # what is called by a name put together at run time
    for kind in re.findall(r"get_\{section\}", source):
        source += "".join(f"hook.{kind.replace('{section}', s)}(" for s in ("stats", "metrics", "rates"))
    # and what the work is handed on to
    for name in re.findall(r"from airflow_provider_emqx\.provisioning\.(\w+) import", source):
        source += inspect.getsource(module(f"provisioning.{name}"))
    verb = getattr(cls, "_verb", None)
    return source + (f"clients.{verb}(" if verb else "")


def sensors_of(wanted: set[str]) -> list[str]:
    """Return the sensors whose documentation names one of these endpoints."""
    reads = {endpoint for endpoint in wanted if endpoint.startswith("GET ")}
    docs = {cls.__name__: inspect.getdoc(cls) or "" for cls in public_classes("sensors")}
    for name, text in docs.items():
        # "The requests are those of …"
        docs[name] = text + "".join(docs.get(other, "") for other in re.findall(r":class:`(\w+)`", text))
    return [name for name, text in docs.items() if endpoints(text) & reads]


def row(area: str, name: str, routes: set[str]) -> str:
    v4 = getattr(getattr(module("api.v4"), area), name, None)
    v5 = getattr(getattr(module("api.v5"), area), name, None)
    if v5 is None:
        doc4 = doc5 = inspect.getdoc(getattr(module("hooks.emqx").EmqxHook, name)) or ""
    else:
        doc4, doc5 = inspect.getdoc(v4) or "", inspect.getdoc(v5) or ""
    summary = doc5.split("\n\n")[0]
    needs = re.search(r"EMQX\s+(\d\.\d+(?:\.\d+)?)\s+and\s+newer", summary)
    is_read = name.startswith(("get_", "list_"))
    cells = [
        f"`{name}`",
        NO if doc4.startswith("Refuse") else YES,
        f"{needs[1]}+" if needs else YES,
        YES if any(served(endpoint, routes) for endpoint in endpoints(doc5)) else NO,
        NO if v5 is not None and v5.__module__ in NOT_IN_CLOUD else YES,
        ", ".join(f"`{operator}`" for operator in operators_of(name)) or NO,
        ", ".join(f"`{sensor}`" for sensor in sensors_of(endpoints(doc5)) if is_read) or NO,
    ]
    return f"| {' | '.join(cells)} |"


@functools.cache
def page() -> str:
    hook = module("hooks.emqx").EmqxHook
    routes = serverless_routes()
    parts = [HEAD]
    for area, title in AREAS.items():
        methods = next(base for base in hook.__mro__ if base.__module__.endswith(f".hooks.{area}"))
        names = [
            name for name, value in vars(methods).items() if inspect.isfunction(value) and name[0] != "_"
        ]
        parts.append(f"\n## {title}\n\n[Reference](reference/hooks.{area}.rst)\n")
        parts.append("| hook | 4 | 5, 6 | Serverless | Dedicated | operator | sensor |")
        parts.append("| --- | --- | --- | --- | --- | --- | --- |")
        parts += [row(area, name, routes) for name in names]
    return "\n".join([*parts, TAIL])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    text = page()
    if "--check" in sys.argv:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print(
            "docs/operations.md is up to date"
            if current
            else "docs/operations.md is stale: run make operations"
        )
        sys.exit(0 if current else 1)
    PAGE.write_text(text, encoding="utf-8")

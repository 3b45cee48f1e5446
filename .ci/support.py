"""
Write docs/operations.md: which operation there is on which broker, and as what.

Usage: ``python .ci/support.py [--check]``; with ``--check`` nothing is written, and the exit status says whether the
page is up to date.

Everything is derived from the code: the operations are the hook's methods; what an EMQX 4 lacks is what its class
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
NOT_IN_CLOUD = ("backups", "rebalance")
YES, NO = "yes", "–"

HEAD = """# Operations

Which operations each broker supports, and whether they are available as a method of the
[hook](../airflow_provider_emqx/hooks/emqx.py), as an operator or as a sensor. A version such as "5.6+" is the oldest
EMQX that supports the operation. On other brokers it raises `EmqxUnsupportedError`, which says what it needs.

Columns: **4** is EMQX 4.4 (API v4), **5, 6** are EMQX 5 and 6 (API v5), **Serverless** is EMQX Cloud Serverless,
**Dedicated** is EMQX Cloud Dedicated, Dedicated Flex and BYOC with EMQX 5, as far as the paths allowed to the API key
permit. Evacuation and rebalancing need the Enterprise edition before EMQX 5.9.

This page is generated from the code by `make operations`.
"""

TAIL = """
## Over MQTT

`hook.mqtt()`, `EmqxCommandOperator` and `EmqxMessageSensor` speak MQTT 5 with any of these brokers, and do not need the
management API: see [Commands](commands.md) and [Messages](messages.md).

## Anything else

`EmqxHook.request()` and `EmqxApiOperator` send any request to the management API (gateways, the shadow service of EMQX
Cloud v4, …), with the same authentication, retries, errors and protection of secrets.
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


def operators_of(name: str, operation: tuple[str, str] | None) -> list[str]:
    """Return the operators whose source calls the hook's method of this name, or its operation."""
    calls = [rf"hook\.{name}\("]
    if operation is not None:
        calls.append(rf"\b{operation[0]}\.{operation[1]}\b")
    call = re.compile("|".join(calls))
    return [cls.__name__ for cls in public_classes("operators") if call.search(_source(cls))]


@functools.cache
def _source(cls: type) -> str:
    source = inspect.getsource(cls)
    # what is called by a name put together at run time
    for kind in re.findall(r"get_\{section\}", source):
        source += "".join(f"hook.{kind.replace('{section}', s)}(" for s in ("stats", "metrics", "rates"))
    # and what the work is handed on to
    for name in re.findall(r"from airflow_provider_emqx\.((?:provisioning|operators)\.\w+) import", source):
        source += inspect.getsource(module(name))
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


def operation_of(method: Any) -> tuple[str, str] | None:
    """Return area and name of the first operation with an endpoint that a method of the hook runs."""
    for area, name in re.findall(r"self\.api\.(\w+)\.(\w+)", inspect.getsource(method)):
        if endpoints(inspect.getdoc(getattr(getattr(api("v5"), area), name)) or ""):
            return area, name
    return None


def api(generation: str) -> Any:
    return module("api.generations").api_of(module("api.base").Broker(generation))


def refuses(operation: Any) -> bool:
    """Return whether an operation refuses its broker before the first request."""
    parameters = inspect.signature(operation).parameters.values()
    special = {"kind": "connector", "content": b"x", "clientids": ["x"], "until": None}
    arguments = {p.name: special.get(p.name, "x") for p in parameters if p.default is p.empty}
    exceptions = module("exceptions")
    try:
        next(operation(**arguments))
    except exceptions.EmqxUnsupportedError:
        return True
    except exceptions.EmqxError:
        pass  # over an argument
    return False


def row(name: str, method: Any, routes: set[str]) -> str:
    found = operation_of(method)
    if found is None:
        doc, cloud, on_v4 = inspect.getdoc(method) or "", True, True
    else:
        area, verb = found
        doc = inspect.getdoc(getattr(getattr(api("v5"), area), verb)) or ""
        cloud = area not in NOT_IN_CLOUD
        on_v4 = not refuses(getattr(getattr(api("v4"), area), verb))
    summary = doc.split("\n\n")[0]
    needs = re.search(r"EMQX\s+(\d\.\d+(?:\.\d+)?)\s+and\s+newer", summary)
    is_read = name.startswith(("get_", "list_"))
    cells = [
        f"`{name}`",
        YES if on_v4 else NO,
        f"{needs[1]}+" if needs else YES,
        YES if any(served(endpoint, routes) for endpoint in endpoints(doc)) else NO,
        YES if cloud else NO,
        ", ".join(f"`{operator}`" for operator in operators_of(name, found)) or NO,
        ", ".join(f"`{sensor}`" for sensor in sensors_of(endpoints(doc)) if is_read) or NO,
    ]
    return f"| {' | '.join(cells)} |"


@functools.cache
def page() -> str:
    hook = module("hooks.emqx").EmqxHook
    routes = serverless_routes()
    parts = [HEAD]
    for area, title in AREAS.items():
        methods = next(base for base in hook.__mro__ if base.__module__.endswith(f".hooks.{area}"))
        found = [
            (name, value)
            for name, value in vars(methods).items()
            if inspect.isfunction(value) and name[0] != "_"
        ]
        parts.append(f"\n## {title}\n\n[Reference](../airflow_provider_emqx/hooks/{area}.py)\n")
        parts.append("| hook | 4 | 5, 6 | Serverless | Dedicated | operator | sensor |")
        parts.append("| --- | --- | --- | --- | --- | --- | --- |")
        parts += [row(name, method, routes) for name, method in found]
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

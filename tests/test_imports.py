"""DAG files are parsed again and again, so what they import opens no sockets and loads no HTTP library."""

from __future__ import annotations

from tests.bench.calls import LIBRARIES, PARTS, imported, modules
from tests.needs import needs

pytestmark = needs("apache-airflow", "3.0", "Airflow 2 has loaded them before any DAG file")


def test_what_dag_files_import_loads_no_http_library() -> None:
    found = modules()
    assert {name.split(".")[1] for name in found} >= set(PARTS)
    loaded = {name: libraries for name, (_, libraries) in imported(found, times=0).items()}
    assert [name for name, libraries in loaded.items() if libraries] == []


def test_loading_one_would_be_seen() -> None:
    assert imported(list(LIBRARIES), times=0) == {
        "requests": ([], ["requests"]),
        "aiohttp": ([], ["aiohttp"]),
    }

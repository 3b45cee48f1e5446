"""The page of results is served as static files, and only where it can work."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowPlugin, TaskInstanceKey

from airflow_provider_emqx import links
from airflow_provider_emqx.links import EmqxResultLink
from airflow_provider_emqx.pages import plugin
from airflow_provider_emqx.pages.plugin import EmqxPlugin
from tests.needs import needs

fastapi = needs("apache-airflow", "3.0", "Airflow 2 has no FastAPI")
STATIC = Path(plugin.__file__).parent / "static"
ROOT = Path(__file__).resolve().parents[2]
KEY = TaskInstanceKey(
    dag_id="a dag", task_id="tä&sk", run_id="manual__2026-01-01T00:00:00+00:00", map_index=3
)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the code believe that it runs on another Airflow."""

    def change(*version: int) -> None:
        monkeypatch.setattr(links, "get_base_airflow_version_tuple", lambda: version)

    return change


def test_the_wheel_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (place,) = project["entry-points"]["airflow.plugins"].values()
    module, _, name = place.partition(":")
    assert getattr(importlib.import_module(module), name) is EmqxPlugin
    assert issubclass(EmqxPlugin, AirflowPlugin)


@fastapi
def test_files_are_served_and_nothing_else() -> None:
    from fastapi.testclient import TestClient

    client = TestClient(plugin.pages())
    for name, kind in (("result.html", "text/html"), ("result.js", "javascript"), ("result.css", "text/css")):
        answer = client.get(f"/{name}")
        assert (answer.status_code, answer.content) == (200, (STATIC / name).read_bytes())
        assert kind in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self';" in answer.headers["content-security-policy"]
    for path in ("/", "/plugin.py", "/../plugin.py", "/%2e%2e/plugin.py", "/openapi.json", "/docs"):
        assert client.get(path).status_code == 404
    assert client.post("/result.html").status_code == 405


@pytest.mark.parametrize("file", sorted(STATIC.iterdir()), ids=lambda file: file.name)
def test_the_page_needs_nobody_else_and_writes_text_only(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'`]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for risk in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "srcdoc",
    ):
        assert risk not in text
    assert not re.search(r"<script[^>]*>[^<]|\son\w+=|<style", text)


@pytest.mark.parametrize("version", [(2, 11, 0), (3, 0, 6), (3, 1, 7)])
def test_where_the_page_cannot_use_the_login_there_is_no_page_and_no_link(on: Any, version: Any) -> None:
    on(*version)
    assert EmqxResultLink().get_link(None, ti_key=KEY) == ""  # type: ignore[arg-type]
    assert (EmqxPlugin().fastapi_apps, EmqxPlugin().external_views) == ([], [])
    names = [type(link).__name__ for link in links.links()]
    assert names == ["EmqxDashboardLink"]


@fastapi
@pytest.mark.parametrize("version", [(3, 1, 8), (3, 2, 0), (3, 3, 2), (4, 0, 0)])
def test_elsewhere_there_is_a_page_and_a_link(on: Any, version: Any) -> None:
    on(*version)
    [app] = EmqxPlugin().fastapi_apps
    assert app["url_prefix"] == "/emqx"
    assert [type(link).__name__ for link in links.links()] == ["EmqxResultLink", "EmqxDashboardLink"]


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("", "/emqx/result.html"),
        ("https://airflow.example.com", "/emqx/result.html"),
        ("https://example.com/team/airflow/", "/team/airflow/emqx/result.html"),
    ],
)
def test_the_link_names_the_task_instance(
    on: Any, monkeypatch: pytest.MonkeyPatch, base_url: str, path: str
) -> None:
    on(3, 3, 2)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert EmqxResultLink().get_link(None, ti_key=KEY) == (  # type: ignore[arg-type]
        f"{path}?dag_id=a+dag&run_id=manual__2026-01-01T00%3A00%3A00%2B00%3A00&task_id=t%C3%A4%26sk&map_index=3"
    )


def test_the_tab_is_there_if_it_is_wanted(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on(3, 3, 2)
    assert EmqxPlugin().external_views == []
    monkeypatch.setenv("AIRFLOW__EMQX__RESULT_TAB", "True")
    [view] = EmqxPlugin().external_views
    assert view["destination"] == "task_instance"
    assert view["href"].startswith("/emqx/result.html?dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}")

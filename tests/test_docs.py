"""What the documentation shows works as shown."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.models.connection import Connection

from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.hooks.connection import read_connection
from airflow_provider_emqx.hooks.emqx import EmqxHook

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "connection.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))
FIELDS = get_provider_info()["connection-types"][0]["conn-fields"]


def examples() -> list[str]:
    """Return every connection on the page, written as JSON or as a URI."""
    objects = re.findall(r'\{\s*"conn_type".*?\}(?=\'|\n```)', PAGE, flags=re.DOTALL)
    return objects + re.findall(r"emqx://[^'\s]+", PAGE)


def connection(text: str, tmp_path: Path) -> Connection:
    if text.startswith("emqx://"):
        return Connection(conn_id="c", uri=text)
    # a CA file must exist where the connection is read
    fields: dict[str, Any] = json.loads(text.replace("/etc/ssl/private-ca.pem", str(tmp_path)))
    return Connection.from_json(json.dumps(fields), conn_id="c")


def test_the_page_has_examples_of_both_kinds() -> None:
    assert len([text for text in examples() if text.startswith("{")]) >= 6
    assert len([text for text in examples() if text.startswith("emqx://")]) >= 2


@pytest.mark.parametrize("text", examples())
def test_an_example_of_a_connection_can_be_read(text: str, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.touch()
    conn = connection(text, ca_file)
    settings = read_connection(conn, conn.extra_dejson)
    assert settings.key.startswith("the-")
    assert settings.secret.startswith("the-")
    assert settings.origin.startswith(("https://", "http://localhost", "http://emqx.mqtt."))


def test_the_addresses_of_the_table_mean_what_it_says() -> None:
    def read(host: str) -> tuple[str, str | None, str | None]:
        settings = read_connection(Connection(conn_id="c", host=host, login="k", password="s"), {})
        return settings.origin, settings.base, settings.generation

    assert read("https://broker.example.com:8443/api/v5") == (
        "https://broker.example.com:8443",
        "/api/v5",
        "v5",
    )
    assert read("https://broker.example.com:8443/api/v4") == (
        "https://broker.example.com:8443",
        "/api/v4",
        "v4",
    )
    assert read("https://broker.example.com:8443/api") == ("https://broker.example.com:8443", "/api", "v4")
    assert read("https://mqtt.example.com/emqx/api/v5") == ("https://mqtt.example.com", "/emqx/api/v5", "v5")
    assert read("https://broker.example.com:18083") == ("https://broker.example.com:18083", None, None)
    assert read("broker.example.com") == ("https://broker.example.com", None, None)
    assert read("localhost:18083")[0] == "http://localhost:18083"
    assert read("127.0.0.1:8081")[0] == "http://127.0.0.1:8081"


def test_every_extra_is_on_the_page_under_its_label() -> None:
    # other tables have fewer columns
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \| .+ \|$", PAGE, flags=re.MULTILINE)
    assert dict(rows) == {name: field["label"] for name, field in FIELDS.items()}


def test_what_is_linked_on_the_project_site_is_in_the_project() -> None:
    link = re.compile(
        r"(?:github\.com/emqx/airflow-provider-emqx/(?:blob|tree)|"
        r"raw\.githubusercontent\.com/emqx/airflow-provider-emqx)/main/([^)\s\"#]+)"
    )
    pages = [ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / "docs").glob("*.md")]
    linked = {name for page in pages for name in link.findall(page.read_text(encoding="utf-8"))}
    assert {"docs/connection.md", "CONTRIBUTING.md"} <= linked
    assert [name for name in sorted(linked) if not (ROOT / name).exists()] == []


def test_the_readme_links_to_nothing_that_a_package_index_cannot_show() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_every_method_of_the_hook_is_in_the_reference() -> None:
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    names = [name for name in dir(EmqxHook) if name[0] != "_"]
    places = {next(cls for cls in EmqxHook.__mro__ if name in vars(cls)).__module__ for name in names}
    ours = {place for place in places if place.startswith("airflow_provider_emqx.")}
    assert "airflow_provider_emqx.hooks.clients" in ours
    assert ours <= set(conf.public_modules())


@pytest.mark.parametrize("page", ["reliability.md", "security.md"])
def test_the_tests_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    names = set(re.findall(r"`(test_\w+)`", text))
    paths = set(re.findall(r"`(tests/[\w./]+)`", text))
    assert names
    assert paths
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in names if f"def {name}(" not in code} == set()
    assert {path for path in paths if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_needs_nothing_that_github_does_not_know(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^(?:```|:::)\{.*|(?<!\S)\{\w+\}`", text, flags=re.MULTILINE) == []
    assert re.findall(r"^: .*", text, flags=re.MULTILINE) == []
    assert "[](" not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_link_of_a_page_leads_to_a_file_of_the_repository(page: Path) -> None:
    """So it works on GitHub and in a checkout; that it works in the built pages is for Sphinx to check."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    outside = "https://", "http://", "#"
    inside = [link.partition("#") for link in targets if not link.startswith(outside)]
    assert [path for path, _, _ in inside if not (page.parent / path).exists()] == []
    anchors = [(page.parent / path, anchor) for path, _, anchor in inside if anchor]
    anchors += [(page, link[1:]) for link in targets if link.startswith("#")]
    assert [(path.name, anchor) for path, anchor in anchors if anchor not in headings(path)] == []


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}

"""The page of results copes with whatever a task may have left, or not yet: other versions, other values, nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from airflow_provider_emqx.pages import plugin
from tests.standalone.browser import Browser

pytestmark = pytest.mark.standalone

STATIC = Path(plugin.__file__).parent / "static"
RUN = "dags/d/dagRuns/r"
TASK = f"{RUN}/taskInstances/t"
RESULT = f"{TASK}/xcomEntries/return_value"


class Answers(SimpleHTTPRequestHandler):
    """Serves the page, and in the place of Airflow's REST API what a test lays down."""

    api: dict[str, Any]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/emqx/"):
            self.path = path.removeprefix("/emqx")
            super().do_GET()
            return
        answer = self.api.get(path.removeprefix("/api/v2/"))
        body = json.dumps(answer if answer is not None else {"detail": "not found"}).encode()
        self.send_response(404 if answer is None else answer if isinstance(answer, int) else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api() -> dict[str, Any]:
    return {
        TASK: {"state": "success", "operator_name": "EmqxProvisionUsersOperator"},
        f"{TASK}/links": {"extra_links": {"EMQX dashboard": None, "Result": None}},
        RUN: {"dag_run_id": "r", "run_after": "2026-11-28T00:00:00Z"},
        "dags/d/dagRuns": {"dag_runs": [{"dag_run_id": "r", "run_after": "2026-11-28T00:00:00Z"}]},
    }


@pytest.fixture
def page(chromium: Browser, api: dict[str, Any]) -> Iterator[Browser]:
    handler = type("Handler", (Answers,), {"api": api})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(STATIC))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        chromium.url = f"http://127.0.0.1:{server.server_port}/emqx/result.html?dag_id=d&run_id=r&task_id=t"  # type: ignore[attr-defined]
        yield chromium
        chromium.open("about:blank")
        server.shutdown()


def text_of(page: Any) -> str:
    page.open(page.url)
    page.wait("document.getElementById('page')?.dataset.ready || document.getElementById('problem')")
    return str(page.text())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        # an older version, without reasons, limits and counts of the broker
        ({"read": 3, "written": 2, "rejected": 1, "created": None, "report": "a.jsonl"}, "written"),
        # a newer one, of which the page knows little
        (
            {
                "read": 3,
                "written": 3,
                "colour": {"a": [1]},
                "reasons": {"x": 1},
                "guards": [None, {"name": 1}],
            },
            "colour",
        ),
        (
            {"counts": {"kicked": 2, "odd": "x"}, "kicked": ["a", None, {"b": 1}], "phases": {"write": "x"}},
            "kicked",
        ),
        (json.dumps({"read": 4_321, "written": 4_321}), "4,321"),
        ("s3://bucket/xcom/42.json", "s3://bucket/xcom/42.json"),
        ([1, 2], "[1,2]"),
        (17, "17"),
        ({}, "As JSON"),
        ({"read": 0, "written": 0, "rejected": 0, "created": 0, "updated": 0, "unchanged": 0}, "read"),
        ({"report_path": "javascript:alert(1)", "guards": []}, "javascript:alert(1)"),
    ],
)
def test_any_result_is_shown(page: Any, api: dict[str, Any], value: Any, shown: str) -> None:
    api[RESULT] = {"value": value}
    assert shown in text_of(page)
    assert page.ask("document.getElementById('problem')") is None
    assert page.ask("document.querySelectorAll('a[href^=\"javascript\"]').length") == 0


def test_a_report_with_the_address_of_a_page_is_a_link(page: Any, api: dict[str, Any]) -> None:
    api[RESULT] = {"value": {"read": 1, "written": 1, "report_path": "https://files.example.com/r.jsonl"}}
    text_of(page)
    assert page.ask("document.querySelector('#report a').href") == "https://files.example.com/r.jsonl"


def test_a_limit_that_was_exceeded_is_seen(page: Any, api: dict[str, Any]) -> None:
    guard = {"name": "max_deletes", "count": 900, "allowed": 100, "of": 1_000, "exceeded": True}
    api[RESULT] = {"value": {"read": 1, "written": 1, "guards": [guard]}}
    api[TASK]["state"] = "failed"
    text = text_of(page)
    assert "900 of 1,000, 100 allowed: exceeded" in text
    assert "The task failed." in text


def test_a_task_without_a_result_says_so(page: Any) -> None:
    assert "This task instance has no result." in text_of(page)


def test_a_task_at_work_is_waited_for(page: Any, api: dict[str, Any]) -> None:
    api[TASK]["state"] = "running"
    assert "The task has not finished" in text_of(page)
    api[RESULT] = {"value": {"read": 12, "written": 12}}
    api[TASK]["state"] = "success"
    page.wait("document.getElementById('state').innerText === 'success'", 30)
    assert "12\nread" in page.text()


def test_a_history_that_cannot_be_read_costs_nothing_else(page: Any, api: dict[str, Any]) -> None:
    api[RESULT] = {"value": {"read": 12, "written": 12}}
    del api["dags/d/dagRuns"]
    text = text_of(page)
    assert "12\nread" in text
    assert "This run" in text


def test_an_airflow_that_fails_is_told(page: Any, api: dict[str, Any]) -> None:
    api[TASK] = 500
    assert text_of(page).startswith("The result cannot be read: Airflow responded with status 500.")

"""People open the page of a result in a browser, with logins of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.secrets import planted
from tests.standalone.browser import Browser
from tests.standalone.running import Airflow, until

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(900)]

PASSWORDS = {"admin": "of-admin", "nobody": "of-nobody"}
#: an id that a page without care would run, or show as something else
NASTY = '<img src=x onerror="document.title=1"><b>bold</b>'
TASKS = {"provision", "kick", "wait", "figures", "backup", "another"}


@dataclass
class Site:
    """An Airflow with two runs of the DAG ``results``."""

    airflow: Airflow
    runs: list[str]

    def page(self, task: str, run: str | None = None) -> str:
        instance = f"dag_id=results&run_id={quote(run or self.runs[-1], safe='')}&task_id={task}&map_index=-1"
        return f"{self.airflow.url}/emqx/result.html?{instance}"

    def result(self, task: str) -> Any:
        return self.airflow.result("results", self.runs[-1], task)


def source(rows: int, rejected: int) -> str:
    """A file of devices, of which the first have no password."""
    lines = [f"sensor-{number},{'' if number < rejected else 'secret'}" for number in range(rows)]
    return "\n".join(["user_id,password", *lines, '"' + NASTY.replace('"', '""') + '",'])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    files = tmp_path_factory.mktemp("sources")
    users = files / "passwords.json"
    users.write_text(json.dumps(PASSWORDS))
    with FakeEmqx("5.8.9", key=planted.KEY, secret=planted.SECRET) as broker:
        broker.connect_many(f"fleet-{number}" for number in range(12))
        for number in range(3):
            broker.add_user(f"sensor-old-{number}", "secret")
        airflow = Airflow(
            tmp_path_factory.mktemp("airflow"),
            {
                "AIRFLOW_CONN_EMQX_DEFAULT": json.dumps(broker.connection()),
                "AIRFLOW_CONN_PEPPER": json.dumps({"conn_type": "generic", "password": planted.PEPPER}),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
                # who has no role has no rights
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,nobody:",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(users),
                "AIRFLOW__EMQX__RESULT_TAB": "True",
                "EMQX_GENERATION": "v5",
                "FILES": str(files),
                "PLANTED_PASSWORD": planted.PASSWORD,
                "PLANTED_PAYLOAD": planted.PAYLOAD,
            },
        )
        try:
            airflow.start()
            runs = []
            for rows, rejected in ((100, 0), (150, 4)):
                broker.connect("stale-1")
                (files / "devices.csv").write_text(source(rows, rejected))
                runs.append(airflow.trigger("results"))

                def over(run: str = runs[-1]) -> bool:
                    states = airflow.states("results", run)
                    return set(states) == TASKS and set(states.values()) <= {"success", "failed"}

                until(over, 300, airflow.tell)
                assert set(airflow.states("results", runs[-1]).values()) == {"success"}, airflow.tell()
            yield Site(airflow, runs)
        finally:
            airflow.stop()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    yield chromium
    chromium.forget()


def log_in(browser: Browser, site: Site, name: str, then: str) -> None:
    """Log in with Airflow's own form, as a person does."""
    browser.open(f"{site.airflow.url}/auth/login?next={quote(then, safe='')}")
    browser.wait("document.querySelector('input[name=username]')")
    browser.write("input[name=username]", name)
    browser.write("input[name=password]", PASSWORDS[name])
    browser.press("button[type=submit]")


def numbers(browser: Browser) -> dict[str, int]:
    """The numbers of the page, as they can be read."""
    found = browser.ask(
        "[...document.querySelectorAll('.tile')].map(tile => "
        "[tile.querySelector('span').innerText, tile.querySelector('b').innerText])"
    )
    return {name: int(number.replace(",", "")) for name, number in found}


def is_shown(browser: Browser) -> None:
    browser.wait("document.getElementById('page').dataset.ready")


def test_the_link_of_a_task_opens_the_page_of_its_result(browser: Browser, site: Site) -> None:
    details = f"{site.airflow.url}/dags/results/runs/{quote(site.runs[-1])}/tasks/provision/details"
    log_in(browser, site, "admin", details)
    browser.wait("[...document.querySelectorAll('a')].some(link => link.innerText === 'Result')")
    # older ones open another tab
    link = "[...document.querySelectorAll('a')].find(link => link.innerText === 'Result')"
    browser.ask(f"{link}.target = '_self'")
    browser.ask(f"{link}.click()")
    browser.wait("location.pathname === '/emqx/result.html' && document.getElementById('page').dataset.ready")
    result = site.result("provision")
    assert result["rejected"] == 5
    names = ("read", "created", "updated", "unchanged", "skipped", "rejected", "deleted", "pruned")
    assert numbers(browser) == {name: result[name] for name in names}
    assert (result["read"], result["created"], result["unchanged"]) == (151, 50, 96)


def test_reasons_rejected_rows_and_limits_are_shown_as_text(browser: Browser, site: Site) -> None:
    log_in(browser, site, "admin", site.page("provision"))
    is_shown(browser)
    result = site.result("provision")
    cells = "[...document.querySelectorAll('#{} tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    rows = browser.ask(cells.format("rejected"))
    assert rows == [[str(row["line"]), row["id"], row["reason"]] for row in result["rejected_rows"]]
    assert NASTY in [row[1] for row in rows]
    assert browser.ask("document.querySelectorAll('img, td b').length") == 0
    assert browser.ask("document.title") == "provision: EMQX result"
    reasons = browser.ask(cells.format("reasons"))
    assert [(row[0], row[2]) for row in reasons] == [
        (str(told["count"]), told["reason"]) for told in result["reasons"]
    ]
    limits = browser.ask("[...document.querySelectorAll('.meter')].map(meter => meter.innerText)")
    assert limits == ["max_rejected\n5 of 151, 7 allowed", "max_deletes\n0 of 100, 100 allowed"]
    assert browser.ask("document.getElementById('report').innerText") == result["report_path"]


def test_the_last_runs_are_bars_that_lead_to_their_pages(browser: Browser, site: Site) -> None:
    log_in(browser, site, "admin", site.page("provision"))
    is_shown(browser)
    assert browser.ask("[...document.querySelectorAll('.column')].map(bar => bar.dataset.run)") == site.runs
    browser.ask(
        "document.querySelector('.column').parentNode.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    browser.wait(f"new URL(location.href).searchParams.get('run_id') === {json.dumps(site.runs[0])}")
    is_shown(browser)
    first = numbers(browser)
    assert (first["read"], first["created"], first["rejected"], first["pruned"]) == (101, 100, 1, 3)


@pytest.mark.parametrize(
    ("task", "expected", "text"),
    [
        ("kick", {"kicked": 1, "absent": 0, "selected": 1}, "max_affected"),
        ("wait", {"online": 12, "missing": 8, "awaited": 20, "needed": 10}, "fleet-19"),
        ("backup", {}, "emqx-export-"),
        ("figures", {}, "stats.live_connections.count"),
    ],
)
def test_other_tasks_show_what_they_have(
    browser: Browser, site: Site, task: str, expected: dict[str, int], text: str
) -> None:
    log_in(browser, site, "admin", site.page(task))
    is_shown(browser)
    found = numbers(browser)
    assert {name: found[name] for name in expected} == expected
    assert text in browser.text()
    if task == "figures":
        shown = browser.ask("document.querySelectorAll('figure[data-figure] svg').length")
        assert shown == sum(isinstance(value, int | float) for value in site.result("figures").values())


def test_a_user_without_rights_sees_nothing_of_it(browser: Browser, site: Site) -> None:
    log_in(browser, site, "nobody", site.page("provision"))
    browser.wait("document.getElementById('problem')")
    assert browser.text() == "Your account may not see this task or its result."


def test_without_a_login_nothing_is_seen(browser: Browser, site: Site) -> None:
    browser.open(site.page("provision"))
    browser.wait("document.getElementById('problem')")
    assert browser.text().startswith("You are not logged in.")
    assert "provision" not in browser.text()


def test_tasks_of_others_show_nothing_of_ours(browser: Browser, site: Site) -> None:
    run = quote(site.runs[-1])
    log_in(browser, site, "admin", f"{site.airflow.url}/dags/results/runs/{run}/tasks/another/details")
    browser.wait("document.body.innerText.includes('Task ID')")
    assert (
        browser.ask("[...document.querySelectorAll('a')].filter(link => link.innerText === 'Result').length")
        == 0
    )
    # its result looks like one of ours
    assert site.result("another")["read"] == 4711
    browser.open(site.page("another"))
    browser.wait("document.getElementById('problem')")
    assert browser.text().startswith("This task is not one of EMQX's")


def test_what_does_not_exist_is_said(browser: Browser, site: Site) -> None:
    log_in(browser, site, "admin", site.page("provision", "no-such-run"))
    browser.wait("document.getElementById('problem')")
    assert browser.text() == "Airflow has no such task instance."


def test_the_page_is_a_tab_where_that_is_wanted(browser: Browser, site: Site) -> None:
    run = quote(site.runs[-1])
    log_in(
        browser,
        site,
        "admin",
        f"{site.airflow.url}/dags/results/runs/{run}/tasks/provision/plugin/emqx-result",
    )
    inside = "document.querySelector('iframe')?.contentDocument?.getElementById('page')"
    browser.wait(f"{inside}?.dataset.ready")
    assert "151\nread" in browser.ask(f"{inside}.innerText")

"""The form of Airflow 2 itself, as a browser would fill it in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from airflow import settings
from airflow.models.connection import Connection

from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.hooks.connection import read_connection

FIELDS = get_provider_info()["connection-types"][0]["conn-fields"]


@pytest.fixture(scope="module")
def browser(airflow_db: None) -> Any:
    """Someone who is logged in."""
    # imported late: creating the database makes the sessions that it shares with the tests
    from airflow.www.app import create_app

    app = create_app(testing=True)
    app.config["WTF_CSRF_ENABLED"] = False
    with app.app_context():
        security = app.appbuilder.sm
        security.add_user("admin", "A", "B", "a@example.com", security.find_role("Admin"), password="admin")
    client = app.test_client()
    client.post("/login/", data={"username": "admin", "password": "admin"})
    return client


def save(browser: Any, page: str, **fields: str) -> Any:
    data = {"conn_id": "made", "conn_type": "emqx", "host": "http://localhost:18083", "login": "k", **fields}
    return browser.post(page, data={"password": "s", **data})


def made() -> Connection:
    with settings.Session() as session:
        return session.query(Connection).filter_by(conn_id="made").one()


def test_what_is_filled_in_becomes_the_settings(browser: Any) -> None:
    page = browser.get("/connection/add").get_data(as_text=True)
    assert set(re.findall(r'name="extra__emqx__(\w+)"', page)) == set(FIELDS)
    # nothing of the form is touched but these
    shown = {f"extra__emqx__{name}": str(field["schema"].get("default", "")) for name, field in FIELDS.items()
             if "boolean" not in field["schema"]["type"]}  # fmt: skip
    filled = {
        "extra__emqx__api_version": "v5",
        "extra__emqx__read_timeout": "12.5",
        "extra__emqx__allow_http": "y",
    }
    assert save(browser, "/connection/add", **{**shown, **filled}).status_code == 302
    conn = made()
    assert conn.extra_dejson["read_only"] is False
    read = read_connection(conn, conn.extra_dejson)
    assert (read.key, read.secret, read.generation) == ("k", "s", "v5")
    assert (read.read_timeout, read.connect_timeout, read.attempts) == (12.5, 5, 4)
    assert (read.verify, read.rate_limit, read.proxy, read.namespace) == (True, None, None, None)
    # a second visit, with everything emptied
    empty = dict.fromkeys(shown, "")
    assert save(browser, f"/connection/edit/{conn.id}", **empty).status_code == 302
    again = made()
    read = read_connection(again, again.extra_dejson)
    assert (read.generation, read.read_timeout, read.attempts) == (None, 65, 4)


def test_a_generation_that_does_not_exist_is_refused(browser: Any) -> None:
    answer = save(browser, "/connection/add", conn_id="wrong", extra__emqx__api_version="v9")
    assert answer.status_code == 200
    with settings.Session() as session:
        assert session.query(Connection).filter_by(conn_id="wrong").count() == 0

"""The error guide quotes what this provider really says."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx import exceptions
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text(encoding="utf-8")

#: what differs from run to run
_VARYING = [
    (re.compile(r"\(gave up after \d+ attempts in [\d.]+ s\)"), "(gave up)"),
    (re.compile(r"https?://(broker\.(example\.com|invalid)(:\d+)?|127\.0\.0\.1:\d+)"), "the broker"),
]


def normal(text: str) -> str:
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.replace(" (gave up)", "")


def quoted() -> dict[str, list[str]]:
    """Return the texts on the page by the error under whose heading they stand."""
    sections = re.split(r"^## (\w+)$", PAGE, flags=re.MULTILINE)
    return {
        name: [
            normal(" ".join(text.split()))
            for text in re.findall(r"```text\n(.*?)\n```", body, flags=re.DOTALL)
        ]
        for name, body in zip(sections[1::2], sections[2::2], strict=True)
    }


def concrete() -> set[str]:
    """Return the errors that are raised as such."""
    found = {
        name for name, cls in vars(exceptions).items() if inspect.isclass(cls) and name.startswith("Emqx")
    }
    return found - {"EmqxError", "EmqxApiError"}


def test_every_error_has_its_section_and_its_line_in_the_table() -> None:
    assert {name for name in quoted() if name.startswith("Emqx")} == concrete()
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \|.*\| (.*)\|$", PAGE, flags=re.MULTILINE))
    assert set(rows) == concrete()
    final = {name for name in rows if issubclass(getattr(exceptions, name), exceptions.AirflowFailException)}
    assert {name for name, mark in rows.items() if mark.strip() == "final"} == final


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EmqxHook]:
    def make(connection: dict[str, Any], **changes: Any) -> EmqxHook:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps({**connection, **changes}))
        return EmqxHook()

    return make


def _provoke(connect: Callable[..., EmqxHook]) -> Iterator[Callable[[], object]]:
    nowhere = {
        "conn_type": "emqx",
        "host": "https://broker.invalid:8443/api/v5",
        "login": "k",
        "password": "s",
    }
    yield connect(nowhere, host="http://broker.example.com:18083").get_stats
    yield connect(nowhere, host="https://broker.example.com:1883").get_stats
    yield lambda: connect(nowhere, extra={"attempts": 1, "emqx_version": "5.8.9"}).get_client("dev-1")
    with FakeEmqx("5.8.9") as broker:
        access = broker.connection(attempts=2)
        hook = connect(access)
        yield lambda: hook.delete_user("..")
        yield lambda: connect(broker.connection(read_only=True)).set_keepalive("dev-1", 60)
        yield connect(access, host=f"{broker.url}/api/v4").get_stats
        yield lambda: connect(access, password="wrong").get_client("dev-1")
        broker.add_key("viewer", "secret", role="viewer")
        viewer = connect(access, login="viewer", password="secret")
        yield lambda: viewer.publish({"topic": "t", "payload": "x"})
        yield lambda: hook.request("POST", "/banned", json={"as": "nothing", "who": "x"})
        yield lambda: hook.subscribe("dev-1", "t")
        broker.add_user("sensor-1", "secret")
        yield lambda: hook.create_user("sensor-1", "secret")

        def faulty(
            call: Callable[[], object], kind: str, times: int = 2, **fault: Any
        ) -> Callable[[], object]:
            broker.order_fault(kind, times=times, **fault)
            return call

        read = lambda: hook.get_client("dev-1")  # noqa: E731
        at_login = {"headers": {"Location": "https://login.example.com/sso?token=1"}}
        yield faulty(lambda: list(hook.list_clients()), "redirect", 1, **at_login)
        yield faulty(read, "status", status=429, headers={"Retry-After": "0"})
        yield faulty(read, "status", body='{"code": "SERVICE_UNAVAILABLE", "message": "node is starting"}')
        yield faulty(
            read, "status", status=200, body="<html>hi</html>", headers={"Content-Type": "text/html"}
        )
        yield faulty(lambda: hook.publish({"topic": "t", "payload": "x"}), "reset_after", 1)
        slow = connect(
            broker.connection(attempts=1, read_timeout=0.3, emqx_version="5.8.9", api_version="v5")
        )
        yield faulty(lambda: slow.get_client("dev-1"), "stall", 1, seconds=1.0)
        hook.stop()
        yield read
    quiet = connect(access, extra={"attempts": 1, "emqx_version": "5.8.9", "api_version": "v5"})
    yield lambda: quiet.get_client("dev-1")
    with FakeEmqx("5.8.9") as broker:
        broker.restart(boot_seconds=3600)
        starting = connect(broker.connection(deadline=0.2, emqx_version="5.8.9", api_version="v5"))
        yield lambda: starting.get_client("dev-1")
    with FakeEmqx("5.8.9", authenticator=False, authorization=False) as broker:
        hook = connect(broker.connection())
        yield lambda: list(hook.list_users())
        yield lambda: list(hook.list_acl_subjects("username"))
    with FakeEmqx("4.4.19", authenticator=False, modules=False) as broker:
        hook = connect(broker.connection())
        yield lambda: list(hook.list_queued_messages("dev-1"))
        yield lambda: list(hook.list_users())
        yield lambda: hook.register_topic_metrics("t")
        yield lambda: connect(broker.connection(), password="wrong").get_client("dev-1")
        yield lambda: connect(broker.connection(), host=f"{broker.url}/api/v5").get_client("dev-1")


def test_the_texts_on_the_page_are_what_is_raised(connect: Callable[..., EmqxHook]) -> None:
    raised: dict[str, list[str]] = {}
    for call in _provoke(connect):
        with pytest.raises(EmqxError) as caught:
            call()
        raised.setdefault(type(caught.value).__name__, []).append(normal(str(caught.value)))
    for name, texts in quoted().items():
        # a certificate that is not trusted has tests of its own, with TLS
        expected = [text for text in texts if "TLS certificate" not in text]
        assert sorted(raised.get(name, [])) == sorted(expected), name

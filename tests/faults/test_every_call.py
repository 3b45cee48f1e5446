"""What holds for every call, whoever makes it: read only, no redirects, nothing taken from the environment."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger
from tests.faults.operations import IDS, OPERATIONS, connect_some
from tests.faults.proxy import PASS, Fault, FaultyProxy
from tests.faults.world import Outcome, World, world
from tests.triggers.conftest import event_of

pytestmark = [
    pytest.mark.parametrize("driver", ["requests", "aiohttp"]),
    pytest.mark.parametrize("version", ["4.4.19", "5.8.9"]),
]
#: of the connections of FakeEmqx
OURS = f"Basic {b64encode(b'key:secret').decode()}"
SEED = 20261125
#: how often a call is made, with arguments by chance
TIMES = 3


def notify(w: World) -> None:
    notifier = EmqxPublishNotifier(topic="t", payload="p", emqx_conn_id=w.hook.emqx_conn_id)
    w.call("notify", lambda: notifier.notify({}))


def notify_from_an_event_loop(w: World) -> None:
    notifier = EmqxPublishNotifier(topic="t", payload="p", emqx_conn_id=w.hook.emqx_conn_id)
    w.call("notify_from_an_event_loop", lambda: asyncio.run(notifier.async_notify({})))


def wait(w: World) -> None:
    connect_some(w)
    trigger = EmqxConditionTrigger(
        kind="clients_online", parameters={"clientids": IDS, "quorum": 2}, emqx_conn_id=w.hook.emqx_conn_id,
        poll_interval=0.1,
    )  # fmt: skip
    w.call("wait", lambda: asyncio.run(event_of(trigger)))


#: what raises no error by itself: it logs one, or ends in an event or a sentence
TELLS_OTHERWISE = {"notify", "notify_from_an_event_loop", "wait", "test_connection"}
CALLS = {**OPERATIONS, "notify": notify, "notify_from_an_event_loop": notify_from_an_event_loop, "wait": wait}


def watched(w: World, see: Callable[[Outcome], None]) -> None:
    """Look at each call with the requests that it alone has sent, after the call."""
    real = w.call

    def call(what: str, function: Callable[[], Any]) -> Outcome:
        w.proxy.requests.clear()
        outcome = real(what, function)
        # what this broker does not have, or what cannot be right, is refused without a word to it
        assert w.proxy.requests or isinstance(outcome.error, EmqxUnsupportedError | EmqxConfigError), what
        see(outcome)
        return outcome

    w.call = call  # type: ignore[method-assign]


def fill(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the broker something of everything that a call may look for before it writes."""
    monkeypatch.setenv("AIRFLOW_CONN_FILLS", json.dumps(w.fake.connection()))
    with EmqxHook("fills") as hook:
        for name in IDS:
            hook.create_user(name, "p")
            hook.set_acl_rules({"username": name}, [{"topic": "x", "permission": "allow"}])
        for topic in ("m/1", "m/2", "m/3"):
            hook.register_topic_metrics(topic)
        hook.ban("clientid", "dev-1", "2099-01-01T00:00:00Z")


def writing(version: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Find out which calls send more than GET where they may."""
    names = set()
    with world(version, driver, SEED, faults=list) as w:
        fill(w, monkeypatch)
        watched(w, lambda outcome: names.update({name} if methods(w) - {"GET"} else ()))
        for name in sorted(CALLS):
            for _ in range(TIMES):
                CALLS[name](w)
    return names


def methods(w: World) -> set[str]:
    return {request.method for request in w.proxy.requests}


def test_read_only_sends_nothing_but_get_whatever_is_called(
    version: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = set()

    def see(outcome: Outcome) -> None:
        assert methods(w) <= {"GET"}, w.told(outcome)
        if isinstance(outcome.error, EmqxConfigError) and "Read only" in str(outcome.error):
            refused.add(name)

    with world(version, driver, SEED, faults=list, read_only=True) as w:
        fill(w, monkeypatch)
        watched(w, see)
        for name in sorted(CALLS):
            for _ in range(TIMES):
                CALLS[name](w)
    wanted = writing(version, driver, monkeypatch)
    assert refused == wanted - TELLS_OTHERWISE
    assert {"create_user", "publish", "request", "notify", "notify_from_an_event_loop"} <= wanted


def test_no_redirect_is_followed_whatever_is_called(
    version: str, driver: str, elsewhere: FaultyProxy
) -> None:
    faults: list[Fault] = []
    redirected = set()

    def see(outcome: Outcome) -> None:
        assert elsewhere.requests == [], w.told(outcome)
        if any(request.fault != PASS for request in w.proxy.requests):
            redirected.add(name)
            assert not outcome.done or name in TELLS_OTHERWISE, w.told(outcome)

    with world(version, driver, SEED, faults=lambda: faults) as w:
        watched(w, see)
        for name in sorted(CALLS):
            for number, status in enumerate((301, 302, 303, 307, 308)):
                there = Fault(
                    "status", status=status, headers=(("Location", f"{elsewhere.url}/api/v5/nodes"),)
                )
                # from the first request of a call on, or from one in its middle
                faults[:] = [PASS] * (number % 3) + [there] * 200
                CALLS[name](w)
    assert len(redirected) > len(CALLS) / 2


def test_nothing_of_the_environment_is_used_whatever_is_called(
    version: str, driver: str, elsewhere: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login wrong password wrong\ndefault login wrong password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.setenv(name.lower(), elsewhere.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    sent = set()

    def see(outcome: Outcome) -> None:
        assert elsewhere.requests == [], w.told(outcome)
        for request in w.proxy.requests:
            sent.add(name)
            assert dict(request.headers)["Authorization"] == OURS, w.told(outcome)

    with world(version, driver, SEED, faults=list) as w:
        watched(w, see)
        for name in sorted(CALLS):
            for _ in range(TIMES):
                CALLS[name](w)
    assert len(sent) > len(CALLS) / 2


@pytest.fixture
def elsewhere() -> Iterator[FaultyProxy]:
    """Where nothing must arrive; it would be answered."""
    with FaultyProxy(0) as other:
        other.otherwise = lambda request: Fault("status", status=200, body=b'{"code": 0, "data": []}')
        yield other

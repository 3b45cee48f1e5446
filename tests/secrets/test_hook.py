from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api.base import Answer, Reply, Request
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange
from airflow_provider_emqx.transport.settings import Settings
from tests.faults.proxy import PASS, Fault, FaultyProxy, quick_faults
from tests.faults.world import AsyncHook
from tests.secrets import planted
from tests.secrets.planted import HASH, KEY, PASSWORD, PAYLOAD, SALT, SECRET, pair, shown, told


@pytest.fixture
def fake(version: str) -> Iterator[FakeEmqx]:
    with FakeEmqx(version, key=KEY, secret=SECRET) as broker:
        yield broker


@pytest.fixture(params=[EmqxHook, AsyncHook], ids=["requests", "aiohttp"])
def made(
    request: pytest.FixtureRequest, fake: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[EmqxHook, FaultyProxy]]:
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.0005)
    with FaultyProxy(fake.port) as proxy:
        extra = {"attempts": 3, "read_timeout": 2, "deadline": 5}
        conn = {**fake.connection(**extra), "host": proxy.url}
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(conn))
        hook = request.param()
        if isinstance(hook, AsyncHook):
            hook.open()
        yield hook, proxy
        hook.close()


def calls(hook: EmqxHook) -> list[Callable[[], Any]]:
    """Calls that carry every kind of secret."""
    path = "/auth_username" if hook.broker.generation == "v4" else "/authentication/x/users"
    user = {"user_id": "dev-1", "password": PASSWORD}
    rows = [user, {"user_id": "", "password": PASSWORD}, {"user_id": "dev-2", "password": PASSWORD}]
    hashed = {"user_id": "dev-3", "password_hash": HASH, "salt": SALT}
    message = {"topic": "t", "payload": PAYLOAD}
    return [
        lambda: hook.get_user("dev-1"),
        lambda: hook.create_user("dev-1", PASSWORD),
        lambda: hook.update_user("dev-1", PASSWORD),
        lambda: list(hook.provision_users(rows)),
        lambda: hook.run(hook.api.users.upsert_many([user, hashed])),
        lambda: hook.publish(message),
        lambda: hook.publish([message, message]),
        lambda: hook.publish({**message, "topic": "bad/#"}),
        lambda: hook.request("POST", path, json={"password": PASSWORD, "payload": PAYLOAD}),
        hook.test_connection,
    ]


def echoes() -> list[Fault]:
    """Answers of something that repeats to the client all that it sent."""
    bodies = [
        b'{"code":"BAD_REQUEST","message":"bad value in MARK"}',
        b'{"code":"BAD_REQUEST","message":{"kind":"validation_error","reason":"MARK","value":"MARK"}}',
        b'{"code":"INTERNAL_ERROR","message":"{badarg,[<<MARK>>]}"}',
        b'{"code":108,"message":"MARK"}',
        b'{"message":"MARK"}',
        b"<html>MARK</html>",
        b"MARK",
    ]
    return [
        Fault("echo", status=status, body=body)
        for body in bodies
        for status in (200, 400, 401, 403, 404, 500, 503)
    ]


def test_no_secret_shows_in_logs_or_errors_whatever_goes_wrong(
    made: tuple[EmqxHook, FaultyProxy], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    hook, proxy = made
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    todo = calls(hook)
    count = 0
    # each fault meets some of the calls, each call some faults of each kind
    for number, fault in enumerate([*echoes(), *quick_faults()]):
        for call in todo[number % 3 :: 3]:
            proxy.order(fault, *[fault] * (count % 3), PASS)
            count += 1
            try:
                # what the broker gives as a result is the caller's
                result = call()
                said = "" if fault.status == 200 else str(result)
            except errors.EmqxError as error:
                said = told(error)
            assert shown(said) == [], (str(fault), said)
    log = caplog.text + str([(record.args, record.__dict__.get("exc_text")) for record in caplog.records])
    assert "Attempt 1 of 3 failed" in log
    assert shown(log) == []
    assert shown("".join(capfd.readouterr())) == []


@pytest.mark.parametrize(
    "form",
    [
        "MARK",
        '{"code":108,"message":"wrong MARK"}',
        '{"code":"BAD_REQUEST","message":"wrong MARK"}',
        '{"code":"MARK","message":"wrong"}',
        '{"message":["wrong",{"key":"MARK"}]}',
        '{"code":"BAD_REQUEST","message":"' + "x" * 280 + ' MARK"}',
    ],
)
def test_the_words_of_the_broker_repeat_no_secret_of_the_connection(
    made: tuple[EmqxHook, FaultyProxy], form: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the request has no secret of its own, and where a long message is cut off within one."""
    hook, proxy = made
    caplog.set_level(logging.DEBUG)
    assert hook.get_user("dev-1") is None
    secrets = (KEY, SECRET, pair())
    # HTTP 200 is a failure of EMQX 4 if its code is a number other than 0; otherwise the content is the caller's
    statuses = [200] if hook.broker.generation == "v4" and ":108," in form else []
    for status in (400, 401, 403, 404, 500, 503, *statuses):
        for secret in secrets:
            for text in (secret, f"key {secret} is unknown"):
                body = form.replace("MARK", json.dumps(text, ensure_ascii=False)[1:-1])
                fault = Fault("status", status=status, body=body.encode())
                proxy.otherwise = lambda request, fault=fault: fault  # type: ignore[misc]
                with pytest.raises(errors.EmqxError) as caught:
                    hook.request("PUT", "/nothing")
                assert [part for part in secrets if part[:10] in told(caught.value)] == [], (status, body)
    assert [part for part in secrets if part[:10] in caplog.text] == []


def test_no_secret_shows_where_nothing_answers(
    made: tuple[EmqxHook, FaultyProxy], caplog: pytest.LogCaptureFixture
) -> None:
    hook, proxy = made
    caplog.set_level(logging.DEBUG)
    todo = calls(hook)
    proxy.stop()
    for call in todo:
        try:
            result = call()
        except errors.EmqxError as error:
            result = told(error)
        assert shown(str(result)) == []
    assert shown(caplog.text) == []


@pytest.mark.parametrize("version", ["5.8.9"])
def test_no_object_shows_a_secret_in_its_repr(made: tuple[EmqxHook, FaultyProxy]) -> None:
    hook, _ = made
    request = Request("POST", "/x", json={"password": PASSWORD})
    ready = Request("POST", "/x", body=PASSWORD.encode())
    objects = [
        hook, hook.settings, hook.get_conn(), hook.broker, request, ready, request.__str__(),
        exchange.Exchange(request, hook.settings), exchange.RateLimit(None),
        Reply(200, {"payload": PAYLOAD}), Answer(200, "text/plain", PASSWORD.encode()),
        hook.api.users.create("dev-1", PASSWORD), hook.publish, errors.EmqxError("x"),
    ]  # fmt: skip
    for one in objects:
        assert shown(f"{one!r} {one!s}") == [], type(one)


def test_a_bad_connection_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_emqx.hooks.connection import read_connection

    caplog.set_level(logging.DEBUG)
    good = {"conn_type": "emqx", "host": "https://broker.example.com", "login": KEY, "password": SECRET}
    bad: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"host": f"https://{KEY}:{planted.quote(SECRET, safe='')}@broker.example.com"}, {}),
        ({"host": "http://broker.example.com"}, {}),
        ({"host": "mqtt://broker.example.com"}, {}),
        ({"login": f"{KEY}:{SECRET}"}, {}),
        ({"password": None}, {}),
        ({}, {"proxy": f"socks://user:{planted.PROXY_PASSWORD}@proxy"}),
        ({}, {"attempts": "many"}),
        ({}, {"api_vresion": SECRET}),
        ({}, {"pasword": SECRET}),
    ]
    for fields, extras in bad:
        conn = Connection(conn_id="emqx_default", **{**good, **fields})
        said = ""
        try:
            read_connection(conn, extras)
        except errors.EmqxConfigError as error:
            said = told(error)
        assert shown(said) == [], extras
    assert shown(caplog.text) == []


@pytest.mark.parametrize("driver", ["requests", "aiohttp"])
def test_the_password_of_a_proxy_shows_nowhere(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    from tests.transport.conftest import AsyncDriver, SyncDriver, ask

    caplog.set_level(logging.DEBUG)
    proxy = f"http://user:{planted.PROXY_PASSWORD}@127.0.0.1:1"
    for origin in ("http://broker.example.com", "https://broker.example.com"):
        settings = Settings(origin, "/api/v5", key=KEY, secret=SECRET, proxy=proxy, attempts=2)
        client = (SyncDriver if driver == "requests" else AsyncDriver)(settings)
        with pytest.raises(errors.EmqxConnectionError, match="proxy") as caught:
            client.run(ask("GET", "/x"))
        client.close()
        assert shown(told(caught.value)) == []
        assert shown(repr(settings)) == []
    assert shown(caplog.text) == []


def test_airflow_is_told_to_mask_what_is_made_of_the_secret(
    fake: FakeEmqx, monkeypatch: pytest.MonkeyPatch, mocker: Any
) -> None:
    masked = mocker.patch("airflow.providers.common.compat.sdk.mask_secret", create=True)
    conn = fake.connection(proxy=f"http://user:{planted.PROXY_PASSWORD}@proxy.example.com:3128")
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(conn))
    assert EmqxHook().settings.key == KEY
    told_to_mask = [call.args[0] for call in masked.call_args_list]
    assert pair() in told_to_mask
    assert planted.PROXY_PASSWORD in told_to_mask


def test_no_local_variable_of_a_failed_call_shows_key_or_secret(made: tuple[EmqxHook, FaultyProxy]) -> None:
    """Error trackers, and some tracebacks, write down what the functions on the way had in hand."""
    hook, proxy = made
    among = {form for secret in (KEY, SECRET, pair()) for form in planted.forms(secret)}
    unwritable = [
        lambda: hook.publish({"topic": "t", "payload": "\ud800"}),
        lambda: hook.request("POST", "/publish", json={"x": {1, 2}}),
        lambda: hook.request("GET", "/clients", {"x": "y" * 9_000}),
    ]
    looked_at = 0
    for number, fault in enumerate(quick_faults()):
        for call in [*calls(hook)[number % 3 :: 3], *unwritable]:
            proxy.order(fault, fault, fault)
            try:
                call()
            except errors.EmqxError as error:
                todo: list[BaseException | None] = [error]
                seen: set[int] = set()
                while todo:
                    one = todo.pop()
                    if one is None or id(one) in seen:
                        continue
                    seen.add(id(one))
                    todo += [one.__cause__, one.__context__]
                    step = one.__traceback__
                    while step is not None:
                        if "/tests/" not in step.tb_frame.f_code.co_filename:
                            looked_at += 1
                            words = repr(step.tb_frame.f_locals)
                            assert shown(words, among) == [], (step.tb_frame.f_code, str(fault))
                        step = step.tb_next
    assert looked_at > 100

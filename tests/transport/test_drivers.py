from __future__ import annotations

import base64
import pickle
import time
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.testing import FakeEmqx
from tests.transport.conftest import ask

STRANGE = "dev/a b%#?ü"


@pytest.fixture
def fake(version: str) -> Any:
    with FakeEmqx(version=version) as broker:
        yield broker


def connected(driver: Any, fake: Any, **settings: Any) -> Any:
    """A driver that knows its broker already, so that a test sees its own requests only."""
    made = driver(fake.url, **settings)
    made.identify()
    fake.requests.clear()
    return made


def test_the_broker_is_identified_at_an_address_that_does_not_tell(
    driver: Any, fake: Any, version: str
) -> None:
    broker = driver(fake.url).identify()
    assert (broker.generation, broker.version_text) == ("v4" if version.startswith("4") else "v5", version)


def test_a_client_id_goes_byte_for_byte(driver: Any, fake: Any) -> None:
    fake.connect(STRANGE)
    made = connected(driver, fake)
    reply = made.run(ask("GET", "/clients/dev%2Fa%20b%25%23%3F%C3%BC"))
    rows = reply.data if isinstance(reply.data, list) else [reply.data]
    assert [row["clientid"] for row in rows] == [STRANGE]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "reset_after"},
        {"kind": "truncated"},
        {"kind": "garbage"},
        {"kind": "wrong_length"},
        {"kind": "status", "status": 502, "body": b"<html>bad gateway</html>"},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 504},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_a_repeatable_request_survives_a_fault(
    driver: Any, fake: Any, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = connected(driver, fake)
    fake.order_fault(**fault, times=2)
    assert made.run(ask("GET", "/clients")).data == []
    assert len(fake.requests) == 3
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage()[:17] for record in warnings] == ["Attempt 1 of 4 fa", "Attempt 2 of 4 fa"]
    assert "GET /clients" in warnings[0].getMessage()


@pytest.mark.parametrize("status", [502, 504])
def test_a_lost_publish_is_not_repeated_and_its_outcome_said_to_be_unknown(
    driver: Any, fake: Any, status: int
) -> None:
    made = connected(driver, fake)
    fake.order_fault("status", status=status)
    with pytest.raises(errors.EmqxOutcomeUnknownError, match="POST /publish"):
        made.run(ask("POST", "/publish", json={"topic": "t", "payload": "p"}))
    assert len(fake.requests) == 1


@pytest.mark.parametrize("kind", ["reset", "reset_after", "truncated", "garbage"])
def test_a_publish_whose_connection_breaks_is_not_repeated(driver: Any, fake: Any, kind: str) -> None:
    made = connected(driver, fake)
    fake.order_fault(kind)
    with pytest.raises(errors.EmqxOutcomeUnknownError):
        made.run(ask("POST", "/publish", json={"topic": "t", "payload": "p"}))
    assert len(fake.requests) == 1


def test_a_publish_refused_for_now_is_repeated_only_by_leave(driver: Any, fake: Any) -> None:
    for retry_unsafe, requests in ((False, 1), (True, 4)):
        made = connected(driver, fake, retry_unsafe=retry_unsafe)
        fake.order_fault("status", status=503, times=4)
        with pytest.raises(errors.EmqxServerError):
            made.run(ask("POST", "/publish", json={"topic": "t", "payload": "p"}))
        assert len(fake.requests) == requests
        fake.clear_faults()


def test_a_publish_never_rode_on_a_refused_connection(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    fake.stop()
    with pytest.raises(errors.EmqxConnectionError) as caught:
        made.run(ask("POST", "/publish", json={"topic": "t", "payload": "p"}))
    assert not isinstance(caught.value, errors.EmqxOutcomeUnknownError)
    assert caught.value.attempts == 4
    assert "is the broker up" in str(caught.value)


def test_a_crashed_handler_gets_one_more_chance(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    fake.order_fault("status", status=500, times=9)
    with pytest.raises(errors.EmqxServerError):
        made.run(ask("GET", "/clients"))
    assert len(fake.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 415])
def test_a_refusal_is_final(driver: Any, fake: Any, status: int) -> None:
    made = connected(driver, fake)
    fake.order_fault("status", status=status, times=9)
    with pytest.raises(errors.EmqxError):
        made.run(ask("GET", "/clients"))
    assert len(fake.requests) == 1


def test_a_retry_after_beyond_the_deadline_ends_it_at_once(driver: Any, fake: Any) -> None:
    made = connected(driver, fake, deadline=60.0)
    fake.order_fault("status", status=429, headers={"Retry-After": "3600"}, times=9)
    with pytest.raises(errors.EmqxRateLimitError) as caught:
        made.run(ask("GET", "/clients"))
    assert caught.value.retry_after == 3600
    assert len(fake.requests) == 1


def test_a_stalled_answer_times_out_and_the_final_error_tells_attempts(driver: Any, fake: Any) -> None:
    made = connected(driver, fake, read_timeout=0.3, attempts=2)
    fake.order_fault("stall", seconds=1.0, times=9)
    with pytest.raises(errors.EmqxTimeoutError, match="gave up after 2 attempts"):
        made.run(ask("GET", "/clients"))


def test_the_operation_learns_that_an_earlier_attempt_may_have_done_it(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    fake.order_fault("reset_after")
    assert made.run(ask("GET", "/clients")).maybe_applied
    assert not made.run(ask("GET", "/clients")).maybe_applied


def test_an_error_reaches_the_operation_at_its_yield(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    fake.order_fault("status", status=403)

    def operation() -> Any:
        try:
            yield from ask("GET", "/clients")
        except errors.EmqxForbiddenError:
            reply = yield from ask("GET", "/clients", {"limit": 1, "_limit": 1})
            return len(reply.data)

    assert made.run(operation()) == 0


def test_redirects_are_not_followed(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    fake.order_fault("redirect", headers={"Location": "http://elsewhere.example.com/?token=planted"})
    with pytest.raises(errors.EmqxConfigError, match=r"redirect to http://elsewhere\.example\.com") as caught:
        made.run(ask("GET", "/clients"))
    assert "planted" not in str(caught.value)


def test_read_only_sends_nothing_but_get(driver: Any, fake: Any) -> None:
    made = connected(driver, fake, read_only=True)
    made.run(ask("GET", "/clients"))
    fake.requests.clear()
    for method in ("POST", "PUT", "DELETE"):
        with pytest.raises(errors.EmqxConfigError, match="Read only"):
            made.run(ask(method, "/clients/x"))
    assert fake.requests == []


def test_a_request_line_longer_than_the_brokers_is_not_sent(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    with pytest.raises(errors.EmqxConfigError, match="request line"):
        made.run(ask("GET", "/clients", {"clientid": ["x" * 100] * 100}))
    assert fake.requests == []


def test_the_environments_proxies_and_netrc_are_not_used(
    driver: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login wrong password wrong\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert connected(driver, fake).run(ask("GET", "/clients")).data == []


def test_no_call_fails_over_used_up_connections(driver: Any, version: str) -> None:
    with FakeEmqx(version=version, requests_per_connection=3) as fake:
        made = connected(driver, fake)
        for _ in range(20):
            made.run(ask("GET", "/clients"))
        assert len(fake.requests) == 20


def test_a_listing_yields_each_row_once_page_by_page(driver: Any, fake: Any) -> None:
    for number in range(25):
        fake.connect(f"dev-{number}")
    made = connected(driver, fake)
    rows = made.rows(api_of(made.identify()).clients.list(limit=10))
    assert sorted(row["clientid"] for row in rows) == sorted(f"dev-{number}" for number in range(25))
    assert len(fake.requests) == 3


def test_errors_pickle_with_all_they_know(driver: Any, fake: Any) -> None:
    made = connected(driver, fake, attempts=2)
    fake.order_fault("status", status=429, times=2, headers={"Retry-After": "0"})
    with pytest.raises(errors.EmqxRateLimitError) as caught:
        made.run(ask("GET", "/clients"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is errors.EmqxRateLimitError
    assert str(copy) == str(caught.value)
    assert (copy.status, copy.retry_after, copy.attempts) == (429, 0.0, 2)


def test_a_host_name_that_does_not_resolve_is_said_to_be_so(driver: Any) -> None:
    made = driver("http://no-such-host.invalid", generation="v5", base="/api/v5", attempts=1)
    with pytest.raises(errors.EmqxConnectionError, match="DNS"):
        made.run(ask("GET", "/nodes"))


def test_a_port_that_does_not_speak_tls_is_said_to_be_so(driver: Any, fake: Any) -> None:
    made = driver(fake.url.replace("http:", "https:"), generation="v5", base="/api/v5")
    with pytest.raises(errors.EmqxConnectionError) as caught:
        made.run(ask("GET", "/nodes"))
    assert "TLS" in str(caught.value)
    assert caught.value.attempts == 1


def test_no_call_fails_over_connections_that_the_broker_closed_while_they_were_idle(
    driver: Any, version: str
) -> None:
    with FakeEmqx(version=version, idle_timeout=0.2) as fake:
        made = connected(driver, fake)
        users = (
            "/authentication/password_based%3Abuilt_in_database/users"
            if version[0] == "5"
            else "/auth_username"
        )
        for number in range(3):
            made.run(ask("GET", "/clients"))
            made.run(
                ask("POST", users, json={"user_id": f"u{number}", "username": f"u{number}", "password": "pw"})
            )
            # longer than the broker keeps a connection that is idle
            time.sleep(0.3)
        assert len(fake.requests) == 6


@pytest.mark.parametrize(
    ("path", "body", "repeatable"),
    [
        ("/publish/bulk", [{"topic": "t", "payload": "x"}], False),
        ("/mqtt/publish_batch", [{"topic": "t", "payload": "x"}], False),
        ("/authentication/x/import_users", [{"user_id": "x" * 99_000}], True),
        ("/publish", {"topic": "t", "payload": "x" * 99_000}, False),
    ],
)
def test_a_bulk_post_or_a_large_body_goes_over_a_fresh_connection(
    path: str, body: Any, repeatable: bool, driver: Any, fake: Any
) -> None:
    """A broker left such bodies unread for 60 s on connections that had been used before."""
    made = connected(driver, fake)
    made.run(ask("POST", "/clients/dev-1/x", accept=(404, 405, 400), raw=True))
    for _ in range(3):
        before = fake.connection_count
        made.run(ask("POST", f"/nowhere{path}", json=body, repeatable=repeatable, raw=True))
        assert fake.connection_count == before + 1
    before = fake.connection_count
    for _ in range(3):
        made.run(ask("POST", "/nowhere/publish", json={"topic": "t"}, raw=True))
    assert fake.connection_count <= before + 1


def test_calls_in_a_row_share_one_connection(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    before = fake.connection_count
    for _ in range(5):
        made.run(ask("GET", "/clients"))
    assert fake.connection_count <= before + 1


def test_threads_on_one_client_do_not_mix_their_deadlines() -> None:
    """Provisioning writes in a thread of its own while the caller may ask for something else."""
    from threading import Thread

    from airflow_provider_emqx.transport.sockets import Watch

    watch = Watch()
    watch.begin(5.0, 60.0)
    watch.sent = True
    other = Thread(target=watch.begin, args=(0.001, 0.0))
    other.start()
    other.join()
    assert watch.sent
    assert watch.timeout == 5.0


def test_the_wait_of_the_rate_limit_leaves_a_request_its_whole_deadline(driver: Any, fake: Any) -> None:
    made = connected(driver, fake, rate_limit=1, deadline=0.8)
    fake.order_fault("stall", seconds=0.1, times=9)
    for _ in range(2):
        assert made.run(ask("GET", "/clients")).data == []


def test_headers_that_break_off_are_no_answer(driver: Any) -> None:
    from socket import create_server
    from threading import Thread

    listener = create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\nServer: emq")
        connection.close()

    thread = Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    made = driver(f"http://127.0.0.1:{port}", generation="v5", base="/api/v5", attempts=1)
    with pytest.raises(errors.EmqxOutcomeUnknownError):
        made.run(ask("POST", "/publish", json={"topic": "t", "payload": "p"}))
    thread.join()
    listener.close()


def test_what_must_not_be_repeated_goes_over_a_fresher_connection(driver: Any, fake: Any) -> None:
    made = connected(driver, fake)
    client = made.client
    if hasattr(client, "_sessions"):
        made.run(ask("GET", "/clients"))
        with pytest.raises(errors.EmqxError):
            made.run(ask("POST", "/clients"))
        idle = {one.connector._keepalive_timeout for one in client._sessions.values()}
        assert idle == {4.0, 1.0}
        return
    for method, idle_for, opened in (("GET", 2, 0), ("POST", 2, 1), ("GET", 5, 1), ("POST", 0.5, 0)):
        made.run(ask("GET", "/clients"))
        before = fake.connection_count
        client._last_used -= idle_for
        try:
            made.run(ask(method, "/clients"))
        except errors.EmqxError:
            assert method == "POST"
        assert fake.connection_count - before == opened, (method, idle_for)


def test_a_listing_that_does_not_advance_ends_as_an_error(driver: Any, fake: Any) -> None:
    from airflow_provider_emqx.api.base import Page

    def page(number: int) -> Any:
        yield from ask("GET", "/clients")
        return Page([{"clientid": "dev-1"}], (lambda: page(number + 1)) if number < 50 else None, "clientid")

    made = connected(driver, fake)
    with pytest.raises(errors.EmqxError, match="does not advance"):
        made.rows(page(0))
    assert len(fake.requests) == 4


@pytest.mark.parametrize("body", ['{{"code": {code}, "message": "no {secret} here"}}', "{secret}"])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500, 503])
@pytest.mark.parametrize("encoded", [False, True])
def test_what_the_broker_says_never_shows_the_connections_secret(
    driver: Any, fake: Any, version: str, body: str, status: int, encoded: bool
) -> None:
    secret = "key:secret-of-the-connection"
    shown = base64.b64encode(secret.encode()).decode() if encoded else secret.partition(":")[2]
    generation = "v4" if version.startswith("4") else "v5"
    code = "102" if generation == "v4" else '"BAD_REQUEST"'
    text = body.format(code=code, secret=shown)
    json_type = {"Content-Type": "application/json"}
    fake.order_fault("status", status=status, body=text, times=9, headers=json_type)
    made = driver(
        fake.url,
        generation=generation,
        base=f"/api/{generation}",
        version=(5, 8, 9),
        secret=secret.partition(":")[2],
        attempts=1,
    )
    told = ""
    try:
        made.run(ask("GET", "/clients"))
    except errors.EmqxError as error:
        told = f"{error} {error!r} {error.args} {error.__context__} {error.__cause__}"
    assert shown not in told

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange
from tests.faults.certificates import Authority
from tests.faults.proxy import PASS, Fault, FaultyProxy, quick_faults, retry_after_forms
from tests.operators.run import TI, execute
from tests.transport.conftest import ask


@pytest.fixture(params=["5.8.9"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fake(version: str) -> Iterator[FakeEmqx]:
    with FakeEmqx(version=version) as broker:
        yield broker


@pytest.fixture
def proxy(fake: FakeEmqx) -> Iterator[FaultyProxy]:
    with FaultyProxy(fake.port) as faulty:
        yield faulty


def connected(driver: Any, proxy: FaultyProxy, version: str, **settings: Any) -> Any:
    """A driver that knows its broker already."""
    generation = "v4" if version.startswith("4") else "v5"
    parsed = tuple(int(part) for part in version.split("."))
    return driver(proxy.url, generation=generation, base=f"/api/{generation}", version=parsed, **settings)


BOTH = pytest.mark.parametrize("version", ["4.4.19", "5.8.9"], indirect=True)

#: faults after which an answer cannot be had, but the same request may well succeed
TRANSIENT = [
    fault
    for fault in quick_faults()
    if fault.name in ("reset", "close", "truncated", "too_long", "too_short", "broken_chunks", "no_gzip", "garbage")
    or fault.status in (408, 425, 429, 500, 502, 503, 504, 520, 524)
]  # fmt: skip
HARMLESS = [
    Fault(name, True) for name in ("no_length", "chunked", "gzip", "interim", "doubled", "close_unannounced")
]
FINAL = [fault for fault in quick_faults() if fault.status in (301, 302, 307, 400, 401, 403, 404, 413, 431)]


@BOTH
def test_a_repeatable_request_survives_every_transient_fault(
    driver: Any, proxy: FaultyProxy, fake: FakeEmqx, version: str
) -> None:
    fake.connect("dev-1")
    made = connected(driver, proxy, version)
    for fault in TRANSIENT:
        proxy.requests.clear()
        proxy.order(fault)
        reply = made.run(ask("GET", "/clients/dev-1"))
        row = reply.data[0] if isinstance(reply.data, list) else reply.data
        assert row["clientid"] == "dev-1", str(fault)
        assert len(proxy.requests) == 2, str(fault)


@BOTH
def test_answers_that_are_only_unusual_are_read(
    driver: Any, proxy: FaultyProxy, fake: FakeEmqx, version: str
) -> None:
    fake.connect("dev-1")
    fake.connect("dev-2")
    made = connected(driver, proxy, version)
    for fault in HARMLESS:
        proxy.requests.clear()
        proxy.order(fault)
        for clientid in ("dev-1", "dev-2", "dev-1"):
            # the second half of a doubled answer is not taken for the next one
            reply = made.run(ask("GET", f"/clients/{clientid}"))
            row = reply.data[0] if isinstance(reply.data, list) else reply.data
            assert row["clientid"] == clientid, str(fault)
        assert len(proxy.requests) == 3, str(fault)


@BOTH
def test_a_final_fault_is_one_typed_error_and_not_repeated(
    driver: Any, proxy: FaultyProxy, version: str
) -> None:
    made = connected(driver, proxy, version)
    for fault in FINAL:
        proxy.requests.clear()
        proxy.order(fault)
        with pytest.raises(errors.EmqxError) as caught:
            made.run(ask("GET", "/clients"))
        assert len(proxy.requests) == 1, str(fault)
        assert "planted" not in str(caught.value), str(fault)
        assert not isinstance(caught.value, errors.EmqxConnectionError), str(fault)


@BOTH
def test_a_publish_reaches_the_broker_once_whatever_happens(
    driver: Any, proxy: FaultyProxy, fake: FakeEmqx, version: str
) -> None:
    fake.connect("listener")
    fake.subscribe("listener", "t/#")
    made = connected(driver, proxy, version)
    broker = made.identify()
    messages = api_of(broker).messages
    for number, fault in enumerate(quick_faults()):
        message = {"topic": "t/1", "payload": str(number)}
        for operation in (messages.publish(message), messages.publish_many([message])):
            before = len(fake.received("listener"))
            proxy.requests.clear()
            proxy.order(fault)
            error: errors.EmqxError | None = None
            result: Any = None
            try:
                result = made.run(operation)
            except errors.EmqxError as raised:
                error = raised
            arrived = len(fake.received("listener")) - before
            if not proxy.requests:
                # sent into a connection that had just been closed: aiohttp has not seen its end yet
                assert isinstance(error, errors.EmqxOutcomeUnknownError), (str(fault), error)
                continue
            assert arrived == (1 if fault.forward or fault.status == 429 else 0), str(fault)
            if not arrived:
                assert error is not None or "failed" in str(result), (str(fault), result)
            elif error is not None:
                assert isinstance(error, errors.EmqxOutcomeUnknownError), (str(fault), error)
            else:
                assert "delivered" in str(result) or "accepted" in str(result), (str(fault), result)


def test_of_every_retry_after_the_sense_is_taken(driver: Any, proxy: FaultyProxy, version: str) -> None:
    made = connected(driver, proxy, version)
    for status in (429, 503):
        for wait in retry_after_forms():
            proxy.requests.clear()
            proxy.order(Fault("status", status=status, headers=(("Retry-After", wait),)))
            made.run(ask("GET", "/clients"))
            assert len(proxy.requests) == 2, wait
        proxy.requests.clear()
        proxy.order(Fault("status", status=status, headers=(("Retry-After", "86400"),)))
        with pytest.raises(errors.EmqxApiError) as caught:
            made.run(ask("GET", "/clients"))
        assert caught.value.status == status
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("kind", ["trickle", "trickle_body"])
def test_an_answer_that_trickles_in_ends_with_the_deadline(
    driver: Any, proxy: FaultyProxy, version: str, kind: str
) -> None:
    made = connected(driver, proxy, version, deadline=0.5)
    proxy.order(*[Fault(kind, True, seconds=0.1)] * 9)
    started = time.monotonic()
    with pytest.raises(errors.EmqxTimeoutError) as caught:
        made.run(ask("GET", "/clients"))
    # to its end the answer takes 30 s
    assert time.monotonic() - started < 15
    assert caught.value.sent


def test_a_slow_answer_within_the_deadline_is_an_answer(
    driver: Any, proxy: FaultyProxy, version: str
) -> None:
    made = connected(driver, proxy, version, read_timeout=5.0)
    proxy.order(Fault("trickle", True, seconds=0.001))
    assert made.run(ask("GET", "/clients")).data == []
    assert len(proxy.requests) == 1


def test_a_body_that_the_network_takes_slowly_is_not_cut_at_the_connect_timeout(
    driver: Any, version: str
) -> None:
    """A bulk write over a thin line: its upload takes longer than connecting may."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    got = []

    def serve() -> None:
        connection, _ = listener.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        # long enough for the client to fill every buffer between the two
        time.sleep(0.5)
        total = len(head.partition(b"\r\n\r\n")[2])
        while total < 7_000_000:
            total += len(connection.recv(1 << 20))
        got.append(total)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    made = driver(
        f"http://127.0.0.1:{listener.getsockname()[1]}",
        generation="v5", base="/api/v5", connect_timeout=0.2, attempts=1,
    )  # fmt: skip
    assert made.run(ask("PUT", "/x", body=b"x" * 7_000_000)).status == 204
    thread.join(10)
    listener.close()
    assert got == [7_000_000]


@pytest.mark.parametrize("announce", [True, False])
def test_connections_that_end_every_few_requests_cost_nothing(
    driver: Any, fake: FakeEmqx, version: str, announce: bool
) -> None:
    with FaultyProxy(fake.port, per_connection=3, announce=announce) as proxy:
        made = connected(driver, proxy, version)
        for _ in range(20):
            made.run(ask("GET", "/clients"))
        made.close()
        assert proxy.wait_closed() == 0


@pytest.mark.parametrize("at_accept", ["reset", "close"])
def test_a_connection_cut_before_anything_was_sent_is_repeated_where_it_can_be_known(
    driver: Any, proxy: FaultyProxy, fake: FakeEmqx, version: str, at_accept: str
) -> None:
    cuts = iter([at_accept, at_accept])
    proxy.at_accept = lambda: next(cuts, None)
    made = connected(driver, proxy, version)
    assert made.run(ask("GET", "/clients")).data == []


def test_a_broker_that_is_away_for_a_while_is_waited_for(
    driver: Any, proxy: FaultyProxy, fake: FakeEmqx, version: str
) -> None:
    made = connected(driver, proxy, version, attempts=100)
    proxy.stop()
    # several attempts, which nobody sees
    back = threading.Timer(0.5, proxy.start)
    back.start()
    assert made.run(ask("GET", "/clients")).data == []
    back.join()


@pytest.fixture
def cut_of_a_minute(
    proxy: FaultyProxy, fake: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., threading.Timer]:
    """
    Take the broker away in the middle of the third write; the answer to it is lost.

    Time goes a hundred times as fast: the minute, and the waits between attempts.
    """
    monkeypatch.setattr(exchange, "_FIRST_WAIT", exchange._FIRST_WAIT / 100)
    monkeypatch.setattr(exchange, "_LONGEST_WAIT", exchange._LONGEST_WAIT / 100)

    def prepare(attempts: int) -> threading.Timer:
        connection = {**fake.connection(attempts=attempts), "host": proxy.url}
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
        # the minute
        back = threading.Timer(0.6, proxy.start)
        writes = count(1)

        def cut(request: Any) -> Fault:
            if request.method == "POST" and next(writes) == 3:
                proxy.stop()
                back.start()
            return PASS

        proxy.otherwise = cut
        return back

    return prepare


IMPORTED = [{"user_id": f"dev-{row}", "password": f"p{row}"} for row in range(5_000)]


@BOTH
def test_a_long_cut_during_an_import_ends_with_every_user_written_once(
    proxy: FaultyProxy, fake: FakeEmqx, version: str, caplog: pytest.LogCaptureFixture,
    cut_of_a_minute: Callable[..., threading.Timer],
) -> None:  # fmt: skip
    back = cut_of_a_minute(attempts=20)
    summary = execute(EmqxProvisionUsersOperator, source=IMPORTED)
    back.join()
    assert (summary["read"], summary["written"], summary["rejected"]) == (5_000, 5_000, 0)
    assert {user_id: user.password for user_id, user in fake.users.items()} == {
        row["user_id"]: row["password"] for row in IMPORTED
    }
    # while it was away, several attempts found nobody
    assert caplog.text.count("connection refused") > 1
    # a row was sent once, but for those of the chunk whose answer was lost
    posts = [request for request in proxy.requests if request.method == "POST"]
    twice = {
        row["user_id"] for row in IMPORTED
        if sum(f'"{row["user_id"]}"'.encode() in post.body for post in posts) > 1
    }  # fmt: skip
    assert 0 < len(twice) <= summary["chunks"]["most"] < 5_000


@BOTH
def test_a_cut_longer_than_all_attempts_is_made_good_by_the_next_try_of_the_task(
    proxy: FaultyProxy, fake: FakeEmqx, version: str, cut_of_a_minute: Callable[..., threading.Timer]
) -> None:
    back, ti = cut_of_a_minute(attempts=4), TI()
    with pytest.raises(errors.EmqxConnectionError, match=r"gave up after 4 attempts"):
        execute(EmqxProvisionUsersOperator, ti, source=IMPORTED)
    told = ti.pushed["return_value"]
    # the chunk whose answer was lost is done, and not told to be
    assert 0 < told["written"] < len(fake.users) < 5_000
    assert set(fake.users) >= {row["user_id"] for row in IMPORTED[: told["written"]]}
    back.join()
    summary = execute(EmqxProvisionUsersOperator, source=IMPORTED)
    assert (summary["read"], summary["written"], summary["rejected"]) == (5_000, 5_000, 0)
    assert len(fake.users) == 5_000


def test_a_name_that_resolves_again_is_reached(
    driver: Any, proxy: FaultyProxy, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("broker.test", b"broker.test"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    made = driver(f"http://broker.test:{proxy.port}", generation="v5", base="/api/v5", version=(5, 8, 9))
    assert made.run(ask("POST", "/publish", json={"topic": "t", "payload": "p"})).status == 202
    assert len(asked) == 3
    assert len(proxy.requests) == 1


# ---------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(
    ("certificate", "trusted", "why"),
    [
        ({"expired": True}, True, "expired"),
        ({"host": "elsewhere.example.com"}, True, "not valid for|mismatch"),
        ({}, False, "unable to get (local )?issuer|self-signed"),
    ],
    ids=["expired", "wrong host", "unknown authority"],
)
def test_a_certificate_that_does_not_verify_is_refused_before_anything_is_sent(
    driver: Any, fake: FakeEmqx, authority: Authority, version: str,
    certificate: dict[str, Any], trusted: bool, why: str,
) -> None:  # fmt: skip
    with FaultyProxy(fake.port, tls=authority.server(**certificate)) as proxy:
        made = connected(driver, proxy, version, verify=str(authority.file) if trusted else True)
        with pytest.raises(errors.EmqxConnectionError, match=why) as caught:
            made.run(ask("GET", "/clients"))
        assert caught.value.attempts == 1
        assert not caught.value.sent
        assert "Verify TLS" in str(caught.value)
        assert proxy.requests == []
        made.close()
        assert proxy.wait_closed() == 0


@pytest.mark.parametrize("verify", ["ca", False])
def test_a_certificate_is_trusted_through_its_authority_or_unverified(
    driver: Any, fake: FakeEmqx, authority: Authority, version: str, verify: Any
) -> None:
    with FaultyProxy(fake.port, tls=authority.server()) as proxy:
        made = connected(driver, proxy, version, verify=str(authority.file) if verify == "ca" else verify)
        assert made.run(ask("GET", "/clients")).data == []
        proxy.order(
            Fault("reset", True), Fault("trickle", True, seconds=0.001), Fault("truncated", True, seconds=0.5)
        )
        for _ in range(3):
            assert made.run(ask("GET", "/clients")).data == []


@pytest.mark.parametrize("at_accept", ["reset", "close", "stall"])
def test_a_handshake_that_is_interrupted_is_repeated_even_for_a_publish(
    driver: Any, fake: FakeEmqx, authority: Authority, version: str, at_accept: str
) -> None:
    cuts = iter([at_accept])
    with FaultyProxy(fake.port, tls=authority.server()) as proxy:
        proxy.at_accept = lambda: next(cuts, None)
        made = connected(driver, proxy, version, verify=str(authority.file), connect_timeout=0.5)
        assert made.run(ask("POST", "/publish", json={"topic": "t", "payload": "p"})).status == 202
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("content", [b"", b"no certificate\n", b"\xff\x00", None])
def test_a_ca_file_that_is_none_is_named(driver: Any, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    made = driver("https://127.0.0.1:1", generation="v5", base="/api/v5", verify=str(file))
    with pytest.raises(errors.EmqxConfigError, match=r"ca\.pem"):
        made.run(ask("GET", "/clients"))

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx

STRANGE = "a/b %#?ü"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point the connection ``emqx_default`` somewhere."""

    def point(connection: dict[str, Any], **changed: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps({**connection, **changed}))

    return point


def test_the_constructor_reads_no_connection() -> None:
    assert EmqxHook("not_defined").emqx_conn_id == "not_defined"


def test_generation_and_version(broker: Any, version: str) -> None:
    with EmqxHook() as hook:
        assert hook.api_version == ("v4" if version.startswith("4") else "v5")
        assert hook.emqx_version == version


def test_a_connection_that_is_not_there_fails_its_test() -> None:
    works, said = EmqxHook("not_defined").test_connection()
    assert not works
    assert "not_defined" in said


@pytest.mark.parametrize("path", ["", "/emqx"])
def test_a_redirect_is_named_also_where_the_generation_is_found_out(
    connect: Any, broker: Any, path: str
) -> None:
    connect({**broker.connection(attempts=1), "host": broker.url + path})
    headers = {"Location": "https://elsewhere.example.com/login?token=t"}
    broker.order_fault("redirect", times=4, headers=headers)
    with EmqxHook() as hook, pytest.raises(errors.EmqxConfigError) as caught:
        hook.get_client("a")
    assert "redirect to https://elsewhere.example.com (HTTP 302)" in str(caught.value)
    assert "token" not in str(caught.value)
    assert len(broker.requests) == 4


def test_a_redirect_of_one_path_does_not_hide_the_api(connect: Any, broker: Any, version: str) -> None:
    connect(broker.connection(attempts=1))
    broker.order_fault("redirect", match="/api/v5/status", headers={"Location": "/login"})
    with EmqxHook() as hook:
        assert hook.emqx_version == version


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_change_may_be_answered_without_a_body(broker: Any, method: str) -> None:
    with EmqxHook() as hook:
        assert hook.api_version == "v5"
        broker.requests.clear()
        broker.order_fault("status", match="invite", status=200, body=b"")
        assert hook.request(method, "/cluster/emqx@n2/invite") is None
        assert len(broker.requests) == 1
        broker.order_fault("status", match="nodes", status=200, body=b"", times=4)
        with pytest.raises(errors.EmqxServerError, match="no JSON"):
            hook.request("GET", "/nodes")


def test_users_from_creation_to_deletion(broker: Any, version: str) -> None:
    with EmqxHook() as hook:
        assert hook.get_user(STRANGE) is None
        hook.create_user(STRANGE, "first")
        assert broker.verify(STRANGE, "first")
        with pytest.raises(errors.EmqxAlreadyExistsError):
            hook.create_user(STRANGE, "second")
        assert broker.verify(STRANGE, "first")
        hook.update_user(STRANGE, "second")
        assert broker.verify(STRANGE, "second")
        user = hook.get_user(STRANGE)
        assert user is not None
        assert user["user_id"] == STRANGE
        assert [row["user_id"] for row in hook.list_users()] == [STRANGE]
        tells = version.startswith("5")
        assert hook.delete_user(STRANGE) is (True if tells else None)
        assert hook.delete_user(STRANGE) is (False if tells else None)
        with pytest.raises(errors.EmqxNotFoundError):
            hook.update_user(STRANGE, "third")


def test_clients_have_the_same_fields_on_both_generations(broker: Any) -> None:
    broker.connect(STRANGE, username="alice")
    with EmqxHook() as hook:
        client = hook.get_client(STRANGE)
        assert client is not None
        assert client["connected"] is True
        assert client["username"] == "alice"
        assert client["connected_at"].endswith("+00:00")
        assert {"mqueue_max", "inflight_cnt", "subscriptions_max", "awaiting_rel_cnt"} <= client.keys()
        assert hook.get_client("ghost") is None
        assert [row["clientid"] for row in hook.list_clients()] == [STRANGE]


@pytest.mark.parametrize("user_id", ["", ".", ".."])
def test_ids_that_would_reach_something_else_are_refused_before_anything_is_sent(
    broker: Any, user_id: str
) -> None:
    broker.users["precious"] = broker.users.get("precious") or _user(broker)
    with EmqxHook() as hook:
        assert hook.broker
        broker.requests.clear()
        for call in (hook.delete_user, hook.get_user, hook.get_client):
            with pytest.raises(errors.EmqxConfigError):
                call(user_id)
    assert broker.requests == []
    assert "precious" in broker.users


def _user(broker: Any) -> Any:
    with EmqxHook() as hook:
        hook.create_user("precious", "pw")
    return broker.users["precious"]


def test_rows_are_provisioned_with_one_outcome_each(broker: Any) -> None:
    rows = [
        {"user_id": "a", "password": "one"},
        {"user_id": "..", "password": "two"},
        {"user_id": "a", "password": "three"},
    ]
    with EmqxHook() as hook:
        outcomes = sorted(hook.provision_users(rows))
        assert [(row.line, row.outcome) for row in outcomes] == [
            (1, "written"),
            (2, "rejected"),
            (3, "rejected"),
        ]
        assert broker.verify("a", "one")
        assert [row.outcome for row in hook.provision_users([{"user_id": "a"}], mode="delete")] == ["deleted"]
    assert not broker.users


def test_run_many_keeps_the_order_and_gives_errors_as_values(broker: Any) -> None:
    with EmqxHook() as hook:
        ids = [f"u{number}" for number in range(50)]
        create = hook.api.users.create
        hook.create_user("u7", "pw")
        results = list(hook.run_many(create(user_id, "pw") for user_id in ids))
    assert [isinstance(result, errors.EmqxAlreadyExistsError) for result in results].index(True) == 7
    assert sum(isinstance(result, dict) for result in results) == 49
    assert set(ids) <= set(broker.users)


def test_run_many_runs_nothing_that_is_not_asked_for(broker: Any) -> None:
    with EmqxHook() as hook:
        assert list(hook.run_many([])) == []


@pytest.mark.parametrize("count", [1, 8, 9, 50])
def test_run_many_works_in_a_running_event_loop(broker: Any, count: int) -> None:
    ids = [f"u{number}" for number in range(count)]

    async def task() -> list[Any]:
        with EmqxHook() as hook:
            return hook.run_all(hook.api.users.create(user_id, "pw") for user_id in ids)

    assert len(asyncio.run(task())) == count
    assert set(broker.users) == set(ids)


def test_a_run_in_a_running_event_loop_provisions_its_users(broker: Any) -> None:
    rows = [{"user_id": f"u{number}", "password": "pw"} for number in range(20)]
    for row in rows:
        broker.add_user(f"old-{row['user_id']}", "pw")

    async def task() -> list[Any]:
        with EmqxHook() as hook:
            return list(hook.provision_users(rows, mode="sync", scope="*"))

    assert len(asyncio.run(task())) >= len(rows)
    assert set(broker.users) == {row["user_id"] for row in rows}


def test_run_many_keeps_its_thread_and_client_until_the_hook_is_closed(broker: Any) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "emqx-run-many"]

    with EmqxHook() as hook:
        before = threads()
        for start in (0, 50):
            ids = [f"u{number}" for number in range(start, start + 50)]
            assert len(list(hook.run_many(hook.api.users.create(i, "pw") for i in ids))) == 50
            opened = [thread for thread in threads() if thread not in before]
            assert len(opened) == 1
    assert not opened[0].is_alive()
    assert len(broker.users) == 100


def test_the_async_client_needs_no_blocking_lookup(broker: Any) -> None:
    broker.connect("dev-1")

    async def ask() -> Any:
        hook = EmqxHook()
        async with hook.async_client() as client:
            return await client.run(client.api.clients.get("dev-1"))

    assert asyncio.run(ask())["connected"] is True


def test_a_closed_hook_opens_again(broker: Any) -> None:
    hook = EmqxHook()
    assert hook.get_client("x") is None
    hook.close()
    assert hook.get_client("x") is None
    hook.close()


@pytest.mark.parametrize("user_id_type", ["username", "clientid"])
def test_v4_has_a_table_for_each_kind_of_id(connect: Any, user_id_type: str) -> None:
    with FakeEmqx("4.4.19") as broker:
        connect(broker.connection())
        with EmqxHook(user_id_type=user_id_type) as hook:
            hook.create_user("u", "pw")
            assert hook.run(hook.api.users.user_id_type()) == user_id_type
        assert any(f"/auth_{user_id_type}" in str(request) for request in broker.requests)


def test_another_kind_of_user_id_is_refused() -> None:
    with pytest.raises(errors.EmqxConfigError, match="one of username, clientid"):
        EmqxHook(user_id_type="email")._settings(None, {})  # type: ignore[arg-type]


# the connection test


def test_the_connection_test_says_which_broker_answers(broker: Any, version: str) -> None:
    works, line = EmqxHook().test_connection()
    assert works
    assert line.startswith(f"EMQX {version}, API v")


def test_a_version_given_in_the_connection_does_not_replace_the_test(connect: Any, broker: Any) -> None:
    connect(broker.connection(), password="wrong", extra={"emqx_version": "5.8.9"})
    works, line = EmqxHook().test_connection()
    assert not works
    assert "HTTP 401" in line


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"login": "wrong"}, "HTTP 401"),
        ({"password": "wrong-secret"}, "HTTP 401"),
        ({"host": "http://127.0.0.1:1"}, "connection refused"),
        ({"host": "https://no-such-host.invalid"}, "DNS"),
        ({"extra": {"attempts": "x"}}, "“Attempts”"),
        ({"host": ""}, "“API address” is empty"),
    ],
)
def test_the_connection_test_says_what_is_wrong(broker: Any, connect: Any, changed: Any, said: str) -> None:
    connect(broker.connection(), **changed)
    works, line = EmqxHook().test_connection()
    assert not works
    assert said in line
    assert "\n" not in line
    assert "wrong-secret" not in line


def test_the_connection_test_tells_tls_from_no_tls(broker: Any, connect: Any) -> None:
    connect(broker.connection(), host=broker.url.replace("http://", "https://"))
    works, line = EmqxHook().test_connection()
    assert not works
    assert "does not speak TLS" in line


def test_the_connection_test_tells_the_other_generation(broker: Any, connect: Any, version: str) -> None:
    other, right = ("v4", "/api/v5") if version.startswith("5") else ("v5", "/api/v4")
    connect(broker.connection(), extra={"api_version": other})
    works, line = EmqxHook().test_connection()
    assert not works
    assert right in line


def test_the_connection_test_tells_that_something_else_answers(connect: Any) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Welcome(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"welcome")

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Welcome) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connect(
            {
                "conn_type": "emqx",
                "host": f"127.0.0.1:{server.server_port}",
                "login": "k",
                "password": "secret",
            }
        )
        works, line = EmqxHook().test_connection()
        server.shutdown()
    assert not works
    assert "not EMQX's management API" in line


def test_a_key_without_the_right_to_list_is_valid_and_said_to_be_limited(connect: Any) -> None:
    with FakeEmqx("5.8.9", edition="Enterprise") as broker:
        broker.add_key("pub", "pub-secret", role="publisher")
        connect(broker.connection(), login="pub", password="pub-secret")
        works, line = EmqxHook().test_connection()
    assert works
    assert "valid but may not list clients" in line


def test_the_connection_test_does_not_repeat_itself(broker: Any) -> None:
    broker.order_fault("status", status=503, times=99)
    works, _ = EmqxHook().test_connection()
    assert not works
    assert len(broker.requests) <= 4


def test_a_missing_connection_is_airflows_own_error() -> None:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    with pytest.raises(AirflowNotFoundException):
        EmqxHook("not_defined").get_client("x")


@pytest.mark.parametrize("version", ["6.3.0-beta.2"])
def test_a_wrong_key_with_a_namespace_is_told_as_a_wrong_key(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {**broker.connection(namespace="tenant-1"), "password": "wrong"}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(wrong))
    with EmqxHook() as hook, pytest.raises(errors.EmqxAuthError, match="401"):
        hook.get_user("dev-1")

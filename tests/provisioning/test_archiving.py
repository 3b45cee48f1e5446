"""Users are written and deleted by archives, with the outcomes that they have without them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.archives.terms import Atom
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxStoppedError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.provisioning import archiving
from airflow_provider_emqx.testing import FakeEmqx, archives, backups
from tests.operators.run import TI, execute, sent
from tests.provisioning.kills import Killer, killer

VERSIONS = ["5.8.9", "6.3.0"]

pytestmark = pytest.mark.parametrize("version", VERSIONS)


def provision(rows: Any, ti: TI | None = None, **arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = execute(
        EmqxProvisionUsersOperator, ti, source=rows, **{"bulk": "archive", **arguments}
    )
    return result


def rows(*numbers: int, password: str = "p") -> list[dict[str, Any]]:
    return [{"user_id": f"d{i}", "password": f"{password}{i}"} for i in numbers]


def counts(result: dict[str, Any], *names: str) -> list[Any]:
    return [result[name] for name in names]


@pytest.fixture
def filled(broker: FakeEmqx) -> FakeEmqx:
    for i in range(10):
        broker.add_user(f"d{i}", f"p{i}")
    return broker


def test_users_are_created_updated_and_left_alone(filled: FakeEmqx) -> None:
    source = [*rows(1, 2), *rows(3, 4, password="new"), *rows(11, 12)]
    source[0]["is_superuser"] = True
    result = provision(source)
    assert counts(result, "written", "created", "updated", "unchanged") == [6, 2, 3, 1]
    for row in source:
        assert filled.verify(row["user_id"], row["password"])
    assert filled.users["d1"].is_superuser
    assert len(filled.users) == 12
    assert not filled.state.backups
    again = provision(source)
    assert counts(again, "written", "created", "updated", "unchanged") == [6, 0, 0, 6]


def test_nothing_is_imported_where_nothing_has_changed(filled: FakeEmqx) -> None:
    provision(rows(*range(10)))
    assert not [line for line in sent(filled) if "import" in line]


def test_users_of_any_id_are_deleted(filled: FakeEmqx) -> None:
    for user_id in ("", ".", "..", "ü/ö %"):
        filled.add_user(user_id, "p")
    source = [{"user_id": user_id} for user_id in ("", ".", "..", "ü/ö %", "d1", "nobody")]
    result = provision(source, mode="delete")
    assert counts(result, "deleted", "skipped", "rejected") == [5, 1, 0]
    assert result["created"] is None
    assert sorted(filled.users) == [f"d{i}" for i in range(10) if i != 1]
    assert not filled.state.backups


def test_a_user_who_exists_is_not_touched_by_create(filled: FakeEmqx) -> None:
    result = provision(rows(1, 2, 11, 12, password="new"), mode="create")
    assert counts(result, "written", "created", "skipped") == [2, 2, 2]
    assert filled.verify("d1", "p1")
    assert filled.verify("d11", "new11")


def test_users_that_are_not_in_the_source_are_pruned(filled: FakeEmqx) -> None:
    filled.add_user("d-root", "p", is_superuser=True)
    filled.add_user("other", "p")
    filled.add_user("", "p")
    result = provision([*rows(*range(5)), *rows(11)], mode="sync", scope="*", protect="oth*", max_deletes=10)
    assert counts(result, "written", "created", "unchanged", "pruned") == [6, 1, 5, 6]
    assert sorted(filled.users) == ["d-root", *(f"d{i}" for i in (0, 1, 11, 2, 3, 4)), "other"]
    assert result["unaddressable"] == 0
    assert not filled.state.backups


def test_prune_keeps_whom_the_source_names(filled: FakeEmqx) -> None:
    filled.add_user("..", "p")
    filled.add_user(".", "p")
    source = [{"user_id": user_id} for user_id in ("d1", "..")]
    result = provision(source, mode="prune", scope=["d*", ".*"], max_deletes="100%")
    assert counts(result, "skipped", "pruned") == [2, 10]
    assert sorted(filled.users) == ["..", "d1"]


def test_more_deletions_than_are_allowed_delete_nobody(filled: FakeEmqx) -> None:
    with pytest.raises(EmqxConfigError, match="9 of 10 users in scope are not in the source; the limit is 3"):
        provision(rows(1), mode="sync", scope="d*", max_deletes=3)
    assert len(filled.users) == 10


@pytest.mark.parametrize("mode", ["upsert", "create", "delete", "sync", "prune"])
def test_a_dry_run_is_exact_and_changes_nothing(filled: FakeEmqx, mode: str, tmp_path: Path) -> None:
    source = [*rows(1, 2), *rows(3, 4, password="new"), *rows(11, 12)]
    pruning = {"scope": "d*", "max_deletes": "100%"} if mode in ("sync", "prune") else {}
    names = ("written", "created", "updated", "unchanged", "deleted", "skipped", "pruned")
    before = dict(filled.users)
    planned = provision(source, mode=mode, dry_run=True, **pruning)
    assert filled.users == before
    # a note, an export, and the deletion of both
    assert [re.sub(r"/(emqx|airflow).*", "", line.split("/v5/")[1]) for line in sent(filled)] == [
        "data/files",
        "data/export",
        "data/files",
        "data/files",
    ]
    done = provision(source, mode=mode, **pruning)
    assert counts(planned, *names) == counts(done, *names)


def test_hashes_with_any_salt_are_written(broker: FakeEmqx) -> None:
    from base64 import b64encode

    from airflow_provider_emqx.provisioning.hashing import Algorithm

    with EmqxHook() as hook:
        algorithm = Algorithm.of(hook.get_authenticator())
    salts = [b"\xff\x00,\n", b" ,", b"\r\n\r\n", "ü".encode(), b""]
    source = [
        {
            "user_id": f"d{i}",
            "password_hash": algorithm.hash("pw", salt).decode(),
            "salt_base64": b64encode(salt).decode(),
        }
        for i, salt in enumerate(salts)
    ]
    result = provision(source)
    assert counts(result, "written", "rejected", "not_carried") == [5, 0, 0]
    assert all(broker.verify(f"d{i}", "pw") for i in range(5))
    assert provision(source)["unchanged"] == 5


def test_users_of_gateways_are_left_alone(filled: FakeEmqx) -> None:
    key, fields = (Atom("stomp:global"), b"d1"), (b"ab" * 32, b"s", False)
    filled.state.gateway_users[key] = fields
    with EmqxHook() as hook:
        assert not [
            row
            for row in hook.provision_users(rows(1), "sync", scope="*", max_deletes=9, bulk="archive")
            if row.outcome == "rejected"
        ]
    provision([{"user_id": "d1"}], mode="delete")
    assert filled.state.gateway_users == {key: fields}
    assert not filled.users


def test_a_state_file_and_rules_work_as_without_archives(
    filled: FakeEmqx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", json.dumps({"conn_type": "generic", "password": "pepper" * 6}))
    source = rows(1, 11, password="new")
    source[1]["acl"] = [{"topic": "devices/#", "permission": "allow"}]
    kept = {"state_path": str(tmp_path / "state"), "pepper_conn_id": "pepper"}
    result = provision(source, **kept)
    assert counts(result, "written", "created", "updated") == [2, 1, 1]
    assert filled.acl_rules("username", "d11")
    filled.requests.clear()
    again = provision(source, **kept)
    assert counts(again, "written", "unchanged") == [2, 2]
    assert not [line for line in sent(filled) if "rules" in line or "import" in line]


def test_passwords_of_new_users_are_hashed_with_the_pepper_if_there_is_one(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", json.dumps({"conn_type": "generic", "password": "pepper" * 6}))

    def salts(**arguments: Any) -> list[str]:
        found = []
        for _ in range(2):
            broker.users.clear()
            provision(rows(1), **arguments)
            found.append(broker.users["d1"].salt)
        return found

    one, other = salts()
    assert one != other
    one, other = salts(pepper_conn_id="pepper")
    assert one == other


@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "bcrypt", "salt_rounds": 5},
        {"name": "plain", "salt_position": "suffix"},
        {"name": "pbkdf2", "mac_fun": "sha256", "iterations": 2, "dk_length": 32},
        {"name": "sha", "salt_position": "disable"},
    ],
)
def test_passwords_are_compared_with_every_algorithm(
    version: str, algorithm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if algorithm["name"] == "bcrypt":
        pytest.importorskip("bcrypt")
    with FakeEmqx(version, password_hash_algorithm=algorithm) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        broker.add_user("d1", "p1")
        broker.add_user("d2", "old")
        result = provision(rows(1, 2, 3))
        assert counts(result, "created", "updated", "unchanged") == [1, 1, 1]
        assert all(broker.verify(f"d{i}", f"p{i}") for i in (1, 2, 3))
        assert provision(rows(1, 2, 3))["unchanged"] == 3


def refused(**arguments: Any) -> str:
    with pytest.raises(EmqxUnsupportedError) as caught:
        provision(rows(1), **arguments)
    return str(caught.value)


@pytest.mark.parametrize("other", ["4.4.19", "5.7.2"])
def test_brokers_that_are_too_old_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, other: str
) -> None:
    with FakeEmqx(other) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        assert f"it needs EMQX 5.8 or newer; this is EMQX {other}" in refused()
        assert not sent(broker)


@pytest.mark.parametrize(
    "origin",
    [
        "https://x1.ala.us-east-1.emqxsl.com:8443",
        "https://x1.eu.emqxcloud.com:8443",
        "https://x1.eu.emqx.cloud:8443",
    ],
)
def test_emqx_cloud_is_refused(version: str, origin: str) -> None:
    hook: Any = SimpleNamespace(
        broker=Broker("v5", (5, 8, 9), serverless="emqxsl" in origin), settings=SimpleNamespace(origin=origin)
    )
    with pytest.raises(EmqxUnsupportedError, match="EMQX Cloud does not import data over its API"):
        archiving.require(hook)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"authenticator": "scram:built_in_database"}, "keeps SCRAM keys"),
        ({"namespace": "tenant1"}, "not for a connection with a namespace"),
    ],
)
def test_connections_that_do_not_fit_are_refused(
    version: str, extra: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEmqx("6.3.0") as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(**extra)))
        assert reason in refused()
        assert not sent(broker)


@pytest.mark.parametrize("pattern", ["/data/", "/nodes", "/authentication"])
def test_keys_with_scopes_are_refused(
    filled: FakeEmqx, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.add_key("few", "secret", allow=lambda method, route: not route.startswith(pattern))
    connection = {**filled.connection(emqx_version=filled.version), "login": "few", "password": "secret"}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
    assert "a global administrator without explicit scopes" in refused()
    assert not sent(filled)


def test_clusters_with_replicants_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEmqx(version, nodes=["emqx@a", "emqx@b"]) as broker:
        broker.state.nodes["emqx@b"].role = "replicant"
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        assert "not tried with replicants, as emqx@b" in refused()
        assert not sent(broker)


def test_a_table_with_other_fields_is_refused(filled: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = archives._EXPORTED["builtin_authn"]
    fields, *others = tables["emqx_authn_mnesia"]
    monkeypatch.setitem(tables, "emqx_authn_mnesia", ((*fields, "extra"), *others))
    with pytest.raises(
        EmqxError, match="has the fields user_id, password_hash, salt, is_superuser, extra; expected"
    ):
        provision(rows(1, password="new"))
    assert not filled.state.imported
    assert not filled.state.backups


def test_an_export_whose_table_is_cut_is_refused(filled: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    make = archives._table
    monkeypatch.setattr(archives, "_table", lambda *given: make(*given)[:-3])
    with pytest.raises(EmqxError, match="emqx_authn_mnesia is cut or damaged"):
        provision(rows(1, password="new"))
    assert not filled.state.imported
    assert not filled.state.backups


# ---------------------------------------------------------------------- trust


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "_PAUSES", (0.05, 0.1, 0.2))


@pytest.mark.parametrize("mode", ["upsert", "delete"])
def test_what_an_import_has_lost_silently_is_sent_again(filled: FakeEmqx, mode: str) -> None:
    filled.cut_import(2)
    result = provision(rows(*range(5), password="new"), mode=mode)
    assert counts(result, "written", "deleted") == ([5, 0] if mode == "upsert" else [0, 5])
    assert len(filled.state.imported) == 2
    assert len(set(filled.state.imported)) == 2
    assert all(filled.verify(f"d{i}", f"new{i}") is (mode == "upsert") for i in range(5))
    assert not filled.state.backups


@pytest.mark.parametrize("more", [0, 100])
def test_what_is_lost_twice_is_told_as_not_written(
    filled: FakeEmqx, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(more):
        filled.add_user(f"x{i}", "p")
    filled.cut_import(2)
    filled.cut_import(2)
    source = [*rows(1), *rows(21, 22, 23, 24, 25)]
    ti = TI()
    with pytest.raises(
        EmqxError, match="the broker confirmed an import of 5 changes, and 1 of them are not in force"
    ):
        provision(source, ti)
    (pushed,) = ti.pushed.values()
    assert counts(pushed, "read", "written", "created", "unchanged") == [6, 5, 4, 1]
    assert "1 of 5 changes are not in force after attempt 2 of 2" in caplog.text
    assert not filled.state.backups


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("mode", ["upsert", "delete"])
def test_a_lost_answer_is_waited_for(filled: FakeEmqx, mode: str) -> None:
    filled.lose_import(0.1)
    result = provision(rows(*range(5), password="new"), mode=mode)
    assert counts(result, "written", "deleted") == ([5, 0] if mode == "upsert" else [0, 5])
    # it is not repeated: that would take away what the first one is about to read
    assert len([line for line in sent(filled) if "/data/import" in line]) == 1
    assert not filled.state.backups


@pytest.mark.usefixtures("no_pauses")
def test_an_import_that_is_lost_is_sent_again_under_another_name(filled: FakeEmqx) -> None:
    filled.order_fault("reset", match="POST /api/v5/data/import")
    result = provision(rows(*range(5), password="new"))
    assert counts(result, "written", "updated") == [5, 5]
    uploads = [
        served
        for served in filled.requests
        if served.method == "POST" and "/data/files" in served.path and b"-note-" not in served.body
    ]
    assert len(uploads) == 2
    assert len({re.findall(rb"airflow-users-[0-9a-f-]+", served.body)[0] for served in uploads}) == 2
    assert not filled.state.backups


def test_an_import_that_is_refused_is_tried_once_more(filled: FakeEmqx) -> None:
    body = json.dumps({"code": "BAD_REQUEST", "message": "emqx_authn_mnesia: aborted"})
    filled.order_fault("status", match="POST /api/v5/data/import", status=400, body=body)
    assert provision(rows(1, password="new"))["written"] == 1
    filled.order_fault("status", match="POST /api/v5/data/import", status=400, body=body, times=2)
    ti = TI()
    with pytest.raises(EmqxError, match="aborted"):
        provision(rows(2, password="new"), ti)
    (pushed,) = ti.pushed.values()
    assert counts(pushed, "read", "written") == [1, 0]
    assert filled.verify("d2", "p2")
    assert not filled.state.backups


def test_an_upload_whose_answer_is_lost_is_not_uploaded_twice(filled: FakeEmqx) -> None:
    filled.order_fault("reset_after", match="POST /api/v5/data/files")
    assert provision(rows(1, password="new"))["written"] == 1
    assert not filled.state.backups


def test_the_node_that_has_a_file_is_in_every_later_request(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEmqx(version, nodes=["emqx@a", "emqx@b"]) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        provision(rows(1))
        for served in broker.requests:
            if "/data/files/" in served.path:
                assert served.path.endswith("?node=emqx%40a")
            if "/data/import" in served.path:
                assert json.loads(served.body)["node"] == "emqx@a"


def test_nodes_that_do_not_run_are_no_hindrance(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEmqx(version, nodes=["emqx@a", "emqx@b"]) as broker:
        broker.state.nodes["emqx@a"].running = False
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        assert provision(rows(1))["written"] == 1
        notes = [served for served in broker.requests if b"-note-" in served.body]
        assert {served.status for served in notes} == {204}
        assert not broker.state.backups


def leftovers(broker: FakeEmqx) -> list[str]:
    return sorted(re.sub(r"[0-9a-f]{8,}.*|[0-9].*", "", name) for name in broker.state.backups)


def test_what_could_not_be_deleted_is_deleted_by_the_next_run(
    filled: FakeEmqx, caplog: pytest.LogCaptureFixture
) -> None:
    filled.order_fault("status", match="DELETE /api/v5/data/files", status=500, times=100)
    provision(rows(1, password="new"))
    # the note, the archive and the export
    assert leftovers(filled) == ["airflow-users-", "airflow-users-", "emqx-export-"]
    assert "stays on the broker's disk until it is deleted there" in caplog.text
    filled.clear_faults()
    # what an administrator exports stays
    mine = backups.make(filled.state)
    provision(rows(2, password="new"))
    assert list(filled.state.backups) == [mine.filename]
    assert "which a killed run has left" in caplog.text


def test_an_export_whose_answer_is_lost_is_deleted(filled: FakeEmqx) -> None:
    filled.order_fault("reset_after", match="POST /api/v5/data/export")
    filled.order_fault("truncated", match="GET /api/v5/data/files/emqx")
    provision(rows(1, password="new"))
    assert not filled.state.backups


def test_files_of_another_task_are_left_unless_they_are_old(filled: FakeEmqx) -> None:
    filled.order_fault("status", match="DELETE /api/v5/data/files", status=500, times=100)
    provision(rows(1, password="new"))
    filled.clear_faults()
    count = len(filled.state.backups)
    provision(rows(2, password="new"), mode="create")
    assert len(filled.state.backups) == count
    filled.advance(3700)
    provision(rows(2, password="new"), mode="create")
    assert not filled.state.backups


def test_a_run_goes_on_without_a_note_that_the_broker_refuses(filled: FakeEmqx) -> None:
    filled.order_fault(
        "status", match="POST /api/v5/data/files", status=400, body='{"code": "BAD_REQUEST", "message": "x"}'
    )
    assert provision(rows(1, password="new"))["written"] == 1
    assert not filled.state.backups


@pytest.fixture(scope="module")
def process() -> Iterator[Killer]:
    with killer() as made:
        yield made


def attempt(process: Killer, broker: FakeEmqx, until: int) -> int:
    """Synchronise, as :meth:`Killer.kill_at_write` does."""
    job = {
        "environment": {"AIRFLOW_CONN_EMQX_DEFAULT": json.dumps(broker.connection())},
        "arguments": {
            "source": rows(*range(5, 12), password="new"),
            "mode": "sync",
            "scope": "*",
            "max_deletes": "100%",
            "bulk": "archive",
        },
        "store": "",
        "at": None,
    }
    return process.kill_at_write(broker, job, until)


def test_a_task_that_is_killed_leaves_nothing_that_the_next_does_not_clean_up(
    process: Killer, filled: FakeEmqx, version: str
) -> None:
    writes = attempt(process, filled, 0)
    assert writes > 10
    # every second write on each version: they send the same ones
    for until in range(1 + VERSIONS.index(version), writes + 1, 2):
        filled.users.clear()
        for i in range(10):
            filled.add_user(f"d{i}", f"p{i}")
        attempt(process, filled, until)
        attempt(process, filled, 0)
        assert not filled.state.backups, until
        assert sorted(filled.users) == sorted(f"d{i}" for i in range(5, 12)), until
        assert all(filled.verify(f"d{i}", f"new{i}") for i in range(5, 12)), until


def stop_at_import(broker: FakeEmqx, hook: EmqxHook) -> None:
    """Stop the hook as soon as it sends an import."""

    def stop(method: str, path: str) -> None:
        if path.endswith("/data/import"):
            hook.stop()

    broker.before_each_request(stop)


def test_a_stopped_task_reads_back_what_it_has_imported_and_leaves_no_file(
    filled: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "MOST", 2)
    source = rows(*range(10), password="new")
    with EmqxHook() as hook:
        stop_at_import(filled, hook)
        found: list[Any] = []
        with pytest.raises(EmqxStoppedError):
            found.extend((row.user_id, row.outcome) for row in hook.provision_users(source, bulk="archive"))
    assert found == [("d0", "written"), ("d1", "written")]
    assert [filled.verify(f"d{i}", f"new{i}") for i in range(3)] == [True, True, False]
    assert not filled.state.backups
    assert len(filled.state.imported) == 1


@pytest.mark.usefixtures("no_pauses")
def test_a_broker_that_restarts_is_waited_for(filled: FakeEmqx) -> None:
    restarts = iter([True])

    def restart(method: str, path: str) -> None:
        if path.endswith("/data/import") and next(restarts, False):
            filled.order_fault("reset", match="/api", times=2)

    filled.before_each_request(restart)
    result = provision(rows(*range(5), password="new"))
    assert counts(result, "written", "updated") == [5, 5]
    assert not filled.state.backups


@pytest.mark.parametrize(("name", "value"), [("MAX_BODY", 1_500), ("MOST", 30)])
def test_archives_that_are_too_large_are_cut(
    filled: FakeEmqx, name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, name, value)
    result = provision(rows(*range(100), password="new"))
    assert counts(result, "written", "created", "updated") == [100, 90, 10]
    assert len(filled.state.imported) >= 4
    uploads = [
        served for served in filled.requests if served.method == "POST" and "/data/files" in served.path
    ]
    # a note is small, and what is around the file
    assert name == "MOST" or max(len(served.body) for served in uploads) <= value + 500
    assert all(filled.verify(f"d{i}", f"new{i}") for i in range(100))
    assert provision([{"user_id": f"d{i}"} for i in range(100)], mode="delete")["deleted"] == 100
    assert not filled.users
    assert not filled.state.backups


def test_shards_do_not_delete_each_other_s_files(filled: FakeEmqx) -> None:
    def shard(number: int) -> dict[str, Any]:
        return provision(rows(*range(200), password="new"), shard=(number, 4))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(shard, range(4)))
    assert sum(result["written"] for result in results) == 200
    # nobody had to send anything twice
    assert len(filled.state.imported) == 4
    assert all(filled.verify(f"d{i}", f"new{i}") for i in range(200))
    assert not filled.state.backups


def test_a_prune_that_is_stopped_tells_who_is_gone(filled: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "MOST", 2)
    with EmqxHook() as hook:
        stop_at_import(filled, hook)
        found: list[Any] = []
        with pytest.raises(EmqxStoppedError):
            outcomes = hook.provision_users(
                [{"user_id": "d1"}], "prune", scope="d*", max_deletes="100%", bulk="archive"
            )
            found.extend((row.user_id, row.outcome) for row in outcomes)
    assert found == [("d1", "skipped"), ("d0", "pruned"), ("d2", "pruned")]
    assert sorted(filled.users) == ["d1", *(f"d{i}" for i in range(3, 10))]
    assert not filled.state.backups

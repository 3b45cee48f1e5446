from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.archives.archive import read_archive
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxOutcomeUnknownError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator, EmqxRestoreOperator
from airflow_provider_emqx.testing import FakeEmqx
from tests.archives.made import ARCHIVES, CONTRACT, META, archive, tar, users
from tests.operators.run import execute, sent

EXPORT = CONTRACT / "emqx-4.4.19-export.json"
REAL = CONTRACT / f"{ARCHIVES['5.8.9']}.tar.gz"


def restore(path: Any, **arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = execute(EmqxRestoreOperator, backup_path=str(path), **arguments)
    return result


def put(tmp_path: Path, content: bytes, name: str = "x.tar.gz") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
def test_an_archive_is_looked_through_imported_and_taken_away(
    broker: FakeEmqx, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    broker.add_user("stays", "p")
    result = restore(REAL)
    assert result["tables"] == {
        "emqx_acl": 3,
        "emqx_authn_mnesia": 5,
        "emqx_authn_scram_mnesia": 1,
        "emqx_banned": 2,
        "emqx_banned_rules": 1,
    }
    assert (result["version"], result["edition"], result["configuration"]) == ("5.8.9", "ce", False)
    assert result["node"] == broker.state.node
    assert sorted(broker.users) == ["", "alice", "root", "salted", "stays", "ü/ö %"]
    assert not broker.state.backups
    assert [request.split("?")[0].rpartition("/airflow-")[0] or request for request in sent(broker)] == [
        "POST /api/v5/data/files",
        "POST /api/v5/data/import",
        "DELETE /api/v5/data/files",
    ]
    assert "made by EMQX 5.8.9 (ce)" in caplog.text


def test_a_dry_run_asks_nobody(broker: FakeEmqx, version: str) -> None:
    result = restore(EXPORT if version.startswith("4") else REAL, dry_run=True)
    assert result["dry_run"] is True
    assert not broker.requests


def test_a_backup_goes_back_to_where_it_came_from(broker: FakeEmqx, tmp_path: Path) -> None:
    broker.add_user("alice", "pw")
    made = execute(EmqxBackupOperator, backup_dir=str(tmp_path))
    broker.users.clear()
    result = restore(made["backup_path"])
    assert broker.verify("alice", "pw")
    assert result["dry_run"] is False
    # what the broker had exported itself is still there
    assert list(broker.state.backups) == [made["filename"]]


@pytest.mark.parametrize("version", ["4.4.19"])
def test_an_export_of_emqx_4_goes_back(broker: FakeEmqx) -> None:
    result = restore(EXPORT)
    assert result["tables"] == {"acl_mnesia": 4, "apps": 2, "auth_mnesia": 8, "blacklist": 1, "users": 1}
    assert broker.verify("exp-dev-1", "secret-1")
    assert not broker.state.backups
    assert "labsecret" not in json.dumps(result)


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (REAL.read_bytes()[:-20], "a damaged one: it is cut or damaged"),
        (
            archive({"emqx_authn_mnesia": users([("a", "ab" * 32, b"s")])[:-3]}),
            "emqx_authn_mnesia: it is cut",
        ),
        (tar({"META.hocon": META, "../x": b""}), "outside of its directory"),
        (gzip.compress(b"x"), "a damaged one"),
        (b'{"version": "4.4", "auth_mnesia": [', "ends in the middle"),
        (b'{"version": "5.0"}', "not an export of EMQX 4"),
        (b"user_id,password\n", "must begin with"),
        (b"", "ends in the middle"),
    ],
    ids=range(8),
)
def test_what_is_no_backup_or_a_damaged_one_is_never_sent(
    broker: FakeEmqx, tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(EmqxConfigError, match=reason):
        restore(put(tmp_path, content))
    assert not broker.requests


@pytest.mark.parametrize("version", ["5.8.9"])
def test_what_the_broker_refuses_is_told_and_leaves_nothing(broker: FakeEmqx, tmp_path: Path) -> None:
    content = tar({"META.hocon": b'edition = ee\nversion = "6.0.0"\n'})
    with pytest.raises(EmqxBadRequestError, match="Enterprise"):
        restore(put(tmp_path, content))
    assert not broker.state.backups
    broker.order_fault("status", match="POST /api/v5/data/import", status=500, body="{}", times=9)
    with pytest.raises(EmqxError):
        restore(REAL)
    assert not broker.state.backups


@pytest.mark.parametrize("version", ["5.8.9"])
def test_an_import_whose_answer_was_lost_and_that_cannot_be_repeated_is_told_as_unknown(
    broker: FakeEmqx,
) -> None:
    broker.order_fault("reset_after", match="POST /api/v5/data/import")
    reason = '{"code": "BAD_REQUEST", "message": "enoent"}'
    broker.order_fault("status", match="POST /api/v5/data/import", status=400, body=reason)
    with pytest.raises(EmqxOutcomeUnknownError, match=r"answer to the import of airflow-\w+.tar.gz was lost"):
        restore(REAL)
    assert broker.users["alice"]
    assert not broker.state.backups


@pytest.mark.parametrize("version", ["5.8.9"])
def test_an_archive_on_another_node_is_imported_there(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeEmqx("5.8.9", nodes=["emqx@1", "emqx@2"]) as cluster:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(cluster.connection()))

        def answer_by_the_other(method: str, path: str) -> None:
            # the upload reaches the second node, what follows the first
            if method == "POST" and path.endswith("/data/files"):
                cluster.stop_node("emqx@1")
            elif method == "GET":
                cluster.start_node("emqx@1")

        cluster.before_each_request(answer_by_the_other)
        assert restore(REAL)["node"] == "emqx@2"
        assert cluster.users["alice"]
        assert not cluster.state.backups


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("parts", "tables", "configured"),
    [
        ({}, 5, True),
        ({"table_sets": ["builtin_authn"], "root_keys": []}, 2, False),
        ({"table_sets": '["banned"]', "root_keys": "mqtt"}, 2, False),
        ({"table_sets": []}, 0, True),
    ],
    ids=str,
)
def test_a_backup_of_some_tables(
    broker: FakeEmqx, tmp_path: Path, parts: dict[str, Any], tables: int, configured: bool
) -> None:
    made = execute(EmqxBackupOperator, backup_dir=str(tmp_path), **parts)
    files = {name: size for name, _, size in read_archive(io.BytesIO(Path(made["backup_path"]).read_bytes()))}
    assert sum(name.startswith("mnesia/") for name in files) == tables
    assert bool(files["cluster.hocon"]) is configured


@pytest.mark.parametrize("version", ["4.4.19"])
def test_emqx_4_exports_everything_or_nothing(broker: FakeEmqx, tmp_path: Path) -> None:
    with pytest.raises(EmqxUnsupportedError, match="needs EMQX 5"):
        execute(EmqxBackupOperator, backup_dir=str(tmp_path), table_sets=["builtin_authn"])
    assert not sent(broker)


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (EmqxRestoreOperator, {"backup_path": ""}),
        (EmqxRestoreOperator, {"backup_path": "x", "dry_run": ""}),
        (EmqxBackupOperator, {"backup_dir": "x", "table_sets": ""}),
    ],
)
def test_arguments_without_a_value_are_refused(operator: type, arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        operator(task_id="t", **arguments)

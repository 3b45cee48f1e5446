from __future__ import annotations

import base64
import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.api.salts import NOT_CARRIED
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import (
    EmqxBanOperator,
    EmqxExportUsersOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
)
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator
from airflow_provider_emqx.testing import FakeEmqx
from tests.archives.made import ARCHIVES, CONTRACT, archive, users
from tests.operators.run import execute, sent

EXPORT = CONTRACT / "emqx-4.4.19-export.json"
PREFIX = {"name": "sha256", "salt_position": "prefix"}
SUFFIX = {"name": "sha256", "salt_position": "suffix"}
PASSWORDS = {1: "secret-1", 2: "pässwörd €", 3: 'with "quotes", commas', 4: "x"}
NEWER = ["5.8.9", "6.3.0"]


@pytest.fixture
def algorithm() -> dict[str, Any]:
    return PREFIX


@pytest.fixture
def broker(version: str, algorithm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    with FakeEmqx(version, password_hash_algorithm=algorithm) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        yield fake


def provision(source: Any, **arguments: Any) -> dict[str, Any]:
    return execute(EmqxProvisionUsersOperator, source=source, **arguments)


def export(tmp_path: Path, salts: list[bytes]) -> Path:
    """Make an export of EMQX 4 of users d0, d1, … with the passwords p0, p1, …"""
    rows = [
        {
            "login": f"d{number}",
            "type": "username",
            "password": base64.b64encode(salt + hashed(salt, f"p{number}").encode()).decode(),
            "created_at": number,
        }
        for number, salt in enumerate(salts)
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps({"version": "4.4", "apps": [{"secret": "clear"}], "auth_mnesia": rows}))
    return path


def hashed(salt: bytes, password: str) -> str:
    return hashlib.sha256(salt + password.encode()).hexdigest()


@pytest.mark.parametrize("version", NEWER)
def test_devices_of_emqx_4_log_in_with_the_passwords_that_they_have(broker: FakeEmqx, version: str) -> None:
    result = provision(str(EXPORT))
    # one of the four salts is none that EMQX 6 takes
    lost = {"5.8.9": set(), "6.3.0": {2}}[version]
    assert (result["read"], result["written"], result["rejected"]) == (4, 4 - len(lost), len(lost))
    for number, password in PASSWORDS.items():
        assert broker.verify(f"exp-dev-{number}", password) is (number not in lost)
    assert not broker.verify("exp-dev-1", "another")


@pytest.mark.parametrize(
    ("version", "share"), [("5.7.2", 0.9), ("5.8.9", 0.9), ("5.10.0", 0.45), ("6.3.0", 0.45)]
)
def test_salts_that_cannot_be_carried_are_known_beforehand(
    broker: FakeEmqx, tmp_path: Path, share: float
) -> None:
    random.seed(share)
    salts = [random.randbytes(4) for _ in range(2000)]
    result = provision(str(export(tmp_path, salts)))
    there = [number for number in range(len(salts)) if f"d{number}" in broker.users]
    assert result["read"] == 2000 == result["written"] + result["rejected"]
    assert len(there) == result["written"] > share * 2000
    assert all(broker.verify(f"d{number}", f"p{number}") for number in there)
    assert [reason["reason"] for reason in result["reasons"]] == [NOT_CARRIED]
    assert result["not_carried"] == result["rejected"]
    # none was found by halving
    assert {served.status for served in broker.requests} <= {200, 204}


@pytest.mark.parametrize("version", NEWER)
@pytest.mark.parametrize(
    "salt",
    [b"\xff\n\xff", b"\xff,\xff", b"\xff\xff,", b" \xff\xff", b"\xff\xff\t", b"\x0c\xff\xff"],
)
def test_salts_that_would_be_stored_shortened_are_never_sent(
    broker: FakeEmqx, tmp_path: Path, salt: bytes
) -> None:
    rows = [
        {"user_id": f"d{at}", "password_hash": "ab" * 32, "salt_base64": base64.b64encode(one).decode()}
        for at, one in enumerate([b"a\xff", salt])
    ]
    result = provision(rows)
    assert list(broker.users) == ["d0"]
    assert result["rejected_rows"][0]["reason"] == NOT_CARRIED


@pytest.mark.parametrize("version", NEWER)
def test_salts_that_are_text_are_all_carried(broker: FakeEmqx, tmp_path: Path) -> None:
    salts = [b" a,b", b"\r\n\t ", b"\xc3\xbc\"'", b"\0\0\0\0"]
    assert provision(str(export(tmp_path, salts)))["written"] == 4
    assert all(broker.verify(f"d{number}", f"p{number}") for number in range(4))


@pytest.mark.parametrize("version", ["5.8.9"])
def test_names_that_cannot_stand_beside_such_a_salt_are_rejected(broker: FakeEmqx) -> None:
    salt = base64.b64encode(b"\xffabc").decode()
    rows = [
        {"user_id": name, "password_hash": "ab" * 32, "salt_base64": salt} for name in ("a b", "a,b", "ü")
    ]
    result = provision(rows)
    assert list(broker.users) == ["ü"]
    assert all("beside a user_id" in row["reason"] for row in result["rejected_rows"])


@pytest.mark.parametrize("version", NEWER)
@pytest.mark.parametrize(
    "algorithm",
    [SUFFIX, {"name": "sha512", "salt_position": "prefix"}, {"name": "bcrypt", "salt_rounds": 5}],
    ids=str,
)
@pytest.mark.parametrize("arguments", [{}, {"dry_run": True}, {"mode": "sync", "scope": "*"}], ids=str)
def test_an_authenticator_that_hashes_otherwise_ends_the_run_before_it_begins(
    broker: FakeEmqx, arguments: dict[str, Any]
) -> None:
    wanted = r"Set its password_hash_algorithm to \{name = sha256, salt_position = prefix\}"
    with pytest.raises(EmqxConfigError, match=wanted):
        provision(str(EXPORT), **arguments)
    assert not sent(broker)
    assert not broker.users


@pytest.mark.parametrize("version", ["4.4.19", "5.3.0"])
def test_brokers_that_take_no_hashes_end_the_run_before_it_begins(broker: FakeEmqx) -> None:
    with pytest.raises(
        EmqxConfigError, match=r"ready-made hashes need EMQX 5.7 or newer.*Nothing was written"
    ):
        provision(str(EXPORT))
    assert not sent(broker)


@pytest.mark.parametrize("version", NEWER)
def test_an_archive_with_its_configuration_is_held_against_the_authenticator(
    broker: FakeEmqx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.add_user("alice", "pw")
    parts = {"table_sets": ["builtin_authn"], "root_keys": ["authentication"]}
    made = execute(EmqxBackupOperator, backup_dir=str(tmp_path), **parts)
    with FakeEmqx("6.3.0", password_hash_algorithm=SUFFIX) as other:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(other.connection()))
        with pytest.raises(
            EmqxConfigError, match=r"\{name = sha256, salt_position = prefix\}.*Nothing was written"
        ):
            provision(made["backup_path"])
        assert not other.users


@pytest.mark.parametrize("version", NEWER)
def test_ids_of_an_export_can_be_deleted_whatever_the_hashes_are(broker: FakeEmqx) -> None:
    broker.add_user("exp-dev-1", "p")
    broker.add_user("stays", "p")
    assert provision(str(EXPORT), mode="delete")["deleted"] == 1
    assert list(broker.users) == ["stays"]


@pytest.mark.parametrize("version", NEWER)
@pytest.mark.parametrize("source", ARCHIVES)
def test_users_of_another_cluster_log_in(broker: FakeEmqx, source: str) -> None:
    result = provision(str(CONTRACT / f"{ARCHIVES[source]}.tar.gz"))
    assert broker.verify("alice", "pw-alice")
    assert broker.verify("root", "pw-root")
    assert broker.verify("ü/ö %", "pw-ü")
    assert broker.users["root"].is_superuser
    assert sorted(broker.users) == ["alice", "root", "salted", "ü/ö %"]
    reasons = {row["id"]: row["reason"] for row in result["rejected_rows"]}
    assert set(reasons) == {"", "scrammy"}
    assert "SCRAM" in reasons["scrammy"]


@pytest.mark.parametrize("version", ["6.3.0"])
def test_users_of_a_namespace_move_into_it(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(namespace="tenant1")))
    broker.add_namespace("tenant1")
    assert provision(str(CONTRACT / f"{ARCHIVES['6.3.0']}.tar.gz"))["written"] == 1
    with EmqxHook() as hook:
        assert [user["user_id"] for user in hook.list_users()] == ["nsuser"]
    rows = [
        {"user_id": "raw", "password_hash": "ab" * 32, "salt_base64": base64.b64encode(b"a\xff").decode()}
    ]
    assert provision(rows)["written"] == 1
    assert not broker.users


@pytest.mark.parametrize("version", ["5.8.9"])
def test_users_that_are_unchanged_are_left_alone_and_others_pruned(broker: FakeEmqx, tmp_path: Path) -> None:
    salts = [b"\xff\x01\x02\x03", b"text"]
    assert provision(str(export(tmp_path, salts)))["created"] == 2
    broker.add_user("old", "p")
    result = provision(str(export(tmp_path, salts)), mode="sync", scope="*")
    assert (result["unchanged"], result["pruned"]) == (2, 1)
    assert sorted(broker.users) == ["d0", "d1"]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_state_file_knows_salts_that_are_no_text(
    broker: FakeEmqx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", json.dumps({"conn_type": "generic", "password": "pepper"}))
    options = {"state_path": str(tmp_path / "state"), "pepper_conn_id": "pepper"}
    source = str(export(tmp_path, [b"\xff\x01\x02\x03", b"text"]))
    assert provision(source, **options)["written"] == 2
    before = len(sent(broker))
    assert provision(source, **options)["unchanged"] == 2
    assert len(sent(broker)) == before


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"salt_base64": "?"}, "is not base64"),
        ({"salt_base64": "QQ==", "salt": "A"}, "which one counts"),
        ({"salt_base64": "QQ==", "password_hash": ""}, "a salt without a password_hash"),
    ],
)
def test_a_salt_that_cannot_be_read_is_rejected(broker: FakeEmqx, row: dict[str, str], reason: str) -> None:
    good = {"user_id": "good", "password_hash": "ab" * 32, "salt_base64": "QQ=="}
    result = provision([good, {"user_id": "bad", "password_hash": "ab" * 32, **row}])
    assert list(broker.users) == ["good"]
    assert reason in result["rejected_rows"][0]["reason"]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_the_same_user_twice_is_written_once(broker: FakeEmqx, tmp_path: Path) -> None:
    content = archive(
        {"emqx_authn_mnesia": users([("a", hashed(b"s", "1"), b"s"), ("a", hashed(b"s", "2"), b"s")])}
    )
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    result = provision(str(path))
    assert (result["written"], result["rejected"]) == (1, 1)
    assert broker.verify("a", "1")


@pytest.mark.parametrize("version", ["5.8.9"])
def test_hashes_of_another_length_are_rejected_beside_good_ones(broker: FakeEmqx, tmp_path: Path) -> None:
    rows = [
        ("good", hashed(b"s", "p"), b"s"),
        ("short", "ab" * 20, b"s"),
        ("none", "", b""),
        ("", "ab" * 32, b""),
    ]
    path = tmp_path / "x.tar.gz"
    path.write_bytes(archive({"emqx_authn_mnesia": users(rows)}))
    result = provision(str(path))
    assert (result["written"], list(broker.users)) == (1, ["good"])
    reasons = {row["id"]: row["reason"] for row in result["rejected_rows"]}
    assert "must have 64 hex digits" in reasons["short"]
    assert set(reasons) == {"short", "none", ""}


@pytest.mark.parametrize("version", ["5.8.9"])
def test_no_hash_and_no_secret_is_in_a_log_or_a_report(
    broker: FakeEmqx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    report = tmp_path / "report.jsonl"
    result = provision(str(EXPORT), dry_run=True, report_path=str(report))
    result = provision(str(EXPORT), report_path=str(report)) | {"dry": result}
    told = caplog.text + report.read_text() + json.dumps(result)
    rows = json.loads(EXPORT.read_text())
    secrets = [row["password"] for row in [*rows["auth_mnesia"], *rows["users"]]]
    secrets += [row["secret"] for row in rows["apps"]]
    secrets += [base64.b64decode(row["password"])[4:].decode() for row in rows["auth_mnesia"]]
    assert not [secret for secret in secrets if secret != "public" and secret in told]
    assert oct(os.stat(report).st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("version", NEWER)
def test_rules_of_emqx_4_move(broker: FakeEmqx) -> None:
    result = execute(EmqxProvisionAclOperator, source=str(EXPORT))
    assert (result["read"], result["written"], result["subjects"]) == (4, 4, 3)
    assert [rule["topic"] for rule in broker.acl_rules("username", "exp-dev-1")] == ["devices/${username}/#"]
    rules = broker.acl_rules("clientid", "expc-dev-1")
    assert [(rule["topic"], rule["action"]) for rule in rules] == [
        ("devices/${clientid}/#", "subscribe"),
        ("devices/${clientid}/#", "publish"),
    ]


@pytest.mark.parametrize("version", ["6.3.0"])
def test_rules_of_another_cluster_move_with_their_conditions(broker: FakeEmqx) -> None:
    result = execute(EmqxProvisionAclOperator, source=str(CONTRACT / f"{ARCHIVES['6.3.0']}.tar.gz"))
    assert (result["written"], result["rejected"]) == (6, 0)
    assert broker.acl_rules("all")[1]["ipaddr"] == "10.0.0.0/8"


@pytest.mark.parametrize("version", ["4.4.19"])
def test_rules_of_emqx_4_go_back_to_emqx_4(broker: FakeEmqx) -> None:
    assert execute(EmqxProvisionAclOperator, source=str(EXPORT))["written"] == 4


# ---------------------------------------------------------------------- bans


def ban(**arguments: Any) -> dict[str, Any]:
    result: dict[str, Any] = execute(EmqxBanOperator, **arguments)
    return result


@pytest.mark.parametrize("version", ["4.4.19", *NEWER])
def test_bans_of_emqx_4_move(broker: FakeEmqx) -> None:
    result = ban(source=str(EXPORT))
    assert result["counts"]["banned"] == 1
    (found,) = broker.bans.values()
    assert (found.kind, found.who, found.by, found.reason) == ("clientid", "exp-bad", "ops", "t")


@pytest.mark.parametrize("version", NEWER)
@pytest.mark.parametrize("source", ARCHIVES)
def test_bans_of_another_cluster_move(broker: FakeEmqx, source: str) -> None:
    result = ban(source=str(CONTRACT / f"{ARCHIVES[source]}.tar.gz"))
    assert result["counts"] == {**dict.fromkeys(result["counts"], 0), "banned": 3}
    assert sorted(broker.bans) == [
        ("clientid", "bad-client"),
        ("clientid_re", "^re-.*"),
        ("peerhost", "10.9.9.9"),
    ]
    assert broker.bans["clientid_re", "^re-.*"].until is None
    assert broker.bans["clientid", "bad-client"].until == 4070908800


@pytest.mark.parametrize("version", ["5.8.9"])
def test_rows_are_bans_with_what_they_say_and_what_holds_for_all(broker: FakeEmqx, tmp_path: Path) -> None:
    path = tmp_path / "bans.csv"
    path.write_text(
        "who,kind,until,reason\n"
        "a,,,\n"
        "b,username,2999-01-01T00:00:00Z,spam\n"
        "10.0.0.1,peerhost,infinity,\n"
        "old,,2001-01-01T00:00:00Z,\n"
        "no-address,peerhost,,\n"
        "a,clientid,,twice\n"
        "bad,,tomorrow,\n"
        ",,,\n"
    )
    report = tmp_path / "report.jsonl"
    dry = ban(source=str(path), duration=60, dry_run=True)
    assert not broker.bans
    result = ban(source=str(path), duration=60, reason="all", report_path=str(report))
    assert dry["counts"]["banned"] == result["counts"]["banned"] == 3
    assert sorted(broker.bans) == [("clientid", "a"), ("peerhost", "10.0.0.1"), ("username", "b")]
    assert (broker.bans["clientid", "a"].reason, broker.bans["username", "b"].reason) == ("all", "spam")
    assert result["over"] == 1
    assert [row["line"] for row in result["rejected"]] == [6, 7, 8, 9]
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert sum(line["outcome"] == "rejected" for line in lines) == 4
    assert [row["who"] for row in result["banned"]] == ["a", "b", "10.0.0.1"]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_source_that_breaks_off_bans_nobody(broker: FakeEmqx, tmp_path: Path) -> None:
    content = (CONTRACT / f"{ARCHIVES['5.8.9']}.tar.gz").read_bytes()
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(content[:-30])
    with pytest.raises(EmqxConfigError, match="damaged"):
        ban(source=str(path), format="emqx-archive")
    with pytest.raises(EmqxConfigError, match="none of 1 rows is a ban"):
        ban(source=[{"who": "a"}])
    assert not broker.bans


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"who": "a", "source": "x.csv", "duration": 1},
        {"source": "x.csv", "duration": 1, "until": "infinity"},
        {"source": "x.csv", "kick": True},
        {"who": "a"},
    ],
)
def test_who_is_banned_and_for_how_long_is_said_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        EmqxBanOperator(task_id="ban", **arguments)


# ---------------------------------------------------------------------- hashes out of a broker


@pytest.mark.parametrize("version", ["4.4.19", *NEWER])
@pytest.mark.parametrize("name", ["users.csv", "users.jsonl.gz"])
def test_users_are_exported_with_their_hashes_and_move(
    broker: FakeEmqx, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    passwords = {f"d{number}": f'pw "{number}",' for number in range(12)}
    for user, password in passwords.items():
        broker.add_user(user, password)
    path = tmp_path / name
    result = execute(EmqxExportUsersOperator, output_path=str(path), with_hashes=True)
    assert (result["users"], result["left_out"]) == (12, 0)
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"
    assert os.listdir(tmp_path) == [name]
    # nothing stays on the broker
    assert not broker.state.backups
    if version != "4.4.19":
        assert result["password_hash_algorithm"] == "{name = sha256, salt_position = prefix}"
    with FakeEmqx("5.8.9", password_hash_algorithm=PREFIX) as other:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(other.connection()))
        moved = provision(str(path))
        there = [user for user, password in passwords.items() if other.verify(user, password)]
    # a salt of 4 random bytes may be one that cannot be carried
    assert moved["written"] == len(there) == 12 - moved["not_carried"]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_what_is_exported_with_hashes_has_these_columns(broker: FakeEmqx, tmp_path: Path) -> None:
    broker.add_user("root", "pw", is_superuser=True)
    broker.add_user("alice", "pw")
    path = tmp_path / "users.csv"
    result = execute(EmqxExportUsersOperator, output_path=str(path), with_hashes=True, is_superuser=True)
    header, row = path.read_text().splitlines()
    assert header == "user_id,password_hash,salt_base64,is_superuser"
    user_id, password_hash, salt, flag = row.split(",")
    assert (user_id, flag, result["superusers"]) == ("root", "true", 1)
    assert hashlib.sha256(base64.b64decode(salt) + b"pw").hexdigest() == password_hash
    assert sent(broker)[0] == "POST /api/v5/data/export"
    assert sent(broker)[1].startswith("DELETE /api/v5/data/files/")


@pytest.mark.parametrize("version", ["5.8.9"])
def test_an_export_that_fails_leaves_nothing_behind(broker: FakeEmqx, tmp_path: Path) -> None:
    broker.add_user("alice", "pw")
    path = tmp_path / "users.csv"
    path.write_text("of the last time")
    broker.order_fault("status", match="GET /api/v5/data/files/", status=400, body='{"code": "BAD_REQUEST"}')
    with pytest.raises(EmqxError):
        execute(EmqxExportUsersOperator, output_path=str(path), with_hashes=True)
    assert path.read_text() == "of the last time"
    assert os.listdir(tmp_path) == ["users.csv"]
    assert not broker.state.backups


@pytest.mark.parametrize("version", ["4.4.19"])
@pytest.mark.parametrize("deletable", [False, True])
def test_a_build_that_does_not_find_its_exports_is_told_what_to_do(
    broker: FakeEmqx, tmp_path: Path, deletable: bool
) -> None:
    broker.add_user("alice", "pw")
    broker.lose_backups(deletable=deletable)
    path = tmp_path / "users.csv"
    left = "was deleted again" if deletable else "stays on the disk of node emqx@127.0.0.1"
    with pytest.raises(EmqxError, match=f"{left}.*Run 'emqx_ctl data export' on that node"):
        execute(EmqxExportUsersOperator, output_path=str(path), with_hashes=True)
    assert not path.exists()
    assert bool(broker.state.backups) is not deletable


@pytest.mark.parametrize("version", ["5.8.9"])
def test_an_export_that_cannot_be_deleted_is_warned_about(
    broker: FakeEmqx, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.add_user("alice", "pw")
    broker.order_fault("status", match="DELETE /api/v5/data/files/", status=403, body="{}", times=9)
    execute(EmqxExportUsersOperator, output_path=str(tmp_path / "users.csv"), with_hashes=True)
    (name,) = broker.state.backups
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(f"The export {name} stays on the disk of node" in message for message in warned)

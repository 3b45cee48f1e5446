"""What FakeEmqx exports and imports is what real brokers do."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from airflow_provider_emqx.archives.archive import read_archive, read_meta
from airflow_provider_emqx.archives.tables import read_items, read_table
from airflow_provider_emqx.archives.terms import Atom, decode, encode
from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxOutcomeUnknownError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.testing.state import Backup
from tests.archives.made import ARCHIVES, CONTRACT, META, archive, renamed, tar, users

PREFIX = {"name": "sha256", "salt_position": "prefix"}
SETS = ["builtin_authn", "builtin_authz", "banned"]


def tables(content: bytes) -> dict[str, tuple[Any, list[Any]]]:
    """Give schema and records of each table of an archive."""
    found = {}
    for name, file, _ in read_archive(io.BytesIO(content)):
        if name.startswith("mnesia/"):
            _, schema, *records = map(decode, read_items(io.BytesIO(file.read())))
            # what differs from node to node
            kept = [one for one in schema[2] if one[0] not in ("cookie", "disc_copies")]
            found[name] = ((*schema[:2], kept), sorted(records, key=repr))
    return found


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
def test_an_archive_that_is_imported_and_exported_is_that_of_the_real_broker(
    broker: FakeEmqx, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = renamed((CONTRACT / f"{ARCHIVES[version]}.tar.gz").read_bytes(), "real")
    with EmqxHook() as hook:
        hook.upload_backup("real.tar.gz", content)
        hook.import_backup("real.tar.gz")
        hook.request("POST", "/data/export", json={"table_sets": SETS, "root_keys": []})
        made = next(row for row in hook.list_backups() if row["filename"] != "real.tar.gz")
        again = hook.download_backup(made["filename"], made["node"])
    mine, real = tables(again), tables(content)
    # the double keeps no keys of SCRAM users, and what Erlang makes of an expression is Erlang's
    lost = ["mnesia/emqx_authn_scram_mnesia", "mnesia/emqx_authn_scram_mnesia_ns"]
    lost += ["mnesia/emqx_banned_rules"] if version == "5.8.9" else []
    for name in real:
        if name not in lost:
            assert mine[name] == real[name], name
    assert mine["mnesia/emqx_banned_rules"][0] == real["mnesia/emqx_banned_rules"][0]


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
def test_exported_tables_are_those_of_the_real_broker_byte_for_byte(
    broker: FakeEmqx, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_emqx.testing import archives, backups

    content = (CONTRACT / f"{ARCHIVES[version]}.tar.gz").read_bytes()
    backup = Backup("real.tar.gz", broker.state.node, 0.0, renamed(content, "real"))
    backups.restore(broker.state, backup)
    real = {name: file.read() for name, file, _ in read_archive(io.BytesIO(content))}
    node = decode(next(islice(read_items(io.BytesIO(real["mnesia/emqx_authn_mnesia"])), 1)))[4]
    broker.state.nodes[node] = replace(broker.state.nodes.pop(broker.state.node), name=node)
    mine = archives.make(broker.state, "x", SETS, [])
    # what this recording has and the double does not keep: keys of SCRAM users, and compiled expressions
    others = {
        "mnesia/emqx_authn_scram_mnesia",
        "mnesia/emqx_authn_scram_mnesia_ns",
        "mnesia/emqx_banned_rules",
    }
    made = {name: file.read() for name, file, _ in read_archive(io.BytesIO(mine))}
    assert [name for name in made if name not in others] == [name for name in real if name not in others]
    for name, data in real.items():
        if name.startswith("mnesia/") and name not in others:
            assert made[name] == with_moments_of(made[name], data), name


def with_moments_of(mine: bytes, real: bytes) -> bytes:
    """Give a recorded table the time, the cookie and the version that mine has."""
    for path in ((0, 5), (1, 2, "cookie"), (1, 2, "version")):
        found = []
        for data in (mine, real):
            term: Any = [decode(one) for one in islice(read_items(io.BytesIO(data)), 2)]
            for step in path:
                term = dict(term)[step] if isinstance(step, str) else term[step]
            found.append(term)
        for latin in (True, False):
            ours, theirs = (encode(one, latin)[1:] for one in found)
            size = len(ours) - len(theirs)
            if theirs in real:
                # the item that holds it is as much longer
                real = real.replace(theirs, ours)
                assert size == 0, path
                break
    return real


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
def test_devices_of_an_imported_archive_log_in(broker: FakeEmqx, version: str) -> None:
    with FakeEmqx(version, password_hash_algorithm=PREFIX) as other:
        with EmqxHook() as hook:
            content = (CONTRACT / f"{ARCHIVES[version]}.tar.gz").read_bytes()
            hook.upload_backup("real.tar.gz", renamed(content, "real"))
        other.state.backups.update(broker.state.backups)
        from airflow_provider_emqx.testing import backups

        backups.restore(other.state, other.state.backups["real.tar.gz"])
        assert other.verify("alice", "pw-alice")
        assert other.verify("ü/ö %", "pw-ü")
        assert other.users["root"].is_superuser
        assert other.bans["peerhost", "10.9.9.9"].until == 4070908800
        assert other.acl_rules("username", "alice")[0]["retain"] is True


def test_an_export_of_emqx_4_is_read_as_the_recorded_one_is() -> None:
    from airflow_provider_emqx.testing import exports

    with FakeEmqx("4.4.19") as fake:
        content = (CONTRACT / "emqx-4.4.19-export.json").read_bytes()
        exports.restore(fake.state, content)
        assert fake.users_of("clientid")["expc-dev-2"].accepts("pässwörd €", PREFIX)
        given, mine = json.loads(content), json.loads(exports.make(fake.state))
    assert set(mine) == set(given)
    for name in ("auth_mnesia", "acl_mnesia", "blacklist"):
        for row in [*given[name], *mine[name]]:
            row.pop("created_at", None)
            row.pop("at", None)
        assert sorted(map(repr, mine[name])) == sorted(map(repr, given[name]))
        assert set(map(type, mine[name])) == {dict}


def test_passwords_of_an_export_of_emqx_4_are_salted_hashes() -> None:
    from airflow_provider_emqx.testing import exports

    with FakeEmqx("4.4.19") as fake:
        fake.add_user("d", "pw")
        (row,) = json.loads(exports.make(fake.state))["auth_mnesia"]
        stored = base64.b64decode(row["password"])
        assert hashlib.sha256(stored[:4] + b"pw").hexdigest().encode() == stored[4:]
        assert fake.verify("d", "pw")


@pytest.mark.parametrize("version", ["5.8.9"])
def test_only_the_tables_that_are_asked_for_are_exported(broker: FakeEmqx) -> None:
    broker.add_user("d", "pw")
    with EmqxHook() as hook:
        made = hook.request("POST", "/data/export", json={"table_sets": ["builtin_authn"], "root_keys": []})
        content = hook.download_backup(made["filename"])
        everything = hook.download_backup(hook.export_backup()["filename"])
    names = [name for name, _, _ in read_archive(io.BytesIO(content))]
    assert names == [
        "META.hocon",
        "cluster.hocon",
        "mnesia/emqx_authn_mnesia",
        "mnesia/emqx_authn_scram_mnesia",
    ]
    for name, file, _ in read_archive(io.BytesIO(everything)):
        if name == "META.hocon":
            assert read_meta(file) == ("ce", "5.8.9")
        if name == "mnesia/emqx_authn_mnesia":
            assert len(list(read_table(file)[1])) == 1
    assert broker.verify("d", "pw")


@pytest.mark.parametrize("version", ["5.8.9"])
def test_an_item_without_fields_deletes_and_a_table_that_is_cut_imports_silently_short(
    broker: FakeEmqx,
) -> None:
    from airflow_provider_emqx.archives.tables import item

    broker.add_user("old", "pw")
    broker.add_user("stays", "pw")
    short = users([("new", "ab" * 32, b"s"), ("cut", "ab" * 32, b"s")])[:-5]
    gone = users([]) + item(encode((Atom("emqx_authn_mnesia"), (Atom("mqtt:global"), b"old"))))
    with EmqxHook() as hook:
        for name, data in (("one", short), ("two", gone)):
            content = renamed(archive({"emqx_authn_mnesia": data}), name)
            hook.upload_backup(f"{name}.tar.gz", content)
            hook.import_backup(f"{name}.tar.gz")
    assert sorted(broker.users) == ["new", "stays"]


@pytest.mark.parametrize("version", ["5.8.9"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tar({"META.hocon": b'edition = ee\nversion = "5.8.0"\n'}), "Enterprise data backup"),
        (tar({"META.hocon": b'edition = ce\nversion = "5.9.0"\n'}), "is newer than"),
        (tar({"META.hocon": b'edition = ce\nversion = "5.8.12"\n'}), ""),
        (tar({"cluster.hocon": b""}), "invalid or corrupted"),
        (b"junk", "invalid or corrupted"),
        (tar({"META.hocon": META}, root="another"), "must be under <backup name> directory"),
    ],
    ids=range(6),
)
def test_archives_of_brokers_that_are_newer_or_of_another_edition_are_refused(
    broker: FakeEmqx, content: bytes, reason: str
) -> None:
    with EmqxHook() as hook:
        if not reason:
            hook.upload_backup("emqx-export-1.tar.gz", content)
            return
        with pytest.raises(EmqxBadRequestError, match=reason):
            hook.upload_backup("emqx-export-1.tar.gz", content)


@pytest.mark.parametrize("version", ["5.8.9", "6.3.0"])
def test_users_of_gateways_are_in_the_same_table_and_no_users_of_mqtt_clients(broker: FakeEmqx) -> None:
    from airflow_provider_emqx.archives.users import ExportedUsers
    from airflow_provider_emqx.testing import backups

    content = renamed(archive({"emqx_authn_mnesia": users([("d", "ab" * 32, b"s")], "stomp:global")}), "x")
    backups.restore(broker.state, Backup("x.tar.gz", broker.state.node, 0.0, content))
    broker.add_user("d", "pw")
    assert broker.verify("d", "pw")
    found = ExportedUsers(io.BytesIO(backups.make(broker.state, ["builtin_authn"], []).content))
    assert (list(found.ids()), found.others) == (["d"], {"stomp:global": 1})


@pytest.mark.parametrize("version", ["5.8.9"])
def test_while_an_import_runs_the_same_file_is_not_found_in_pieces(broker: FakeEmqx) -> None:
    content = renamed(
        archive({"emqx_authn_mnesia": users([("a", "ab" * 32, b"s"), ("b", "ab" * 32, b"s")])}), "x"
    )
    broker.lose_import(3600)
    with EmqxHook() as hook:
        hook.upload_backup("x.tar.gz", content)
        with pytest.raises(EmqxOutcomeUnknownError, match="enoent"):
            hook.import_backup("x.tar.gz")
        assert not broker.users
        broker.advance(3600)
        assert sorted(broker.users) == ["a", "b"]
        broker.users.clear()
        broker.cut_import(1)
        hook.import_backup("x.tar.gz")
    assert sorted(broker.users) == ["a"]

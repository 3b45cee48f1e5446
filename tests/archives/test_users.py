from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.archives.archive import ArchiveError
from airflow_provider_emqx.archives.tables import TableError, item, read_table
from airflow_provider_emqx.archives.terms import Atom, decode, encode
from airflow_provider_emqx.archives.users import ExportedUsers, Stored, has_only_users, note, record
from tests.archives.made import ARCHIVES, CONTRACT, META, USER, archive, table, tar, users

TABLE = "emqx_authn_mnesia"
SOME = [(f"d{i}", "ab" * 32, b"salt") for i in range(20)]


def exported(*items: bytes) -> ExportedUsers:
    """Read an archive with further items after three users."""
    return ExportedUsers(io.BytesIO(archive({TABLE: users(SOME[:3]) + b"".join(items)})))


@pytest.mark.parametrize("version", ARCHIVES)
def test_users_of_recorded_exports_are_found_and_listed(version: str) -> None:
    found = ExportedUsers(io.BytesIO((CONTRACT / f"{ARCHIVES[version]}.tar.gz").read_bytes()))
    assert list(found.ids()) == ["", "alice", "root", "salted", "ü/ö %"]
    assert found.get("salted") == Stored(b"0" * 64, b"abcd", False)
    root = found.get("root")
    assert root is not None
    assert root.is_superuser
    assert found.get("") == Stored(b"1" * 64, b"", False)
    assert found.get("nobody") is None
    assert (len(found), found.others, found.odd) == (5, {}, [])


@pytest.mark.parametrize("version", ARCHIVES)
def test_changes_are_a_table_with_the_broker_s_own_schema(version: str) -> None:
    found = ExportedUsers(io.BytesIO((CONTRACT / f"{ARCHIVES[version]}.tar.gz").read_bytes()))
    stored = Stored(b"ab" * 32, b"\xff,\n", True)
    packed = found.pack("x", [("new", stored)])
    again = ExportedUsers(io.BytesIO(packed))
    assert (again.meta, list(again.ids()), again.odd) == (found.meta, ["new"], [])
    assert again.get("new") == stored


def test_a_deletion_is_a_tuple_of_table_and_key() -> None:
    schema, items = read_table(io.BytesIO(users([]) + record("ü".encode(), None)))
    assert schema.attributes == USER
    assert list(items) == [(Atom(TABLE), (Atom("mqtt:global"), "ü".encode()))]


def test_ids_that_are_no_text_and_other_groups_are_told_apart() -> None:
    def other(group: Any, key: Any) -> bytes:
        return item(encode((Atom(TABLE), (group, key), b"h", b"s", False)))

    mqtt = Atom("mqtt:global")
    found = exported(
        other(mqtt, 5), other(mqtt, b"\xff"), other(Atom("stomp:global"), b"d1"), other(b"listener", b"d2")
    )
    assert list(found.ids()) == ["d0", "d1", "d2"]
    assert sorted(found.odd) == ["5", "\\xff"]
    assert found.others == {"stomp:global": 1, "listener": 1}


def test_a_record_with_a_checksum_is_read() -> None:
    stored = Stored(b"ab" * 32, b"s", False)
    found = exported(record(b"x" * 70_000, stored))
    assert found.get("x" * 70_000) == stored


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (archive({}), ArchiveError, "no table emqx_authn_mnesia"),
        (archive({TABLE: users(SOME)[:-3]}), TableError, "cut or damaged"),
        (archive({TABLE: users(SOME) + b"\0"}), TableError, "cut or damaged"),
        (archive({TABLE: table(TABLE, (*USER, "extra"), [])}), TableError, "has the fields"),
        (archive({TABLE: table("emqx_acl", USER, [])}), TableError, "holds the table 'emqx_acl'"),
        (archive({TABLE: users(SOME) + item(encode(5))}), TableError, "record of an unknown form"),
        (archive({TABLE: users(SOME) + item(b"\x83")}), TableError, "the term is cut"),
        (archive({TABLE: b"x"}), TableError, "it is cut"),
        (b"user_id,password\n", ArchiveError, "cut or damaged"),
    ],
)
def test_what_is_no_export_of_users_is_refused(content: bytes, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        ExportedUsers(io.BytesIO(content))


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 200) | st.none())
def test_any_spoilt_table_is_read_or_refused(at: int, value: int, cut: int | None) -> None:
    data = bytearray(users(SOME))
    data[at % len(data)] = value
    if cut:
        del data[-cut:]
    try:
        found = ExportedUsers(io.BytesIO(archive({TABLE: bytes(data)})))
    except (ArchiveError, TableError):
        return
    # whoever is listed is found, and as the table has it
    _, records = read_table(io.BytesIO(bytes(data)))
    kept = {key[1]: Stored(*others) for _, key, *others in records if isinstance(key, tuple)}
    assert all(found.get(user_id) == kept[user_id.encode()] for user_id in found.ids())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"META.hocon": META, "cluster.hocon": b"", f"mnesia/{TABLE}": users([])}, True),
        ({"META.hocon": META, "cluster.hocon": b"mqtt {}", f"mnesia/{TABLE}": users([])}, False),
        (
            {"META.hocon": META, "cluster.hocon": b"", f"mnesia/{TABLE}": users([]), "mnesia/emqx_acl": b""},
            False,
        ),
        ({"META.hocon": META, "cluster.hocon": b"", f"mnesia/{TABLE}": users([]), "certs/x": b""}, False),
        ({"META.hocon": META, "cluster.hocon": b""}, False),
        ({"META.hocon": META, f"mnesia/{TABLE}": users([])}, False),
    ],
)
def test_exports_of_users_alone_are_told_from_others(files: dict[str, bytes], expected: bool) -> None:
    assert has_only_users(io.BytesIO(tar(files))) is expected
    assert not has_only_users(io.BytesIO(tar(files)[:-10]))


def test_a_note_changes_nothing() -> None:
    assert not has_only_users(io.BytesIO(note("x", "ce", "5.8.9")))
    assert decode(encode(Atom("x"), latin=True)) == Atom("x")

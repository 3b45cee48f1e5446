from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.archives.archive import ArchiveError, Meta, read_archive, read_meta, write_archive
from airflow_provider_emqx.archives.tables import LONGEST, TableError, read_items, read_table
from airflow_provider_emqx.archives.terms import Atom, decode, encode
from tests.archives.made import ARCHIVES, CONTRACT, META, USER, archive, table, tar, users

QUICK = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def told(term: Any) -> Any:
    """Write a term as the recorded content of the archives has it."""
    match term:
        case bool():
            return {"atom": str(term).lower()}
        case Atom():
            return {"atom": str(term)}
        case bytes():
            try:
                return term.decode()
            except UnicodeDecodeError:
                return {"hex": term.hex()}
        case tuple():
            return {"tuple": [told(one) for one in term]}
        case list():
            return [told(one) for one in term]
        case dict():
            return {"map": [[told(key), told(value)] for key, value in term.items()]}
    return term


@pytest.mark.parametrize("version", ARCHIVES)
def test_archives_of_real_brokers_are_read_to_the_last_item(version: str) -> None:
    truth = json.loads((CONTRACT / f"{ARCHIVES[version]}.json").read_text())
    read = {}
    with (CONTRACT / f"{ARCHIVES[version]}.tar.gz").open("rb") as packed:
        for member in read_archive(packed):
            content = member.file.read()
            read[member.name] = (
                [told(decode(item)) for item in read_items(io.BytesIO(content))]
                if member.name.startswith("mnesia/")
                else content.decode()
            )
    assert read == truth


def test_what_is_written_is_what_a_real_broker_wrote() -> None:
    """EMQX 6 writes atoms as this does; 5.8.9 in an older form, which all read."""
    with (CONTRACT / f"{ARCHIVES['6.3.0']}.tar.gz").open("rb") as packed:
        for member in read_archive(packed):
            if not member.name.startswith("mnesia/"):
                continue
            content = member.file.read()
            header, schema, *records = map(decode, read_items(io.BytesIO(content)))
            file = io.BytesIO()
            from airflow_provider_emqx.archives.tables import write_table

            assert write_table(file, header, schema, records) == len(records)
            assert file.getvalue() == content


def test_an_archive_that_is_written_can_be_read() -> None:
    buffer = io.BytesIO()
    content = users([("alice", "aa", b"\xff\x00")])
    files = {"META.hocon": META, "mnesia/emqx_authn_mnesia": content}
    write_archive(buffer, "mine", ((name, io.BytesIO(data), len(data)) for name, data in files.items()))
    read = {member.name: member.file.read() for member in read_archive(io.BytesIO(buffer.getvalue()))}
    assert read == files
    assert read_meta(io.BytesIO(META)) == Meta("ce", "5.8.9")


def whole(data: bytes) -> list[str]:
    """Read an archive to its end, its tables too."""
    names = []
    for member in read_archive(io.BytesIO(data)):
        names.append(member.name)
        if member.name.startswith("mnesia/"):
            list(read_table(member.file)[1])
    return names


def test_each_cut_of_an_archive_is_found() -> None:
    data = (CONTRACT / f"{ARCHIVES['5.8.9']}.tar.gz").read_bytes()
    assert len(whole(data)) == 7
    for length in range(0, len(data) - 1, 7):
        with pytest.raises((ArchiveError, TableError)):
            whole(data[:length])


def test_each_cut_of_the_tar_inside_is_found() -> None:
    plain = gzip.decompress((CONTRACT / f"{ARCHIVES['5.8.9']}.tar.gz").read_bytes())
    end = len(plain.rstrip(b"\0"))
    for length in [*range(0, end, 512), *range(100, end, 900)]:
        with pytest.raises((ArchiveError, TableError)):
            whole(gzip.compress(plain[:length], 1))


def test_each_cut_of_a_table_is_found_but_those_between_records() -> None:
    content = users([(f"u{number}", "aa", b"salt") for number in range(3)])
    borders, at = set(), 8
    for item in read_items(io.BytesIO(content)):
        at += 8 + len(item)
        borders.add(at)
    for length in range(len(content)):
        if length in borders and length != min(borders):
            continue
        with pytest.raises(TableError):
            list(read_table(io.BytesIO(content[:length]))[1])


def linked(kind: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("root/META.hocon")
        member.type = kind
        member.linkname = "/etc/passwd"
        archive.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut or damaged"),
        (b"not an archive at all", "cut or damaged"),
        (gzip.compress(b"x" * 2000), "cut or damaged"),
        (tar({"cluster.hocon": b""}), "no META.hocon"),
        (tar({"META.hocon": META, "../../etc/cron.d/x": b"x"}), "outside of its directory"),
        (tar({"../META.hocon": META}, root=""), "outside of its directory"),
        (tar({"/META.hocon": META}, root=""), "outside of its directory"),
        (tar({"one/META.hocon": META, "two/mnesia/x": b""}, root=""), "several directories"),
        (linked(tarfile.SYMTYPE), "a link or a device"),
        (linked(tarfile.LNKTYPE), "a link or a device"),
        (linked(tarfile.CHRTYPE), "a link or a device"),
    ],
    ids=range(11),
)
def test_archives_that_no_broker_made_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ArchiveError, match=reason):
        whole(data)


def test_a_file_that_is_there_twice_is_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for _ in range(2):
            member = tarfile.TarInfo("root/META.hocon")
            member.size = len(META)
            archive.addfile(member, io.BytesIO(META))
    with pytest.raises(ArchiveError, match="twice"):
        whole(buffer.getvalue())


@pytest.mark.parametrize("name", ["cluster.hocon", "mnesia/emqx_authn_mnesia"])
def test_an_archive_that_expands_endlessly_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.tar.gz"
    member = tarfile.TarInfo(f"root/{name}")
    member.size = 1 << 28
    zeros = bytes(1 << 20)
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(member.tobuf())
        for _ in range(256):
            file.write(zeros)
    with (
        pytest.raises((ArchiveError, TableError), match="expands to more than|does not begin as a table"),
        path.open("rb") as packed,
    ):
        for found in read_archive(packed):
            if found.name.startswith("mnesia/"):
                read_table(found.file)


@pytest.mark.parametrize("text", ["", "edition = ce", 'version = "5.8.9"', "\xff\x00"])
def test_what_made_an_archive_must_be_told(text: str) -> None:
    with pytest.raises(ArchiveError, match="which edition and version"):
        read_meta(io.BytesIO(text.encode("latin-1")))


ITEM = encode((Atom("t"), b"k"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is cut"),
        (b"\x01\x02\x03\x04\x06\x07\x08\x09", "did not finish"),
        (b"PK\x03\x04PK\x03\x04", "does not begin as a table"),
        (table("t", ("k",), [])[:8], "cut before its first record"),
        (table("t", ("k",), []) + struct.pack(">I", len(ITEM)) + b"XXXX" + ITEM, "does not begin as one"),
        (table("t", ("k",), []) + struct.pack(">I", LONGEST + 1) + b"bWLA", "at most are expected"),
        (
            table("t", ("k",), []) + struct.pack(">I", 70_000) + b"bWLA" + bytes(70_016),
            "size of an item is damaged",
        ),
        (table("t", ("k",), []) + struct.pack(">I", 3) + b"bWLA\x83a", "is cut"),
        (table("t", ("k",), []) + struct.pack(">I", 1) + b"bWLA\x83", "record 1: the term is cut"),
    ],
)
def test_tables_that_are_damaged_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(TableError, match=reason):
        list(read_table(io.BytesIO(content))[1])


def test_long_records_have_their_size_protected() -> None:
    """As Erlang's disk_log writes and expects it."""
    record = (Atom("t"), b"k" * 70_000)
    content = table("t", ("k",), [record])
    assert list(read_table(io.BytesIO(content))[1]) == [record]
    assert struct.pack(">I", len(encode(record))) + b"bWLA" in content
    assert encode(record) not in content[: -len(encode(record)) - 16 - 8 + 24]


@QUICK
@given(st.integers(0, 5_000), st.binary(max_size=4), st.sampled_from(sorted(ARCHIVES)))
def test_an_archive_that_is_spoilt_in_one_place_is_read_or_refused(
    at: int, spoiler: bytes, version: str
) -> None:
    plain = gzip.decompress((CONTRACT / f"{ARCHIVES[version]}.tar.gz").read_bytes())
    at %= len(plain.rstrip(b"\0"))
    spoilt = plain[:at] + spoiler + plain[at + len(spoiler) :]
    with suppress(ArchiveError, TableError):
        whole(gzip.compress(spoilt, 1))


def test_the_schema_says_what_the_records_have() -> None:
    schema, records = read_table(io.BytesIO(users([("alice", "aa", b"s")])))
    assert (schema.name, schema.attributes) == ("emqx_authn_mnesia", USER)
    assert list(records) == [(Atom("emqx_authn_mnesia"), (Atom("mqtt:global"), b"alice"), b"aa", b"s", False)]
    assert whole(archive({"emqx_authn_mnesia": users([])})) == ["META.hocon", "mnesia/emqx_authn_mnesia"]

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.api.messages import message_row
from airflow_provider_emqx.api.names import topic_name
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.connection import read_connection
from airflow_provider_emqx.provisioning.blocks import FIELDS, Format
from airflow_provider_emqx.provisioning.check import Checker
from airflow_provider_emqx.provisioning.sources import read_file, read_rows

QUICK = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PASSWORD = "pl4nted-PASS"

#: files that are nearly right, and then spoilt in one place
GOOD = {
    "csv": b'user_id,password,is_superuser\ndev-1,p1,true\n"dev,2","p""2",\n\ndev-3,"p\n3",false\n',
    "jsonl": b'{"user_id":"dev-1","password":"p1"}\n\n{"user_id":"dev-2","password":"p2","is_superuser":true}\n',
    "json": b'[{"user_id":"dev-1","password":"p1"}, {"user_id":"dev-2","password":"p2"}]',
}
SPOILERS = st.sampled_from([b"", b"\x00", b"\xff", b"\"", b"\n", b"\r", b",", b"{", b"}", b"[", b"]", b"\\", b"\xef\xbb\xbf",  # noqa: E501
                            b"\xed\xa0\x80", b"9" * 5000, b"[" * 3000, b"1e999", b"\xff\xfe"])  # fmt: skip


def outcome(path: Path, how: Format) -> tuple[int, int, str]:
    """Read and check a file to its end; nothing but a typed error may end it early."""
    good = bad = 0
    checker = Checker(Broker("v5", (5, 8, 9)))
    try:
        for block in read_file(str(path), how):
            assert all(len(column) == len(block.lines) for column in block.columns)
            bad += len(block.bad)
            good += len(block.lines)
            check(checker, block)
    except EmqxError as error:
        return good, bad, str(error)
    return good, bad, ""


def check(checker: Checker, block: Any) -> None:
    checker.check(block)


@pytest.mark.parametrize("name", sorted(GOOD))
@QUICK
@given(
    place=st.integers(0, 90),
    spoiler=SPOILERS,
    cut=st.integers(0, 5),
    zipped=st.booleans(),
    broken=st.booleans(),
)
def test_a_spoilt_file_gives_rows_rejections_or_one_typed_error(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    place: int,
    spoiler: bytes,
    cut: int,
    zipped: bool,
    broken: bool,
) -> None:
    whole = GOOD[name]
    content = whole[:place] + spoiler + whole[place + cut :]
    if zipped:
        content = gzip.compress(content)
        content = content[: -(place % 12) - 1] if broken else content
    path = tmp_path_factory.mktemp("spoilt") / f"users.{name}"
    path.write_bytes(content)
    good, bad, error = outcome(path, Format())
    assert good + bad or error or not content.strip()


@pytest.mark.parametrize("name", ["csv", "json", "jsonl", "parquet"])
@QUICK
@given(
    content=st.binary(max_size=300),
    encoding=st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-32", "ascii"]),
)
def test_any_bytes_give_rows_rejections_or_one_typed_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, encoding: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"users.{name}"
    path.write_bytes(content)
    outcome(path, Format(encoding=encoding))


@QUICK
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(FIELDS) | TEXT, VALUES, max_size=5) | VALUES, max_size=5)
)
def test_any_rows_are_taken_or_rejected(rows: list[Any]) -> None:
    seen = 0
    checker = Checker(Broker("v5", (5, 8, 9)))
    try:
        for block in read_rows(rows, Format()):
            seen += len(block.lines) + len(block.bad)
            check(checker, block)
    except EmqxError:
        return
    assert seen == len(rows)


@QUICK
@given(message=st.dictionaries(st.sampled_from(["topic", "payload", "qos", "retain", "payload_encoding", "properties"])
                               | TEXT, VALUES, max_size=6) | VALUES)  # fmt: skip
def test_any_message_is_written_out_or_refused(message: Any) -> None:
    try:
        row = message_row(message)
    except EmqxConfigError:
        return
    json.dumps(row).encode()
    assert row["qos"] in (0, 1, 2)
    assert isinstance(row["retain"], bool)


@QUICK
@given(topic=VALUES | st.text("ab/+#$\x00\ud800é", max_size=12))
def test_any_topic_is_one_or_refused(topic: Any) -> None:
    try:
        assert topic_name(topic).encode()
    except EmqxConfigError:
        return


EXTRAS = st.dictionaries(
    st.sampled_from(["api_version", "emqx_version", "authenticator", "namespace", "verify", "connect_timeout",
                     "attempts", "read_timeout", "deadline", "rate_limit", "proxy", "allow_http", "read_only"]) | TEXT,
    VALUES | st.sampled_from(["5.8.9", "true", "4", "1e400", "nan", "9" * 5000, "http://p:1", "/nonexistent", "\x00"]),
    max_size=5,
)  # fmt: skip
HOSTS = TEXT | st.text("htps:/[]@.?#%0123456789ab \x00", max_size=40) | st.sampled_from(
    ["https://b.example.com", "[::1]", "b.example.com:99999", "https://[::1", "http://\u2100.example.com"]
)  # fmt: skip


@QUICK
@given(
    host=HOSTS, port=st.none() | st.integers(-5, 70000), login=TEXT, password=TEXT, schema=TEXT, extras=EXTRAS
)
def test_any_connection_is_read_or_refused(
    host: str, port: int | None, login: str, password: str, schema: str, extras: dict[str, Any]
) -> None:
    from types import SimpleNamespace

    conn: Any = SimpleNamespace(
        conn_id="c",
        host=host,
        port=port,
        login=login or "k",
        password=password or PASSWORD,
        schema=schema,
        extra=None,
    )
    try:
        made = read_connection(conn, extras)
    except EmqxConfigError as error:
        assert PASSWORD not in str(error)  # noqa: PT017  no error is fine as well
        return
    assert made.origin.startswith(("http://", "https://"))
    assert made.deadline > 0
    assert made.authorization.isascii()

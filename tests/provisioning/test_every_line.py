"""Every line of a source ends in exactly one outcome, or the run fails: of any bytes, in any format."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.provisioning.blocks import Block, Format
from airflow_provider_emqx.provisioning.sources import Source, read_file
from airflow_provider_emqx.provisioning.task import provision
from airflow_provider_emqx.provisioning.terms import UserTerms
from airflow_provider_emqx.testing import FakeEmqx

MANY = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=60)

#: what CSV and JSON are made of, and what breaks them
OBJECTS = [b'{"user_id":"u","password":"p"}', b'{"user_id":"v","password":5}\n']
PIECES = [b'"', b'"', b'""', b",", b",", b"\n", b"\n", b"\r\n", b"\r", b"a", b"dev-1", b"dev-2,def\n", b'dev-3,"abc\n',
          b'dev-4,ghi"\n', b'"p\nq"', b"{", b"}", b"[", b"]", b":", b"\\", b" ", b"\x00", b"\xff", b"\xc3\xa9",
          b"\x0b", b"\xe2\x80\xa8", b'"user_id"', b'"password"', b"null", b"1e5", OBJECTS[0] * 2, *OBJECTS]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join) | st.binary(max_size=80)
HEADERS = st.sampled_from(
    [b"user_id,password\n", b"password,user_id\r\n", b'"user_id","password"\n\n', b"user_id\n"]
)
QUOTINGS = st.sampled_from(["standard", "none"])
OBJECT = re.compile(r"\{[^{}]*\}")
LINE_END = re.compile(r"\r\n|\r|\n")


def lines_of(content: bytes) -> list[str]:
    text = content.decode("utf-8-sig", "surrogateescape")
    return [
        line.removesuffix("\n").removesuffix("\r")
        for line in re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", text)
    ]


def blocks_of(path: Any, how: Format) -> list[Block]:
    """Read a file to its end, or as far as its first error, which is raised."""
    blocks = list(read_file(path, how))
    if str(path).endswith(".jsonl"):
        return blocks
    starts = [line for block in blocks for line in (*block.lines, *(bad.line for bad in block.bad))]
    assert len(starts) == len(set(starts))
    return blocks


@MANY
@given(header=HEADERS, body=TEXT, quoting=QUOTINGS)
@example(b"user_id,password\n", b'dev-1,"abc\ndev-2,def\ndev-3,ghi"\ndev-4,jkl\n', "standard")
@example(b"user_id,password\n", b'"abc\ndev-2,def"\n', "standard")
@example(b"user_id\n", b'"dev-1\ndev-2"\n', "standard")
def test_every_line_of_csv_belongs_to_one_outcome(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, body: bytes, quoting: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.csv"
    path.write_bytes(header + body)
    width = header.count(b",") + 1
    lines = lines_of(header + body)
    try:
        blocks = blocks_of(path, Format(ids_only=width == 1, quoting=quoting))
    except EmqxError:
        return
    owned = Counter({1: 1})
    for block in blocks:
        for line, *values in zip(block.lines, *block.columns, strict=True):
            over = sum(len(LINE_END.findall(value)) for value in values if value is not None)
            owned.update(range(line, line + over + 1))
            taken_in = lines[line : line + over]
            rows = [taken.count(",") + 1 >= width for taken in taken_in]
            assert not (lines[line - 1].count(",") + 1 >= width and any(rows))
            assert not any(row and '"' not in taken for row, taken in zip(rows, taken_in[:-1], strict=False))
        owned.update(bad.line for bad in block.bad)
    assert set(owned.values()) == {1}
    assert all(number in owned for number, line in enumerate(lines, 1) if line)


@MANY
@given(body=TEXT)
def test_every_line_of_json_lines_belongs_to_one_outcome(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_bytes(body)
    try:
        blocks = blocks_of(path, Format())
    except EmqxError:
        return
    good = Counter(line for block in blocks for line in block.lines)
    bad = [bad.line for block in blocks for bad in block.bad]
    # a value that is no object is rejected alone, so a line of several is one of objects only
    assert not {line for line in bad if line in good}
    assert sorted({*good, *bad}) == [number for number, line in enumerate(lines_of(body), 1) if line.strip()]
    for line, count in good.items():
        assert count == lines_of(body)[line - 1].count('{"user_id":') or count == 1


@MANY
@given(
    body=TEXT
    | st.lists(st.sampled_from([*OBJECTS, b"5", b"null"]), max_size=9).map(
        lambda items: b"[%s]" % b",".join(items)
    )
)
def test_every_item_of_json_has_one_outcome(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("items") / "x.json"
    path.write_bytes(body)
    try:
        blocks = list(read_file(path, Format()))
    except EmqxError:
        return
    text = body.decode("utf-8-sig", "surrogateescape").strip(" \t\r\n")
    items = json.loads(text) if text[0] == "[" else OBJECT.findall(text)
    assert sum(len(block.lines) + len(block.bad) for block in blocks) == len(items)


def zstd(content: bytes) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    return bytes(arrow.compress(content, "zstd", asbytes=True))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
@FEW
@given(
    rows=st.lists(st.integers(0, 5), max_size=3),
    cut=st.integers(0, 60),
    put=st.binary(max_size=4),
    place=st.integers(0, 400),
    overwrite=st.booleans(),
)
@example(rows=[2], cut=0, put=b"X", place=len(bz2.compress(b"user_id,password\n")), overwrite=True)
@example(rows=[2], cut=0, put=b"X", place=len(lzma.compress(b"user_id,password\n")), overwrite=True)
def test_of_a_damaged_compressed_file_no_row_is_lost_in_silence(
    tmp_path_factory: pytest.TempPathFactory,
    pack: Callable[[bytes], bytes],
    rows: list[int],
    cut: int,
    put: bytes,
    place: int,
    overwrite: bool,
) -> None:
    parts = [b"user_id,password\n", *(b"d,p\n" * count for count in rows)]
    packed = b"".join(map(pack, parts))
    place %= len(packed)
    path = tmp_path_factory.mktemp("packed") / "x.csv"
    path.write_bytes(packed[:place] + put + packed[place + (len(put) if overwrite else cut) :])
    try:
        found = sum(len(block.lines) + len(block.bad) for block in read_file(path, Format()))
    except EmqxError:
        return
    # nobody can tell that whole streams were cut out, and Zstandard may be written without a checksum
    whole = {
        sum(rows[:at]) + sum(rows[to:]) for at in range(len(rows) + 1) for to in range(at, len(rows) + 1)
    }
    assert found in ({sum(rows)} if overwrite and pack is not zstd else whole)


@FEW
@given(count=st.integers(0, 1_200), cut=st.integers(0, 40))
def test_every_row_of_parquet_has_one_outcome(
    tmp_path_factory: pytest.TempPathFactory, count: int, cut: int
) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    from pyarrow import parquet

    raw = io.BytesIO()
    ids = [None if at % 7 == 3 else f"d{at}" for at in range(count)]
    parquet.write_table(arrow.table({"user_id": arrow.array(ids, arrow.string()), "password": ids}), raw)
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    path.write_bytes(raw.getvalue()[: len(raw.getvalue()) - cut])
    try:
        blocks = blocks_of(path, Format())
    except EmqxError:
        assert cut or not count
        return
    assert sum(len(block.lines) for block in blocks) == count
    assert not cut


@pytest.fixture(scope="module", params=["4.4.19", "5.8.9"])
def hook(request: pytest.FixtureRequest) -> Any:
    with (
        FakeEmqx(request.param) as broker,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        with EmqxHook() as hook:
            yield hook


@FEW
@given(header=HEADERS, body=TEXT, quoting=QUOTINGS, name=st.sampled_from(["csv", "json", "jsonl"]))
def test_every_line_of_a_run_is_in_its_sums_and_its_report(
    tmp_path_factory: pytest.TempPathFactory,
    hook: EmqxHook,
    header: bytes,
    body: bytes,
    quoting: str,
    name: str,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    path, report = folder / f"x.{name}", folder / "report.jsonl"
    path.write_bytes(header + body if name == "csv" else body)
    how = Format(quoting=quoting)
    kept: dict[str, Any] = {}
    try:
        summary = provision(
            hook,
            Source(read_file(path, how), [path]),
            UserTerms(report_path=report, dry_run=True),
            kept.update,
        )
    except EmqxError:
        summary = kept
        if not kept:
            return
    told = [json.loads(line) for line in report.read_text().split("\n")[:-1]]
    sums = Counter(row["outcome"] for row in told)
    assert summary["read"] == len(told) == sum(summary[one] for one in ("written", "skipped", "rejected"))
    assert {name: summary[name] for name in sums} == dict(sums)
    if name == "csv":
        assert len({row["line"] for row in told}) == len(told)

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.conditions import ids
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.files import open_to_write
from airflow_provider_emqx.provisioning.blocks import Block, Format
from airflow_provider_emqx.provisioning.sources import read_file, read_rows, read_source

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: bytes | str, name: str = "devices.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def take(blocks: Iterable[Block]) -> tuple[list[tuple[Any, ...]], list[tuple[int, object, str]]]:
    """Give (line, user_id, password, is_superuser) of the rows and (line, user_id, reason) of the bad ones."""
    rows, bad = [], []
    for block in blocks:
        rows += zip(block.lines, *block.columns[:3], strict=True)
        bad += [one[:3] for one in block.bad]
    return rows, bad


def read(path: str, **how: Any) -> tuple[list[tuple[Any, ...]], list[tuple[int, object, str]]]:
    return take(read_file(path, Format(**how)))


def read_until_error(path: str, **how: Any) -> tuple[list[tuple[Any, ...]], EmqxError]:
    rows: list[tuple[Any, ...]] = []
    with pytest.raises(EmqxError) as caught:
        for block in read_file(path, Format(**how)):
            rows += take([block])[0]
    return rows, caught.value


# ---------------------------------------------------------------------- CSV


def test_csv_rows_have_the_line_they_start_in(write: Write) -> None:
    path = write("user_id,password,is_superuser\na,1,true\n\nb,2,\n")
    assert read(path) == ([(2, "a", "1", "true"), (4, "b", "2", "")], [])


def test_columns_may_stand_anywhere_and_be_called_otherwise(write: Write) -> None:
    path = write("note,key,device\nx,p1,a\n,p2,b\n")
    rows, _ = read(path, columns={"user_id": "device", "password": "key"})
    assert rows == [(2, "a", "p1", None), (3, "b", "p2", None)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_is_read(write: Write, end: str) -> None:
    assert read(write(end.join(["user_id,password", "a,1", "b,2"])))[0] == [
        (2, "a", "1", None),
        (3, "b", "2", None),
    ]


def test_quotes_delimiters_and_line_breaks_inside_fields(write: Write) -> None:
    path = write('user_id,password\n"a,b","x\ny"\n"c""d","1\r\n2\r\n3"\ne,f\n')
    assert read(path) == (
        [(2, "a,b", "x\ny", None), (4, 'c"d', "1\r\n2\r\n3", None), (7, "e", "f", None)],
        [],
    )


def test_a_field_of_one_megabyte(write: Write) -> None:
    path = write(f'user_id,password\na,{"x" * 1_000_000}\nb,"{"y" * 1_000_000}"\n')
    rows, bad = read(path)
    assert [len(row[2]) for row in rows] == [1_000_000, 1_000_000]
    assert not bad


def test_a_field_that_no_request_could_carry_is_rejected_and_the_next_rows_are_read(write: Write) -> None:
    path = write(f"user_id,password\na,{'x' * 8_000_001}\nb,2\n")
    rows, bad = read(path)
    assert rows == [(3, "b", "2", None)]
    assert [line for line, *_ in bad] == [2]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("x.csv.gz", "user_id,password\na,1\nlong,", '\nb,2\n"c\nd",3\n'),
        ("x.csv.gz", 'user_id,password\na,1\nlong,"\n', '"\nb,2\n"c\nd",3\n'),
        (
            "x.jsonl.gz",
            '{"user_id": "a", "password": "1"}\n{"user_id": "long", "password": "',
            '"}\n{"user_id": "b", "password": "2"}\n{"user_id": "c\\nd", "password": "3"}\n',
        ),
    ],
)
def test_a_line_without_end_costs_its_own_row_and_little_memory(
    tmp_path: Path, name: str, first: str, last: str
) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(first.encode())
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(last.encode())
    tracemalloc.start()
    blocks = list(read_file(path, Format()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows, bad = take(blocks)
    assert [row[1:3] for row in rows] == [("a", "1"), ("b", "2"), ("c\nd", "3")]
    assert "the line has more than 8,000,000 characters" in {reason for _, _, reason in bad}
    assert "long" in bad[0][1:] or any("long" in one.maybe for block in blocks for one in block.bad)
    assert peak < 90_000_000


def test_too_many_and_too_few_fields_are_rejected_without_showing_any_of_them(write: Write) -> None:
    path = write("user_id,password\nx,secret,1\nsecret\ny,2\n")
    rows, bad = read(path)
    assert rows == [(4, "y", "2", None)]
    assert bad == [
        (2, None, "too many fields: 3, the header has 2"),
        (3, None, "too few fields: 1, the header has 2"),
    ]


def test_a_quote_that_is_never_closed_costs_its_own_row_only(write: Write) -> None:
    good = "".join(f"d{i},p\n" for i in range(2_000))
    rows, bad = read(write(f'user_id,password\na,"oops\n{good}'))
    assert len(rows) == 2_000
    assert rows[0] == (3, "d0", "p", None)
    assert rows[-1] == (2_002, "d1999", "p", None)
    assert [(line, user_id) for line, user_id, _ in bad] == [(2, None)]


def test_stray_quotes_cost_their_own_rows_only(write: Write) -> None:
    rows, bad = read(write('user_id,password\n"a"b,1\nc,2\n"d"e,3\nf,4\n'))
    assert rows == [(3, "c", "2", None), (5, "f", "4", None)]
    assert [line for line, *_ in bad] == [2, 4]


def test_a_quote_takes_in_no_line_that_looks_like_a_row(write: Write) -> None:
    rows, bad = read(write('user_id,password\ndev-1,"abc\ndev-2,def\ndev-3,ghi"\ndev-4,jkl\n'))
    assert rows == [(3, "dev-2", "def", None), (4, "dev-3", 'ghi"', None), (5, "dev-4", "jkl", None)]
    [(line, user_id, reason)] = bad
    assert (line, user_id) == (2, None)
    assert "quoting='none'" in reason
    # the last line that is taken in is whole, too
    rows, bad = read(write('user_id,password\ndev-1,"abc\ndev-2,def"\n'))
    assert (rows, bad[0][0]) == ([(3, "dev-2", 'def"', None)], 2)
    # and nothing is taken in by a line that is no row itself
    rows, bad = read(write('user_id,password\n"abc\ndev-2,def"\ndev-3,"x\nz\n",1\ndev-4,p\n'))
    assert [row[1] for row in rows] == ["dev-2", "dev-4"]
    assert sorted(one[0] for one in bad) == [2, 4, 5, 6]
    rows, bad = read(write('user_id\n"dev-1\ndev-2"\n'), ids_only=True)
    assert ([row[1] for row in rows], [one[0] for one in bad]) == (['dev-2"'], [2])


@pytest.mark.parametrize(
    "text",
    [
        'user_id,password\na,"p\n\nq"\n',
        'password,user_id\n"p\n\nq",a\n',
        'user_id,note,password\na,"one\ntwo, or three","p\n\nq"\n',
        'user_id,"note\n(optional, short)",password\na,n,"p\n\nq"\n',
    ],
)
def test_a_field_over_lines_that_are_no_rows_is_believed(write: Write, text: str) -> None:
    rows, bad = read(write(text))
    assert ([row[1:3] for row in rows], bad) == ([("a", "p\n\nq")], [])


def test_a_header_takes_in_no_row(write: Write) -> None:
    with pytest.raises(EmqxConfigError, match=r"line 1: the header cannot be read: a quote .*quoting='none'"):
        read(write('user_id,password,"note\ndev-1,p,x"\ndev-2,p,x\n'))


def test_no_line_of_a_writer_who_quotes_nothing_is_lost(write: Write) -> None:
    choose = random.Random(1)
    printable = [chr(code) for code in range(33, 127)]
    passwords = ["".join(choose.choices(printable, k=12)) for _ in range(20_000)]
    path = write("user_id,password\n" + "".join(f"d{i},{one}\n" for i, one in enumerate(passwords)))
    rows, bad = read(path)
    assert sorted([row[0] for row in rows] + [one[0] for one in bad]) == list(range(2, 20_002))
    quoted = {i for i, one in enumerate(passwords) if one[0] == one[-1] == '"'}
    assert {row[1]: row[2] for row in rows if int(row[1][1:]) not in quoted}.items() <= {
        f"d{i}": one for i, one in enumerate(passwords)
    }.items()
    rows, bad = read(path, quoting="none")
    right = [(i + 2, f"d{i}", one, None) for i, one in enumerate(passwords) if "," not in one]
    assert rows == right
    assert len(bad) == 20_000 - len(right)


def test_line_numbers_after_many_blocks_and_multi_line_fields(write: Write) -> None:
    text = "user_id,password\n" + "".join(
        f'd{i},"p\n{i}"\n' if i % 700 == 3 else f"d{i},p\n" for i in range(3_000)
    )
    lines = text.split("\n")
    rows, bad = read(write(text))
    assert len(rows) == 3_000
    assert not bad
    assert all(lines[row[0] - 1].startswith(f"{row[1]},") for row in rows)


def test_bytes_that_are_not_utf8_leave_the_other_rows_alone(write: Write) -> None:
    rows, bad = read(write(b"user_id,password\na,1\nb\xff,2\nc,3\n"))
    assert [row[1] for row in rows] == ["a", "b\udcff", "c"]
    assert not bad


def test_a_nul_is_a_matter_of_its_row(write: Write) -> None:
    rows, bad = read(write(b"user_id,password\na,1\nb\0,2\nc,3\n" + b"d,4\n" * 10))
    assert [row[1] for row in rows][:3] == ["a", "b\0", "c"]
    assert not bad


def test_a_byte_order_mark_is_no_part_of_the_header(write: Write) -> None:
    assert read(write(b"\xef\xbb\xbfuser_id,password\na,1\n"))[0] == [(2, "a", "1", None)]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings(write: Write, encoding: str) -> None:
    path = write("user_id,password\nmüller,1\n".encode(encoding))
    assert read(path, encoding=encoding)[0] == [(2, "müller", "1", None)]


def test_another_delimiter(write: Write) -> None:
    assert read(write("user_id;password\na,b;1\n"), delimiter=";")[0] == [(2, "a,b", "1", None)]


def test_a_header_alone_has_no_rows(write: Write) -> None:
    assert read(write("user_id,password\n")) == ([], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        ("dev1,S3cret\n", "has no column 'user_id'; it has 2 columns"),
        ("user_id,name\na,b\n", "no column 'password'"),
        ("User-ID,password\na,b\n", "but 'User-ID': map it"),
        ("user_id;password\na;b\n", "Is the source option delimiter=';' meant"),
        ("user_id,user_id,password\na,b,c\n", "column 'user_id' twice"),
        ('"user_id,password\na,b\n', "header cannot be read"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a text file"),
        (b"PK\x03\x04rest", "ZIP archive"),
        ("user_id,password\na,b\n".encode("utf-16"), "encoding='utf-16'"),
    ],
)
def test_a_file_without_readable_rows_is_refused(write: Write, content: bytes | str, message: str) -> None:
    with pytest.raises(EmqxConfigError, match=message) as caught:
        read(write(content))
    assert "S3cret" not in str(caught.value)
    assert "devices.csv" in str(caught.value)


def test_a_missing_file_a_directory_and_an_unknown_file_system(tmp_path: Path) -> None:
    with pytest.raises(EmqxConfigError, match=r"none\.csv' not found$"):
        read(str(tmp_path / "none.csv"))
    with pytest.raises(EmqxConfigError, match="file 'none.csv' not found in the task's working directory '/"):
        read("none.csv")
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(EmqxConfigError, match="is a directory"):
        read(str(tmp_path / "dir.csv"))
    with pytest.raises(EmqxConfigError, match="cannot be opened"):
        read("nosuch://bucket/x.csv")


def test_a_column_that_is_mapped_must_be_there(write: Write) -> None:
    with pytest.raises(EmqxConfigError, match="'admin'"):
        read(write("user_id,password\na,b\n"), columns={"is_superuser": "admin"})


def test_a_source_of_ids_needs_no_other_column(write: Write) -> None:
    assert read(write("user_id\na\n"), ids_only=True)[0] == [(2, "a", None, None)]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"name": "xlsx"}, "format must be one of"),
        ({"columns": {"username": "x"}}, "unknown key 'username'"),
        ({"columns": {"user_id": 1}}, "both text"),
        ({"delimiter": ";;"}, "delimiter must be one character"),
        ({"quoting": "all"}, "quoting must be one of standard, none, not 'all'"),
        ({"encoding": "utf-9"}, "unknown encoding 'utf-9'"),
        ({"encoding": "base64"}, "unknown encoding 'base64'"),
    ],
)
def test_nonsense_about_the_format_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(EmqxConfigError, match=message):
        Format(**how)


# ---------------------------------------------------------------------- gzip, URLs, suffixes


def test_gzip_is_recognised_by_content(write: Write) -> None:
    body = gzip.compress(b"user_id,password\na,1\n")
    assert read(write(body, "x.csv.gz"))[0] == [(2, "a", "1", None)]
    assert read(write(body, "x.csv"))[0] == [(2, "a", "1", None)]


@pytest.mark.parametrize("cut", [0.5, 0.98])
def test_of_a_gzip_archive_that_is_cut_off_the_first_rows_are_read(write: Write, cut: float) -> None:
    lines = [f"d{i},{(i * 7919) % 1_000_003}" for i in range(60_000)]
    body = gzip.compress("\n".join(["user_id,password", *lines]).encode())
    rows, error = read_until_error(write(body[: int(len(body) * cut)], "x.csv.gz"))
    assert len(rows) > 10_000
    # the last line may be cut itself
    assert [row[1] for row in rows[:-1]] == [f"d{i}" for i in range(len(rows) - 1)]
    assert "damaged or cut off" in str(error)


def zstd(content: bytes) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    return bytes(arrow.compress(content, "zstd", asbytes=True))


@pytest.mark.parametrize(
    ("pack", "suffix"), [(gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz"), (zstd, "zst")]
)
def test_compressed_files_are_recognised_by_content(
    write: Write, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    halves = ("user_id,password\n" + "".join(f"d{i},p{i}\n" for i in range(700)), "e,f\n")
    # as parallel packers write it, and as cat puts it together
    content = b"".join(pack(half.encode()) for half in halves)
    for name in (f"Devices.CSV.{suffix.upper()}", "x.csv"):
        rows, bad = read(write(content, name))
        assert (len(rows), rows[-1], bad) == (701, (702, "e", "f", None), [])
    damaged = (
        content[: len(content) - 5],
        # in the head of the second stream
        content[: -len(pack(b"e,f\n"))] + b"XYZ" + pack(b"e,f\n")[3:],
        content + b"XYZ",
    )
    for packed in damaged:
        read_until_error(write(packed))


def test_zeros_after_an_xz_stream_are_padding(write: Write) -> None:
    one, two = lzma.compress(b"user_id,password\na,b\n"), lzma.compress(b"c,d\n")
    rows, bad = read(write(one + bytes(4 * 70_000) + two + bytes(8)))
    assert ([row[1] for row in rows], bad) == (["a", "c"], [])


def test_zstandard_without_its_library_is_refused_in_our_words(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(zstd(b"user_id,password\na,b\n"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EmqxConfigError, match=r"Zstandard needs airflow-provider-emqx\[parquet\]"):
        read(path)


def test_the_format_is_told_by_the_suffix_or_given(write: Write) -> None:
    line = '{"user_id": "a", "password": "1"}\n'
    expected = [(1, "a", "1", None)]
    assert read(write(line, "x.jsonl"))[0] == expected
    assert read(write(line, "x.NDJSON"))[0] == expected
    assert read(write(f"[{line}]", "x.json"))[0] == expected
    assert read(write(gzip.compress(line.encode()), "x.jsonl.gz"))[0] == expected
    assert read(write(line, "x.txt"), name="jsonl")[0] == expected
    with pytest.raises(EmqxConfigError, match="give format="):
        read(write(line, "x.txt"))


def test_urls_and_paths_are_opened_by_object_storage(write: Write) -> None:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    path = write("user_id,password\na,1\n")
    zipped = write(gzip.compress(b"user_id,password\na,1\n"), "y.csv.gz")
    for source in (f"file://{path}", ObjectStoragePath(f"file://{path}"), Path(path), f"file://{zipped}"):
        assert take(read_file(source, Format()))[0] == [(2, "a", "1", None)]


def test_a_library_that_refuses_every_path_of_this_airflow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.common.compat import sdk

    class ObjectStoragePath:
        """As universal_pathlib 0.3 makes it on Airflow 3.0."""

        def __init__(self, path: str) -> None:
            raise TypeError("ObjectStoragePath(...) detected protocol s3 which is incompatible.")

    monkeypatch.setattr(sdk, "ObjectStoragePath", ObjectStoragePath, raising=False)
    with pytest.raises(EmqxConfigError, match="s3://a/b.csv.*need universal_pathlib<0.3"):
        take(read_file("s3://a/b.csv", Format()))
    with pytest.raises(EmqxConfigError, match="s3://a/ids.txt.*need universal_pathlib<0.3"):
        ids.read_file("s3://a/ids.txt")


# ---------------------------------------------------------------------- JSON


def test_json_lines_that_are_no_objects_are_rejected(write: Write) -> None:
    path = write(
        '{"user_id": "a", "password": "1", "is_superuser": true}\n\nnot json S3cret\n[1]\n"x"\n{"user_id": 5}\n'
        '{"user_id": "b", "password"',
        "x.jsonl",
    )
    rows, bad = read(path)
    assert rows == [(1, "a", "1", True), (6, 5, None, None)]
    assert [(line, user_id) for line, user_id, _ in bad] == [(3, None), (7, None), (4, None), (5, None)]
    assert "S3cret" not in str(bad)


@pytest.mark.parametrize("spaces", [None, 2])
def test_a_json_array_larger_than_what_is_read_at_a_time(write: Write, spaces: int | None) -> None:
    items = [{"user_id": f"ü{i}", "password": "x" * (i % 97) + "]},{"} for i in range(6_000)]
    text = json.dumps(items, indent=spaces, ensure_ascii=False)
    rows, bad = read(write(text, "x.json"))
    assert [(row[1], row[2]) for row in rows] == [(item["user_id"], item["password"]) for item in items]
    assert not bad
    lines = text.split("\n")
    assert rows[0][0] == (2 if spaces else 1)
    assert rows[-1][0] == (len(lines) - 4 if spaces else 1)


def test_a_json_array_is_not_read_ahead(write: Write) -> None:
    class Endless(io.RawIOBase):
        served = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            item = b'{"user_id": "x", "password": "y"},'
            text = (b"[" if not self.served else b"") + item * (len(buffer) // len(item) - 1)
            buffer[: len(text)] = text
            self.served += len(text)
            return len(text)

    from airflow_provider_emqx.provisioning.formats import Where, read_json_array

    endless = Endless()
    text = io.TextIOWrapper(io.BufferedReader(endless, 1 << 16), encoding="utf-8", newline="")
    next(read_json_array(text, Format(), Where("x")))
    assert endless.served < 1_000_000


def test_a_json_item_of_megabytes(write: Write) -> None:
    items = [{"user_id": "a", "password": "x" * 3_000_000}, {"user_id": "b", "password": "y"}]
    rows, _ = read(write(json.dumps(items), "x.json"))
    assert [len(row[2]) for row in rows] == [3_000_000, 1]


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "\ufeff[]"])
def test_an_empty_json_array_has_no_rows(write: Write, text: str) -> None:
    assert read(write(text, "x.json")) == ([], [])


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ('{"user_id": "c" "password"}]', r"line 3: the JSON breaks here: .* \(byte 87\)"),
        ('{"user_id": "c", "pass', "line 3: the file ends in the middle"),
        ("", "line 3: the file ends in the middle"),
        ("nonsense]", "line 3: the JSON breaks here"),
        ('{"user_id": "c"} {"user_id": "d"}]', "a comma or ] is expected"),
        ('{"user_id": "c"}] more', "something follows the end"),
    ],
)
def test_json_that_breaks_says_where_after_the_rows_before_it(write: Write, end: str, message: str) -> None:
    start = '[{"user_id": "a", "password": "1"},\n{"user_id": "b", "password": "2"},\n'
    rows, error = read_until_error(write(start + end, "x.json"))
    assert [row[1] for row in rows][:2] == ["a", "b"]
    assert isinstance(error, EmqxConfigError)
    assert re.search(message, error.message), error.message


def test_the_byte_where_json_breaks_counts_bytes_of_the_file(write: Write) -> None:
    items = ",\n".join('{"user_id": "ü", "password": "1"}' for _ in range(5_000))
    text = f"[{items},\n!]"
    rows, error = read_until_error(write(text, "x.json"))
    assert len(rows) == 5_000
    assert (
        f"line 5,001: the JSON breaks here: Expecting value (byte {text.encode().index(b'!'):,})"
        in error.message
    )


@pytest.mark.parametrize("between", ["", " ", "\n", "\r\n\r\n"])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_objects_one_after_the_other_are_rows(write: Write, name: str, between: str) -> None:
    objects = [json.dumps({"user_id": f"d{i}", "password": "{}"}) for i in range(3_000)]
    rows, bad = read(write(between.join(objects), name))
    assert ([row[1:3] for row in rows], bad) == ([(f"d{i}", "{}") for i in range(3_000)], [])


def test_objects_may_go_over_lines(write: Write) -> None:
    text = "\n".join(json.dumps({"user_id": f"d{i}", "password": "p"}, indent=1) for i in range(3))
    assert read(write(text, "x.json"))[0] == [(1 + 4 * i, f"d{i}", "p", None) for i in range(3)]


def test_a_line_of_json_lines_that_is_more_than_objects_is_rejected_whole(write: Write) -> None:
    good = '{"user_id": "a", "password": "p"}'
    rows, bad = read(write(f"{good} 5\n{good},{good}\n{good}[]\n{good}{{\n{good}\n", "x.jsonl"))
    assert [row[0] for row in rows] == [5]
    assert [one[0] for one in bad] == [1, 2, 3, 4]


WRAPPED = {
    "meta": {"items": [1], "}": "]"},
    "data": {"n": 2, "items": [{"user_id": "a", "password": "p"}] * 2},
    "end": None,
}


def test_rows_names_the_array_in_an_object(write: Write) -> None:
    text = json.dumps(WRAPPED)
    rows, bad = read(write(text, "x.json"), rows="data.items")
    assert (rows, bad) == ([(1, "a", "p", None)] * 2, [])
    assert read(write('{"items":[]}', "x.json"), rows="items") == ([], [])
    with pytest.raises(EmqxConfigError, match=r"rows='data\.items'"):
        read(write(text, "x.json"))
    for end in range(len(text)):
        read_until_error(write(text[:end], "x.json"), rows="data.items")


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ('{"data": {}}', "data.items", "the object has no field 'items', which rows names"),
        ("{}", "data", "the object has no field 'data'"),
        ('{"data": 5}', "data", "the value at rows is not an array"),
        ("[]", "data", "expected an object with the field 'data'"),
        ('{"data": [], "data": [{}]}', "data", "the object has the field 'data' twice"),
        ('{"data": [],}', "data", "a name and a colon are expected"),
        ('{"data": [] 5}', "data", "a comma or } is expected"),
        ('{"data": []} {}', "data", "something follows the end"),
    ],
)
def test_a_document_without_the_array_that_rows_names_is_refused(
    write: Write, text: str, rows: str, message: str
) -> None:
    with pytest.raises(EmqxConfigError, match=re.escape(message)):
        read(write(text, "x.json"), rows=rows)


def test_rows_is_for_json_files(write: Write) -> None:
    with pytest.raises(EmqxConfigError, match="rows names the array in a JSON file"):
        read(write("user_id,password\n"), rows="data")
    with pytest.raises(EmqxConfigError, match="rows names the array in a JSON file"):
        read_source([{"user_id": "a"}], Format(rows="data"))
    with pytest.raises(EmqxConfigError, match="rows must be the name of an array"):
        Format(rows="data..items")


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_dotted_columns_reach_into_objects(write: Write, name: str) -> None:
    columns = {"user_id": "device.id", "password": "auth.secret"}
    items = [
        {"device": {"id": "a"}, "auth": {"secret": "p"}},
        {"device.id": "b", "device": 5, "auth": {"secret": "q"}},
        {"device": {"id": "c"}, "auth": "r"},
        {"device": {"id": "d"}, "auth": {"secret": None}},
        {"password": "s", "auth": {"secret": "t"}},
    ]
    text = json.dumps(items) if name == "x.json" else "\n".join(map(json.dumps, items))
    rows, bad = read(write(text, name), columns=columns)
    assert [row[1:3] for row in rows] == [("a", "p"), ("b", "q")]
    assert [one[1:] for one in sorted(bad, key=itemgetter(2))] == [
        ("c", "password is missing: the row has no 'auth.secret'"),
        ("d", "password is missing: the row has no 'auth.secret'"),
        (None, "user_id is missing: the row has no 'device.id'"),
    ]


def test_a_row_with_a_hash_needs_no_mapped_password() -> None:
    given = [{"user_id": "a", "password_hash": "x"}, {"user_id": "b"}]
    rows, bad = take(read_rows(given, Format(columns={"password": "key"})))
    assert ([row[1] for row in rows], [one[1] for one in bad]) == (["a"], ["b"])


def test_text_in_place_of_an_array_is_refused(write: Write) -> None:
    with pytest.raises(EmqxConfigError, match="must begin with"):
        read(write('"text"', "x.json"))


def test_json_bytes_that_are_not_utf8_leave_the_other_rows_alone(write: Write) -> None:
    rows, _ = read(write(b'[{"user_id":"a\xff","password":"1"},{"user_id":"b","password":"2"}]', "x.json"))
    assert [row[1] for row in rows] == ["a\udcff", "b"]


def test_json_nested_without_end_is_an_error_of_the_file(write: Write) -> None:
    rows, error = read_until_error(write('[{"user_id":"a"},' + "[" * 100_000, "x.json"))
    assert [row[1] for row in rows] == ["a"]
    assert "nested too deeply" in error.message


# ---------------------------------------------------------------------- lists


def test_rows_of_a_list_have_their_position_as_line() -> None:
    rows, bad = take(read_rows([{"user_id": "a", "password": "1"}, ["b"], None, {"user_id": 1}], Format()))
    assert rows == [(1, "a", "1", None), (4, 1, None, None)]
    assert bad == [(2, None, "this is a list, not an object"), (3, None, "this is nothing, not an object")]


def test_an_iterable_is_read_as_it_is_needed() -> None:
    given = []

    def rows() -> Iterable[dict[str, str]]:
        for i in range(100_000):
            given.append(i)
            yield {"user_id": f"d{i}", "password": "p"}

    next(read_rows(rows(), Format()))
    assert len(given) < 2_000


def test_the_csv_field_limit_of_the_process_is_never_lowered(write: Write) -> None:
    before = csv.field_size_limit(20_000_000)
    try:
        read(write("user_id,password\na,1\n"))
        assert csv.field_size_limit() == 20_000_000
    finally:
        csv.field_size_limit(before)


# ---------------------------------------------------------------------- how many rows


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.json", "x.jsonl", "x.jsonl.gz"])
@pytest.mark.parametrize("count", [10, 20_000])
def test_the_rows_of_files_can_be_guessed(write: Write, tmp_path: Path, name: str, count: int) -> None:
    rows = [{"user_id": f"d{i:06d}", "password": f"{i * 7919 % 1_000_003:06d}"} for i in range(count)]
    text = {
        "csv": "user_id,password\n" + "".join(f"{row['user_id']},{row['password']}\n" for row in rows),
        "json": json.dumps(rows),
        "jsonl": "\n".join(map(json.dumps, rows)),
    }[name.split(".")[1]]
    body = gzip.compress(text.encode()) if name.endswith("gz") else text.encode()
    files = [write(body, name), write(body, f"2{name}")]
    for source, times in ((files[0], 1), (tmp_path, 2)):
        guess = read_source(source, Format()).expected()
        assert guess == pytest.approx(times * count, rel=0.15)


def test_what_cannot_be_guessed_is_not_known(write: Write) -> None:
    assert read_source(write("[]", "x.json"), Format()).expected() is None
    assert read_source(write(b"\x1f\x8brest", "x.csv"), Format()).expected() is None
    assert read_source(iter([]), Format()).expected() is None
    assert read_source([{}, {}], Format()).expected() == 2


@pytest.mark.parametrize("path", ["/tmp/a\0b.csv", "/tmp/a\ud800b.csv"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(EmqxConfigError, match="is not a path"):
        list(read_source(path, Format()).blocks)
    with pytest.raises(EmqxConfigError, match="is not a path"):
        open_to_write(path, "report")


@pytest.mark.parametrize("source", [None, 7, "", b"x", {"user_id": "a"}])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(
        EmqxConfigError, match=r"source (must be|has no value: give) a path, a URL or a list of rows"
    ):
        read_source(source, Format())


@pytest.mark.parametrize(
    "text",
    [
        '[{"user_id": "a", "password": "S3cret"}]',
        "[{'user_id': 'a', 'password': 'S3cret'}]",
        ' {"password": "S3cret"}',
    ],
)
def test_rows_that_became_text_are_refused_and_not_shown(text: str) -> None:
    with pytest.raises(EmqxConfigError, match="give the list itself") as caught:
        read_source(text, Format())
    assert "S3cret" not in str(caught.value)


def test_a_pattern_may_begin_with_a_bracket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("user_id,password\na,1\n")
    assert list(read_source("[ab].csv", Format()).files) == ["a.csv"]

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from contextlib import closing
from functools import cache
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.api.acl import read_rules, read_subject
from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.api.clientids import subscriptions
from airflow_provider_emqx.api.messages import message_row
from airflow_provider_emqx.api.names import topic_name
from airflow_provider_emqx.conditions import ids
from airflow_provider_emqx.conditions.thresholds import Threshold
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.connection import read_connection
from airflow_provider_emqx.operators.backup_store import Store as BackupStore
from airflow_provider_emqx.provisioning.acl import AclTerms, Rows, RulesFormat
from airflow_provider_emqx.provisioning.blocks import FIELDS, Format
from airflow_provider_emqx.provisioning.check import Checker
from airflow_provider_emqx.provisioning.progress import KEY, Progress
from airflow_provider_emqx.provisioning.sources import read_file, read_rows
from airflow_provider_emqx.provisioning.state import State

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

#: beginnings of gzip: a whole header, its flags set, more members, an empty one
ZIPPED = [gzip.compress(GOOD["csv"]), gzip.compress(b"") + gzip.compress(GOOD["jsonl"]),
          b"\x1f\x8b\x08\x1f" + bytes(30), b"\x1f\x8b\x07\x00",
          gzip.compress(GOOD["json"])[:-4] + b"\xff" * 4]  # fmt: skip
PROPERTIES = ["payload_format_indicator", "message_expiry_interval", "response_topic", "correlation_data",
              "content_type", "user_properties"]  # fmt: skip


def outcome(path: Path, how: Format) -> tuple[int, int, str]:
    """Read and check a file to its end; nothing but a typed error may end it early."""
    good = bad = 0
    checker = Checker(Broker("v5", (5, 8, 9)))
    try:
        for block in read_file(str(path), how):
            assert all(len(column) == len(block.lines) for column in block.columns)
            bad += len(block.bad)
            good += len(block.lines)
            if not isinstance(how, RulesFormat):
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


@pytest.mark.parametrize("how", [Format(), RulesFormat(), RulesFormat(ids_only=True)])
@pytest.mark.parametrize("name", ["csv", "json", "jsonl"])
@QUICK
@given(head=st.sampled_from(ZIPPED), content=st.binary(max_size=300), place=st.integers(0, 60))
def test_anything_that_says_it_is_gzip_gives_rows_rejections_or_one_typed_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, how: Format, head: bytes, content: bytes, place: int
) -> None:
    path = tmp_path_factory.mktemp("gzip") / f"users.{name}.gz"
    path.write_bytes(head[: max(place, 2)] + content + head[max(place, 2) + len(content) :])
    outcome(path, how)


@QUICK
@given(place=st.integers(0, 5000), content=st.binary(max_size=8), cut=st.integers(0, 40), ends=st.booleans())
def test_a_spoilt_parquet_file_gives_rows_rejections_or_one_typed_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, content: bytes, cut: int, ends: bool
) -> None:
    whole = _parquet()
    # most of what matters stands in the footer
    place = len(whole) - 8 - place % 700 if ends else place % len(whole)
    path = tmp_path_factory.mktemp("parquet") / "users.parquet"
    path.write_bytes(whole[:place] + content + whole[place + cut :])
    outcome(path, Format())


@cache
def _parquet() -> bytes:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    raw = io.BytesIO()
    rows = {
        "user_id": ["dev-1", "dev,2"] * 50,
        "password": ["p1", "p\u00e9"] * 50,
        "is_superuser": [True, None] * 50,
    }
    parquet.write_table(arrow.table(rows), raw)
    return raw.getvalue()


RULE_VALUES = VALUES | st.sampled_from(
    [
        "true",
        "allow",
        "deny",
        "publish",
        "all",
        "a/#",
        "eq a",
        "0,1",
        "12",
        ["1", ""],
        [[]],
        "9" * 5000,
        "\ud800",
        ".",
    ]
)


@pytest.mark.parametrize("qos", ["12", "01", "012", [""], ["01"], [12], "1,,12", [[]], True, "9" * 5000])
def test_a_qos_that_is_none_is_refused(qos: Any) -> None:
    with pytest.raises(EmqxConfigError, match="qos must be"):
        read_rules([{"topic": "t", "permission": "allow", "qos": qos}])
    with pytest.raises(EmqxConfigError, match="qos must be"):
        subscriptions({"topic": "t", "qos": qos})


@pytest.mark.parametrize("rules", [None, 5, "allow", {"topic": "t", "permission": "allow"}])
def test_rules_that_are_no_list_are_refused(rules: Any) -> None:
    with pytest.raises(EmqxConfigError, match="must be a list of dicts"):
        read_rules(rules)


@pytest.mark.parametrize("mode", ["set", "delete"])
@QUICK
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(RulesFormat.fields), RULE_VALUES, max_size=3)
        | st.dictionaries(TEXT, VALUES)
        | VALUES,
        max_size=5,
    ),
    spoiler=SPOILERS,
    over=st.booleans(),
)
def test_any_rules_are_kept_whole_or_rejected(mode: str, rows: list[Any], spoiler: bytes, over: bool) -> None:
    how = RulesFormat(ids_only=mode == "delete")
    good = {"username": "u", "topic": "a/b", "permission": "allow"}
    rows = [{**good, **row} if isinstance(row, dict) and over else row for row in rows]
    good["qos"] = spoiler.decode("latin-1")
    with closing(Rows(AclTerms(mode=mode))) as kept:
        rejected = [outcome for block in read_rows([*rows, good], how) for outcome in kept.add(block)]
        subjects = list(kept.subjects())
    assert len(rejected) + sum(len(subject.places) for subject, _ in subjects) == len(rows) + 1
    for subject, _ in subjects:
        assert read_subject(subject.name) == subject.name
        if mode == "set":
            assert read_rules(subject.rules) == subject.rules
            assert all(set(rule["qos"]) <= {0, 1, 2} for rule in subject.rules)


@QUICK
@given(rules=st.lists(st.dictionaries(st.sampled_from(["topic", "permission", "action", "qos", "retain"]), RULE_VALUES))
             | RULE_VALUES)  # fmt: skip
def test_a_column_of_rules_is_read_or_rejected(rules: Any) -> None:
    checker = Checker(Broker("v5", (5, 8, 9)))
    text = json.dumps(rules, default=repr)
    for given_rules in (rules, text, text[:-1]):
        block = next(read_rows([{"user_id": "u", "password": "p", "acl": given_rules}], Format()))
        check(checker, block)


@QUICK
@given(row=st.fixed_dictionaries({"topic": st.just("t"), "payload": st.just("p")}, optional={
    "properties": st.dictionaries(st.sampled_from(PROPERTIES) | TEXT, RULE_VALUES
                                  | st.dictionaries(TEXT | st.just("\ud800"), TEXT), max_size=3)}))  # fmt: skip
def test_any_property_is_written_out_or_refused(row: Any) -> None:
    try:
        json.dumps(message_row(row), ensure_ascii=False).encode()
    except EmqxConfigError:
        return


@QUICK
@given(
    options=st.dictionaries(
        st.sampled_from(["topic", "qos", "nl", "rap", "rh"]) | TEXT, RULE_VALUES, max_size=3
    )
    | VALUES
)
def test_any_subscription_is_one_or_refused(options: Any) -> None:
    for topics in (options, [options, {"topic": "t", **options} if isinstance(options, dict) else "t"]):
        try:
            json.dumps(subscriptions(topics), ensure_ascii=False).encode()
        except EmqxConfigError:
            continue


# ------------------------------------------------------------------------------------------- what we wrote ourselves


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a hook of a broker, never asked, and the content of a good state file for it."""
    hook: Any = SimpleNamespace(broker=Broker("v5", (5, 8, 9)), identity={"origin": "http://b"})
    path = tmp_path_factory.mktemp("state") / "state"
    state = State(path, "pepper", hook)
    users: Any = [{"user_id": f"u{i}", "password": "p"} for i in range(9)]
    state.forget(users)
    state.note(users)
    state.save()
    return hook, path.read_bytes()


@QUICK
@given(content=st.binary(max_size=80), place=st.integers(0, 200), cut=st.integers(0, 80), whole=st.booleans())
def test_any_state_file_is_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, states: Any, content: bytes, place: int, cut: int, whole: bool
) -> None:
    hook, good = states
    path = tmp_path_factory.mktemp("state") / "state"
    made = content if whole else good[:place] + content + good[place + cut :]
    path.write_bytes(made)
    try:
        state = State(path, "pepper", hook)
    except EmqxConfigError as error:
        assert "delete it" in str(error)  # noqa: PT017  a good one is fine as well
        return
    assert made[:42] == good[:42]
    assert len(state) <= (len(made) - 42) / 16
    assert not state.knows({"user_id": "u0", "password": "other"})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(("head", "told"), [(0, "not a state file"), (26, "another broker"), (42, "damaged")])
def test_a_large_file_that_is_no_state_file_is_not_read_into_memory(
    tmp_path: Path, states: Any, head: int, told: str
) -> None:
    hook, good = states
    path = tmp_path / "large"
    path.write_bytes(good[:head])
    # as long as memory is large, but on the disk it takes none; a damaged one must be read
    os.truncate(path, 1 << 40 if head < 42 else 42 + 16 * 100)
    with pytest.raises(EmqxConfigError, match=told):
        State(path, "pepper", hook)


COUNTS = st.none() | st.integers(-2, 9) | VALUES
GOOD_PROGRESS = {"fingerprint": "f", "users": 5, "done": 3, "created": 3, "updated": None, "unchanged": 0,
                 "in_scope": None, "others": [[1, "u", "rejected", "r", ""]]}  # fmt: skip


@QUICK
@given(
    kept=VALUES
    | st.fixed_dictionaries(
        {"fingerprint": st.just("f")},
        optional={
            **dict.fromkeys(["users", "done", "created", "updated", "unchanged", "in_scope"], COUNTS),
            "others": st.lists(st.lists(VALUES, max_size=6), max_size=3) | VALUES,
        },
    ),
    over=st.booleans(),
)
def test_progress_that_is_damaged_is_not_used(kept: Any, over: bool) -> None:
    store: dict[str, Any] = {KEY: {**GOOD_PROGRESS, **kept} if over and isinstance(kept, dict) else kept}
    progress = Progress(store, "f")  # type: ignore[arg-type]
    broker = progress.broker
    if progress.users:
        assert 0 <= broker.done <= progress.users
        for count in (broker.created, broker.updated, broker.unchanged, progress.in_scope):
            assert count is None or (type(count) is int and count >= 0)
        assert all(type(other.line) is int and isinstance(other.reason, str) for other in progress.others)
    else:
        assert not broker.done


def test_progress_that_is_whole_is_used() -> None:
    progress = Progress({KEY: GOOD_PROGRESS}, "f")  # type: ignore[arg-type]
    assert (progress.users, progress.broker.done, progress.broker.created, progress.broker.updated) == (
        5,
        3,
        3,
        None,
    )
    assert progress.others[0].reason == "r"


def _archive(kind: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name in ("META.hocon", "cluster.hocon"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return raw.getvalue()


BACKUPS = [b"", b"{}", b"[" * 100_000, b'{"a":' * 50_000, b'{"version": "4.4.19"}', _archive(""), _archive("gz"),
           _archive("xz"), _archive("bz2")]  # fmt: skip


@QUICK
@given(
    whole=st.sampled_from(BACKUPS),
    place=st.integers(0, 1200),
    content=st.binary(max_size=40),
    cut=st.integers(0, 40),
    zipped=st.booleans(),
    name=st.sampled_from(["emqx-export-1.tar.gz", "emqx-export-1.json"]) | TEXT,
)
def test_any_backup_is_kept_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    whole: bytes,
    place: int,
    content: bytes,
    cut: int,
    zipped: bool,
    name: str,
) -> None:
    target = tmp_path_factory.mktemp("backups")
    made = whole[:place] + content + whole[place + cut :]
    made = gzip.compress(made, 1) if zipped else made
    try:
        told = BackupStore(str(target)).write(name, made, None)
    except EmqxError:
        assert not os.listdir(target)
        return
    assert os.listdir(target) == [name]
    assert Path(told["backup_path"]).read_bytes() == made


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


EXTRA_VALUES = st.sampled_from(
    ["5.8.9", "true", "4", "1e400", "nan", "9" * 5000, "http://p:1", "/nonexistent", "\x00",
     10**400, "9" * 5000 + ".1.1", "\ud800", "http://[::1", "http://p:b", "http://p:0"]
)  # fmt: skip
EXTRAS = st.dictionaries(
    st.sampled_from(
        [
            "api_version",
            "emqx_version",
            "authenticator",
            "namespace",
            "verify",
            "connect_timeout",
            "attempts",
            "read_timeout",
            "deadline",
            "rate_limit",
            "proxy",
            "allow_http",
            "read_only",
        ]
    )
    | TEXT,
    VALUES | EXTRA_VALUES,
    max_size=5,
)
HOSTS = TEXT | st.text("htps:/[]@.?#%0123456789ab \x00", max_size=40) | st.sampled_from(
    ["https://b.example.com", "b.\ud800.com", "[::1]", "b.example.com:99999", "https://[::1", "http://\u2100.example.com"]
)  # fmt: skip


@QUICK
@given(
    host=HOSTS, port=st.none() | st.integers(-5, 70000), login=TEXT, password=TEXT, schema=TEXT, extras=EXTRAS
)
def test_any_connection_is_read_or_refused(
    host: str, port: int | None, login: str, password: str, schema: str, extras: dict[str, Any]
) -> None:
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
    assert made.origin.encode().startswith((b"http://", b"https://"))
    assert made.deadline > 0
    assert made.authorization.isascii()


GOOD_ADDRESS = {"host": "https://b.example.com/api/v5", "login": "k", "password": PASSWORD}


@pytest.mark.parametrize("name", ["api_version", "emqx_version", "authenticator", "namespace", "verify", "attempts",
                                  "connect_timeout", "read_timeout", "deadline", "rate_limit", "proxy", "allow_http",
                                  "read_only"])  # fmt: skip
@QUICK
@given(value=VALUES | EXTRA_VALUES)
def test_each_extra_may_be_of_any_json_type(name: str, value: Any) -> None:
    conn: Any = SimpleNamespace(conn_id="c", port=None, schema="", extra=None, **GOOD_ADDRESS)
    try:
        made = read_connection(conn, {name: value})
    except EmqxConfigError as error:
        assert PASSWORD not in str(error)  # noqa: PT017  no error is fine as well
        return
    json.dumps([made.namespace, made.authenticator, made.proxy, made.version], ensure_ascii=False).encode()
    assert all(
        isfinite(number) and number > 0 for number in (made.deadline, made.connect_timeout, made.attempts)
    )
    assert not made.proxy or urlsplit(made.proxy).port != 0


URIS = st.lists(
    st.sampled_from(["emqx", "://", "https", "%3A%2F%2F", "k", ":", "@", "b.example.com", "127.0.0.1", "[::1]", "8443",
                     "/", "api/v5", "?", "__extra__=", "%7B%22verify%22%3A1%7D", "%5B" * 3, "read_only=true", "&",
                     "deadline=" + "9" * 400, "%", "%00", "%ff", "%ED%A0%80", "#", "[", "proxy=http://[::1"])
    | TEXT, max_size=12).map("".join)  # fmt: skip


@QUICK
@given(uri=URIS, extra=st.none() | TEXT | st.sampled_from(["[" * 100_000, '{"a":' * 50_000, "[]", "null", "1", '"x"',
                                                           '{"deadline": ' + "9" * 400 + "}", '{"read_only": 1}']),
       good=st.booleans())  # fmt: skip
def test_any_uri_and_any_extra_that_airflow_takes_is_read_or_refused(
    uri: str, extra: str | None, good: bool
) -> None:
    from airflow.providers.common.compat.sdk import Connection

    uri = f"emqx://k:{PASSWORD}@b.example.com:8443/{uri}" if good else f"emqx://{uri}"
    try:
        conn = Connection(conn_id="c", uri=uri)
        extras = conn.extra_dejson
    except Exception:  # Airflow's own, before we are asked
        return
    for given_extra in (conn.extra, extra):
        shown: Any = SimpleNamespace(
            **{
                name: getattr(conn, name)
                for name in ("conn_id", "host", "login", "password", "schema", "port")
            },
            extra=given_extra,
        )
        try:
            read_connection(shown, extras if given_extra == conn.extra else {})
        except EmqxConfigError as error:
            assert PASSWORD not in str(error)  # noqa: PT017  no error is fine as well


@QUICK
@given(given_ids=VALUES | st.lists(TEXT | VALUES, max_size=4), path=st.none() | TEXT)
def test_any_awaited_ids_are_texts_or_refused(given_ids: Any, path: Any) -> None:
    try:
        made, where = ids.given(given_ids, path)
    except EmqxConfigError:
        return
    assert bool(made) != bool(where)
    assert all(isinstance(one, str) and one for one in made)
    assert len(set(made)) == len(made)


@QUICK
@given(figures=st.tuples(*[VALUES | st.sampled_from(["1", 10**400, -(10**400), "1e400", "9" * 5000])] * 2),
       comparison=st.sampled_from([">=", "<="]) | VALUES)  # fmt: skip
def test_any_threshold_is_a_finite_number_or_refused(figures: tuple[Any, Any], comparison: Any) -> None:
    try:
        made = Threshold(figures[0], comparison, figures[1]).parameters()
    except EmqxConfigError:
        return
    assert isfinite(made["threshold"])
    assert isfinite(made.get("baseline", 0))


@pytest.mark.parametrize("name", ["emqx-export-1.tar.gz", "emqx-export-1.json"])
def test_a_backup_that_is_cut_short_is_refused_and_a_whole_one_kept(tmp_path: Path, name: str) -> None:
    whole = _archive("gz") if name.endswith(".gz") else b'{"version": "4.4.19"}'
    for content in (b"", whole[:-1], whole[: len(whole) // 2], b"[]", gzip.compress(b"")):
        with pytest.raises(EmqxError, match="is damaged"):
            BackupStore(str(tmp_path)).write(name, content, None)
        assert not os.listdir(tmp_path)
    BackupStore(str(tmp_path)).write(name, whole, len(whole))
    assert os.listdir(tmp_path) == [name]

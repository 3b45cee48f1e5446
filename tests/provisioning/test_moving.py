from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx.archives.records import algorithm
from airflow_provider_emqx.archives.terms import Atom
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.provisioning.acl import RulesFormat
from airflow_provider_emqx.provisioning.bans import BansFormat
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.hashing import Algorithm
from airflow_provider_emqx.provisioning.sources import find, read_file
from airflow_provider_emqx.provisioning.target import Made, Target
from tests.archives.made import ARCHIVES, CONTRACT, META, archive, table, tar, users

EXPORT = CONTRACT / "emqx-4.4.19-export.json"
HASH = "ab" * 32
#: a term nested deeper than any table has it; short enough to need no MD5 of its length
DEEP = b"\x83" + b"h\x01" * 30_000 + b"j"
QUICK = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def target(kind: str = "username", namespace: str | None = None) -> Target:
    """Take the place of a broker that takes any hash."""
    made: Any = SimpleNamespace(namespace=namespace, user_id_type=lambda: kind, require=lambda made: None)
    return made  # type: ignore[no-any-return]


def read(
    path: Path | str, how: type[Format] = Format, **options: Any
) -> tuple[list[dict[str, Any]], dict[Any, str]]:
    """Give the rows of a file without what they do not have, and the reasons of those that are rejected by id."""
    options.setdefault("target", target())
    rows, bad = [], {}
    for block in read_file(str(path), how(**options)):
        values = zip(*block.columns, strict=True)
        rows += [
            {name: one for name, one in zip(how.fields, row, strict=True) if one is not None}
            for row in values
        ]
        bad |= {one.user_id: one.reason for one in block.bad}
    return rows, bad


def put(tmp_path: Path, content: bytes, name: str = "x.tar.gz") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def export(tmp_path: Path, **arrays: Any) -> Path:
    return put(tmp_path, json.dumps({"version": "4.4", "apps": [], **arrays}).encode(), "x.json")


def stored(salt: bytes, hashed: bytes) -> str:
    return base64.b64encode(salt + hashed).decode()


# ---------------------------------------------------------------------- EMQX 4


@pytest.mark.parametrize("kind", ["username", "clientid"])
def test_users_of_an_export_of_emqx_4_have_hash_and_salt(kind: str) -> None:
    rows, bad = read(EXPORT, target=target(kind))
    prefix = {"username": "exp-dev-", "clientid": "expc-dev-"}[kind]
    assert not bad
    passwords = ["secret-1", "pässwörd €", 'with "quotes", commas', "x"]
    assert {row["user_id"] for row in rows} == {f"{prefix}{number}" for number in (1, 2, 3, 4)}
    for row in rows:
        salt = base64.b64decode(row["salt_base64"])
        password = passwords[int(row["user_id"][-1]) - 1]
        assert len(salt) == 4
        assert hashlib.sha256(salt + password.encode()).hexdigest() == row["password_hash"]


def test_rules_of_an_export_of_emqx_4_keep_their_order_and_meaning() -> None:
    rows, bad = read(EXPORT, RulesFormat)
    assert not bad
    assert rows == [
        {"all": "true", "topic": "all/#", "permission": "allow", "action": "subscribe"},
        {"clientid": "expc-dev-1", "topic": "devices/%c/#", "permission": "deny", "action": "subscribe"},
        {"clientid": "expc-dev-1", "topic": "devices/%c/#", "permission": "deny", "action": "publish"},
        {"username": "exp-dev-1", "topic": "devices/%u/#", "permission": "allow", "action": "publish"},
    ]


def test_the_newest_rule_of_emqx_4_comes_first(tmp_path: Path) -> None:
    rules = [
        {
            "type": "username",
            "type_value": "a",
            "topic": f"t{n}",
            "action": "pubsub",
            "access": "deny",
            "created_at": at,
        }
        for n, at in enumerate([5, 9, 9, 7])
    ]
    rows, _ = read(export(tmp_path, acl_mnesia=rules), RulesFormat)
    assert [(row["topic"], row["action"]) for row in rows] == [
        ("t1", "all"),
        ("t2", "all"),
        ("t3", "all"),
        ("t0", "all"),
    ]


@pytest.mark.parametrize(
    ("secret", "row"),
    [
        (stored(b"\xff\x00ab", b"c" * 64), {"password_hash": "c" * 64, "salt_base64": "/wBhYg=="}),
        (stored(b"", b"01234567" * 8), {"password_hash": "01234567" * 8, "salt_base64": ""}),
        (stored(b"salt", b"c" * 32), {"password_hash": "c" * 32, "salt_base64": "c2FsdA=="}),
        (stored(b"salt", b"c" * 40), {"password_hash": "c" * 40, "salt_base64": "c2FsdA=="}),
        (stored(b"salt", b"c" * 128), {"password_hash": "c" * 128, "salt_base64": "c2FsdA=="}),
        (stored(b"\xff\x00ab", b"\xff\x00abplain pass"), {"password": "plain pass"}),
    ],
)
def test_what_the_plugin_left_is_told_by_its_length(tmp_path: Path, secret: str, row: dict[str, str]) -> None:
    given = [{"login": "d", "type": "username", "password": secret, "created_at": 1}]
    assert read(export(tmp_path, auth_mnesia=given)) == ([{"user_id": "d", **row}], {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"login": "d", "type": "username", "password": stored(b"salt", b"c" * 63)},
            "stored in an unknown form",
        ),
        (
            {"login": "d", "type": "username", "password": stored(b"salt", b"C" * 64)},
            "stored in an unknown form",
        ),
        ({"login": "d", "type": "username", "password": stored(b"salt", b"saltab")}, ""),
        (
            {"login": "d", "type": "username", "password": stored(b"abab", b"abab" * 16)},
            "stored in an unknown form",
        ),
        ({"login": "d", "type": "username", "password": stored(b"salt", b"salt\xff")}, "not valid UTF-8"),
        ({"login": "d", "type": "username", "password": "?"}, "not base64"),
        ({"login": "d", "type": "username", "password": None}, "unknown form"),
        ({"login": "d", "type": "other", "password": ""}, "unknown form"),
        ({"login": 7, "type": "username", "password": ""}, "unknown form"),
        ("text", "unknown form"),
    ],
)
def test_users_that_cannot_be_moved_are_rejected_with_the_reason(
    tmp_path: Path, row: Any, reason: str
) -> None:
    good = {"login": "good", "type": "username", "password": stored(b"salt", b"c" * 64)}
    rows, bad = read(export(tmp_path, auth_mnesia=[row, good]))
    assert [one["user_id"] for one in rows if one["user_id"] != "d"] == ["good"]
    assert len(bad) == bool(reason)
    assert all(reason in one for one in bad.values())
    assert "cccc" not in str(bad)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"version": "4.4"', "ends in the middle"),
        (b'{"version": "4.4", "auth_mnesia": []} x', "something follows"),
        (b'{"version": "5.0", "auth_mnesia": []}', "does not name this version"),
        (b"[]", "must begin with {"),
        (b'{"auth_mnesia": []}', "does not name this version"),
        (
            b'{"version": "4.2", "auth_username": [{"username": "a", "password": "x"}]}',
            "before 4.3, 1 in auth_username",
        ),
        (b'{"version": "4.4", "auth_mnesia": [' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_exports_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(EmqxConfigError, match=reason):
        read(put(tmp_path, content, "x.json"), name="emqx4-export")


def test_each_cut_of_an_export_is_refused_before_a_row_is_given(tmp_path: Path) -> None:
    content = EXPORT.read_bytes().rstrip()
    for length in range(20, len(content), 37):
        blocks = read_file(
            str(put(tmp_path, content[:length], "x.json")), Format(name="emqx4-export", target=target())
        )
        with pytest.raises(EmqxConfigError, match="ends in the middle|breaks here"):
            next(blocks)


def test_a_large_export_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write('{"version":"4.4","apps":[{"id":"a","secret":"clear"}],"auth_mnesia":[')
        for number in range(60_000):
            row = {
                "login": f"d{number}",
                "type": "username",
                "password": stored(b"salt", b"c" * 64),
                "created_at": 1,
            }
            file.write("," * bool(number) + json.dumps(row))
        file.write('],"acl_mnesia":[]}')
    tracemalloc.start()
    count = sum(len(block.lines) for block in read_file(str(path), Format(target=target())))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 60_000
    assert peak < path.stat().st_size / 2 < 20_000_000


@QUICK
@given(st.integers(0, 10_000), st.binary(max_size=6), st.sampled_from([Format, RulesFormat, BansFormat]))
def test_exports_that_are_spoilt_in_one_place_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, spoiler: bytes, how: type[Format]
) -> None:
    content = EXPORT.read_bytes()
    at %= len(content)
    spoilt = content[:at] + spoiler + content[at + len(spoiler) :]
    with suppress(EmqxError):
        read(put(tmp_path_factory.mktemp("spoilt"), spoilt), how, name="emqx4-export")


@QUICK
@given(
    st.sampled_from(["auth_mnesia", "acl_mnesia", "blacklist"]),
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["login", "type", "password", "type_value", "topic", "action", "access", "who", "until"]
            ),
            st.none()
            | st.integers()
            | st.sampled_from(["username", "clientid", "all", "pub", "allow", "AAAA"])
            | st.dictionaries(
                st.sampled_from(["clientid", "peerhost"]), st.text(max_size=3) | st.none(), max_size=2
            ),
            max_size=6,
        )
        | st.none()
        | st.integers()
        | st.text(max_size=3),
        max_size=5,
    ),
)
def test_whatever_stands_in_an_export_is_a_row_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[Any]
) -> None:
    path = export(tmp_path_factory.mktemp("any"), **{name: rows})
    how = {"auth_mnesia": Format, "acl_mnesia": RulesFormat, "blacklist": BansFormat}[name]
    count = 0
    with suppress(EmqxConfigError):
        for block in read_file(str(path), how(target=target())):
            count += len(block.lines) + len(block.bad)
        # users of the other kind are left to other tasks
        assert count == len(rows) or name == "auth_mnesia"


# ---------------------------------------------------------------------- EMQX 5, 6


@pytest.mark.parametrize("version", ARCHIVES)
def test_users_of_an_archive(version: str) -> None:
    rows, bad = read(CONTRACT / f"{ARCHIVES[version]}.tar.gz")
    assert [row["user_id"] for row in rows] == ["", "alice", "root", "salted", "ü/ö %"]
    assert [row["is_superuser"] for row in rows] == [False, False, True, False, False]
    for row, password in zip(rows, ["", "pw-alice", "pw-root", "", "pw-ü"], strict=True):
        salt = base64.b64decode(row["salt_base64"])
        if password:
            assert hashlib.sha256(salt + password.encode()).hexdigest() == row["password_hash"]
    assert list(bad) == ["scrammy"]
    assert "SCRAM" in bad["scrammy"]


def test_users_and_rules_of_a_namespace() -> None:
    path = CONTRACT / f"{ARCHIVES['6.3.0']}.tar.gz"
    rows, bad = read(path, target=target(namespace="tenant1"))
    assert [row["user_id"] for row in rows] == ["nsuser"]
    assert not bad
    rows, _ = read(path, RulesFormat, target=target(namespace="tenant1"))
    assert rows == [
        {
            "username": "nsuser",
            "topic": "n/#",
            "permission": "allow",
            "action": "all",
            "qos": [0, 1, 2],
            "retain": "all",
        }
    ]
    with pytest.raises(EmqxConfigError, match="no users of the namespace 'other'"):
        read(path, target=target(namespace="other"))


def test_what_is_left_to_other_tasks_is_told(caplog: pytest.LogCaptureFixture) -> None:
    read(CONTRACT / f"{ARCHIVES['6.3.0']}.tar.gz")
    assert "it also has 1 of the namespace 'tenant1'" in caplog.text
    read(EXPORT)
    assert "has 4 users for this connection; it also has 4 of user_id_type clientid" in caplog.text


@pytest.mark.parametrize("version", ARCHIVES)
def test_rules_of_an_archive_mean_what_the_api_says_of_them(version: str) -> None:
    rows, bad = read(CONTRACT / f"{ARCHIVES[version]}.tar.gz", RulesFormat)
    every = {"qos": [0, 1, 2], "retain": "all"}
    limited = {
        "all": "true",
        "topic": "cond/#",
        "permission": "deny",
        "action": "all",
        **every,
        "username_re": "^guest-",
        "ipaddr": "10.0.0.0/8",
    }
    assert not bad
    assert rows == [
        {"all": "true", "topic": "all/#", "permission": "deny", "action": "subscribe", "qos": [0, 1, 2]},
        *([limited] if version == "6.3.0" else []),
        {
            "username": "alice",
            "topic": "t/1",
            "permission": "allow",
            "action": "publish",
            "qos": [1],
            "retain": True,
        },
        {"username": "alice", "topic": "${username}/#", "permission": "deny", "action": "all", **every},
        {
            "username": "alice",
            "topic": "eq a/+",
            "permission": "allow",
            "action": "subscribe",
            "qos": [0, 1, 2],
        },
        {"clientid": "dev-1", "topic": "c/#", "permission": "allow", "action": "all", **every},
    ]


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        ((Atom("allow"), Atom("publish"), b"t"), {"permission": "allow", "action": "publish", "topic": "t"}),
        (
            (Atom("deny"), (Atom("zone"), Atom("z")), Atom("all"), b"t"),
            {"permission": "deny", "action": "all", "topic": "t", "zone": "z"},
        ),
        (
            (Atom("deny"), (Atom("listener"), (Atom("re"), b"^tcp")), Atom("all"), b"t"),
            {"permission": "deny", "action": "all", "topic": "t", "listener_re": "^tcp"},
        ),
        ((Atom("allow"), Atom("all"), b"\xff"), None),
        ((Atom("maybe"), Atom("all"), b"t"), None),
        ((Atom("allow"), (Atom("or"), []), Atom("all"), b"t"), None),
        ((Atom("allow"), (Atom("all"), [(Atom("speed"), 1)]), b"t"), None),
        (b"rule", None),
    ],
)
def test_rules_of_other_forms(tmp_path: Path, rule: Any, row: dict[str, Any] | None) -> None:
    content = table("emqx_acl", ("who", "rules"), [(Atom("emqx_acl"), (1, b"alice"), [rule])])
    rows, bad = read(put(tmp_path, archive({"emqx_acl": content})), RulesFormat)
    assert rows == ([{"username": "alice", **row}] if row else [])
    assert list(bad) == ([] if row else ["alice"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ((Atom("t"), (Atom("stomp:stomp"), b"d"), HASH.encode(), b"s", False), "is a user of 'stomp:stomp'"),
        ((Atom("t"), (Atom("mqtt:global"), b"d\xff"), HASH.encode(), b"s", False), "not valid UTF-8"),
        ((Atom("t"), (Atom("mqtt:global"), 7), HASH.encode(), b"s", False), "unknown form"),
        ((Atom("t"), (Atom("mqtt:global"), b"d"), HASH.encode(), b"s", Atom("maybe")), "unknown form"),
    ],
)
def test_users_of_other_forms_are_rejected(tmp_path: Path, record: Any, reason: str) -> None:
    attributes = ("user_id", "password_hash", "salt", "is_superuser")
    content = table("emqx_authn_mnesia", attributes, [record])
    rows, bad = read(put(tmp_path, archive({"emqx_authn_mnesia": content})))
    assert not rows
    assert reason in next(iter(bad.values()))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"emqx_authn_mnesia": table("emqx_acl", ("who", "rules"), [])}, "holds the table 'emqx_acl'"),
        (
            {"emqx_authn_mnesia": table("emqx_authn_mnesia", ("who",), [])},
            "records have the fields who; expected",
        ),
        ({"emqx_authn_mnesia": users([("a", HASH, b"s")])[:-3]}, "mnesia/emqx_authn_mnesia: it is cut"),
        (
            {"emqx_authn_mnesia": users([]) + struct.pack(">I", len(DEEP)) + b"bWLA" + DEEP},
            "record 1: the term is nested more than",
        ),
        (
            {"emqx_authn_mnesia": users([]) + struct.pack(">I", 200_003) + b"bWLA"},
            "the size of an item is damaged|is cut",
        ),
    ],
)
def test_archives_that_cannot_be_read_are_refused(
    tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(EmqxConfigError, match=reason):
        read(put(tmp_path, archive(files)))


def test_each_cut_of_an_archive_is_refused_before_a_row_is_given(tmp_path: Path) -> None:
    random.seed(1)
    many = [(f"d{number}", HASH, random.randbytes(16)) for number in range(1500)]
    content = archive({"emqx_authn_mnesia": users(many)})
    for length in range(100, len(content) - 8, 1500):
        blocks = read_file(str(put(tmp_path, content[:length])), Format(name="emqx-archive", target=target()))
        with pytest.raises(EmqxConfigError, match="damaged"):
            next(blocks)
    assert len(read(put(tmp_path, content))[0]) == 1500


@QUICK
@given(st.integers(0, 10_000), st.binary(max_size=6), st.sampled_from([Format, RulesFormat]))
def test_archives_that_are_spoilt_in_one_place_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, spoiler: bytes, how: type[Format]
) -> None:
    plain = gzip.decompress((CONTRACT / f"{ARCHIVES['6.3.0']}.tar.gz").read_bytes())
    at %= len(plain.rstrip(b"\0"))
    spoilt = gzip.compress(plain[:at] + spoiler + plain[at + len(spoiler) :], 1)
    with suppress(EmqxError):
        read(put(tmp_path_factory.mktemp("spoilt"), spoilt), how, name="emqx-archive")


# ---------------------------------------------------------------------- both


@pytest.mark.parametrize("what", [Format, RulesFormat])
def test_a_source_that_holds_nothing_of_the_kind_has_no_rows(
    tmp_path: Path, what: type[Format], caplog: pytest.LogCaptureFixture
) -> None:
    assert read(export(tmp_path, auth_mnesia=[]), what) == ([], {})
    assert read(put(tmp_path, archive({"emqx_authn_mnesia": users([])})), what) == ([], {})
    assert caplog.text.count("has no") == 2


@pytest.mark.parametrize("name", ["devices", "devices.tar.gz", "devices.json", "devices.json.gz", "d.tgz"])
def test_exports_are_recognised_by_their_content(tmp_path: Path, name: str) -> None:
    source = CONTRACT / f"{ARCHIVES['5.8.9']}.tar.gz" if "json" not in name else EXPORT
    content = source.read_bytes()
    path = put(tmp_path, gzip.compress(content) if name.endswith("json.gz") else content, name)
    assert len(read(path)[0]) == (4 if "json" in name else 5)


def test_json_of_users_is_no_export(tmp_path: Path) -> None:
    rows, _ = read(
        put(tmp_path, b'{"version": "4.4", "user_id": "a", "password": "p"}', "x.json"), name="json"
    )
    assert [row["user_id"] for row in rows] == ["a"]
    rows, _ = read(put(tmp_path, b'[{"user_id": "a", "password": "p"}]', "x.json"))
    assert [row["user_id"] for row in rows] == ["a"]


def test_a_name_without_a_format_and_a_content_without_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(EmqxConfigError, match=r"neither the name .* nor the content .* tells the format"):
        read(put(tmp_path, b"user_id,password\na,b\n", "devices.tar.gz"))


def test_archives_in_a_directory_are_told_as_not_read(tmp_path: Path) -> None:
    put(tmp_path, (CONTRACT / f"{ARCHIVES['5.8.9']}.tar.gz").read_bytes())
    put(tmp_path, b"user_id,password\na,b\n", "devices.csv")
    found = find(str(tmp_path), Format())
    assert [os.path.basename(str(one)) for one in found.unread] == ["x.tar.gz"]


@pytest.mark.parametrize("options", [{"columns": {"user_id": "login"}}, {"rows": "auth_mnesia"}])
def test_names_of_columns_mean_nothing_in_exports(options: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError, match="leave them out"):
        read(EXPORT, **options, name="emqx4-export")


SUFFIX, PREFIX = Algorithm("sha256", "suffix"), Algorithm("sha256", "prefix")
PBKDF2 = Algorithm("pbkdf2", rounds=10)


@pytest.mark.parametrize(
    ("password_hash", "salted", "algorithm", "expected", "fits"),
    [
        (HASH, True, PREFIX, PREFIX, True),
        (HASH, True, PREFIX, SUFFIX, False),
        (HASH, False, PREFIX, SUFFIX, True),
        (HASH, False, PREFIX, Algorithm("sha256", "disable"), True),
        (HASH, True, PREFIX, Algorithm("sha256", "disable"), False),
        (HASH, True, None, SUFFIX, True),
        (HASH, True, None, Algorithm("sha512", "suffix"), False),
        (HASH, True, PBKDF2, PBKDF2, True),
        (HASH, True, PBKDF2, Algorithm("pbkdf2", rounds=11), False),
        (HASH, True, PBKDF2, PREFIX, False),
        ("$2b$10$" + "a" * 53, False, Algorithm("bcrypt", rounds=10), Algorithm("bcrypt", rounds=12), True),
        (HASH, True, None, Algorithm("bcrypt"), False),
    ],
)
def test_whether_an_authenticator_makes_such_hashes(
    password_hash: str, salted: bool, algorithm: Algorithm | None, expected: Algorithm, fits: bool
) -> None:
    assert Made(password_hash, salted, algorithm).fits(expected) is fits


def test_the_configuration_in_an_archive_tells_how_it_hashed(tmp_path: Path) -> None:
    text = (
        "authentication = [{backend = built_in_database\n mechanism = password_based\n"
        " password_hash_algorithm {name = sha256, salt_position = suffix}},\n"
        " {backend = mysql, password_hash_algorithm {name = bcrypt}}]\n"
    )
    assert algorithm(text) == {"name": "sha256", "salt_position": "suffix"}
    assert algorithm("") is None
    assert algorithm(text + text.replace("suffix", "prefix")) is None
    asked: list[list[Made]] = []
    content = tar(
        {
            "META.hocon": META,
            "cluster.hocon": text.encode(),
            "mnesia/emqx_authn_mnesia": users([("a", HASH, b"salt")]),
        }
    )
    how: Any = SimpleNamespace(namespace=None, user_id_type=lambda: "username", require=asked.append)
    read(put(tmp_path, content), target=how)
    assert [str(made) for made in asked[0]] == ["sha256 (salt as suffix)"]
    assert asked[0][0].wanted() == "{name = sha256, salt_position = suffix}"


def test_content_of_an_export_that_is_not_wanted_is_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = put(tmp_path, EXPORT.read_bytes().replace(b'"date"', b"date"), "x.json")
    with pytest.raises(EmqxConfigError) as caught:
        read(path)
    assert "labsecret" not in caplog.text + str(caught.value)

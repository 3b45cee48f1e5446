from __future__ import annotations

import inspect
import os
import random
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.api import base
from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Answer, Broker, Page, Reply, Request
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.api.v4 import replies as v4
from airflow_provider_emqx.api.v5 import replies as v5
from airflow_provider_emqx.transport import exchange
from airflow_provider_emqx.transport.settings import Settings
from airflow_provider_emqx.transport.sync import SyncClient

ANY_TEXT = st.text(st.characters(), max_size=20)
#: names that mean something to a reader, among those that mean nothing
NAMES = [
    "code", "message", "data", "meta", "hasnext", "count", "reason_code", "id", "clientid", "user_id",
    "topic", "rules", "node", "version", "connected", "qos", "who", "as", "until", "total", "success",
    "override", "skipped", "backend", "cursor", "position", "metrics", "username", "permission", "action",
    "result", "connected_at", "created_at", "stats", "error", "enable", "status", "succeed", "failed",
    "rawsql", "x",
]  # fmt: skip
KEYS = st.sampled_from(NAMES)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(["ok", "existed", "login"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | ANY_TEXT, inner, max_size=5),
    max_leaves=12,
)
#: answers that are nearly right reach deeper
NEARLY = st.builds(
    lambda rows, meta: {"data": rows, "meta": meta, "code": 0},
    st.lists(st.dictionaries(KEYS, JSON, max_size=6), max_size=3) | JSON,
    st.fixed_dictionaries(
        {}, optional={"hasnext": st.booleans(), "count": st.integers(-1, 5), "cursor": JSON}
    ),
)
STATUS = st.sampled_from([200, 201, 202, 204, 206, 299, 301, 302, 400, 401, 403, 404, 405, 408, 409, 412, 415, 425, 429,
                          500, 501, 502, 503, 504, 520, 599, 100, 999])  # fmt: skip
TYPES = st.sampled_from(
    ["application/json", "text/html", "text/plain", "", "application/octet-stream", "\u00b2;;"]
)
ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig", "latin-1"])
FEW = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def _encode(value: Any, encoding: str) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False).encode(encoding, "replace")


BODIES = (
    st.builds(_encode, JSON | NEARLY, ENCODINGS)
    | st.binary(max_size=60)
    | st.sampled_from([b"", b"null", b"[" * 100_000, b'{"a":' * 5_000, b'{"message":"' + b"[" * 50_000 + b'"}',
                       b'{"code":' + b"9" * 5000 + b"}", b"NaN", b'{"code":0,"data":NaN}', b"\xff\xfe",
                       b"UNAUTHORIZED"])
)  # fmt: skip
REQUESTS = st.builds(
    Request,
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.just("/clients/dev-1"),
    json=st.none() | st.dictionaries(st.sampled_from(["password", "payload", "x"]), JSON, max_size=3),
    accept=st.sampled_from([(), (503,), (200,), (404,)]),
    binary=st.booleans(),
    fields=st.none() | st.lists(KEYS | ANY_TEXT, max_size=3, unique=True).map(tuple),
)


@pytest.mark.parametrize("read", [v4.read, v5.read], ids=["v4", "v5"])
@MANY
@given(request=REQUESTS, status=STATUS, kind=TYPES, body=BODIES)
def test_every_answer_is_a_reply_or_one_typed_error(
    read: Callable[[Request, Answer], Reply], request: Request, status: int, kind: str, body: bytes
) -> None:
    told = ""
    try:
        reply = read(request, Answer(status, kind, body))
    except errors.EmqxError as error:
        told = str(error)
    else:
        assert 200 <= status < 300 or status in request.accept
        assert isinstance(reply, Reply)
    assert "\n" not in told
    assert len(told) < 1_500


@pytest.mark.parametrize(("read", "code"), [(v4.read, 0), (v5.read, None)], ids=["v4", "v5"])
@MANY
@given(
    fields=st.lists(KEYS, min_size=1, max_size=3, unique=True).map(tuple),
    body=JSON | NEARLY,
    known=st.booleans(),
)
def test_a_listing_of_which_few_fields_are_wanted_is_read_as_a_whole_one_is(
    read: Callable[[Request, Answer], Reply],
    code: int | None,
    fields: tuple[str, ...],
    body: Any,
    known: bool,
) -> None:
    if known and isinstance(body, dict):
        body = {**body, "code": code}
        if code is None:
            del body["code"]
    answer = Answer(200, "application/json", _encode(body, "utf-8"))
    few, whole = (
        _outcome(read, Request("GET", "/clients", fields=wanted), answer) for wanted in (fields, None)
    )
    if isinstance(whole, Reply) and isinstance(few, Reply) and isinstance(whole.data, list):
        kept = [
            {name: row[name] for name in fields if name in row} if isinstance(row, dict) else row
            for row in whole.data
        ]
        assert repr(few.data) in (repr(whole.data), repr(_ordered(few.data, kept)))
        assert repr(few.meta) == repr(whole.meta)
    else:
        assert repr(few) == repr(whole)


def _ordered(rows: list[Any], kept: list[Any]) -> list[Any]:
    """Give the kept fields in the order in which they came."""
    assert len(rows) == len(kept)
    return [
        {name: good[name] for name in row} if isinstance(row, dict) and row.keys() == good.keys() else good
        for row, good in zip(rows, kept, strict=True)
    ]


def _outcome(read: Callable[[Request, Answer], Reply], request: Request, answer: Answer) -> Reply | str:
    try:
        return read(request, answer)
    except errors.EmqxError as error:
        return f"{type(error).__name__} {error}"


@MANY
@given(status=STATUS, headers=st.dictionaries(st.sampled_from(["Retry-After", "Location", "Content-Type"]),
       ANY_TEXT | st.text("0123456789 :,-+GMTMonJan", max_size=40)))  # fmt: skip
def test_every_header_is_read(status: int, headers: dict[str, str]) -> None:
    answer = exchange.answer(status, headers, b"")
    assert answer.retry_after is None or answer.retry_after >= 0
    assert "\n" not in answer.location or not answer.location.isprintable()


# --------------------------------------------------------------------------------------------------------- operations

ARGUMENTS: dict[str, Any] = {
    "table_sets": None,
    "root_keys": None,
    "activated": True, "by": "airflow", "clientid": "dev-1", "clientids": ["dev-1", "dev-2"], "content": b"x",
    "enabled": True, "fields": None, "filename": "b.tar.gz", "filters": None, "is_superuser": False, "kind": "clientid",
    "like": "dev", "limit": 10, "listener": "tcp:default", "message": {"topic": "t", "payload": "p"},
    "messages": [{"topic": "t", "payload": "p"}, {"topic": "u", "payload": "q"}], "msgid": "0006", "name": "n",
    "node": "emqx@127.0.0.1", "page": 1, "password": "secret-password", "pattern": "a/#", "payload": "none",
    "position": None, "reason": "r", "repeatable": False, "rule_id": "r",
    "rules": [{"topic": "t", "permission": "allow"}], "acl_rules": [{"topic": "t", "permission": "allow"}],
    "seconds": 60, "settings": None, "since": 0, "subject": {"username": "alice"}, "topic": "t", "topics": ["a", "b"],
    "until": None, "user": {"user_id": "u", "password": "secret-password"}, "user_id": "u",
    "users": [{"user_id": "u", "password": "secret-password"}, {"user_id": "v", "password": "secret-password"}],
    "who": "dev-1",
}  # fmt: skip
#: where one name means different things
SPECIAL: dict[str, dict[str, Any]] = {
    "clients.list_messages": {"kind": "mqueue"},
    "acl.add": {"position": "first"},
    "rule_engine.get_integration": {"kind": "action"},
    "rule_engine.set_integration_enabled": {"kind": "action"},
    "rule_engine.restart_integration": {"kind": "action"},
    "nodes.get_metrics": {"node": None},
    "nodes.get_stats": {"node": None},
    "nodes.get_rates": {"node": None},
}


def operations(broker: Broker) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public operation of a generation, by area and name."""
    for area, holder in sorted(vars(api_of(broker)).items()):
        if isinstance(holder, Area):
            for name, method in inspect.getmembers(holder, inspect.isgeneratorfunction):
                if not name.startswith("_"):
                    yield f"{area}.{name}", method


OPERATIONS = [
    pytest.param(name, operation, id=f"{broker.generation}-{name}")
    for broker in (Broker("v4", (4, 4, 19)), Broker("v5", (5, 8, 9)))
    for name, operation in operations(broker)
]
ERRORS = [
    errors.EmqxNotFoundError(404, "NOT_FOUND", "x"),
    errors.EmqxBadRequestError(400, "BAD_REQUEST", "x"),
    errors.EmqxAlreadyExistsError(409, "ALREADY_EXISTS", "x"),
    errors.EmqxServerError(500),
    errors.EmqxUnsupportedError("x"),
    errors.EmqxConnectionError("x", "", True),
    errors.EmqxForbiddenError(403),
]
#: scripts per operation: hypothesis would take minutes for as many
SCRIPTS = int(os.environ.get("FUZZ_SCRIPTS", "60"))
LEAVES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**70,
    1.5,
    float("nan"),
    "",
    "0",
    "ok",
    "existed",
    "x" * 40,
    "\ud800",
)


def any_json(chance: random.Random, depth: int = 3) -> Any:
    """A JSON value in which the names that operations look for are common."""
    draw = chance.random()
    if depth == 0 or draw < 0.25:
        return chance.choice(LEAVES)
    if draw < 0.5:
        return [any_json(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(NAMES): any_json(chance, depth - 1) for _ in range(chance.randrange(6))}


def any_reply(chance: random.Random) -> Any:
    draw = chance.random()
    if draw < 0.15:
        return chance.choice(ERRORS)
    data = any_json(chance)
    if draw < 0.6:
        data = [
            {chance.choice(NAMES): any_json(chance, 2) for _ in range(5)} for _ in range(chance.randrange(4))
        ]
    meta = {
        name: any_json(chance, 1) for name in chance.sample(["hasnext", "count", "cursor", "position"], 2)
    }
    return Reply(chance.choice([200, 201, 202, 204, 503]), data, meta)


class Scripted(SyncClient):
    """A driver whose exchanges are a script; after its end the broker is gone."""

    def __init__(self, script: list[Any]) -> None:
        super().__init__(Settings("http://127.0.0.1:1", "/api/v5"))
        self.script = iter(script)

    def _exchange(self, request: Request) -> Reply:
        step = next(self.script, None)
        if step is None:
            raise errors.EmqxConnectionError("the script has ended", str(request), True)
        if isinstance(step, errors.EmqxError):
            raise type(step)(*step.args)
        return step  # type: ignore[no-any-return]


def _fits(value: Any, kind: str) -> bool:
    """Tell whether a result is what the annotation says."""
    inside = kind.removeprefix("Operation[").removesuffix("]")
    checks: dict[str, Callable[[Any], bool]] = {
        "Row": lambda x: isinstance(x, dict),
        "Rows": lambda x: isinstance(x, list) and all(isinstance(row, dict) for row in x),
        "Page[Row]": lambda x: isinstance(x, Page) and all(isinstance(row, dict) for row in x.rows),
        "bool": lambda x: isinstance(x, bool),
        "str": lambda x: isinstance(x, str),
        "int": lambda x: isinstance(x, int),
        "bytes": lambda x: isinstance(x, bytes),
        "None": lambda x: x is None,
    }
    return any(checks.get(part.strip(), lambda x: True)(value) for part in inside.split("|"))


@pytest.mark.parametrize(("name", "function"), OPERATIONS)
def test_nothing_but_a_result_or_a_typed_error_comes_out_of_an_operation(
    name: str, function: Callable[..., Any]
) -> None:
    chance = random.Random(name)
    for _ in range(SCRIPTS):
        _one_script(name, function, [any_reply(chance) for _ in range(chance.randrange(1, 7))])


def _one_script(name: str, function: Callable[..., Any], script: list[Any]) -> None:
    parameters = inspect.signature(function).parameters
    special = SPECIAL.get(name, {})
    arguments = {
        parameter: special.get(parameter, ARGUMENTS[parameter])
        for parameter in parameters
        if parameter not in ("page", "limit")
    }
    kind = str(typing.cast("Any", function).__annotations__["return"])
    client = Scripted(script)
    try:
        result = client.run(function(**arguments))
    except errors.EmqxError as error:
        result = error
    assert "secret-password" not in str(result)
    assert isinstance(result, errors.EmqxError) or _fits(result, kind), (kind, result)
    if "Page" in kind:
        client.script = iter(script)
        try:
            for row in client.rows(function(**arguments)):
                assert isinstance(row, dict)
        except errors.EmqxError:
            pass


@FEW
@given(
    segments=st.lists(
        ANY_TEXT | st.sampled_from(["", ".", "..", "%2e%2e", "a/../b", "\ud800"]), min_size=1, max_size=3
    )
)
def test_every_id_stays_in_its_segment_or_is_refused(segments: list[str]) -> None:
    from urllib.parse import unquote

    try:
        path = base.path(*segments)
    except errors.EmqxConfigError:
        return
    assert [unquote(part) for part in path.split("/")[1:]] == segments
    assert path.isascii()
    assert not {"", ".", ".."} & set(path.split("/")[1:])

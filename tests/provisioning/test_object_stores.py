"""Sources, reports, states and exports in a bucket, over ObjectStoragePath and a real S3 API on loopback."""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_emqx.api import area
from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxError
from airflow_provider_emqx.operators.auth import (
    EmqxExportUsersOperator,
    EmqxProvisionAclOperator,
    EmqxProvisionUsersOperator,
)
from airflow_provider_emqx.row_files import append_figures

pytest.importorskip("airflow.providers.amazon", reason="needs apache-airflow-providers-amazon[s3fs]")
moto = pytest.importorskip("moto.server", reason="needs moto")

BUCKET = "s3://aws@fleet"
TWO = "user_id,password\na,1\nb,2\n"

pytestmark = pytest.mark.parametrize("version", ["5.8.9"])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    from boto3 import Session

    return Session("key", "S3cret", region_name="us-east-1").client("s3", endpoint_url=address)


class Bucket:
    """The bucket as somebody else sees it."""

    def __init__(self, address: str, client: Any) -> None:
        self.address = address
        self._client = client
        self._client.create_bucket(Bucket="fleet")

    def put(self, **contents: str | bytes) -> None:
        for key, content in contents.items():
            body = content.encode() if isinstance(content, str) else content
            self._client.put_object(Bucket="fleet", Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket="fleet", Key=key)["Body"].read())

    def ask_for_credentials(self) -> None:
        """From now on the credentials of the connection are unknown."""
        post(f"{self.address}/moto-api/reset-auth", b"0")


def post(url: str, body: bytes = b"") -> None:
    with urlopen(Request(url, body, {"Content-Type": "text/plain"}, method="POST")):
        pass


@pytest.fixture
def bucket(address: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    from s3fs import S3FileSystem

    def connection(endpoint: str) -> str:
        extra = {
            "endpoint_url": endpoint,
            "region_name": "us-east-1",
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }
        return json.dumps({"conn_type": "aws", "login": "key", "password": "S3cret", "extra": extra})

    # file systems are kept, with what they have listed
    for system in list(S3FileSystem._cache.values()):
        system.invalidate_cache()
    monkeypatch.setenv("AIRFLOW_CONN_AWS", connection(address))
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", connection("http://127.0.0.1:9"))
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", '{"conn_type": "generic", "password": "a long secret"}')
    post(f"{address}/moto-api/reset-auth", b"inf")
    post(f"{address}/moto-api/reset")
    yield Bucket(address, client)
    post(f"{address}/moto-api/reset-auth", b"inf")


def execute(source: Any, **arguments: Any) -> dict[str, Any]:
    return EmqxProvisionUsersOperator(task_id="x", source=source, **arguments).execute({})  # type: ignore[no-any-return]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    content = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(rows), content)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["url", "path"])
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.json", "x.jsonl", "x.parquet"])
def test_a_file_of_every_format_is_read(broker: Any, bucket: Bucket, name: str, kind: str) -> None:
    rows = [{"user_id": f"d{i}", "password": f"p{i}"} for i in range(3_000)]
    text = "user_id,password\n" + "".join(f"d{i},p{i}\n" for i in range(3_000))
    contents: dict[str, str | bytes] = {
        "x.csv": text,
        "x.csv.gz": gzip.compress(text.encode()),
        "x.json": json.dumps(rows),
        "x.jsonl": "\n".join(map(json.dumps, rows)),
        "x.parquet": parquet(rows),
    }
    bucket.put(**{name: contents[name]})
    source = f"{BUCKET}/{name}" if kind == "url" else ObjectStoragePath(f"s3://fleet/{name}", conn_id="aws")
    assert execute(source)["written"] == len(broker.users) == 3_000
    assert broker.verify("d2999", "p2999")


@pytest.mark.parametrize("kind", ["url", "path"])
@pytest.mark.parametrize("place", ["[odd] #1?", "[odd] #1?/", "[odd] #1?/*.csv", "*odd*/*"])
def test_keys_are_neither_web_addresses_nor_patterns(
    broker: Any, bucket: Bucket, place: str, kind: str
) -> None:
    names = ("1.csv", "#2.csv", "3?.csv", "[x] 4.csv", "%205.csv")
    bucket.put(**{f"[odd] #1?/{name}": f"user_id,password\n{name},p\n" for name in names})
    source: Any = (
        f"{BUCKET}/{place}" if kind == "url" else ObjectStoragePath(f"s3://fleet/{place}", conn_id="aws")
    )
    summary = execute(source, mode="sync", scope="*")
    assert (summary["written"], summary["unread"]) == (5, [])
    assert set(broker.users) == set(names)
    for name in names:
        assert execute(f"{BUCKET}/[odd] #1?/{name}")["read"] == 1


def test_what_is_not_read_of_a_bucket_is_told_and_keeps_all_users(broker: Any, bucket: Bucket) -> None:
    broker.add_user("gone", "p")
    row = "user_id,password\na,p\n"
    bucket.put(**{"in/x.csv": row, "in/part-0": row, "in/deep/y.csv": row, "in/_SUCCESS": b""})
    summary = execute(f"{BUCKET}/in/", mode="sync", scope="*")
    assert summary["unread"] == [f"{BUCKET}/in/deep", f"{BUCKET}/in/part-0"]
    assert (summary["pruned"], set(broker.users)) == (0, {"a", "gone"})
    assert execute(f"{BUCKET}/in/*.csv", mode="sync", scope="*")["pruned"] == 1


@pytest.mark.parametrize(
    ("place", "users"),
    [
        ("night/", "bc"),
        ("night", "bc"),
        ("night/*.csv", "b"),
        ("*/[x-z].*", "bc"),
        ("**/*.csv", "abde"),
        ("n*/deep/w.csv", "d"),
        ("spark.csv", "e"),
    ],
)
@pytest.mark.parametrize("kind", ["url", "path"])
def test_directories_and_patterns(broker: Any, bucket: Bucket, place: str, users: str, kind: str) -> None:
    def row(user_id: str) -> str:
        return f"user_id,password\n{user_id},{user_id}\n{user_id}\n"

    bucket.put(
        **{
            "a.csv": row("a"),
            "night/y.csv": row("b"),
            "night/z.csv.gz": gzip.compress(row("c").encode()),
            "night/deep/w.csv": row("d"),
            "spark.csv/part-0.csv": row("e"),
            "spark.csv/_SUCCESS": b"",
            "night/_SUCCESS": b"",
            "night/readme.txt": b"no rows",
        }
    )
    source = f"{BUCKET}/{place}" if kind == "url" else ObjectStoragePath(f"s3://fleet/{place}", conn_id="aws")
    report = f"{BUCKET}/report.jsonl"
    assert execute(source, report_path=report)["rejected"] == len(users)
    assert sorted(broker.users) == list(users)
    told = [json.loads(line) for line in bucket.get("report.jsonl").splitlines()]
    if len(users) > 1:
        assert all(line["file"].startswith(f"{BUCKET}/") for line in told)


def test_a_report_replaces_the_one_that_was_there(broker: Any, bucket: Bucket) -> None:
    rows = [{"user_id": "a", "password": "p"}, {"user_id": "b"}]
    for name in ("r.csv", "r.jsonl"):
        for given in ([*rows, {"user_id": "c"}], rows):
            execute(given, report_path=f"{BUCKET}/deep/{name}")
            assert len(bucket.get(f"deep/{name}").splitlines()) == len(given) - 1 + name.endswith("csv")
        execute(rows[:1], report_path=ObjectStoragePath(f"s3://fleet/deep/{name}", conn_id="aws"))
        assert b"missing" not in bucket.get(f"deep/{name}")


def test_a_state_in_a_bucket_knows_nobody_while_a_run_writes(broker: Any, bucket: Bucket) -> None:
    state = {"state_path": f"{BUCKET}/a.state", "pepper_conn_id": "pepper"}
    execute([{"user_id": "a", "password": "p"}], **state)
    whole, during = len(bucket.get("a.state")), []

    def look(method: str, path: str) -> bool:
        if "import_users" in path:
            during.append(len(bucket.get("a.state")))
        return False

    broker.order_fault("status", match=look)
    execute([{"user_id": "a", "password": "new"}], **state)
    assert during == [whole - 16]
    assert len(bucket.get("a.state")) == whole


def test_a_state_file_in_a_bucket(broker: Any, bucket: Bucket) -> None:
    bucket.put(**{"x.csv": TWO})
    state = {"state_path": f"{BUCKET}/a.state", "pepper_conn_id": "pepper"}
    assert execute(f"{BUCKET}/x.csv", **state)["unchanged"] == 0
    bucket.put(**{"x.csv": TWO + "c,3\n"})
    assert execute(f"{BUCKET}/x.csv", **state)["unchanged"] == 2
    assert execute(f"{BUCKET}/x.csv", **state)["unchanged"] == 3


def test_an_export_can_be_a_source(broker: Any, bucket: Bucket) -> None:
    for number in range(2_500):
        broker.add_user(f"d{number}", "p")
    for name in ("users.csv", "users.jsonl.gz"):
        result = EmqxExportUsersOperator(task_id="x", output_path=f"{BUCKET}/{name}").execute({})
        assert (result["users"], result["superusers"], result["output_path"]) == (
            2_500,
            0,
            f"{BUCKET}/{name}",
        )
        assert execute(f"{BUCKET}/{name}", mode="delete", dry_run=True)["deleted"] == 2_500
    assert gzip.decompress(bucket.get("users.jsonl.gz")).count(b"\n") == 2_500


@pytest.mark.parametrize("name", ["users.csv", "users.jsonl.gz"])
def test_an_export_that_fails_leaves_the_object_alone(
    broker: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(area, "_LONGEST", 1_000)
    bucket.put(**{name: b"of yesterday"})
    for number in range(2_500):
        broker.add_user(f"d{number}", "p")
    broker.order_fault("status", status=401, match="page=2", times=9)
    with pytest.raises(EmqxAuthError):
        EmqxExportUsersOperator(task_id="x", output_path=f"{BUCKET}/{name}").execute({})
    assert bucket.get(name) == b"of yesterday"


def test_rules_from_a_bucket(broker: Any, bucket: Bucket) -> None:
    bucket.put(**{"acl.csv.gz": gzip.compress(b"username,topic,permission\nalice,a/#,allow\n")})
    result = EmqxProvisionAclOperator(task_id="x", source=f"{BUCKET}/acl.csv.gz").execute({})
    assert result["written"] == 1


def test_figures_are_added_to_an_object(broker: Any, bucket: Bucket) -> None:
    for number in range(3):
        append_figures(f"{BUCKET}/figures.csv", {"number": number})
    assert bucket.get("figures.csv") == b"number\n0\n1\n2\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{BUCKET}/none.csv", "file 's3://aws@fleet/none.csv' not found"),
        (f"{BUCKET}/none/", "no data files found at 's3://aws@fleet/none/'"),
        (f"{BUCKET}/none/*.csv", "no data files found"),
        (f"{BUCKET}/none", "file 's3://aws@fleet/none' not found"),
        ("s3://aws@nobucket/x.csv", "file 's3://aws@nobucket/x.csv' not found"),
        ("s3://aws@nobucket/x/", "no data files found"),
        ("gs://bucket/x.csv", "Install apache-airflow-providers-google"),
        ("abfs://bucket/x.csv", "Install apache-airflow-providers-microsoft-azure"),
    ],
)
def test_a_source_that_is_not_there(broker: Any, bucket: Bucket, source: str, message: str) -> None:
    with pytest.raises(EmqxConfigError, match=message):
        execute(source)
    assert not broker.requests


@pytest.mark.parametrize("place", ["x.csv", "x/", "*.csv", "x"])
def test_a_store_that_cannot_be_reached(broker: Any, bucket: Bucket, place: str) -> None:
    with pytest.raises(
        EmqxError, match="with the connection 'nowhere': botocore says EndpointConnectionError"
    ):
        execute(f"s3://nowhere@fleet/{place}")
    assert not broker.requests


@pytest.mark.parametrize("place", ["x.csv", "x/", "*.csv", "x"])
def test_credentials_that_are_refused(broker: Any, bucket: Bucket, place: str) -> None:
    bucket.ask_for_credentials()
    with pytest.raises(EmqxConfigError, match="may not be read with the connection 'aws'") as caught:
        execute(f"{BUCKET}/{place}")
    assert "S3cret" not in str(caught.value)
    assert not broker.requests


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("s3://aws@nobucket/r.jsonl", "with the connection 'aws': bucket or directory not found"),
        ("s3://nowhere@fleet/r.jsonl", "EndpointConnectionError"),
    ],
)
def test_a_report_that_cannot_be_written_is_told_before_anything_is_sent(
    broker: Any, bucket: Bucket, report: str, message: str
) -> None:
    with pytest.raises(EmqxError, match=message):
        execute([{"user_id": "a", "password": "p"}], report_path=report)
    assert not broker.users


def test_an_export_and_a_state_that_cannot_be_written(broker: Any, bucket: Bucket) -> None:
    with pytest.raises(
        EmqxConfigError, match="the export .* cannot be written .*bucket or directory not found"
    ):
        EmqxExportUsersOperator(task_id="x", output_path="s3://aws@nobucket/x.csv.gz").execute({})
    state = {"state_path": "s3://aws@nobucket/a.state", "pepper_conn_id": "pepper"}
    with pytest.raises(
        EmqxConfigError, match="the state .* cannot be written .*bucket or directory not found"
    ):
        execute([{"user_id": "a", "password": "p"}], **state)
    assert all(request.method == "GET" for request in broker.requests)


def test_a_store_that_goes_away_while_it_is_read(
    broker: Any, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3File, S3FileSystem

    fetch, calls = S3File._fetch_range, 0

    def fails(self: Any, start: int, end: int) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise RuntimeError("token=S3cret")
        return fetch(self, start, end)

    bucket.put(**{"x.csv": "user_id,password\n" + "".join(f"d{i:07d},{'p' * 500}\n" for i in range(6_000))})
    ObjectStoragePath(f"{BUCKET}/x.csv").exists()
    for system in S3FileSystem._cache.values():
        monkeypatch.setattr(system, "default_block_size", 1 << 18)
    monkeypatch.setattr(S3File, "_fetch_range", fails)
    with pytest.raises(EmqxError, match="reading failed: builtins says RuntimeError") as caught:
        execute(f"{BUCKET}/x.csv")
    assert "S3cret" not in str(caught.value)
    assert 500 < len(broker.users) < 6_000


def test_a_plan_is_an_object_and_its_progress_lies_beside_it(broker: Any, bucket: Bucket) -> None:
    bucket.put(**{"two.csv": TWO})
    plan: dict[str, Any] = {"source": f"{BUCKET}/two.csv", "plan_path": f"{BUCKET}/plans/p.jsonl.gz"}
    EmqxProvisionUsersOperator(task_id="plan", dry_run=True, **plan).execute({})
    done = EmqxProvisionUsersOperator(task_id="carry_out", **plan).execute({})
    assert (done["plan"] or {})["done"] == 2
    assert sorted(broker.users) == ["a", "b"]
    again = EmqxProvisionUsersOperator(task_id="carry_out", **plan).execute({})
    assert (again["plan"] or {})["not_done"] == {"before": 2}

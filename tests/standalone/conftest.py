from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.secrets import planted
from tests.standalone.browser import PROGRAMS, Browser
from tests.standalone.running import Airflow

ROWS = 60_000
NODES = ["emqx@n1", "emqx@n2"]
#: rows of the long source that no broker takes
REJECTED = range(100, ROWS, 10_000)
#: fleets that receive commands, and their devices
COMMANDED = {"waves": 300, "deferred": 200}
VERSIONS = ["5.8.9", "4.4.19"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One Airflow serves all tests of a generation; what looks for traces looks last, in what all others have left."""

    def order(item: pytest.Item) -> tuple[int, bool]:
        if item.get_closest_marker("standalone") is None:  # pytest asks for all tests that it runs
            return 0, False
        found = [number for number, version in enumerate(VERSIONS) if f"[{version}" in item.nodeid]
        # what has an Airflow of its own comes last
        return found[0] if found else len(VERSIONS), "test_traces" in item.nodeid

    items.sort(key=order)


@pytest.fixture(scope="session", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def broker(version: str) -> Iterator[FakeEmqx]:
    with FakeEmqx(version, key=planted.KEY, secret=planted.SECRET) as fake:
        # the first look of a watcher only remembers it
        fake.connect("watched-0")
        fake.add_user("commander", planted.PASSWORD)
        yield fake


@pytest.fixture(scope="session")
def slow(version: str) -> Iterator[FakeEmqx]:
    """A broker that provisioning takes a while of, and that is there to be stopped."""
    with FakeEmqx(
        version,
        key=planted.KEY,
        secret=planted.SECRET,
        pace=(3_000.0, 2_000.0),
        log_requests=False,
        edition="Enterprise",
        nodes=NODES,
    ) as fake:
        yield fake


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources, which hold passwords: what is not searched."""
    folder = tmp_path_factory.mktemp("sources")
    lines = [f"user-{number:05d},{'' if number in REJECTED else planted.SHORT}" for number in range(ROWS)]
    (folder / "many.csv").write_text("user_id,password\n" + "\n".join(lines))
    password = planted.PASSWORD.replace('"', '""')
    (folder / "users.csv").write_text(
        f'user_id,password\nfile-1,"{password}"\nfile-2,{planted.SHORT}\n,"{password}"\n'
    )
    (folder / "fleet.txt").write_text("\n".join(f"fleet-{number:04d}" for number in range(1_500)))
    for group, count in COMMANDED.items():
        (folder / f"{group}.txt").write_text("\n".join(f"{group}-{number}" for number in range(count)))
    with closing(sqlite3.connect(folder / "users.db")) as database:
        for table in ("users", "broken"):
            database.execute(f"CREATE TABLE {table} (user_id TEXT, password TEXT)")
            database.execute(f"INSERT INTO {table} VALUES (?, ?)", ("query-1", planted.PASSWORD))
        # not UTF-8: the driver's own error quotes it
        database.execute(
            "INSERT INTO broken VALUES ('query-2', CAST(? AS TEXT))", (planted.PASSWORD.encode("latin-1"),)
        )
        database.commit()
    return folder


@pytest.fixture(scope="session")
def airflow(
    version: str, broker: FakeEmqx, slow: FakeEmqx, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    wrong = {**broker.connection(), "password": planted.SECRET[::-1]}
    down = {**broker.connection(attempts=2), "host": "http://127.0.0.1:1"}
    code = 108 if version.startswith("4") else "BAD_REQUEST"
    words = json.dumps({"code": code, "message": f"{planted.PASSWORD} {planted.PAYLOAD}"})
    with ExitStack() as stack:
        echoing = stack.enter_context(FakeEmqx(version, key=planted.KEY, secret=planted.SECRET))
        echoing.order_fault("status", match="POST", times=10**6, status=400, body=words)
        connections = {
            "EMQX_DEFAULT": broker.connection(),
            "EMQX_COMMANDS": broker.connection(
                mqtt_url=broker.mqtt_url, mqtt_username="commander", mqtt_password=planted.PASSWORD
            ),
            "EMQX_MESSAGES": broker.connection(mqtt_url=broker.mqtt_url),
            "EMQX_SLOW": slow.connection(),
            "EMQX_WRONG": wrong,
            "EMQX_DOWN": down,
            "EMQX_ECHO": echoing.connection(),
            "PEPPER": {"conn_type": "generic", "password": planted.PEPPER},
            "USERS_DB": {"conn_type": "sqlite", "host": str(files / "users.db")},
        }
        running = Airflow(
            tmp_path_factory.mktemp("airflow"),
            {
                **{f"AIRFLOW_CONN_{name}": json.dumps(one) for name, one in connections.items()},
                "AIRFLOW_VAR_COMMAND": planted.PAYLOAD,
                "PLANTED_PASSWORD": planted.PASSWORD,
                "PLANTED_PAYLOAD": planted.PAYLOAD,
                "EMQX_GENERATION": "v4" if version.startswith("4") else "v5",
                "FILES": str(files),
            },
        )
        stack.callback(running.stop)
        running.start()
        # another one is where most are: in Airflow's database, encrypted
        broker.add_key("stored-key", planted.STORED)
        stored = {**broker.connection(), "login": "stored-key", "password": planted.STORED}
        running.post("connections", {"connection_id": "emqx_stored", **stored, "extra": "{}"})
        yield running


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert program, f"needs one of the programs {', '.join(PROGRAMS)}"
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    try:
        yield opened
    finally:
        opened.close()

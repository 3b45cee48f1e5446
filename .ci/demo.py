"""
Run the demo of ``make demo``: real DAG runs that provision a file of 10,000 devices as users of a broker, send a
message to one of them, and roll out a firmware to a fleet that replies over MQTT.

By default the broker is the bundled FakeEmqx, once as EMQX 5 and once as EMQX 4. Set ``EMQX_URL``, ``EMQX_KEY`` and
``EMQX_SECRET`` to use a broker of your own: the users get a prefix of their own and are deleted at the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.testing import FakeEmqx

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DEVICES = 10_000
CHANGED = 250
LOG = HOME / "airflow.log"


def main() -> int:
    url, key, secret = (os.environ.get(name, "") for name in ("EMQX_URL", "EMQX_KEY", "EMQX_SECRET"))
    if any((url, key, secret)) and not all((url, key, secret)):
        print("For a broker of your own set all three: EMQX_URL, EMQX_KEY and EMQX_SECRET.", file=sys.stderr)
        return 2
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(
                f"Another demo is running in {HOME.relative_to(ROOT)}/; wait until it has ended.",
                file=sys.stderr,
            )
            return 2
        return run(url, key, secret)


def run(url: str, key: str, secret: str) -> int:
    empty_home()
    set_environment()
    if url:
        extra = {"allow_http": True} if url.startswith("http://") else {}
        connection = {"conn_type": "emqx", "host": url, "login": key, "password": secret, "extra": extra}
        return against_a_real_broker(connection)
    prepare_database()
    from airflow_provider_emqx.testing import FakeEmqx

    for version in ("5.8.9", "4.4.19"):
        with FakeEmqx(version) as fake:
            use(fake.connection(mqtt_url=fake.mqtt_url))
            show(f"EMQX {version} (the bundled FakeEmqx)", nights("sensor-"))
            check(list(fake.users), "sensor-", fake.verify)
            command_a_device("sensor-00042", FakeDevice(fake))
            roll_out([f"sensor-{number:05d}" for number in range(FLEET)], fake)
    where_to_look()
    return 0


def empty_home() -> None:
    """Remove the files of an earlier demo, except the lock held by this one."""
    for path in HOME.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


# ---------------------------------------------------------------- the three nights


def nights(prefix: str) -> list[dict[str, Any]]:
    """Run the DAG over the same file twice, then over one with changed passwords."""
    first, changed = HOME / "devices.csv", HOME / "devices-changed.csv"
    write_devices(first, prefix)
    write_devices(changed, prefix, changed=CHANGED)
    runs = []
    for name, source in (("first night", first), ("same file again", first), (f"{CHANGED} changed", changed)):
        runs.append({"run": name, **provision(source, HOME / f"rejected-{len(runs) + 1}.jsonl")})
    return runs


def write_devices(path: Path, prefix: str, changed: int = 0) -> None:
    """Write a file of devices that is the same in every demo, with one invalid row of each kind."""
    source = random.Random(20_260_101)
    rows = [
        [f"{prefix}{number:05d}", f"pw-{source.getrandbits(64):016x}", "false"] for number in range(DEVICES)
    ]
    for row in source.sample(rows, changed):
        row[1] += "-renewed"
    lines = [",".join(row).encode() for row in rows]
    bad = [
        b",pw-without-an-id,false",
        b".,pw,false",
        b"..,pw-that-would-reach-the-authenticator,false",
        f"{prefix}00007,pw-of-a-second-row,false".encode(),
        f"{prefix}no-password,,false".encode(),
        f"{prefix}too-few".encode(),
        f"{prefix}too-many,pw,false,what,is,this".encode(),
        prefix.encode() + b"not-utf8-\xff\xfe,pw,false",
        f"{prefix}flag,pw,perhaps".encode(),
    ]
    for number, line in enumerate(bad):
        lines.insert(1_000 * (number + 1), line)
    path.write_bytes(b"user_id,password,is_superuser\n" + b"\n".join(lines) + b"\n")


def provision(source: Path, report: Path, mode: str = "upsert") -> dict[str, Any]:
    """Run the example DAG once and return the result of its task."""
    with quiet():
        from example_dags.provision_users import dag

        run = run_dag(dag, {"source": str(source), "report_path": str(report), "mode": mode})
        task = run.get_task_instance("provision_users")
        result = task.xcom_pull(task_ids="provision_users") if task else None
    if run.state != "success" or not isinstance(result, dict):
        print(f"The DAG run ended as {run.state}; its log is in {LOG}. Its last errors:", file=sys.stderr)
        errors = [line for line in LOG.read_text().splitlines() if "rror" in line]
        print(*errors[-5:], sep="\n", file=sys.stderr)
        raise SystemExit(1)
    return result


# ---------------------------------------------------------------- one device

SECONDS_UNTIL_ONLINE = 3.0
#: how long the sensor waits before the demo says that the device did not come online
SECONDS_TO_WAIT = 60.0


def command_a_device(clientid: str, device: FakeDevice | RealDevice) -> None:
    """Run the DAG that waits for a device to connect, sends it a command and disconnects it."""
    topic, command = f"cmd/{clientid}", f"report-{secrets.token_hex(4)}"
    coming = threading.Timer(SECONDS_UNTIL_ONLINE, device.connect, (clientid, topic))
    coming.start()
    with quiet():
        from example_dags.command_device import dag

        dag.get_task("online").timeout = SECONDS_TO_WAIT
        run = dag.test(run_conf={"clientid": clientid, "topic": topic, "payload": command})
        result = {task.task_id: task.xcom_pull(task_ids=task.task_id) for task in run.get_task_instances()}
    coming.join()
    received, gone = device.received(clientid), not device.connected(clientid)
    device.close()
    if run.state != "success" or received != [command] or not gone:
        raise SystemExit(
            f"The DAG run ended as {run.state}; the device received {received} and "
            f"{'was' if gone else 'was not'} disconnected. {device.problem()}The log is {LOG}."
        )
    statuses = ", ".join(
        f"{count} {status}" for status, count in result["command"]["counts"].items() if count
    )
    print(
        f"\n  {clientid} came online after {SECONDS_UNTIL_ONLINE:g} s, and the sensor succeeded."
        f"\n  It received the command {command!r} (status from the broker: {statuses}) and was disconnected."
    )


# ---------------------------------------------------------------- a fleet that replies

FLEET = 40


def roll_out(clientids: list[str], fake: FakeEmqx) -> None:
    """Run the DAG that updates a fleet in waves; the last device of it never replies."""
    for clientid in clientids:

        def answer(command: Any, clientid: str = clientid) -> None:
            if clientid != clientids[-1]:
                fake.reply(command, '{"updated": true}', clientid=clientid, seconds=0.5)

        fake.connect(clientid, username=clientid, on_message=answer)
        fake.subscribe(clientid, f"devices/{clientid}/command", 1)
    reports = HOME / "roll-outs"
    with quiet():
        from example_dags.roll_out_firmware import dag

        # a person who watches does not wait for minutes
        update, healthy = dag.get_task("update"), dag.get_task("healthy")
        update.wave_size, update.pause, update.timeout, update.quorum = "50%", 1, 5, "all"
        healthy.stable_for, healthy.poke_interval = 2, 1
        run = run_dag(dag, {"version": "2.1.0", "devices": clientids, "reports": str(reports)})
        result = run.get_task_instance("update").xcom_pull(task_ids="update")
    counts = result["counts"] if isinstance(result, dict) else {}
    commanded = [len(command_payloads(fake, clientid)) for clientid in clientids]
    if (run.state, counts.get("replied"), counts.get("no_reply"), set(commanded)) != (
        "success",
        FLEET - 1,
        1,
        {1},
    ):
        raise SystemExit(f"The roll-out ended as {run.state} with {counts}. The log is {LOG}.")
    print(
        f"\n  A firmware went to {FLEET} devices in {result['waves']} waves, over MQTT: {counts['replied']} replied "
        f"that they have it, {counts['no_reply']} did not reply ({', '.join(result['no_reply'])})."
        f"\n  The outcome of each device is in {Path(result['report_path']).relative_to(ROOT)}."
    )


def command_payloads(fake: FakeEmqx, clientid: str) -> list[bytes]:
    """Return the commands that a device has received."""
    received = fake.received(clientid)
    return [message.payload for message in received if message.topic.endswith("/command")]


class FakeDevice:
    """A device of the FakeEmqx."""

    def __init__(self, fake: FakeEmqx) -> None:
        self._fake = fake

    def connect(self, clientid: str, topic: str) -> None:
        self._fake.connect(clientid, username=clientid)
        self._fake.subscribe(clientid, topic, 1)

    def received(self, clientid: str) -> list[str]:
        return [message.payload.decode() for message in self._fake.received(clientid)]

    def connected(self, clientid: str) -> bool:
        return clientid in self._fake.clients

    def problem(self) -> str:
        return ""

    def close(self) -> None:
        pass


class RealDevice:
    """An MQTT client at a real broker, with the name and password of one of the provisioned devices."""

    def __init__(self, host: str, port: int) -> None:
        from paho.mqtt.client import CallbackAPIVersion, Client

        self._at = host, port
        self._make = lambda clientid: Client(CallbackAPIVersion.VERSION2, client_id=clientid)
        self._client: Any = None
        self._received: list[str] = []
        self._refused = ""

    def connect(self, clientid: str, topic: str) -> None:
        lines = (HOME / "devices-changed.csv").read_bytes().decode(errors="replace").splitlines()
        password = next(line.split(",")[1] for line in lines if line.startswith(f"{clientid},"))
        client = self._client = self._make(clientid)
        client.username_pw_set(clientid, password)

        def on_connect(client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                self._refused = (
                    f"The MQTT listener at {self._at[0]}:{self._at[1]} refused the device: {reason}. "
                )
            else:
                client.subscribe(topic, 1)

        client.on_connect = on_connect
        client.on_message = lambda _client, _data, message: self._received.append(message.payload.decode())
        # a kicked device would connect again at once
        client.on_disconnect = lambda client, *_: client.disconnect()
        client.connect(*self._at, 60)
        client.loop_start()

    def received(self, clientid: str) -> list[str]:
        return self._received

    def connected(self, clientid: str) -> bool:
        return bool(self._client and self._client.is_connected())

    def problem(self) -> str:
        return self._refused

    def close(self) -> None:
        if self._client:
            self._client.loop_stop()


def mqtt_address(hook: EmqxHook) -> tuple[str, int] | None:
    """Return host and port of the plain MQTT listener, from EMQX_MQTT or from the broker's list of listeners."""
    given = os.environ.get("EMQX_MQTT") or listener_address(hook)
    if given is None:
        return None
    host, _, port = given.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except (OSError, ValueError):
        print(f"\n  Skipping the device: cannot reach an MQTT listener at {given}. Set EMQX_MQTT=host:port.")
        return None
    return host, int(port)


def listener_address(hook: EmqxHook) -> str | None:
    """Return ``host:port`` of a running listener for plain TCP."""
    from airflow_provider_emqx.exceptions import EmqxError

    host = urlsplit(hook.settings.origin).hostname
    try:
        listeners = list(hook.list_listeners())
    except EmqxError as error:
        print(
            f"\n  The listeners could not be read ({error}); trying port 1883. Otherwise set EMQX_MQTT=host:port."
        )
        return f"{host}:1883"
    for listener in listeners:
        # a bind is a port, or an address and a port
        if listener["type"] == "tcp" and listener["enable"] is not False:
            return f"{host}:{str(listener['bind']).rpartition(':')[2]}"
    found = ", ".join(str(listener["id"]) for listener in listeners) or "none"
    print(
        f"\n  Skipping the device: no listener for plain MQTT over TCP among {found}. Set EMQX_MQTT=host:port."
    )
    return None


# ---------------------------------------------------------------- a broker of one's own


def against_a_real_broker(connection: dict[str, Any]) -> int:
    """Run the same nights against a real broker, under a prefix of their own, and delete the users at the end."""
    from airflow_provider_emqx.exceptions import EmqxError
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    use(connection)
    hook = EmqxHook()
    works, line = hook.test_connection()
    print(line)
    if not works:
        return 1
    prepare_database()
    try:
        hook.run(hook.api.users.user_id_type())
    except EmqxError as error:
        print(f"The demo needs a broker that keeps users in its built-in database: {error}", file=sys.stderr)
        return 1
    prefix = f"emqx-demo-{secrets.token_hex(3)}-"
    try:
        show(f"{hook.broker} at {connection['host']}, ids {prefix}…", nights(prefix))
        check([row["user_id"] for row in hook.list_users() if row["user_id"].startswith(prefix)], prefix)
        if address := mqtt_address(hook):
            command_a_device(f"{prefix}00042", RealDevice(*address))
    finally:
        if (HOME / "devices.csv").exists():
            gone = provision(HOME / "devices.csv", HOME / "deleted.jsonl", mode="delete")
            print(f"Cleaned up: {gone['deleted']:,} users {prefix}… deleted.")
        hook.close()
    where_to_look()
    return 0


# ---------------------------------------------------------------- Airflow


def set_environment() -> None:
    """Point Airflow to a home directory below .demo, before its first import."""
    os.environ.update(
        {
            "AIRFLOW_HOME": str(HOME / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow/airflow.db",
        }
    )
    (HOME / "airflow").mkdir()
    sys.path.insert(0, str(ROOT))


def prepare_database() -> None:
    """Create Airflow's database; slow, so it follows the checks that work without it."""
    with quiet():
        from airflow.utils.db import initdb

        initdb()


def use(connection: dict[str, Any]) -> None:
    """Point the connection ``emqx_default`` to a broker."""
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(connection)


def run_dag(dag: Any, conf: dict[str, Any]) -> Any:
    """Run a DAG of the example folder in this process until it ends."""
    return dag.test(run_conf=conf)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Redirect Airflow's output to the demo's log, at the level of file descriptors: its loggers keep their streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, stream in enumerate((*kept, log)):
            if number < 2:
                os.dup2(stream, number + 1)
            os.close(stream)


# ---------------------------------------------------------------- what a person reads

COLUMNS = ("read", "written", "created", "updated", "unchanged", "rejected")


def show(title: str, runs: list[dict[str, Any]]) -> None:
    """Print the runs against one broker as a table, then the rejected rows of the first run."""
    print(f"\n{title}\n")
    print(f"  {'':16}" + "".join(f"{name:>11}" for name in COLUMNS) + f"{'seconds':>10}")
    for run in runs:
        counts = "".join(f"{_count(run[name]):>11}" for name in COLUMNS)
        print(f"  {run['run']:16}{counts}{run['seconds']:10.1f}")
    rejected = HOME / "rejected-1.jsonl"
    print(f"\n  Rejected rows, from {rejected.relative_to(ROOT)}:\n")
    for row in map(json.loads, rejected.read_text().splitlines()):
        # bytes that are not UTF-8 are lone surrogates here, which no terminal can show
        name = (row["id"] or "–").encode("utf-8", "backslashreplace").decode()
        print(f"    line {row['line']:>5}  {name:34} {row['reason']}")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def check(users: list[str], prefix: str, verify: Callable[[str, str], bool] | None = None) -> None:
    """Check that every valid row of the file is exactly one user with its password, and that no other user exists."""
    expected = {}
    for line in (HOME / "devices-changed.csv").read_bytes().decode(errors="replace").splitlines()[1:]:
        user_id, password, *_ = [*line.split(","), "", ""]
        if user_id.removeprefix(prefix).isdigit():
            expected.setdefault(user_id, password)
    wrong = sorted(set(users) ^ set(expected))
    duplicated = len(users) - len(set(users))
    refused = [] if verify is None else [user for user, pw in expected.items() if not verify(user, pw)]
    if wrong or duplicated or refused:
        raise SystemExit(
            f"{len(wrong)} users are missing or extra, {duplicated} duplicated, {len(refused)} locked out"
        )
    fits = ", each with the password of its newest row" if verify else ""
    print(f"\n  {len(users):,} users in the broker: none lost, none duplicated{fits}.")


def where_to_look() -> None:
    print(
        "\nThe DAGs: provision_users.py, command_device.py and roll_out_firmware.py in example_dags/."
        f"\nTheir log: {LOG.relative_to(ROOT)}."
        "\nTo see it in the Airflow UI with a broker to play with: make ui"
    )


if __name__ == "__main__":
    sys.exit(main())

"""
The demo behind ``make demo``: a file of 10,000 devices becomes users of a broker, by real DAG runs.

Without further settings the broker is the bundled FakeEmqx, once as EMQX 5 and once as EMQX 4. With ``EMQX_URL``,
``EMQX_KEY`` and ``EMQX_SECRET`` it is that broker: ids get a prefix of their own, and all are deleted at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DEVICES = 10_000
CHANGED = 250
LOG = HOME / "airflow.log"


def main() -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    url, key, secret = (os.environ.get(name, "") for name in ("EMQX_URL", "EMQX_KEY", "EMQX_SECRET"))
    if any((url, key, secret)) and not all((url, key, secret)):
        print("For a broker of your own set all three: EMQX_URL, EMQX_KEY and EMQX_SECRET.", file=sys.stderr)
        return 2
    prepare_airflow()
    if url:
        extra = {"allow_http": True} if url.startswith("http://") else {}
        connection = {"conn_type": "emqx", "host": url, "login": key, "password": secret, "extra": extra}
        return against_a_real_broker(connection)
    from airflow_provider_emqx.testing import FakeEmqx

    for version in ("5.8.9", "4.4.19"):
        with FakeEmqx(version) as fake:
            use(fake.connection())
            show(f"EMQX {version} (the bundled FakeEmqx)", nights("sensor-"))
            check(list(fake.users), "sensor-", fake.verify)
    where_to_look()
    return 0


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
    """Write a file of devices that is the same at every demo, with a few rows of every kind of badness."""
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
    """Run the example DAG once and give what its task returned."""
    with quiet():
        from example_dags.provision_users import dag

        run = run_dag(dag, {"source": str(source), "report": str(report), "mode": mode})
        task = run.get_task_instance("provision_users")
        result = task.xcom_pull(task_ids="provision_users") if task else None
    if run.state != "success" or not isinstance(result, dict):
        print(f"The DAG run ended as {run.state}; its log is in {LOG}. Its last errors:", file=sys.stderr)
        errors = [line for line in LOG.read_text().splitlines() if "rror" in line]
        print(*errors[-5:], sep="\n", file=sys.stderr)
        raise SystemExit(1)
    return result


# ---------------------------------------------------------------- a broker of one's own


def against_a_real_broker(connection: dict[str, Any]) -> int:
    """Run the same nights against a real broker, under ids of our own, and delete them again."""
    from airflow_provider_emqx.exceptions import EmqxError
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    use(connection)
    hook = EmqxHook()
    works, line = hook.test_connection()
    print(line)
    if not works:
        return 1
    try:
        hook.run(hook.api.auth.user_id_type(hook.broker))
    except EmqxError as error:
        print(f"The demo needs a broker that keeps users in its built-in database: {error}", file=sys.stderr)
        return 1
    prefix = f"emqx-demo-{secrets.token_hex(3)}-"
    try:
        show(f"{hook.broker} at {connection['host']}, ids {prefix}…", nights(prefix))
        check([row["user_id"] for row in hook.list_users() if row["user_id"].startswith(prefix)], prefix)
    finally:
        if (HOME / "devices.csv").exists():
            gone = provision(HOME / "devices.csv", HOME / "deleted.jsonl", mode="delete")
            print(f"Cleaned up: {gone['deleted']:,} users {prefix}… deleted.")
        hook.close()
    where_to_look()
    return 0


# ---------------------------------------------------------------- Airflow


def prepare_airflow() -> None:
    """Make an Airflow of the demo's own below .demo; its environment is set before its first import."""
    os.environ.update(
        {
            "AIRFLOW_HOME": str(HOME / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow/airflow.db",
        }
    )
    (HOME / "airflow").mkdir()
    sys.path.insert(0, str(ROOT))
    with quiet():
        from airflow.utils.db import initdb

        initdb()


def use(connection: dict[str, Any]) -> None:
    """Point the connection ``emqx_default`` to a broker."""
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(connection)


def run_dag(dag: Any, conf: dict[str, Any]) -> Any:
    """Run a DAG of the example folder to its end in this process."""
    return dag.test(run_conf=conf)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what Airflow prints to the demo's log, below Python too: its loggers keep the streams that they found."""
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
    """Print one broker's nights as a table, and the rejected rows of the first."""
    print(f"\n{title}\n")
    print(f"  {'':16}" + "".join(f"{name:>11}" for name in COLUMNS) + f"{'seconds':>10}")
    for run in runs:
        counts = "".join(f"{_count(run[name]):>11}" for name in COLUMNS)
        print(f"  {run['run']:16}{counts}{run['seconds']:10.1f}")
    rejected = HOME / "rejected-1.jsonl"
    print(f"\n  Rows that did not make it, as in {rejected.relative_to(ROOT)}:\n")
    for row in map(json.loads, rejected.read_text().splitlines()):
        print(f"    line {row['line']:>5}  {row['id'] or '–':34} {row['reason']}")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def check(users: list[str], prefix: str, verify: Callable[[str, str], bool] | None = None) -> None:
    """Compare the broker with the file: every good row is a user once, nothing else is, and passwords fit."""
    expected = {}
    for line in (HOME / "devices-changed.csv").read_bytes().decode(errors="replace").splitlines()[1:]:
        user_id, password, *_ = [*line.split(","), "", ""]
        if user_id.removeprefix(prefix).isdigit():
            expected.setdefault(user_id, password)
    wrong = sorted(set(users) ^ set(expected))
    doubled = len(users) - len(set(users))
    refused = [] if verify is None else [user for user, pw in expected.items() if not verify(user, pw)]
    if wrong or doubled or refused:
        raise SystemExit(
            f"{len(wrong)} users are missing or extra, {doubled} doubled, {len(refused)} locked out"
        )
    fits = ", each with the password of its newest row" if verify else ""
    print(f"\n  {len(users):,} users in the broker: none lost, none doubled{fits}.")


def where_to_look() -> None:
    print(
        f"\nThe DAG: example_dags/provision_users.py. Its log: {LOG.relative_to(ROOT)}."
        "\nTo see it in the Airflow UI with a broker to play with: make ui"
    )


if __name__ == "__main__":
    sys.exit(main())

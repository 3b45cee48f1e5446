"""What all measurements need: brokers in processes of their own, sources, and the provider as a task would use it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.table import Line, machine, render

if TYPE_CHECKING:
    from airflow_provider_emqx.results import ProvisionUsersResult

ROOT = Path(__file__).resolve().parent.parent.parent
KEY, SECRET = "key", "secret"
IN_FLIGHT = 32


@dataclass(frozen=True)
class Generation:
    """
    One generation of brokers, as far as the bare loops must know it.

    :param name: ``"v4"`` or ``"v5"``, also the pace of such a broker.
    :param version: that the fake one plays.
    :param users: path of its users.
    :param bulk: path that takes many of them.
    """

    name: str
    version: str
    users: str
    bulk: str


V5 = Generation(
    "v5",
    "5.8.9",
    "/api/v5/authentication/password_based:built_in_database/users",
    "/api/v5/authentication/password_based:built_in_database/import_users?type=plain",
)
V4 = Generation("v4", "4.4.19", "/api/v4/auth_username", "/api/v4/auth_username")


@contextmanager
def broker(generation: Generation, *options: str, paced: bool = True) -> Iterator[str]:
    """
    Run a FakeEmqx in a process of its own, and point the connection ``emqx_default`` to it.

    :param generation: of the broker.
    :param options: further ones of ``python -m airflow_provider_emqx.testing``.
    :param paced: as slow as a real one.
    :return: its origin.
    """
    command = [sys.executable, "-m", "airflow_provider_emqx.testing", "--version", generation.version]
    command += ["--pace", generation.name] if paced else []
    with subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            origin = process.stdout.readline().strip()
            if not origin:
                raise RuntimeError("the fake broker did not start")
            extra = {"mqtt_url": process.stdout.readline().strip()}
            connection = {
                "conn_type": "emqx",
                "host": origin,
                "login": KEY,
                "password": SECRET,
                "extra": extra,
            }
            os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(connection)
            yield origin
        finally:
            process.terminate()


def forget_mqtt() -> None:
    """Take the MQTT address out of the connection, so that waits check at their interval."""
    connection = json.loads(os.environ["AIRFLOW_CONN_EMQX_DEFAULT"])
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps({**connection, "extra": {}})


def prepare_airflow(home: Path) -> None:
    """Keep Airflow away from whatever is configured on this machine; to be called before its first import."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW__", "AIRFLOW_CONN_"))]:
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = str(home)
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    # lets execute() be called without a task run around it
    os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db"
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    logging.disable(logging.INFO)


def users(prefix: str, count: int) -> Iterator[tuple[str, str]]:
    """Make user ids and passwords of equal length."""
    return ((f"bench-{prefix}-{number:07d}", f"password-{number:012d}") for number in range(count))


def write_csv(path: Path, prefix: str, count: int) -> Path:
    """Write a source of users."""
    with path.open("w") as file:
        file.write("user_id,password,is_superuser\n")
        file.writelines(f"{user_id},{password},false\n" for user_id, password in users(prefix, count))
    return path


def print_part(lines: Callable[[Path, bool], Iterable[Line]]) -> None:
    """Measure one part of the table and print it, with ``--quick`` as in ``make bench``."""
    with tempfile.TemporaryDirectory(prefix="emqx-bench-") as folder:
        prepare_airflow(Path(folder))
        table = render(list(lines(Path(folder), "--quick" in sys.argv)))
    print(machine(), table, sep="\n\n")


def provision(source: Path, **options: Any) -> ProvisionUsersResult:
    """Execute the operator on a source, and hold it to its count."""
    from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator

    operator = EmqxProvisionUsersOperator(task_id="provision", source=str(source), **options)
    done = operator.execute({})
    mode = options.get("mode")
    if done["read"] != (
        done["deleted"] if mode == "delete" else done["skipped"] if mode == "prune" else done["written"]
    ):
        raise RuntimeError(f"not every row was done: {done}")
    return done


def provision_elsewhere(source: Path, *tasks: dict[str, Any]) -> list[Usage]:
    """
    Do the same in processes of their own, all at once, and tell what they took.

    :param source: of all of them.
    :param tasks: options of the operator, for each process.
    """
    command = [sys.executable, "-m", "tests.bench.setting", str(source)]
    running = [
        subprocess.Popen(
            [*command, json.dumps(options)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for options in tasks
    ]
    # importing Airflow takes seconds, whatever a task does, and Airflow may have something to say
    for process in running:
        assert process.stdout is not None
        while process.stdout.readline() not in (_READY, ""):
            pass
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0].splitlines() for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("a process failed; what it said is above")
    return [Usage(**json.loads(lines[-1])) for lines in answers]


_READY = "ready\n"


@dataclass(frozen=True)
class Usage:
    """
    What a process took for a source.

    :param wall: seconds.
    :param cpu: seconds of its own CPU.
    :param peak: largest resident size in bytes.
    :param result: of the operator.
    """

    wall: float
    cpu: float
    peak: int
    result: ProvisionUsersResult


def _usage(source: Path, options: dict[str, Any]) -> Usage:
    import airflow_provider_emqx.hooks.emqx
    import airflow_provider_emqx.operators.auth  # noqa: F401

    print(_READY, end="", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter(), time.process_time()
    result = provision(source, **options)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Usage(wall, cpu, _peak(), result)


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        # on Linux this also counts the process that started this one; here it is in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def bare_session(key: str = KEY, secret: str = SECRET) -> Any:
    """Make a session of requests that does nothing it need not do."""
    import requests

    session = requests.Session()
    session.auth = (key, secret)
    # a .netrc and proxies would be looked for at every call
    session.trust_env = False
    return session


if __name__ == "__main__":
    print(json.dumps(asdict(_usage(Path(sys.argv[1]), json.loads(sys.argv[2])))))

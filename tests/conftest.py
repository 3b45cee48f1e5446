"""
Fixtures for all tests.

Airflow reads its configuration once, at its first import, so the environment is set before anything else here.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hangs import tasks_of_all_loops
from tests.needs import cannot_hold, older

_HOME = Path(tempfile.mkdtemp(prefix="airflow-provider-emqx-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
(_HOME / "dags").mkdir()

# Settings and connections of whoever runs the tests would change what is tested.
for _name in [name for name in os.environ if name.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_"))]:
    del os.environ[_name]
os.environ.update(
    {
        "AIRFLOW_HOME": str(_HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_HOME / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        "NO_PROXY": "127.0.0.1,localhost",
    }
)
if older("apache-airflow", "3.0"):  # which refuses its default executor on sqlite
    os.environ["AIRFLOW__CORE__EXECUTOR"] = "SequentialExecutor"

#: One broker of each API generation; what differs between releases of one generation is tested by version.
GENERATIONS = ("4.4.19", "5.8.9")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Start two workers for each core, since tests mostly wait, and none for a chosen part of the suite."""
    if config.args_source is config.ArgsSource.ARGS or config.option.keyword:
        return 0  # a worker takes two seconds to start
    return max(4, 2 * (os.cpu_count() or 1))


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Create Airflow's metadata database, which ``dag.test()`` needs."""
    from airflow.utils.db import initdb

    initdb()
    try:
        from airflow.sdk.execution_time import supervisor
    except ImportError:  # Airflow 2
        return
    # Airflow before 3.3 makes the API server of dag.test() anew for each task, which takes a second and leaves threads
    supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)
    if older("apache-airflow", "3.1"):
        _parse_the_date_of_the_first_look()


def _parse_the_date_of_the_first_look() -> None:
    """Let rescheduled sensors time out under dag.test() of Airflow 3.0, which leaves out what workers parse."""
    from airflow.sdk.api.client import TaskInstanceOperations

    ask = TaskInstanceOperations.get_reschedule_start_date

    def parsed(*args: Any, **kwargs: Any) -> Any:
        answer = ask(*args, **kwargs)
        return type(answer).model_validate(answer.model_dump())

    TaskInstanceOperations.get_reschedule_start_date = parsed


@pytest.fixture
def run_dag(airflow_db: None) -> Callable[..., Any]:
    """Return a function that runs a DAG to its end in this process and returns the DagRun; check its ``state``."""

    def run(dag: Any, **kwargs: Any) -> Any:
        _register(dag)
        return dag.test(**kwargs)

    return run


def _register(dag: Any) -> None:
    """Make the DAG known to Airflow 3, which runs only what is in a bundle; Airflow 2 runs any DAG."""
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
    except ImportError:
        return
    from airflow import settings

    with settings.Session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
        session.commit()
    folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
    try:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:  # Airflow before 3.2
        import airflow.models.dagbag as old

        bag = old.DagBag(dag_folder=folder)
        bag.bag_dag(dag)
        if hasattr(old, "sync_bag_to_db"):
            old.sync_bag_to_db(bag, "dags-folder", None)
        else:  # Airflow 3.0
            dag.relative_fileloc = Path(dag.fileloc).name
            bag.sync_to_db("dags-folder", None)
    else:
        bag = DagBag(dag_folder=folder)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)


@pytest.fixture(params=GENERATIONS)
def version(request: pytest.FixtureRequest) -> str:
    """EMQX version of the ``broker`` fixture; override it with ``@pytest.mark.parametrize("version", [...])``."""
    return str(request.param)


@pytest.fixture
def broker(version: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A running FakeEmqx, one per generation, that the connection ``emqx_default`` leads to."""
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx(version=version) as fake:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(fake.connection()))
        yield fake


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Generator[None, bool, bool]:
    """Show the tasks of all event loops beside the threads when a test takes too long, before they are cancelled."""
    done = yield
    fail = signal.getsignal(signal.SIGALRM)
    if callable(fail):

        def show(number: int, frame: Any) -> None:
            item.add_report_section("call", "tasks", tasks_of_all_loops())
            fail(number, frame)

        signal.signal(signal.SIGALRM, show)
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skipped test as failed where NO_SKIPS asks for a complete run, unless what is installed is too old."""
    report = yield
    return _complete(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Count a skipped module as failed where NO_SKIPS asks for a complete run."""
    report = yield
    return _complete(report)


def _complete(report: Any) -> Any:
    accepted = hasattr(report, "wasxfail") or cannot_hold(str(report.longrepr))
    if os.environ.get("NO_SKIPS") and report.skipped and not accepted:
        report.outcome = "failed"
        report.longrepr = f"skipped in a run that must be complete: {report.longrepr}"
    return report

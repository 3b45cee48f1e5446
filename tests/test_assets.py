"""Runs tell Airflow and OpenLineage what they have changed at a broker."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.openlineage import facet
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias

from airflow_provider_emqx.assets import (
    asset_uri,
    convert_asset_to_openlineage,
    create_asset,
    lineage,
    sanitize_uri,
)
from airflow_provider_emqx.operators.auth import EmqxProvisionAclOperator, EmqxProvisionUsersOperator
from tests.needs import needs

ROWS = [{"user_id": "sensor-1", "password": "p"}, {"user_id": "sensor-2"}]


class Events(dict[Any, Any]):
    """Takes the place of the events of a task's outlets."""

    def __missing__(self, outlet: Any) -> Any:
        added: list[tuple[str, dict[str, Any]]] = []
        event = SimpleNamespace(extra={}, added=added)
        event.add = lambda asset, extra: added.append((asset.uri, extra))
        self[outlet] = event
        return event


def run(operator: type, **arguments: Any) -> tuple[Any, Events]:
    events = Events()
    task = operator(task_id="provision", **arguments)
    task.execute({"outlet_events": events})
    return task, events


def test_counts_are_attached_to_the_assets_that_a_task_names(broker: Any) -> None:
    mine, other = Asset("emqx://127.0.0.1/users"), Asset("s3://bucket/devices.csv")
    _, events = run(EmqxProvisionUsersOperator, source=ROWS, outlets=[mine, other])
    assert set(events) == {mine}
    extra = events[mine].extra
    assert (extra["read"], extra["written"], extra["rejected"], extra["dry_run"]) == (2, 1, 1, False)


def test_an_alias_gets_an_event_for_each_scope(broker: Any) -> None:
    alias = AssetAlias("provisioned")
    arguments = {"source": ROWS, "mode": "sync", "scope": ["sensor-*", "a/b#?"], "outlets": [alias]}
    _, events = run(EmqxProvisionUsersOperator, **arguments)
    assert [uri for uri, _ in events[alias].added] == [
        "emqx://127.0.0.1/users/sensor-*",
        "emqx://127.0.0.1/users/a%2Fb%23%3F",
    ]
    assert events[alias].added[0][1]["pruned"] == 0
    rules = [{"username": "u", "topic": "a", "permission": "allow"}]
    _, events = run(EmqxProvisionAclOperator, source=rules, outlets=[alias])
    [(uri, extra)] = events[alias].added
    assert (uri, extra["subjects"]) == ("emqx://127.0.0.1/acl", 1)


def test_a_dry_run_is_no_event(broker: Any) -> None:
    alias, mine = AssetAlias("provisioned"), Asset("emqx://127.0.0.1/users")
    task, events = run(EmqxProvisionUsersOperator, source=ROWS, dry_run=True, outlets=[alias, mine])
    assert (alias in events, events[mine].extra["dry_run"]) == (False, True)
    assert task.get_openlineage_facets_on_complete(None) is None


@needs("apache-airflow", "3.0", "Airflow 2 keeps such events in other tables")
def test_airflow_stores_the_event(broker: Any, run_dag: Any) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    uri = "emqx://127.0.0.1/users/event-*"
    with DAG("announces", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        EmqxProvisionUsersOperator(task_id="provision", source=ROWS, outlets=[Asset(uri)])
    run = run_dag(dag)
    assert run.state == "success"
    with create_session() as session:
        extras = [
            event.extra
            for event in session.query(AssetEvent).all()
            if event.source_run_id == run.run_id and event.asset.uri == uri
        ]
    assert [(extra["read"], extra["written"]) for extra in extras] == [(2, 1)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("emqx://Broker.Example.com:8443/users", "emqx://broker.example.com/users"),
        ("emqx://key@broker/users/sensor-*?a=b", "emqx://broker/users/sensor-*"),
        ("emqx://[::1]:18083/acl", "emqx://[::1]/acl"),
    ],
)
def test_uris_that_mean_the_same_become_equal(given: str, expected: str) -> None:
    assert sanitize_uri(urlsplit(given)).geturl() == expected


@pytest.mark.parametrize("given", ["emqx:///users", "emqx://broker", "emqx://broker/"])
def test_uris_that_mean_nothing_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="expected emqx://host/users"):
        sanitize_uri(urlsplit(given))


def test_assets_are_made_from_their_parts() -> None:
    assert create_asset(host="broker", scope="sensor-*").uri == "emqx://broker/users/sensor-*"
    assert asset_uri("::1", "acl") == "emqx://[::1]/acl"


class Record(SimpleNamespace):
    """Takes the place of OpenLineage's classes, which need not be installed."""


@pytest.fixture
def openlineage(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Dataset", "OutputDataset", "OutputStatisticsOutputDatasetFacet"):
        monkeypatch.setattr(facet, name, Record)
    module = ModuleType("airflow.providers.openlineage.extractors")
    module.OperatorLineage = Record  # type: ignore[attr-defined]
    for name in ("airflow.providers.openlineage", "airflow.providers.openlineage.extractors"):
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("openlineage")
def test_openlineage_gets_source_and_target(broker: Any, tmp_path: Path) -> None:
    source = tmp_path / "devices.csv"
    source.write_text("user_id,password\nsensor-1,p\nsensor-2,\n")
    task, _ = run(EmqxProvisionUsersOperator, source=str(source), mode="sync", scope="sensor-*")
    found = task.get_openlineage_facets_on_complete(None)
    assert [(one.namespace, one.name) for one in found.inputs] == [("file", str(source))]
    [target] = found.outputs
    assert (target.namespace, target.name) == ("emqx://127.0.0.1", "users/sensor-*")
    assert target.outputFacets["outputStatistics"].rowCount == 1


@pytest.mark.usefixtures("openlineage")
def test_openlineage_gets_no_connection_and_no_rows() -> None:
    uri = asset_uri("broker", "users")
    [source] = lineage("s3://aws_default@bucket/fleet/devices.csv.gz", [uri], 1).inputs
    assert (source.namespace, source.name) == ("s3://bucket", "fleet/devices.csv.gz")
    assert lineage(ROWS, [uri], 1).inputs == []
    converted: Any = convert_asset_to_openlineage(create_asset(host="broker"), None)
    assert (converted.namespace, converted.name) == ("emqx://broker", "users")

"""Every operator, and every sensor at its first look, meets a broker that is starting and ends as at one that is up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from tests.operators.run import TI
from tests.secrets import every

VERSIONS = ["5.8.9", "6.1.0"]
#: of results: what tells times, rates and names made of them
FLEETING = {
    *(
        "seconds",
        "rows_per_second",
        "phases",
        "limited_by",
        "backup_path",
        "filename",
        "sha256",
        "size",
        "time",
        "created_at",
    ),
    *("report_path", "output_path", "id", "until", "publish_at", "connected_at", "port"),
}


def tasks(folder: Path) -> dict[str, Any]:
    with every.start("all") as dag:
        every.operators(folder, every.sources(folder / "given"), v4=False, deferrable=False)
        every.sensors(v4=False, poke_interval=0.1)
    return {task.task_id: task for task in dag.tasks if not task.is_mapped}


def plain(value: Any) -> Any:
    """Leave out what differs from run to run."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in FLEETING}
    return [plain(item) for item in value] if isinstance(value, list) else value


def outcome(version: str, folder: Path, name: str, **start: float) -> Any:
    """Execute one task at a broker of its own that has just come up, with its clients back; return how it ended."""
    with (
        FakeEmqx(version, edition="Enterprise", nodes=every.NODES) as broker,
        pytest.MonkeyPatch.context() as patch,
        EmqxHook() as hook,
    ):
        patch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        for connection, value in every.connections(folder).items():
            patch.setenv(connection, value)
        hook.register_topic_metrics("t/1")
        broker.add_rule("r2", 'SELECT * FROM "t/#"')
        if name == "wait_EmqxNodeEvacuatedSensor":
            hook.start_evacuation(every.NODES[1], wait_health_check="0s")
        broker.restart(**start)
        every.furnish(broker)
        if name == "wait_EmqxNodeEvacuatedSensor":
            broker.finish_evacuation(every.NODES[1])
        task = tasks(folder)[name]
        act = task.poke if name.startswith("wait_") else task.execute
        found = act({"ti": TI()})
        return plain(json.loads(json.dumps(found.xcom_value if name.startswith("wait_") else found)))


NAMES = [
    *(
        "rows",
        "file",
        "query",
        "export",
        "acl",
        "ban",
        "unban",
        "clients",
        "kick",
        "subscribe",
        "unsubscribe",
    ),
    *("publish", "messages", "clear", "measure", "subscriptions", "backup", "alarms", "figures", "rule"),
    *("request", "evacuate", "archive_of_users"),
    *("wait_EmqxClientOnlineSensor", "wait_EmqxClientOfflineSensor", "wait_EmqxSubscriptionSensor"),
    *("wait_EmqxTopicMetricSensor", "wait_EmqxClusterHealthSensor", "wait_EmqxMetricSensor"),
    *("wait_EmqxRuleHealthSensor", "wait_EmqxNodeEvacuatedSensor", "wait_EmqxRetainedMessageSensor"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_task_ends_as_at_a_broker_that_is_up(version: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "starting").mkdir()
    up = outcome(version, tmp_path / "up", name)
    assert outcome(version, tmp_path / "starting", name, boot_seconds=0.4, database_seconds=0.4) == up
    assert up is not None or name == "alarms"


def test_every_task_is_among_them(tmp_path: Path) -> None:
    # "remembered" is "file" with a state file; "restore" and those that talk MQTT are held by their own tests
    others = {"command", "remembered", "restore", "wait_EmqxMessageSensor"}
    assert set(tasks(tmp_path)) - set(NAMES) <= others

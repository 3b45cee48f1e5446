"""
Send each device its settings when it comes online.

Purpose: no schedule and no polling DAG: the triggerer watches the broker, and a run starts for the devices that have
connected since the last look. A device that is away meanwhile is not lost: QoS 1, and it is greeted again when it
connects again.

Needs: Airflow 3.0 or newer, with a triggerer that reaches the broker, and the Airflow connection ``emqx_default``.

Run: unpause ``emqx_greet_new_devices``, and let a device connect whose client id begins with ``example-sensor-``.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.triggers.emqx import EmqxEventTrigger

came_online = Asset(
    "emqx_sensors_online",
    watchers=[
        AssetWatcher(
            name="online",
            trigger=EmqxEventTrigger(event="client_online", clientid="example-sensor-*", poll_interval=30),
        )
    ],
)

with DAG(
    "emqx_greet_new_devices", schedule=[came_online], catchup=False, tags=["emqx"], doc_md=__doc__
) as dag:

    @task
    def settings(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Write one message for each device that has come online."""
        found = [event for events in (triggering_asset_events or {}).values() for event in events]
        devices = sorted({name for event in found for name in event.extra["payload"]["clientids"]})
        return [
            {"topic": f"settings/{device}", "payload": {"report_every": 60}, "qos": 1} for device in devices
        ]

    EmqxPublishOperator(task_id="greet", messages=settings())

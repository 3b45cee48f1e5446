"""
Send each device its settings when it comes online.

Purpose: the triggerer watches the broker, without a schedule or a polling DAG, and starts a run for the devices that
have connected since the last check. A device that disconnects in the meantime still receives its settings: they are
published with QoS 1, and again when it reconnects.

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
            trigger=EmqxEventTrigger(
                event="client_online", clientid_pattern="example-sensor-*", poll_interval=30
            ),
        )
    ],
)

with DAG(
    "emqx_greet_new_devices", schedule=[came_online], catchup=False, tags=["emqx"], doc_md=__doc__
) as dag:

    @task
    def settings(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return one message for each device that has come online."""
        found = [event for events in (triggering_asset_events or {}).values() for event in events]
        devices = sorted({name for event in found for name in event.extra["payload"]["clientids"]})
        return [
            {"topic": f"settings/{device}", "payload": {"report_every": 60}, "qos": 1} for device in devices
        ]

    EmqxPublishOperator(task_id="greet", messages=settings())

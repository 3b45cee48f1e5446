"""A DAG that devices start by a message."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_emqx.triggers.messages import EmqxMessageTrigger

told = Asset(
    "told-by-devices",
    watchers=[
        AssetWatcher(
            name="told",
            trigger=EmqxMessageTrigger(
                topic="told/#", emqx_conn_id="emqx_messages", batch_size=10, clientid="told-watcher"
            ),
        )
    ],
)

with DAG("on_message", schedule=[told]):

    @task
    def topics(triggering_asset_events: Any = None) -> list[str]:
        """Name the topics of the messages."""
        events = triggering_asset_events[told]
        return [message["topic"] for event in events for message in event.extra["payload"]["messages"]]

    topics()

"""A DAG that devices start by coming online."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_emqx.triggers.emqx import EmqxEventTrigger

came_online = Asset(
    "watched-devices",
    watchers=[
        AssetWatcher(
            name="online",
            trigger=EmqxEventTrigger(event="client_online", clientid_pattern="watched-*", poll_interval=3),
        )
    ],
)

with DAG("on_online", schedule=[came_online]):

    @task
    def who(triggering_asset_events: Any = None) -> list[str]:
        """Name the devices that have come online."""
        events = triggering_asset_events[came_online]
        return sorted(name for event in events for name in event.extra["payload"]["clientids"])

    who()

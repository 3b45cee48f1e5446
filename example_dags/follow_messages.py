"""
Start a DAG by the messages of devices.

Purpose: the triggerer listens to a topic, without a schedule or a polling DAG, and messages that arrive start a run.
Here gateways report a temperature, and those that are too hot switch on a fan.

Needs: Airflow 3.0 or newer, with a triggerer that reaches the broker, the extra ``mqtt`` of this package, and the
Airflow connection ``emqx_default`` with an MQTT address.

Run: unpause ``emqx_follow_messages``, and publish ``{"temperature": 95}`` to ``gateways/example-1/temperature`` with
QoS 1.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.triggers.messages import EmqxMessageTrigger

too_hot = Asset(
    "emqx_gateways_too_hot",
    watchers=[
        AssetWatcher(
            name="too_hot",
            trigger=EmqxMessageTrigger(
                topic="gateways/+/temperature", json_field="temperature", threshold=90
            ),
        )
    ],
)

with DAG("emqx_follow_messages", schedule=[too_hot], catchup=False, tags=["emqx"], doc_md=__doc__) as dag:

    @task
    def cool_down(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return one message for each gateway that has reported, however often it has."""
        found = [event for events in (triggering_asset_events or {}).values() for event in events]
        topics = {message["topic"] for event in found for message in event.extra["payload"]["messages"]}
        return [
            {"topic": f"gateways/{topic.split('/')[1]}/fan", "payload": {"speed": 100}, "qos": 1}
            for topic in sorted(topics)
        ]

    EmqxPublishOperator(task_id="fan", messages=cool_down())

"""Waits for messages, on a worker and in the triggerer."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_emqx.sensors.messages import EmqxMessageSensor

with DAG("wait_for_messages", schedule=None):
    for name in ("worker", "triggerer"):
        EmqxMessageSensor(
            task_id=name,
            topic=f"answers/{name}",
            payload=os.environ["PLANTED_PAYLOAD"],
            emqx_conn_id="emqx_messages",
            timeout=900,
            deferrable=name == "triggerer",
            retries=3,
            retry_delay=timedelta(seconds=1),
        )

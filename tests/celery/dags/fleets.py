"""Mapped waits for the four parts of a fleet, on both generations of brokers."""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor

with DAG("fleets", schedule=None):
    for name in ("default", "old"):
        EmqxClientOnlineSensor.partial(
            task_id=name,
            quorum="99%",
            emqx_conn_id=f"emqx_{name}",
            poke_interval=3,
            timeout=3600,
            deferrable=True,
            retries=2,
        ).expand(clientids_path=[f"{os.environ['FILES']}/fleet-{part}.txt" for part in range(4)])

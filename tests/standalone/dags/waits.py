"""Waits in the triggerer: for one device, for a fleet that is named by a file, for a figure of the cluster."""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.sensors.cluster import EmqxMetricSensor

with DAG(
    "waits",
    schedule=None,
    default_args={"poke_interval": 3, "timeout": 600, "deferrable": True, "retries": 1},
):
    EmqxClientOnlineSensor(task_id="device", clientids="device-1")
    EmqxClientOnlineSensor(task_id="fleet", clientids_path=os.environ["FILES"] + "/fleet.txt", quorum="99%")
    EmqxMetricSensor(task_id="figure", metric="live_connections.count", threshold=1_000)
    EmqxClientOnlineSensor(task_id="in_time", clientids="nobody", timeout=45, soft_fail=True)

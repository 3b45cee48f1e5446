"""
Wait until nearly a whole fleet is online, then send it a command in waves.

Purpose: one sensor waits for thousands of devices with one request every five minutes. Then mapped tasks send the
command in waves to those that are online; the result of the wait lists the others.

Needs: the Airflow connection ``emqx_default``, and a text file of client ids, one per line, that workers and triggerer
reach: object storage, or a shared mount. Its path is the run's parameter ``fleet``.

Run: ``airflow dags test emqx_wait_for_fleet --conf '{"fleet": "/data/fleet.txt", "wave": 500}'``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, task

from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor

with DAG(
    "emqx_wait_for_fleet",
    schedule=None,
    params={"fleet": "fleet.txt", "wave": 500},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    online = EmqxClientOnlineSensor(
        task_id="online",
        clientids_path="{{ params.fleet }}",
        quorum="99%",
        poke_interval=300,
        timeout=12 * 3600,
        deferrable=True,
        retries=1,
    )

    @task
    def waves(found: Any, params: Any = None) -> list[list[dict[str, Any]]]:
        """Return the messages of each wave, for the devices that are online."""
        # 1 % of 100,000 devices; of a larger fleet give the sensor a missing_path
        missing = set(found["missing"])
        # read whole: the files of Airflow 2 cannot be iterated over
        fleet = ObjectStoragePath(params["fleet"]).read_text(encoding="utf-8")
        lines = [line.strip() for line in fleet.split("\n")]
        devices = [line for line in lines if line and line not in missing]
        size = int(params["wave"])
        return [
            [
                {"topic": f"cmd/{device}", "payload": {"do": "report"}, "qos": 1}
                for device in devices[at : at + size]
            ]
            for at in range(0, len(devices), size)
        ]

    # no retries: a command that may have been sent is not sent twice
    EmqxPublishOperator.partial(task_id="command", max_active_tis_per_dagrun=1, retries=0).expand(
        messages=waves(online.output)
    )

"""
Wait until a device is online.

Purpose: a workflow that needs a device waits for it, with one request per minute and without a worker slot.

Needs: the Airflow connection ``emqx_default``. The client id is the run's parameter ``clientid``.

Run: ``airflow dags test emqx_wait_for_device --conf '{"clientid": "example-device-1"}'``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor

with DAG(
    "emqx_wait_for_device",
    schedule=None,
    params={"clientid": "example-device-1"},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    online = EmqxClientOnlineSensor(
        task_id="online",
        clientids="{{ params.clientid }}",
        # connected for ten seconds without a break: not one that comes and goes
        stable_for=10,
        poke_interval=60,
        timeout=6 * 3600,
        deferrable=True,
        retries=1,
    )

    @task
    def use(found: Any) -> str:
        """Do what needs the device."""
        return f"{found['online']} of {found['awaited']} clients are online"

    use(online.output)

"""
Roll out a firmware to a fleet in waves of a tenth, and collect a reply from each device.

Purpose: when enough devices are online, a tenth of them receives the command to update over MQTT. Each device replies
when it is done, with success or failure. When 95 % of the wave have updated, the next wave starts; when more than 5 %
of all that received the command have not, the roll-out stops before the later waves, and a retry of the task continues
with those. The report has a line for each device. In the end the fleet must stay connected for five minutes.

Needs: the extra ``mqtt``; the Airflow connection ``emqx_default`` with an MQTT address, whose account may publish to
``devices/+/command`` and subscribe to ``devices/+/reply``. Devices that subscribe to ``devices/<client id>/command``
and reply with MQTT 5, as in ``{"updated": true}``. A directory for reports that workers and triggerer share.

Run: ``airflow dags test emqx_roll_out_firmware --conf '{"version": "2.1.0",
"devices": ["example-device-1", "example-device-2", "example-device-3"]}'``.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, chain, task

from airflow_provider_emqx.operators.commands import EmqxCommandOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor

ENOUGH = "95%"

with DAG(
    "emqx_roll_out_firmware",
    schedule=None,
    max_active_runs=1,
    params={
        "version": "1.0.0",
        "devices": ["example-device-1", "example-device-2", "example-device-3"],
        "reports": "roll-outs",
    },
    tags=["emqx"],
    doc_md=__doc__,
) as dag:

    @task
    def fleet(**context: Any) -> list[str]:
        """Return the devices; a larger fleet is a file, given as ``clientids_path``."""
        return list(context["params"]["devices"])

    devices: Any = fleet()
    ready = EmqxClientOnlineSensor(
        task_id="ready",
        clientids=devices,
        quorum=ENOUGH,
        poke_interval=60,
        timeout=24 * 3600,
        deferrable=True,
    )
    update = EmqxCommandOperator(
        task_id="update",
        clientids=devices,
        payload={"do": "update", "version": "{{ params.version }}"},
        success={"updated": True},
        wave_size="10%",
        quorum=ENOUGH,
        timeout=1800,
        pause=30,
        max_failed="5%",
        report_path="{{ params.reports }}/{{ run_id }}.jsonl",
        deferrable=True,
    )
    healthy = EmqxClientOnlineSensor(
        task_id="healthy",
        clientids=devices,
        quorum=ENOUGH,
        stable_for=300,
        poke_interval=60,
        timeout=2 * 3600,
        deferrable=True,
    )
    chain(ready, update, healthy)

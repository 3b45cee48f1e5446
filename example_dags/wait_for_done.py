"""
Send a device a job, and wait until it says that it is done.

Purpose: a job that takes longer than a command waits for its reply. The sensor subscribes when it starts, and the
broker keeps what the device says while the wait is deferred or Airflow is restarted.

Needs: the extra ``mqtt`` of this package, and the Airflow connection ``emqx_default`` with an MQTT address. The device
that has done the job publishes ``{"done": "…"}``, with the run of the job, to ``devices/CLIENTID/state``, and retains
it, so that it does not matter whether it is done before the sensor has started.

Run: ``airflow dags test emqx_wait_for_done --conf '{"clientid": "example-device-1"}'``.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.sensors.messages import EmqxMessageSensor

with DAG(
    "emqx_wait_for_done",
    schedule=None,
    params={"clientid": "example-device-1"},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    job = EmqxPublishOperator(
        task_id="job",
        topic="devices/{{ params.clientid }}/job",
        payload={"do": "self-test", "run": "{{ run_id }}"},
        qos=1,
    )
    done = EmqxMessageSensor(
        task_id="done",
        topic="devices/{{ params.clientid }}/state",
        # of this run: the device may have retained an earlier one
        json_field="done",
        json_value="{{ run_id }}",
        retained=True,
        timeout=3600,
        deferrable=True,
        retries=1,
    )

    job >> done

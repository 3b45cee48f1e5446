"""
Wait until a device is online, send it a command, end its connection.

Purpose: the first three steps of many device workflows: a sensor that waits until the device is online, a publish that
reports whether the message had a subscriber, and a kick that verifies that the device is disconnected.

Needs: the Airflow connection ``emqx_default``. The device and the command are parameters of the run.

Run: ``airflow dags test emqx_command_device --conf '{"clientid": "example-device-7",
"topic": "cmd/example-device-7"}'``.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_emqx.operators.clients import EmqxKickClientsOperator
from airflow_provider_emqx.operators.topics import EmqxPublishOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor

with DAG(
    "emqx_command_device",
    schedule=None,
    params={"clientid": "example-device-1", "topic": "cmd/example-device-1", "payload": "reboot"},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    online = EmqxClientOnlineSensor(
        task_id="online",
        clientids="{{ params.clientid }}",
        # long enough to have subscribed
        stable_for=2,
        poke_interval=2,
        timeout=3600,
    )
    command = EmqxPublishOperator(
        task_id="command",
        topic="{{ params.topic }}",
        payload="{{ params.payload }}",
        # at least once: a briefly disconnected device receives it when it reconnects
        qos=1,
    )
    kick = EmqxKickClientsOperator(task_id="kick", clientids="{{ params.clientid }}")

    online >> command >> kick

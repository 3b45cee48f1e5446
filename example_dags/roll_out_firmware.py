"""
Roll out a firmware to a fleet in waves: one in a hundred devices, one in ten, all.

Purpose: a wave starts when enough of its devices are online. Each device receives the order on its own topic and, when
it is done, publishes to a topic that the broker counts. When 95 % have done so, and as many are connected, the next
wave starts. A wave that does not finish in time stops the roll-out before the later waves.

Needs: three devices or more; the Airflow connection ``emqx_default``; on EMQX 4 its module ``topic_metrics``. Devices
that subscribe to ``cmd/<client id>/firmware`` and, after the update, publish once to the topic that the order names.

Run: ``airflow dags test emqx_roll_out_firmware --conf '{"version": "2.1.0",
"devices": ["example-device-1", "example-device-2", "example-device-3"]}'``.
"""

from __future__ import annotations

import math
from typing import Any

from airflow.providers.common.compat.sdk import DAG, TaskGroup, chain, task

from airflow_provider_emqx.operators.topics import EmqxPublishOperator, EmqxTopicMetricsOperator
from airflow_provider_emqx.sensors.clients import EmqxClientOnlineSensor
from airflow_provider_emqx.sensors.topics import EmqxTopicMetricSensor

#: up to which part of the fleet each wave goes
WAVES = {"canary": 0.01, "early": 0.1, "all": 1.0}
ENOUGH = 0.95

with DAG(
    "emqx_roll_out_firmware",
    schedule=None,
    max_active_runs=1,
    params={"version": "1.0.0", "devices": ["example-device-1", "example-device-2", "example-device-3"]},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:

    @task
    def orders(wave: str, **context: Any) -> list[dict[str, Any]]:
        """Return the orders for the devices of one wave that are in no earlier wave."""
        params = context["params"]
        devices = params["devices"]
        # each wave has one device at least
        bounds = [
            0,
            *(max(place, math.ceil(len(devices) * share)) for place, share in enumerate(WAVES.values(), 1)),
        ]
        first, last = bounds[list(WAVES).index(wave) :][:2]
        done = f"firmware/{params['version']}/{wave}"
        return [
            {
                "topic": f"cmd/{device}/firmware",
                "payload": {"version": params["version"], "done": done},
                "qos": 1,
            }
            for device in devices[first:last]
        ]

    @task
    def names(messages: list[dict[str, Any]]) -> list[str]:
        """Return the devices that receive orders."""
        return [message["topic"].split("/")[1] for message in messages]

    @task
    def enough(clientids: list[str]) -> int:
        """Return how many devices of a wave must be done."""
        return math.ceil(len(clientids) * ENOUGH)

    groups = []
    for wave in WAVES:
        with TaskGroup(wave) as group:
            messages: Any = orders(wave)
            devices: Any = names(messages)
            done = f"firmware/{{{{ params.version }}}}/{wave}"
            count = EmqxTopicMetricsOperator(task_id="count", action="register", topics=done)
            ready = EmqxClientOnlineSensor(
                task_id="ready",
                clientids=devices,
                quorum=f"{ENOUGH:.0%}",
                poke_interval=60,
                timeout=24 * 3600,
                deferrable=True,
            )
            # no retries: an order that may have been sent is not sent twice
            order = EmqxPublishOperator(task_id="order", messages=messages, retries=0)
            updated = EmqxTopicMetricSensor(
                task_id="updated",
                topic=done,
                threshold=enough(devices),
                poke_interval=60,
                timeout=6 * 3600,
                deferrable=True,
            )
            healthy = EmqxClientOnlineSensor(
                task_id="healthy",
                clientids=devices,
                quorum=f"{ENOUGH:.0%}",
                stable_for=300,
                poke_interval=60,
                timeout=2 * 3600,
                deferrable=True,
            )
            forget = EmqxTopicMetricsOperator(task_id="forget", action="unregister", topics=done)
            chain([count, ready], order, updated, healthy, forget)
        groups.append(group)
    chain(*groups)

"""
Evacuate a node of the cluster, upgrade it, and continue when the cluster is complete again.

Purpose: upgrade a node without interrupting devices. Clients and sessions are moved away a few at a time, then the node
is upgraded, then the cluster has to be complete. If anything fails, the evacuation is stopped and the node accepts
clients again.

Needs: the Airflow connection ``emqx_default`` to another node or to a load balancer; EMQX Enterprise, or EMQX 5.9 or
newer; and the way in which you upgrade a node, in the task ``upgrade``.

Run: ``airflow dags test emqx_upgrade_node --conf '{"node": "emqx@10.0.0.2"}'``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.cluster import EmqxEvacuateNodeOperator
from airflow_provider_emqx.sensors.cluster import EmqxClusterHealthSensor

with DAG(
    "emqx_upgrade_node",
    schedule=None,
    max_active_runs=1,
    params={"node": "emqx@10.0.0.2", "clients_per_second": 200},
    tags=["emqx"],
    doc_md=__doc__,
) as dag:
    whole = EmqxClusterHealthSensor(task_id="whole", nodes="all", poke_interval=30, timeout=600)
    evacuate = EmqxEvacuateNodeOperator(
        task_id="evacuate",
        node="{{ params.node }}",
        settings={
            "conn_evict_rate": "{{ params.clients_per_second }}",
            "sess_evict_rate": "{{ params.clients_per_second }}",
        },
        timeout=timedelta(hours=2),
    )

    @task
    def upgrade(**context: Any) -> str:
        """Upgrade the node and start it again: by SSH, Ansible, your container platform."""
        return f"{context['params']['node']} would be upgraded here"

    # the node has to come back, which takes a while
    whole_again = EmqxClusterHealthSensor(
        task_id="whole_again", nodes="all", poke_interval=30, timeout=1800, deferrable=True
    )

    @task(trigger_rule="all_done")
    def open_again(**context: Any) -> bool:
        """Accept clients again if the node was not restarted; return whether that was needed."""
        node = context["params"]["node"]
        with EmqxHook() as hook:
            evacuations = hook.get_rebalance_status()["evacuations"]
            if all(evacuation["node"] != node for evacuation in evacuations):
                return False
            hook.stop_evacuation(node)
            return True

    upgraded = upgrade()
    whole >> evacuate >> upgraded >> whole_again
    upgraded >> open_again()

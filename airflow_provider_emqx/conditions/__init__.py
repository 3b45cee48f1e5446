"""
Conditions to wait for.

Each :class:`~airflow_provider_emqx.conditions.base.Condition` holds its arguments and checks whether it is met.
"""

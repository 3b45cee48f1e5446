"""
What can be waited for.

Each :class:`~airflow_provider_emqx.conditions.base.Condition` knows its arguments and how to ask whether it is met.
"""

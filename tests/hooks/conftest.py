from __future__ import annotations

from tests.needs import older

# each tests the form of its own Airflow
collect_ignore = [
    "test_form_in_airflow_3.py" if older("apache-airflow", "3.0") else "test_form_in_airflow_2.py"
]

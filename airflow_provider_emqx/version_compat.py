"""What differs between Airflow releases, and nothing else: the one place with version switches."""

from __future__ import annotations

from airflow import __version__ as airflow_version
from packaging.version import Version

__all__ = [
    "AIRFLOW_V_3_0_PLUS",
    "AIRFLOW_V_3_1_PLUS",
    "AIRFLOW_V_3_2_PLUS",
    "AIRFLOW_V_3_3_PLUS",
]

# A pre-release behaves as the release it leads to.
_RELEASE = Version(airflow_version).release[:2]

AIRFLOW_V_3_0_PLUS = _RELEASE >= (3, 0)
AIRFLOW_V_3_1_PLUS = _RELEASE >= (3, 1)
AIRFLOW_V_3_2_PLUS = _RELEASE >= (3, 2)
AIRFLOW_V_3_3_PLUS = _RELEASE >= (3, 3)

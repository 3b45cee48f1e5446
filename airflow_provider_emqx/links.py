"""Links from a task in Airflow's UI to the broker's own pages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import BaseHook, BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

log = logging.getLogger(__name__)

#: EMQX Cloud has its console elsewhere
_CLOUD = (".emqxsl.", ".emqx.cloud", ".emqxcloud.")
#: EMQX 4 serves its dashboard and its management API on ports of their own
_DASHBOARD_PORT, _V4_API_PORT = 18083, 8081


class EmqxDashboardLink(BaseOperatorLink):
    """Link to the dashboard of a self-hosted broker; not available for EMQX Cloud, which has its own console."""

    name = "EMQX dashboard"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """
        Return the dashboard's address, from the connection alone.

        :param operator: with ``emqx_conn_id``.
        :param ti_key: not needed.
        :return: the address, or empty text.
        """
        try:
            return dashboard(BaseHook.get_connection(operator.emqx_conn_id))  # type: ignore[attr-defined]
        except Exception as error:
            # a link is never a reason to fail, and the connection's own errors are the task's business
            log.debug("No link to the dashboard: %s", type(error).__name__)
            return ""


def dashboard(conn: Any) -> str:
    """
    Return the address of a broker's dashboard.

    :param conn: an Airflow connection of type ``emqx``.
    :return: scheme, host and port; empty for EMQX Cloud.
    """
    from airflow_provider_emqx.hooks.connection import read_connection

    settings = read_connection(conn, conn.extra_dejson)
    if any(sign in settings.origin for sign in _CLOUD):
        return ""
    parts = urlsplit(settings.origin)
    if parts.port == _V4_API_PORT:
        return f"{parts.scheme}://{(parts.netloc).rpartition(':')[0]}:{_DASHBOARD_PORT}/"
    return f"{settings.origin}{settings.prefix}/"

"""Links from a task in Airflow's UI: to the page of its result, and to the broker's own pages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from airflow.providers.common.compat.sdk import BaseHook, BaseOperatorLink, conf
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

log = logging.getLogger(__name__)

#: EMQX Cloud has its console elsewhere
_CLOUD = (".emqxsl.", ".emqx.cloud", ".emqxcloud.")
#: EMQX 4 serves its dashboard and its management API on ports of their own
_DASHBOARD_PORT, _V4_API_PORT = 18083, 8081


#: where Airflow's API server serves the pages of this provider
PAGES = "/emqx"


def has_pages() -> bool:
    """Return whether a page of a plugin can use the login of Airflow's UI: Airflow 3.1.8 and newer."""
    return get_base_airflow_version_tuple() >= (3, 1, 8)


def result_page() -> str:
    """Return the path of the page of results, on the server of Airflow's UI."""
    base = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")
    return f"{base}{PAGES}/result.html"


class EmqxResultLink(BaseOperatorLink):
    """Link to the page that shows the result of a task instance; Airflow 3.1.8 and newer."""

    name = "Result"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """
        Return the address of the page.

        :param operator: not needed.
        :param ti_key: of the task instance.
        :return: a path on the server of Airflow's UI, or empty text.
        """
        if not has_pages():
            return ""
        instance = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": getattr(ti_key, "map_index", -1),
        }
        return f"{result_page()}?{urlencode(instance)}"


class EmqxDashboardLink(BaseOperatorLink):
    """
    Link to the dashboard of a self-hosted broker; not available for EMQX Cloud, which has its own console.

    On EMQX 5 and 6 it leads to what the task is about, such as the list of users.
    """

    name = "EMQX dashboard"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """
        Return the dashboard's address, from the connection and the arguments alone.

        :param operator: with ``emqx_conn_id``; its ``dashboard_page`` returns the page that it is about.
        :param ti_key: not needed.
        :return: the address, or empty text.
        """
        try:
            # on Airflow 2 it is asked of what is left of an operator in the database
            page = operator.dashboard_page() if hasattr(operator, "dashboard_page") else ""
            return dashboard(BaseHook.get_connection(operator.emqx_conn_id), page)  # type: ignore[attr-defined]
        except Exception as error:
            # a link is never a reason to fail, and the connection's own errors are the task's business
            log.debug("No link to the dashboard: %s", type(error).__name__)
            return ""


def clients_page(clientids: Any, username: Any = None) -> str:
    """
    Return the page of the dashboard that lists these clients.

    :param clientids: one client id, or several; up to 50 are named in the address.
    :param username: in place of them, a username.
    """
    names = [clientids] if isinstance(clientids, str) else list(clientids or ())[:50]
    # the dashboard separates ids by commas
    if names and all(isinstance(name, str) and "," not in name for name in names):
        return f"clients?{urlencode({'clientid': ','.join(names)})}"
    return f"clients?{urlencode({'username': username})}" if isinstance(username, str) else "clients"


def dashboard(conn: Any, page: str = "") -> str:
    """
    Return the address of a broker's dashboard.

    :param conn: an Airflow connection of type ``emqx``.
    :param page: of the dashboard of EMQX 5 and 6, as ``rule/rules``; ``{authenticator}`` stands for that of the
        connection.
    :return: the address; empty for EMQX Cloud.
    """
    from airflow_provider_emqx.hooks.connection import read_connection

    settings = read_connection(conn, conn.extra_dejson)
    if any(sign in settings.origin for sign in _CLOUD):
        return ""
    parts = urlsplit(settings.origin)
    if parts.port == _V4_API_PORT:
        return f"{parts.scheme}://{(parts.netloc).rpartition(':')[0]}:{_DASHBOARD_PORT}/"
    front = f"{settings.origin}{settings.prefix}/"
    if not page or settings.generation == "v4":
        return front
    return f"{front}#/{page.format(authenticator=quote(settings.authenticator, safe=''))}"


def links() -> tuple[BaseOperatorLink, ...]:
    """Return the links of every operator and sensor; Airflow 2 would show the one that leads nowhere as well."""
    return (EmqxResultLink(), EmqxDashboardLink()) if has_pages() else (EmqxDashboardLink(),)

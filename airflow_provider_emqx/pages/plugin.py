"""The plugin that serves the pages of this provider with Airflow's API server."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin, conf

from airflow_provider_emqx.links import PAGES, has_pages, result_page

#: where Airflow fills in of which task instance a tab is
_INSTANCE = "dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"


class EmqxPlugin(AirflowPlugin):
    """
    The page of results, which the link *Result* of a task opens.

    It consists of static files: the page asks Airflow's REST API with the login of whoever looks at it. On an Airflow
    whose REST API does not accept the login of its UI nothing is served.

    With ``[emqx] result_tab = True`` the page is also a tab of each task instance. Airflow shows such a tab for all
    tasks of all DAGs.
    """

    name = "emqx"

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The pages; made when the API server asks, because other components need no FastAPI."""
        return [{"app": pages(), "url_prefix": PAGES, "name": "EMQX"}] if has_pages() else []

    @cached_property
    def external_views(self) -> list[Any]:  # type: ignore[override]
        """The tab, if it is wanted."""
        if not (has_pages() and conf.getboolean("emqx", "result_tab", fallback=False)):
            return []
        return [
            {
                "name": "EMQX result",
                "href": f"{result_page()}?{_INSTANCE}",
                "destination": "task_instance",
                "url_route": "emqx-result",
            }
        ]


def pages() -> Any:
    """Return the application that serves the files of the pages, and nothing else."""
    from fastapi import FastAPI
    from starlette.staticfiles import StaticFiles

    app = FastAPI(title="EMQX", openapi_url=None, docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def protect(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    app.mount("/", StaticFiles(directory=Path(__file__).parent / "static"))
    return app


#: the page runs its own script and asks its own server, whatever an id may try
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

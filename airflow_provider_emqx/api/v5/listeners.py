"""Listeners, EMQX 5 and 6."""

from __future__ import annotations

from typing import cast

from airflow_provider_emqx.api.base import Operation, Request, path
from airflow_provider_emqx.api.rows import ListenerRow, ListenerRows
from airflow_provider_emqx.api.v5.nodes import NodesArea
from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxNotFoundError, EmqxUnsupportedError


class Listeners(NodesArea):
    """Listeners."""

    def list(self) -> Operation[ListenerRows]:
        """
        List listeners: ``GET /listeners``.

        :return: rows of ``id`` (as ``tcp:default``), ``type``, ``name``, ``bind``, ``enable``, ``acceptors``,
            ``status`` (``running``, ``current_connections``, ``max_connections``) and ``node_status``, the same per
            node.
        """
        reply = yield Request("GET", "/listeners")
        return cast("list[ListenerRow]", reply.rows)

    def restart(self, listener: str, node: str | None = None) -> Operation[None]:
        """
        Restart a listener on all nodes; its connections are dropped: ``POST /listeners/{id}/restart``.

        :param listener: id as ``tcp:default``.
        :param node: not for EMQX 5 and newer.
        """
        if node is not None:
            raise EmqxUnsupportedError("EMQX 5 and newer restart a listener on all nodes, not on one")
        try:
            yield Request("POST", path("listeners", listener, "restart"), repeatable=True)
        except EmqxBadRequestError as error:
            if error.code == "BAD_LISTENER_ID":
                raise EmqxNotFoundError(error.status, error.code, error.reason, error.request) from error
            raise

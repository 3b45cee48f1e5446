"""API v5, managed namespaces (since 6.1 users and ACL rules may be in one)."""

from __future__ import annotations

from airflow_provider_emqx.testing.http import Answer, Request
from airflow_provider_emqx.testing.routes import Route, since
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.v5.replies import bad_request, no_content, ok


def list_managed(state: State, request: Request) -> Answer:
    """``GET /mt/managed_ns_list``: a bare array of names."""
    return ok(sorted(state.namespaces))


def create(state: State, request: Request, name: str) -> Answer:
    """``POST /mt/ns/{ns}``."""
    if name in state.namespaces:
        raise bad_request("already_exists")
    state.namespaces.add(name)
    return no_content()


def delete(state: State, request: Request, name: str) -> Answer:
    """``DELETE /mt/ns/{ns}``."""
    state.namespaces.discard(name)
    return no_content()


ROUTES = [
    Route("GET", "/mt/managed_ns_list", list_managed, since(6, 1)),
    Route("POST", "/mt/ns/{ns}", create, since(6, 1)),
    Route("DELETE", "/mt/ns/{ns}", delete, since(6, 1)),
]

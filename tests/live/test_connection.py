"""The connection itself, and what is refused."""

from __future__ import annotations

import json

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError
from airflow_provider_emqx.hooks.emqx import EmqxHook

pytestmark = pytest.mark.live


def test_the_connection_test_names_the_broker(hook: EmqxHook) -> None:
    works, text = hook.test_connection()
    assert works, text
    assert text.startswith("EMQX") or "unknown version" in text
    assert f"API {hook.api_version}" in text


def test_a_wrong_secret_is_refused(hook: EmqxHook, connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = json.dumps({**json.loads(connection), "password": "certainly-not-it"})
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_WRONG", wrong)
    with EmqxHook("emqx_wrong") as stranger, pytest.raises(EmqxAuthError) as caught:
        next(stranger.list_clients(), None)
    assert "certainly-not-it" not in str(caught.value)


def test_the_id_of_two_dots_is_not_sent(hook: EmqxHook) -> None:
    with pytest.raises(EmqxConfigError):
        hook.delete_user("..")


def test_any_request_can_be_made(hook: EmqxHook) -> None:
    page = hook.request("GET", "/clients")
    assert isinstance(page["data"], list)

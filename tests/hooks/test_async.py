"""Operations of the API are awaited in async tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.hooks.emqx import EmqxHook


def test_operations_are_awaited_over_one_client(broker: Any) -> None:
    broker.add_user("dev-1", "pw")

    async def work() -> Any:
        async with EmqxHook() as hook:
            found = await asyncio.gather(*(hook.arun(hook.api.users.get(f"dev-{i}")) for i in range(3)))
            names = [row["user_id"] async for row in hook.arows(hook.api.users.list())]
            with pytest.raises(errors.EmqxAlreadyExistsError):
                await hook.arun(hook.api.users.create("dev-1", "other"))
        return [user and user["user_id"] for user in found], names

    assert asyncio.run(work()) == ([None, "dev-1", None], ["dev-1"])


def test_the_event_loop_is_never_held_by_a_request(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_emqx.transport.sync import SyncClient

    def blocking(*args: Any) -> Any:
        raise AssertionError("a blocking request")

    monkeypatch.setattr(SyncClient, "run", blocking)

    async def work() -> Any:
        async with EmqxHook() as hook:
            return await hook.arun(hook.api.clients.get("nobody"))

    assert asyncio.run(work()) is None


def test_a_hook_can_be_used_in_one_event_loop_after_the_other(broker: Any) -> None:
    hook = EmqxHook()

    async def work() -> Any:
        async with hook:
            return await hook.arun(hook.api.users.get("nobody"))

    assert [asyncio.run(work()), asyncio.run(work())] == [None, None]

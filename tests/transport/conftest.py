from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_emqx.api.base import Operation, Request
from airflow_provider_emqx.transport import exchange
from airflow_provider_emqx.transport.settings import Settings


class SyncDriver:
    """The requests driver, as tests use both."""

    def __init__(self, settings: Settings) -> None:
        from airflow_provider_emqx.transport.sync import SyncClient

        self.client = SyncClient(settings)

    def identify(self) -> Any:
        return self.client.broker

    def run(self, operation: Operation[Any]) -> Any:
        return self.client.run(operation)

    def rows(self, operation: Operation[Any]) -> list[Any]:
        return list(self.client.rows(operation))

    def close(self) -> None:
        self.client.close()


class AsyncDriver:
    """The aiohttp driver, as tests use both."""

    def __init__(self, settings: Settings) -> None:
        from airflow_provider_emqx.transport.aio import AsyncClient

        self.runner: Any = asyncio.Runner()
        self.client = AsyncClient(settings)

    def identify(self) -> Any:
        return self.runner.run(self.client.identify())

    def run(self, operation: Operation[Any]) -> Any:
        return self.runner.run(self.client.run(operation))

    def rows(self, operation: Operation[Any]) -> list[Any]:
        async def walk() -> list[Any]:
            return [row async for row in self.client.rows(operation)]

        return self.runner.run(walk())

    def close(self) -> None:
        if self.runner is not None:
            self.runner.run(self.client.close())
            self.runner.close()
            self.runner = None


@pytest.fixture(params=[SyncDriver, AsyncDriver], ids=["requests", "aiohttp"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a driver for a broker; waits between attempts are short, since nothing is learnt from waiting."""
    monkeypatch.setattr(exchange, "_FIRST_WAIT", 0.01)
    made = []

    def make(url: str, **settings: Any) -> Any:
        defaults = {"key": "key", "secret": "secret", "connect_timeout": 2.0, "read_timeout": 5.0}
        driver = request.param(Settings(url, **{**defaults, **settings}))
        made.append(driver)
        return driver

    yield make
    for driver in made:
        driver.close()


def ask(*args: Any, **kwargs: Any) -> Operation[Any]:
    """One request as an operation; the reply is its result."""
    return (yield Request(*args, **kwargs))

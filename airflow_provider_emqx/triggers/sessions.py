"""The session of all waits on one connection, which a changed connection replaces."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxConnectionError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.triggers.watches import clock

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.aio import AsyncClient

#: requests for clients in flight, and for each other kind of condition
IN_FLIGHT, OTHERS_IN_FLIGHT = 32, 8


class Session:
    """The session of all waits on one connection; opened at first use."""

    def __init__(self, emqx_conn_id: str) -> None:
        self.emqx_conn_id = emqx_conn_id
        self._hook: EmqxHook | None = None
        self._looking_up = asyncio.Lock()
        self._client: AsyncClient | None = None
        self._open = AsyncExitStack()
        self._retired: list[AsyncExitStack] = []
        self._reconsidering = asyncio.Lock()
        self._reconsidered = -math.inf

    async def hook(self) -> EmqxHook:
        """
        Return the hook, as the connection was when it was looked up.

        :raises EmqxError: as :func:`looked_up` says.
        """
        async with self._looking_up:
            if self._hook is None:
                self._hook = await looked_up(self.emqx_conn_id)
            return self._hook

    async def client(self) -> AsyncClient:
        """
        Return the client, as the connection was when it was opened.

        :raises EmqxError: as :func:`looked_up` and the broker say.
        """
        if self._client is None:
            self._client = await self._open.enter_async_context(opened(await self.hook()))
        return self._client

    def is_on(self, client: AsyncClient) -> bool:
        """Return whether this is still the client to ask over."""
        return self._client is client

    async def reconsider(self, client: AsyncClient, asked: float, error: EmqxError) -> EmqxError:
        """
        Check after a failure whether the connection has changed in the meantime: if so, the error is not final.

        :param client: that failed.
        :param asked: when, as :func:`clock` tells it.
        :param error: of the failure.
        :return: the error, or a transient one if it is worth another check.
        """
        async with self._reconsidering:
            # once, however many questions fail together
            if self.is_on(client) and self._reconsidered < asked:
                try:
                    changed = await EmqxHook(self.emqx_conn_id).async_settings() != client.settings
                except Exception:
                    changed = False
                self._reconsidered = clock()
                if changed and self.is_on(client):
                    self._retire()
        if self.is_on(client):
            return error
        return EmqxConnectionError(f"the connection has changed, trying again with it: {error}")

    def _retire(self) -> None:
        """Ask no more over this client; questions that are under way may still end on it."""
        self._client = self._hook = None
        self._retired.append(self._open)
        self._open = AsyncExitStack()

    async def close_retired(self) -> None:
        """Close clients that nobody asks over any more."""
        while self._retired:
            await self._retired.pop().aclose()

    async def close(self) -> None:
        """Close all clients."""
        self._retire()
        await self.close_retired()


@asynccontextmanager
async def connected(emqx_conn_id: str) -> AsyncIterator[AsyncClient]:
    """
    Open a client without holding the event loop.

    :raises EmqxConfigError: if the connection is unknown or invalid.
    :raises EmqxConnectionError: if it could not be looked up at the moment.
    """
    async with opened(await looked_up(emqx_conn_id)) as client:
        yield client


def opened(hook: EmqxHook) -> AbstractAsyncContextManager[AsyncClient]:
    """Open a client."""
    # room for every kind at once: one that gets no answers does not keep the others from asking
    return hook.async_client(IN_FLIGHT + 8 * OTHERS_IN_FLIGHT)


async def looked_up(emqx_conn_id: str) -> EmqxHook:
    """
    Return a hook whose connection was looked up, without holding the event loop.

    :raises EmqxConfigError: if the connection is unknown or invalid.
    :raises EmqxConnectionError: if it could not be looked up at the moment.
    """
    await asyncio.to_thread(_import_libraries)
    hook = EmqxHook(emqx_conn_id)
    try:
        await hook.async_settings()
    except EmqxError:
        raise
    except AirflowNotFoundException as error:
        raise EmqxConfigError(str(error)) from None
    except Exception as error:
        raise EmqxConnectionError(
            f"the connection {emqx_conn_id!r} could not be looked up: {type(error).__name__}: {error}"
        ) from error
    return hook


def _import_libraries() -> None:
    """Import in a thread what would be imported on first use, and hold the event loop for a tenth of a second."""
    for name in (
        "aiohttp",
        "tenacity",
        "airflow.providers.common.compat.connection",
        "airflow_provider_emqx.transport.aio",
        "airflow_provider_emqx.hooks.connection",
    ):
        import_module(name)

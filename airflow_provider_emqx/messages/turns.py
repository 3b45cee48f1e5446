"""Lets other work of the event loop have its turn while many messages are processed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.mqtt import Received

#: bytes of messages that are processed before other work has its turn
_TURN = 100_000
#: bytes that a message counts as besides its payload
_MESSAGE = 100


class Turns:
    """Counts the bytes of messages, and lets other work have its turn after so many."""

    def __init__(self) -> None:
        self._bytes = 0

    async def after(self, message: Received) -> None:
        """
        Let other work have its turn, if it is time.

        :param message: one that was processed.
        """
        self._bytes += len(message.payload) + _MESSAGE
        if self._bytes > _TURN:
            self._bytes = 0
            await asyncio.sleep(0)

"""
Random work through random faults, checked against the broker after every step.

Every operation ends done, refused, or unknown; what the broker holds afterwards must agree with what was said.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_emqx import exceptions as errors
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transport import exchange
from airflow_provider_emqx.transport.aio import AsyncClient
from tests.faults.proxy import PASS, Fault, FaultyProxy, quick_faults

#: a deadline that no quick fault reaches, and how long an operation may take at the very most
DEADLINE, AT_MOST = 3.0, 40.0
_SLOW = [
    Fault("stall", False),
    Fault("stall", True),
    Fault("trickle", True, seconds=0.02),
    Fault("trickle_body", True, seconds=0.02),
]


class AsyncHook(EmqxHook):
    """The hook with all its exchanges over the asyncio driver."""

    def open(self) -> None:
        self._runner = asyncio.Runner()
        self._aio = AsyncClient(self.settings)
        self._runner.run(self._aio.identify())

    @property
    def broker(self) -> Any:
        return self._aio.broker

    def run(self, operation: Any) -> Any:
        return self._runner.run(self._aio.run(operation))

    def rows(self, operation: Any) -> Any:
        async def walk() -> list[Any]:
            return [row async for row in self._aio.rows(operation)]

        return iter(self._runner.run(walk()))

    def run_many(self, operations: Any) -> Any:
        return iter(self._runner.run(self._aio.run_many(list(operations))))

    def run_each(self, operations: Any) -> Any:
        pairs = list(operations)
        results = self.run_many([operation for _, operation in pairs])
        return iter([(key, result) for (key, _), result in zip(pairs, results, strict=True)])

    def close(self) -> None:
        super().close()
        self._runner.run(self._aio.close())
        self._runner.close()


class Outcome:
    """How one call ended."""

    def __init__(self, value: Any, error: errors.EmqxError | None) -> None:
        self.value = value
        self.error = error

    @property
    def done(self) -> bool:
        return self.error is None

    @property
    def refused(self) -> bool:
        """A refusal, with no earlier attempt that may have been carried out."""
        final = (errors.EmqxConfigError, errors.EmqxUnsupportedError, errors.EmqxApiError)
        is_final = isinstance(self.error, final) and not isinstance(self.error, errors.EmqxServerError)
        return is_final and not self.error.maybe_applied  # type: ignore[union-attr]

    def __str__(self) -> str:
        return (
            f"{type(self.error).__name__}: {self.error}" if self.error else f"done: {str(self.value)[:200]}"
        )


class World:
    """
    A broker, a proxy before it, a hook, and a seeded source of chance.

    :param slow: share of faults that take time.
    :param faults: gives those of the next call, in place of chance.
    """

    def __init__(
        self,
        fake: FakeEmqx,
        proxy: FaultyProxy,
        hook: EmqxHook,
        seed: int,
        slow: float = 0.002,
        faults: Callable[[], list[Fault]] | None = None,
    ) -> None:
        self.fake = fake
        self.proxy = proxy
        self.hook = hook
        self.chance = random.Random(seed)
        self.v4 = fake.version.startswith("4")
        self.count = 0
        self.errors: dict[str, int] = {}
        self._quick = quick_faults()
        self._faults = faults or self._by_chance
        self._slow = slow
        self._serial = 0
        self.story: list[str] = []

    def fresh(self, prefix: str) -> str:
        self._serial += 1
        return f"{prefix}-{self._serial}"

    def pick(self, *values: Any) -> Any:
        return self.chance.choice(values)

    def call(self, what: str, function: Callable[[], Any]) -> Outcome:
        """Run one call through the next faults; nothing but a typed error may come out of it."""
        faults = self._faults()
        self.story = [what, *map(str, faults)]
        self.proxy.order(*faults)
        started = time.monotonic()
        try:
            outcome = Outcome(function(), None)
        except errors.EmqxError as error:
            outcome = Outcome(None, error)
        took = time.monotonic() - started
        assert took < AT_MOST, f"{took:.1f} s: {self.told(outcome)}"
        self.proxy.order()
        self.proxy.settle()
        self.count += 1
        name = type(outcome.error).__name__ if outcome.error else "done"
        self.errors[name] = self.errors.get(name, 0) + 1
        return outcome

    def _by_chance(self) -> list[Fault]:
        number = self.chance.choice((0, 0, 1, 1, 1, 2, 3, 5))
        return [self._fault() for _ in range(number)]

    def _fault(self) -> Fault:
        draw = self.chance.random()
        if draw < self._slow:
            return self.chance.choice(_SLOW)
        return PASS if draw < 0.2 else self.chance.choice(self._quick)

    def told(self, outcome: Outcome) -> str:
        return f"{' | '.join(self.story)} -> {outcome}"

    def changed(self, outcome: Outcome, now: Any, before: Any, after: Any) -> None:
        """Hold what the broker has now against what was said, for an operation of one exchange."""
        if outcome.done:
            assert now == after, self.told(outcome)
        elif outcome.refused:
            assert now == before, self.told(outcome)
        else:
            assert now in (before, after), self.told(outcome)


@contextmanager
def world(
    version: str,
    driver: str,
    seed: int,
    slow: float = 0.002,
    faults: Callable[[], list[Fault]] | None = None,
    **more: Any,
) -> Iterator[World]:
    """Set the stage, with ``more`` extras of the connection; afterwards every connection must be closed."""
    first, exchange._FIRST_WAIT = exchange._FIRST_WAIT, 0.0005
    name = f"AIRFLOW_CONN_EMQX_{driver}_{version}".replace(".", "_").upper()
    with FakeEmqx(version, log_requests=False) as fake, FaultyProxy(fake.port) as proxy:
        extra = {"attempts": 4, "deadline": DEADLINE, "read_timeout": 0.3, "connect_timeout": 2, **more}
        conn = {**fake.connection(**extra), "host": proxy.url}
        os.environ[name] = json.dumps(conn)
        hook = (AsyncHook if driver == "aiohttp" else EmqxHook)(name.removeprefix("AIRFLOW_CONN_").lower())
        try:
            if isinstance(hook, AsyncHook):
                hook.open()
            assert hook.broker.version is not None
            made = World(fake, proxy, hook, seed, slow, faults)
            yield made
            hook.close()
            assert proxy.wait_closed() == 0
        finally:
            exchange._FIRST_WAIT = first
            del os.environ[name]

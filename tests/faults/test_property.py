from __future__ import annotations

import logging
import os

import pytest

from airflow_provider_emqx.hooks.emqx import EmqxHook
from tests.faults.operations import NO_OPERATIONS, OPERATIONS
from tests.faults.world import world

#: per generation and driver; ``make soak`` does far more, with other seeds
STEPS = int(os.environ.get("FAULT_STEPS", "700"))
SEED = int(os.environ.get("FAULT_SEED", "20261123"))


@pytest.mark.parametrize("driver", ["requests", "aiohttp"])
@pytest.mark.parametrize("version", ["4.4.19", "5.8.9"])
@pytest.mark.timeout(240)
def test_every_operation_ends_done_refused_or_unknown_whatever_happens(
    version: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    # thousands of warnings about retries would take longer than the work
    caplog.set_level(logging.CRITICAL)
    names = sorted(OPERATIONS)
    with world(version, driver, SEED) as w:
        for step in range(STEPS):
            # each operation at least once, then by chance
            name = names[step] if step < len(names) else w.chance.choice(names)
            OPERATIONS[name](w)
        assert w.count >= STEPS
        assert w.errors["done"] > STEPS / 4
        assert len(w.errors) > 5, w.errors


def test_the_property_test_knows_every_operation_of_the_hook() -> None:
    public = {
        name
        for name in dir(EmqxHook)
        if not name.startswith("_") and callable(getattr(EmqxHook, name)) and hasattr(EmqxHook, name)
        and name in {n for base in EmqxHook.__mro__ if base.__module__.startswith("airflow_provider_emqx")
                     for n in vars(base)}
    }  # fmt: skip
    assert public - NO_OPERATIONS == set(OPERATIONS)

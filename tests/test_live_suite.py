"""The suite for real brokers does what it should: against FakeEmqx, with real MQTT clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_emqx.testing import FakeEmqx
from tests.conftest import GENERATIONS
from tests.gateway import Gateway

ROOT = Path(__file__).parent.parent

#: tests that a generation has nothing for
SKIPPED = {"4.4.19": 2, "5.8.9": 0}


def run_suite(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "EMQX_", "NO_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "live", "-p", "no:cacheprovider", *arguments, "tests/live"],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("version", GENERATIONS)
def test_the_suite_passes_and_leaves_nothing_behind(version: str) -> None:
    with FakeEmqx(version, log_requests=False) as broker, Gateway(broker) as gateway:
        broker.add_user("someone-else", "secret")
        broker.connect("somebody-else")
        result = run_suite(
            EMQX_TEST_URL=broker.url,
            EMQX_TEST_KEY=broker.key,
            EMQX_TEST_SECRET=broker.secret,
            EMQX_TEST_MQTT=gateway.url,
        )
        assert result.returncode == 0, result.stdout[-6_000:]
        skipped = re.search(r"(\d+) skipped", result.stdout)
        assert int(skipped[1] if skipped else 0) == SKIPPED[version], result.stdout[-2_000:]
        assert set(broker.users) == {"someone-else"}
        assert set(broker.clients) == {"somebody-else"}
        assert (dict(broker.bans), dict(broker.retained)) == ({}, {})


def test_a_failing_test_leaves_nothing_behind() -> None:
    """The broker dies under the deletion that a test is about; the removal at its end comes later."""
    with FakeEmqx("5.8.9", log_requests=False) as broker:
        broker.order_fault("status", match="DELETE /api/v5/authentication", status=400, body="{}")
        result = run_suite(
            "-k",
            "created_changed_found",
            EMQX_TEST_URL=broker.url,
            EMQX_TEST_KEY=broker.key,
            EMQX_TEST_SECRET=broker.secret,
        )
        assert result.returncode == 1, result.stdout[-6_000:]
        assert "1 failed" in result.stdout
        assert set(broker.users) == set()


def test_without_a_broker_every_test_says_why_it_is_skipped() -> None:
    result = run_suite("-rs")
    assert result.returncode == 0
    assert "passed" not in result.stdout
    assert "no real broker: EMQX_TEST_URL, EMQX_TEST_KEY, EMQX_TEST_SECRET not set" in result.stdout

"""The suite for real brokers does what it should: against FakeEmqx, with real MQTT clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.testing import FakeEmqx

ROOT = Path(__file__).parent.parent

#: as EMQX 4.4 hashes, from which devices move
PREFIX = {"password_hash_algorithm": {"name": "sha256", "salt_position": "prefix"}}
#: Brokers that the suite runs against, and how many of its tests they have nothing for: between them they have all.
BROKERS: dict[str, tuple[dict[str, Any], int]] = {
    "4.4.19": ({"edition": "Enterprise", "nodes": ["emqx@a", "emqx@b"]}, 14),
    "5.8.9": (PREFIX, 9),
    "6.3.0": ({"nodes": ["emqx@a", "emqx@b"], **PREFIX}, 0),
}


def run_suite(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "EMQX_", "NO_"))
    }
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "live",
            "-rs",
            "-p",
            "no:cacheprovider",
            *(arguments or ["tests/live"]),
        ],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("version", BROKERS)
def test_the_suite_passes_and_leaves_nothing_behind(version: str) -> None:
    options, skips = BROKERS[version]
    with FakeEmqx(version, **options) as broker, FakeEmqx("4.4.19") as old:
        state = broker.state
        broker.add_user("someone-else", "secret")
        broker.connect("somebody-else", session_expiry=3_600)
        broker.add_rule("another", 'SELECT * FROM "t"')
        result = run_suite(
            EMQX_TEST_URL=broker.url,
            EMQX_TEST_KEY=broker.key,
            EMQX_TEST_SECRET=broker.secret,
            EMQX_TEST_MQTT=broker.mqtt_url,
            EMQX_TEST_DISPOSABLE="yes",
            EMQX_TEST_SOURCE_URL=old.url,
            EMQX_TEST_SOURCE_KEY=old.key,
            EMQX_TEST_SOURCE_SECRET=old.secret,
        )
        assert result.returncode == 0, result.stdout[-6_000:]
        skipped = re.search(r"(\d+) skipped", result.stdout)
        assert int(skipped[1] if skipped else 0) == skips, result.stdout[-2_000:]
        assert set(broker.users) == {"someone-else"}
        assert set(broker.clients) == {"somebody-else"}
        assert (dict(broker.bans), dict(broker.retained)) == ({}, {})
        assert {kind: set(found) for kind, found in state.resources.items() if found} == {
            "rules": {"another"}
        }
        assert (state.backups, state.namespaces) == ({}, set())
        assert (dict(old.users), old.state.backups) == ({}, {})
        assert [node.name for node in state.nodes.values() if node.evacuation] == []


def test_only_a_disposable_broker_is_touched_beyond_what_was_made() -> None:
    with FakeEmqx("6.3.0", nodes=["emqx@a", "emqx@b"]) as broker:
        broker.connect("somebody-else")
        broker.raise_alarm("over")
        broker.end_alarm("over")
        result = run_suite(
            "tests/live/test_cluster.py",
            "tests/live/test_backups.py",
            EMQX_TEST_URL=broker.url,
            EMQX_TEST_KEY=broker.key,
            EMQX_TEST_SECRET=broker.secret,
        )
        assert result.returncode == 0, result.stdout[-6_000:]
        assert result.stdout.count("EMQX_TEST_DISPOSABLE is not yes") == 5
        assert broker.clients["somebody-else"].connected
        assert (len(broker.state.past_alarms), dict(broker.restarts)) == (1, {})
        assert not any(
            "load_rebalance" in request.path for request in broker.requests if request.method == "POST"
        )
        [imported] = broker.state.imported
        assert imported.startswith("airflow-live-")


def test_a_failing_test_leaves_nothing_behind() -> None:
    """The broker dies under the deletion that a test is about; the removal at its end comes later."""
    with FakeEmqx("5.8.9", log_requests=False) as broker:
        broker.order_fault("status", match="DELETE /api/v5/authentication", status=400, body="{}")
        result = run_suite(
            "tests/live/test_auth.py",
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
    result = run_suite()
    assert result.returncode == 0
    assert "passed" not in result.stdout
    assert "no real broker: EMQX_TEST_URL, EMQX_TEST_KEY, EMQX_TEST_SECRET not set" in result.stdout

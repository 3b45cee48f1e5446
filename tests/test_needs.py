"""A run that must be complete accepts skips for old releases only."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.conftest import _complete
from tests.needs import needs


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (needs("apache-airflow", "99.0", "is not out").kwargs["reason"], "skipped"),
        (needs("apache-airflow", "2.11", "is installed").kwargs["reason"], "failed"),
        ("needs PostgreSQL", "failed"),
        ("could not import 'airflow.providers.sqlite'", "failed"),
    ],
)
def test_a_skip_fails_unless_it_names_a_release_that_is_newer(
    monkeypatch: pytest.MonkeyPatch, reason: str, outcome: str
) -> None:
    monkeypatch.setenv("NO_SKIPS", "1")
    skip = SimpleNamespace(skipped=True, outcome="skipped", longrepr=("test_x.py", 7, f"Skipped: {reason}"))
    assert _complete(skip).outcome == outcome

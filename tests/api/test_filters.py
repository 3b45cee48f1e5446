from __future__ import annotations

import pytest

from airflow_provider_emqx.api.filters import CLIENT_FILTERS, kept, read_filters

LOW, HIGH = "2026-11-23T04:00:00.000Z", "2026-11-23T05:00:00.000Z"
BOUNDS = [name for name in CLIENT_FILTERS if name[:4] in ("gte_", "lte_")]


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_held_against_each_row(name: str) -> None:
    low, high = (LOW, HIGH) if name.endswith("_at") else (5, 9)
    field = CLIENT_FILTERS[name].field
    rows = [{field: low}, {field: high}, {field: None}, {}, {field: "nonsense"}]
    assert name[4:] == field
    wanted = read_filters(CLIENT_FILTERS, {name: high if name.startswith("gte_") else low})
    passes = high if name.startswith("gte_") else low
    assert kept(rows, CLIENT_FILTERS, wanted) == [{field: passes}]

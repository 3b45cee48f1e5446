from __future__ import annotations

import pytest

from airflow_provider_emqx.api.base import Broker, Reply
from airflow_provider_emqx.api.filters import CLIENT_FILTERS, read_filters
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.exceptions import EmqxConfigError
from tests.api.play import play


@pytest.mark.parametrize("broker", [Broker("v4", (4, 4, 19)), Broker("v5", (5, 8, 9))], ids=["v4", "v5"])
def test_a_gateway_that_allows_shorter_pages_than_asked_for_loses_no_row(broker: Broker) -> None:
    bans = api_of(broker).bans
    row = {"as": "clientid", "who": "dev-1", "until": 4_102_444_800}
    short = {"page": 1, "limit": 100, "count": 250}
    page, _ = play(bans.list(), Reply(200, [row] * 100, short))
    assert page.next is not None
    last, asked = play(bans.list(page=3), Reply(200, [row] * 50, {**short, "page": 3}))
    assert last.next is None
    assert len(asked) == 1


def test_an_infinite_number_is_no_filter() -> None:
    with pytest.raises(EmqxConfigError, match="whole number"):
        read_filters(CLIENT_FILTERS, {"gte_mqueue_len": float("inf")})

from __future__ import annotations

import random

from airflow_provider_emqx.transport.idset import IdSet


def test_what_was_added_is_met_again_and_nothing_else() -> None:
    ids = IdSet()
    assert ids.add_all(["a", "b", "a", "ü" * 500]) == [2]
    assert ids.add_all(["b", "c", "c"]) == [0, 2]
    assert len(ids) == 4
    assert "a" in ids
    assert "d" not in ids


def test_it_agrees_with_a_set_over_many_random_ids() -> None:
    chance = random.Random(7)
    ids, model = IdSet(), set()
    for _ in range(300):
        some = [f"d{chance.randrange(60_000)}" for _ in range(chance.randrange(1, 500))]
        expected = []
        for position, one in enumerate(some):
            if one in model:
                expected.append(position)
            model.add(one)
        assert ids.add_all(some) == expected
    assert len(ids) == len(model)
    assert all((f"d{i}" in ids) == (f"d{i}" in model) for i in range(60_000))


def test_an_id_takes_at_most_23_bytes_in_a_large_set() -> None:
    ids = IdSet()
    for start in range(0, 100_000, 1_000):
        ids.add_all([f"device-{i}" for i in range(start, start + 1_000)])
    assert ids._table.itemsize * len(ids._table) <= 23 * len(ids)


def test_hashes_that_are_zero_are_kept_like_others() -> None:
    ids = IdSet()
    assert ids._insert([0, 5, 0]) == [2]
    # the empty text is the one id whose hash is 0
    assert "" in ids

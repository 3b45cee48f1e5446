"""Provisioning against a broker of a real one's speed, beside loops that do nothing but send."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.setting import (
    IN_FLIGHT,
    KEY,
    SECRET,
    V4,
    V5,
    Generation,
    bare_session,
    broker,
    provision,
    users,
    write_csv,
)
from tests.bench.table import Line, Ratio, take_turns


def lines(folder: Path, quick: bool) -> Iterator[Line]:
    """Measure upserts on both generations, then deletions."""
    rows, rounds = (10_000, 1) if quick else (100_000, 3)
    for generation in (V5, V4):
        yield from _upserts(folder, generation, rows, rounds, quick)
    yield from _unchanged(folder, rows, rounds)
    if os.environ.get("EMQX_TEST_URL"):
        yield from _against_a_real_broker(folder, rows, rounds)
    yield _deletions(folder, *((2_000, 1) if quick else (20_000, 3)))


# ---------------------------------------------------------------- upsert


def _upserts(folder: Path, generation: Generation, rows: int, rounds: int, quick: bool) -> Iterator[Line]:
    singly = 200 if quick else 1_000
    bodies = _bodies(folder, generation, rows)
    sources = [write_csv(folder / f"ours-{number}.csv", f"o{number:02}", rows) for number in range(rounds)]
    with broker(generation) as origin:
        write_csv(folder / "first.csv", "first", 10)
        # what is imported once is not measured
        provision(folder / "first.csv")
        ours, bare, posts, http_hook = take_turns(
            rounds,
            lambda number: _timed_provision(sources[number]) / rows,
            lambda number: _post_bodies(origin, generation, bodies, number) / rows,
            lambda number: _post_each(origin, generation, number, singly) / singly,
            lambda number: _http_hook(origin, generation, number, singly) / singly,
        )
    name = f"{generation.name}: upsert of {rows:,} new users"
    ratio = Ratio(ours, bare)
    yield Line(f"{name}, rows per second", f"{1 / statistics.median(ours):,.0f}")
    yield Line(
        f"{name}, time against posting the same bodies", str(ratio), "at most 1.10", ratio.value <= 1.1
    )
    yield Line(f"{name}, times faster than POSTs by requests.Session", f"{Ratio(posts, ours).value:.0f}")
    yield Line(f"{name}, times faster than HttpHook.run", f"{Ratio(http_hook, ours).value:.0f}")


def _timed_provision(source: Path, **options: Any) -> float:
    start = time.perf_counter()
    provision(source, **options)
    return time.perf_counter() - start


def _bodies(folder: Path, generation: Generation, rows: int, **options: Any) -> list[bytes]:
    """Take down what the operator sends for such a source."""
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx(generation.version) as fake:
        os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = json.dumps(fake.connection())
        provision(write_csv(folder / "rehearsal.csv", "o00", rows), **options)
        return [request.body for request in fake.requests if request.method == "POST"]


def _post_bodies(origin: str, generation: Generation, bodies: list[bytes], number: int) -> float:
    renamed = [body.replace(b'"bench-o00-', f'"bench-b{number:02}-'.encode()) for body in bodies]
    return _post(origin + generation.bulk, renamed)


def _post(url: str, bodies: list[bytes], key: str = KEY, secret: str = SECRET) -> float:
    headers = {"Content-Type": "application/json"}
    with bare_session(key, secret) as session:
        start = time.perf_counter()
        for body in bodies:
            session.post(url, data=body, headers=headers).raise_for_status()
        return time.perf_counter() - start


def _post_each(origin: str, generation: Generation, number: int, rows: int) -> float:
    with bare_session() as session:
        start = time.perf_counter()
        for user in _single_bodies(generation, f"s{number:02}", rows):
            session.post(origin + generation.users, json=user).raise_for_status()
        return time.perf_counter() - start


def _http_hook(origin: str, generation: Generation, number: int, rows: int) -> float:
    from airflow.providers.http.hooks.http import HttpHook

    os.environ["AIRFLOW_CONN_BENCH_HTTP"] = json.dumps(
        {"conn_type": "http", "host": origin, "login": KEY, "password": SECRET}
    )
    hook = HttpHook(method="POST", http_conn_id="bench_http")
    start = time.perf_counter()
    for user in _single_bodies(generation, f"h{number:02}", rows):
        hook.run(generation.users, json=user)
    return time.perf_counter() - start


def _single_bodies(generation: Generation, prefix: str, rows: int) -> Iterator[dict[str, object]]:
    for user_id, password in users(prefix, rows):
        if generation is V4:
            yield {"username": user_id, "password": password}
        else:
            yield {"user_id": user_id, "password": password, "is_superuser": False}


# ---------------------------------------------------------------- hashed users, unchanged


def _unchanged(folder: Path, rows: int, rounds: int) -> Iterator[Line]:
    """Run a source of hashed users a second time."""
    os.environ["AIRFLOW_CONN_PEPPER"] = json.dumps({"conn_type": "generic", "password": "bench" * 8})
    hashed = {"hash_passwords": True, "pepper_conn_id": "pepper"}
    bodies = _bodies(folder, V5, rows, **hashed)
    source = folder / "rehearsal.csv"
    with broker(V5) as origin:
        provision(source, **hashed)
        if provision(source, **hashed)["unchanged"] != rows:
            raise RuntimeError("an unchanged row was written")
        url = origin + V5.bulk.replace("plain", "hash")
        ratio = Ratio(
            *take_turns(rounds, lambda _: _timed_provision(source, **hashed), lambda _: _post(url, bodies))
        )
    yield Line(
        f"v5: second run over {rows:,} hashed users, time against posting the same bodies",
        str(ratio),
        "at most 1.10",
        ratio.value <= 1.1,
    )


# ---------------------------------------------------------------- a real broker


def _against_a_real_broker(folder: Path, rows: int, rounds: int) -> Iterator[Line]:
    """Do the same with the broker of ``EMQX_TEST_URL``, ``_KEY`` and ``_SECRET``; all users are deleted again."""
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    url, key, secret = (os.environ[f"EMQX_TEST_{name}"] for name in ("URL", "KEY", "SECRET"))
    extra = {"allow_http": True} if url.startswith("http://") else {}
    real = json.dumps({"conn_type": "emqx", "host": url, "login": key, "password": secret, "extra": extra})
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = real
    with EmqxHook() as hook:
        generation = V4 if hook.api_version == "v4" else V5
        # the API of EMQX Cloud for version 4 has another path
        bulk = hook.settings.origin + hook.get_conn().base
        bulk += generation.bulk.removeprefix(f"/api/{generation.name}")
        name = str(hook.broker)
    bodies = _bodies(folder, generation, rows)
    os.environ["AIRFLOW_CONN_EMQX_DEFAULT"] = real

    def again(prefix: str, work: Callable[[Path], float]) -> float:
        """Let the users be new in every round."""
        source = write_csv(folder / "real.csv", prefix, rows)
        try:
            return work(source)
        finally:
            provision(source, mode="delete")

    renamed = [body.replace(b'"bench-o00-', b'"bench-b00-') for body in bodies]
    ours, bare = take_turns(
        rounds,
        lambda _: again("o00", _timed_provision),
        lambda _: again("b00", lambda _: _post(bulk, renamed, key, secret)),
    )
    yield Line(
        f"{name}, a real broker: upsert of {rows:,} new users, time against posting the same bodies",
        f"{Ratio(ours, bare)}, {rows / statistics.median(ours):,.0f} rows per second",
    )


# ---------------------------------------------------------------- delete


def _deletions(folder: Path, rows: int, rounds: int) -> Line:
    source = write_csv(folder / "deletions.csv", "gone", rows)
    with broker(V5) as origin:
        provision(source)

        def ours(_: int) -> float:
            seconds = _timed_provision(source, mode="delete")
            provision(source)
            return seconds

        def bare(_: int) -> float:
            start = time.perf_counter()
            asyncio.run(_delete_each(origin, rows))
            seconds = time.perf_counter() - start
            provision(source)
            return seconds

        ratio = Ratio(*reversed(take_turns(rounds, ours, bare)))
    return Line(
        f"v5: {rows:,} deletions, speed against aiohttp alone, {IN_FLIGHT} in flight",
        str(ratio),
        "at least 0.90",
        ratio.value >= 0.9,
    )


async def _delete_each(origin: str, rows: int) -> None:
    import aiohttp

    waiting = users("gone", rows)
    path = urlsplit(origin + V5.users).path
    headers = {"Authorization": "Basic " + b64encode(f"{KEY}:{SECRET}".encode()).decode()}
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(origin, headers=headers, connector=connector) as session:

        async def work() -> None:
            for user_id, _ in waiting:
                async with session.delete(f"{path}/{user_id}") as response:
                    response.raise_for_status()
                    await response.read()

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

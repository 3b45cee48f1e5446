"""Plays operations against what real brokers answered."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from airflow_provider_emqx.api.base import Answer, Broker, Operation, Request
from airflow_provider_emqx.api.generations import reader_of
from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.transport import exchange

DIRECTORY = Path(__file__).parent.parent / "contract"
BROKERS = {"v4": Broker("v4", (4, 4, 19)), "v5": Broker("v5", (5, 8, 9))}
FILES = {"v4": "emqx-4.4.19.jsonl", "v5": "emqx-5.8.9.jsonl"}


@cache
def steps(generation: str) -> dict[str, dict[str, Any]]:
    """Give the recorded steps of a generation by name."""
    lines = (DIRECTORY / FILES[generation]).read_text(encoding="utf-8").splitlines()
    return {step["id"]: step for step in map(json.loads, lines) if "id" in step}


def answer(generation: str, name: str) -> Answer:
    """Give a recorded answer."""
    response = steps(generation)[name]["response"]
    body = json.dumps(response["json"]) if "json" in response else response.get("text", "")
    kind = (response.get("content_type") or "").partition(";")[0]
    return Answer(response["status"], kind, body.encode())


def play(generation: str, operation: Operation[Any], *names: str) -> Any:
    """
    Run an operation, answering its requests with recorded answers; each must be the request that was recorded.

    :param generation: ``"v4"`` or ``"v5"``.
    :param operation: what is tested.
    :param names: recorded steps, one for each request. One that begins with ``~`` answers another request.
    """
    read = reader_of(f"/api/{generation}")
    waiting = list(names)
    try:
        request = next(operation)
        while True:
            assert waiting, f"an unexpected request: {request}"
            name = waiting.pop(0)
            if not name.startswith("~"):
                _compare(generation, name, request)
            try:
                reply = read(request, answer(generation, name.removeprefix("~")))
            except EmqxError as error:
                request = operation.throw(error)
            else:
                request = operation.send(reply)
    except StopIteration as done:
        assert not waiting, f"not asked for: {waiting}"
        return done.value


def _compare(generation: str, name: str, request: Request) -> None:
    recorded = steps(generation)[name]["request"]
    target, _, query = exchange.target(request, "").partition("?")
    assert f"{request.method} {target}" == f"{recorded['method']} {recorded['path'].partition('?')[0]}"
    asked = dict(parse_qsl(recorded.get("query") or recorded["path"].partition("?")[2]))
    sent = dict(parse_qsl(query))
    # pages are longer in earnest
    for paging in ("page", "limit", "_page", "_limit"):
        sent.pop(paging, None)
        asked.pop(paging, None)
    assert sent == asked or not asked

"""Finds out what answers at an address: the API's generation, its base path, and the broker's version."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from airflow_provider_emqx.api.answers import json_object
from airflow_provider_emqx.api.base import Broker, Operation, Request
from airflow_provider_emqx.api.generations import api_of
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxConfigError,
    EmqxForbiddenError,
    EmqxServerError,
    EmqxUnsupportedError,
)

_V5_PUBLIC = ("/api/v5/status", b"Node ")


def generation(prefix: str, serverless: bool = False) -> Operation[tuple[str, str]]:
    """
    Find the API's generation and base path at an address that does not tell it.

    Asks ``/api/v5/status``, which EMQX 5 answers to anybody, then the lists of ``/api/v5``, ``/api/v4`` and EMQX Cloud
    v4's ``/api``, which show their generation even when they refuse the key.

    :param prefix: path before ``/api``, mostly empty.
    :param serverless: EMQX Cloud Serverless is always v5.
    :return: generation and base path.
    :raises EmqxConfigError: if nothing there answers as EMQX does, naming the target of a redirect.
    :raises EmqxServerError: if something there fails instead of answering: a broker that starts, a proxy before it.
    """
    if serverless:
        return "v5", f"{prefix}/api/v5"
    # a node that starts answers 503 here, and says that it is one
    failure: EmqxServerError | EmqxConfigError | None = None
    try:
        status = yield Request("GET", prefix + _V5_PUBLIC[0], raw=True, accept=(503,))
        if status.status in (200, 503) and status.data.startswith(_V5_PUBLIC[1]):
            return "v5", f"{prefix}/api/v5"
    except EmqxConfigError as error:
        # a redirect; another path may be served all the same
        failure = error
    # both spellings of paging: the foreign ones are ignored
    one_row = {"page": 1, "limit": 1, "_page": 1, "_limit": 1}
    for base in ("/api/v5", "/api/v4", "/api"):
        try:
            reply = yield Request("GET", f"{prefix}{base}/clients", one_row, raw=True)
        except (EmqxServerError, EmqxConfigError) as error:
            failure = error
            continue
        found = _looks_like(reply.status, reply.data)
        if found == base[-2:] or (found == "v4" and base == "/api"):
            return found, prefix + base
    if failure is not None:
        raise failure
    raise EmqxConfigError(
        "what answers at this address is not EMQX's management API: check host and port of the API URL "
        "(EMQX 5 and 6: port 18083, EMQX 4: 8081, EMQX Cloud: 8443)"
    )


def _looks_like(status: int, body: bytes) -> str:
    answer = json_object(body)
    if type(answer.get("code")) is int or (status == 401 and body.strip() == b"UNAUTHORIZED"):
        return "v4"
    if isinstance(answer.get("code"), str) and "message" in answer:
        # EMQX 5 answers every unknown path with the code NOT_FOUND, those of v4 too
        return "v5"
    if "meta" in answer and "data" in answer:
        return "v5"
    return ""


def version(broker: Broker, now: datetime) -> Operation[tuple[tuple[int, ...] | None, int]]:
    """
    Read the broker's version where the key may see it: v5 ``GET /nodes``, v4 ``GET /brokers``.

    In a cluster that is being upgraded the oldest node counts.

    :param now: the present time, which tells how far a v4 broker's clock is ahead of UTC.
    :return: version or ``None``, and v4's offset in minutes.
    """
    if broker.serverless:
        return None, 0
    try:
        nodes = yield from api_of(broker).nodes.list_running()
    except EmqxAuthError:
        if broker.namespace:
            # otherwise operations that need the version would report it as unknown
            raise
        return None, 0
    except (EmqxForbiddenError, EmqxUnsupportedError):
        return None, 0
    versions = [found for node in nodes if (found := parse_version(str(node.get("version", ""))))]
    clocks = [_utc_offset(str(node.get("datetime", "")), now) for node in nodes]
    return min(versions, default=None), clocks[0] if clocks else 0


def parse_version(text: str) -> tuple[int, ...] | None:
    """Read ``"5.8.9"``, ``"v6.1.0-rc.1"`` or ``"4.4.19"``; ``None`` for anything else."""
    match = re.match(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", text.strip())
    return tuple(int(part) for part in match.groups() if part is not None) if match else None


def _utc_offset(local: str, now: datetime) -> int:
    """Return the minutes between a local time and now, to the quarter of an hour that time zones keep."""
    try:
        there = datetime.strptime(local, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return 0
    return round((there - now).total_seconds() / 900) * 15

"""API v4, clients: listings, kick, ACL cache, keepalive."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Request, local_time
from airflow_provider_emqx.testing.mqtt.sessions import Client
from airflow_provider_emqx.testing.routes import Route
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.v4.replies import (
    BAD_PARAMETER,
    MISSING,
    OFFLINE,
    RPC_ERROR,
    UNKNOWN,
    data,
    done,
    failed,
    listing,
    not_found,
    read_object,
)

#: Seconds of the broker's time per client listed, and one client by its id as a share of an average call.
LISTED_CLIENT_COST = 45e-6
ONE_CLIENT_COST = 700 / 2_000

_CONSTANT: dict[str, Any] = {
    "is_bridge": False,
    "heap_size": 1598,
    "recv_msg.qos1": 0,
    "mountpoint": "undefined",
    "max_subscriptions": 0,
    "proto_name": "MQTT",
    "inflight": 0,
    "recv_oct": 38,
    "recv_msg.dropped": 0,
    "recv_msg.qos2": 0,
    "mailbox_len": 0,
    "max_awaiting_rel": 100,
    "send_msg.dropped.expired": 0,
    "recv_msg": 0,
    "send_msg.dropped": 0,
    "awaiting_rel": 0,
    "send_msg.qos2": 0,
    "max_inflight": 32,
    "recv_msg.qos0": 0,
    "send_msg.qos1": 0,
    "max_mqueue": 1000,
    "send_msg.dropped.queue_full": 0,
    "send_oct": 27,
    "reductions": 1962,
    "send_msg.qos0": 0,
    "send_msg.dropped.too_large": 0,
}


def client_row(state: State, client: Client) -> dict[str, Any]:
    """Return a client as the API shows it."""
    packets = 1 + len(client.subscriptions)
    row = {
        **_CONSTANT,
        "clientid": client.clientid,
        "username": client.username or "undefined",
        "node": client.node,
        "connected": client.connected,
        "created_at": local_time(client.created_at, state.utc_offset),
        "connected_at": local_time(client.connected_at, state.utc_offset),
        "clean_start": client.clean_start,
        "expiry_interval": client.lifetime,
        "proto_ver": client.proto_ver,
        "ip_address": client.ip_address,
        "port": client.port,
        "zone": client.zone,
        "keepalive": client.keepalive,
        "subscriptions_cnt": len(client.subscriptions),
        "mqueue_len": len(client.mqueue),
        "mqueue_dropped": client.mqueue_dropped,
        "recv_cnt": packets,
        "recv_pkt": packets,
        "send_cnt": packets + client.received,
        "send_pkt": packets + client.received,
        "send_msg": client.received,
    }
    if not client.connected:
        row["disconnected_at"] = local_time(client.disconnected_at or 0, state.utc_offset)
    return row


def _number(request: Request, name: str) -> float | None:
    text = request.arg(name)
    if text is None:
        return None
    try:
        return float(int(text))
    except ValueError:
        raise failed(BAD_PARAMETER, f"{name}: bad value") from None


Test = Callable[[Client], bool]
_EXACT: dict[str, Callable[[Client], str]] = {
    "clientid": lambda client: client.clientid,
    "username": lambda client: client.username or "undefined",
    "zone": lambda client: client.zone,
    "ip_address": lambda client: client.ip_address,
    "conn_state": lambda client: "connected" if client.connected else "disconnected",
    "clean_start": lambda client: str(client.clean_start).lower(),
    "proto_name": lambda client: "MQTT",
    "proto_ver": lambda client: str(client.proto_ver),
}
_NUMBERS: dict[str, Callable[[Client], float]] = {
    "created_at": lambda client: int(client.created_at),
    "connected_at": lambda client: int(client.connected_at),
    "mqueue_len": lambda client: len(client.mqueue),
    "mqueue_dropped": lambda client: client.mqueue_dropped,
}


#: What a value must look like where the broker reads more than a text: an address is split at its dots.
_TYPED = {"clean_start": r"true|false", "proto_ver": r"\d+", "ip_address": r"\d+\.\d+\.\d+\.\d+"}


def _filters(request: Request) -> Iterator[Test]:
    for name, value in _EXACT.items():
        wanted = request.arg(name)
        if wanted is not None:
            if not re.fullmatch(_TYPED.get(name, ".*"), wanted, re.ASCII | re.DOTALL):
                raise failed(BAD_PARAMETER, f"{name}: bad value")
            yield _equals(value, wanted)
    for name in ("clientid", "username"):
        part = request.arg(f"_like_{name}")
        if part is not None:
            yield _contains(name, part)
    for name, number in _NUMBERS.items():
        low, high = _number(request, f"_gte_{name}"), _number(request, f"_lte_{name}")
        if low is not None or high is not None:
            yield _is_between(number, low or 0.0, float("inf") if high is None else high)


def _equals(value: Callable[[Client], str], wanted: str) -> Test:
    return lambda client: value(client) == wanted


def _contains(name: str, part: str) -> Test:
    return lambda client: part in (getattr(client, name) or "")


def _is_between(number: Callable[[Client], float], low: float, high: float) -> Test:
    return lambda client: low <= number(client) <= high


def _list(state: State, request: Request, clients: list[Client]) -> Answer:
    tests = list(_filters(request))
    found = [client for client in clients if all(test(client) for test in tests)]
    answer = listing(request, found, lambda client: client_row(state, client), filtered=bool(tests))
    answer.read = answer.body.count(b'"clientid"') * LISTED_CLIENT_COST
    return answer


def list_clients(state: State, request: Request) -> Answer:
    """``GET /clients``."""
    return _list(state, request, list(state.mqtt.clients.values()))


def list_node_clients(state: State, request: Request, node: str) -> Answer:
    """``GET /nodes/{node}/clients``."""
    if node not in state.nodes:
        return not_found()
    if not state.nodes[node].running:
        raise failed(RPC_ERROR, "nodedown")
    return _list(state, request, [one for one in state.mqtt.clients.values() if one.node == node])


def get_client(state: State, request: Request, clientid: str) -> Answer:
    """``GET /clients/{clientid}``: an array, empty for an unknown client."""
    client = state.mqtt.clients.get(clientid)
    answer = data([client_row(state, client)] if client else [])
    answer.cost = ONE_CLIENT_COST
    return answer


def get_node_client(state: State, request: Request, node: str, clientid: str) -> Answer:
    """``GET /nodes/{node}/clients/{clientid}``."""
    if node not in state.nodes:
        return not_found()
    client = state.mqtt.clients.get(clientid)
    return data([client_row(state, client)] if client and client.node == node else [])


def by_username(state: State, request: Request, username: str) -> Answer:
    """``GET /clients/username/{username}``: not paged."""
    clients = state.mqtt.clients.values()
    return data([client_row(state, client) for client in clients if client.username == username])


def by_username_on_node(state: State, request: Request, node: str, username: str) -> Answer:
    """``GET /nodes/{node}/clients/username/{username}``."""
    if node not in state.nodes:
        return not_found()
    clients = [client for client in state.mqtt.clients.values() if client.node == node]
    return data([client_row(state, client) for client in clients if client.username == username])


def kick_client(state: State, request: Request, clientid: str) -> Answer:
    """``DELETE /clients/{clientid}``: code 0 even for a client that is not there, since 4.4."""
    if not state.kick(clientid) and not state.at_least(4, 4):
        raise failed(OFFLINE, "not_found")
    return done()


def _client(state: State, clientid: str) -> Client:
    client = state.mqtt.clients.get(clientid)
    if client is None:
        raise failed(OFFLINE, "not_found")
    return client


def get_cache(state: State, request: Request, clientid: str) -> Answer:
    """``GET /clients/{clientid}/acl_cache``."""
    return data(
        [
            {
                "access": entry["action"],
                "topic": entry["topic"],
                "result": entry["result"],
                "updated_time": int(entry["at"] * 1000),
            }
            for entry in _client(state, clientid).acl_cache
        ]
    )


def clean_cache(state: State, request: Request, clientid: str) -> Answer:
    """``DELETE /clients/{clientid}/acl_cache``."""
    _client(state, clientid).acl_cache.clear()
    return done()


def clean_caches(state: State, request: Request) -> Answer:
    """``DELETE /acl-cache``."""
    for client in state.mqtt.clients.values():
        client.acl_cache.clear()
    return done()


def clean_node_caches(state: State, request: Request, node: str) -> Answer:
    """``DELETE /nodes/{node}/acl-cache``."""
    if node not in state.nodes:
        return not_found()
    if not state.nodes[node].running:
        raise failed(RPC_ERROR, "nodedown")
    for client in state.mqtt.clients.values():
        if client.node == node:
            client.acl_cache.clear()
    return done()


def set_keepalive(state: State, request: Request, clientid: str) -> Answer:
    """``PUT /clients/{clientid}/keepalive``."""
    interval = read_object(request).get("interval")
    if interval is None:
        raise failed(MISSING, "Not Found")
    if not isinstance(interval, int) or not 0 <= interval <= 65535:
        raise failed(UNKNOWN, "mqtt3.1.1 specification: keepalive must between 0~65535")
    _client(state, clientid).keepalive = interval
    return done()


def set_limit(state: State, request: Request, clientid: str) -> Answer:
    """``POST`` and ``DELETE /clients/{clientid}/ratelimit`` and ``/quota``: accepted, without effect here."""
    _client(state, clientid)
    return done()


ROUTES = [
    Route("GET", "/clients", list_clients),
    Route("GET", "/nodes/{node}/clients", list_node_clients),
    Route("GET", "/clients/{clientid}", get_client),
    Route("GET", "/nodes/{node}/clients/{clientid}", get_node_client),
    Route("GET", "/clients/username/{username}", by_username),
    Route("GET", "/nodes/{node}/clients/username/{username}", by_username_on_node),
    Route("DELETE", "/clients/{clientid}", kick_client),
    Route("GET", "/clients/{clientid}/acl_cache", get_cache),
    Route("DELETE", "/clients/{clientid}/acl_cache", clean_cache),
    Route("DELETE", "/acl-cache", clean_caches),
    Route("DELETE", "/nodes/{node}/acl-cache", clean_node_caches),
    Route("PUT", "/clients/{clientid}/keepalive", set_keepalive),
    Route("POST", "/clients/{clientid}/ratelimit", set_limit),
    Route("DELETE", "/clients/{clientid}/ratelimit", set_limit),
    Route("POST", "/clients/{clientid}/quota", set_limit),
    Route("DELETE", "/clients/{clientid}/quota", set_limit),
]

"""API v5, clients: listings, kick, subscriptions of a client, queues."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Request, json_answer, parse_time, pick, rfc3339
from airflow_provider_emqx.testing.mqtt.sessions import Client, Message, Subscription
from airflow_provider_emqx.testing.mqtt.topics import parse_filter
from airflow_provider_emqx.testing.routes import Route, since
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.v5.replies import (
    as_number,
    bad_request,
    bool_arg,
    check_enum,
    check_range,
    check_union,
    error,
    invalid,
    listing,
    no_content,
    ok,
    page_args,
    read_array,
    read_object,
)

#: Seconds of the broker's time per client that a request looks at: the whole row, few fields, only a filter.
ALL_FIELDS_COST, FEW_FIELDS_COST, SCAN_COST = 100e-6, 14e-6, 4e-6
#: One client by its id costs the broker less than an average call.
ONE_CLIENT_COST = 7_000 / 11_900

_CONSTANT: dict[str, Any] = {
    "recv_msg": 0,
    "awaiting_rel_cnt": 0,
    "heap_size": 2586,
    "inflight_cnt": 0,
    "enable_authn": True,
    "mqueue_max": 1000,
    "inflight_max": 32,
    "recv_msg.qos2": 0,
    "is_expired": False,
    "send_msg.qos1": 0,
    "peersni": None,
    "proto_name": "MQTT",
    "awaiting_rel_max": 100,
    "send_msg.qos0": 0,
    "is_bridge": False,
    "recv_msg.qos0": 0,
    "durable": False,
    "recv_msg.qos1": 0,
    "recv_oct": 49,
    "send_msg.qos2": 0,
    "recv_msg.dropped": 0,
    "mountpoint": None,
    "send_msg.dropped.queue_full": 0,
    "mailbox_len": 0,
    "send_msg.dropped.expired": 0,
    "listener": "tcp:default",
    "auth_expire_at": None,
    "send_oct": 30,
    "reductions": 3692,
    "client_attrs": {},
    "send_msg.dropped.too_large": 0,
    "subscriptions_max": "infinity",
    "recv_msg.dropped.await_pubrel_timeout": 0,
    "send_msg.dropped": 0,
}
_VARIABLE: dict[str, Callable[[Client], Any]] = {
    "clientid": lambda client: client.clientid,
    "username": lambda client: client.username,
    "node": lambda client: client.node,
    "connected": lambda client: client.connected,
    "connected_at": lambda client: rfc3339(client.connected_at, True),
    "created_at": lambda client: rfc3339(client.created_at, True),
    "clean_start": lambda client: client.clean_start,
    "proto_ver": lambda client: client.proto_ver,
    "ip_address": lambda client: client.ip_address,
    "port": lambda client: client.port,
    "keepalive": lambda client: client.keepalive,
    "expiry_interval": lambda client: client.lifetime,
    "is_persistent": lambda client: client.expiry > 0 or not client.clean_start,
    "subscriptions_cnt": lambda client: len(client.subscriptions),
    "mqueue_len": lambda client: len(client.mqueue),
    "mqueue_dropped": lambda client: client.mqueue_dropped,
    "recv_cnt": lambda client: 1 + len(client.subscriptions),
    "recv_pkt": lambda client: 1 + len(client.subscriptions),
    "send_cnt": lambda client: 1 + len(client.subscriptions) + client.received,
    "send_pkt": lambda client: 1 + len(client.subscriptions) + client.received,
    "send_msg": lambda client: client.received,
}
_AWAY: dict[str, Callable[[Client], Any]] = {
    "disconnected_at": lambda client: rfc3339(client.disconnected_at or 0, True),
    "disconn_props": lambda client: {},
}
_SINCE_6_3: dict[str, Any] = {"impl": "emqx_session_mem", "total_payload_bytes": 0}


def _constant(state: State) -> dict[str, Any]:
    return {**_CONSTANT, **_SINCE_6_3} if state.at_least(6, 3) else _CONSTANT


def client_row(state: State, client: Client) -> dict[str, Any]:
    """Return a client as the API shows it."""
    row = {**_constant(state), **{name: of(client) for name, of in _VARIABLE.items()}}
    if not client.connected:
        row.update({name: of(client) for name, of in _AWAY.items()})
    return row


def _few_fields(state: State, names: list[str]) -> Callable[[Client], dict[str, Any]]:
    """Return a function that makes a row of these fields only."""
    variable = [(name, of) for name, of in _VARIABLE.items() if name in names]
    away = [(name, of) for name, of in _AWAY.items() if name in names]
    constant = pick(_constant(state), names)

    def row(client: Client) -> dict[str, Any]:
        found = {name: of(client) for name, of in variable}
        if constant:
            found.update(constant)
        if away and not client.connected:
            found.update({name: of(client) for name, of in away})
        return found

    return row


def _fields(state: State, request: Request) -> list[str] | None:
    """Return the fields that a listing asks for; ``None`` is all of them."""
    text = request.arg("fields")
    if text is None or text == "all" or not state.at_least(5, 6):
        return None
    names = text.split(",")
    for name in names:
        if name not in {*_constant(state), *_VARIABLE, *_AWAY}:
            raise invalid("fields", "unable_to_convert_to_enum_symbol", name)
    return names


def _time_arg(request: Request, name: str) -> float | None:
    text = request.arg(name)
    if text is None:
        return None
    try:
        return parse_time(text, 0.001)
    except ValueError:
        raise invalid(name, "Unable to parse string", text) from None


Test = Callable[[Client], bool]


def _filters(state: State, request: Request) -> tuple[list[Test], bool]:
    """Read the filters: their tests, and whether one of them is fuzzy."""
    tests = [*_exact_filters(state, request), *_time_filters(request)]
    if state.serverless:
        return tests, False
    parts = [(name, request.arg(f"like_{name}")) for name in ("clientid", "username")]
    fuzzy = [_contains(name, part) for name, part in parts if part is not None]
    return [*tests, *fuzzy], bool(fuzzy)


def node_arg(state: State, request: Request) -> str | None:
    """Read ``node``; one that does not run is an error, and not an empty listing."""
    node = request.arg("node")
    if node is not None and (node not in state.nodes or not state.nodes[node].running):
        raise error(500, "NODE_DOWN", f'bad rpc call <<"{node}">>, Reason <<"invalid node">>')
    return node


def _exact_filters(state: State, request: Request) -> Iterator[Test]:
    for name in ("clientid", "username"):
        values = request.args(name)
        if values:
            yield _is_one_of(name, frozenset(values if state.at_least(5, 6) else values[-1:]))
    node = node_arg(state, request)
    if node is not None:
        yield lambda client: client.node == node
    address = request.arg("ip_address")
    if address is not None:
        yield lambda client: client.ip_address == address
    conn_state = request.arg("conn_state")
    if conn_state is not None:
        check_enum(conn_state, ("connected", "idle", "disconnected"), "conn_state")
        yield lambda client: conn_state == ("connected" if client.connected else "disconnected")
    clean_start = bool_arg(request, "clean_start")
    if clean_start is not None:
        yield lambda client: client.clean_start is clean_start
    proto_ver = request.arg("proto_ver")
    if proto_ver is not None:
        yield lambda client: str(client.proto_ver) == proto_ver


def _time_filters(request: Request) -> Iterator[Test]:
    for name in ("created_at", "connected_at"):
        after, before = _time_arg(request, f"gte_{name}"), _time_arg(request, f"lte_{name}")
        if after is not None or before is not None:
            yield _is_between(name, after or 0.0, float("inf") if before is None else before)


def _is_one_of(name: str, wanted: frozenset[str]) -> Test:
    return lambda client: getattr(client, name) in wanted


def _contains(name: str, part: str) -> Test:
    return lambda client: part in (getattr(client, name) or "")


def _is_between(name: str, low: float, high: float) -> Test:
    return lambda client: low <= getattr(client, name) <= high


def _select(state: State, request: Request) -> tuple[list[str], bool, int]:
    """Return the ids in the order of the listing, whether a filter is fuzzy, how many clients it looked at."""
    tests, fuzzy = _filters(state, request)
    clients = state.mqtt.clients
    ids = clients.descending()
    if not tests:
        return ids, fuzzy, 0
    return [one for one in ids if all(test(clients[one]) for test in tests)], fuzzy, len(ids)


def list_clients(state: State, request: Request) -> Answer:
    """``GET /clients``."""
    clients = state.mqtt.clients
    page, limit = page_args(state, request)
    fields = _fields(state, request)
    row = partial(client_row, state) if fields is None else _few_fields(state, fields)
    ids, fuzzy, scanned = _select(state, request)
    answer = listing(state, request, ids, lambda clientid: row(clients[clientid]), fuzzy=fuzzy)
    shown = max(0, min(limit, len(ids) - (page - 1) * limit))
    per_row = ALL_FIELDS_COST if fields is None else FEW_FIELDS_COST
    answer.read = shown * per_row + scanned * SCAN_COST
    return answer


def list_clients_v2(state: State, request: Request) -> Answer:
    """``GET /clients_v2``: by cursor, hidden from EMQX's own documentation."""
    clients = state.mqtt.clients
    _, limit = page_args(state, request)
    ids, _, _ = _select(state, request)
    cursor = request.arg("cursor")
    start = 0
    if cursor is not None:
        try:
            start = int(base64.urlsafe_b64decode(cursor.encode()).decode().removeprefix("fake:"))
        except ValueError:
            raise bad_request("bad cursor") from None
    shown = ids[start : start + limit]
    meta: dict[str, Any] = {"count": len(shown)}
    if start + limit < len(ids):
        meta["cursor"] = base64.urlsafe_b64encode(f"fake:{start + limit}".encode()).decode()
    answer = ok({"data": [client_row(state, clients[clientid]) for clientid in shown], "meta": meta})
    answer.read = len(shown) * ALL_FIELDS_COST
    return answer


def _client(state: State, clientid: str) -> Client:
    client = state.mqtt.clients.get(clientid)
    if client is None:
        raise error(404, "CLIENTID_NOT_FOUND", "Client ID not found")
    return client


def get_client(state: State, request: Request, clientid: str) -> Answer:
    """``GET /clients/{clientid}``."""
    answer = ok(client_row(state, _client(state, clientid)))
    answer.cost = ONE_CLIENT_COST
    return answer


def kick_client(state: State, request: Request, clientid: str) -> Answer:
    """``DELETE /clients/{clientid}``."""
    _client(state, clientid)
    state.kick(clientid)
    return no_content()


def kick_clients(state: State, request: Request) -> Answer:
    """``POST /clients/kickout/bulk``: 204 whatever the ids."""
    ids = read_array(request)
    for number, clientid in enumerate(ids, 1):
        if not isinstance(clientid, str):
            raise invalid(f"root.{number}", "unable_to_convert_to_string", clientid)
    for clientid in ids:
        state.kick(clientid)
    answer = no_content()
    answer.written = len(ids)
    return answer


def get_cache(state: State, request: Request, clientid: str) -> Answer:
    """``GET /clients/{clientid}/authorization/cache``."""
    return ok(
        [
            {
                "access": {"action_type": entry["action"], "qos": entry["qos"]},
                "result": entry["result"],
                "topic": entry["topic"],
                "updated_time": int(entry["at"] * 1000),
            }
            for entry in _client(state, clientid).acl_cache
        ]
    )


def clean_cache(state: State, request: Request, clientid: str) -> Answer:
    """``DELETE /clients/{clientid}/authorization/cache``."""
    _client(state, clientid).acl_cache.clear()
    return no_content()


def subscription_row(state: State, client: Client, subscription: Subscription) -> dict[str, Any]:
    """Return a subscription as the listings show it; ``durable`` came with durable sessions."""
    durable = {"durable": False} if state.at_least(5, 7) else {}
    return {**durable, **_subscribed(client, subscription)}


def _subscribed(client: Client, subscription: Subscription) -> dict[str, Any]:
    return {
        "clientid": client.clientid,
        "node": client.node,
        "topic": subscription.topic,
        "qos": subscription.qos,
        "nl": subscription.nl,
        "rap": subscription.rap,
        "rh": subscription.rh,
    }


def list_client_subscriptions(state: State, request: Request, clientid: str) -> Answer:
    """``GET /clients/{clientid}/subscriptions``."""
    client = _client(state, clientid)
    rows = [
        subscription_row(state, client, client.subscriptions[topic]) for topic in sorted(client.subscriptions)
    ]
    return ok({"data": rows} if state.serverless else rows)


def _read_subscription(row: dict[str, Any], path: str) -> Subscription:
    if not isinstance(row["topic"], str):
        raise invalid(f"{path}.topic", "unable_to_convert_to_string", row["topic"])
    values = {}
    for name, allowed in (("qos", (0, 1, 2)), ("nl", (0, 1)), ("rap", (0, 1)), ("rh", (0, 1, 2))):
        values[name] = row.get(name, 0)
        check_union(values[name], allowed, f"{path}.{name}")
    return Subscription(row["topic"], **values)


def _refusal(subscription: Subscription) -> str | None:
    group, _ = parse_filter(subscription.topic)
    return (
        "Invalid Subscribe options: `no_local` not allowed for shared-sub"
        if group and subscription.nl
        else None
    )


def subscribe(state: State, request: Request, clientid: str) -> Answer:
    """``POST /clients/{clientid}/subscribe``."""
    subscription = _read_subscription(read_object(request, "topic"), "root")
    client = _client(state, clientid)
    refusal = _refusal(subscription)
    if refusal:
        raise error(400, "INVALID_PARAMETER", refusal)
    state.mqtt.subscribe(client, subscription)
    return ok(_subscribed(client, subscription))


def subscribe_bulk(state: State, request: Request, clientid: str) -> Answer:
    """``POST /clients/{clientid}/subscribe/bulk``: an array, or an object when a part of it failed."""
    rows = read_array(request, "topic")
    subscriptions = [_read_subscription(row, f"root.{number}") for number, row in enumerate(rows, 1)]
    client = _client(state, clientid)
    succeeded, failed = [], []
    for subscription, row in zip(subscriptions, rows, strict=True):
        refusal = _refusal(subscription)
        if refusal:
            failed.append({"data": [row], "reason": refusal})
        else:
            state.mqtt.subscribe(client, subscription)
            succeeded.append(_subscribed(client, subscription))
    if failed:
        return ok({"succeed": succeeded, "failed": failed})
    return ok({"data": succeeded} if state.serverless else succeeded)


def unsubscribe(state: State, request: Request, clientid: str) -> Answer:
    """``POST /clients/{clientid}/unsubscribe``: 204 also for an unknown subscription."""
    topic = read_object(request, "topic")["topic"]
    state.mqtt.unsubscribe(_client(state, clientid), topic)
    return no_content()


def unsubscribe_bulk(state: State, request: Request, clientid: str) -> Answer:
    """``POST /clients/{clientid}/unsubscribe/bulk``."""
    rows = read_array(request, "topic")
    client = _client(state, clientid)
    for row in rows:
        state.mqtt.unsubscribe(client, row["topic"])
    return no_content()


def set_keepalive(state: State, request: Request, clientid: str) -> Answer:
    """``PUT /clients/{clientid}/keepalive``."""
    body = read_object(request, "interval")
    interval = check_range(body["interval"], 0, 65535, "root.interval")
    client = _client(state, clientid)
    client.keepalive = interval
    return ok(client_row(state, client))


def list_queue(state: State, request: Request, clientid: str) -> Answer:
    """``GET /clients/{clientid}/mqueue_messages``."""
    return _messages(state, request, _client(state, clientid).mqueue)


def list_inflight(state: State, request: Request, clientid: str) -> Answer:
    """``GET /clients/{clientid}/inflight_messages``: fake devices acknowledge at once."""
    _client(state, clientid)
    return _messages(state, request, [])


def _inserted_at(message: Message) -> int:
    """Return a time in nanoseconds that is unique among the messages."""
    return int(message.at * 1_000_000) * 1000 + int(message.msgid[-12:], 16) % 1000


def _messages(state: State, request: Request, messages: list[Message]) -> Answer:
    _, limit = page_args(state, request)
    encoding = request.arg("payload") or "base64"
    check_enum(encoding, ("none", "base64", "plain"), "payload")
    position = request.arg("position")
    most = check_range(
        as_number(request.arg("max_payload_bytes") or "1048576"), 1, 2**53, "max_payload_bytes"
    )
    after = "0" if position in {None, "none"} else str(position).partition("_")[0]
    if not after.isdecimal():
        raise error(400, "INVALID_PARAMETER", "position_limit_invalid")
    shown = [message for message in messages if _inserted_at(message) > int(after)][:limit]
    rows: list[dict[str, Any]] = []
    size = 0
    for message in shown:
        row: dict[str, Any] = {
            "msgid": message.msgid,
            "topic": message.topic,
            "qos": message.qos,
            "publish_at": int(message.at * 1000),
            "from_clientid": message.from_clientid,
            "from_username": message.from_username or "undefined",
            "inserted_at": str(_inserted_at(message)),
            "mqueue_priority": 0,
        }
        if encoding == "base64":
            row["payload"] = base64.b64encode(message.payload).decode()
        elif encoding == "plain":
            row["payload"] = message.payload.decode("utf-8", "replace")
        size += len(row.get("payload", ""))
        if rows and size > most:
            break  # silently, and the position below leads past what is left out
        rows.append(row)
    first = f"{_inserted_at(messages[0])}_0" if messages else "none"
    end = f"{_inserted_at(shown[-1])}_0" if shown else position or "none"
    return ok({"data": rows, "meta": {"start": first, "position": end}})


def count_sessions(state: State, request: Request) -> Answer:
    """``GET /sessions_count``: a bare number."""
    text = request.arg("since")
    if text is not None and not text.isdecimal():
        raise invalid("since", "Unable to parse string", text)
    moment = int(text or 0)
    return json_answer(200, sum(client.connected_at >= moment for client in state.mqtt.clients.values()))


ROUTES = [
    Route("GET", "/clients", list_clients, serverless=True),
    Route("GET", "/clients_v2", list_clients_v2, since(5, 7)),
    Route("POST", "/clients/kickout/bulk", kick_clients, since(5, 1)),
    Route("GET", "/clients/{clientid}", get_client, serverless=True),
    Route("DELETE", "/clients/{clientid}", kick_client, serverless=True),
    Route("GET", "/clients/{clientid}/authorization/cache", get_cache),
    Route("DELETE", "/clients/{clientid}/authorization/cache", clean_cache),
    Route("GET", "/clients/{clientid}/subscriptions", list_client_subscriptions, serverless=True),
    Route("POST", "/clients/{clientid}/subscribe", subscribe, serverless=True),
    Route("POST", "/clients/{clientid}/subscribe/bulk", subscribe_bulk, serverless=True),
    Route("POST", "/clients/{clientid}/unsubscribe", unsubscribe, serverless=True),
    Route("POST", "/clients/{clientid}/unsubscribe/bulk", unsubscribe_bulk, serverless=True),
    Route("PUT", "/clients/{clientid}/keepalive", set_keepalive),
    Route("GET", "/clients/{clientid}/mqueue_messages", list_queue, since(5, 6)),
    Route("GET", "/clients/{clientid}/inflight_messages", list_inflight, since(5, 6)),
    Route("GET", "/sessions_count", count_sessions, since(5, 6)),
]

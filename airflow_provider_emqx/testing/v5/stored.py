"""API v5, messages that the broker keeps: retained and delayed ones."""

from __future__ import annotations

import base64
import re
from typing import Any

from airflow_provider_emqx.testing.http import Answer, Request, rfc3339
from airflow_provider_emqx.testing.mqtt.sessions import Message
from airflow_provider_emqx.testing.mqtt.topics import has_wildcard, matches
from airflow_provider_emqx.testing.routes import Route, since
from airflow_provider_emqx.testing.state import State
from airflow_provider_emqx.testing.v5.replies import (
    check_range,
    error,
    invalid,
    listing,
    no_content,
    ok,
    read_object,
)

#: Payloads of retained messages above this size are left out of an answer ...
MAX_PAYLOAD = 1024 * 1024
#: ... and those of delayed ones replaced by a word.
MAX_DELAYED_PAYLOAD = 2048


# retained


def _retained_row(message: Message) -> dict[str, Any]:
    return {
        "msgid": message.msgid,
        "topic": message.topic,
        "qos": message.qos,
        "publish_at": rfc3339(message.at, True),
        "from_clientid": message.from_clientid,
        "from_username": message.from_username,
    }


def _retained(state: State, topic_filter: str | None) -> list[Message]:
    topics = sorted(state.mqtt.retained)
    return [
        state.mqtt.retained[topic] for topic in topics if topic_filter is None or matches(topic, topic_filter)
    ]


def list_retained(state: State, request: Request) -> Answer:
    """``GET /mqtt/retainer/messages``: without payloads; no ``count`` with a filter."""
    topic_filter = request.arg("topic")
    found = _retained(state, topic_filter)
    return listing(state, request, found, _retained_row, fuzzy=topic_filter is not None)


def clear_retained(state: State, request: Request) -> Answer:
    """``DELETE /mqtt/retainer/messages``: all of them."""
    state.mqtt.retained.clear()
    return no_content()


def _found(state: State, topic: str) -> list[Message]:
    found = _retained(state, topic) if has_wildcard(topic) else [state.mqtt.retained.get(topic)]
    messages = [message for message in found if message is not None]
    if not messages:
        raise error(404, "NOT_FOUND", "Viewed message doesn't exist")
    return messages


def get_retained(state: State, request: Request, topic: str) -> Answer:
    """``GET /mqtt/retainer/message/{topic}``: of a wildcard the first match."""
    message = _found(state, topic)[0]
    row = _retained_row(message)
    if len(message.payload) <= MAX_PAYLOAD:
        row["payload"] = base64.b64encode(message.payload).decode()
    return ok(row)


def delete_retained(state: State, request: Request, topic: str) -> Answer:
    """``DELETE /mqtt/retainer/message/{topic}``: of a wildcard **every** match."""
    for message in _found(state, topic):
        del state.mqtt.retained[message.topic]
    return no_content()


def get_retainer(state: State, request: Request) -> Answer:
    """``GET /mqtt/retainer``."""
    limit = state.mqtt.retained_per_second
    rate = {"max_publish_rate": "infinity" if limit is None else f"{limit}/s"}
    return ok(
        {
            "enable": True,
            "max_payload_size": "1MB",
            "msg_clear_interval": "0s",
            "msg_expiry_interval": "0s",
            "stop_publish_clear_msg": False,
            "allow_never_expire": True,
            "delivery_rate": "1000/s",
            **(rate if state.at_least(5, 8, 5) else {}),
            "msg_expiry_interval_override": "disabled",
            "backend": {
                "type": "built_in_database",
                "storage_type": "ram",
                "max_retained_messages": 0,
                "enable": True,
                "index_specs": [[1, 2, 3], [1, 3], [2, 3], [3]],
            },
        }
    )


# delayed


def get_delayed(state: State, request: Request) -> Answer:
    """``GET /mqtt/delayed``."""
    return ok({"enable": state.mqtt.delays, "max_delayed_messages": state.mqtt.max_delayed})


def set_delayed(state: State, request: Request) -> Answer:
    """``PUT /mqtt/delayed``."""
    body = read_object(request)
    enable = body.get("enable", state.mqtt.delays)
    if not isinstance(enable, bool):
        raise invalid("root.enable", "unable_to_convert_to_boolean", enable)
    state.mqtt.max_delayed = check_range(
        body.get("max_delayed_messages", state.mqtt.max_delayed), 0, 2**53, "root.max_delayed_messages"
    )
    state.mqtt.delays = enable
    return get_delayed(state, request)


def _delayed_row(state: State, msgid: str) -> dict[str, Any]:
    due, message = state.mqtt.delayed[msgid]
    return {
        "msgid": msgid,
        "node": state.node,
        "topic": message.topic,
        "qos": message.qos,
        "publish_at": rfc3339(message.at, True),
        "expected_at": rfc3339(due, True),
        "delayed_interval": round(due - message.at),
        "delayed_remaining": max(0, round(due - state.now())),
        "from_clientid": message.from_clientid,
        "from_username": message.from_username or "undefined",
    }


def list_delayed(state: State, request: Request) -> Answer:
    """``GET /mqtt/delayed/messages``."""
    return listing(state, request, list(state.mqtt.delayed), lambda msgid: _delayed_row(state, msgid))


def _delayed(state: State, node: str, msgid: str) -> Message:
    if node not in state.nodes:
        raise error(400, "INVALID_NODE", f"The node name {node} is invalid")
    if not re.fullmatch(r"[0-9A-Fa-f]{32}", msgid):
        raise error(400, "MESSAGE_ID_SCHEMA_ERROR", f"Message ID {msgid} schema error")
    if msgid not in state.mqtt.delayed:
        raise error(404, "MESSAGE_ID_NOT_FOUND", f"Message ID {msgid} not found")
    return state.mqtt.delayed[msgid][1]


def get_delayed_message(state: State, request: Request, node: str, msgid: str) -> Answer:
    """``GET /mqtt/delayed/messages/{node}/{msgid}``."""
    message = _delayed(state, node, msgid)
    small = len(message.payload) <= MAX_DELAYED_PAYLOAD
    payload = base64.b64encode(message.payload).decode() if small else "PAYLOAD_TOO_LARGE"
    return ok({**_delayed_row(state, msgid), "payload": payload})


def delete_delayed_message(state: State, request: Request, node: str, msgid: str) -> Answer:
    """``DELETE /mqtt/delayed/messages/{node}/{msgid}``."""
    _delayed(state, node, msgid)
    del state.mqtt.delayed[msgid]
    return no_content()


def delete_delayed_topic(state: State, request: Request, topic: str) -> Answer:
    """``DELETE /mqtt/delayed/messages/{topic}``."""
    if has_wildcard(topic):
        raise error(400, "INVALID_TOPIC_NAME", f"The topic name {topic} is invalid")
    found = [msgid for msgid, (_, message) in state.mqtt.delayed.items() if message.topic == topic]
    if not found:
        raise error(404, "MESSAGE_NOT_FOUND", f"Not found messages for {topic}")
    for msgid in found:
        del state.mqtt.delayed[msgid]
    return no_content()


ROUTES = [
    Route("GET", "/mqtt/retainer", get_retainer),
    Route("GET", "/mqtt/retainer/messages", list_retained),
    Route("DELETE", "/mqtt/retainer/messages", clear_retained, since(5, 5)),
    Route("GET", "/mqtt/retainer/message/{topic}", get_retained),
    Route("DELETE", "/mqtt/retainer/message/{topic}", delete_retained),
    Route("GET", "/mqtt/delayed", get_delayed),
    Route("PUT", "/mqtt/delayed", set_delayed),
    Route("GET", "/mqtt/delayed/messages", list_delayed),
    Route("GET", "/mqtt/delayed/messages/{node}/{msgid}", get_delayed_message),
    Route("DELETE", "/mqtt/delayed/messages/{node}/{msgid}", delete_delayed_message),
    Route("DELETE", "/mqtt/delayed/messages/{topic}", delete_delayed_topic, since(5, 6)),
]

"""Announcements of clients: ``$SYS/brokers/NODE/clients/ID/connected`` and ``…/disconnected``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.testing.mqtt.sessions import Client, Message

if TYPE_CHECKING:
    from airflow_provider_emqx.testing.state import State


def announcement(state: State, client: Client, why: str | None) -> Message:
    """Make the message as EMQX 5's ``emqx_sys`` or EMQX 4's ``emqx_mod_presence`` does.

    :param state: The broker.
    :param client: Who has come or gone.
    :param why: Why it has gone; ``None``: it has come.
    """
    generation_4 = state.generation == "v4"
    content: dict[str, Any] = {
        "clientid": client.clientid,
        "username": client.username if client.username is not None else "undefined",
        "ipaddress": client.ip_address,
        "sockport": 1883,
        "proto_name": "MQTT",
        "proto_ver": client.proto_ver,
        "ts": _milliseconds(state.now()),
    }
    if not generation_4:
        content |= {"protocol": "mqtt", "connected_at": _milliseconds(client.connected_at)}
    if why is not None:
        content |= {"reason": why, "disconnected_at": _milliseconds(client.disconnected_at or state.now())}
    else:
        content |= {
            "keepalive": client.keepalive,
            "clean_start": client.clean_start,
            "connected_at": _milliseconds(client.connected_at),
        }
        if generation_4:
            content["connack"] = 0
    event = "connected" if why is None else "disconnected"
    topic = f"$SYS/brokers/{client.node}/clients/{client.clientid}/{event}"
    return Message(
        topic,
        json.dumps(content).encode(),
        1 if generation_4 else 0,
        at=state.now(),
        from_clientid="emqx_sys",
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)

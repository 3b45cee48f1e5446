"""Which topics a client may publish and subscribe to, by the ACL rules of the built-in database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.testing.mqtt.sessions import Client
from airflow_provider_emqx.testing.mqtt.topics import matches

if TYPE_CHECKING:
    from airflow_provider_emqx.testing.state import State


def allowed(state: State, client: Client, action: str, topic: str, qos: int, retain: bool = False) -> bool:
    """Return whether a client may do something; the first rule that matches decides, without one the file does.

    :param state: The broker.
    :param client: Who wants to.
    :param action: ``publish`` or ``subscribe``.
    :param topic: Topic name, or topic filter without ``$share/group/``.
    :param qos: Quality of service.
    :param retain: Of a publish, whether it is to be retained.
    """
    user = state.users.get(state.user_id(client) or "")
    if user is not None and user.is_superuser:
        return True
    for rule in _rules(state, client):
        if (
            rule["action"] in (action, "all")
            and qos in rule.get("qos", (0, 1, 2))
            and (action == "subscribe" or rule.get("retain", "all") in ("all", retain))
            and _covers(rule["topic"], topic, client)
        ):
            return bool(rule["permission"] == "allow")
    return action == "publish" or _may_by_file(state, client, topic)


def _may_by_file(state: State, client: Client, topic: str) -> bool:
    """Return whether ``acl.conf`` lets a client subscribe, as it is delivered: it protects ``$SYS/#``."""
    if client.username == "dashboard" and matches(topic, "$SYS/#"):
        return True
    if client.ip_address == "127.0.0.1" and not state.at_least(6, 3):
        return True
    forbidden = {"#"} if not state.at_least(5, 8) else {"#", "+/#"}
    return topic not in forbidden and not matches(topic, "$SYS/#")


def _rules(state: State, client: Client) -> Iterator[Mapping[str, Any]]:
    """Yield rules in the order in which they count: of the client id, of the username, for all."""
    subjects = (("clientid", client.clientid), ("username", client.username or ""), ("all", "$all"))
    if state.generation == "v4":
        actions = {"pub": "publish", "sub": "subscribe"}
        for subject in subjects:
            for row in reversed(list(state.acl_rows.values())):
                if (row.subject, row.login) == subject:
                    yield {"topic": row.topic, "action": actions[row.action], "permission": row.access}
    elif state.authorization is not None and state.authorization["enable"]:
        yield from state.acl_clients.get(client.clientid, ())
        yield from state.acl_users.get(client.username or "", ())
        for_all = state.acl_namespaces.get(("", "all"))
        yield from for_all.get("all", ()) if for_all is not None else ()


def _covers(pattern: str, topic: str, client: Client) -> bool:
    if pattern.startswith("eq "):
        return pattern.removeprefix("eq ") == topic
    for place, value in {
        "${clientid}": client.clientid,
        "${username}": client.username or "",
        "%c": client.clientid,
        "%u": client.username or "",
    }.items():
        pattern = pattern.replace(place, value)
    return matches(topic, pattern)

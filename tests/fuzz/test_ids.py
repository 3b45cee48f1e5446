from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook

RULE = {"topic": "t", "permission": "allow"}
#: each hook method that takes text of the user's, with the text in its place
CALLS: dict[str, Callable[[EmqxHook, str], Any]] = {
    "get_client": lambda hook, text: hook.get_client(text),
    "kick_clients": lambda hook, text: hook.kick_clients([text]),
    "list_client_subscriptions": lambda hook, text: list(hook.list_client_subscriptions(text)),
    "subscribe": lambda hook, text: hook.subscribe("dev-1", text),
    "subscribe_whom": lambda hook, text: hook.subscribe(text, "a/b"),
    "unsubscribe": lambda hook, text: hook.unsubscribe("dev-1", text),
    "unsubscribe_whom": lambda hook, text: hook.unsubscribe(text, "a/b"),
    "get_authorization_cache": lambda hook, text: hook.get_authorization_cache(text),
    "clean_authorization_cache": lambda hook, text: hook.clean_authorization_cache(text),
    "set_keepalive": lambda hook, text: hook.set_keepalive(text, 60),
    "list_queued_messages": lambda hook, text: list(hook.list_queued_messages(text, "mqueue")),
    "list_clients": lambda hook, text: list(hook.list_clients(username=text)),
    "list_clients_like": lambda hook, text: list(hook.list_clients(clientid_pattern=text)),
    "list_subscriptions": lambda hook, text: list(hook.list_subscriptions(clientid=text)),
    "list_subscriptions_topic": lambda hook, text: list(hook.list_subscriptions(topic=text)),
    "publish_topic": lambda hook, text: hook.publish({"topic": text, "payload": "p"}),
    "publish_payload": lambda hook, text: hook.publish({"topic": "t", "payload": text}),
    "publish_many": lambda hook, text: hook.publish(
        [{"topic": "t", "payload": text}, {"topic": text, "payload": "p"}]
    ),
    "publish_property": lambda hook, text: hook.publish(
        {"topic": "t", "payload": "p", "properties": {"user_properties": {text: text}}}
    ),
    "get_topic_metrics": lambda hook, text: hook.get_topic_metrics(text),
    "register_topic_metrics": lambda hook, text: hook.register_topic_metrics(text),
    "reset_topic_metrics": lambda hook, text: hook.reset_topic_metrics(text),
    "unregister_topic_metrics": lambda hook, text: hook.unregister_topic_metrics(text),
    "list_retained": lambda hook, text: list(hook.list_retained(text)),
    "get_retained": lambda hook, text: hook.get_retained(text),
    "delete_retained": lambda hook, text: hook.delete_retained(text),
    "get_delayed": lambda hook, text: hook.get_delayed("n@h", text),
    "delete_delayed": lambda hook, text: hook.delete_delayed("n@h", text),
    "get_user": lambda hook, text: hook.get_user(text),
    "create_user": lambda hook, text: hook.create_user(text, "p"),
    "create_user_password": lambda hook, text: hook.create_user("u", text),
    "update_user": lambda hook, text: hook.update_user(text, "p"),
    "update_user_password": lambda hook, text: hook.update_user("u", text),
    "delete_user": lambda hook, text: hook.delete_user(text),
    "list_acl_rules": lambda hook, text: hook.list_acl_rules({"username": text}),
    "set_acl_rules": lambda hook, text: hook.set_acl_rules({"username": text}, [RULE]),
    "set_acl_rules_topic": lambda hook, text: hook.set_acl_rules(
        {"username": "u"}, [{**RULE, "topic": text}]
    ),
    "add_acl_rules_topic": lambda hook, text: hook.add_acl_rules("all", [{**RULE, "topic": text}]),
    "add_acl_rules": lambda hook, text: hook.add_acl_rules({"clientid": text}, [RULE]),
    "delete_acl_rules": lambda hook, text: hook.delete_acl_rules({"clientid": text}),
    "ban": lambda hook, text: hook.ban("clientid", text, "infinity"),
    "ban_reason": lambda hook, text: hook.ban("clientid", "c", "infinity", text),
    "ban_by": lambda hook, text: hook.ban("clientid", "c", "infinity", "r", text),
    "unban": lambda hook, text: hook.unban("username", text),
    "get_rule": lambda hook, text: hook.get_rule(text),
    "get_rule_metrics": lambda hook, text: hook.get_rule_metrics(text),
    "set_rule_enabled": lambda hook, text: hook.set_rule_enabled(text, True),
    "get_integration": lambda hook, text: hook.get_integration("action", text),
    "deactivate_alarm": lambda hook, text: hook.deactivate_alarm(text),
}
PIECES = ["a", "Z", "0", " ", "/", "//", "..", ".", "%", "%2e", "%00", "+", "#", "?", "&", "=", ";", ":", '"', "'",
          "\\", "\n", "\r\n", "\t", "\x00", "\x7f", "\x85", "\u2028", "\u202e", "\u200f", "\u0301", "e\u0301", "\u00e9",
          "\ufeff", "\uffff", "\ud800", "\udcff", "\U0001f600", "\U0010ffff", "$share/", "${x}", "eq ", "x" * 900,
          "\u4e2d" * 900]  # fmt: skip
LONG = ["x" * 70_000, "\u4e2d" * 30_000]


def texts(name: str) -> Iterator[str]:
    """Each piece alone and between letters, then any mixture."""
    chance = random.Random(name)
    yield ""
    yield from PIECES
    yield from LONG
    yield from (f"a{piece}b" for piece in PIECES)
    for _ in range(40):
        yield "".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 6)))


def told(request: Any) -> set[str]:
    """Every text that a request carries."""
    path, _, query = request.path.partition("?")
    found = {unquote(part, errors="strict") for part in path.split("/")}
    found |= {value for _, value in parse_qsl(query, keep_blank_values=True, errors="strict")}

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            walk([*value, *value.values()])
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(json.loads(request.body) if request.body else None)
    return found


@pytest.mark.parametrize("name", sorted(CALLS))
def test_any_text_arrives_byte_for_byte_or_is_refused_before_anything_is_sent(broker: Any, name: str) -> None:
    broker.connect("dev-1", username="alice")
    sent, offered = 0, True
    with EmqxHook() as hook:
        hook.broker  # noqa: B018  the look at the version comes first
        for text in texts(name):
            before = len(broker.requests)
            try:
                CALLS[name](hook, text)
                failure: EmqxError | None = None
            except EmqxError as error:
                failure = error
            requests = broker.requests[before:]
            if isinstance(failure, EmqxConfigError | EmqxUnsupportedError):
                assert not requests, (text[:50], failure, requests)
                offered = offered and not isinstance(failure, EmqxUnsupportedError)
                continue
            whole = [request for request in requests if text in told(request)]
            assert whole or not _writes(requests), (text[:50], failure, requests)
            sent += bool(whole)
    assert sent or not offered


def _writes(requests: list[Any]) -> list[Any]:
    return [request for request in requests if request.method != "GET"]

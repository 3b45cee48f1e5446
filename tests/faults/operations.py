"""
What the property test does with the hook, one function per method.

Each function calls one method of the hook through faults and holds what it said against what the broker has now.
:data:`OPERATIONS` maps methods to functions; a method of which no more is expected than an answer or a typed error is
in :data:`READS`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from airflow_provider_emqx import exceptions as errors
from tests.faults.world import Outcome, World

#: few of each, so that operations meet
IDS = ("dev-1", "dev/2 %#ü", "dev-3", "dev-4")
TOPICS = ("t/1", "t/a b/ü", "t/#?")


# ------------------------------------------------------------------------------------------------------------- clients


def clients(w: World) -> set[str]:
    return {client.clientid for client in w.fake.clients.values()}


def connect_some(w: World) -> None:
    for clientid in w.chance.sample(IDS, 2):
        if clientid not in clients(w):
            w.fake.connect(clientid)


def list_clients(w: World) -> None:
    connect_some(w)
    outcome = w.call("list_clients", lambda: list(w.hook.list_clients()))
    if outcome.done:
        assert {row["clientid"] for row in outcome.value} == clients(w), w.told(outcome)


def get_client(w: World) -> None:
    connect_some(w)
    clientid = w.pick(*IDS)
    outcome = w.call(f"get_client {clientid}", lambda: w.hook.get_client(clientid))
    if outcome.done:
        assert (outcome.value is not None) == (clientid in clients(w)), w.told(outcome)
        assert outcome.value is None or outcome.value["clientid"] == clientid, w.told(outcome)


def kick_in_parts(w: World) -> None:
    connect_some(w)
    ids, before = w.chance.sample(IDS, 2), clients(w)
    outcome = w.call(f"kick_in_parts {ids}", lambda: list(w.hook.kick_in_parts(ids)))
    assert before - set(ids) <= clients(w) <= before, w.told(outcome)
    if outcome.done:
        assert not clients(w) & set(ids), w.told(outcome)


def kick_clients(w: World) -> None:
    connect_some(w)
    ids, before = w.chance.sample(IDS, 2), clients(w)
    outcome = w.call(f"kick_clients {ids}", lambda: w.hook.kick_clients(ids))
    if outcome.done:
        assert clients(w) == before - set(ids), w.told(outcome)
        assert set(outcome.value["kicked"]) <= before, w.told(outcome)
        assert set(outcome.value["kicked"]) | set(outcome.value["absent"]) == set(ids), w.told(outcome)
    else:
        assert before - set(ids) <= clients(w) <= before, w.told(outcome)


def topics_of(w: World, clientid: str) -> set[str]:
    return {topic for owner, topic in _subscriptions(w) if owner == clientid}


def _subscriptions(w: World) -> set[tuple[str, str]]:
    client_table = w.fake.clients
    return {
        (client.clientid, name) for client in client_table.values() for name in list(client.subscriptions)
    }


def subscribe(w: World) -> None:
    connect_some(w)
    clientid, topic = w.pick(*IDS), w.pick("s/1", "s/2")
    before = topics_of(w, clientid)
    outcome = w.call(f"subscribe {clientid}", lambda: w.hook.subscribe(clientid, topic))
    there = clientid in clients(w)
    w.changed(outcome, topics_of(w, clientid), before, before | {topic} if there else before)


def unsubscribe(w: World) -> None:
    connect_some(w)
    clientid, topic = w.pick(*IDS), w.pick("s/1", "s/2")
    before = topics_of(w, clientid)
    outcome = w.call(f"unsubscribe {clientid}", lambda: w.hook.unsubscribe(clientid, topic))
    w.changed(outcome, topics_of(w, clientid), before, before - {topic})


def list_client_subscriptions(w: World) -> None:
    connect_some(w)
    clientid = w.pick(*IDS)
    outcome = w.call("list_client_subscriptions", lambda: list(w.hook.list_client_subscriptions(clientid)))
    if outcome.done:
        assert {row["topic"] for row in outcome.value} == topics_of(w, clientid), w.told(outcome)


def list_subscriptions(w: World) -> None:
    connect_some(w)
    outcome = w.call("list_subscriptions", lambda: list(w.hook.list_subscriptions()))
    if outcome.done:
        found = {(row["clientid"], row["topic"]) for row in outcome.value}
        assert found == _subscriptions(w), w.told(outcome)


# -------------------------------------------------------------------------------------------------------------- topics


def publish(w: World) -> None:
    """A message is counted at the device: never twice, and never there when said not to be."""
    if "listener" not in clients(w):
        w.fake.connect("listener")
        w.fake.subscribe("listener", "p/#")
    messages = [{"topic": "p/1", "payload": w.fresh("m")} for _ in range(w.pick(1, 1, 2, 5))]
    outcome = w.call(f"publish {len(messages)}", lambda: w.hook.publish(messages))
    _arrived(w, outcome, messages)


def publish_in_parts(w: World) -> None:
    if "listener" not in clients(w):
        w.fake.connect("listener")
        w.fake.subscribe("listener", "p/#")
    messages = [{"topic": "p/1", "payload": w.fresh("m")} for _ in range(w.pick(1, 1, 2, 5))]
    outcome = w.call(
        f"publish_in_parts {len(messages)}", lambda: list(chain(*w.hook.publish_in_parts(messages)))
    )
    _arrived(w, outcome, messages)


def _arrived(w: World, outcome: Outcome, messages: list[dict[str, str]]) -> None:
    inbox = [message.payload.decode() for message in w.fake.received("listener")]
    counts = [inbox.count(message["payload"]) for message in messages]
    assert max(counts) <= 1, w.told(outcome)
    with w.fake.state.lock:
        w.fake.state.mqtt.inboxes.pop("listener", None)
    if outcome.done:
        for count, result in zip(counts, outcome.value, strict=True):
            if result["status"] != "unknown":
                assert count == (result["status"] in ("delivered", "accepted")), w.told(outcome)
    elif not isinstance(outcome.error, errors.EmqxOutcomeUnknownError):
        assert sum(counts) == 0, w.told(outcome)


def retained(w: World) -> dict[str, bytes]:
    return {topic: message.payload for topic, message in w.fake.retained.items()}


def get_retained(w: World) -> None:
    topic = w.pick(*TOPICS[:2])
    w.fake.publish(topic, w.fresh("r"), retain=True)
    outcome = w.call("get_retained", lambda: w.hook.get_retained(w.pick(topic, "t/none")))
    assert not (w.v4 and outcome.done), w.told(outcome)


def delete_retained(w: World) -> None:
    topic = w.pick("t/1", "t/a b/ü", "t/2")
    if w.pick(True, False):
        w.fake.publish(topic, w.fresh("r"), retain=True)
    before = retained(w)
    after = {name: payload for name, payload in before.items() if name != topic}
    outcome = w.call(f"delete_retained {topic}", lambda: w.hook.delete_retained(topic))
    w.changed(outcome, retained(w), before, after)
    if outcome.value is False:
        assert topic not in before, w.told(outcome)


def measured(w: World) -> set[str]:
    return set(w.fake.state.mqtt.topic_metrics)


def register_topic_metrics(w: World) -> None:
    topic, before = w.pick("m/1", "m/2", "m/3"), measured(w)
    outcome = w.call("register_topic_metrics", lambda: w.hook.register_topic_metrics(topic))
    if w.v4 and outcome.error:
        # EMQX 4 does not say whether it did it, so that a second exchange looks
        assert measured(w) in (before, before | {topic}), w.told(outcome)
    else:
        w.changed(outcome, measured(w), before, before | {topic})
    if outcome.value is False:
        assert topic in before, w.told(outcome)


def unregister_topic_metrics(w: World) -> None:
    topic, before = w.pick("m/1", "m/2", "m/3"), measured(w)
    outcome = w.call("unregister_topic_metrics", lambda: w.hook.unregister_topic_metrics(topic))
    w.changed(outcome, measured(w), before, before - {topic})
    if outcome.value is False:
        assert topic not in before, w.told(outcome)


def reset_topic_metrics(w: World) -> None:
    topic, before = w.pick("m/1", "m/2", "m/3"), measured(w)
    outcome = w.call("reset_topic_metrics", lambda: w.hook.reset_topic_metrics(topic))
    if outcome.done or not w.v4:
        assert measured(w) == before, w.told(outcome)
    else:
        # two exchanges: unregistered and not registered again
        assert before - {topic} <= measured(w) <= before, w.told(outcome)


# ---------------------------------------------------------------------------------------------------------------- auth


def users(w: World) -> dict[str, str]:
    return {user_id: user.password for user_id, user in w.fake.users.items()}


def list_users(w: World) -> None:
    outcome = w.call("list_users", lambda: list(w.hook.list_users()))
    if outcome.done:
        assert sorted(row["user_id"] for row in outcome.value) == sorted(users(w)), w.told(outcome)


def get_user(w: World) -> None:
    user = w.pick(*IDS)
    outcome = w.call(f"get_user {user}", lambda: w.hook.get_user(user))
    if outcome.done:
        assert (outcome.value is not None) == (user in users(w)), w.told(outcome)


def create_user(w: World) -> None:
    user, password, before = w.pick(*IDS), w.fresh("p"), users(w)
    after = before if user in before else {**before, user: password}
    outcome = w.call(f"create_user {user}", lambda: w.hook.create_user(user, password))
    w.changed(outcome, users(w), before, after)
    assert not outcome.done or user not in before, w.told(outcome)
    if isinstance(outcome.error, errors.EmqxAlreadyExistsError) and not outcome.error.maybe_applied:
        assert user in before, w.told(outcome)


def update_user(w: World) -> None:
    user, password, before = w.pick(*IDS), w.fresh("p"), users(w)
    after = {**before, user: password} if user in before else before
    outcome = w.call(f"update_user {user}", lambda: w.hook.update_user(user, password))
    w.changed(outcome, users(w), before, after)
    assert not outcome.done or user in before, w.told(outcome)


def delete_user(w: World) -> None:
    user, before = w.pick(*IDS), users(w)
    after = {name: password for name, password in before.items() if name != user}
    outcome = w.call(f"delete_user {user}", lambda: w.hook.delete_user(user))
    w.changed(outcome, users(w), before, after)
    # a lost first answer leaves open whether it was there: then True may be said of what was absent
    if outcome.value is False:
        assert user not in before, w.told(outcome)


def provision_users(w: World) -> None:
    """Rows are written, deleted or told not to be; what was being sent when the broker failed is open."""
    mode = w.pick("upsert", "create", "delete")
    ids = w.chance.sample([*IDS, "dev-5", "dev-6", "dev-7"], 4)
    rows = [{"user_id": user, "password": w.fresh("p")} for user in ids]
    before, told = users(w), {}
    if mode == "delete":
        rows = [{"user_id": user} for user in ids]

    def run() -> None:
        for outcome in w.hook.provision_users(rows, mode):
            told[outcome.user_id] = outcome.outcome

    outcome = w.call(f"provision_users {mode} {ids}", run)
    now = users(w)
    for user in {*before, *now} - set(ids):
        assert now.get(user) == before.get(user), w.told(outcome)
    for row in rows:
        user = row["user_id"]
        state, old, new = now.get(user), before.get(user), row.get("password")
        said = told.get(user)
        if said in ("written", "deleted"):
            assert state == new, (said, user, w.told(outcome))
        elif said in ("skipped", "rejected") and not outcome.error:
            assert state in (old, new), (said, user, w.told(outcome))
        else:
            assert state in (old, new), (said, user, w.told(outcome))
    assert outcome.error or set(told) == set(ids), w.told(outcome)


def rules_of(w: World, user: str) -> list[str]:
    """The topics of a user's rules, in the order of the broker's listing."""
    if w.v4:
        found = [row for row in w.fake.state.acl_rows if getattr(row, "login", None) == ("username", user)]
        return sorted(str(row) for row in found)
    return [str(rule) for rule in w.fake.state.acl_users.get(user, [])]


def list_acl_rules(w: World) -> None:
    w.call("list_acl_rules", lambda: w.hook.list_acl_rules({"username": w.pick(*IDS)}))


def set_acl_rules(w: World) -> None:
    user = w.pick(*IDS)
    wanted = [{"topic": topic, "permission": "allow"} for topic in w.chance.sample(["a/1", "a/2", "a/3"], 2)]
    outcome = w.call(f"set_acl_rules {user}", lambda: w.hook.set_acl_rules({"username": user}, wanted))
    if outcome.done:
        w.proxy.order()
        found = [rule["topic"] for rule in w.hook.list_acl_rules({"username": user})]
        assert found == [rule["topic"] for rule in wanted], (found, w.told(outcome))


def add_acl_rules(w: World) -> None:
    user, rule = w.pick(*IDS), {"topic": w.pick("a/1", "a/4"), "permission": "deny"}
    outcome = w.call(f"add_acl_rules {user}", lambda: w.hook.add_acl_rules({"username": user}, [rule]))
    if outcome.done:
        w.proxy.order()
        found = w.hook.list_acl_rules({"username": user})
        assert (found[0]["topic"], found[0]["permission"]) == (rule["topic"], "deny"), w.told(outcome)
        assert len({(row["topic"], row["action"], row["permission"]) for row in found}) == len(found)


def delete_acl_rules(w: World) -> None:
    user = w.pick(*IDS)
    w.proxy.order()
    before = w.hook.list_acl_rules({"username": user})
    outcome = w.call(f"delete_acl_rules {user}", lambda: w.hook.delete_acl_rules({"username": user}))
    if outcome.done:
        assert w.hook.list_acl_rules({"username": user}) == [], w.told(outcome)
        assert outcome.value is not False or not before, w.told(outcome)


def bans(w: World) -> dict[Any, str]:
    return {key: ban.reason for key, ban in w.fake.bans.items()}


def ban(w: World) -> None:
    who, reason, before = w.pick("dev-1", "dev-9"), w.fresh("why"), bans(w)
    outcome = w.call(f"ban {who}", lambda: w.hook.ban("clientid", who, "2099-01-01T00:00:00Z", reason))
    now = bans(w)
    if outcome.done:
        assert now == {**before, ("clientid", who): reason}, w.told(outcome)
    else:
        # to change a ban takes two exchanges
        old = {key: value for key, value in before.items() if key != ("clientid", who)}
        assert now in (before, old, {**before, ("clientid", who): reason}), w.told(outcome)


def unban(w: World) -> None:
    who, before = w.pick("dev-1", "dev-9"), bans(w)
    after = {key: reason for key, reason in before.items() if key != ("clientid", who)}
    outcome = w.call(f"unban {who}", lambda: w.hook.unban("clientid", who))
    w.changed(outcome, bans(w), before, after)
    if outcome.value is False:
        assert ("clientid", who) not in before, w.told(outcome)


def list_bans(w: World) -> None:
    outcome = w.call("list_bans", lambda: list(w.hook.list_bans()))
    if outcome.done:
        assert {(row["as"], row["who"]) for row in outcome.value} == set(bans(w)), w.told(outcome)


def clear_bans(w: World) -> None:
    before = bans(w)
    outcome = w.call("clear_bans", w.hook.clear_bans)
    assert not outcome.done or bans(w) == {}, w.told(outcome)
    assert set(bans(w)) <= set(before), w.told(outcome)


# ------------------------------------------------------------------------------------------------------------- cluster


def list_nodes(w: World) -> None:
    outcome = w.call("list_nodes", lambda: list(w.hook.list_nodes()))
    if outcome.done:
        assert [row["node"] for row in outcome.value] == list(w.fake.state.nodes), w.told(outcome)


def request(w: World) -> None:
    """A POST of unknown meaning is at most once."""
    if "listener" not in clients(w):
        w.fake.connect("listener")
        w.fake.subscribe("listener", "p/#")
    message = {"topic": "p/1", "payload": w.fresh("m"), "qos": 0, "retain": False, "clientid": "x"}
    path = "/mqtt/publish" if w.v4 else "/publish"
    outcome = w.call("request", lambda: w.hook.request("POST", path, json=message))
    inbox = [found.payload.decode() for found in w.fake.received("listener")]
    with w.fake.state.lock:
        w.fake.state.mqtt.inboxes.pop("listener", None)
    count = inbox.count(message["payload"])
    assert count <= 1, w.told(outcome)
    if outcome.error and not isinstance(outcome.error, errors.EmqxOutcomeUnknownError):
        assert count == 0, w.told(outcome)


def test_connection(w: World) -> None:
    outcome = w.call("test_connection", w.hook.test_connection)
    assert outcome.done, w.told(outcome)


test_connection.__test__ = False  # type: ignore[attr-defined]


def read(name: str, *arguments: Any) -> Callable[[World], None]:
    """A method of which only a correct kind of answer or a typed error is expected."""

    def run(w: World) -> None:
        def call() -> Any:
            found = getattr(w.hook, name)(*arguments)
            return list(found) if hasattr(found, "__next__") else found

        outcome = w.call(name, call)
        assert not outcome.done or isinstance(outcome.value, (list, dict, str, int, type(None))), w.told(
            outcome
        )

    return run


#: methods that read, with their arguments
READS: dict[str, tuple[Any, ...]] = {
    "count_sessions": (),
    "get_authenticator": (),
    "get_authorization_cache": ("dev-1",),
    "get_cluster": (),
    "get_license": (),
    "get_metrics": (),
    "get_rates": (),
    "get_rebalance_status": (),
    "get_rule": ("no-rule",),
    "get_rule_metrics": ("no-rule",),
    "get_stats": (),
    "get_topic_metrics": ("m/1",),
    "list_acl_subjects": ("username",),
    "list_actions": (),
    "list_alarms": (),
    "list_authenticators": (),
    "list_backups": (),
    "list_connectors": (),
    "list_delayed": (),
    "list_listeners": (),
    "list_metrics": (),
    "list_queued_messages": ("dev-1",),
    "list_retained": (),
    "list_rules": (),
    "list_sources": (),
    "list_stats": (),
    "list_topic_metrics": (),
    "list_topics": (),
    "clean_authorization_cache": ("dev-1",),
    "set_keepalive": ("dev-1", 60),
    "clear_alarms": (),
    "deactivate_alarm": ("no-alarm",),
    "delete_delayed": ("emqx@127.0.0.1", "0006"),
    "get_delayed": ("emqx@127.0.0.1", "0006"),
    "reset_rule_metrics": ("no-rule",),
    "set_rule_enabled": ("no-rule", True),
    "get_integration": ("actions", "http:none"),
    "set_integration_enabled": ("actions", "http:none", True),
    "restart_integration": ("actions", "http:none"),
    "restart_listener": ("tcp:default",),
    "export_backup": (),
    "delete_backup": ("none.tar.gz",),
    "download_backup": ("none.tar.gz",),
    "import_backup": ("none.tar.gz",),
    "upload_backup": ("none.tar.gz", b"x"),
    "start_evacuation": ("emqx@127.0.0.1",),
    "stop_evacuation": ("emqx@127.0.0.1",),
    "start_rebalance": ("emqx@127.0.0.1",),
    "stop_rebalance": ("emqx@127.0.0.1",),
}

OPERATIONS: dict[str, Callable[[World], None]] = {
    **{name: read(name, *arguments) for name, arguments in READS.items()},
    **{
        function.__name__: function
        for function in (
            list_clients, get_client, kick_clients, kick_in_parts, subscribe, unsubscribe, list_client_subscriptions,
            list_subscriptions, publish, publish_in_parts, get_retained, delete_retained, register_topic_metrics,
            unregister_topic_metrics, reset_topic_metrics, list_users, get_user, create_user, update_user, delete_user,
            provision_users, list_acl_rules, set_acl_rules, add_acl_rules, delete_acl_rules, ban, unban, list_bans,
            clear_bans, list_nodes, request, test_connection,
        )
    },
}  # fmt: skip

#: methods of the hook that ask the broker nothing by themselves
NO_OPERATIONS = frozenset(
    {"close", "get_conn", "run", "rows", "settled_rows", "run_many", "run_each", "run_all", "stop",
     "async_client", "async_settings", "get_connection",
     "aget_connection", "get_connections", "get_hook", "aget_hook", "get_connection_form_widgets",
     "get_ui_field_behaviour", "mqtt", "arun", "arows", "aclose"}
)  # fmt: skip

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_emqx.api import area
from airflow_provider_emqx.exceptions import (
    EmqxAuthError,
    EmqxConfigError,
    EmqxError,
    EmqxForbiddenError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.operators.auth import EmqxBanOperator, EmqxUnbanOperator
from airflow_provider_emqx.operators.clients import (
    EmqxKickClientsOperator,
    EmqxListClientsOperator,
    EmqxSubscribeOperator,
    EmqxUnsubscribeOperator,
)
from airflow_provider_emqx.operators.cluster import EmqxSetRuleStateOperator
from airflow_provider_emqx.operators.topics import (
    EmqxClearRetainedOperator,
    EmqxListSubscriptionsOperator,
    EmqxTopicMetricsOperator,
)
from tests.operators.run import TI, execute, sent

V4, V5 = "4.4.19", "5.8.9"


# listings


def test_a_listing_is_cut_in_the_result_and_complete_in_the_file(broker: Any, tmp_path: Any) -> None:
    broker.connect_many([f"pump-{i}" for i in range(1_005)])
    broker.connect("lamp")
    path = tmp_path / "clients.jsonl"
    result = execute(
        EmqxListClientsOperator,
        filters={"clientid_pattern": "pump*", "conn_state": "connected"},
        fields=["connected"],
        output_path=str(path),
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert (result["count"], len(result["rows"]), len(rows)) == (1_005, 1_000, 1_005)
    assert {row["clientid"] for row in rows} == {f"pump-{i}" for i in range(1_005)}
    assert rows[0].keys() == {"clientid", "connected"}


def test_a_listing_that_fails_leaves_the_file_of_the_last_one(
    broker: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(area, "_LONGEST", 100)
    path = tmp_path / "clients.jsonl"
    path.write_text("of yesterday")
    broker.connect_many([f"pump-{i}" for i in range(250)])
    broker.order_fault("status", status=401, match="page=2", times=9)
    with pytest.raises(EmqxAuthError):
        execute(EmqxListClientsOperator, output_path=str(path))
    assert path.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_subscriptions_are_listed_by_who_receives_a_topic(broker: Any) -> None:
    for clientid, topic in (("a", "cmd/#"), ("b", "cmd/+/x"), ("c", "$share/g/cmd/1/x"), ("d", "other")):
        broker.connect(clientid)
        broker.subscribe(clientid, topic)
    result = execute(EmqxListSubscriptionsOperator, filters={"receiving": "cmd/1/x"})
    assert sorted(row["clientid"] for row in result["rows"]) == ["a", "b", "c"]


# subscribe


def test_topics_that_cannot_be_right_are_final_and_nothing_is_sent(broker: Any) -> None:
    broker.connect("a")
    before = len(sent(broker))
    with pytest.raises(EmqxConfigError):
        execute(EmqxSubscribeOperator, clientids=["a", "b"], topics=[])
    assert len(sent(broker)) == before


def test_subscriptions_are_made_and_ended_for_clients(broker: Any) -> None:
    for clientid in ("a", "b"):
        broker.connect(clientid)
    made = execute(EmqxSubscribeOperator, clientids=["a", "b"], topics=["t/#", {"topic": "u", "qos": 2}])
    assert sorted((row["clientid"], row["topic"]) for row in made["subscribed"]) == [
        ("a", "t/#"),
        ("a", "u"),
        ("b", "t/#"),
        ("b", "u"),
    ]
    assert sorted(broker.clients["b"].subscriptions) == ["t/#", "u"]
    ended = execute(EmqxUnsubscribeOperator, clientids='["a"]', topics="t/#")
    assert ended["unsubscribed"] == [{"clientid": "a", "topic": "t/#"}]
    assert sorted(broker.clients["a"].subscriptions) == ["u"]


def test_a_client_that_is_not_there_does_not_keep_the_others_from_subscribing(broker: Any) -> None:
    broker.connect("a")
    ti = TI()
    with pytest.raises(EmqxError, match="subscribe failed 1 times, first for ghost: "):
        execute(EmqxSubscribeOperator, ti, clientids=["ghost", "a"], topics="t")
    told = ti.pushed["return_value"]
    assert (told["subscribed"], told["failed"]) == (
        [{"clientid": "a", "topic": "t"}],
        [{"clientid": "ghost"}],
    )
    assert sorted(broker.clients["a"].subscriptions) == ["t"]


@pytest.mark.parametrize(
    "topics",
    ["a/#/b", "a+/b", "", "\x00", {"topic": "a", "qos": 3}, {"topic": "a", "colour": 1}, [], "$share//a", 7],
)
def test_a_broken_subscription_is_refused_before_anything_is_sent(broker: Any, topics: Any) -> None:
    broker.connect("a")
    with pytest.raises((EmqxConfigError, EmqxError)):
        execute(EmqxSubscribeOperator, clientids="a", topics=topics)
    assert sent(broker) == []


# retained


@pytest.fixture
def retained(broker: Any) -> Any:
    """Four retained messages, two of which are an hour old."""
    broker.advance(-3_600)
    for topic in ("state/old/1", "state/old/2"):
        broker.publish(topic, b"x", retain=True)
    broker.advance(3_600)
    for topic in ("state/new", "other"):
        broker.publish(topic, b"x", retain=True)
    return broker


@pytest.mark.parametrize("version", [V5])
def test_retained_messages_are_deleted_by_filter_and_age(retained: Any) -> None:
    result = execute(
        EmqxClearRetainedOperator,
        topic_filter="state/#",
        older_than=timedelta(minutes=30),
        exclude="*/2",
        max_affected="50%",
    )
    assert (result["deleted"], result["excluded"]) == (["state/old/1"], 1)
    assert sorted(retained.retained) == ["other", "state/new", "state/old/2"]


@pytest.mark.parametrize("version", [V5])
def test_a_dry_run_and_a_limit_keep_retained_messages(retained: Any) -> None:
    result = execute(EmqxClearRetainedOperator, topic_filter="state/+", dry_run=True)
    assert result["deleted"] == ["state/new"]
    with pytest.raises(EmqxConfigError, match="max_affected"):
        execute(EmqxClearRetainedOperator, topic_filter="state/#", max_affected=2)
    assert sent(retained) == []
    assert len(retained.retained) == 4


@pytest.mark.parametrize("version", [V5, V4, "serverless"])
def test_retained_messages_of_named_topics_are_deleted_on_every_broker(retained: Any) -> None:
    result = execute(EmqxClearRetainedOperator, topics=["state/old/1", "nothing/here"])
    assert result["deleted"] == (
        ["state/old/1"] if retained.version == V5 else ["state/old/1", "nothing/here"]
    )
    assert sorted(retained.retained) == ["other", "state/new", "state/old/2"]


@pytest.mark.parametrize("version", [V5])
def test_what_was_deleted_beside_a_failure_is_in_the_report(retained: Any, tmp_path: Any) -> None:
    report = tmp_path / "report.jsonl"
    retained.order_fault(
        "status", status=403, body="{}", match="DELETE /api/v5/mqtt/retainer/message/state%2Fold%2F1"
    )
    with pytest.raises(EmqxForbiddenError):
        execute(EmqxClearRetainedOperator, topic_filter="state/#", report_path=report)
    assert sorted(retained.retained) == ["other", "state/old/1"]
    told = {row["topic"]: row["outcome"] for row in map(json.loads, report.read_text().splitlines())}
    assert told == {"state/new": "deleted", "state/old/2": "deleted", "state/old/1": "failed"}


@pytest.mark.parametrize("version", [V4, "serverless"])
def test_a_filter_is_refused_where_retained_messages_cannot_be_listed(retained: Any) -> None:
    with pytest.raises(EmqxUnsupportedError, match="topics explicitly"):
        execute(EmqxClearRetainedOperator, topic_filter="state/#")
    assert len(retained.retained) == 4


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"topics": ["a"], "topic_filter": "b"},
        {"topics": ["a/#"]},
        {"topics": ["ok", ""]},
        {"topics": ["a"], "older_than": 5},
        {"topic_filter": "a/#/b"},
        {"topic_filter": "a", "older_than": "yesterday"},
        {"topic_filter": "a", "max_affected": "many"},
        {"topic_filter": ""},
        {"topic_filter": "#", "older_than": ""},
        {"topic_filter": "#", "max_affected": ""},
    ],
)
def test_a_wildcard_or_a_broken_argument_deletes_nothing(retained: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises((EmqxConfigError, EmqxUnsupportedError)):
        execute(EmqxClearRetainedOperator, **arguments)
    assert sent(retained) == []
    assert len(retained.retained) == 4


# topic metrics


def test_topics_are_measured_read_reset_and_let_go(broker: Any) -> None:
    act = lambda action, topics: execute(EmqxTopicMetricsOperator, action=action, topics=topics)  # noqa: E731
    assert act("register", ["t/1", "t/2"]) == {"topics": {"t/1": True, "t/2": True}, "metrics": {}}
    assert act("register", "t/1")["topics"] == {"t/1": False}
    broker.publish("t/1", b"x")
    assert act("read", None)["metrics"]["t/1"]["messages.in.count"] == 1
    assert act("read", ["t/2", "t/9"])["metrics"]["t/9"] is None
    assert act("reset", "t/1")["topics"] == {"t/1": True}
    assert act("read", "t/1")["metrics"]["t/1"]["messages.in.count"] == 0
    with pytest.raises(EmqxNotFoundError):
        act("reset", "t/9")
    assert act("unregister", "t/1")["topics"] == {"t/1": None if broker.version == V4 else True}
    assert list(act("read", None)["metrics"]) == ["t/2"]


@pytest.mark.parametrize(
    "arguments", [{"action": "register"}, {"action": "fly"}, {"action": "register", "topics": "a/#"}]
)
def test_a_wildcard_cannot_be_measured(broker: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError):
        execute(EmqxTopicMetricsOperator, **arguments)
    assert broker.requests == []


def test_the_broker_s_limit_of_measured_topics_is_told(broker: Any) -> None:
    execute(EmqxTopicMetricsOperator, action="register", topics=[f"t/{i}" for i in range(512)])
    with pytest.raises(EmqxError, match="512"):
        execute(EmqxTopicMetricsOperator, action="register", topics="one/too/many")


def test_a_broker_without_the_module_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_emqx.testing import FakeEmqx

    with FakeEmqx(version=V4, modules=False) as broker:
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection()))
        with pytest.raises(EmqxUnsupportedError, match="module"):
            execute(EmqxTopicMetricsOperator)


# bans


def test_a_banned_client_is_kicked_and_stays_out(broker: Any) -> None:
    broker.connect("mallory", username="m", reconnects=True)
    result = execute(EmqxBanOperator, who="mallory", duration=3_600, reason="flood", kick=True)
    assert result["kicked"] == ["mallory"]
    (ban,) = broker.bans.values()
    assert (ban.kind, ban.who, ban.reason, ban.by) == ("clientid", "mallory", "flood", "airflow")
    assert 3_500 < ban.until - ban.at <= 3_601
    assert "mallory" not in broker.clients


def test_a_ban_of_a_client_id_ends_its_session_and_of_a_username_does_not(broker: Any) -> None:
    broker.connect("d1", username="u1")
    broker.connect("d2", username="u2", session_expiry=3_600)
    broker.connect("d3", username="u3")
    assert execute(EmqxBanOperator, kind="username", who="u1", duration=60)["kicked"] == []
    assert execute(EmqxBanOperator, who=["d2", "ghost"], duration=60)["kicked"] == []
    assert sorted(broker.clients) == ["d1", "d3"]
    assert execute(EmqxBanOperator, kind="username", who="u1", duration=60, kick=True)["kicked"] == ["d1"]
    assert execute(EmqxBanOperator, who=["d3", "ghost"], duration=60, kick=True)["kicked"] == ["d3"]
    assert not broker.clients


def test_a_ban_lasts_as_long_as_is_said_and_is_changed_by_banning_again(broker: Any) -> None:
    execute(EmqxBanOperator, kind="username", who=["alice", "bob"], until="infinity")
    result = execute(
        EmqxBanOperator, kind="username", who="bob", until="2099-01-01T00:00:00+00:00", reason="new"
    )
    assert result["banned"][0]["until"] == "2099-01-01T00:00:00+00:00"
    assert broker.bans["username", "bob"].reason == "new"
    forever = broker.bans["username", "alice"].until
    assert forever is None or forever > datetime(2099, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"who": "a"}, "until or duration"),
        ({"who": "a", "until": "infinity", "duration": 5}, "until or duration"),
        ({"who": "a", "until": "2001-01-01T00:00:00Z"}, "past"),
        ({"who": "a", "until": "2099-01-01 00:00:00"}, "offset"),
        ({"who": "a", "until": "tomorrow"}, "offset"),
        ({"who": "a", "duration": -5}, "above 0"),
        ({"who": "a", "duration": 5, "kind": "planet"}, "kind"),
        ({"who": "10.0.0.300", "duration": 5, "kind": "peerhost"}, "not a valid IP address"),
        ({"who": "10.0.0.0/99", "duration": 5, "kind": "peerhost_net"}, "not a valid network"),
        ({"who": ["a", ".."], "duration": 5}, "cannot be used"),
        ({"who": ["a", ""], "duration": 5}, "cannot be used"),
        ({"who": "10.0.0.1", "duration": 5, "kind": "peerhost", "kick": True}, "kick goes with"),
    ],
)
def test_a_ban_that_cannot_be_right_is_refused_before_anything_is_sent(
    broker: Any, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(EmqxConfigError, match=said):
        execute(EmqxBanOperator, **arguments)
    assert sent(broker) == []


@pytest.mark.parametrize("kind", ["clientid_re", "peerhost_net"])
def test_bans_by_pattern_need_a_broker_that_has_them(broker: Any, kind: str) -> None:
    who = "^bad-.*" if kind == "clientid_re" else "10.2.0.0/16"
    if broker.version == V4:
        with pytest.raises(EmqxUnsupportedError, match=r"needs EMQX 5\.6"):
            execute(EmqxBanOperator, kind=kind, who=who, duration=60)
        assert sent(broker) == []
    else:
        execute(EmqxBanOperator, kind=kind, who=who, duration=60)
        assert list(broker.bans) == [(kind, who)]


@pytest.fixture
def banned(broker: Any) -> Any:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    with EmqxHook() as hook:
        hook.ban("clientid", "a", "infinity", "spam", "ops")
        hook.ban("clientid", "b", "infinity", "spam", "ops")
        hook.ban("username", "a", "infinity", "flood", "bot")
        hook.ban("peerhost", "10.0.0.1", "infinity", "spam", "bot")
    return broker


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"kind": "clientid", "who": "a"}, 3),
        ({"kind": "clientid"}, 2),
        ({"reason": "spam"}, 1),
        ({"by": "bot"}, 2),
        ({"reason": "spam", "by": "bot"}, 3),
        ({"reason": "spam", "exclude": ["10.*", "b"]}, 3),
        ({"older_than": 3_600}, 4),
        ({"reason": "spam", "dry_run": True}, 4),
        ({"kind": "clientid", "who": "nobody"}, 4),
        ({"kind": "clientid", "who": []}, 4),
        ({"kind": "clientid", "who": "[]"}, 4),
    ],
)
def test_bans_end_by_name_or_filter(banned: Any, arguments: dict[str, Any], left: int) -> None:
    result = execute(EmqxUnbanOperator, **arguments)
    assert len(banned.bans) == left
    if not arguments.get("dry_run"):
        assert len(result["unbanned"]) == 4 - left


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"who": "a"},
        {"kind": "planet", "who": "a"},
        {"reason": "spam", "max_affected": "25%"},
        {"kind": "clientid", "reason": ""},
        {"kind": "clientid", "who": ""},
        {"kind": "clientid", "older_than": ""},
        {"kind": "clientid", "max_affected": ""},
    ],
)
def test_no_ban_ends_by_mistake(banned: Any, arguments: dict[str, Any]) -> None:
    before = len(sent(banned))
    with pytest.raises(EmqxConfigError):
        execute(EmqxUnbanOperator, **arguments)
    assert len(banned.bans) == 4
    assert len(sent(banned)) == before


@pytest.mark.parametrize(
    ("operator", "name", "others"),
    [
        (EmqxKickClientsOperator, "clientids", {}),
        (EmqxSubscribeOperator, "clientids", {"topics": "a"}),
        (EmqxSubscribeOperator, "topics", {"clientids": "d"}),
        (EmqxUnsubscribeOperator, "clientids", {"topics": "a"}),
        (EmqxUnsubscribeOperator, "topics", {"clientids": "d"}),
        (EmqxClearRetainedOperator, "topics", {}),
        (EmqxTopicMetricsOperator, "topics", {"action": "unregister"}),
        (EmqxBanOperator, "who", {"duration": 60}),
        (EmqxUnbanOperator, "who", {"kind": "clientid"}),
        (EmqxSetRuleStateOperator, "names", {}),
    ],
)
def test_a_template_without_a_value_does_not_end_well_with_nothing_done(
    broker: Any, operator: type, name: str, others: dict[str, Any]
) -> None:
    broker.connect("d")
    with pytest.raises(EmqxConfigError, match=f"{name} has no value"):
        execute(operator, **{name: ""}, **others)
    assert sent(broker) == []


@pytest.mark.parametrize("guard", ["exclude", "max_affected", "dry_run"])
def test_a_template_without_a_value_takes_no_guard_away(broker: Any, guard: str) -> None:
    broker.connect("d")
    execute(EmqxBanOperator, kind="username", who="u", until="infinity")
    broker.requests.clear()
    arguments: dict[str, Any] = {guard: ""}
    for call in (
        lambda: execute(EmqxKickClientsOperator, filters={"clientid_pattern": "d*"}, **arguments),
        lambda: execute(EmqxUnbanOperator, by="airflow", **arguments),
        lambda: execute(EmqxClearRetainedOperator, topics=["a"], **arguments),
    ):
        with pytest.raises(EmqxConfigError, match=f"{guard} has no value"):
            call()
    assert sent(broker) == []
    assert execute(EmqxKickClientsOperator, filters={"clientid_pattern": "d*"}, exclude=[])["kicked"] == ["d"]


def test_an_empty_list_from_another_task_means_nobody(broker: Any) -> None:
    assert sum(execute(EmqxBanOperator, who=[], duration=60)["counts"].values()) == 0
    assert sum(execute(EmqxSubscribeOperator, clientids="[]", topics="a")["counts"].values()) == 0
    assert execute(EmqxSetRuleStateOperator, names=[]) == {}
    assert execute(EmqxKickClientsOperator, clientids=[])["selected"] == 0
    assert sent(broker) == []


@pytest.mark.parametrize("filters", ['{"clientid": "a"}', "{'clientid': 'a'}", {"clientid": "a"}])
def test_filters_may_be_rendered_to_text(broker: Any, filters: Any) -> None:
    for clientid in ("a", "b"):
        broker.connect(clientid)
        broker.subscribe(clientid, "t")
    assert execute(EmqxListClientsOperator, filters=filters)["count"] == 1
    assert execute(EmqxListSubscriptionsOperator, filters=filters)["count"] == 1
    assert execute(EmqxKickClientsOperator, filters=filters)["kicked"] == ["a"]


@pytest.mark.parametrize(
    "filters", ["", "clientid", "{", ["clientid"], "[]", {1: 2}, {"fields": ["a"]}, {"self": 1}]
)
def test_what_are_no_filters_select_nothing(broker: Any, filters: Any) -> None:
    broker.connect("a")
    for operator in (EmqxListClientsOperator, EmqxListSubscriptionsOperator, EmqxKickClientsOperator):
        with pytest.raises(EmqxConfigError):
            execute(operator, filters=filters)
    assert sent(broker) == []


def test_fields_may_be_text_with_commas(broker: Any) -> None:
    broker.connect("a", username="u")
    wanted = [{"clientid": "a", "username": "u", "connected": True}]
    for fields in ("username,connected", '["username", "connected"]', ["username", "connected"]):
        assert execute(EmqxListClientsOperator, fields=fields)["rows"] == wanted


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (EmqxKickClientsOperator, {"disconnected_for": 1e12}),
        (EmqxUnbanOperator, {"older_than": "1e300"}),
        (EmqxBanOperator, {"who": "a", "duration": 1e12}),
        (EmqxClearRetainedOperator, {"topic_filter": "#", "older_than": timedelta.max}),
    ],
)
def test_a_span_that_leads_out_of_the_calendar_is_refused(
    broker: Any, operator: type, arguments: dict[str, Any]
) -> None:
    with pytest.raises(EmqxConfigError, match="of a century at most"):
        execute(operator, **arguments)
    assert sent(broker) == []


@pytest.mark.parametrize(
    ("operator", "arguments", "said"),
    [
        (EmqxUnbanOperator, {"kind": "client", "by": "airflow"}, "kind must be one of"),
        (EmqxBanOperator, {"kind": "client", "who": [], "duration": 60}, "kind must be one of"),
        (EmqxBanOperator, {"who": "a", "duration": 60, "reason": None}, "reason must be text"),
        (EmqxBanOperator, {"who": "a", "duration": 60, "by": 7}, "by must be text"),
    ],
)
def test_a_ban_that_cannot_be_meant_is_refused(
    broker: Any, operator: type, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(EmqxConfigError, match=said):
        execute(operator, **arguments)
    assert sent(broker) == []

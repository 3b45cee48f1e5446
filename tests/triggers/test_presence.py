"""Waits and watchers that the broker wakes; polling takes over wherever it does not."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from airflow_provider_emqx.conditions.clients import ClientsOnline
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.testing.mqtt.packets import MalformedError, Reason
from airflow_provider_emqx.triggers import emqx as triggers
from airflow_provider_emqx.triggers import polls, presence, watches
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger, EmqxEventTrigger
from airflow_provider_emqx.triggers.presence import Bell
from airflow_provider_emqx.triggers.watches import News, Watch, quiet
from tests.triggers.conftest import event_of, until, watched_loop

#: seconds between two checks: so long that no test sees a second one
NEVER = 3600.0
LOGGER = "airflow_provider_emqx.triggers.presence"


@pytest.fixture
def broker(version: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEmqx]:
    with FakeEmqx(version) as fake:
        connect(monkeypatch, fake)
        yield fake


def connect(monkeypatch: pytest.MonkeyPatch, broker: FakeEmqx, **extra: Any) -> None:
    connection = broker.connection(**{"mqtt_url": broker.mqtt_url, **extra})
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is learnt from waiting for Airflow to defer, or for a broker that is down."""
    monkeypatch.setattr(polls, "_SOONEST", 0.01)
    monkeypatch.setattr(presence, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(presence, "_MOMENT", 0.05)
    monkeypatch.setattr(presence, "_BETWEEN", 0.05)
    monkeypatch.setattr(triggers, "HANDED_OVER", 0.0)


def wait(
    *clientids: str, kind: str = "clients_online", interval: float = NEVER, **parameters: Any
) -> EmqxConditionTrigger:
    given = {"clientids": list(clientids), "quorum": "all", **parameters}
    return EmqxConditionTrigger(kind=kind, parameters=given, poll_interval=interval)


@asynccontextmanager
async def waiting(*triggers: EmqxConditionTrigger) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run triggers until the broker tells of their clients and each has checked since."""
    going = [asyncio.create_task(event_of(each)) for each in triggers]
    try:
        await until(lambda: len(checked()) == len(going) or any(one.done() for one in going))
        yield going
    finally:
        for one in going:
            one.cancel()
        await asyncio.gather(*going, return_exceptions=True)


def watches_now() -> list[Watch]:
    return [watch for poll in polls._polls.values() for watch in poll._watches]


def checked() -> list[Watch]:
    """Waits of which every change is told, and that have made a check since then."""
    return [
        watch
        for watch in watches_now()
        if watch.news is not None
        and math.isfinite(watch.news.since)
        and watch.outcome is not None
        and not math.isinf(watch.due)
        and watch.due - asyncio.get_running_loop().time() > NEVER / 4
    ]


def asked(broker: FakeEmqx, clientid: str) -> int:
    return sum(request.path.endswith(f"/clients/{clientid}") for request in broker.requests)


def listeners(broker: FakeEmqx) -> list[str]:
    return [name for name in broker.clients if name.startswith("airflow-")]


def subscriptions(broker: FakeEmqx) -> set[str]:
    with broker.state.lock:
        return {subscription.topic for _, subscription in broker.state.mqtt.subscriptions()}


def topic(clientid: str, event: str = "connected") -> str:
    return f"$SYS/brokers/+/clients/{clientid}/{event}"


def forge(broker: FakeEmqx, clientid: str, event: str = "connected") -> None:
    """Publish what the broker would, and as anybody may who has the right."""
    broker.publish(f"$SYS/brokers/emqx@127.0.0.1/clients/{clientid}/{event}", b"{}")


def test_a_wait_ends_when_its_client_connects(broker: FakeEmqx) -> None:
    async def main() -> Any:
        async with waiting(wait("dev-1")) as (one,):
            before = asked(broker, "dev-1")
            broker.connect("dev-1")
            event = await one
            assert asked(broker, "dev-1") - before == 1
        return event

    assert asyncio.run(main())["details"]["online"] == 1
    # the connection ends with the last wait
    with broker.state.lock:
        assert listeners(broker) == []


@pytest.mark.parametrize("session_expiry", [0, 60])
def test_a_wait_ends_when_its_client_disconnects(broker: FakeEmqx, session_expiry: int) -> None:
    broker.connect("dev-1", session_expiry=session_expiry)

    async def main() -> Any:
        async with waiting(wait("dev-1", kind="clients_offline")) as (one,):
            assert topic("dev-1", "disconnected") in subscriptions(broker)
            broker.disconnect("dev-1")
            return await one

    assert asyncio.run(main())["details"]["offline"] == 1


def test_who_came_before_anything_was_told_is_found_at_once(broker: FakeEmqx) -> None:
    broker.connect("dev-1")
    assert asyncio.run(event_of(wait("dev-1")))["status"] == "met"


def test_a_fleet_is_checked_when_enough_of_it_have_come(broker: FakeEmqx) -> None:
    fleet = [f"dev-{number}" for number in range(10)]

    async def main() -> None:
        async with waiting(wait(*fleet, quorum=8)) as (one,):
            (watch,) = checked()
            before = broker.request_count
            for clientid in fleet[:7]:
                broker.connect(clientid)
            await until(lambda: watch.news is not None and watch.news._hopes == 7)
            assert broker.request_count == before
            broker.connect(fleet[7])
            assert (await one)["details"]["online"] == 8

    asyncio.run(main())


def test_members_that_go_while_others_come_are_not_counted(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with waiting(wait("a", "b")) as (one,):
            (watch,) = checked()
            broker.connect("a")
            await until(lambda: watch.news is not None and watch.news._hopes == 1)
            broker.disconnect("a")
            broker.connect("b")
            await until(lambda: watch.outcome is not None and watch.outcome.details["missing"] == ["a"])
            assert not one.done()
            broker.connect("a")
            assert (await one)["details"]["online"] == 2

    asyncio.run(main())


def test_a_client_must_have_been_connected_for_long_enough(broker: FakeEmqx) -> None:
    async def main() -> Any:
        trigger = wait("dev-1", stable_for=0.3)
        going = asyncio.create_task(event_of(trigger))
        await until(lambda: watches_now() and watches_now()[0].outcome is not None)
        broker.connect("dev-1")
        return await going

    assert asyncio.run(main())["details"]["online"] == 1


def test_a_push_that_is_ahead_of_the_api_is_followed_up(broker: FakeEmqx) -> None:
    broker.announce_presence(False)
    seen = 0

    def late(method: str, path: str) -> None:
        nonlocal seen
        seen += path.endswith("/clients/dev-1")
        if seen == 2:
            # the check of this request is the third one after the push
            broker.connect("dev-1")

    async def main() -> Any:
        async with waiting(wait("dev-1")) as (one,):
            broker.before_each_request(late)
            forge(broker, "dev-1")
            return await one

    assert asyncio.run(main())["status"] == "met"
    assert seen == 2


def test_a_push_decides_nothing(broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "ECHO", 0.2)

    async def main() -> None:
        async with waiting(wait("dev-1")) as (one,):
            (watch,) = checked()
            before = asked(broker, "dev-1")
            forge(broker, "dev-1")
            await until(lambda: asked(broker, "dev-1") > before)
            # it is checked for a while, and then no more
            await until(lambda: checked() == [watch] and watch.news is not None and not watch.news._names)
            assert not one.done()

    asyncio.run(main())


def test_a_lost_push_is_made_up_for_by_the_next_check(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_LONGEST_QUIET", 0.5)
    broker.announce_presence(False)

    async def main() -> Any:
        one = asyncio.create_task(event_of(wait("dev-1", interval=0.2)))
        await until(lambda: any(watch.news and math.isfinite(watch.news.since) for watch in watches_now()))
        broker.connect("dev-1")
        return await one

    assert asyncio.run(main())["status"] == "met"


def test_only_a_wait_whose_clients_are_all_told_of_checks_less_often() -> None:
    async def main() -> None:
        def next_check(condition: Any, since: float, asked: float | None, interval: float = 60.0) -> float:
            watch = Watch(condition, interval)
            watch.news = News(condition, interval)
            watch.news.since = since
            watch.outcome = condition.judge({}, 0.0)
            watch.schedule(10_000.0, 0.0, asked)
            return watch.due - 10_000.0

        one = ClientsOnline(["a"])
        assert next_check(one, math.inf, 10_000.0) <= 90
        assert next_check(one, 9_990.0, 10_000.0) >= 300
        assert next_check(one, 9_990.0, 10_000.0, 900.0) <= 1_350
        # after a failure, and where time alone can end the wait
        assert next_check(one, 9_990.0, None) <= 90
        assert next_check(ClientsOnline(["a"], stable_for=5), 9_990.0, 10_000.0) <= 90
        # a check that began before the broker told of changes may have missed one
        assert next_check(one, 9_999.0, 9_998.0) == 0

    asyncio.run(main())
    assert [quiet(interval) for interval in (1.0, 60.0, 300.0, 3600.0)] == [10.0, 600.0, 900.0, 3600.0]


def test_a_client_that_comes_and_goes_is_checked_no_more_often_than_by_polling() -> None:
    condition = ClientsOnline(["a"])
    news = News(condition, 60.0)
    outcome = condition.judge({"a": None}, 0.0)
    news.after(outcome, 0.0)
    checks, due, now = 0, math.inf, 1.0
    while now < 3600.0:
        # it comes every five seconds, and is gone before it is looked for
        due = min(due, news.announced("a", outcome, now))
        later = now + 5.0
        while due < later:
            checks += 1
            at, outcome = due, condition.judge({"a": None}, due)
            due = news.after(outcome, at)
        now = later
    assert checks < 3600 / 60 + 30
    # whoever has been away for a while is welcome at once
    assert news.announced("a", outcome, now + 100.0) < now + 100.5


def test_waits_share_one_connection_and_their_subscriptions(broker: FakeEmqx) -> None:
    async def main() -> None:
        ids = [f"dev-{number}" for number in range(250)]
        broker.connect("gone")
        waits = [*(wait(each) for each in ids * 2), wait("gone", kind="clients_offline"), wait("a/b", "c")]
        going = [asyncio.create_task(event_of(each)) for each in waits]
        async with polls.shared("emqx_default") as poll:
            watcher = EmqxEventTrigger(event="client_offline", clientid_pattern="dev-1", poll_interval=NEVER)
            events = watcher.run()
            watching = asyncio.create_task(anext(events))
            await until(lambda: len(poll.presence._covered) == len(waits))
            assert subscriptions(broker) == {
                *map(topic, ids),
                topic("gone", "disconnected"),
                topic("dev-1", "disconnected"),
                topic("c"),
            }
            assert len(listeners(broker)) == 1
            # what nobody waits for any more is not subscribed to for long
            for each in [*going[:200], *going[250:450]]:
                each.cancel()
            await until(lambda: len(subscriptions(broker)) == 53)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for each in going:
                each.cancel()
            await asyncio.gather(*going, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize("as_fleet", [True, False], ids=["fleet", "waits"])
def test_of_many_clients_everything_is_subscribed_to(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, as_fleet: bool
) -> None:
    monkeypatch.setattr(presence, "MOST", 20)
    ids = [f"dev-{number}" for number in range(21)]
    waits = [wait(*ids, quorum="any")] if as_fleet else [wait(each) for each in ids]

    async def main() -> None:
        async with waiting(*(waits if as_fleet else waits[:20])) as going:
            if not as_fleet:
                assert subscriptions(broker) == set(map(topic, ids[:20]))
                going.append(asyncio.create_task(event_of(waits[20])))
                await until(lambda: len(checked()) == 21)
            assert subscriptions(broker) == {topic("+")}
            before = broker.request_count
            broker.connect_many(f"other-{number}" for number in range(200))
            broker.connect("dev-20")
            assert (await going[-1])["details"]["online"] == 1
            assert broker.request_count - before == (len(ids) if as_fleet else 1)

    asyncio.run(main())


def test_an_id_that_a_topic_cannot_name_is_polled(broker: FakeEmqx) -> None:
    ids = ["a/b", "a+", "#", "\0", "x" * 60_000]
    short = [wait(each, interval=0.1) for each in ids[:4]]

    async def main() -> None:
        async with polls.shared("emqx_default") as poll:
            going = [
                asyncio.create_task(event_of(each)) for each in [*short, wait("a", ids[0], interval=0.1)]
            ]
            await until(lambda: poll.presence._changed is not None and subscriptions(broker) == {topic("a")})
            for each in [*ids[:4], "a"]:
                broker.connect(each)
            events = await asyncio.gather(*going)
            assert {event["status"] for event in events} == {"met"}

    asyncio.run(main())
    assert not presence._fits(ids[4])


def refuse(broker: FakeEmqx, topic: str = "$SYS/#", username: str = "airflow") -> None:
    """Keep an account from what the broker says of itself, as brokers do by default with clients elsewhere."""
    with EmqxHook() as hook:
        hook.set_acl_rules(
            {"username": username}, [{"topic": topic, "action": "subscribe", "permission": "deny"}]
        )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == LOGGER and record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("as_fleet", [True, False], ids=["all", "single"])
def test_where_the_subscription_is_refused_waits_poll(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, as_fleet: bool
) -> None:
    if as_fleet:
        monkeypatch.setattr(presence, "MOST", 1)
    broker.add_user("airflow", "pw-of-mqtt")
    connect(monkeypatch, broker, mqtt_username="airflow", mqtt_password="pw-of-mqtt")
    refuse(broker)

    async def main() -> None:
        going = [asyncio.create_task(event_of(wait(each, interval=0.2))) for each in "abc"]
        await until(lambda: warnings(caplog))
        going.append(asyncio.create_task(event_of(wait("d", interval=0.2))))
        for each in "abcd":
            broker.connect(each)
        events = await asyncio.gather(*going)
        assert {event["status"] for event in events} == {"met"}

    with caplog.at_level(logging.INFO, LOGGER):
        asyncio.run(main())
    (line,) = warnings(caplog)
    assert "Not authorized" in line
    assert "ACL rule" in line
    assert "pw-of-mqtt" not in caplog.text


def test_a_right_that_is_taken_away_meanwhile_lets_waits_poll(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker.add_user("airflow", "pw-of-mqtt")
    connect(monkeypatch, broker, mqtt_username="airflow", mqtt_password="pw-of-mqtt")

    async def main() -> None:
        one = asyncio.create_task(event_of(wait("dev-1", interval=0.2)))
        await until(lambda: subscriptions(broker) == {topic("dev-1")})
        await asyncio.to_thread(refuse, broker)
        (name,) = listeners(broker)
        with broker.state.lock:
            broker.state.kick(name)
        await until(lambda: any("Not authorized" in line for line in warnings(caplog)))
        broker.connect("dev-1")
        assert (await one)["status"] == "met"

    asyncio.run(main())


@pytest.mark.parametrize("how", ["restart", "kick", "stop"])
def test_a_client_that_comes_while_nothing_is_told_is_found(
    broker: FakeEmqx, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker restarts, the session is lost, or the broker is away: what happened meanwhile nobody tells."""

    async def main() -> None:
        async with waiting(wait("dev-1")) as (one,):
            if how == "kick":
                (name,) = listeners(broker)
                with broker.state.lock:
                    broker.state.kick(name)
                    broker.connect("dev-1")
            else:
                await asyncio.to_thread(broker.stop)
                await until(lambda: warnings(caplog))
                if how == "restart":
                    with broker.state.lock:
                        broker.state.mqtt.clients.clear()
                broker.connect("dev-1")
                await asyncio.to_thread(broker.start)
            assert (await one)["status"] == "met"

    with caplog.at_level(logging.INFO, LOGGER):
        asyncio.run(main())
    assert len(warnings(caplog)) == 1
    assert "announces clients again" in caplog.text


def test_while_nothing_is_told_waits_poll_at_their_interval(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> Any:
        one = asyncio.create_task(event_of(wait("dev-1", interval=0.4)))
        await until(lambda: any(watch.news and math.isfinite(watch.news.since) for watch in watches_now()))
        # from now on nobody lets it in
        monkeypatch.setattr(broker.state, "banned", lambda clientid, *_: clientid.startswith("airflow-"))
        (name,) = listeners(broker)
        with broker.state.lock:
            broker.state.kick(name)
        await until(lambda: all(watch.news and math.isinf(watch.news.since) for watch in watches_now()))
        broker.connect("dev-1")
        return await one

    assert asyncio.run(main())["status"] == "met"


def test_a_connection_whose_credentials_were_replaced_goes_on_with_the_new_ones(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.add_user("airflow", "pw-old")
    connect(monkeypatch, broker, mqtt_username="airflow", mqtt_password="pw-old")

    async def main() -> Any:
        async with waiting(wait("dev-1")) as (one,):
            broker.add_user("airflow", "pw-new")
            broker.add_key("new", "new-secret")
            broker.remove_key("key")
            monkeypatch.setattr(broker, "key", "new")
            monkeypatch.setattr(broker, "secret", "new-secret")
            connect(monkeypatch, broker, mqtt_username="airflow", mqtt_password="pw-new")
            (name,) = listeners(broker)
            with broker.state.lock:
                broker.state.kick(name)
            await until(lambda: listeners(broker) not in ([], [name]))
            broker.connect("dev-1")
            return await one

    # the first check with the old key has failed, and the interval is far too long for a second one
    monkeypatch.setattr(watches, "_LONGEST_BACKOFF", 0.1)
    monkeypatch.setattr("tests.triggers.test_presence.NEVER", 0.5)
    assert asyncio.run(main())["status"] == "met"


@pytest.mark.parametrize("hours", [-2, 2])
def test_the_brokers_clock_does_not_matter(broker: FakeEmqx, hours: int) -> None:
    async def main() -> Any:
        async with waiting(wait("dev-1")) as (one,):
            broker.connect("dev-1", connected_at=broker.now() + hours * 3600)
            return await one

    assert asyncio.run(main())["status"] == "met"


def test_ten_thousand_connects_in_a_second_hold_nobody_up(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "MOST", 1)

    async def main() -> None:
        async with waiting(wait("dev-1"), wait("dev-2")) as going:
            (poll,) = polls._polls.values()
            told: list[str] = []
            real = poll.presence._announce

            def counted(topic: str) -> None:
                told.append(topic)
                real(topic)

            monkeypatch.setattr(poll.presence, "_announce", counted)
            before = broker.request_count
            # a full collection walks through all of Airflow for a tenth of a second, whoever causes it
            gc.collect()
            gc.freeze()
            async with watched_loop() as held:
                await asyncio.to_thread(broker.connect_many, (f"other-{number}" for number in range(10_000)))
                await until(lambda: len(told) >= 10_000)
                assert broker.request_count == before
                broker.connect("dev-1")
                assert (await going[0])["status"] == "met"
            assert held.longest < 0.05
            assert not going[1].done()

    try:
        asyncio.run(main())
    finally:
        gc.unfreeze()


def test_without_the_library_waits_poll(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "paho"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "paho", None)

    async def main() -> Any:
        one = asyncio.create_task(event_of(wait("dev-1", interval=0.1)))
        await until(lambda: warnings(caplog))
        broker.connect("dev-1")
        return await one

    assert asyncio.run(main())["status"] == "met"
    assert "airflow-provider-emqx[mqtt]" in warnings(caplog)[0]


def test_a_connection_without_mqtt_says_nothing(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect(monkeypatch, broker, mqtt_url=None)

    async def main() -> Any:
        one = asyncio.create_task(event_of(wait("dev-1", interval=0.1)))
        await until(lambda: broker.request_count > 2)
        broker.connect("dev-1")
        return await one

    assert asyncio.run(main())["status"] == "met"
    assert warnings(caplog) == []
    assert broker.state.mqtt.metrics["client.connect"] == 1


def test_an_account_that_is_thrown_out_when_it_subscribes_is_not_tried_every_second(
    broker: FakeEmqx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As EMQX does with ``deny_action = disconnect``."""
    monkeypatch.setattr(presence, "_LONGEST_PAUSE", 60.0)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def short(seconds: float) -> None:
        if seconds >= 1:
            pauses.append(seconds)
        await sleep(min(seconds, 0.01))

    monkeypatch.setattr(presence.asyncio, "sleep", short)

    def thrown_out(*_: Any) -> bool:
        raise MalformedError(Reason.NOT_AUTHORIZED)

    monkeypatch.setattr("airflow_provider_emqx.testing.mqtt.connection.allowed", thrown_out)

    async def main() -> None:
        one = asyncio.create_task(event_of(wait("dev-1", interval=0.2)))
        await until(lambda: len(pauses) >= 4)
        broker.connect("dev-1")
        assert (await one)["status"] == "met"

    asyncio.run(main())
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]


# ------------------------------------------------------------------ watchers


@asynccontextmanager
async def watching(broker: FakeEmqx, event: str, **arguments: Any) -> AsyncIterator[Callable[[], Any]]:
    """Run a watcher until the broker tells of clients and it has checked since; gives a function for the next event."""
    watcher = EmqxEventTrigger(event=event, **{"poll_interval": NEVER, **arguments})
    events = watcher.run()
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def run() -> None:
        async for each in events:
            queue.put_nowait(each.payload)

    begun: list[float] = []
    ended = Bell.end

    def end(self: Bell, found: bool) -> None:
        ended(self, found)
        begun.append(self._begun)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bell, "end", end)
        task = asyncio.create_task(run())
        try:
            await until(
                lambda: any(
                    begun
                    and isinstance(bell, Bell)
                    and math.isfinite(bell._since)
                    and bell._since <= begun[-1]
                    for poll in polls._polls.values()
                    for interest in poll.presence._covered
                    for bell in [interest.listening.__self__]
                )
            )
            yield queue.get
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("pattern", ["dev-*", "dev-1"])
def test_a_watcher_reports_who_connects_when_it_does(broker: FakeEmqx, pattern: str) -> None:
    broker.connect("dev-0")

    async def main() -> Any:
        async with watching(broker, "client_online", clientid_pattern=pattern) as event:
            assert subscriptions(broker) == {topic("+" if "*" in pattern else pattern)}
            broker.connect("other")
            broker.connect("dev-1")
            async with asyncio.timeout(15):
                return await event()

    assert asyncio.run(main())["clientids"] == ["dev-1"]


def test_a_watcher_reports_who_disconnects_when_it_does(broker: FakeEmqx) -> None:
    broker.connect_many(["dev-0", "dev-1", "other"])

    async def main() -> Any:
        async with watching(broker, "client_offline", clientid_pattern="dev-*") as event:
            broker.disconnect("other")
            broker.disconnect("dev-1")
            async with asyncio.timeout(15):
                return await event()

    assert asyncio.run(main())["clientids"] == ["dev-1"]


def test_what_happens_in_one_interval_comes_together(broker: FakeEmqx) -> None:
    async def main() -> None:
        async with watching(broker, "client_online", poll_interval=1.0) as event:
            broker.connect("dev-0")
            async with asyncio.timeout(15):
                assert "dev-0" in (await event())["clientids"]
                for number in range(1, 4):
                    broker.connect(f"dev-{number}")
                    # the watcher has heard of it, and may not report it at once
                    await asyncio.sleep(0.1)
                assert (await event())["clientids"] == ["dev-1", "dev-2", "dev-3"]

    asyncio.run(main())


def test_a_watcher_checks_no_later_than_without_announcements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_MOMENT", 0.5)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        loop.time = lambda: now  # type: ignore[method-assign]
        try:
            for interval, soon in ((0.1, 0.1), (60.0, 0.5)):
                bell = Bell(interval)
                bell.listening(now)
                bell.begin()
                bell.end(False)
                bell.announced()
                assert bell._due() - now == pytest.approx(soon)
        finally:
            del loop.time

    asyncio.run(main())


def test_a_bell_rings_late_for_those_who_come_and_are_none_that_is_watched_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        checks = 0
        bell = Bell(60.0)
        loop.time = lambda: now  # type: ignore[method-assign]
        try:
            bell.listening(now)
            end = now + 3600
            while now < end:
                bell.announced()
                due = bell._due()
                if due <= now:
                    checks += 1
                    bell.begin()
                    bell.end(False)
                now += 0.5
        finally:
            del loop.time
        assert checks < 3600 / 60 + 15

    asyncio.run(main())

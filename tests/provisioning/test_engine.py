from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxError, EmqxUnsupportedError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.operators.base import BaseEmqxOperator
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.chunks import Pace
from airflow_provider_emqx.provisioning.engine import Run
from airflow_provider_emqx.provisioning.limits import duration
from airflow_provider_emqx.provisioning.outcomes import Outcome, shown
from airflow_provider_emqx.provisioning.sources import read_rows, read_source
from airflow_provider_emqx.provisioning.terms import UserTerms

EVERY_WAY = pytest.mark.parametrize("version", ["4.4.19", "5.3.0", "5.6.1", "5.7.2", "5.8.9", "6.1.0"])


@pytest.fixture
def hook(broker: Any) -> Iterator[EmqxHook]:
    with EmqxHook() as made:
        yield made


def rows(count: int, password: str = "p", start: int = 0) -> list[dict[str, Any]]:
    return [{"user_id": f"d{i}", "password": f"{password}{i}"} for i in range(start, start + count)]


def outcomes(hook: EmqxHook, given: list[dict[str, Any]], mode: str = "upsert") -> list[tuple[str, str]]:
    """Give outcome and reason of each row, making sure that each row has one."""
    found = list(hook.provision_users(given, mode))
    assert [outcome.line for outcome in found] == list(range(1, len(given) + 1))
    return [(outcome.outcome, outcome.reason) for outcome in found]


@EVERY_WAY
def test_upsert_writes_new_and_existing_users(hook: EmqxHook, broker: Any) -> None:
    assert set(outcomes(hook, rows(1_200))) == {("written", "")}
    assert set(outcomes(hook, rows(700, "new", start=1_000))) == {("written", "")}
    assert len(broker.users) == 1_700
    assert broker.verify("d999", "p999")
    assert broker.verify("d1000", "new1000")
    assert not broker.verify("d1000", "p1000")


@EVERY_WAY
@pytest.mark.parametrize("count", [300, 1_300])
def test_create_leaves_existing_users_as_they_are(hook: EmqxHook, broker: Any, count: int) -> None:
    outcomes(hook, rows(10))
    found = outcomes(hook, rows(count, "new"), "create")
    assert found[:10] == [("skipped", "exists")] * 10
    assert set(found[10:]) == {("written", "")}
    assert broker.verify("d9", "p9")
    assert broker.verify("d10", "new10")
    assert len(broker.users) == count


@EVERY_WAY
def test_delete_tells_who_was_absent_where_the_broker_does(hook: EmqxHook, broker: Any, version: str) -> None:
    outcomes(hook, rows(50))
    found = outcomes(hook, [{"user_id": f"d{i}"} for i in range(40, 60)], "delete")
    assert found[:10] == [("deleted", "")] * 10
    absent = ("deleted", "") if version.startswith("4") else ("skipped", "absent")
    assert found[10:] == [absent] * 10
    assert sorted(broker.users) == sorted(f"d{i}" for i in range(40))


@EVERY_WAY
def test_strange_ids_and_passwords_arrive_as_they_are(hook: EmqxHook, broker: Any) -> None:
    strange = ["a/b", "a b", "a%2Fb", "#", "?x=1", "設備", "😀", '"', "a,b", "\t", "...", " x ", "+", "$all"]
    given = [{"user_id": one, "password": f"{one} pass"} for one in strange]
    assert {row.outcome for row in hook.provision_users(given, source_options={"strip": False})} == {
        "written"
    }
    assert set(broker.users) == set(strange)
    assert all(broker.verify(one, f"{one} pass") for one in strange)
    assert {
        row.outcome for row in hook.provision_users(given, "delete", source_options={"strip": False})
    } == {"deleted"}
    assert not broker.users


def test_rejected_rows_stand_between_the_others(hook: EmqxHook, broker: Any) -> None:
    given: list[Any] = rows(1_000)
    given[3] = {"user_id": "..", "password": "S3cret"}
    given[500] = {"user_id": "x", "password": ""}
    given[501] = "text"
    given[999] = {"user_id": "d0", "password": "S3cret"}
    found = list(hook.provision_users(given))
    rejected = [outcome for outcome in found if outcome.outcome == "rejected"]
    assert [outcome.line for outcome in rejected] == [4, 501, 502, 1_000]
    assert [outcome.user_id for outcome in rejected] == ["..", "x", None, "d0"]
    assert "S3cret" not in str(found)
    assert len(broker.users) == 996


@pytest.mark.parametrize("version", ["5.8.9"])
def test_superusers_are_written_as_such(hook: EmqxHook, broker: Any) -> None:
    outcomes(
        hook, [{"user_id": "root", "password": "p", "is_superuser": "yes"}, {"user_id": "a", "password": "p"}]
    )
    assert broker.users["root"].is_superuser
    assert not broker.users["a"].is_superuser


@pytest.mark.parametrize("version", ["4.4.19"])
def test_emqx_4_rejects_superusers_and_writes_the_others(hook: EmqxHook, broker: Any) -> None:
    given = [{"user_id": "root", "password": "p", "is_superuser": True}, {"user_id": "a", "password": "p"}]
    for mode in ("upsert", "create"):
        found = outcomes(hook, given, mode)
        assert found[0][0] == "rejected"
        assert "superuser" in found[0][1]
    assert list(broker.users) == ["a"]


@pytest.mark.parametrize("version", ["4.4.19"])
def test_emqx_4_keeps_client_ids_apart_from_usernames(broker: Any) -> None:
    with EmqxHook(user_id_type="clientid") as hook:
        outcomes(hook, rows(3))
        assert [row["user_id"] for row in hook.list_users()] == ["d0", "d1", "d2"]
    with EmqxHook() as hook:
        assert not list(hook.list_users())


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_user_id_type_that_the_authenticator_has_not_is_refused(broker: Any) -> None:
    with EmqxHook(user_id_type="clientid") as hook, pytest.raises(EmqxConfigError, match="keyed by username"):
        list(hook.provision_users(rows(1)))
    assert not broker.users


@pytest.mark.parametrize("version", ["5.6.1", "5.5.0"])
def test_versions_whose_import_destroys_users_when_it_fails_never_see_one(
    hook: EmqxHook, broker: Any
) -> None:
    outcomes(hook, rows(20))
    outcomes(hook, rows(20))
    assert not [request for request in broker.requests if "import_users" in request.path]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_version_that_nobody_knows_is_treated_as_an_old_one(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.add_key("narrow", "secret", allow=lambda method, route: "authentication" in route)
    connection = {**broker.connection(), "login": "narrow", "password": "secret"}
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(connection))
    with EmqxHook() as hook:
        assert set(outcomes(hook, rows(5))) == {("written", "")}
    assert len(broker.users) == 5
    assert not [request for request in broker.requests if "import_users" in request.path]


def test_a_lost_answer_is_made_good_by_sending_again(hook: EmqxHook, broker: Any, version: str) -> None:
    for kind in ("reset", "reset_after", "truncated"):
        broker.order_fault(kind, match="POST ")
        assert set(outcomes(hook, rows(600, kind))) == {("written", "")}
        assert all(broker.verify(f"d{i}", f"{kind}{i}") for i in (0, 599))
    assert len(broker.users) == 600


def test_a_lost_answer_to_a_creation_never_overwrites(hook: EmqxHook, broker: Any) -> None:
    broker.order_fault("reset_after", match="POST ")
    found = outcomes(hook, rows(3), "create")
    assert {outcome for outcome, _ in found} <= {"written", "skipped"}
    assert all(broker.verify(f"d{i}", f"p{i}") for i in range(3))
    reasons = [reason for outcome, reason in found if outcome == "skipped"]
    # a broker that takes them one by one loses one answer, one that takes them together loses all three
    assert len(reasons) in (1, 3)
    assert all("perhaps created by" in reason for reason in reasons)


def test_when_the_broker_fails_the_outcomes_before_are_given_first(hook: EmqxHook, broker: Any) -> None:
    match = "import_users" if hook.api_version == "v5" else "POST /api/v4/auth_username"
    broker.order_fault("status", status=401, match=match, after=2, times=9)
    found: list[Outcome] = []
    with pytest.raises(EmqxAuthError):
        for outcome in hook.provision_users(rows(20_000)):
            found.append(outcome)  # noqa: PERF402
    assert len(found) == len(broker.users) > 500
    assert [outcome.line for outcome in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("version", ["4.4.19", "5.6.1"])
def test_of_existing_users_each_that_is_written_is_told_also_when_another_fails(
    hook: EmqxHook, broker: Any, caplog: pytest.LogCaptureFixture, mocker: Any
) -> None:
    outcomes(hook, rows(100))
    mocker.patch("airflow_provider_emqx.transport.pulse.EVERY", 0.0)
    caplog.set_level("INFO")
    broker.order_fault("status", status=401, match="PUT ", after=40, times=99)
    found: list[Outcome] = []
    with pytest.raises(EmqxAuthError):
        for outcome in hook.provision_users(rows(100, "new")):
            found.append(outcome)  # noqa: PERF402
    changed = {f"d{i}" for i in range(100) if broker.verify(f"d{i}", f"new{i}")}
    assert {outcome.outcome for outcome in found} == {"written"}
    assert {outcome.user_id for outcome in found} == changed
    assert len(changed) >= 40
    assert [line for line in caplog.messages if line == "40 of 100 users of this chunk so far"]


@EVERY_WAY
def test_single_writes_that_fail_stop_the_run(hook: EmqxHook, broker: Any) -> None:
    outcomes(hook, rows(5))
    broker.order_fault("status", status=401, match="DELETE", times=9)
    with pytest.raises(EmqxAuthError):
        list(hook.provision_users(rows(5), "delete"))
    assert len(broker.users) == 5


def test_a_source_that_breaks_off_is_an_error_after_its_rows_are_done(hook: EmqxHook, broker: Any) -> None:
    def source() -> Iterator[dict[str, str]]:
        yield from rows(700)
        raise EmqxError("the source broke off")

    found = []
    with pytest.raises(EmqxError, match="broke off"):
        for outcome in hook.provision_users(source()):
            found.append(outcome)  # noqa: PERF402
    assert len(found) == len(broker.users) == 700


def test_rows_before_any_error_of_the_source_are_done_and_told(hook: EmqxHook, broker: Any) -> None:
    def source() -> Iterator[dict[str, str]]:
        yield from rows(700)
        raise ZeroDivisionError

    found = []
    with pytest.raises(ZeroDivisionError):
        for outcome in hook.provision_users(source()):
            found.append(outcome)  # noqa: PERF402
    assert len(found) == len(broker.users) == 700


@pytest.mark.parametrize("version", ["5.8.9"])
def test_an_algorithm_that_is_not_known_here_is_the_business_of_the_broker(broker: Any) -> None:
    body = json.dumps(
        {
            "id": "password_based:built_in_database",
            "backend": "built_in_database",
            "user_id_type": "username",
            "password_hash_algorithm": {"name": "argon2"},
        }
    )
    given = [{"user_id": "a", "password": "p"}, {"user_id": "b", "password_hash": "0" * 64}]
    broker.order_fault("status", status=200, body=body, match="GET /api/v5/authentication/", times=4)
    with EmqxHook() as hook:
        [written, rejected] = list(hook.provision_users(given))
        assert (written.outcome, rejected.outcome) == ("written", "rejected")
        assert "hashes passwords with 'argon2', which is not known here" in rejected.reason
        with pytest.raises(EmqxUnsupportedError, match="argon2"):
            list(Run(hook, UserTerms(hash_passwords=True, pepper="x"))(read_rows(given, Format())))
    assert list(broker.users) == ["a"]


def test_rows_are_read_only_a_little_ahead_of_the_broker(hook: EmqxHook, broker: Any) -> None:
    given = 0

    def source() -> Iterator[dict[str, str]]:
        nonlocal given
        for row in rows(50_000):
            given += 1
            yield row

    work = hook.provision_users(source())
    assert len(list(islice(work, 10))) == 10
    assert given < 10_000


@pytest.mark.parametrize("mode", ["upsert", "create", "delete"])
def test_a_dry_run_tells_what_would_happen_and_changes_nothing(
    hook: EmqxHook, broker: Any, mode: str
) -> None:
    outcomes(hook, rows(5))
    before = {user_id: user.password for user_id, user in broker.users.items()}
    [done] = list(Run(hook, UserTerms(mode, dry_run=True))(read_rows([*rows(10), {"user_id": ""}], Format())))
    found = [outcome.outcome for outcome in done.outcomes()]
    there, absent = {
        "upsert": ("written", "written"),
        "create": ("skipped", "written"),
        "delete": ("deleted", "skipped"),
    }[mode]
    assert found == [there] * 5 + [absent] * 5 + ["rejected"]
    assert {user_id: user.password for user_id, user in broker.users.items()} == before


def test_an_unknown_mode_is_refused(hook: EmqxHook) -> None:
    with pytest.raises(EmqxConfigError, match="mode must be one of"):
        list(hook.provision_users(rows(1), "replace"))


@pytest.mark.parametrize(
    ("user_id", "text"),
    [
        ("a", "a"),
        ("ü", "ü"),
        (5, "5"),
        (None, None),
        (True, None),
        ([1], None),
        ("a\0\n\x1b[31m", "a\\x00\\n\\x1b[31m"),
        ("a\udcff", "a\\udcff"),
        ("x" * 2_000, "x" * 1_000 + "…"),
    ],
)
def test_ids_are_shown_so_that_every_log_and_database_takes_them(user_id: object, text: str | None) -> None:
    assert shown(user_id) == text


def on_serverless(hook: EmqxHook) -> EmqxHook:
    """Let the hook take the broker for what its address would say."""
    hook.__dict__["settings"] = replace(hook.settings, serverless=True, rate_limit=500.0)
    return hook


@pytest.mark.parametrize("version", ["serverless"])
def test_serverless_says_before_the_first_write_that_it_will_be_full(
    hook: EmqxHook, broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1_990):
        broker.add_user(f"u{number}", "p")
    on_serverless(hook)
    assert {outcome for outcome, _ in outcomes(hook, rows(10))} == {"written"}
    assert "Serverless holds" not in caplog.text
    found = outcomes(hook, rows(13))
    assert "Serverless holds 2,000 users. It has 2,000 now, and this source brings 3 new ones" in caplog.text
    assert [outcome for outcome, _ in found] == ["written"] * 10 + ["rejected"] * 3


@pytest.mark.parametrize("version", ["serverless"])
@pytest.mark.parametrize("mode", ["upsert", "create", "delete"])
def test_serverless_says_its_limits_before_the_first_write(
    hook: EmqxHook, broker: Any, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    caplog.set_level("INFO")
    on_serverless(hook)
    next(hook.provision_users(rows(10), mode))
    assert "EMQX Cloud Serverless takes 10 requests per second, and holds 2,000 users" in caplog.text
    assert "about 10 rows take 1 s or more" in caplog.text


BULK = "At 200 requests per second, and up to 5,000 rows in a request, about 1,200 rows take 1 s or more"
EACH = "At 200 requests per second, and at least one request per row, about 1,200 rows take 6 s or more"


@pytest.mark.parametrize(
    ("version", "mode", "told"),
    [
        ("5.8.9", "upsert", BULK),
        ("5.8.9", "create", BULK),
        ("5.8.9", "sync", f"{BULK}; add one request for each deleted user"),
        ("5.8.9", "delete", EACH),
        ("5.8.9", "prune", "one request per deleted user, 1,000 deleted users take 5 s or more"),
        ("5.6.1", "upsert", f"{EACH}; add one request for each user that exists already"),
        ("5.6.1", "create", EACH),
        ("4.4.19", "upsert", f"{BULK}; add one request for each user that exists already"),
        ("4.4.19", "create", BULK),
        (
            "4.4.19",
            "sync",
            f"{BULK}; add one request for each user that exists already and each deleted user",
        ),
    ],
)
def test_what_a_rate_limit_means_is_told_before_the_first_write(
    broker: Any, caplog: pytest.LogCaptureFixture, mode: str, told: str
) -> None:
    caplog.set_level("INFO")
    scope = {"scope": "d*"} if mode in ("sync", "prune") else {}
    with EmqxHook(rate_limit=200) as hook:
        source = read_source(rows(1_200), Format())
        run = Run(hook, UserTerms(mode, **scope), source.expected)
        run._prepare(source.blocks, 0, Pace())
    assert all(request.method == "GET" for request in broker.requests)
    [line] = [
        record.getMessage() for record in caplog.records if "requests per second" in record.getMessage()
    ]
    assert line == told if "deleted users" not in told else told in line


@pytest.mark.parametrize("version", ["5.8.9"])
def test_without_a_limit_there_is_nothing_to_tell(
    hook: EmqxHook, broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    outcomes(hook, rows(5))
    assert "requests per second" not in caplog.text


@pytest.mark.parametrize("version", ["5.6.1"])
def test_of_rows_that_nobody_has_counted_the_time_of_a_thousand_is_told(
    broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with EmqxHook(rate_limit=200) as hook:
        assert len(list(hook.provision_users(iter(rows(20))))) == 20
    assert ", 1,000 rows take 5 s or more" in caplog.text


@pytest.mark.parametrize(("mode", "match"), [("upsert", "POST "), ("delete", "DELETE ")])
def test_a_broker_that_asks_for_a_pause_gets_it_and_no_row_is_lost(
    hook: EmqxHook, broker: Any, caplog: pytest.LogCaptureFixture, mode: str, match: str
) -> None:
    given = rows(700 if mode == "upsert" else 5)
    if mode == "delete":
        outcomes(hook, given)
    # longer than the first wait would be otherwise
    broker.order_fault("status", status=429, headers={"Retry-After": "1"}, match=match)
    assert {outcome for outcome, _ in outcomes(hook, given, mode)} == {
        "deleted" if mode == "delete" else "written"
    }
    waits = re.findall(r"Attempt 1 of 4 failed, next in ([\d.]+) s", caplog.text)
    assert len(waits) == 1
    assert float(waits[0]) >= 1
    assert "429" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (59.6, "60 s"), (90, "2 min"), (5_399, "90 min"), (36_000, "10.0 h")]
)
def test_a_span_of_time_is_one_number(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_hook_synchronises_and_tells_of_users_without_a_row(hook: EmqxHook, broker: Any) -> None:
    for name in ("d0", "d-old", "other"):
        broker.add_user(name, "p")
    expected = [tuple(row[:3]) for row in hook.provision_users(rows(2), "sync", scope="d*", dry_run=True)]
    assert set(broker.users) == {"d0", "d-old", "other"}
    found = list(hook.provision_users(rows(2), "sync", scope="d*"))
    assert [tuple(row[:3]) for row in found] == expected
    assert expected == [(1, "d0", "written"), (2, "d1", "written"), (0, "d-old", "pruned")]
    assert found[-1].reason == "this user is not in the source"
    assert set(broker.users) == {"d0", "d1", "other"}


@pytest.mark.parametrize("given", [[], [{"user_id": "d0", "password": ""}]])
def test_the_hook_deletes_nobody_by_a_source_without_a_good_row(
    hook: EmqxHook, broker: Any, given: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    broker.add_user("d-old", "p")
    found = list(hook.provision_users(given, "sync", scope="*", max_deletes="100%"))
    assert "pruned" not in {row.outcome for row in found}
    assert set(broker.users) == {"d-old"}
    assert "Nobody is deleted" in caplog.text


def test_the_hook_refuses_a_plan_that_cannot_be_before_anything_is_sent(hook: EmqxHook, broker: Any) -> None:
    for options in (
        {"mode": "sync"},
        {"scope": "d*"},
        {"hash_passwords": True},
        {"mode": "sync", "scope": "d*", "protect": ""},
    ):
        with pytest.raises(EmqxConfigError):
            hook.provision_users(rows(1), **options)
    assert broker.requests == []


@pytest.mark.parametrize("version", ["5.8.9"])
def test_the_hook_takes_a_file_hashes_and_sets_rules_for_all(
    hook: EmqxHook, broker: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", json.dumps({"conn_type": "generic", "password": "pepper"}))
    source = tmp_path / "devices.csv"
    source.write_text("user_id,password\nd0,p0\nd1,p1\n")
    rule = {"topic": "devices/${username}/#", "permission": "allow"}
    options = {"hash_passwords": True, "pepper_conn_id": "pepper", "acl_rules": [rule]}
    assert {row.outcome for row in hook.provision_users(source, **options)} == {"written"}
    assert broker.verify("d1", "p1")
    assert not any(b"p1" in request.body for request in broker.requests)
    assert hook.list_acl_rules("all")[0]["topic"] == rule["topic"]


def test_the_hook_takes_all_that_the_operator_takes() -> None:
    classes = EmqxProvisionUsersOperator.__mro__
    operator = {
        name
        for cls in classes[: classes.index(BaseEmqxOperator)]
        for name in inspect.signature(cls.__init__).parameters
    }
    hook = inspect.signature(EmqxHook.provision_users).parameters
    # that one is of the hook itself
    assert operator - {"self", "kwargs", "user_id_type"} == hook.keys() - {"self"}


def test_the_hook_reads_files_as_it_is_told_and_writes_report_and_state(
    hook: EmqxHook, broker: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PEPPER", json.dumps({"conn_type": "generic", "password": "pepper"}))
    source, report = tmp_path / "devices.txt", tmp_path / "report.jsonl"
    source.write_text("device;password\nd0; p0\nd1;p1\n;p2\n")
    options: Any = {
        "format": "csv",
        "columns": {"user_id": "device"},
        "source_options": {"delimiter": ";", "strip": True},
        "report_path": report,
        "pepper_conn_id": "pepper",
        "state_path": tmp_path / "state",
    }
    for _ in range(2):
        told = [row.outcome for row in hook.provision_users(source, **options)]
        assert told == ["written", "written", "rejected"]
        [line] = map(json.loads, report.read_text().splitlines())
        assert (line["line"], line["outcome"]) == (4, "rejected")
    # the second run knows from the state file that nothing is to be sent
    bulk = "import_users" if hook.api_version == "v5" else "POST /api/v4/auth_username"
    assert len([request for request in broker.requests if bulk in f"{request.method} {request.path}"]) == 1
    assert broker.verify("d0", "p0")
    with EmqxHook() as other:
        parts = [
            [
                row.line
                for row in other.provision_users(source, shard=(part, 2), **{**options, "state_path": None})
            ]
            for part in (0, 1)
        ]
    assert sorted(parts[0] + parts[1]) == [2, 3, 4]


@pytest.mark.parametrize("verdict", [{"on_rejected": "fail"}, {"max_rejected": 0}])
def test_rejected_rows_end_the_hooks_work_as_it_is_told(
    hook: EmqxHook, broker: Any, verdict: dict[str, Any]
) -> None:
    broker.add_user("d-old", "p")
    found: list[Outcome] = []
    with pytest.raises(EmqxConfigError, match="1 of 3 rows were rejected"):
        for outcome in hook.provision_users(
            [*rows(2), {"user_id": ""}], "sync", scope="d*", max_deletes="100%", **verdict
        ):
            found.append(outcome)  # noqa: PERF402
    assert [outcome.outcome for outcome in found] == ["written", "written", "rejected"]
    assert "d-old" in broker.users


@pytest.mark.parametrize("version", ["4.4.19", "6.0.0", "6.1.0", "6.3.0-beta.2"])
@pytest.mark.parametrize("mode", ["upsert", "create", "sync"])
def test_a_dry_run_rejects_the_superusers_that_a_run_rejects(
    broker: Any, monkeypatch: pytest.MonkeyPatch, version: str, mode: str
) -> None:
    if version.startswith("6.") and version != "6.0.0":
        broker.add_namespace("tenant-1")
        monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(namespace="tenant-1")))
    rows = [{"user_id": f"dev-{n}", "password": "pw", "is_superuser": n % 3 == 0} for n in range(6)]
    scope = {"scope": "dev-*"} if mode == "sync" else {}
    with EmqxHook() as hook:
        dry, done = (
            [row.outcome for row in hook.provision_users(rows, mode, dry_run=dry_run, **scope)]
            for dry_run in (True, False)
        )
    may_be = version in ("6.0.0", "6.1.0")
    assert dry == done == [("written" if may_be else "rejected"), "written", "written"] * 2


@pytest.mark.parametrize("version", ["6.3.0-beta.2"])
def test_a_superuser_in_a_namespace_is_rejected_and_the_others_are_written(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(broker.connection(namespace="tenant-1")))
    rows = [{"user_id": f"dev-{n}", "password": "pw", "is_superuser": n == 3} for n in range(6)]
    with EmqxHook() as hook:
        outcomes = list(hook.provision_users(rows))
        assert [row.outcome for row in outcomes] == ["written"] * 3 + ["rejected"] + ["written"] * 2
        assert "cannot be a superuser" in outcomes[3].reason
        # the broker itself refuses the same
        reply = hook.request(
            "POST",
            "/authentication/password_based:built_in_database/import_users",
            params={"type": "plain"},
            json=[{"user_id": "x", "password": "x", "namespace": "tenant-1", "is_superuser": True}],
        )
    assert (reply["failed"], reply["success"]) == (1, 0)

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.provisioning.blocks import Block, Format
from airflow_provider_emqx.provisioning.shards import Shard
from airflow_provider_emqx.provisioning.sources import read_source
from airflow_provider_emqx.provisioning.task import provision
from airflow_provider_emqx.provisioning.terms import UserTerms


def run(rows: Any, **terms: Any) -> dict[str, Any]:
    terms = {"mode": "sync", "scope": "d*", **terms}
    with EmqxHook() as hook:
        return provision(hook, read_source(rows, Format()), UserTerms(**terms), lambda summary: None)


def rows(*numbers: int, password: str = "p") -> list[dict[str, Any]]:
    return [{"user_id": f"d{i}", "password": f"{password}{i}"} for i in numbers]


@pytest.fixture
def filled(broker: Any) -> Any:
    """A broker with the users d0 to d9, and two of somebody else."""
    with EmqxHook() as hook:
        for user_id in [f"d{i}" for i in range(10)] + ["other", "x-d1"]:
            hook.create_user(user_id, "old")
    broker.requests.clear()
    return broker


def ids(broker: Any) -> set[str]:
    return set(broker.users)


def deletions(broker: Any) -> list[Any]:
    return [request for request in broker.requests if request.method == "DELETE"]


@pytest.mark.parametrize("version", ["4.4.19", "5.6.1", "5.8.9"])
def test_the_users_in_scope_become_those_of_the_source(filled: Any) -> None:
    summary = run(rows(*range(3, 13)))
    assert ids(filled) == {f"d{i}" for i in range(3, 13)} | {"other", "x-d1"}
    assert filled.verify("d5", "p5")
    assert (summary["read"], summary["written"], summary["pruned"]) == (10, 10, 3)
    assert run(rows(*range(3, 13)))["pruned"] == 0


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ("*", {"d1"}),
        ("d*", {"d1", "other", "x-d1"}),
        ("*d1", {f"d{i}" for i in range(10)} | {"other"}),
        (["d5", "x-*"], {f"d{i}" for i in range(10) if i != 5} | {"other"}),
        (["d?*", "d[5-9]*", "nobody"], {f"d{i}" for i in range(10)} | {"other", "x-d1"}),
        ("nobody*", {f"d{i}" for i in range(10)} | {"other", "x-d1"}),
    ],
)
def test_in_the_scope_a_star_is_any_text_and_all_else_itself(filled: Any, scope: Any, left: set[str]) -> None:
    run(rows(1), scope=scope)
    assert ids(filled) == left


def test_protected_users_and_superusers_are_never_deleted(filled: Any, version: str) -> None:
    superusers = set()
    if version.startswith("5"):
        with EmqxHook() as hook:
            hook.create_user("d-root", "p", is_superuser=True)
        superusers = {"d-root"}
    summary = run(rows(1), protect=["d2", "d3*", "*4", "d[56]"])
    assert ids(filled) == {"d1", "d2", "d3", "d4", "other", "x-d1"} | superusers
    assert summary["pruned"] == 6


def test_more_deletions_than_allowed_are_none(filled: Any) -> None:
    for allowed in (2, "29%", 0.29, 0):
        with pytest.raises(EmqxConfigError, match=r"3 of 10 users in scope .* none were deleted"):
            run(rows(*range(3, 13)), max_deletes=allowed)
        assert not deletions(filled)
        # those who came with the failed run were no part of the share
        with EmqxHook() as hook:
            for user_id in ("d10", "d11", "d12"):
                hook.delete_user(user_id)
        filled.requests.clear()
    assert run(rows(*range(3, 13)), max_deletes="30%")["pruned"] == 3


def test_a_wrong_file_does_not_hide_behind_the_users_that_it_brings(filled: Any) -> None:
    wrong = [{"user_id": f"d-new-{i}", "password": "p"} for i in range(200)]
    with pytest.raises(EmqxConfigError, match="10 of 10 users in scope"):
        run(wrong, max_deletes="50%")
    assert not deletions(filled)


def test_by_default_a_tenth_or_a_hundred_may_be_deleted() -> None:
    terms = UserTerms(mode="sync", scope="d*")
    assert [terms.deletes(in_scope) for in_scope in (5, 999, 1_001, 50_000)] == [100, 100, 100, 5_000]


def test_rejected_rows_count_as_present(filled: Any) -> None:
    bad = [
        {"user_id": "d2", "password": ""},
        {"user_id": "d3"},
        {"user_id": "d1", "password": "again"},
        {"user_id": "d4", "password": "p", "is_superuser": "perhaps"},
    ]
    summary = run([*rows(1), *bad])
    assert summary["rejected"] == 4
    assert ids(filled) == {"d1", "d2", "d3", "d4", "other", "x-d1"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", 'user_id,password\nd1,p\nd2,too,many\nd3\n"d4,open quote\n'),
        (
            "x.jsonl",
            '{"user_id": "d1", "password": "p"}\n{"user_id": "d2", "pass\nd3\n{"user_id":"d3"\n["user_id", "d4"]\n',
        ),
        (
            "x.jsonl",
            '{"user_id": "d1", "password": "p"}\n{"user_id: "d2", "password": "p"}\n{user_id: d3}\n["d4"\n',
        ),
        (
            "x.jsonl",
            '{"user_id": "d1", "password": "p"}\n[{"user_id": "d2"}]\n{"user_id": "\\u00643", }\n[["d4"], 5]\n',
        ),
    ],
)
def test_a_row_too_broken_to_have_an_id_keeps_the_user_that_it_may_have_meant(
    filled: Any, tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    summary = run(path)
    assert summary["written"] == 1
    assert summary["rejected"] >= 3
    assert ids(filled) >= {"d1", "d2", "d3", "d4", "other", "x-d1"}
    assert "d9" not in ids(filled)


def test_nobody_is_deleted_when_an_id_cannot_be_read(
    filled: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("user_id,password\nd1,p\nd-mü,p\n".encode("latin-1"))
    assert run(path)["pruned"] == 0
    assert not deletions(filled)
    assert "Nobody is deleted" in caplog.text


@pytest.mark.parametrize("mode", ["sync", "prune"])
@pytest.mark.parametrize("user_id", [["d2"], {"id": "d2"}, 2.0, True, "d\udcfc"])
def test_nobody_is_deleted_when_an_id_is_none(
    filled: Any, caplog: pytest.LogCaptureFixture, mode: str, user_id: Any
) -> None:
    given = [*rows(1), {"user_id": user_id, "password": "p"}]
    with EmqxHook() as hook:
        hook.create_user("true", "old")
        before = ids(filled)
        summary = run(given, mode=mode, scope="*", max_deletes="100%")
        assert (summary["rejected"], summary["pruned"]) == (1, 0)
        told = list(hook.provision_users(given, mode, scope="*", max_deletes="100%"))
    assert "pruned" not in {outcome.outcome for outcome in told}
    assert ids(filled) == before
    assert not deletions(filled)
    assert caplog.text.count("Nobody is deleted: 1 rows have an id that cannot be read") == 2


def test_nobody_is_deleted_for_a_source_without_rows(filled: Any) -> None:
    assert run([])["pruned"] == 0
    assert not deletions(filled)


def test_nobody_is_deleted_when_the_file_was_changed_while_it_was_read(filled: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("user_id,password\nd1,p\n")
    source = read_source(path, Format())

    def growing() -> Iterator[Block]:
        yield next(source.blocks)
        with open(path, "a") as file:
            file.write("d2,p\n")
        yield from source.blocks

    with EmqxHook() as hook, pytest.raises(EmqxError, match="x.csv was changed while it was read") as caught:
        terms = UserTerms(mode="sync", scope="d*")
        provision(hook, source._replace(blocks=growing()), terms, lambda summary: None)
    assert not isinstance(caught.value, EmqxConfigError)  # the next attempt may find it at rest
    assert filled.verify("d1", "p")
    assert not deletions(filled)


def test_nobody_is_deleted_after_a_read_error(filled: Any) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from rows(1, 2)
        raise EmqxError("broke off")

    with pytest.raises(EmqxError, match="broke off"):
        run(source())
    assert not deletions(filled)
    assert filled.verify("d1", "p1")


def test_nobody_is_deleted_after_a_failed_write(filled: Any) -> None:
    filled.order_fault("status", status=401, match="POST ", times=9)
    with pytest.raises(EmqxAuthError):
        run(rows(1))
    assert not deletions(filled)


@pytest.mark.parametrize("terms", [{"on_rejected": "fail"}, {"max_rejected": 0}])
def test_nobody_is_deleted_when_too_many_rows_are_rejected(filled: Any, terms: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError, match="1 of 2 rows were rejected"):
        run([*rows(1), {"user_id": ""}], **terms)
    assert not deletions(filled)


def test_a_dry_run_is_a_plan_in_counts_and_as_a_file(filled: Any, tmp_path: Path) -> None:
    report = tmp_path / "would-be.jsonl"
    summary = run([*rows(8, 9, 10), {"user_id": "."}], dry_run=True, report_path=report, protect="d7")
    wanted = {"read": 4, "written": 3, "created": 1, "updated": 2, "rejected": 1, "pruned": 7}
    assert {name: summary[name] for name in wanted} == wanted
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["id"], line["outcome"]) for line in lines[:4]] == [
        ("d8", "written"),
        ("d9", "written"),
        ("d10", "written"),
        (".", "rejected"),
    ]
    assert {(line["id"], line["outcome"], line["line"]) for line in lines[4:]} == {
        (f"d{i}", "pruned", None) for i in range(7)
    }
    assert all(request.method == "GET" for request in filled.requests)
    assert len(ids(filled)) == 12


def test_a_dry_run_lists_whom_the_guard_keeps_and_fails_like_the_run(filled: Any, tmp_path: Path) -> None:
    report = tmp_path / "would-be.jsonl"
    with pytest.raises(EmqxConfigError, match="7 of 10 users in scope"):
        run(rows(0, 1, 2), dry_run=True, report_path=report, max_deletes=6)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    pruned = [line["id"] for line in lines if line["outcome"] == "pruned"]
    assert sorted(pruned) == [f"d{i}" for i in range(3, 10)]
    assert all(request.method == "GET" for request in filled.requests)


def test_deletions_are_in_the_report(filled: Any, tmp_path: Path) -> None:
    report = tmp_path / "r.csv"
    run(rows(*range(1, 10)), report_path=report)
    assert "d0,,pruned,this user is not in the source" in report.read_text()


ODD = ["", ".", "..", "d" * 7_900]


@pytest.fixture
def odd(broker: Any) -> list[str]:
    """
    A broker with users that no request can name, and d0 to d4.

    :return: the ids of the former.
    """
    for user_id in [*ODD, *(f"d{i}" for i in range(5))]:
        broker.add_user(user_id, "old")
    if broker.version == "4.4.19":
        return ODD
    with EmqxHook() as hook:
        # EMQX 5 takes a number for an id
        path = "/authentication/password_based%3Abuilt_in_database/users"
        hook.request("POST", path, json={"user_id": 7, "password": "old"})
    return [*ODD, "7"]


@pytest.mark.parametrize("version", ["4.4.19", "5.6.1", "5.8.9"])
@pytest.mark.parametrize("mode", ["sync", "prune"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_users_that_no_request_can_name_are_told_and_the_others_deleted(
    broker: Any, odd: list[str], mode: str, dry_run: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = tmp_path / "r.jsonl"
    # the guard counts whom it would delete
    summary = run(rows(0, 1), mode=mode, scope="*", max_deletes=3, report_path=report, dry_run=dry_run)
    assert (summary["pruned"], summary["unaddressable"], summary["rejected"]) == (3, len(odd), 0)
    told = [json.loads(line) for line in report.read_text().splitlines()]
    left = [line["id"] for line in told if line["outcome"] == "unaddressable"]
    assert sorted(left) == sorted(user_id[:1_000] + "…" * (len(user_id) > 1_000) for user_id in odd)
    assert sorted(line["id"] for line in told if line["outcome"] == "pruned") == ["d2", "d3", "d4"]
    assert {f"d{i}" for i in range(2 if not dry_run else 5)} | set(ODD) == {
        user_id for user_id in broker.users if isinstance(user_id, str)
    }
    assert f"{len(odd)} users in scope are not in the source but stay" in caplog.text


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_outcomes_of_a_hook_have_users_that_no_request_can_name(odd: list[str], dry_run: bool) -> None:
    with EmqxHook() as hook:
        found = list(hook.provision_users(rows(0), mode="prune", scope="*", dry_run=dry_run))
    assert [one.outcome for one in found] == ["skipped", *["unaddressable"] * len(odd), *["pruned"] * 4]


def test_users_that_no_request_can_name_can_be_protected_or_out_of_scope(odd: list[str], broker: Any) -> None:
    protect = ["", ".", "..", "ddd*", "7"]
    assert run(rows(*range(5)), mode="prune", scope="*", protect=protect)["unaddressable"] == 0
    assert run(rows(*range(5)), mode="prune", scope="d*")["unaddressable"] == 1
    # a row that names one is rejected as ever, and the user counts as named
    summary = run([{"user_id": ".."}, *rows(*range(5))], mode="prune", scope=".*")
    assert (summary["rejected"], summary["unaddressable"]) == (1, 1)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"mode": "sync"}, "set scope"),
        ({"mode": "sync", "scope": ""}, "set scope"),
        ({"mode": "sync", "scope": [""]}, "scope must be text"),
        ({"mode": "sync", "scope": [5]}, "scope must be text"),
        ({"mode": "sync", "scope": "dev-"}, r"scope 'dev-' is the id of one user; write 'dev-\*'"),
        ({"mode": "sync", "scope": "d*", "max_deletes": "lots"}, "max_deletes must be a count"),
        ({"mode": "upsert", "scope": "d*"}, "are for the modes"),
        ({"mode": "delete", "max_deletes": 5}, "are for the modes"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(EmqxConfigError, match=message):
        UserTerms(**terms)


def test_pruning_alone_writes_nothing_and_needs_no_passwords(filled: Any, tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    source = [{"user_id": f"d{i}"} for i in range(3, 13)] + [{"user_id": ""}]
    summary = run(source, mode="prune", report_path=report)
    assert (summary["read"], summary["skipped"], summary["rejected"], summary["pruned"]) == (11, 10, 1, 3)
    assert ids(filled) == {f"d{i}" for i in range(3, 10)} | {"other", "x-d1"}
    assert filled.verify("d5", "old")
    outcomes = [json.loads(line)["outcome"] for line in report.read_text().splitlines()]
    assert outcomes == ["rejected", "pruned", "pruned", "pruned"]


@pytest.mark.parametrize("mode", ["sync", "prune"])
def test_a_shard_never_deletes_the_users_of_the_others(mode: str) -> None:
    with pytest.raises(EmqxConfigError, match="needs the whole source"):
        UserTerms(mode=mode, scope="d*", shard=Shard(0, 2))


def test_a_protected_id_is_one_user_and_a_pattern_many() -> None:
    from airflow_provider_emqx.provisioning.terms import UserTerms

    terms = UserTerms("sync", scope="dev-*", protect=["dev-1", "dev-a*"])
    protected, scope = terms.protected().fullmatch, terms.in_scope().fullmatch
    assert [bool(protected(one)) for one in ("dev-1", "dev-10", "dev-1\n", "dev-ab", "xdev-ab")] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert [bool(scope(one)) for one in ("dev-1", "dev", "xdev-1")] == [True, False, False]


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_deletion_that_is_refused_ends_the_run_and_is_not_counted(filled: Any) -> None:
    filled.order_fault(
        "status", match="DELETE", status=400, body=b'{"code":"BAD_REQUEST","message":"no"}', times=1
    )
    with pytest.raises(EmqxError, match="BAD_REQUEST"):
        run(rows(*range(5)))
    assert len(ids(filled) & {f"d{i}" for i in range(5, 10)}) == 1


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_user_that_somebody_else_deleted_first_is_not_counted(filled: Any) -> None:
    filled.order_fault("status", match="DELETE", status=404, body=b'{"code":"NOT_FOUND","message":"no"}')
    assert run(rows(*range(5)))["pruned"] == 4

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxAuthError, EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.provisioning.blocks import Format
from airflow_provider_emqx.provisioning.sources import read_source
from airflow_provider_emqx.provisioning.state import State
from airflow_provider_emqx.provisioning.task import provision
from airflow_provider_emqx.provisioning.terms import UserTerms


def run(state: Path | str, rows: list[dict[str, Any]], **terms: Any) -> dict[str, Any]:
    with EmqxHook() as hook:
        full = UserTerms(**{"state_path": state, "pepper": "pepper", **terms})
        return provision(hook, read_source(rows, Format()), full, lambda summary: None)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"user_id": f"d{i}", "password": f"S3cret{i}"} for i in range(count)]


def writes(broker: Any) -> list[Any]:
    return [request for request in broker.requests if request.method != "GET"]


def _overwrites(method: str, path: str) -> bool:
    return method == "PUT" or "/import_users" in path


def test_unchanged_rows_are_not_sent_again(broker: Any, tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    assert run(state, rows(700))["unchanged"] in (0, None)
    broker.requests.clear()
    again = run(state, rows(700))
    assert (again["written"], again["unchanged"]) == (700, 700)
    assert not writes(broker)
    changed = rows(700)
    changed[5]["password"] = "new"
    third = run(state, [*changed, {"user_id": "more", "password": "p"}])
    assert (third["written"], third["created"], third["updated"], third["unchanged"]) == (701, 1, 1, 699)
    assert broker.verify("d5", "new")
    assert broker.verify("d6", "S3cret6")


def test_a_user_that_the_broker_has_lost_is_sent_again(broker: Any, tmp_path: Path) -> None:
    run(tmp_path / "state", rows(5))
    with EmqxHook() as hook:
        hook.delete_user("d3")
    assert run(tmp_path / "state", rows(5))["unchanged"] == 4
    assert broker.verify("d3", "S3cret3")


def test_the_file_is_its_owners_and_tells_neither_ids_nor_passwords(broker: Any, tmp_path: Path) -> None:
    run(tmp_path / "state", rows(20))
    content = (tmp_path / "state").read_bytes()
    assert b"S3cret" not in content
    assert b"d1" not in content.replace(b"emqx-provisioning-state 1", b"")
    assert len(content) == 26 + 16 + 20 * 16
    assert stat.S_IMODE(os.stat(tmp_path / "state").st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state"]


def test_it_may_lie_in_object_storage(broker: Any, tmp_path: Path) -> None:
    location = f"file://{tmp_path}/state"
    run(location, rows(5))
    assert run(location, rows(5))["unchanged"] == 5


def test_the_state_of_another_broker_or_pepper_is_refused(broker: Any, tmp_path: Path) -> None:
    run(tmp_path / "state", rows(5))
    with pytest.raises(EmqxConfigError, match="another broker or was made with another pepper"):
        run(tmp_path / "state", rows(5), pepper="other")
    broker.stop()
    with type(broker)(broker.version) as other, pytest.MonkeyPatch.context() as patch:
        import json

        patch.setenv("AIRFLOW_CONN_EMQX_DEFAULT", json.dumps(other.connection()))
        with pytest.raises(EmqxConfigError, match="another broker"):
            run(tmp_path / "state", rows(5))
        assert not other.users


@pytest.mark.parametrize("content", [b"", b"nonsense", b"emqx-provisioning-state 1\n" + b"x" * 17])
def test_a_damaged_state_is_refused(broker: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(EmqxConfigError, match="delete it"):
        run(tmp_path / "state", rows(5))
    assert not writes(broker)


def test_what_was_done_before_a_failure_is_remembered(broker: Any, tmp_path: Path) -> None:
    broker.order_fault("status", status=401, match="POST ", after=1, times=9)
    with pytest.raises(EmqxAuthError):
        run(tmp_path / "state", rows(2_000))
    done = len(broker.users)
    assert done == 500
    broker.clear_faults()
    assert run(tmp_path / "state", rows(2_000))["unchanged"] == done


def test_a_row_that_is_taken_back_after_a_failure_is_sent_again(broker: Any, tmp_path: Path) -> None:
    good, wrong = rows(1), [{"user_id": "d0", "password": "wrong"}]
    run(tmp_path / "state", good)
    broker.order_fault("reset_after", match=_overwrites, times=99)
    with pytest.raises(EmqxError):
        run(tmp_path / "state", wrong)
    broker.clear_faults()
    assert broker.verify("d0", "wrong")
    run(tmp_path / "state", good)
    assert broker.verify("d0", "S3cret0")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_row_that_is_taken_back_after_a_kill_is_sent_again(
    broker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    state = f"{scheme}{tmp_path}/state"
    left = []

    def look(method: str, path: str) -> bool:
        if _overwrites(method, path):
            left.append((tmp_path / "state").read_bytes())
        return False

    good, wrong = rows(3), [*rows(2), {"user_id": "d2", "password": "wrong"}]
    run(state, good)
    assert "was killed" not in caplog.text
    broker.order_fault("status", match=look)
    run(state, wrong)
    broker.clear_faults()
    # what a process leaves that is killed while it waits for the broker
    (tmp_path / "state").write_bytes(left[0])
    assert broker.verify("d2", "wrong")
    broker.requests.clear()
    planned = run(state, good, dry_run=True)
    assert (planned["unchanged"], writes(broker)) == (0, [])
    caplog.clear()
    assert run(state, good)["unchanged"] in (0, None)
    assert "was killed before its end" in caplog.text
    assert broker.verify("d2", "S3cret2")
    caplog.clear()
    assert run(state, good)["unchanged"] == 3
    assert "was killed" not in caplog.text


def test_a_run_that_sends_nothing_leaves_the_file_alone(broker: Any, tmp_path: Path) -> None:
    assert run(tmp_path / "state", [])["read"] == 0
    assert not (tmp_path / "state").exists()
    run(tmp_path / "state", rows(3))
    before = os.stat(tmp_path / "state")
    run(tmp_path / "state", rows(3))
    after = os.stat(tmp_path / "state")
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_state_that_cannot_be_written_is_told_before_anything_is_sent(broker: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmqxConfigError, match="the state .* cannot be"):
        run(f"file://{tmp_path}/file/state", rows(3))
    assert not writes(broker)


def test_two_runs_that_write_one_state_do_not_disturb_each_other(
    broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, written = os.replace, []

    def and_another(part: str, target: str) -> None:
        written.append(part)
        if len(written) == 1:
            with EmqxHook() as hook:
                State(tmp_path / "state", "pepper", hook).forget([{"user_id": "other"}])
        replace(part, target)

    monkeypatch.setattr(os, "replace", and_another)
    run(tmp_path / "state", rows(3))
    assert len(set(written)) == 3
    assert {os.path.dirname(part) for part in written} == {str(tmp_path)}
    assert os.listdir(tmp_path) == ["state"]
    assert run(tmp_path / "state", rows(3))["unchanged"] == 3


def test_a_state_that_cannot_be_put_in_place_leaves_nothing_behind(
    broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(part: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(EmqxConfigError, match=r"the state '.*/state' cannot be written: No space left"):
        run(tmp_path / "state", rows(3))
    assert not os.listdir(tmp_path)
    assert not writes(broker)


def test_rejected_rows_are_not_remembered(broker: Any, tmp_path: Path, version: str) -> None:
    given = [*rows(3), {"user_id": "root", "password": "p", "is_superuser": True}]
    run(tmp_path / "state", given)
    again = run(tmp_path / "state", given)
    assert (again["unchanged"], again["rejected"]) == ((3, 1) if version.startswith("4") else (4, 0))


def test_a_dry_run_neither_makes_nor_changes_it(broker: Any, tmp_path: Path) -> None:
    run(tmp_path / "state", rows(3), dry_run=True)
    assert not (tmp_path / "state").exists()
    run(tmp_path / "state", rows(3))
    content = (tmp_path / "state").read_bytes()
    planned = run(tmp_path / "state", rows(5), dry_run=True)
    assert (planned["created"], planned["updated"], planned["unchanged"]) == (2, 0, 3)
    assert (tmp_path / "state").read_bytes() == content


def test_a_changed_flag_is_a_change(broker: Any, tmp_path: Path) -> None:
    with EmqxHook() as hook:
        state = State(tmp_path / "state", "pepper", hook)
        user = {"user_id": "a", "password": "p", "is_superuser": False}
        state.note([user])
        assert state.knows(user)
        assert not state.knows({**user, "is_superuser": True})
        many = [{"user_id": f"d{i}", "password": str(i)} for i in range(10_000)]
        state.forget(many)
        state.note(many)
        state.save()
        loaded = State(tmp_path / "state", "pepper", hook)
        assert len(loaded) == len(state) == 10_001
        assert all(loaded.knows({"user_id": f"d{i}", "password": str(i)}) for i in range(10_000))
        assert not loaded.knows({"user_id": "d1", "password": "2"})
        assert not loaded.knows({"user_id": "nobody", "password": "2"})


@pytest.mark.parametrize("terms", [{"mode": "create"}, {"mode": "delete"}, {"pepper": ""}])
def test_a_state_with_another_mode_or_no_pepper_is_refused(terms: dict[str, Any]) -> None:
    with pytest.raises(EmqxConfigError, match="state"):
        UserTerms(**{"state_path": "x", "pepper": "p", **terms})


@pytest.mark.parametrize("version", ["5.8.9"])
def test_a_row_that_was_refused_is_not_remembered(broker: Any, tmp_path: Path) -> None:
    changed = [{"user_id": "d0", "password": "new"}, *rows(2)[1:]]
    run(tmp_path / "state", rows(2))
    refusal = b'{"code":"BAD_REQUEST","message":"no"}'
    broker.order_fault("status", match="import_users", status=400, body=refusal, times=9)
    assert run(tmp_path / "state", changed)["rejected"] == 1
    broker.clear_faults()
    assert run(tmp_path / "state", changed)["written"] == 2
    assert broker.verify("d0", "new")

"""Plans of restores, and of the deletion of old backups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.hooks.emqx import EmqxHook
from airflow_provider_emqx.operators.cluster import EmqxBackupOperator, EmqxRestoreOperator
from airflow_provider_emqx.plans.approval import approval_body
from tests.operators.run import execute, sent
from tests.plans.made import changes


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plan.jsonl"


def backups(broker: Any, directory: Path, count: int) -> list[str]:
    """Take some, a day after each other; return their names."""
    names = []
    for _ in range(count):
        names.append(execute(EmqxBackupOperator, backup_dir=str(directory))["filename"])
        broker.advance(86_400)
    return names


def test_old_backups_are_deleted_as_planned(broker: Any, plan: Path, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    names = backups(broker, directory, 4)
    keep: dict[str, Any] = {"backup_dir": str(directory), "keep": 3, "keep_on_broker": 4}
    broker.requests.clear()
    looked = execute(EmqxBackupOperator, dry_run=True, **keep)
    assert (looked["deleted"], looked["deleted_on_broker"]) == (names[:2], names[:1])
    assert (looked["filename"], looked["plan"], sent(broker)) == (None, None, [])
    execute(EmqxBackupOperator, dry_run=True, plan_path=plan, **keep)
    assert [kind for kind, _ in changes(plan)] == ["delete", "delete", "delete_on_broker"]
    assert approval_body(plan).startswith("### Delete old backups: 3 changes")
    done = execute(EmqxBackupOperator, plan_path=plan, **keep)
    assert (done["plan"]["done"], done["plan"]["not_done"]) == (3, {})
    assert sorted(path.name for path in directory.iterdir()) == sorted([*names[2:], done["filename"]])
    with EmqxHook() as hook:
        assert names[0] not in {row["filename"] for row in hook.list_backups()}
    again = execute(EmqxBackupOperator, plan_path=plan, **keep)
    assert (again["filename"], again["plan"]["not_done"]) == (None, {"before": 3})


def test_the_first_backup_needs_no_directory(broker: Any, plan: Path, tmp_path: Path) -> None:
    keep: dict[str, Any] = {"backup_dir": str(tmp_path / "new"), "keep": 1}
    assert execute(EmqxBackupOperator, dry_run=True, plan_path=plan, **keep)["deleted"] == []
    assert changes(plan) == []
    done = execute(EmqxBackupOperator, plan_path=plan, **keep)
    assert Path(done["backup_path"]).exists()


def test_another_backup_is_another_plan(broker: Any, plan: Path, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    names = backups(broker, directory, 2)
    keep: dict[str, Any] = {"backup_dir": str(directory), "keep": 1}
    execute(EmqxBackupOperator, dry_run=True, plan_path=plan, **keep)
    (other,) = backups(broker, directory, 1)
    broker.requests.clear()
    with pytest.raises(EmqxConfigError, match=rf"1 would be new: '{other}' \(new: delete\)"):
        execute(EmqxBackupOperator, plan_path=plan, **keep)
    assert sent(broker) == []
    assert sorted(path.name for path in directory.iterdir()) == sorted([*names, other])


def test_an_attempt_that_failed_after_its_backup_does_not_delete_more(
    broker: Any, plan: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "backups"
    names = backups(broker, directory, 3)
    keep: dict[str, Any] = {"backup_dir": str(directory), "keep": 3, "keep_on_broker": 3}
    execute(EmqxBackupOperator, dry_run=True, plan_path=plan, **keep)
    broker.order_fault("status", status=403, match=lambda method, path: method == "DELETE", times=9)
    with pytest.raises(EmqxError):
        execute(EmqxBackupOperator, plan_path=plan, **keep)
    broker.clear_faults()
    broker.advance(86_400)
    done = execute(EmqxBackupOperator, plan_path=plan, **keep)
    assert done["deleted_on_broker"] == names[:1]
    # two attempts have made two backups, and one old one is gone
    assert len(list(directory.iterdir())) == 4
    assert names[0] not in {path.name for path in directory.iterdir()}


def test_exactly_the_planned_backup_is_restored(broker: Any, plan: Path, tmp_path: Path) -> None:
    broker.add_user("kept", "secret-1")
    made = execute(EmqxBackupOperator, backup_dir=str(tmp_path / "a"))
    path = Path(made["backup_path"])
    broker.users.clear()
    execute(EmqxRestoreOperator, backup_path=path, dry_run=True, plan_path=plan)
    assert {kind for kind, _ in changes(plan)} == {"import"}
    broker.requests.clear()
    broker.add_user("another", "x")
    other = execute(EmqxBackupOperator, backup_dir=str(tmp_path / "b"))
    broker.requests.clear()
    with pytest.raises(EmqxConfigError, match="the source has changed since it was made"):
        execute(EmqxRestoreOperator, backup_path=other["backup_path"], plan_path=plan)
    assert sent(broker) == []
    done = execute(EmqxRestoreOperator, backup_path=path, plan_path=plan)
    assert done["plan"]["done"] == len(changes(plan))
    assert "kept" in broker.users
    broker.requests.clear()
    again = execute(EmqxRestoreOperator, backup_path=path, plan_path=plan)
    assert (again["node"], sent(broker)) == (None, [])

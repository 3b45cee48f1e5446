from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator
from airflow_provider_emqx.plans.approval import approval_body
from airflow_provider_emqx.plans.file import Change, Head, draft
from tests.operators.run import execute

MADE = datetime(2026, 11, 28, 10, 30, tzinfo=UTC)


def body(path: Path, *ids: str, **facts: Any) -> str:
    head = Head("users", {"origin": "https://b"}, {"mode": "sync", "scope": "d`"}, MADE, ["s3://x/d.csv"])
    with draft(path, head) as file:
        file.add([Change("create", name) for name in ids])
        file.finish(facts)
    return approval_body(path)


def test_a_body_tells_what_would_be_done(broker: Any, tmp_path: Path) -> None:
    for number in range(20):
        broker.add_user(f"d-old-{number}", "p")
    rows = [{"user_id": f"d{number}", "password": "p"} for number in range(12)]
    rows += [{"user_id": f"e{number}", "password": ""} for number in range(3)]
    plan = tmp_path / "plan.jsonl"
    execute(
        EmqxProvisionUsersOperator,
        source=rows,
        mode="sync",
        scope="d*",
        max_deletes=25,
        dry_run=True,
        plan_path=plan,
    )
    told = approval_body(plan)
    assert "### Users: 32 changes" in told
    assert f"- Broker: `'{broker.url}'`" in told
    assert "- scope: `'d*'`" in told
    assert "**create: 12**\n\n- `'d0'`" in told
    assert told.count("- `'d") == 20
    assert "- and 2 more" in told
    assert "- and 10 more" in told
    assert "**max_deletes: 20 of 20, 25 allowed, 80% of the limit**" in told
    assert "**Rows: 15 read, 3 rejected, 0 skipped**" in told
    assert "- 3 rejected: `'password is empty'`, for example line 13, id `'e0'`" in told


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1)</script>", "- `'<script>alert(1)</script>'`"),
        ("![x](http://spy)", "- `'![x](http://spy)'`"),
        ("a`b", "- `` 'a`b' ``"),
        ("``` \n# Approve me", "- ```` '``` \\n# Approve me' ````"),
        ("\u202eevil\u200b", "- `'\\u202eevil\\u200b'`"),
        ("{{ 7 * 7 }}", "- `'{{ 7 * 7 }}'`"),
        ("", "- `''`"),
        (" a ", "- `' a '`"),
        ("x" * 5_000, f"- `'{'x' * 199}…`"),
    ],
)
def test_ids_cannot_write_into_the_body(tmp_path: Path, name: str, shown: str) -> None:
    told = body(tmp_path / "plan.jsonl", name)
    assert shown in told.splitlines()
    assert "- scope: `` 'd`' ``" in told.splitlines()


def test_it_says_why_nobody_is_deleted(tmp_path: Path) -> None:
    assert "**Nobody is deleted:** `'the source has no rows'`" in body(
        tmp_path / "plan.jsonl", withheld="the source has no rows"
    )


def test_a_plan_that_was_edited_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    body(path, "a", "b")
    path.write_text(path.read_text().replace('"b"', '"c"'))
    with pytest.raises(EmqxConfigError, match="it was changed after it was written"):
        approval_body(path)

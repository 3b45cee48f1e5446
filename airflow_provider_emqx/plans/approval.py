"""The text that a person reads before approving a plan."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from airflow_provider_emqx.files import Location
from airflow_provider_emqx.plans.file import Plan

#: changes of each kind that are shown
_FIRST = 10
#: characters of an id or a reason that are shown
_LONGEST = 200
#: what is shown of the options
_OPTIONS = ("mode", "scope", "protect", "max_deletes", "max_affected", "exclude")
_JOBS = {
    "users": "Users",
    "acl_rules": "ACL rules",
    "kick": "Kick clients",
    "ban": "Ban",
    "unban": "End bans",
    "clear_retained": "Delete retained messages",
    "restore": "Restore a backup",
    "backup": "Delete old backups",
}


def approval_body(plan_path: Location) -> str:
    """
    Return a plan as Markdown, for the ``body`` of Airflow's ``ApprovalOperator``: how many changes there are of each
    kind, the first ten of each, what would be deleted and how near that is to the limit, and why rows were rejected.

    Ids and reasons come from devices and files, so they are shown as code, with everything escaped that is not
    printable.

    :param plan_path: path or URL of the plan.
    :raises EmqxConfigError: if it is not a plan, is cut, or was changed after it was written.
    """
    plan = Plan(plan_path)
    first: dict[str, list[str]] = {}
    for block in plan.changes():
        for change in block:
            shown = first.setdefault(change.kind, [])
            if len(shown) < _FIRST:
                shown.append(change.id)
    head, facts = plan.head, plan.facts
    total = sum(plan.kinds.values())
    parts = [
        f"### {_JOBS.get(head.job, head.job)}: {total:,} changes",
        "\n".join(
            [
                f"- Broker: {_code(head.broker.get('origin', ''))}",
                *(
                    f"- {name.capitalize()}: {_code(head.broker[name])}"
                    for name in ("authenticator", "namespace")
                    if head.broker.get(name)
                ),
                *([f"- Source: {', '.join(map(_code, head.sources))}"] if head.sources else []),
                *(
                    f"- {name}: {_code(value)}"
                    for name in _OPTIONS
                    if (value := head.options.get(name)) not in (None, "", [])
                ),
                f"- Made: {head.made:%Y-%m-%d %H:%M:%S} UTC",
                f"- Plan: {_code(plan.name)}, SHA-256 `{plan.digest}`",
            ]
        ),
    ]
    if withheld := facts.get("withheld"):
        parts.append(f"**Nobody is deleted:** {_code(withheld)}")
    parts += map(_guard, facts.get("guards", ()))
    for kind, ids in first.items():
        count = plan.kinds[kind]
        parts.append(f"**{kind.replace('_', ' ')}: {count:,}**\n\n{_list(map(_code, ids), count)}")
    if facts.get("read") is not None:
        rejected = facts.get("rejected", 0)
        parts.append(
            f"**Rows: {facts['read']:,} read, {rejected:,} rejected, {facts.get('skipped', 0):,} skipped**"
        )
        if reasons := facts.get("reasons"):
            parts.append(
                "\n".join(
                    f"- {reason['count']:,} {reason['outcome']}: {_code(reason['reason'])}, for example line "
                    f"{reason.get('line')}, id {_code(reason.get('id'))}"
                    for reason in reasons
                )
            )
    return "\n\n".join(parts) + "\n"


def _guard(held: dict[str, Any]) -> str:
    """Describe how near a limit is."""
    of = "" if held["of"] is None else f" of {held['of']:,}"
    near = f", {held['count'] / held['allowed']:.0%} of the limit" if held["allowed"] else ""
    return f"**{held['name']}: {held['count']:,}{of}, {held['allowed']:,} allowed{near}**"


def _list(items: Iterable[str], count: int) -> str:
    lines = [f"- {item}" for item in items]
    if count > len(lines):
        lines.append(f"- and {count - len(lines):,} more")
    return "\n".join(lines)


def _code(value: Any) -> str:
    """Show a value as code, in which Markdown and HTML mean nothing."""
    # repr() escapes line breaks and what is invisible
    text = repr(value)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if fence != "`" else f"`{text}`"

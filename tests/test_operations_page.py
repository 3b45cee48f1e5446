"""The table of operations is what the code says."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / ".ci" / "support.py"
_spec = importlib.util.spec_from_file_location("support", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
support = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(support)


def cells(name: str) -> list[str]:
    (line,) = [line for line in support.page().splitlines() if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_page_is_up_to_date() -> None:
    assert support.PAGE.read_text(encoding="utf-8") == support.page(), "run make operations"


def test_known_facts_are_told_right() -> None:
    assert cells("list_clients")[:4] == ["yes", "yes", "yes", "yes"]
    assert cells("list_retained")[:4] == ["–", "yes", "–", "yes"]
    assert cells("delete_retained")[:4] == ["yes", "yes", "yes", "yes"]
    assert cells("deactivate_alarm")[:4] == ["yes", "5.8.8+", "–", "yes"]
    assert cells("export_backup")[:4] == ["yes", "5.4+", "–", "–"]
    assert cells("create_user")[:4] == ["yes", "yes", "yes", "yes"]
    assert "`EmqxPublishOperator`" in cells("publish_in_parts")[4]
    assert "`EmqxProvisionAclOperator`" in cells("set_acl_rules")[4]
    assert "`EmqxClientOfflineSensor`" in cells("get_client")[5]


def test_every_operator_but_the_general_ones_is_in_the_table() -> None:
    text = support.page()
    # users are provisioned by operations of their own
    others = {"EmqxProvisionUsersOperator", "EmqxExportUsersOperator"}
    for cls in support.public_classes("operators"):
        assert f"`{cls.__name__}`" in text or cls.__name__ in others, inspect.getfile(cls)

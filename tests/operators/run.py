"""Runs one operator without Airflow's database."""

from __future__ import annotations

import json
from typing import Any, NotRequired, get_origin, get_type_hints


class TI:
    """Takes the place of a task instance."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = json.loads(json.dumps(value))


def execute(operator_class: type, ti: TI | None = None, **arguments: Any) -> Any:
    """
    Make an operator, execute it, and give its result, which must be fit for XCom.

    :param operator_class: the operator.
    :param ti: takes what is pushed to XCom.
    :param arguments: of the operator.
    """
    operator = operator_class(task_id="task", **arguments)
    result = operator.execute({"ti": ti or TI()})
    json.dumps(result)
    return result


def has_keys_of(result: Any, kind: type) -> bool:
    """Return whether a result has all keys that it must have, and no others than it may have."""
    hints = get_type_hints(kind, include_extras=True)
    required = {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
    return required <= set(result) <= set(hints)


def sent(broker: Any) -> list[str]:
    """Give what the broker was asked to do, without what only reads."""
    return [f"{served.method} {served.path}" for served in broker.requests if served.method != "GET"]


def ban(broker: Any, *names: str) -> None:
    """Ban usernames for ever, also those that the hook would refuse."""
    from airflow_provider_emqx.hooks.emqx import EmqxHook

    until: Any = 4_102_444_800 if broker.version.startswith("4") else "infinity"
    with EmqxHook() as hook:
        for name in names:
            row = {"as": "username", "who": name, "until": until, "reason": "", "by": "test"}
            hook.request("POST", "/banned", json=row)

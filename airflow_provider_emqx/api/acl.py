"""
ACL rules with one meaning on both generations.

The rules of one subject are an ordered list; the first that matches topic and action decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_emqx.api.base import Row, path
from airflow_provider_emqx.api.names import topic_filter
from airflow_provider_emqx.exceptions import EmqxConfigError

Subject = str | Mapping[str, str] | tuple[str, str]

#: the broker's own limit for one subject, unless configured otherwise
_FIELDS = ("topic", "permission", "action", "qos", "retain")
_ALL_QOS = [0, 1, 2]


def read_subject(subject: Subject) -> tuple[str, str]:
    """
    Read whose rules are meant.

    :param subject: ``{"username": "alice"}``, ``{"clientid": "dev-1"}``, the same as ``"username:alice"`` and
        ``"clientid:dev-1"``, or ``"all"``.
    :return: ``("username", "alice")``, ``("clientid", "dev-1")`` or ``("all", "")``.
    :raises EmqxConfigError: for anything else, and for names that cannot stand in a path.
    """
    kind, name = "", ""
    if isinstance(subject, Mapping) and len(subject) == 1:
        ((kind, name),) = subject.items()
    elif isinstance(subject, str):
        kind, _, name = subject.partition(":")
    elif isinstance(subject, (tuple, list)) and len(subject) == 2:
        kind, name = subject
    if kind == "all" and name in ("", "all"):
        return "all", ""
    if kind not in ("username", "clientid"):
        raise EmqxConfigError(
            f"{str(subject)[:80]!r} names nobody whose ACL rules could be meant: give {{'username': …}}, "
            "{'clientid': …} or 'all'"
        )
    path(name)
    return kind, name


def read_rules(rules: Sequence[Mapping[str, Any]]) -> list[Row]:
    """
    Check ACL rules and write each one out in full.

    :param rules: dicts of ``topic`` (a filter; ``eq a/#`` means the filter itself; ``${clientid}`` and ``${username}``
        are filled in; EMQX 4 has no ``eq``, and fills in whole levels only), ``permission`` (``allow``, ``deny``), and
        optionally ``action`` (``publish``, ``subscribe``, ``all``, the default), ``qos`` (list of 0, 1, 2; by default
        all) and ``retain`` (``"all"``, the default, ``True``, ``False``).
    :raises EmqxConfigError: saying which rule is wrong and why.
    """
    given: Any = rules
    if not isinstance(given, (list, tuple)):
        raise EmqxConfigError(f"ACL rules must be a list of dicts, not {type(rules).__name__}")
    return [_read(rule, number) for number, rule in enumerate(rules, 1)]


def read_rule(rule: Mapping[str, Any]) -> Row:
    """
    Check one ACL rule and write it out in full, as :func:`read_rules` does.

    :raises EmqxConfigError: saying what is wrong.
    """
    if not isinstance(rule, Mapping):
        raise EmqxConfigError(f"must be a dict with topic and permission, not {type(rule).__name__}")
    unknown = [name for name in rule if name not in _FIELDS]
    if unknown:
        raise EmqxConfigError(f"has no field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    topic = rule.get("topic")
    plain = topic.removeprefix("eq ") if isinstance(topic, str) else topic
    topic_filter(plain)
    permission = _one_of("permission", rule.get("permission"), ("allow", "deny"))
    action = _one_of("action", rule.get("action") or "all", ("publish", "subscribe", "all"))
    return {
        "topic": topic,
        "permission": permission,
        "action": action,
        "qos": _qos(rule.get("qos")),
        "retain": _retain(rule.get("retain")),
    }


def merged(existing: Sequence[Row], added: Sequence[Row], position: str) -> list[Row]:
    """
    Put rules before or after existing ones; an existing rule equal to an added one is not kept twice.

    :param position: ``"first"`` or ``"last"``.
    """
    if position not in ("first", "last"):
        raise EmqxConfigError(f"position must be 'first' or 'last', not {position!r}")
    others = [rule for rule in existing if _core(rule) not in [_core(new) for new in added]]
    return [*added, *others] if position == "first" else [*others, *added]


def same_rules(one: Sequence[Row], other: Sequence[Row]) -> bool:
    """Tell whether two lists hold the same rules in the same order."""
    return [_core(rule) for rule in one] == [_core(rule) for rule in other]


def _core(rule: Row) -> Row:
    """Give a rule without what a newer broker may add to it."""
    return {name: rule.get(name) for name in _FIELDS}


def _read(rule: Any, number: int) -> Row:
    try:
        return read_rule(rule)
    except EmqxConfigError as error:
        raise EmqxConfigError(f"ACL rule {number}: {error.message}") from None


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise EmqxConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return str(value)


def _qos(value: Any) -> list[int]:
    if value is None or value == "":
        return list(_ALL_QOS)
    # a cell of a CSV file: "0,1"
    values = value.replace(",", " ").split() if isinstance(value, str) else value
    values = [values] if isinstance(values, int) else values
    if (
        not isinstance(values, (list, tuple))
        or not values
        or any(str(item) not in ("0", "1", "2") for item in values)
    ):
        raise EmqxConfigError(f"qos must be a list of 0, 1, 2, not {value!r}")
    return sorted({int(item) for item in values})


def _retain(value: Any) -> str | bool:
    text = str("all" if value is None or value == "" else value).lower()
    if text not in ("all", "true", "false"):
        raise EmqxConfigError(f"retain must be 'all', true or false, not {value!r}")
    return text if text == "all" else text == "true"

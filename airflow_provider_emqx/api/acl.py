"""
ACL rules with one meaning on both generations.

The rules of one subject are an ordered list; the first that matches topic and action decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from airflow_provider_emqx.api.base import Row, path
from airflow_provider_emqx.api.names import topic_filter
from airflow_provider_emqx.api.rows import AclRuleRow
from airflow_provider_emqx.arguments import choice, text, truth, wrong
from airflow_provider_emqx.choices import Position
from airflow_provider_emqx.exceptions import EmqxConfigError

Subject = str | Mapping[str, str] | tuple[str, str]

#: limits of a rule to some clients, which EMQX has since 5.9
CONDITIONS = ("username_re", "clientid_re", "ipaddr", "zone", "zone_re", "listener", "listener_re")
#: what a rule may hold
FIELDS = ("topic", "permission", "action", "qos", "retain", *CONDITIONS)
#: EMQX 4's placeholders; %c3 is a percent-encoded character
_OLD_PLACEHOLDER = re.compile(r"%([cu])(?![0-9A-Za-z])")
_PLACEHOLDERS = {"c": "${clientid}", "u": "${username}"}
#: what EMQX fills in; anything else between ${ and } it takes for plain text, which matches nothing
_FILLED_IN = re.compile(r"\$\{(clientid|username|cert_common_name|zone|client_attrs\.[^{}]+)\}")
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
            f"{str(subject)[:80]!r} is not a subject of ACL rules; expected {{'username': …}}, "
            "{'clientid': …} or 'all'"
        )
    path(name)
    return kind, name


def read_rules(rules: Sequence[Mapping[str, Any]]) -> list[Row]:
    """
    Check ACL rules and write each one out in full.

    :param rules: dicts of ``topic`` (a filter; ``eq a/#`` means the filter itself; ``${clientid}`` and ``${username}``
        are filled in, and ``%c`` and ``%u`` are taken for them; EMQX 4 has no ``eq``, and fills in whole levels only),
        ``permission`` (``allow``, ``deny``), and optionally ``action`` (``publish``, ``subscribe``, ``all``, the
        default), ``qos`` (list of 0, 1, 2; by default all) and ``retain`` (``"all"``, the default, ``True``,
        ``False``). On EMQX 5.9 and newer a rule may be limited to some clients: ``username_re`` and ``clientid_re``
        (regular expressions), ``ipaddr`` (an address or ``10.0.0.0/8``), ``zone``, ``zone_re``, ``listener``
        (``tcp:default``) and ``listener_re``.
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
    unknown = [name for name in rule if name not in FIELDS]
    if unknown:
        raise EmqxConfigError(f"has an unknown field {unknown[0]!r}; expected {', '.join(FIELDS)}")
    topic = rule.get("topic")
    plain = topic_filter(topic.removeprefix("eq ") if isinstance(topic, str) else topic)
    if plain == topic:
        topic = _with_placeholders(plain)
    permission = choice("permission", rule.get("permission"), ("allow", "deny"))
    action = choice("action", rule.get("action") or "all", ("publish", "subscribe", "all"))
    return {
        "topic": topic,
        "permission": permission,
        "action": action,
        "qos": _qos(rule.get("qos")),
        "retain": _retain(rule.get("retain")),
        **{name: text(name, rule[name]) for name in CONDITIONS if rule.get(name) is not None},
    }


def limited(rules: Sequence[Row]) -> Row | None:
    """Return the first rule that is limited to some clients, ``None`` if all are for everybody they name."""
    return next((rule for rule in rules if any(name in rule for name in CONDITIONS)), None)


def merged(
    existing: Sequence[Mapping[str, Any]], added: Sequence[Mapping[str, Any]], position: str
) -> list[AclRuleRow]:
    """
    Put rules before or after existing ones; an existing rule equal to an added one is not kept twice.

    :param position: ``"first"`` or ``"last"``.
    """
    choice("position", position, get_args(Position))
    others = [rule for rule in existing if rule not in added]
    rules = [*added, *others] if position == "first" else [*others, *added]
    return cast("list[AclRuleRow]", rules)


def _read(rule: Any, number: int) -> Row:
    try:
        return read_rule(rule)
    except EmqxConfigError as error:
        raise EmqxConfigError(f"ACL rule {number}: {error.message}") from None


def _with_placeholders(topic: str) -> str:
    """Write EMQX 4's placeholders as the newer ones, and refuse those that no broker fills in."""
    topic = _OLD_PLACEHOLDER.sub(lambda found: _PLACEHOLDERS[found[1]], topic)
    if "${" in _FILLED_IN.sub("", topic):
        raise EmqxConfigError(
            f"topic {topic[:80]!r} has a placeholder that EMQX does not fill in, so that the rule would match nobody; "
            "expected ${clientid}, ${username}, ${cert_common_name}, ${zone} or ${client_attrs.name}. "
            "'eq ' before a topic takes it as it is"
        )
    return topic


def _qos(value: Any) -> list[int]:
    if value is None or (isinstance(value, str) and not value):
        return list(_ALL_QOS)
    # a cell of a CSV file: "0,1"
    values = value.replace(",", " ").split() if isinstance(value, str) else value
    values = [values] if isinstance(values, int) else values
    if (
        not isinstance(values, (list, tuple))
        or not values
        or any(str(item) not in ("0", "1", "2") for item in values)
    ):
        raise wrong("qos", "a list of 0, 1, 2", value)
    return sorted({int(item) for item in values})


def _retain(value: Any) -> str | bool:
    if value is None or (isinstance(value, str) and value.lower() in ("", "all")):
        return "all"
    found = truth(value)
    if found is None:
        raise wrong("retain", "'all', true or false", value)
    return found

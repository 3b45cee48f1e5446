"""
ACL rules of the plugin ``emqx_auth_mnesia``, EMQX 4.

EMQX 4 keeps one permission per subject, topic and action, and lists the newest first, which is the order in which it
looks at them. So a list of rules is written from its end. Its placeholders ``%c`` and ``%u`` are read and written as
``${clientid}`` and ``${username}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from airflow_provider_emqx.api.acl import Subject, limited, merged, read_rules, read_subject
from airflow_provider_emqx.api.base import Operation, Page, Request, Row, Rows, path
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import AclRuleRow, AclRuleRows, AclSubjectRow
from airflow_provider_emqx.api.v5 import acl as v5
from airflow_provider_emqx.arguments import choice
from airflow_provider_emqx.choices import UserIdType
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError, EmqxUnsupportedError

_ACTIONS = {"pub": "publish", "sub": "subscribe"}

_V4_ACTIONS = {"publish": "pub", "subscribe": "sub", "all": "pubsub"}

_PLACEHOLDERS = {"%c": "${clientid}", "%u": "${username}"}

_V4_PLACEHOLDERS = {v5: v4 for v4, v5 in _PLACEHOLDERS.items()}


class AclRules(v5.AclRules):
    """ACL rules of the plugin ``emqx_auth_mnesia``."""

    def list(self, subject: Subject) -> Operation[AclRuleRows]:
        """
        List the ACL rules of one subject in their order: ``GET /acl/username/{username}`` and so on.

        :return: rows of ``topic``, ``permission``, ``action``, ``qos``, ``retain``; empty without rules.
        """
        return cast("list[AclRuleRow]", _as_v5((yield from self._subject_rules(*read_subject(subject)))))

    def list_subjects(
        self, kind: str, page: int = 1, limit: int | None = None
    ) -> Operation[Page[AclSubjectRow]]:
        """
        List whoever has ACL rules, with the rules: all pages of ``GET /acl/username`` or ``/acl/clientid``.

        EMQX 4 lists rule by rule, so all are read before the first subject is complete.

        :param page: there is one only.
        """
        choice("kind", kind, get_args(UserIdType))
        found: dict[str, Rows] = {}
        for row in (yield from self._all_rows(kind)):
            found.setdefault(row[kind], []).append(row)
        return Page(
            cast(
                "list[AclSubjectRow]",
                [{kind: name, "rules": _as_v5(_joined(rows))} for name, rows in found.items()],
            ),
            None,
            kind,
        )

    def replace(self, subject: Subject, rules: Sequence[Mapping[str, Any]]) -> Operation[None]:
        """
        Replace all ACL rules of one subject: stale topics are deleted, then the rules written one by one from the last
        to the first (``POST /acl``), then read back. While that goes on, only a part of the rules is in force.

        :raises EmqxUnsupportedError: for rules that tell QoS or retain apart or are limited to some clients, which EMQX
            4 cannot, for topics that it would take for something else (``eq …``, and placeholders that are not levels
            of their own), and for those that it could not delete again (``.``, ``..``, longer than a path may be).
        :raises EmqxError: if what is there afterwards is not what was written.
        """
        kind, name = read_subject(subject)
        wanted = _writable(kind, name, rules)
        pairs = _pairs(wanted)
        for _ in range(2):
            existing = yield from self._subject_rules(kind, name)
            if existing == wanted:
                return
            stale = {topic for topic, action in _pairs(existing) if (topic, action) not in pairs}
            yield from _delete(kind, name, sorted(stale))
            # two rules written in the same millisecond change places, which the second round mends
            yield from _write(kind, name, wanted)
        if (yield from self._subject_rules(kind, name)) != wanted:
            raise EmqxError(
                "the ACL rules are not those just written: another program changed them at the same time"
            )

    def add(
        self, subject: Subject, rules: Sequence[Mapping[str, Any]], position: str = "first"
    ) -> Operation[AclRuleRows]:
        """
        Put ACL rules before or after those that a subject has: read, merge, replace, read again.

        A change by somebody else at the same moment may be lost. Adding what is there moves it.
        """
        _writable(*read_subject(subject), rules)
        wanted = merged((yield from self.list(subject)), read_rules(rules), position)
        yield from self.replace(subject, wanted)
        return (yield from self.list(subject))

    def delete(self, subject: Subject) -> Operation[bool | None]:
        """Delete all ACL rules of one subject: ``DELETE /acl/username/{username}/topic/{topic}`` and so on."""
        kind, name = read_subject(subject)
        topics = dict.fromkeys(rule["topic"] for rule in (yield from self._subject_rules(kind, name)))
        yield from _delete(kind, name, list(topics))
        return bool(topics)

    def _subject_rules(self, kind: str, name: str) -> Operation[Rows]:
        """Read one subject's rules with topics as EMQX 4 writes them."""
        if kind == "all":
            return _joined((yield from self._all_rows("$all")))
        try:
            reply = yield Request("GET", path("acl", kind, name))
        except EmqxUnsupportedError as error:
            raise _no_plugin() from error
        return _joined(reply.rows)

    def _all_rows(self, kind: str) -> Operation[Rows]:
        rows: Rows = []
        limit, page = self.page_limit, 1
        while True:
            try:
                reply = yield Request("GET", path("acl", kind), self.query(page, limit))
            except EmqxUnsupportedError as error:
                raise _no_plugin() from error
            rows += reply.data
            if not has_next(reply, page, limit):
                return rows
            page += 1


def _write(kind: str, name: str, rules: Sequence[Row]) -> Operation[None]:
    for rule in reversed(rules):
        row = {
            **({} if kind == "all" else {kind: name}),
            "topic": rule["topic"],
            "action": _V4_ACTIONS[rule["action"]],
            "access": rule["permission"],
        }
        yield Request("POST", "/acl", json=row, repeatable=True)


def _delete(kind: str, name: str, topics: Sequence[str]) -> Operation[None]:
    # all are made before the first is sent: a topic that cannot stand in a path must not leave half of the rules
    for where in [_rule(kind, name, topic) for topic in topics]:
        yield Request("DELETE", where)


def _rule(kind: str, name: str, topic: str) -> str:
    subject = ("$all",) if kind == "all" else (kind, name)
    try:
        return path("acl", *subject, "topic", topic)
    except EmqxConfigError as error:
        raise EmqxUnsupportedError(
            f"EMQX 4 cannot delete the ACL rule for {topic[:80]!r}, whose topic would stand in a path: {error.message}"
        ) from None


def _joined(rows: Sequence[Row]) -> Rows:
    """Make rules of the broker's rows: neighbours for publish and subscribe with one outcome are one rule."""
    rules: Rows = []
    for row in rows:
        rule = {
            "topic": row["topic"],
            "permission": row["access"],
            "action": _ACTIONS.get(row["action"], "all"),
            "qos": [0, 1, 2],
            "retain": "all",
        }
        last = rules[-1] if rules else None
        if (
            last
            and last == {**rule, "action": last["action"]}
            and "all" not in (last["action"], rule["action"])
        ):
            rules[-1] = {**rule, "action": "all"}
        else:
            rules.append(rule)
    return rules


def _writable(kind: str, name: str, rules: Sequence[Mapping[str, Any]]) -> Rows:
    """Check rules; refused is also what EMQX 4 would store and, as it has the topic in the path, never delete."""
    wanted = _expressible(read_rules(rules))
    for rule in wanted:
        _rule(kind, name, rule["topic"])
    return wanted


def _expressible(rules: Sequence[Row]) -> Rows:
    """Return the rules as EMQX 4 can hold them: of each topic and action the first, which is the one that counts."""
    rows: Rows = []
    seen: set[tuple[str, str]] = set()
    if (rule := limited(rules)) is not None:
        raise EmqxUnsupportedError(
            f"EMQX 4 cannot limit an ACL rule to some clients of a subject; leave the rule for {rule['topic']!r} out, "
            "or give it to these usernames or client ids themselves"
        )
    for rule in rules:
        if rule["qos"] != [0, 1, 2] or rule["retain"] != "all":
            raise EmqxUnsupportedError(
                f"EMQX 4 cannot tell QoS or retain apart in ACL rules; leave them out of the rule for {rule['topic']!r}"
            )
        topic = _v4_topic(rule["topic"])
        for action in ("sub", "pub"):
            if rule["action"] in ("all", _ACTIONS[action]) and (topic, action) not in seen:
                seen.add((topic, action))
                rows.append({"topic": topic, "access": rule["permission"], "action": action})
    return _joined(rows)


def _v4_topic(topic: str) -> str:
    """Write a topic with EMQX 4's placeholders. What it would take for plain text would protect nothing."""
    levels = [_V4_PLACEHOLDERS.get(level, level) for level in topic.split("/")]
    if topic.startswith("eq ") or any("${" in level for level in levels):
        raise EmqxUnsupportedError(
            f"EMQX 4 would take the topic {topic!r} of an ACL rule for plain text: it knows no 'eq', and of "
            "placeholders only ${clientid} and ${username}, each as a level of its own (between slashes)"
        )
    return "/".join(levels)


def _as_v5(rules: Sequence[Row]) -> Rows:
    return [
        {**rule, "topic": "/".join(_PLACEHOLDERS.get(level, level) for level in rule["topic"].split("/"))}
        for rule in rules
    ]


def _pairs(rules: Sequence[Row]) -> set[tuple[str, str]]:
    return {
        (rule["topic"], action)
        for rule in rules
        for action in _ACTIONS.values()
        if rule["action"] in ("all", action)
    }


def _no_plugin() -> EmqxUnsupportedError:
    return EmqxUnsupportedError(
        "this EMQX 4 has no ACL rules to manage: load its plugin emqx_auth_mnesia (dashboard > Plugins)"
    )

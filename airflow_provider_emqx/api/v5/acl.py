"""ACL rules of the built-in database, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from airflow_provider_emqx.api.acl import CONDITIONS, Subject, limited, merged, read_rules, read_subject
from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, path
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxNotFoundError,
    EmqxUnsupportedError,
)

_PLACES = {"username": "users", "clientid": "clients", "all": "all"}


def list_acl_rules(broker: Broker, subject: Subject) -> Operation[list[Row]]:
    """
    List the ACL rules of one subject in their order: ``GET …/built_in_database/rules/users/{username}`` and so on.

    :param subject: see :func:`~airflow_provider_emqx.api.acl.read_subject`.
    :return: rows of ``topic``, ``permission``, ``action``, ``qos``, ``retain``, and whatever else the broker keeps of a
        rule (since 5.9 ``username_re``, ``ipaddr`` and others limit it to some clients); none where there are no rules.
    """
    kind, name = read_subject(subject)
    try:
        reply = yield Request("GET", _rules(kind, name), _namespace(broker))
    except EmqxNotFoundError as error:
        _require_source(error)
        return []
    return _in_full(reply.data.get("rules", ()))


def list_acl_subjects(
    broker: Broker, kind: str, page: int = 1, limit: int | None = None
) -> Operation[Page[Row]]:
    """
    List whoever has ACL rules, with the rules: ``GET …/built_in_database/rules/users``, or ``…/rules/clients``.

    :param kind: ``"username"`` or ``"clientid"``.
    :return: rows of ``username`` or ``clientid``, and ``rules``.
    """
    if kind not in ("username", "clientid"):
        raise EmqxConfigError(f"kind must be 'username' or 'clientid', not {kind!r}")
    limit = limit or page_limit(broker)
    params = {"page": page, "limit": limit, **(_namespace(broker) or {})}
    try:
        reply = yield Request("GET", _rules(kind), params)
    except EmqxNotFoundError as error:
        raise _no_source(error) from error
    rows = [{**row, "rules": _in_full(row["rules"])} for row in reply.rows]
    more = partial(list_acl_subjects, broker, kind, page + 1, limit) if has_next(reply, page, limit) else None
    return Page(rows, more, kind)


def set_acl_rules(broker: Broker, subject: Subject, rules: Sequence[Mapping[str, Any]]) -> Operation[None]:
    """
    Replace all ACL rules of one subject at once: ``PUT …/built_in_database/rules/users/{username}`` and so on.

    :param subject: see :func:`~airflow_provider_emqx.api.acl.read_subject`.
    :param rules: in order; see :func:`~airflow_provider_emqx.api.acl.read_rules`. None at all deletes the rules.
    :raises EmqxUnsupportedError: for rules limited to some clients, on EMQX older than 5.9.
    """
    yield from _replace(broker, subject, _writable(broker, rules))


def add_acl_rules(
    broker: Broker, subject: Subject, rules: Sequence[Mapping[str, Any]], position: str = "first"
) -> Operation[list[Row]]:
    """
    Put ACL rules before or after those that a subject has: read, merge, replace
    (``PUT …/built_in_database/rules/users/{username}`` and so on), read again.

    EMQX has no such request: a change by somebody else at the same moment is lost. Adding what is there moves it.

    :param position: ``"first"`` or ``"last"``.
    :return: all rules of the subject afterwards.
    :raises EmqxError: if what is there afterwards is not what was written.
    """
    added = _writable(broker, rules)
    wanted = merged((yield from list_acl_rules(broker, subject)), added, position)
    yield from _replace(broker, subject, wanted)
    found = yield from list_acl_rules(broker, subject)
    if found != wanted:
        raise EmqxError(
            "the ACL rules are not those just written: somebody else changed them at the same time"
        )
    return found


def delete_acl_rules(broker: Broker, subject: Subject) -> Operation[bool | None]:
    """
    Delete all ACL rules of one subject: ``DELETE …/built_in_database/rules/users/{username}`` and so on.

    :return: whether there were any.
    """
    kind, name = read_subject(subject)
    if kind == "all" and not (yield from list_acl_rules(broker, subject)):
        return False
    try:
        yield Request("DELETE", _rules(kind, name), _namespace(broker))
    except EmqxNotFoundError as error:
        _require_source(error)
        return error.maybe_applied
    return True


def _writable(broker: Broker, rules: Sequence[Mapping[str, Any]]) -> list[Row]:
    wanted = read_rules(rules)
    rule = limited(wanted)
    if rule is not None and broker.version is not None and not broker.at_least(5, 9):
        raise EmqxUnsupportedError(
            f"the ACL rule for {rule['topic']!r} is limited to some clients, which needs EMQX 5.9 or newer; this is "
            f"{broker}. Leave its fields {', '.join(name for name in CONDITIONS if name in rule)} out, or give the "
            "rule to the users themselves"
        )
    return wanted


def _replace(broker: Broker, subject: Subject, wanted: Sequence[Row]) -> Operation[None]:
    """Write rules as they are: those that the broker had may hold fields that only the broker knows."""
    kind, name = read_subject(subject)
    if not wanted:
        yield from delete_acl_rules(broker, subject)
        return
    body: Row = {"rules": wanted} if kind == "all" else {kind: name, "rules": wanted}
    method = "POST" if kind == "all" else "PUT"
    try:
        yield Request(method, _rules(kind, name), _namespace(broker), json=body, repeatable=True)
    except EmqxNotFoundError as error:
        raise _no_source(error) from error


def _in_full(rules: Sequence[Row]) -> list[Row]:
    return [{"action": "all", "qos": [0, 1, 2], "retain": "all", **rule} for rule in rules]


def _rules(kind: str, *name: str) -> str:
    segments = [segment for segment in name if segment]
    return path("authorization", "sources", "built_in_database", "rules", _PLACES[kind], *segments)


def _namespace(broker: Broker) -> dict[str, str] | None:
    return {"ns": broker.namespace} if broker.namespace else None


def _require_source(error: EmqxNotFoundError) -> None:
    """A 404 may mean that the whole source is missing, not the subject."""
    if "ource" in error.reason or "uilt_in" in error.reason:
        raise _no_source(error) from error


def _no_source(error: EmqxNotFoundError) -> EmqxConfigError:
    return EmqxConfigError(
        "the broker has no ACL rules in its built-in database: add the source Built-in Database in EMQX "
        "(Access Control > Authorization)",
        error.request,
    )

"""ACL rules of the built-in database, EMQX 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast, get_args

from airflow_provider_emqx.api.acl import CONDITIONS, Subject, limited, merged, read_rules, read_subject
from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Operation, Page, Request, Row, Rows, path
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import AclRuleRow, AclRuleRows, AclSubjectRow
from airflow_provider_emqx.arguments import choice
from airflow_provider_emqx.choices import UserIdType
from airflow_provider_emqx.exceptions import (
    EmqxConfigError,
    EmqxError,
    EmqxNotFoundError,
)

_PLACES = {"username": "users", "clientid": "clients", "all": "all"}


class AclRules(Area):
    """ACL rules of the built-in database."""

    def list(self, subject: Subject) -> Operation[AclRuleRows]:
        """
        List the ACL rules of one subject in their order: ``GET …/built_in_database/rules/users/{username}`` and so on.

        :param subject: see :func:`~airflow_provider_emqx.api.acl.read_subject`.
        :return: rows of ``topic``, ``permission``, ``action``, ``qos``, ``retain``, and whatever else the broker keeps
            of a rule (since 5.9 ``username_re``, ``ipaddr`` and others limit it to some clients); empty without
            rules.
        """
        kind, name = read_subject(subject)
        try:
            reply = yield Request("GET", _rules(kind, name), self._namespace())
        except EmqxNotFoundError as error:
            _require_source(error)
            return []
        return cast("list[AclRuleRow]", _in_full(reply.data.get("rules", ())))

    def list_subjects(
        self, kind: str, page: int = 1, limit: int | None = None
    ) -> Operation[Page[AclSubjectRow]]:
        """
        List whoever has ACL rules, with the rules: ``GET …/built_in_database/rules/users``, or ``…/rules/clients``.

        :return: rows of ``username`` or ``clientid``, and ``rules``.
        """
        choice("kind", kind, get_args(UserIdType))
        limit = limit or self.page_limit
        params = {**self.query(page, limit), **(self._namespace() or {})}
        try:
            reply = yield Request("GET", _rules(kind), params)
        except EmqxNotFoundError as error:
            raise _no_source(error) from error
        rows = [{**row, "rules": _in_full(row["rules"])} for row in reply.rows]
        more = partial(self.list_subjects, kind, page + 1, limit) if has_next(reply, page, limit) else None
        return Page(cast("list[AclSubjectRow]", rows), more, kind)

    def replace(self, subject: Subject, rules: Sequence[Mapping[str, Any]]) -> Operation[None]:
        """
        Replace all ACL rules of one subject at once: ``PUT …/built_in_database/rules/users/{username}`` and so on.

        :param subject: see :func:`~airflow_provider_emqx.api.acl.read_subject`.
        :param rules: in order; see :func:`~airflow_provider_emqx.api.acl.read_rules`. None at all deletes the rules.
        :raises EmqxUnsupportedError: for rules limited to some clients, on EMQX older than 5.9.
        """
        yield from self._replace(subject, self._writable(rules))

    def add(
        self, subject: Subject, rules: Sequence[Mapping[str, Any]], position: str = "first"
    ) -> Operation[AclRuleRows]:
        """
        Put ACL rules before or after those that a subject has: read, merge, replace
        (``PUT …/built_in_database/rules/users/{username}`` and so on), read again.

        This takes several requests: a concurrent change by another program is lost. Adding an existing rule moves it.

        :return: all rules of the subject afterwards.
        :raises EmqxError: if what is there afterwards is not what was written.
        """
        added = self._writable(rules)
        wanted = merged((yield from self.list(subject)), added, position)
        yield from self._replace(subject, wanted)
        found = yield from self.list(subject)
        if found != wanted:
            raise EmqxError(
                "the ACL rules are not those just written: another program changed them at the same time"
            )
        return found

    def delete(self, subject: Subject) -> Operation[bool | None]:
        """Delete all ACL rules of one subject: ``DELETE …/built_in_database/rules/users/{username}`` and so on."""
        kind, name = read_subject(subject)
        if kind == "all" and not (yield from self.list(subject)):
            return False
        try:
            yield Request("DELETE", _rules(kind, name), self._namespace())
        except EmqxNotFoundError as error:
            _require_source(error)
            return error.maybe_applied
        return True

    def _writable(self, rules: Sequence[Mapping[str, Any]]) -> Rows:
        wanted = read_rules(rules)
        rule = limited(wanted)
        if rule is not None:
            fields = ", ".join(name for name in CONDITIONS if name in rule)
            self.broker.require(
                f"the ACL rule for {rule['topic']!r} is limited to some clients, which",
                *(5, 9),
                instead=f"Leave its fields {fields} out, or give the rule to the users themselves",
            )
        return wanted

    def _replace(self, subject: Subject, wanted: Sequence[Mapping[str, Any]]) -> Operation[None]:
        """Write rules as they are: those that the broker had may hold fields that only the broker knows."""
        kind, name = read_subject(subject)
        if not wanted:
            yield from self.delete(subject)
            return
        body: Row = {"rules": wanted} if kind == "all" else {kind: name, "rules": wanted}
        method = "POST" if kind == "all" else "PUT"
        try:
            yield Request(method, _rules(kind, name), self._namespace(), json=body, repeatable=True)
        except EmqxNotFoundError as error:
            raise _no_source(error) from error

    def _namespace(self) -> dict[str, str] | None:
        return {"ns": self.broker.namespace} if self.broker.namespace else None


def _in_full(rules: Sequence[Row]) -> Rows:
    return [{"action": "all", "qos": [0, 1, 2], "retain": "all", **rule} for rule in rules]


def _rules(kind: str, *name: str) -> str:
    segments = [segment for segment in name if segment]
    return path("authorization", "sources", "built_in_database", "rules", _PLACES[kind], *segments)


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

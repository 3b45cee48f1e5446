"""Rules of the rule engine, and the actions, sources and connectors that they use, EMQX 5 and 6."""

from __future__ import annotations

from functools import partial

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Operation, Page, Request, Row, Rows, path
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.arguments import boolean, choice
from airflow_provider_emqx.exceptions import EmqxNotFoundError

#: what ``PUT /rules/{id}`` takes; the answer of a GET has more
_RULE_FIELDS = ("name", "sql", "actions", "enable", "description", "metadata")

_KINDS = {"action": "actions", "source": "sources", "connector": "connectors"}


class RuleEngine(Area):
    """Rules of the rule engine, actions, sources and connectors."""

    #: what can be done where a kind is missing
    _instead = ""

    def list_rules(self, page: int = 1, limit: int | None = None) -> Operation[Page[Row]]:
        """
        List the rules of the rule engine: ``GET /rules``.

        :return: rows of ``id``, ``name``, ``enable``, ``sql``, ``from``, ``actions``, ``description``, …
        """
        limit = limit or self.page_limit
        reply = yield Request("GET", "/rules", self.query(page, limit))
        more = partial(self.list_rules, page + 1, limit) if has_next(reply, page, limit) else None
        return Page([self._rule(row) for row in reply.rows], more, "id")

    def get_rule(self, rule_id: str) -> Operation[Row | None]:
        """Read one rule: ``GET /rules/{id}``."""
        try:
            reply = yield Request("GET", path("rules", rule_id))
        except EmqxNotFoundError:
            return None
        return self._rule(reply.row)

    def outputs(self, rule: Row) -> list[tuple[str, str]]:
        """
        List what a rule sends data to; built-in functions, such as republish, need no connection.

        :param rule: as of :meth:`get_rule`.
        :return: kind and id, as :meth:`get_integration` takes them.
        """
        actions = rule.get("actions") or ()
        return [("action", action) for action in actions if isinstance(action, str) and ":" in action]

    def set_rule_enabled(self, rule_id: str, enabled: bool) -> Operation[Row]:
        """
        Enable or disable a rule: ``GET /rules/{id}``, then ``PUT`` of the same with ``enable`` changed.

        A change of the rule by somebody else between the two is lost.
        """
        enabled = boolean("enabled", enabled)
        reply = yield Request("GET", path("rules", rule_id))
        rule = {name: reply.data[name] for name in _RULE_FIELDS if name in reply.data}
        if rule.get("enable") is enabled:
            return reply.row
        changed = yield Request("PUT", path("rules", rule_id), json={**rule, "enable": enabled})
        return dict(changed.data) if changed.data else {**reply.data, "enable": enabled}

    def get_rule_metrics(self, rule_id: str) -> Operation[Row]:
        """
        Read a rule's counters: ``GET /rules/{id}/metrics``.

        :return: ``matched``, ``passed``, ``failed``, ``actions.success``, … summed over the cluster.
        """
        reply = yield Request("GET", path("rules", rule_id, "metrics"))
        return dict(reply.data.get("metrics", reply.data))

    def reset_rule_metrics(self, rule_id: str) -> Operation[None]:
        """Set a rule's counters to 0: ``PUT /rules/{id}/metrics/reset``."""
        yield Request("PUT", path("rules", rule_id, "metrics", "reset"))

    def list_actions(self) -> Operation[Rows]:
        """
        List actions, which carry data out of the broker, EMQX 5.4 and newer: ``GET /actions``.

        :return: rows of ``type``, ``name``, ``enable``, ``status``, ``status_reason``, …, and ``id`` as ``type:name``.
        """
        return (yield from self._list("action"))

    def list_sources(self) -> Operation[Rows]:
        """
        List sources, which carry data into the broker, EMQX 5.6 and newer: ``GET /sources``.

        :return: rows as of :func:`list_actions`.
        """
        return (yield from self._list("source"))

    def list_connectors(self) -> Operation[Rows]:
        """
        List connections to other systems, EMQX 5.4 and newer: ``GET /connectors``.

        :return: rows as of :func:`list_actions`.
        """
        return (yield from self._list("connector"))

    def get_integration(self, kind: str, name: str) -> Operation[Row | None]:
        """
        Read one action, source or connector, EMQX 5.4 and newer: ``GET /actions/{id}``, ``/sources/{id}``,
        ``/connectors/{id}``.

        :param name: its id, as ``http:my_hook``.
        :return: with ``status`` (``"connected"``, ``"connecting"``, ``"disconnected"``, ``"inconsistent"``) and
            ``status_reason``; ``None`` if it does not exist.
        """
        try:
            reply = yield Request("GET", path(self._where(kind), name))
        except EmqxNotFoundError:
            return None
        return self._integration(reply.row)

    def set_integration_enabled(self, kind: str, name: str, enabled: bool) -> Operation[None]:
        """Switch an action, source or connector, EMQX 5.4 and newer: ``PUT /{kind}s/{id}/enable/{true|false}``."""
        state = "true" if boolean("enabled", enabled) else "false"
        yield Request("PUT", path(self._where(kind), name, "enable", state))

    def restart_integration(self, kind: str, name: str) -> Operation[None]:
        """
        Reconnect an action, source or connector, EMQX 5.4 and newer: ``POST /{kind}s/{id}/start``. It must be
        enabled.
        """
        yield Request("POST", path(self._where(kind), name, "start"), repeatable=True)

    def _list(self, kind: str) -> Operation[Rows]:
        reply = yield Request("GET", path(self._where(kind)))
        return [self._integration(row) for row in reply.rows]

    def _rule(self, row: Row) -> Row:
        return row

    def _integration(self, row: Row) -> Row:
        return {"id": f"{row.get('type')}:{row.get('name')}", **row}

    def _where(self, kind: str) -> str:
        choice("kind", kind, _KINDS)
        self.broker.require(
            f"managing {_KINDS[kind]}", 5, 6 if kind == "source" else 4, instead=self._instead
        )
        return _KINDS[kind]

"""Rules of the rule engine, and the actions, sources and connectors that they use, EMQX 4."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Operation, Request, Row, path
from airflow_provider_emqx.api.sums import summed
from airflow_provider_emqx.api.v5 import rule_engine as v5
from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.exceptions import EmqxUnsupportedError

_RULE_FIELDS = {"rawsql": "sql", "enabled": "enable", "for": "from"}

_METRICS = {
    "exception": "failed.exception",
    "no_result": "failed.no_result",
    "speed": "matched.rate",
    "speed_last5m": "matched.rate.last5m",
    "speed_max": "matched.rate.max",
}


class RuleEngine(v5.RuleEngine):
    """Rules of the rule engine, and the resources that they use as connectors."""

    _instead = "Actions are parts of the rules there, and connectors are its resources"

    def outputs(self, rule: Row) -> list[tuple[str, str]]:
        """List the resources that a rule sends data to."""
        resources = ((action.get("params") or {}).get("$resource") for action in rule.get("actions") or ())
        return [("connector", str(resource)) for resource in resources if resource]

    def set_rule_enabled(self, rule_id: str, enabled: bool) -> Operation[Row]:
        """Enable or disable a rule: ``PUT /rules/{id}``."""
        enabled = boolean("enabled", enabled)
        # a PUT to a rule that is not there is answered like any other mistake
        reply = yield Request("GET", path("rules", rule_id))
        if reply.row.get("enabled") is not enabled:
            yield Request("PUT", path("rules", rule_id), json={"enabled": enabled})
            reply = yield Request("GET", path("rules", rule_id))
        return self._rule(reply.row)

    def get_rule_metrics(self, rule_id: str) -> Operation[Row]:
        """
        Read a rule's counters, which are part of ``GET /rules/{id}``.

        :return: ``matched``, ``passed``, ``failed``, … under v5's names, summed over the cluster.
        """
        reply = yield Request("GET", path("rules", rule_id))
        metrics = summed(reply.data.get("metrics") or ())
        return {_METRICS.get(name, name): value for name, value in metrics.items()}

    def reset_rule_metrics(self, rule_id: str) -> Operation[None]:
        """Set a rule's counters to 0: ``PUT /rules/{id}/reset_metrics``."""
        # done to a rule that is not there as well
        yield Request("GET", path("rules", rule_id))
        yield Request("PUT", path("rules", rule_id, "reset_metrics"))

    def set_integration_enabled(self, kind: str, name: str, enabled: bool) -> Operation[None]:
        """Refuse: EMQX 4 cannot disable a resource; disable the rules that use it."""
        raise EmqxUnsupportedError(
            f"enabling and disabling a {kind} needs EMQX 5.4 or newer; this is {self.broker}. "
            "Disable the rules that use it"
        )

    def restart_integration(self, kind: str, name: str) -> Operation[None]:
        """Reconnect a resource: ``POST /resources/{id}``."""
        self._where(kind)
        # a start of one that is not there is answered like any other mistake
        yield Request("GET", path("resources", name))
        yield Request("POST", path("resources", name), repeatable=True)

    def _rule(self, row: Row) -> Row:
        return {"name": None, **{_RULE_FIELDS.get(name, name): value for name, value in row.items()}}

    def _where(self, kind: str) -> str:
        """Return where the connectors are; EMQX 4 has nothing else of its own, and calls them resources."""
        if kind != "connector":
            super()._where(kind)
        return "resources"

    def _integration(self, row: Row) -> Row:
        # one truth value in the listing, one per node in the resource itself
        nodes = row.get("status")
        nodes = [{"is_alive": nodes}] if isinstance(nodes, bool) else nodes or ()
        alive = {bool(node.get("is_alive")) for node in nodes if isinstance(node, dict)}
        status = {(True,): "connected", (False,): "disconnected", (False, True): "inconsistent"}
        return {
            **row,
            "name": row.get("description"),
            "enable": None,
            "status": status.get(tuple(sorted(alive))),
        }

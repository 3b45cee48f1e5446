"""Rules of the rule engine and the resources that they use, EMQX 4."""

from __future__ import annotations

from functools import partial

from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, flag, path
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.api.sums import summed
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxNotFoundError, EmqxUnsupportedError

_RULE_FIELDS = {"rawsql": "sql", "enabled": "enable", "for": "from"}
_METRICS = {
    "exception": "failed.exception",
    "no_result": "failed.no_result",
    "speed": "matched.rate",
    "speed_last5m": "matched.rate.last5m",
    "speed_max": "matched.rate.max",
}


def list_rules(broker: Broker, page: int = 1, limit: int | None = None) -> Operation[Page[Row]]:
    """
    List rules: ``GET /rules``.

    :return: rows of ``id``, ``name`` (``None``), ``enable``, ``sql``, ``from``, ``actions``, ``description``, …
    """
    limit = limit or page_limit(broker)
    reply = yield Request("GET", "/rules", {"_page": page, "_limit": limit})
    more = partial(list_rules, broker, page + 1, limit) if has_next(reply, page, limit) else None
    return Page([_rule(row) for row in reply.rows], more, "id")


def get_rule(broker: Broker, rule_id: str) -> Operation[Row | None]:
    """
    Read one rule: ``GET /rules/{id}``.

    :return: the rule, ``None`` where there is none.
    """
    try:
        reply = yield Request("GET", path("rules", rule_id))
    except EmqxNotFoundError:
        return None
    return _rule(reply.data)


def set_rule_enabled(broker: Broker, rule_id: str, enabled: bool) -> Operation[Row]:
    """
    Enable or disable a rule: ``PUT /rules/{id}``.

    :return: the rule as it is now.
    :raises EmqxNotFoundError: if there is no such rule.
    """
    enabled = flag("enabled", enabled)
    # a PUT to a rule that is not there is answered like any other mistake
    reply = yield Request("GET", path("rules", rule_id))
    if reply.row.get("enabled") is not enabled:
        yield Request("PUT", path("rules", rule_id), json={"enabled": enabled})
        reply = yield Request("GET", path("rules", rule_id))
    return _rule(reply.row)


def get_rule_metrics(broker: Broker, rule_id: str) -> Operation[Row]:
    """
    Read a rule's counters, which are part of ``GET /rules/{id}``.

    :return: ``matched``, ``passed``, ``failed``, … under v5's names, summed over the cluster.
    :raises EmqxNotFoundError: if there is no such rule.
    """
    reply = yield Request("GET", path("rules", rule_id))
    metrics = summed(reply.data.get("metrics") or ())
    return {_METRICS.get(name, name): value for name, value in metrics.items()}


def reset_rule_metrics(broker: Broker, rule_id: str) -> Operation[None]:
    """
    Set a rule's counters to 0: ``PUT /rules/{id}/reset_metrics``.

    :raises EmqxNotFoundError: if there is no such rule.
    """
    # done to a rule that is not there as well
    yield Request("GET", path("rules", rule_id))
    yield Request("PUT", path("rules", rule_id, "reset_metrics"))


def list_actions(broker: Broker) -> Operation[list[Row]]:
    """Refuse: in EMQX 4 actions are parts of their rules, see :func:`list_rules`."""
    raise EmqxUnsupportedError(
        f"actions of their own need EMQX 5.4 or newer; this is {broker}, where they are parts of the rules"
    )


def list_sources(broker: Broker) -> Operation[list[Row]]:
    """Refuse: sources need EMQX 5.6."""
    raise EmqxUnsupportedError(f"sources need EMQX 5.6 or newer; this is {broker}")


def list_connectors(broker: Broker) -> Operation[list[Row]]:
    """
    List connections to other systems, which EMQX 4 calls resources: ``GET /resources``.

    :return: rows of ``id``, ``type``, ``name`` (its description), ``status`` where the broker shows it.
    """
    reply = yield Request("GET", "/resources")
    return [_connector(row) for row in reply.rows]


def get_integration(broker: Broker, kind: str, name: str) -> Operation[Row | None]:
    """
    Read one resource: ``GET /resources/{id}``.

    :param kind: ``"connector"``; EMQX 4 has no other.
    :param name: its id, as ``resource:1234``.
    :return: with ``status`` (``"connected"``, ``"disconnected"``, ``"inconsistent"``); ``None`` where there is none.
    """
    _only_connectors(broker, kind)
    try:
        reply = yield Request("GET", path("resources", name))
    except EmqxNotFoundError:
        return None
    return _connector(reply.data)


def set_integration_enabled(broker: Broker, kind: str, name: str, enabled: bool) -> Operation[None]:
    """Refuse: EMQX 4 cannot disable a resource; disable the rules that use it."""
    raise EmqxUnsupportedError(
        f"enabling and disabling a {kind} needs EMQX 5.4 or newer; this is {broker}. Disable the rules that use it"
    )


def restart_integration(broker: Broker, kind: str, name: str) -> Operation[None]:
    """
    Connect a resource anew: ``POST /resources/{id}``.

    :raises EmqxNotFoundError: if there is none.
    """
    _only_connectors(broker, kind)
    # a start of one that is not there is answered like any other mistake
    yield Request("GET", path("resources", name))
    yield Request("POST", path("resources", name), repeatable=True)


def _only_connectors(broker: Broker, kind: str) -> None:
    if kind not in ("action", "source", "connector"):
        raise EmqxConfigError(f"kind must be one of action, source, connector, not {kind!r}")
    if kind != "connector":
        raise EmqxUnsupportedError(
            f"{kind}s of their own need EMQX 5.4 or newer; this is {broker}, which has connectors (resources) only"
        )


def _rule(row: Row) -> Row:
    return {"name": None, **{_RULE_FIELDS.get(name, name): value for name, value in row.items()}}


def _connector(row: Row) -> Row:
    # one truth value in the listing, one per node in the resource itself
    nodes = row.get("status")
    nodes = [{"is_alive": nodes}] if isinstance(nodes, bool) else nodes or ()
    alive = {bool(node.get("is_alive")) for node in nodes if isinstance(node, dict)}
    status = {(True,): "connected", (False,): "disconnected", (False, True): "inconsistent"}
    return {**row, "name": row.get("description"), "enable": None, "status": status.get(tuple(sorted(alive)))}

"""The hook's methods for nodes, metrics, alarms, listeners, the rule engine, backups and evacuation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.base import Row
from airflow_provider_emqx.api.rows import AlarmRow, BackupRow, ListenerRow, NodeRow
from airflow_provider_emqx.transport.session import Session

if TYPE_CHECKING:
    from airflow_provider_emqx.choices import IntegrationKind


class ClusterMethods(Session):
    """Nodes, metrics, alarms, listeners, the rule engine, backups, evacuation."""

    def list_nodes(self) -> Iterator[NodeRow]:
        """
        List the nodes of the cluster, stopped ones too: v4 and v5 ``GET /nodes``.

        :return: an iterator over ``{"node", "node_status", "version", "uptime" (ms), "connections",
            "live_connections", …}``, the status ``running`` or ``stopped``.
        """
        yield from self.run(self.api.nodes.list())

    def get_cluster(self) -> Row:
        """
        Read the cluster's name and members: v5 ``GET /cluster``; on EMQX 4 the members from ``GET /brokers``.

        :return: ``{"name", "nodes", "self"}``.
        """
        return self.run(self.api.nodes.get_cluster())

    def get_stats(self, node: str | None = None) -> Row:
        """
        Read statistics: v4 and v5 ``GET /stats``, or ``GET /nodes/{node}/stats``.

        :param node: one node; ``None`` for the whole cluster.
        :return: figures such as ``live_connections.count``, ``sessions.count``, ``retained.count``.
        :raises EmqxConfigError: for an unknown node.
        """
        return self.run(self.api.nodes.get_stats(node))

    def list_stats(self) -> Iterator[Row]:
        """
        List each node's statistics: v4 and v5 ``GET /stats``. A node that does not answer is missing.

        :return: an iterator over ``{"node", "live_connections.count", …}``.
        """
        yield from self.run(self.api.nodes.list_stats())

    def get_metrics(self, node: str | None = None) -> Row:
        """
        Read counters, which begin at 0 when a node starts: v4 and v5 ``GET /metrics``, or
        ``GET /nodes/{node}/metrics``.

        :param node: one node; ``None`` for the whole cluster.
        :return: counters such as ``messages.received``. Some have other names on EMQX 4 (``client.acl.allow``).
        :raises EmqxConfigError: for an unknown node.
        """
        return self.run(self.api.nodes.get_metrics(node))

    def list_metrics(self) -> Iterator[Row]:
        """
        List each node's counters: v4 and v5 ``GET /metrics``.

        :return: an iterator over ``{"node", "messages.received", …}``.
        """
        yield from self.run(self.api.nodes.list_metrics())

    def get_rates(self, node: str | None = None) -> Row:
        """
        Read the present rates, EMQX 5 and newer: ``GET /monitor_current``, or ``GET /monitor_current/nodes/{node}``.

        :param node: one node; ``None`` for the whole cluster.
        :return: ``received_msg_rate``, ``sent_msg_rate``, ``dropped_msg_rate`` (per second), ``live_connections``, …
        """
        return self.run(self.api.nodes.get_rates(node))

    def list_alarms(self, activated: bool = True) -> Iterator[AlarmRow]:
        """
        List alarms: v5 ``GET /alarms``, v4 ``GET /alarms/activated`` or ``/alarms/deactivated``.

        :param activated: those that are active now; ``False`` for those that are over.
        :return: an iterator over ``{"node", "name", "message", "details", "duration" (ms), "activate_at",
            "deactivate_at"}``.
        """
        return self.rows(self.api.alarms.list(activated=activated))

    def deactivate_alarm(self, name: str, node: str | None = None) -> bool:
        """
        End an active alarm by hand: v5 ``POST /alarms/force_deactivate`` (EMQX 5.8.8 and newer; before 6.1 on the node
        that answers only), v4 ``POST /alarms/deactivated``.

        :param name: the alarm's name.
        :param node: on this node; EMQX 4 only, ``None`` for every node that has it.
        :return: whether there was such an active alarm.
        """
        return self.run(self.api.alarms.deactivate(name, node))

    def clear_alarms(self) -> None:
        """Delete the history of alarms that are over: v5 ``DELETE /alarms``, v4 ``DELETE /alarms/deactivated``."""
        self.run(self.api.alarms.clear())

    def list_listeners(self) -> Iterator[ListenerRow]:
        """
        List listeners: v4 and v5 ``GET /listeners``.

        :return: an iterator over ``{"id", "type", "name", "bind", "enable", "acceptors", "status", "node_status"}``.
        """
        yield from self.run(self.api.listeners.list())

    def restart_listener(self, listener: str, node: str | None = None) -> None:
        """
        Restart a listener, dropping its connections: v5 ``POST /listeners/{id}/restart``, v4
        ``PUT /listeners/{id}/restart``.

        :param listener: id, as ``tcp:default`` (v5) or ``mqtt:tcp:external`` (v4).
        :param node: on this node; EMQX 4 only.
        :raises EmqxNotFoundError: if the listener does not exist.
        """
        self.run(self.api.listeners.restart(listener, node))

    def list_rules(self) -> Iterator[Row]:
        """
        List the rules of the rule engine: v4 and v5 ``GET /rules``.

        :return: an iterator over ``{"id", "enable", "sql", "actions", "description", …}``.
        """
        return self.rows(self.api.rule_engine.list_rules())

    def get_rule(self, rule_id: str) -> Row | None:
        """
        Read one rule of the rule engine: v4 and v5 ``GET /rules/{id}``.

        :return: the rule, ``None`` if it does not exist.
        """
        return self.run(self.api.rule_engine.get_rule(rule_id))

    def set_rule_enabled(self, rule_id: str, enabled: bool) -> Row:
        """
        Enable or disable a rule of the rule engine: ``PUT /rules/{id}``, on v5 of the rule as just read.

        :param enabled: the state that it is to have.
        :return: the rule as it is now.
        :raises EmqxNotFoundError: if the rule does not exist.
        """
        return self.run(self.api.rule_engine.set_rule_enabled(rule_id, enabled))

    def get_rule_metrics(self, rule_id: str) -> Row:
        """
        Read a rule's counters: v5 ``GET /rules/{id}/metrics``, v4 from ``GET /rules/{id}``.

        :return: ``matched``, ``passed``, … over the cluster.
        :raises EmqxNotFoundError: if the rule does not exist.
        """
        return self.run(self.api.rule_engine.get_rule_metrics(rule_id))

    def reset_rule_metrics(self, rule_id: str) -> None:
        """
        Set a rule's counters to 0: v5 ``PUT /rules/{id}/metrics/reset``, v4 ``PUT /rules/{id}/reset_metrics``.

        :raises EmqxNotFoundError: if the rule does not exist.
        """
        self.run(self.api.rule_engine.reset_rule_metrics(rule_id))

    def list_actions(self) -> Iterator[Row]:
        """
        List actions of data integration, EMQX 5.4 and newer: ``GET /actions``.

        :return: an iterator over ``{"id", "type", "name", "enable", "status", "status_reason", …}``.
        """
        yield from self.run(self.api.rule_engine.list_actions())

    def list_sources(self) -> Iterator[Row]:
        """
        List sources of data integration, EMQX 5.6 and newer: ``GET /sources``.

        :return: an iterator over ``{"id", "type", "name", "enable", "status", "status_reason", …}``.
        """
        yield from self.run(self.api.rule_engine.list_sources())

    def list_connectors(self) -> Iterator[Row]:
        """
        List connections to other systems: v5 ``GET /connectors`` (EMQX 5.4 and newer), v4 ``GET /resources``.

        :return: an iterator over ``{"id", "type", "name", "enable", "status", …}``.
        """
        yield from self.run(self.api.rule_engine.list_connectors())

    def get_integration(self, kind: IntegrationKind, name: str) -> Row | None:
        """
        Read one action, source or connector with its health: v5 ``GET /actions/{id}`` and so on, v4
        ``GET /resources/{id}``.

        :param kind: ``"action"``, ``"source"``, ``"connector"``; on EMQX 4 ``"connector"`` only.
        :param name: id, as ``http:my_hook`` (v5) or ``resource:1234`` (v4).
        :return: with ``status`` (``connected``, ``connecting``, ``disconnected``, ``inconsistent``); ``None`` if
            it does not exist.
        """
        return self.run(self.api.rule_engine.get_integration(kind, name))

    def set_integration_enabled(self, kind: IntegrationKind, name: str, enabled: bool) -> None:
        """
        Enable or disable an action, source or connector, EMQX 5.4 and newer:
        ``PUT /actions/{id}/enable/{true|false}`` and so on.

        :param kind: ``"action"``, ``"source"`` or ``"connector"``.
        :param name: id, as ``http:my_hook``.
        :param enabled: the state that it is to have.
        :raises EmqxNotFoundError: if it does not exist.
        """
        self.run(self.api.rule_engine.set_integration_enabled(kind, name, enabled))

    def restart_integration(self, kind: IntegrationKind, name: str) -> None:
        """
        Reconnect an action, source or connector: v5 ``POST /actions/{id}/start`` and so on, v4
        ``POST /resources/{id}``.

        :param kind: ``"action"``, ``"source"``, ``"connector"``; on EMQX 4 ``"connector"`` only.
        :param name: id, as ``http:my_hook`` (v5) or ``resource:1234`` (v4). It must be enabled.
        :raises EmqxNotFoundError: if it does not exist.
        """
        self.run(self.api.rule_engine.restart_integration(kind, name))

    def export_backup(
        self, table_sets: Sequence[str] | None = None, root_keys: Sequence[str] | None = None
    ) -> BackupRow:
        """
        Write a backup to the disk of the node that responds: v4 and v5 (EMQX 5.4 and newer) ``POST /data/export``.

        :param table_sets: EMQX 5 and newer: which tables, as ``["builtin_authn", "builtin_authz", "banned"]``; ``None``
            for all.
        :param root_keys: EMQX 5 and newer: which parts of the configuration, as ``["authentication", "mqtt"]``; ``[]``
            for no configuration, ``None`` for all.
        :return: ``{"filename", "node", "size", "created_at"}``.
        """
        return self.run(self.api.backups.export(table_sets, root_keys))

    def list_backups(self) -> Iterator[BackupRow]:
        """
        List the backups on the disks of all nodes: v5 ``GET /data/files``, v4 ``GET /data/export``.

        :return: an iterator over ``{"filename", "node", "size", "created_at"}``.
        """
        return self.rows(self.api.backups.list())

    def download_backup(self, filename: str, node: str | None = None) -> bytes:
        """
        Read a backup: v5 ``GET /data/files/{filename}`` (a ``.tar.gz``), v4 ``GET /data/file/{filename}`` (JSON).

        :param filename: as :meth:`export_backup` or :meth:`list_backups` gives it.
        :param node: the same.
        :return: the file.
        :raises EmqxNotFoundError: if the file does not exist.
        """
        return self.run(self.api.backups.download(filename, node))

    def delete_backup(self, filename: str, node: str | None = None) -> bool | None:
        """
        Delete a backup from a node's disk: v5 ``DELETE /data/files/{filename}``, v4 ``DELETE /data/file/{filename}``.

        :param filename: as :meth:`list_backups` gives it.
        :param node: the same.
        :return: whether it was there.
        """
        return self.run(self.api.backups.delete(filename, node))

    def upload_backup(self, filename: str, content: bytes) -> None:
        """
        Upload a backup to the disk of the node that responds: v5 ``POST /data/files``, v4 ``POST /data/file``. It stays
        there until :meth:`delete_backup`, whatever becomes of its import.

        :param filename: its name there; ``.tar.gz`` on v5, ``.json`` on v4.
            An archive's one directory has to be called so too.
        :param content: the file.
        """
        self.run(self.api.backups.upload(filename, content))

    def import_backup(self, filename: str, node: str | None = None) -> None:
        """
        Import a backup from a node's disk; it overwrites configuration and users: v4 and v5
        ``POST /data/import``.

        :param filename: as :meth:`list_backups` gives it.
        :param node: the same.
        :raises EmqxBadRequestError: if a part of it could not be imported; other parts may be in force.
        """
        self.run(self.api.backups.restore(filename, node))

    def get_rebalance_status(self) -> Row:
        """
        Read what is being evacuated or rebalanced, EMQX Enterprise, EMQX 5.9 and newer:
        ``GET /load_rebalance/global_status``.

        :return: ``{"evacuations": […], "purges": […], "rebalances": […]}``.
        """
        return self.run(self.api.rebalance.get_status())

    def start_evacuation(self, node: str, **settings: Any) -> None:
        """
        Move all clients and sessions away from a node: ``POST /load_rebalance/{node}/evacuation/start``.

        :param node: the node.
        :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``wait_takeover``,
            ``wait_health_check`` (as ``"60s"``; EMQX 5 and newer), ``redirect_to``, ``migrate_to`` (list of nodes).
        :raises EmqxConfigError: for an unknown node or setting.
        """
        self.run(self.api.rebalance.start_evacuation(node, settings))

    def stop_evacuation(self, node: str) -> None:
        """
        End an evacuation: ``POST /load_rebalance/{node}/evacuation/stop``.

        :param node: the node.
        """
        self.run(self.api.rebalance.stop_evacuation(node))

    def start_rebalance(self, node: str, **settings: Any) -> None:
        """
        Spread clients and sessions evenly over nodes: ``POST /load_rebalance/{node}/start``.

        :param node: the node that coordinates it.
        :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``abs_conn_threshold``,
            ``rel_conn_threshold``, ``abs_sess_threshold``, ``rel_sess_threshold``, ``wait_takeover``,
            ``wait_health_check`` (as ``"60s"``), ``nodes`` (list).
        :raises EmqxConfigError: for an unknown node or setting.
        """
        self.run(self.api.rebalance.start(node, settings))

    def stop_rebalance(self, node: str) -> None:
        """
        End a rebalancing: ``POST /load_rebalance/{node}/stop``.

        :param node: the node that coordinates it.
        """
        self.run(self.api.rebalance.stop(node))

    def get_license(self) -> Row:
        """
        Read the licence, where the edition has one: v5 ``GET /license``.

        :return: ``expiry_at`` (a date), ``expiry`` (whether it is over), …
        """
        return self.run(self.api.nodes.get_license())

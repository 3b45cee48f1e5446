"""All operations of EMQX 5 and 6, area by area."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.api.v5.acl import AclRules
from airflow_provider_emqx.api.v5.alarms import Alarms
from airflow_provider_emqx.api.v5.backups import Backups
from airflow_provider_emqx.api.v5.bans import Bans
from airflow_provider_emqx.api.v5.clients import Clients
from airflow_provider_emqx.api.v5.listeners import Listeners
from airflow_provider_emqx.api.v5.messages import Messages
from airflow_provider_emqx.api.v5.nodes import Nodes
from airflow_provider_emqx.api.v5.rebalance import Rebalance
from airflow_provider_emqx.api.v5.rule_engine import RuleEngine
from airflow_provider_emqx.api.v5.topics import Topics
from airflow_provider_emqx.api.v5.users import Users


class Api:
    """
    The operations of one broker: ``api.users.get("alice")`` and so on.

    An operation does nothing by itself; :meth:`EmqxHook.run <airflow_provider_emqx.hooks.emqx.EmqxHook.run>` and the
    clients in ``transport/`` run it.

    :param broker: what is known of the broker.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.nodes = Nodes(broker)
        self.users = Users(broker)
        self.acl = AclRules(broker)
        self.bans = Bans(broker)
        self.clients = Clients(broker, self.nodes)
        self.topics = Topics(broker, self.nodes)
        self.messages = Messages(broker)
        self.alarms = Alarms(broker)
        self.listeners = Listeners(broker, self.nodes)
        self.rule_engine = RuleEngine(broker)
        self.backups = Backups(broker, self.nodes)
        self.rebalance = Rebalance(broker, self.nodes)

"""All operations of EMQX 4, area by area."""

from __future__ import annotations

from airflow_provider_emqx.api.base import Broker
from airflow_provider_emqx.api.v4.acl import AclRules
from airflow_provider_emqx.api.v4.alarms import Alarms
from airflow_provider_emqx.api.v4.backups import Backups
from airflow_provider_emqx.api.v4.bans import Bans
from airflow_provider_emqx.api.v4.clients import Clients
from airflow_provider_emqx.api.v4.listeners import Listeners
from airflow_provider_emqx.api.v4.messages import Messages
from airflow_provider_emqx.api.v4.nodes import Nodes
from airflow_provider_emqx.api.v4.rebalance import Rebalance
from airflow_provider_emqx.api.v4.rule_engine import RuleEngine
from airflow_provider_emqx.api.v4.topics import Topics
from airflow_provider_emqx.api.v4.users import Users
from airflow_provider_emqx.api.v5.api import Api


class ApiV4(Api):
    """
    The operations of an EMQX 4, with the arguments and results of EMQX 5.

    :param broker: what is known of the broker.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
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

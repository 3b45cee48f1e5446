"""All operations of EMQX 5 and 6, area by area."""

from __future__ import annotations

from typing import ClassVar

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
    """

    #: the classes of the areas, which EMQX 4 replaces by its own
    _nodes: ClassVar[type[Nodes]] = Nodes
    _users: ClassVar[type[Users]] = Users
    _acl: ClassVar[type[AclRules]] = AclRules
    _bans: ClassVar[type[Bans]] = Bans
    _clients: ClassVar[type[Clients]] = Clients
    _topics: ClassVar[type[Topics]] = Topics
    _messages: ClassVar[type[Messages]] = Messages
    _alarms: ClassVar[type[Alarms]] = Alarms
    _listeners: ClassVar[type[Listeners]] = Listeners
    _rule_engine: ClassVar[type[RuleEngine]] = RuleEngine
    _backups: ClassVar[type[Backups]] = Backups
    _rebalance: ClassVar[type[Rebalance]] = Rebalance

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.nodes = self._nodes(broker)
        self.users = self._users(broker)
        self.acl = self._acl(broker)
        self.bans = self._bans(broker)
        self.clients = self._clients(broker, self.nodes)
        self.topics = self._topics(broker, self.nodes)
        self.messages = self._messages(broker)
        self.alarms = self._alarms(broker)
        self.listeners = self._listeners(broker, self.nodes)
        self.rule_engine = self._rule_engine(broker)
        self.backups = self._backups(broker, self.nodes)
        self.rebalance = self._rebalance(broker, self.nodes)

"""All operations of EMQX 4, area by area."""

from __future__ import annotations

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
    """The operations of an EMQX 4, with the arguments and results of EMQX 5."""

    _nodes = Nodes
    _users = Users
    _acl = AclRules
    _bans = Bans
    _clients = Clients
    _topics = Topics
    _messages = Messages
    _alarms = Alarms
    _listeners = Listeners
    _rule_engine = RuleEngine
    _backups = Backups
    _rebalance = Rebalance

"""The users that the broker has, as a run finds them before it writes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING

from airflow_provider_emqx.client.idset import IdSet
from airflow_provider_emqx.provisioning.check import User
from airflow_provider_emqx.provisioning.plan import PRUNING

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.provisioning.plan import Plan

#: users looked at, or deleted, at a time
_BLOCK = 1_000


class Inventory:
    """
    List the broker's users once, in little memory.

    Of those that a synchronisation might delete the ids wait in a temporary file.

    :param hook: of the broker.
    :param plan: its scope and its protected users count, if it is for a synchronisation.
    """

    def __init__(self, hook: EmqxHook, plan: Plan) -> None:
        self._hook = hook
        self._plan = plan
        self._ids: IdSet | None = None
        self._prunable: IO[str] | None = None
        #: users inside the scope, before anything was written
        self.in_scope = 0

    def read(self) -> IdSet:
        """List the users, once."""
        if self._ids is None:
            self._ids = IdSet()
            users = self._hook.list_users()
            while block := list(islice(users, _BLOCK)):
                self._ids.add_all([user["user_id"] for user in block])
                if self._plan.mode in PRUNING:
                    self._note(block)
        return self._ids

    def among(self, users: list[User]) -> set[int]:
        """Give the indexes of those users that the broker has."""
        ids = self.read()
        return {index for index, user in enumerate(users) if user["user_id"] in ids}

    def prunable(self, named: Callable[[str], bool]) -> Iterator[list[str]]:
        """
        Give the users in scope, neither superusers nor protected, that no row names.

        :param named: tells whether a row names a user.
        :return: blocks of their ids.
        """
        self.read()
        if self._prunable is None:
            return
        self._prunable.seek(0)
        while lines := list(islice(self._prunable, _BLOCK)):
            ids = [user_id for user_id in map(json.loads, lines) if not named(user_id)]
            if ids:
                yield ids

    def _note(self, users: list[User]) -> None:
        if self._prunable is None:
            self._prunable = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  closed with the object
            self._scope, self._protected = self._plan.in_scope(), self._plan.protected()
        mine = [user for user in users if self._scope.match(user["user_id"])]
        self.in_scope += len(mine)
        self._prunable.writelines(
            json.dumps(user["user_id"]) + "\n"
            for user in mine
            if not user.get("is_superuser") and not self._protected.match(user["user_id"])
        )

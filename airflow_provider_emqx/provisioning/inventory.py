"""The users that the broker has, as a run finds them before it writes."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sized
from functools import partial
from itertools import islice
from typing import IO, TYPE_CHECKING

from airflow_provider_emqx.api.base import fits_path
from airflow_provider_emqx.api.rows import UserRow
from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxError
from airflow_provider_emqx.provisioning.chunks import User
from airflow_provider_emqx.provisioning.terms import PRUNING
from airflow_provider_emqx.transport.idset import IdSet
from airflow_provider_emqx.transport.listing import PASSES, Walk

if TYPE_CHECKING:
    from airflow_provider_emqx.provisioning.terms import UserTerms
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

#: users looked at, or deleted, at a time
BLOCK = 1_000


class Inventory:
    """
    List the broker's users before the first write, in little memory.

    While others delete users, rows move to pages that were read already, and a listing of several pages misses them.
    So whoever is absent from one is asked for by id before that decides anything, and where users are deleted the
    listing is read until it is the same twice.

    A synchronisation lists only who has what all ids in its scope have, where it need not know of others.

    Of those that a synchronisation might delete the ids wait in a temporary file.

    :param terms: its scope and its protected users count, if it is for a synchronisation.
    """

    def __init__(self, hook: Session, terms: UserTerms) -> None:
        self._hook = hook
        self._terms = terms
        self._ids: IdSet | None = None
        self._prunable: IO[str] | None = None
        self._unaddressable: list[str] = []
        # what those who are listed have in their ids, ``None`` where all users are
        self._part: str | None = None
        # whether a user that is not among the ids was absent for certain when they were listed
        self._complete = False
        #: whether the users were not the same in two listings, so that some may have been missed
        self.moved = False
        #: users inside the scope, before anything was written
        self.in_scope = 0
        #: seconds spent on listing
        self.seconds = 0.0

    def read(self) -> Sized:
        """List the users, unless that is done."""
        return self._listed()

    def _listed(self) -> IdSet:
        if self._ids is None:
            start = time.monotonic()
            self._ids = self._read()
            self.seconds = time.monotonic() - start
        return self._ids

    def _read(self) -> IdSet:
        terms = self._terms
        # a state file needs to know who is still there, and the free places of Serverless are counted
        if terms.mode in PRUNING and not terms.state_path and not self._hook.broker.serverless:
            self._part = terms.part_of_all()
        try:
            return self._list()
        except EmqxBadRequestError:
            if self._part is None:
                raise
            # EMQX 5 finds nobody by a part of the id while it has a user whose id is a number
            self._part = None
            return self._list()

    def _list(self) -> IdSet:
        ids = IdSet()
        self._prunable, self._unaddressable, self.in_scope = None, [], 0
        pruning = self._terms.mode in PRUNING
        walk = Walk(partial(self._hook.api.users.list, like=self._part), PASSES if pruning else 1)
        for page in walk.pages():
            users = self._hook.run(page)
            ids.add_all([user["user_id"] for user in users])
            if pruning:
                self._note(users)
        self._complete = walk.is_settled
        if pruning:
            walk.tell()
            self.moved = walk.moved is True
        return ids

    def among(self, users: list[User]) -> set[int]:
        """Return the indexes of those users that were listed."""
        ids = self._listed()
        return {index for index, user in enumerate(users) if user["user_id"] in ids}

    def existing(self, users: list[User]) -> set[int]:
        """
        Return the indexes of those users that the broker has.

        :raises EmqxError: if the broker fails to tell.
        """
        there = self.among(users)
        absent = [
            index
            for index, user in enumerate(users)
            if index not in there and not (self._complete and (self._part or "") in user["user_id"])
        ]
        get = self._hook.api.users.get
        answers = list(self._hook.run_many(get(users[index]["user_id"]) for index in absent))
        for index, answer in zip(absent, answers, strict=True):
            if isinstance(answer, EmqxError):
                raise answer
            if answer is not None:
                there.add(index)
        return there

    def prunable(self, named: Callable[[str], bool]) -> Iterator[list[str]]:
        """
        Return the users in scope, neither superusers nor protected, that are not in the source and can be deleted.

        :param named: returns whether a user is in the source.
        :return: blocks of their ids.
        """
        self.read()
        if self._prunable is None:
            return
        self._prunable.seek(0)
        while lines := list(islice(self._prunable, BLOCK)):
            ids = [user_id for user_id in map(json.loads, lines) if not named(user_id)]
            if ids:
                yield ids

    def unaddressable(self, named: Callable[[str], bool]) -> list[str]:
        """
        Return those that cannot be deleted: their ids have another meaning in a path, or are not text.

        :param named: returns whether a user is in the source.
        """
        self.read()
        return [user_id for user_id in self._unaddressable if not named(user_id)]

    def _note(self, users: list[UserRow]) -> None:
        if self._prunable is None:
            self._prunable = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  closed with the object
            self._scope, self._protected = self._terms.in_scope(), self._terms.protected()
        # EMQX 5 takes a number for an id, and keeps it as one
        mine = [user for user in users if self._scope.fullmatch(str(user["user_id"]))]
        self.in_scope += len(mine)
        for user in mine:
            user_id = user["user_id"]
            if user.get("is_superuser") or self._protected.fullmatch(str(user_id)):
                continue
            if fits_path(user_id):
                self._prunable.write(json.dumps(user_id) + "\n")
            else:
                self._unaddressable.append(str(user_id))

"""State files: digests of what earlier runs wrote, so that unchanged rows are not sent again."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location, exists, open_to_read, replacing
from airflow_provider_emqx.provisioning.chunks import User

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

_MAGIC = b"emqx-provisioning-state 1\n"
_FIRST_SLOTS = 1 << 12
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=bytes.hex).encode


class State:
    """
    A file with two digests per user: of the id, and of all that was written for it.

    It is emptied before a run's first write and written at its end, so that it is empty after a run that was
    killed.

    The digests are keyed with the pepper, so that the file reveals nothing about ids or passwords without the
    pepper. They are 8 bytes each: that a changed row looks unchanged has a probability of 5 in 10^20.

    :param location: of the file; created if it does not exist.
    :param pepper: the secret key.
    :param hook: of the broker that the file belongs to.
    :raises EmqxConfigError: if the file belongs to another broker, was made with another pepper, or is damaged.
    """

    def __init__(self, location: Location, pepper: str, hook: Session) -> None:
        self._location = location
        self._key = hashlib.blake2b(pepper.encode(), digest_size=32).digest()
        told = list(hook.identity.values())
        self._binding = hashlib.blake2b(_encode(told).encode(), digest_size=16, key=self._key).digest()
        self._count = 0
        self._written = True
        self._ids = array("q", bytes(8 * _FIRST_SLOTS))
        self._rows = array("q", bytes(8 * _FIRST_SLOTS))
        self._load()

    def __len__(self) -> int:
        return self._count

    def knows(self, user: User) -> bool:
        """Return whether just this was written for the user before."""
        digest, row = self._digests(user)
        return self._rows[self._slot(digest)] == row

    def knows_of(self, user: User) -> bool:
        """Return whether anything was written for the user before."""
        return bool(self._rows[self._slot(self._digests(user)[0])])

    def note(self, users: Sequence[User]) -> None:
        """Remember what was written."""
        for user in users:
            self._put(*self._digests(user))

    def forget(self, users: Sequence[User]) -> None:
        """Forget the state of users: if sending them fails, it is not known what arrived."""
        if self._written:
            self._write(array("q"))
            self._written = False
        for user in users:
            # 0 is the digest of nothing
            self._put(self._digests(user)[0], 0)

    def save(self) -> None:
        """Write the file, if something was sent."""
        if self._written:
            return
        pairs = array("q")
        for digest, row in zip(self._ids, self._rows, strict=True):
            if digest:
                pairs.append(digest)
                pairs.append(row)
        if sys.byteorder == "big":
            pairs.byteswap()
        self._write(pairs)
        self._written = True

    def _write(self, pairs: array[int]) -> None:
        """Write the file; a local one is replaced as a whole, or not at all."""
        with replacing(self._location, "state") as file:
            file.write(_MAGIC + self._binding)
            file.write(pairs.tobytes())

    def _load(self) -> None:
        if not exists(self._location):
            return
        damaged = EmqxConfigError(
            f"{str(self._location)!r} is not a state file, or it is damaged: delete it to send all rows once more"
        )
        with open_to_read(self._location) as file:
            # looked at first: the path may be that of another file, larger than the memory
            head = file.read(len(_MAGIC) + len(self._binding))
            if len(head) < len(_MAGIC) + len(self._binding) or not head.startswith(_MAGIC):
                raise damaged
            if head[len(_MAGIC) :] != self._binding:
                raise EmqxConfigError(
                    f"the state file {str(self._location)!r} belongs to another broker or was made with another "
                    "pepper: give each broker its own, or delete it, and all rows are sent once more"
                )
            content = file.read()
        if len(content) % 16:
            raise damaged
        pairs = array("q", content)
        if not pairs:
            # not deleted: that may need a permission that writing does not
            log.warning(
                "The state file %s was emptied by a run that was killed before its end: what that run changed is not "
                "known, so all rows are sent once more, and take the time of a first run",
                self._location,
            )
        if sys.byteorder == "big":
            pairs.byteswap()
        for at in range(0, len(pairs), 2):
            # what a crash of the machine leaves may be zeros
            if not pairs[at]:
                raise damaged
            self._put(pairs[at], pairs[at + 1])

    def _digests(self, user: User) -> tuple[int, int]:
        """Both are never 0, which is an empty slot."""
        digests = []
        for text in (user["user_id"], _encode(user)):
            digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._key).digest()
            digests.append(int.from_bytes(digest, "little", signed=True) or 1)
        return digests[0], digests[1]

    def _slot(self, digest: int) -> int:
        ids, mask = self._ids, len(self._ids) - 1
        slot = digest & mask
        while (held := ids[slot]) and held != digest:
            slot = (slot + 1) & mask
        return slot

    def _put(self, digest: int, row: int) -> None:
        slot = self._slot(digest)
        if not self._ids[slot]:
            self._count += 1
            if self._count * 10 > len(self._ids) * 7:
                self._grow()
                slot = self._slot(digest)
        self._ids[slot], self._rows[slot] = digest, row

    def _grow(self) -> None:
        ids, rows = self._ids, self._rows
        self._ids = array("q", bytes(16 * len(ids)))
        self._rows = array("q", bytes(16 * len(rows)))
        for digest, row in zip(ids, rows, strict=True):
            if digest:
                slot = self._slot(digest)
                self._ids[slot], self._rows[slot] = digest, row

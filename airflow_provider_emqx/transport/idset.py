"""A set of many ids in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Sequence

_FIRST_SLOTS = 1 << 12
#: the table grows by large steps up to here, 2 MB, because inserting all ids anew is what costs
_ROOMY = 1 << 18


class IdSet:
    """
    Remember which ids were met, in 11 to 23 bytes each, where a ``set`` of them would take over 100.

    An id is any text, or a tuple of texts. Kept is not the id but its 64-bit ``hash()`` (SipHash under a key of this
    process), in an open-addressing table. Two different ids among a million share a hash with a probability of 3 in
    100 million; the later one would then count as met. So it is used where that shows as a reported row, leaves
    one out of a listing, or leaves a user alone: never to delete one.
    """

    __slots__ = ("_count", "_mask", "_table")

    def __init__(self) -> None:
        self._count = 0
        self._mask = _FIRST_SLOTS - 1
        # 0 is an empty slot; the hash 0 is stored as 1
        self._table = array("q", bytes(8 * _FIRST_SLOTS))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, user_id: Hashable) -> bool:
        digest = hash(user_id) or 1
        slot = digest & self._mask
        while held := self._table[slot]:
            if held == digest:
                return True
            slot = (slot + 1) & self._mask
        return False

    def add_all(self, ids: Sequence[Hashable]) -> list[int]:
        """
        Add ids.

        :param ids: any of them may be in the set, or twice among themselves.
        :return: positions, in order, of those that were there already or came earlier in ``ids``.
        """
        self._make_room(len(ids))
        return self._insert(map(hash, ids))

    def _insert(self, digests: Iterable[int]) -> list[int]:
        table, mask = self._table, self._mask
        met: list[int] = []
        position = -1
        for position, digest in enumerate(digests):
            digest = digest or 1
            slot = digest & mask
            while held := table[slot]:
                if held == digest:
                    met.append(position)
                    break
                slot = (slot + 1) & mask
            else:
                table[slot] = digest
        self._count += position + 1 - len(met)
        return met

    def _make_room(self, more: int) -> None:
        slots = self._mask + 1
        while (self._count + more) * 10 > slots * 7:
            slots *= 8 if slots < _ROOMY else 2
        if slots > self._mask + 1:
            held, self._table = self._table, array("q", bytes(8 * slots))
            self._mask = slots - 1
            self._count = 0
            self._insert(filter(None, held))

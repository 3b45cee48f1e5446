"""Splits one source between several tasks, so that each row is done by exactly one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning.blocks import Block


class Shard(NamedTuple):
    """
    One part of a source.

    Rows of one id are in one part, so that duplicates are found as in a single run.

    :param number: which part, from 0.
    :param of: how many there are.
    """

    number: int
    of: int

    @classmethod
    def read(cls, given: Sequence[Any] | str | None) -> Shard | None:
        """
        Read the argument of an operator.

        :param given: ``(0, 4)``, ``[0, 4]`` or ``"0/4"``; ``None`` for all rows.
        :raises EmqxConfigError: if it is not a valid shard.
        """
        if given is None or (isinstance(given, str) and not given):
            return None
        parts = re.findall(r"-?\d+", given) if isinstance(given, str) else given
        try:
            number, of = (int(part) for part in parts)
        except (TypeError, ValueError):
            number, of = 0, 0
        if not 0 <= number < of:
            raise EmqxConfigError(f"shard must be (number, of), as (0, 4) to (3, 4), not {given!r}")
        return cls(number, of)

    def mine(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """
        Leave out the rows of the other parts. A row without a readable id is of the part that its line says.

        :param blocks: of the whole source.
        """
        number, of = self
        for block in blocks:
            at = [
                index
                for index, (line, user_id) in enumerate(zip(block.lines, block.columns[0], strict=True))
                if (crc32(user_id.encode("utf-8", "surrogatepass")) if isinstance(user_id, str) else line)
                % of
                == number
            ]
            yield block._replace(
                lines=[block.lines[index] for index in at],
                columns=tuple([column[index] for index in at] for column in block.columns),
                bad=[bad for bad in block.bad if bad.line % of == number],
            )

"""Sources that a plan depends on: what they held when it was made must be what they hold when it is carried out."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

from airflow_provider_emqx.exceptions import EmqxError
from airflow_provider_emqx.provisioning.blocks import Block

#: a digest of rows with passwords must not be a means of guessing them
_ROUNDS = 200_000


class SameRows:
    """The rows of a source, which may be read twice: a digest of them is in the plan."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        # after each block
        self._digests: list[bytes] = []

    def noted(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """
        Note rows as they are read.

        :param blocks: of the source.
        """
        for block in blocks:
            self._digests.append(_add(self._digest, block))
            yield block

    def again(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """
        Make sure that rows are those that were read before.

        :param blocks: of the source, read once more.
        :raises EmqxError: before the first block that differs is given out.
        """
        digest, known = hashlib.sha256(), iter(self._digests)
        for block in blocks:
            if _add(digest, block) != next(known, None):
                raise _changed()
            yield block
        if next(known, None) is not None:
            raise _changed()

    def told(self, salt: str | None = None) -> dict[str, str]:
        """
        Return a digest of all rows for a plan.

        :param salt: of the plan that this is compared with; a new plan gets a new one.
        """
        return told(self._digest.digest(), salt)


def told(digest: bytes, salt: str | None = None) -> dict[str, str]:
    """
    Return a digest as a plan has it.

    :param digest: SHA-256 of a source.
    :param salt: of the plan that this is compared with; a new plan gets a new one.
    """
    salt = salt or secrets.token_hex(16)
    return {"salt": salt, "digest": hashlib.pbkdf2_hmac("sha256", digest, salt.encode(), _ROUNDS).hex()}


def _add(digest: Any, block: Block) -> bytes:
    told = [block.file, list(block.lines), [list(column) for column in block.columns], block.bad]
    digest.update(json.dumps(told, default=_plain, skipkeys=True).encode())
    return bytes(digest.copy().digest())


def _plain(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _changed() -> EmqxError:
    return EmqxError(
        "the source was changed after it was compared with the plan. Rows before this one are written as planned; the "
        "others were left alone. Make a new plan"
    )

"""Checks rows before anything is sent: what is good becomes a user, what is not is rejected with a reason."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from airflow_provider_emqx.api.base import Broker, path
from airflow_provider_emqx.api.bulk import MAX_BODY
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning.idset import IdSet
from airflow_provider_emqx.provisioning.sources import Bad, Block, kind

User = dict[str, Any]

_FLAGS: dict[object, bool] = {
    None: False,
    False: False,
    True: True,
    **dict.fromkeys(("", "false", "False", "FALSE", "0", "no"), False),
    **dict.fromkeys(("true", "True", "TRUE", "1", "yes"), True),
}
_DOTS = frozenset({".", ".."})
#: ids up to this length fit into a request line however they are percent-encoded
_SHORT = 600
#: bytes of JSON around the values of a user
_FRAME = 80


class Checked(NamedTuple):
    """
    A block of rows after the check.

    :param lines: where each user's row starts.
    :param users: rows that may be sent.
    :param weight: bytes that the users take at most as JSON.
    :param bad: rejected rows.
    """

    lines: list[int]
    users: list[User]
    weight: int
    bad: list[Bad]


class Checker:
    """
    Check the rows of one source.

    :param broker: where the users go; long ids are measured against its paths.
    :param ids_only: whether rows need no password, since users are deleted.
    """

    def __init__(self, broker: Broker, ids_only: bool = False) -> None:
        self._broker = broker
        self._ids_only = ids_only
        self._seen = IdSet()

    def check(self, block: Block) -> Checked:
        """
        Check one block.

        :param block: as a source gives it.
        :return: its users, and its rejected rows with those of the source.
        """
        bad = block.bad
        if self._ids_only:
            lines, users, ids = self._ids(block, bad)
            size = sum(map(len, ids))
        else:
            lines, users, ids, size = self._users(block, bad)
        again = self._seen.add_all(ids)
        for at in reversed(again):
            bad.append(Bad(lines[at], ids[at], "duplicate: an earlier row has this user_id"))
            del lines[at], users[at]
        # in JSON a character takes 6 bytes at most
        return Checked(lines, users, 6 * size + _FRAME * len(users), bad)

    def _users(self, block: Block, bad: list[Bad]) -> tuple[list[int], list[User], list[str], int]:
        lines, users, ids, size = [], [], [], 0
        for line, user_id, password, flag in zip(block.lines, *block.columns, strict=True):
            try:
                is_superuser = _FLAGS[flag]
                # what nearly every row is like, told by few and cheap tests
                good = (
                    0 < len(user_id) <= _SHORT
                    and user_id.isascii()
                    and user_id.isprintable()
                    and user_id not in _DOTS
                    and password != ""
                    and password.isascii()
                    and password.isprintable()
                )
            except (KeyError, TypeError, AttributeError):
                good = False
            if not good:
                reason = self._wrong_id(user_id) or _wrong_password(password) or _wrong_flag(flag)
                if reason:
                    bad.append(Bad(line, user_id, reason))
                    continue
                is_superuser = bool(_flag(flag))
            size += len(user_id) + len(password)
            lines.append(line)
            ids.append(user_id)
            users.append({"user_id": user_id, "password": password, "is_superuser": is_superuser})
        return lines, users, ids, size

    def _ids(self, block: Block, bad: list[Bad]) -> tuple[list[int], list[User], list[str]]:
        lines, users, ids = [], [], []
        for line, user_id in zip(block.lines, block.columns[0], strict=True):
            reason = self._wrong_id(user_id)
            if reason:
                bad.append(Bad(line, user_id, reason))
            else:
                lines.append(line)
                ids.append(user_id)
                users.append({"user_id": user_id})
        return lines, users, ids

    def _wrong_id(self, user_id: object) -> str | None:
        reason = _wrong_text("user_id", user_id)
        if reason or not isinstance(user_id, str):
            return reason
        if user_id in _DOTS:
            return f"user_id {user_id!r} cannot be used: in a path of the API it means something else"
        if "\0" in user_id:
            return "user_id holds a NUL character, which MQTT does not allow"
        if len(user_id) > _SHORT:
            try:
                path("authentication", self._broker.authenticator, "users", user_id)
            except EmqxConfigError:
                return "user_id is too long: it would not fit into a request line of the API"
        return None


def weight(user: User) -> int:
    """
    Tell how many bytes a user takes as JSON.

    :param user: as :meth:`Checker.check` gives it.
    """
    return len(json.dumps(user, ensure_ascii=False).encode()) + 2


def too_large(size: int) -> str:
    """
    Say that a row cannot be sent.

    :param size: its bytes.
    """
    return f"the row is too large: {size:,} bytes, {MAX_BODY:,} can be sent at once"


def _wrong_text(name: str, value: object) -> str | None:
    if value is None:
        return f"{name} is missing"
    if not isinstance(value, str):
        return f"{name} is {kind(value)}, not text"
    if not value:
        return f"{name} is empty"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{name} is not valid UTF-8"
    return None


def _wrong_password(password: object) -> str | None:
    return _wrong_text("password", password)


def _wrong_flag(flag: object) -> str | None:
    return None if _flag(flag) is not None else "is_superuser must be true or false (or 1, 0, yes, no)"


def _flag(flag: object) -> bool | None:
    if isinstance(flag, str):
        flag = flag.strip().lower()
    return _FLAGS.get(flag) if isinstance(flag, str | bool | int | None) else None

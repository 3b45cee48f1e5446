"""Validation of rows before anything is sent: valid rows become users, others are rejected with a reason."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from airflow_provider_emqx.api.base import Broker, is_utf8, path
from airflow_provider_emqx.api.salts import not_carried
from airflow_provider_emqx.arguments import TRUTH, truth
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning import user_acl
from airflow_provider_emqx.provisioning.blocks import FIELDS, Bad, Block, kind
from airflow_provider_emqx.provisioning.chunks import Chunk, User
from airflow_provider_emqx.provisioning.hashing import Algorithm, Hasher
from airflow_provider_emqx.transport.idset import IdSet

_HASH = FIELDS.index("password_hash")
#: what nearly every row has as ``is_superuser``
_FLAGS: dict[object, bool] = {None: False, "": False, **TRUTH}
#: characters of the longest hash with its salt
_HASHED = 160
_DOTS = frozenset({".", ".."})
#: ids that users may have, but no path
_NAMELESS = _DOTS | {""}
#: what databases and programs write where they have nothing
_NOTHING = frozenset({"\\N", "NULL", "null", "nan", "NaN", "None"})
#: what a spreadsheet makes of a number that is too long, and how it keeps zeros at the front
_SPREADSHEET = re.compile(r'\d(?:[.,]\d+)?E\+\d+|="[^"]*"?')
#: ids up to this length fit into a request line however they are percent-encoded
_SHORT = 600
#: bytes of JSON around the values of a user
_FRAME = 80


class Checker:
    """
    Check the rows of one source.

    :param broker: where the users go; long ids are measured against its paths.
    :param ids_only: whether rows need no password, since users are deleted.
    :param algorithm: of the authenticator, to check ready-made hashes against.
    :param no_hashes: why the broker takes no ready-made hashes, if it takes none.
    :param no_superusers: why no user can be a superuser, if none can.
    :param hasher: hashes plain passwords, if they are not left to the broker.
    :param keep: remember the ids of rejected rows too, for :meth:`names`.
    :param by_archive: whether users travel in archives, which carry any salt, and delete users of any id.
    """

    def __init__(
        self,
        broker: Broker,
        ids_only: bool = False,
        *,
        algorithm: Algorithm | None = None,
        no_hashes: str = "",
        no_superusers: str = "",
        hasher: Hasher | None = None,
        keep: bool = False,
        by_archive: bool = False,
    ) -> None:
        self._broker = broker
        self._ids_only = ids_only
        self._algorithm = algorithm
        self._no_hashes = no_hashes
        self._no_superusers = no_superusers
        self._hasher = hasher
        self._keep = keep
        self._by_archive = by_archive
        self._seen = IdSet()
        self._rejected = IdSet()
        #: rejected rows whose id nobody can tell
        self.unreadable = 0

    def names(self, user_id: str) -> bool:
        """Return whether a row so far named a user, or may have meant to."""
        return user_id in self._seen or user_id in self._rejected

    def check(self, block: Block) -> Chunk:
        """
        Check one block.

        :param block: as a source gives it.
        :return: its users, and its rejected rows with those of the source.
        """
        bad = block.bad
        if self._ids_only:
            lines, users, ids = self._ids(block, bad)
            size = sum(map(len, ids))
        elif self._hasher is not None or any(map(any, block.columns[_HASH:])):
            lines, users, ids, size = self._rich(block, bad)
        else:
            lines, users, ids, size = self._users(block, bad)
        again = self._seen.add_all(ids)
        for at in reversed(again):
            bad.append(Bad(lines[at], ids[at], "duplicate: an earlier row has this user_id"))
            del lines[at], users[at]
        if self._keep and bad:
            self._remember(bad)
        if self._hasher is not None:
            # longer than any password's bytes are the digits of its hash
            size += len(users) * _HASHED
        # in JSON a character takes 6 bytes at most
        return Chunk(lines, users, 6 * size + _FRAME * len(users), bad, block.file)

    def _users(self, block: Block, bad: list[Bad]) -> tuple[list[int], list[User], list[str], int]:
        lines, users, ids, size = [], [], [], 0
        may_be_superuser = not self._no_superusers
        for line, user_id, password, flag in zip(block.lines, *block.columns[:_HASH], strict=True):
            try:
                is_superuser = _FLAGS[flag]
                # nearly every row passes these few, cheap tests
                good = (
                    (not is_superuser or may_be_superuser)
                    and 0 < len(user_id) <= _SHORT
                    and user_id.isascii()
                    and user_id.isprintable()
                    and user_id not in _DOTS
                    and "E+" not in user_id
                    and user_id[0] != "="
                    and password != ""
                    and password not in _NOTHING
                    and password.isascii()
                    and password.isprintable()
                )
            except (KeyError, TypeError, AttributeError):
                good = False
            if not good:
                reason = self._wrong_id(user_id) or self._wrong_password(password) or self._wrong_flag(flag)
                if reason:
                    bad.append(Bad(line, user_id, reason))
                    continue
                is_superuser = bool(_flag(flag))
            size += len(user_id) + len(password)
            lines.append(line)
            ids.append(user_id)
            users.append({"user_id": user_id, "password": password, "is_superuser": is_superuser})
        return lines, users, ids, size

    def _rich(self, block: Block, bad: list[Bad]) -> tuple[list[int], list[User], list[str], int]:
        """Check rows of which some have a ready-made hash, or ACL rules."""
        lines, users, ids, size = [], [], [], 0
        for line, user_id, password, flag, hashed, salt, coded, acl in zip(
            block.lines, *block.columns, strict=True
        ):
            reason = self._wrong_id(user_id)
            if not reason and coded not in (None, ""):
                salt, reason = self._decoded(user_id, salt, coded)
            if not reason and hashed in (None, ""):
                reason = "there is a salt without a password_hash" if salt not in (None, "") else None
                reason = reason or self._wrong_password(password)
                secret: User = {"password": password}
            elif not reason:
                reason = self._wrong_hash(password, hashed, salt)
                secret = {"password_hash": self._as_stored(hashed), "salt": salt or ""}
            reason = reason or self._wrong_flag(flag)
            if not reason and acl not in (None, ""):
                try:
                    secret["acl"] = user_acl.read(acl)
                except EmqxConfigError as error:
                    reason = error.message
            if reason:
                bad.append(Bad(line, user_id, reason))
                continue
            lines.append(line)
            ids.append(user_id)
            users.append({"user_id": user_id, **secret, "is_superuser": bool(_flag(flag))})
            size += len(user_id) + sum(map(len, secret.values()))
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

    def _remember(self, bad: list[Bad]) -> None:
        for row in bad:
            if isinstance(row.user_id, str):
                self.unreadable += not is_utf8(row.user_id)
            # of true and false nobody knows how the id is spelled
            elif isinstance(row.user_id, int) and not isinstance(row.user_id, bool):
                self._rejected.add_all([str(row.user_id)])
            elif row.user_id is not None:
                self.unreadable += 1
            ids = (*row.maybe, row.user_id) if isinstance(row.user_id, str) else row.maybe
            self._rejected.add_all(ids)

    def _wrong_password(self, password: object) -> str | None:
        reason = _wrong_text("password", password)
        if not reason and password in _NOTHING:
            reason = f"password is {password!r}, which stands for no value"
        if not reason and self._hasher is not None:
            reason = self._hasher.wrong(str(password))
        return reason

    def _wrong_hash(self, password: object, hashed: object, salt: object) -> str | None:
        if self._no_hashes:
            return self._no_hashes
        if password not in (None, ""):
            return "there is a password beside the password_hash: which one counts?"
        reason = _wrong_text("password_hash", hashed)
        if not reason and salt not in (None, "") and not isinstance(salt, bytes):
            reason = _wrong_text("salt", salt)
        if not reason and self._algorithm is not None:
            reason = self._algorithm.wrong(str(hashed), bool(salt))
        return reason

    def _decoded(self, user_id: Any, salt: object, coded: object) -> tuple[str | bytes, str | None]:
        """Read a salt that may be any bytes: text where it is one, since that can be sent to every broker."""
        if salt not in (None, ""):
            return "", "there is a salt beside the salt_base64: which one counts?"
        try:
            data = base64.b64decode(str(coded), validate=True)
        except (binascii.Error, ValueError):
            return "", "salt_base64 is not base64"
        try:
            return data.decode(), None
        except UnicodeDecodeError:
            return data, None if self._by_archive else not_carried(self._broker, user_id, data)

    def _as_stored(self, hashed: Any) -> Any:
        """EMQX makes its hex digits small, and compares them as they are."""
        simple = self._algorithm is not None and self._algorithm.name not in ("plain", "bcrypt")
        return hashed.lower() if simple and isinstance(hashed, str) else hashed

    def _wrong_flag(self, flag: object) -> str | None:
        is_superuser = _flag(flag)
        if is_superuser is None:
            return "is_superuser must be true or false (or 1, 0, yes, no)"
        return self._no_superusers or None if is_superuser else None

    def _wrong_id(self, user_id: object) -> str | None:
        if self._by_archive and self._ids_only and isinstance(user_id, str) and user_id in _NAMELESS:
            return None
        reason = _wrong_text("user_id", user_id)
        if reason or not isinstance(user_id, str):
            return reason
        if user_id in _DOTS:
            return f"user_id {user_id!r} cannot be used: in a path of the API it means something else"
        if _SPREADSHEET.fullmatch(user_id):
            return f"user_id {user_id!r} is what a spreadsheet makes of a number: format the column as text"
        if "\0" in user_id:
            return "user_id holds a NUL character, which MQTT does not allow"
        if len(user_id) > _SHORT:
            try:
                path("authentication", self._broker.authenticator, "users", user_id)
            except EmqxConfigError:
                return "user_id is too long: it would not fit into a request line of the API"
        return None


def _wrong_text(name: str, value: object) -> str | None:
    if value is None:
        return f"{name} is missing"
    if not isinstance(value, str):
        return f"{name} is {kind(value)}, not text"
    if not value:
        return f"{name} is empty"
    return None if is_utf8(value) else f"{name} is not valid UTF-8"


def _flag(flag: object) -> bool | None:
    return False if flag is None or (isinstance(flag, str) and not flag.strip()) else truth(flag)

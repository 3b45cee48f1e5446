"""Password records as EMQX's built-in database keeps them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

#: What an authenticator gets whose configuration does not say, and what 4.4 has.
SHA256_PREFIX = {"name": "sha256", "salt_position": "prefix"}
#: What the dashboard of EMQX 5 and 6 proposes, so that most authenticators have it.
SHA256_SUFFIX = {"name": "sha256", "salt_position": "suffix"}


class User:
    """One user of the built-in database.

    :param password: The last plain password, or ``None`` after a hash import.
    :param is_superuser: Superuser flag (API v5).
    :param created_at: Milliseconds since the epoch (API v4).
    :param password_hash: Imported hash, or ``None``.
    :param salt: Imported salt; bytes that are not UTF-8 are surrogate escapes, as :func:`os.fsdecode` makes them.
    """

    __slots__ = ("created_at", "is_superuser", "password", "password_hash", "salt")

    def __init__(
        self,
        password: str | None,
        is_superuser: bool = False,
        created_at: int = 0,
        password_hash: str | None = None,
        salt: str = "",
    ) -> None:
        self.password = password
        self.is_superuser = is_superuser
        self.created_at = created_at
        self.password_hash = password_hash
        self.salt = salt

    def __repr__(self) -> str:
        return f"User(is_superuser={self.is_superuser})"

    def same_record(self, other: User) -> bool:
        """Return whether a hash import would leave the stored bytes as they are."""
        return (
            self.password_hash is not None
            and self.password_hash == other.password_hash
            and self.salt == other.salt
            and self.is_superuser == other.is_superuser
        )

    def stored(self, algorithm: Mapping[str, Any], salt: str | None = None) -> tuple[str, str]:
        """Return hash and salt as the broker keeps them; of a plain password they are made when first asked for.

        :param algorithm: ``password_hash_algorithm`` of the authenticator.
        :param salt: Salt that is taken then; drawn when not given.
        """
        if self.password_hash is None:
            self.password_hash, self.salt = make_hash(algorithm, self.password or "", salt)
        return self.password_hash, self.salt

    def accepts(self, password: str, algorithm: Mapping[str, Any]) -> bool:
        """Authenticate a device.

        :param password: What the device sent.
        :param algorithm: ``password_hash_algorithm`` of the authenticator.
        """
        if self.password_hash is None:
            return self.password == password
        return check(algorithm, self.password_hash, self.salt, password)


def make_hash(algorithm: Mapping[str, Any], password: str, salt: str | None = None) -> tuple[str, str]:
    """Return ``(password_hash, salt)`` for a hash import, as a device registry would keep them.

    :param algorithm: ``password_hash_algorithm`` of the authenticator.
    :param password: Plain password.
    :param salt: Salt; drawn when not given. EMQX uses the text as it is, it does not decode hex.
    """
    name = algorithm["name"]
    if name == "bcrypt":
        import bcrypt

        rounds = int(algorithm.get("salt_rounds", 10))
        return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds)).decode(), ""
    drawn = os.urandom(16).hex() if salt is None else salt
    if name != "pbkdf2" and algorithm.get("salt_position") == "disable":
        drawn = ""
    return _digest(algorithm, password, drawn), drawn


def check(algorithm: Mapping[str, Any], password_hash: str, salt: str, password: str) -> bool:
    """Compare a password with a stored hash."""
    if algorithm["name"] == "bcrypt":
        import bcrypt

        try:
            return bcrypt.checkpw(password.encode(), password_hash.encode())
        except ValueError:
            return False
    if algorithm["name"] == "plain":
        return _digest(algorithm, password, salt) == password_hash
    return _digest(algorithm, password, salt) == password_hash.lower()


def _digest(algorithm: Mapping[str, Any], password: str, salt: str) -> str:
    name = algorithm["name"]
    if name == "pbkdf2":
        length = algorithm.get("dk_length")
        return hashlib.pbkdf2_hmac(
            "sha1" if algorithm["mac_fun"] == "sha" else algorithm["mac_fun"],
            password.encode(),
            salt.encode("utf-8", "surrogateescape"),
            int(algorithm["iterations"]),
            int(length) if length else None,
        ).hex()
    position = algorithm.get("salt_position", "prefix")
    salted = {"prefix": salt + password, "suffix": password + salt}.get(position, password)
    if name == "plain":
        return salted
    return hashlib.new(
        "sha1" if name == "sha" else name, salted.encode("utf-8", "surrogateescape")
    ).hexdigest()

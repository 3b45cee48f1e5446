"""Password hashes as EMQX makes them, so that it can be given ready-made ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_emqx.exceptions import EmqxConfigError

#: hex digits of each simple algorithm's hash
_DIGITS = {"md5": 32, "sha": 40, "sha256": 64, "sha512": 128}
_MACS = {"sha": "sha1"}
_TO_BCRYPT = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
)
#: bcrypt looks at no more bytes of a password
_BCRYPT_BYTES = 72


@dataclass(frozen=True)
class Algorithm:
    """
    The hash algorithm of an authenticator: its ``password_hash_algorithm``.

    :param name: ``plain``, ``md5``, ``sha``, ``sha256``, ``sha512``, ``bcrypt`` or ``pbkdf2``.
    :param salt_position: of the simple ones: ``prefix``, ``suffix`` or ``disable``.
    :param rounds: of bcrypt: the work factor; of pbkdf2: iterations.
    :param mac: of pbkdf2: name of the hash function as :mod:`hashlib` has it.
    :param length: of pbkdf2: bytes of the result.
    """

    name: str
    salt_position: str = "prefix"
    rounds: int = 10
    mac: str = "sha256"
    length: int = 32

    @classmethod
    def of(cls, authenticator: Mapping[str, Any] | None) -> Algorithm:
        """
        Read it from the authenticator's configuration.

        :param authenticator: as ``GET /authentication/{id}`` gives it.
        :raises EmqxConfigError: if it is one that is not known here.
        """
        authenticator = authenticator or {}
        given = authenticator.get("password_hash_algorithm") or {}
        name = given.get("name")
        if name in _DIGITS or name == "plain":
            return cls(name, salt_position=given.get("salt_position", "prefix"))
        if name == "bcrypt":
            return cls(name, rounds=int(given.get("salt_rounds", 10)))
        if name == "pbkdf2":
            mac = _MACS.get(given["mac_fun"], given["mac_fun"])
            if mac in hashlib.algorithms_available:
                length = given.get("dk_length") or hashlib.new(mac).digest_size
                return cls(name, rounds=int(given["iterations"]), mac=mac, length=int(length))
            name = f"pbkdf2 of {mac}"
        raise EmqxConfigError(
            f"the authenticator {authenticator.get('id')} hashes passwords with {name!r}, which is not known here: "
            "leave the hashing to the broker"
        )

    @property
    def takes_salt(self) -> bool:
        """Whether hashes have a salt beside them (bcrypt keeps it inside)."""
        if self.name in _DIGITS:
            return self.salt_position != "disable"
        return self.name == "pbkdf2"

    @property
    def slow(self) -> bool:
        """Whether a hash takes tens of milliseconds rather than microseconds."""
        return self.name == "bcrypt" or (self.name == "pbkdf2" and self.rounds > 1_000)

    def __str__(self) -> str:
        if self.name == "bcrypt":
            return "bcrypt"
        if self.name == "pbkdf2":
            return f"pbkdf2 of {self.mac} and {self.length} bytes"
        return f"{self.name} ({'no salt' if self.salt_position == 'disable' else f'salt as {self.salt_position}'})"

    def settings(self) -> str:
        """Write it as the configuration of an authenticator has it."""
        if self.name == "bcrypt":
            return f"{{name = bcrypt, salt_rounds = {self.rounds}}}"
        if self.name == "pbkdf2":
            return f"{{name = pbkdf2, mac_fun = {self.mac}, iterations = {self.rounds}, dk_length = {self.length}}}"
        return f"{{name = {self.name}, salt_position = {self.salt_position}}}"

    def wrong(self, password_hash: str, salted: bool) -> str | None:
        """
        Return why a hash cannot be of this algorithm, which would lock its device out.

        :param password_hash: as the source gives it.
        :param salted: whether the row has a salt.
        :return: the reason, or ``None``.
        """
        if self.name == "bcrypt":
            if not re.fullmatch(r"\$2[ab]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}", password_hash):
                return "password_hash is not a bcrypt hash, which the authenticator expects"
            return None
        if self.name != "plain":
            digits = 2 * self.length if self.name == "pbkdf2" else _DIGITS[self.name]
            if not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", password_hash):
                return f"password_hash must have {digits} hex digits: the authenticator expects {self}"
            if salted and not self.takes_salt:
                return f"there is a salt, but the authenticator expects {self}"
        return None

    def hash(self, password: str, salt: bytes) -> bytes:
        """
        Hash a password as the broker would.

        :param password: plain.
        :param salt: for bcrypt its own form, as ``$2b$10$…``.
        """
        data = password.encode()
        if self.name == "bcrypt":
            import bcrypt

            return bcrypt.hashpw(data, salt)
        if self.name == "pbkdf2":
            return hashlib.pbkdf2_hmac(self.mac, data, salt, self.rounds, self.length).hex().encode()
        if self.salt_position == "prefix":
            data = salt + data
        elif self.salt_position == "suffix":
            data += salt
        if self.name == "plain":
            return data
        new: Callable[[bytes], Any] = getattr(hashlib, _MACS.get(self.name, self.name))
        return str(new(data).hexdigest()).encode()

    def made(self, password: str, password_hash: bytes, salt: bytes) -> bool:
        """
        Return whether a hash is that of a password.

        :param password: plain.
        :param password_hash: as the broker keeps it.
        :param salt: the same.
        """
        if self.name != "bcrypt":
            return self.hash(password, salt) == password_hash
        import bcrypt

        try:
            return bcrypt.checkpw(password.encode(), password_hash)
        except ValueError:
            return False


class Hasher:
    """
    Hash passwords with salts that are the same at every run, so that an unchanged row is unchanged for the broker.

    A user's salt is derived from the user id and a secret pepper: different for each user, and not to be foreseen
    without the pepper.

    :param algorithm: the authenticator's.
    :param pepper: the secret; without one, salts are drawn anew each time.
    """

    def __init__(self, algorithm: Algorithm, pepper: str) -> None:
        self.algorithm = algorithm
        self._pepper = pepper.encode()
        if algorithm.name == "bcrypt":
            try:
                import bcrypt  # noqa: F401
            except ImportError:
                raise EmqxConfigError(
                    "the authenticator hashes with bcrypt: install airflow-provider-emqx[bcrypt] on the workers, or "
                    "leave the hashing to the broker"
                ) from None

    def wrong(self, password: str) -> str | None:
        """Return why a password cannot be hashed."""
        if self.algorithm.name == "bcrypt" and (len(password.encode()) > _BCRYPT_BYTES or "\0" in password):
            return f"password has more than {_BCRYPT_BYTES} bytes or a NUL, which bcrypt cuts off"
        return None

    def hashed(self, user: dict[str, Any]) -> dict[str, Any]:
        """
        Return a user with a hash in place of the password.

        :param user: with ``user_id``, ``password`` and ``is_superuser``.
        """
        salt = self._salt(user["user_id"])
        others = {name: value for name, value in user.items() if name != "password"}
        return {
            **others,
            "password_hash": self.algorithm.hash(user["password"], salt.encode()).decode(),
            "salt": salt if self.algorithm.takes_salt else "",
        }

    def _salt(self, user_id: str) -> str:
        if self.algorithm.name != "bcrypt" and not self.algorithm.takes_salt:
            return ""
        if self._pepper:
            drawn = hmac.digest(self._pepper, b"salt\0" + user_id.encode(), "sha256")[:16]
        else:
            drawn = secrets.token_bytes(16)
        if self.algorithm.name != "bcrypt":
            return drawn.hex()
        text = base64.b64encode(drawn).rstrip(b"=").translate(_TO_BCRYPT).decode()
        return f"$2b${self.algorithm.rounds:02d}${text}"


def pepper_of(conn_id: str | None) -> str:
    """
    Return the pepper, which is the password of an Airflow connection.

    :param conn_id: of the connection; ``None`` for an empty pepper.
    :raises EmqxConfigError: if the connection has no password.
    """
    if not conn_id:
        return ""
    from airflow.providers.common.compat.sdk import BaseHook

    pepper = BaseHook.get_connection(conn_id).password
    if not pepper:
        raise EmqxConfigError(
            f"the connection {conn_id!r} of pepper_conn_id has no password: it is the pepper"
        )
    return str(pepper)

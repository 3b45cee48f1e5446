"""The broker that rows are for: what its users are keyed by, and how it hashes their passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning.hashing import Algorithm

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.session import Session


class Target:
    """The broker that the users of another one are moved to; asked when the source is known to hold such users."""

    def __init__(self, hook: Session) -> None:
        self._hook = hook

    @property
    def namespace(self) -> str | None:
        """Whose users and rules the connection is for."""
        return self._hook.broker.namespace or None

    def user_id_type(self) -> str:
        """
        Return what the broker's users are keyed by.

        :raises EmqxConfigError: if it is not what the task says.
        """
        return user_id_type(self._hook)

    def require(self, made: list[Made]) -> None:
        """
        Make sure that the broker's authenticator produces hashes as the source has them.

        :param made: an example of each form that they have.
        :raises EmqxConfigError: if it produces none of them, saying what to configure.
        """
        algorithm, no_hashes = hashing_of(self._hook)
        if algorithm is None:
            raise EmqxConfigError(
                f"the source has password hashes, which cannot be written here: {no_hashes}. Nothing was written"
            )
        if not made or any(one.fits(algorithm) for one in made):
            return
        authenticator = self._hook.broker.authenticator
        raise EmqxConfigError(
            f"the source's password hashes are {made[0]}, but the authenticator {authenticator} expects {algorithm}: "
            f"with these no device could log in. Set its password_hash_algorithm to {made[0].wanted()} (Access Control "
            "> Authentication in EMQX's dashboard; passwords it has already are void then), or make an authenticator "
            "that has it and name that one in the connection's field Authenticator. Nothing was written"
        )


class Made:
    """
    A form of hash that a source has.

    :param password_hash: one of them.
    :param salted: whether it has a salt.
    :param algorithm: that made it, if the source tells.
    """

    def __init__(self, password_hash: str, salted: bool, algorithm: Algorithm | None) -> None:
        self._hash = password_hash
        self._salted = salted
        self._algorithm = algorithm

    def fits(self, target: Algorithm) -> bool:
        """Return whether an authenticator could have made it."""
        if target.wrong(self._hash, self._salted):
            return False
        mine = self._algorithm
        if mine is None or mine.name == target.name == "bcrypt":
            return True
        if mine.name != target.name:
            return False
        # a salt that is not there is nowhere
        return mine == target or (mine.name != "pbkdf2" and not self._salted)

    def wanted(self) -> str:
        """Say what an authenticator needs to make such ones, as the broker's configuration has it."""
        if self._algorithm is not None:
            return self._algorithm.settings()
        return "what the other broker's authenticator has"

    def __str__(self) -> str:
        if self._algorithm is not None:
            return str(self._algorithm)
        return f"of {len(self._hash)} characters {'with' if self._salted else 'without'} a salt"


def user_id_type(hook: Session) -> str:
    """
    Ask what users are keyed by, ``"username"`` or ``"clientid"``.

    :raises EmqxConfigError: if it is not what the task says.
    """
    # the API of Serverless shows the users, not the authenticator
    if hook.broker.serverless:
        return hook.user_id_type or "username"
    kind = hook.run(hook.api.users.user_id_type())
    if hook.user_id_type not in (None, kind):
        raise EmqxConfigError(
            f"user_id_type is {hook.user_id_type!r}, but the users of {hook.broker.authenticator} are keyed by {kind}: "
            "on EMQX 5 and newer the authenticator decides, leave user_id_type out or change the authenticator"
        )
    return kind


def hashing_of(hook: Session) -> tuple[Algorithm | None, str]:
    """
    Ask how the broker hashes passwords.

    :return: the algorithm; or ``None`` and why it takes no ready-made hashes.
    """
    broker, users = hook.broker, hook.api.users
    if broker.is_scram:
        return None, f"{broker.authenticator} keeps no password hashes"
    if broker.is_v4 or not users.has_bulk_upsert():
        return None, f"ready-made hashes need EMQX 5.7 or newer; this is {broker}"
    if broker.serverless:
        return None, "EMQX Cloud Serverless does not tell how it hashes passwords"
    try:
        return Algorithm.of(hook.run(users.get_authenticator())), ""
    except EmqxConfigError as error:
        return None, error.message

"""The hook's methods for users, ACL rules and bans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.rows import AclRuleRow, AclSubjectRow, AuthenticatorRow, BanRow, UserRow
from airflow_provider_emqx.transport.session import Session

if TYPE_CHECKING:
    from airflow_provider_emqx.choices import BanKind, Position, UserIdType


Subject = str | Mapping[str, str] | tuple[str, str]


class AuthMethods(Session):
    """Users, ACL rules, bans."""

    def list_authenticators(self) -> Iterator[AuthenticatorRow]:
        """
        List the ways in which clients can log in: v5 ``GET /authentication``; on EMQX 4 its plugin for users.

        :return: an iterator over ``{"id", "mechanism", "backend", "enable", …}``, secrets masked by the broker.
        """
        yield from self.run(self.api.users.list_authenticators())

    def get_authenticator(self) -> AuthenticatorRow | None:
        """
        Read the authenticator that the connection names: v5 ``GET /authentication/{id}``; on EMQX 4 its plugin.

        :return: with ``user_id_type``, ``password_hash_algorithm``, …, secrets masked by the broker; ``None`` if
            there is none of this id.
        """
        return self.run(self.api.users.get_authenticator())

    def list_users(self, is_superuser: bool | None = None) -> Iterator[UserRow]:
        """
        List the users of the built-in database: v5 ``GET /authentication/{id}/users``, v4 ``GET /auth_username``.

        :param is_superuser: only superusers, or only the others (EMQX 4 has no superusers).
        :return: an iterator over ``{"user_id", "is_superuser"}``; passwords are never returned.
        """
        return self.rows(self.api.users.list(is_superuser=is_superuser))

    def get_user(self, user_id: str) -> UserRow | None:
        """
        Read one user.

        :return: ``{"user_id", "is_superuser"}``, ``None`` if the user does not exist.
        """
        return self.run(self.api.users.get(user_id))

    def create_user(self, user_id: str, password: str, is_superuser: bool = False) -> UserRow:
        """
        Create one user.

        :param password: plain password; the broker hashes it.
        :param is_superuser: exempt from ACL rules (EMQX 5 and 6).
        :return: ``{"user_id", "is_superuser"}``.
        :raises EmqxAlreadyExistsError: if there is one; it is left as it is.
        """
        return self.run(self.api.users.create(user_id, password, is_superuser))

    def update_user(self, user_id: str, password: str, is_superuser: bool = False) -> UserRow:
        """
        Set a user's password and superuser flag.

        :param password: plain password; the broker hashes it.
        :param is_superuser: exempt from ACL rules (EMQX 5 and 6). Always written: not giving it takes the flag away.
        :return: ``{"user_id", "is_superuser"}``.
        :raises EmqxNotFoundError: if the user does not exist.
        """
        return self.run(self.api.users.update(user_id, password, is_superuser))

    def delete_user(self, user_id: str) -> bool | None:
        """
        Delete one user. Its connections stay open; kick the client to end them.

        :return: whether it was there; ``None`` on EMQX 4, which does not tell.
        """
        return self.run(self.api.users.delete(user_id))

    def list_acl_rules(self, subject: Subject) -> list[AclRuleRow]:
        """
        List the ACL rules of one subject in the order in which the broker looks at them; the first match decides.

        v5 ``GET /authorization/sources/built_in_database/rules/users/{username}`` and so on, v4
        ``GET /acl/username/{username}`` and so on.

        :param subject: ``{"username": "alice"}``, ``{"clientid": "dev-1"}``, the same as ``"username:alice"`` and
            ``"clientid:dev-1"``, or ``"all"``.
        :return: dicts of ``topic``, ``permission``, ``action``, ``qos``, ``retain``, and on EMQX 5.9 and newer what
            limits an ACL rule to some clients.
        """
        return self.run(self.api.acl.list(subject))

    def list_acl_subjects(self, kind: UserIdType) -> Iterator[AclSubjectRow]:
        """
        List whoever has ACL rules, with the rules: v5 ``GET …/rules/users`` or ``…/rules/clients``, v4
        ``GET /acl/username`` or ``/acl/clientid``.

        :param kind: ``"username"`` or ``"clientid"``.
        :return: an iterator over ``{kind: …, "rules": […]}``.
        """
        return self.rows(self.api.acl.list_subjects(kind))

    def set_acl_rules(self, subject: Subject, acl_rules: Sequence[Mapping[str, Any]]) -> None:
        """
        Replace all ACL rules of one subject. One writer at a time.

        v5: at once (``PUT …/rules/users/{username}``). EMQX 4: stale topics are deleted and the rules written one by
        one (``POST /acl``); while that goes on, only a part of them is in force. Clients may keep what they were
        allowed for a minute: see :meth:`clean_authorization_cache`.

        :param subject: as of :meth:`list_acl_rules`.
        :param acl_rules: in order, dicts of ``topic`` (``${clientid}`` and ``${username}`` are filled in, on EMQX 4 as
            levels of their own), ``permission`` (``allow``, ``deny``), and optionally ``action`` (``publish``,
            ``subscribe``, ``all``), and on EMQX 5 ``qos`` (list) and ``retain``. On EMQX 5.9 and newer
            ``username_re``, ``clientid_re``, ``ipaddr``, ``zone``, ``zone_re``, ``listener`` and ``listener_re`` limit
            an ACL rule to some clients. None at all deletes.
        :raises EmqxConfigError: for an invalid ACL rule; nothing is changed.
        :raises EmqxUnsupportedError: for an ACL rule that this broker cannot hold.
        """
        self.run(self.api.acl.replace(subject, acl_rules))

    def add_acl_rules(
        self, subject: Subject, acl_rules: Sequence[Mapping[str, Any]], position: Position = "first"
    ) -> list[AclRuleRow]:
        """
        Insert ACL rules before or after those of a subject. Use one writer at a time: they are read, merged, written
        and read again.

        :param subject: as of :meth:`list_acl_rules`.
        :param acl_rules: as of :meth:`set_acl_rules`. Adding a rule that is there moves it.
        :param position: ``"first"`` or ``"last"``.
        :return: all ACL rules of the subject afterwards.
        """
        return self.run(self.api.acl.add(subject, acl_rules, position))

    def delete_acl_rules(self, subject: Subject) -> bool | None:
        """
        Delete all ACL rules of one subject: v5 ``DELETE …/rules/users/{username}``, v4
        ``DELETE /acl/username/{username}/topic/{topic}`` for each topic.

        :param subject: as of :meth:`list_acl_rules`.
        :return: whether there were any.
        """
        return self.run(self.api.acl.delete(subject))

    def list_bans(self) -> Iterator[BanRow]:
        """
        List bans: v4 and v5 ``GET /banned``.

        :return: an iterator over ``{"as", "who", "by", "reason", "at", "until"}``.
        """
        return self.rows(self.api.bans.list())

    def ban(
        self, kind: BanKind, who: str, until: str | datetime, reason: str = "", by: str = "airflow"
    ) -> BanRow:
        """
        Ban a client, or change an existing ban: v4 and v5 ``POST /banned``.

        A ban of a client id ends its session at once, also a connected one. Bans of other kinds leave sessions and
        connections as they are; :meth:`kick_clients` ends them.

        :param kind: ``clientid``, ``username``, ``peerhost``; since EMQX 5.6 also ``clientid_re``, ``username_re``,
            ``peerhost_net``.
        :param who: id, name, IP address, regular expression or network.
        :param until: RFC 3339 text or an aware ``datetime`` in the future, or ``"infinity"``.
        :param reason: shown in the listing.
        :param by: shown in the listing.
        :return: the ban.
        :raises EmqxConfigError: for invalid arguments, a time in the past included; nothing is sent.
        """
        from airflow_provider_emqx.api.bans import read_until

        end = read_until(until, datetime.now(UTC))
        return self.run(self.api.bans.create(kind, who, end, reason, by))

    def unban(self, kind: BanKind, who: str) -> bool | None:
        """
        End a ban: v4 and v5 ``DELETE /banned/{kind}/{who}``.

        :param kind: as of :meth:`ban`.
        :param who: as of :meth:`ban`.
        :return: whether there was one; ``None`` on EMQX 4, which does not tell.
        """
        return self.run(self.api.bans.delete(kind, who))

    def clear_bans(self) -> None:
        """End all bans: v5 ``DELETE /banned`` (EMQX 5.2 and newer), otherwise one by one."""
        self.run(self.api.bans.clear())

"""Users of the built-in database, and the authenticators that ask it, EMQX 4."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from airflow_provider_emqx.api.base import Operation, Page, Request, Row, path
from airflow_provider_emqx.api.bulk import BulkResult, one_each, refuse_unknown
from airflow_provider_emqx.api.rows import AuthenticatorRow, AuthenticatorRows, UserRow
from airflow_provider_emqx.api.v4.times import from_milliseconds
from airflow_provider_emqx.api.v5 import users as v5
from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxError,
    EmqxServerError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.outcomes import EXISTS, MAYBE_OURS, REJECTED, SKIPPED

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_REASONS = {
    "{error,login}": "the broker refuses this user id (login)",
    "{error,password}": "the broker refuses the password (password)",
}

_NO_SUPERUSER = "EMQX 4 has no superuser flag in its built-in database"


class Users(v5.Users):
    """Users of the plugin ``emqx_auth_mnesia``, in its table for usernames or client ids."""

    def get_authenticator(self) -> Operation[AuthenticatorRow | None]:
        """
        Describe the plugin's table of users as v5 describes an authenticator: EMQX 4 has no endpoint for it.

        :return: what is known of it, ``None`` where the plugin ``emqx_auth_mnesia`` is not loaded.
        """
        try:
            yield Request("GET", self._users(), {"_page": 1, "_limit": 1})
        except EmqxUnsupportedError:
            return None
        return cast(
            "AuthenticatorRow",
            {
                "id": "password_based:built_in_database",
                "mechanism": "password_based",
                "backend": "built_in_database",
                "user_id_type": self.broker.user_id_type,
                "enable": True,
            },
        )

    def list_authenticators(self) -> Operation[AuthenticatorRows]:
        """
        List the ways in which clients can log in, as far as EMQX 4 shows them: the plugin ``emqx_auth_mnesia``.

        :return: as of :func:`get_authenticator`; none where the plugin is not loaded.
        """
        found = yield from self.get_authenticator()
        return cast("list[AuthenticatorRow]", [found] if found else [])

    def user_id_type(self) -> Operation[str]:
        """
        Return what the user ids are: ``"username"`` or ``"clientid"``, as chosen, since EMQX 4 has a table for each.

        :raises EmqxUnsupportedError: if the plugin ``emqx_auth_mnesia`` is not loaded.
        """
        if (yield from self.get_authenticator()) is None:
            raise _no_plugin()
        return self.broker.user_id_type

    def list(
        self,
        page: int = 1,
        limit: int | None = None,
        is_superuser: bool | None = None,
        like: str | None = None,
    ) -> Operation[Page[UserRow]]:
        """
        List users: ``GET /auth_username`` or ``/auth_clientid``.

        :param is_superuser: EMQX 4 has no superusers among them: ``True`` finds none.
        :param like: only those whose id has this part.
        :return: rows of ``user_id``, ``is_superuser`` (``None``) and ``created_at``; passwords are never returned.
        """
        limit = limit or self.page_limit
        try:
            params = {**self.query(page, limit), f"_like_{self.broker.user_id_type}": like}
            reply = yield Request("GET", self._users(), params)
        except EmqxUnsupportedError as error:
            raise _no_plugin() from error
        wanted = is_superuser is not None and boolean("is_superuser", is_superuser)
        rows = [] if wanted else [self._as_v5(row) for row in reply.rows]
        return self._page(reply, rows, page, limit, is_superuser, like)

    def get(self, user_id: str) -> Operation[UserRow | None]:
        """
        Read one user: ``GET /auth_username/{user_id}`` or ``/auth_clientid/{user_id}``.

        :return: ``user_id``, ``is_superuser`` (``None``) and ``created_at``, ``None`` if the user does not exist.
        """
        reply = yield Request("GET", self._users(user_id))
        return cast("UserRow", self._as_v5(reply.row) if reply.row else None)

    def create(self, user_id: str, password: str, is_superuser: bool = False) -> Operation[UserRow]:
        """
        Create one user: ``POST /auth_username`` or ``/auth_clientid``.

        :raises EmqxUnsupportedError: for a superuser; EMQX 4 has none in its built-in database.
        """
        path(user_id)
        if boolean("is_superuser", is_superuser):
            raise EmqxUnsupportedError(_NO_SUPERUSER)
        body = {self.broker.user_id_type: user_id, "password": password}
        try:
            yield Request("POST", self._users(), json=body, repeatable=True, may_stop=True)
        except EmqxAlreadyExistsError as error:
            refuse_unknown(user_id, error)
            raise
        return cast("UserRow", {"user_id": user_id, "is_superuser": None})

    def update(self, user_id: str, password: str, is_superuser: bool = False) -> Operation[UserRow]:
        """
        Set a user's password: ``PUT /auth_username/{user_id}`` or ``/auth_clientid/{user_id}``.

        :raises EmqxUnsupportedError: for a superuser; EMQX 4 has none in its built-in database.
        """
        if boolean("is_superuser", is_superuser):
            raise EmqxUnsupportedError(_NO_SUPERUSER)
        yield Request("PUT", self._users(user_id), json={"password": password}, may_stop=True)
        return cast("UserRow", {"user_id": user_id, "is_superuser": None})

    def delete(self, user_id: str) -> Operation[bool | None]:
        """
        Delete one user: ``DELETE /auth_username/{user_id}`` or ``/auth_clientid/{user_id}``.

        :return: ``None``: EMQX 4 does not tell whether it was there.
        """
        yield Request("DELETE", self._users(user_id))
        return None

    def no_superusers(self) -> str:
        """Return why no user can be a superuser."""
        return _NO_SUPERUSER

    def has_bulk_upsert(self) -> bool:
        """Return whether many users can be written in one request: new ones can, existing ones are one PUT each."""
        return False

    def has_bulk_create(self) -> bool:
        """Return whether many users can be created in one request that leaves those that exist as they are."""
        return True

    def create_many(self, users: Sequence[Row]) -> Operation[BulkResult]:
        """
        Create many users and leave existing ones as they are: an array ``POST /auth_username`` or ``/auth_clientid``.

        :param users: rows of ``user_id`` and ``password``.
        """
        one_each(users)
        result = BulkResult(unchanged=None)
        indexes = []
        for index, user in enumerate(users):
            if user.get("is_superuser"):
                result.others[index] = REJECTED, _NO_SUPERUSER
            elif "password" not in user:
                result.others[index] = REJECTED, "EMQX 4 takes no ready-made hashes over its API"
            else:
                indexes.append(index)
        if not indexes:
            # an empty array crashes the broker's handler
            return result
        key = self.broker.user_id_type
        rows = [{key: users[index]["user_id"], "password": users[index]["password"]} for index in indexes]
        request = Request("POST", self._users(), body=_encode(rows).encode(), repeatable=True)
        try:
            reply = yield request
        except EmqxUnsupportedError as error:
            raise _no_plugin() from error
        outcomes = reply.data if isinstance(reply.data, dict) else {}
        for index in indexes:
            outcome = outcomes.get(users[index]["user_id"])
            if outcome == "ok":
                result.note(index, True)
            elif outcome == "{error,existed}":
                result.others[index] = SKIPPED, MAYBE_OURS if reply.maybe_applied else EXISTS
            elif isinstance(outcome, str):
                result.others[index] = REJECTED, _REASONS.get(outcome, "the broker refuses this row")
            else:
                raise EmqxServerError(
                    200,
                    "0",
                    f"the response does not contain the outcome of {users[index]['user_id']!r}",
                    str(request),
                )
        return result

    def _users(self, *user_id: str) -> str:
        return path(f"auth_{self.broker.user_id_type}", *user_id)

    def _as_v5(self, row: Row) -> Row:
        return {
            "user_id": row.get(self.broker.user_id_type),
            "is_superuser": None,
            "created_at": from_milliseconds(row.get("created_at")),
        }


def _no_plugin() -> EmqxError:
    return EmqxUnsupportedError(
        "this EMQX 4 has no users to manage: load its plugin emqx_auth_mnesia (dashboard > Plugins)"
    )

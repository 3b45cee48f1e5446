"""Users of the built-in database, and its authenticators, EMQX 5 and 6."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import cast

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Operation, Page, Reply, Request, Row, Rows, path
from airflow_provider_emqx.api.bulk import BulkResult, one_each, refuse_unknown
from airflow_provider_emqx.api.multipart import upload
from airflow_provider_emqx.api.paging import has_next
from airflow_provider_emqx.api.rows import AuthenticatorRow, AuthenticatorRows, UserRow
from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxNotFoundError,
    EmqxOutcomeUnknownError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.outcomes import REJECTED

_NO_SUPERUSER = "a user in a namespace cannot be a superuser on EMQX 6.1.4 and newer"

_BUILT_IN = "built_in_database"

#: a refused import is cut into so many parts: where all rows are refused, halves would cost two requests a row, and
#: where one is, they would send twice the rows
_PARTS = 8

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Users(Area):
    """Users of the authenticator that the connection names."""

    def get_authenticator(self) -> Operation[AuthenticatorRow | None]:
        """
        Read the authenticator that the connection names: ``GET /authentication/{id}``.

        :return: its configuration with secrets masked by the broker, ``None`` if it does not exist of this id.
        """
        try:
            reply = yield Request("GET", path("authentication", self.broker.authenticator))
        except EmqxNotFoundError:
            return None
        return cast("AuthenticatorRow", reply.row)

    def list_authenticators(self) -> Operation[AuthenticatorRows]:
        """
        List the ways in which clients can log in: ``GET /authentication``.

        :return: rows of ``id``, ``mechanism``, ``backend``, ``enable``, …, secrets masked by the broker.
        """
        reply = yield Request("GET", "/authentication")
        return cast("list[AuthenticatorRow]", reply.rows)

    def user_id_type(self) -> Operation[str]:
        """
        Return what the authenticator's user ids are: ``"username"`` or ``"clientid"``.

        :raises EmqxConfigError: if the authenticator is unknown, or does not store users.
        """
        authenticator = yield from self.get_authenticator()
        if authenticator is None:
            raise self._no_authenticator()
        if authenticator.get("backend") != _BUILT_IN:
            raise self._elsewhere(authenticator.get("backend"))
        return str(authenticator.get("user_id_type", "username"))

    def list(
        self,
        page: int = 1,
        limit: int | None = None,
        is_superuser: bool | None = None,
        like: str | None = None,
    ) -> Operation[Page[UserRow]]:
        """
        List users: ``GET /authentication/{id}/users``.

        :param is_superuser: only superusers, or only the others.
        :param like: only those whose id has this part. EMQX refuses it as long as it has a user whose id is a number.
        :return: rows of ``user_id`` and ``is_superuser``; passwords are never returned.
        """
        limit = limit or self.page_limit
        wanted = None if is_superuser is None else boolean("is_superuser", is_superuser)
        params = {
            **self.query(page, limit),
            "is_superuser": wanted,
            "like_user_id": like,
            "ns": self.broker.namespace,
        }
        try:
            reply = yield Request("GET", self._users(), params)
        except EmqxNotFoundError as error:
            raise self._no_authenticator() from error
        rows = [row for row in reply.rows if wanted is None or row.get("is_superuser") is wanted]
        return self._page(reply, rows, page, limit, is_superuser, like)

    def _page(
        self,
        reply: Reply,
        rows: Rows,
        page: int,
        limit: int,
        is_superuser: bool | None,
        like: str | None,
    ) -> Page[UserRow]:
        more = partial(self.list, page + 1, limit, is_superuser, like)
        if like is not None:
            rows = [row for row in rows if like in str(row["user_id"])]
        return Page(cast("list[UserRow]", rows), more if has_next(reply, page, limit) else None, "user_id")

    def get(self, user_id: str) -> Operation[UserRow | None]:
        """
        Read one user: ``GET /authentication/{id}/users/{user_id}``.

        :return: ``user_id`` and ``is_superuser``, ``None`` if the user does not exist.
        """
        try:
            reply = yield Request("GET", self._users(user_id), self._namespace())
        except EmqxNotFoundError as error:
            self._require_authenticator(error)
            return None
        return cast("UserRow", reply.row)

    def create(self, user_id: str, password: str, is_superuser: bool = False) -> Operation[UserRow]:
        """
        Create one user: ``POST /authentication/{id}/users``.

        :raises EmqxAlreadyExistsError: if there is one of this id; it is left as it is.
        :raises EmqxOutcomeUnknownError: if it exists now, and an attempt of ours whose answer was lost may have made
            it.
        """
        path(user_id)
        is_superuser = boolean("is_superuser", is_superuser)
        body = {"user_id": user_id, "password": password, "is_superuser": is_superuser}
        if self.broker.namespace:
            body["namespace"] = self.broker.namespace
        try:
            reply = yield Request("POST", self._users(), json=body, repeatable=True, may_stop=True)
        except EmqxAlreadyExistsError as error:
            refuse_unknown(user_id, error)
            raise
        except (EmqxNotFoundError, EmqxBadRequestError) as error:
            self._require_authenticator(error)
            raise
        return cast(
            "UserRow", {"user_id": user_id, "is_superuser": is_superuser} if reply.data is None else reply.row
        )

    def update(self, user_id: str, password: str, is_superuser: bool = False) -> Operation[UserRow]:
        """
        Set a user's password and superuser flag: ``PUT /authentication/{id}/users/{user_id}``.

        The flag is always sent, since EMQX takes a missing one as false.
        """
        is_superuser = boolean("is_superuser", is_superuser)
        body = {"password": password, "is_superuser": is_superuser}
        try:
            reply = yield Request("PUT", self._users(user_id), self._namespace(), json=body, may_stop=True)
        except EmqxNotFoundError as error:
            self._require_authenticator(error)
            raise
        return cast(
            "UserRow", {"user_id": user_id, "is_superuser": is_superuser} if reply.data is None else reply.row
        )

    def delete(self, user_id: str) -> Operation[bool | None]:
        """
        Delete one user: ``DELETE /authentication/{id}/users/{user_id}``.

        :return: ``True`` if it was there, ``False`` if not.
        """
        try:
            yield Request("DELETE", self._users(user_id), self._namespace())
        except EmqxNotFoundError as error:
            self._require_authenticator(error)
            return error.maybe_applied
        return True

    def has_bulk_upsert(self) -> bool:
        """
        Return whether many users can be written in one request without a risk to those that exist.

        EMQX 5.5 and 5.6 delete every user named in an import that fails; older ones import files of hashes only. SCRAM
        keys cannot be imported at all.
        """
        return not self.broker.is_scram and (self.broker.serverless or self.broker.at_least(5, 7))

    def has_bulk_create(self) -> bool:
        """Return whether many users can be created in one request that leaves those that exist as they are."""
        return False

    def no_superusers(self) -> str:
        """Return why no user can be a superuser, empty if users can."""
        return _NO_SUPERUSER if self.broker.namespace and self.broker.at_least(6, 1, 4) else ""

    def upsert(self, user: Row) -> Operation[bool]:
        """
        Create one user, or set password and flag of the one that exists.

        :return: ``True`` if created, ``False`` if updated.
        """
        user_id, password, is_superuser = user["user_id"], user["password"], bool(user.get("is_superuser"))
        try:
            yield from self.create(user_id, password, is_superuser)
        except EmqxOutcomeUnknownError:
            # whoever made it, it is to have this password now
            yield from self.update(user_id, password, is_superuser)
            return True
        except EmqxAlreadyExistsError:
            yield from self.update(user_id, password, is_superuser)
            return False
        return True

    def upsert_many(self, users: Sequence[Row]) -> Operation[BulkResult]:
        """
        Write many users, new and existing ones: ``POST /authentication/{id}/import_users`` on EMQX 5.7 and newer.

        A refused import is cut until the refused rows are found; the others are written.

        :param users: rows of ``user_id``, ``is_superuser`` and ``password``, or ``password_hash`` and ``salt``. A salt
            that is not text is given as bytes, and travels in a CSV file, which does not carry all of them: see
            :func:`~airflow_provider_emqx.api.salts.not_carried`.
        :raises EmqxUnsupportedError: where :meth:`has_bulk_upsert` is false.
        """
        one_each(users)
        self._authenticator()
        if not self.has_bulk_upsert():
            raise EmqxUnsupportedError(f"{self.broker} cannot safely import users; write them one by one")
        refused: dict[int, tuple[str, str]] = {}
        if reason := self.no_superusers():
            refused = {
                index: (REJECTED, reason) for index, user in enumerate(users) if user.get("is_superuser")
            }
        result = BulkResult(others=dict(refused))
        for kind, field, salt in (
            ("plain", "password", str),
            ("hash", "password_hash", str),
            ("hash", "password_hash", bytes),
        ):
            indexes = [
                index
                for index, user in enumerate(users)
                if field in user and index not in refused and isinstance(user.get("salt", ""), salt)
            ]
            if indexes:
                result.add((yield from self._import(users, indexes, kind)))
        return result

    def create_many(self, users: Sequence[Row]) -> Operation[BulkResult]:
        """
        Create many users and leave existing ones as they are: EMQX 5 and 6 do not have this request.

        :raises EmqxUnsupportedError: always; see :meth:`has_bulk_create`.
        """
        one_each(users)
        raise EmqxUnsupportedError(
            f"{self.broker} has no bulk request that leaves existing users as they are"
        )

    def _import(self, users: Sequence[Row], indexes: Sequence[int], kind: str) -> Operation[BulkResult]:
        body, content_type = self._packed([users[index] for index in indexes])
        request = Request(
            "POST",
            self._authenticator("import_users"),
            {"type": kind},
            body=body,
            content_type=content_type,
            repeatable=True,
            may_stop=True,
        )
        try:
            reply = yield request
        except EmqxNotFoundError as error:
            raise self._no_authenticator() from error
        except EmqxBadRequestError as error:
            if len(indexes) == 1:
                return BulkResult(others={indexes[0]: (REJECTED, error.reason or error.code)})
            return (yield from self._import_parts(users, indexes, kind))
        counts = reply.data
        if not isinstance(counts, dict) or "total" not in counts:
            return BulkResult(len(indexes), None, None, None)
        created, updated, unchanged = (counts.get(name, 0) for name in ("success", "override", "skipped"))
        failed = counts.get("failed", 0)
        if created + updated + unchanged + failed != len(indexes):
            raise EmqxError(
                f"of {len(indexes)} users sent, the broker says it created {created}, replaced {updated}, left "
                f"{unchanged} unchanged and failed on {failed}: the sum does not match, so no row's outcome is known",
                str(request),
            )
        if not failed:
            return BulkResult(len(indexes), created, updated, unchanged)
        if len(indexes) == 1:
            reason = "EMQX counts this user as failed and does not say why"
            return BulkResult(others={indexes[0]: (REJECTED, reason)})
        # the good ones are written: sending them once more finds which are not
        found = (yield from self._import_parts(users, indexes, kind)).others
        if len(found) != failed:
            return BulkResult(len(indexes) - len(found), None, None, None, found)
        return BulkResult(len(indexes) - failed, created, updated, unchanged, found)

    def _packed(self, users: Rows) -> tuple[bytes, str]:
        """Write users as JSON; those with salts other than text as a CSV file, which EMQX reads without quotes."""
        namespace = self.broker.namespace
        if not isinstance(users[0].get("salt"), bytes):
            if namespace:
                users = [{**user, "namespace": namespace} for user in users]
            return _encode(users).encode(), "application/json"
        more = f",{namespace}" if namespace else ""
        rows = [
            f"{user['user_id']},{user['password_hash']},".encode()
            + user["salt"]
            + f",{str(user['is_superuser']).lower()}{more}\n".encode()
            for user in users
        ]
        header = f"user_id,password_hash,salt,is_superuser{',namespace' if more else ''}\n"
        return upload("users.csv", header.encode() + b"".join(rows))

    def _import_parts(self, users: Sequence[Row], indexes: Sequence[int], kind: str) -> Operation[BulkResult]:
        """Import each part by itself, so that the users who are refused are found."""
        size = -(-len(indexes) // _PARTS)
        result = BulkResult()
        for start in range(0, len(indexes), size):
            result.add((yield from self._import(users, indexes[start : start + size], kind)))
        return result

    def _users(self, *user_id: str) -> str:
        return self._authenticator("users", *user_id)

    def _authenticator(self, *parts: str) -> str:
        """
        Return a path below the authenticator.

        :raises EmqxConfigError: if its id, ``mechanism:backend``, says that its users are kept elsewhere: EMQX lists
            exist.
        """
        backend = self.broker.authenticator.rpartition(":")[2]
        if backend != _BUILT_IN:
            raise self._elsewhere(backend)
        return path("authentication", self.broker.authenticator, *parts)

    def _elsewhere(self, backend: object) -> EmqxConfigError:
        return EmqxConfigError(
            f"authenticator {self.broker.authenticator!r} keeps its users in {backend}, not in EMQX's built-in "
            "database: manage them there, or name another one in the connection's field Authenticator"
        )

    def _namespace(self) -> dict[str, str] | None:
        return {"ns": self.broker.namespace} if self.broker.namespace else None

    def _require_authenticator(self, error: EmqxNotFoundError | EmqxBadRequestError) -> None:
        """A 404 (on POST a 400) may mean the authenticator, not the user: that is no "absent"."""
        if "uthenticator" in error.reason:
            raise self._no_authenticator() from error

    def _no_authenticator(self) -> EmqxConfigError:
        return EmqxConfigError(
            f"the broker has no authenticator {self.broker.authenticator!r}. Create it in EMQX (Access Control > "
            "Authentication), or name another one in the connection's field Authenticator"
        )

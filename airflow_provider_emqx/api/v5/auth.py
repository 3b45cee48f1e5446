"""Users of an authenticator, EMQX 5 and 6."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from airflow_provider_emqx.api.base import Broker, Operation, Page, Request, Row, flag, path
from airflow_provider_emqx.api.bulk import BulkResult, one_each, refuse_unknown
from airflow_provider_emqx.api.paging import has_next, page_limit
from airflow_provider_emqx.api.v5.acl import (
    add_acl_rules,
    delete_acl_rules,
    list_acl_rules,
    list_acl_subjects,
    set_acl_rules,
)
from airflow_provider_emqx.api.v5.bans import ban, clear_bans, list_bans, unban
from airflow_provider_emqx.exceptions import (
    EmqxAlreadyExistsError,
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxNotFoundError,
    EmqxOutcomeUnknownError,
)

__all__ = [
    "add_acl_rules",
    "ban",
    "clear_bans",
    "create_user",
    "create_users",
    "delete_acl_rules",
    "delete_user",
    "get_authenticator",
    "get_user",
    "has_bulk_upsert",
    "list_acl_rules",
    "list_acl_subjects",
    "list_authenticators",
    "list_bans",
    "list_users",
    "set_acl_rules",
    "unban",
    "update_user",
    "upsert_user",
    "upsert_users",
    "user_id_type",
]

_NO_SUPERUSER = "a user in a namespace cannot be a superuser on EMQX 6.1.4 and newer"

_BUILT_IN = "built_in_database"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def get_authenticator(broker: Broker) -> Operation[Row | None]:
    """
    Read the authenticator that the connection names: ``GET /authentication/{id}``.

    :return: its configuration with secrets masked by the broker, ``None`` where there is none of this id.
    """
    try:
        reply = yield Request("GET", path("authentication", broker.authenticator))
    except EmqxNotFoundError:
        return None
    return reply.row


def list_authenticators(broker: Broker) -> Operation[list[Row]]:
    """
    List the ways in which clients can log in: ``GET /authentication``.

    :return: rows of ``id``, ``mechanism``, ``backend``, ``enable``, …, secrets masked by the broker.
    """
    reply = yield Request("GET", "/authentication")
    return reply.rows


def user_id_type(broker: Broker) -> Operation[str]:
    """
    Tell what the authenticator's user ids are: ``"username"`` or ``"clientid"``.

    :raises EmqxConfigError: if the broker has no such authenticator, or it keeps no users.
    """
    authenticator = yield from get_authenticator(broker)
    if authenticator is None:
        raise _no_authenticator(broker)
    if authenticator.get("backend") != _BUILT_IN:
        raise _elsewhere(broker, authenticator.get("backend"))
    return str(authenticator.get("user_id_type", "username"))


def list_users(
    broker: Broker, page: int = 1, limit: int | None = None, is_superuser: bool | None = None
) -> Operation[Page[Row]]:
    """
    List users: ``GET /authentication/{id}/users``.

    :param is_superuser: only superusers, or only the others.
    :return: rows of ``user_id`` and ``is_superuser``; passwords are never returned.
    """
    limit = limit or page_limit(broker)
    wanted = None if is_superuser is None else flag("is_superuser", is_superuser)
    params = {"page": page, "limit": limit, "is_superuser": wanted, "ns": broker.namespace}
    try:
        reply = yield Request("GET", _users(broker), params)
    except EmqxNotFoundError as error:
        raise _no_authenticator(broker) from error
    rows = [row for row in reply.rows if wanted is None or row.get("is_superuser") is wanted]
    more = (
        partial(list_users, broker, page + 1, limit, is_superuser) if has_next(reply, page, limit) else None
    )
    return Page(rows, more, "user_id")


def get_user(broker: Broker, user_id: str) -> Operation[Row | None]:
    """
    Read one user: ``GET /authentication/{id}/users/{user_id}``.

    :return: ``user_id`` and ``is_superuser``, ``None`` where there is no such user.
    """
    try:
        reply = yield Request("GET", _users(broker, user_id), _namespace(broker))
    except EmqxNotFoundError as error:
        _require_authenticator(broker, error)
        return None
    return reply.row


def create_user(broker: Broker, user_id: str, password: str, is_superuser: bool = False) -> Operation[Row]:
    """
    Create one user: ``POST /authentication/{id}/users``.

    :raises EmqxAlreadyExistsError: if there is one of this id; it is left as it is.
    :raises EmqxOutcomeUnknownError: if it exists now, and an attempt of ours whose answer was lost may have made it.
    """
    path(user_id)
    is_superuser = flag("is_superuser", is_superuser)
    body = {"user_id": user_id, "password": password, "is_superuser": is_superuser}
    if broker.namespace:
        body["namespace"] = broker.namespace
    try:
        reply = yield Request("POST", _users(broker), json=body, repeatable=True)
    except EmqxAlreadyExistsError as error:
        refuse_unknown(user_id, error)
        raise
    except (EmqxNotFoundError, EmqxBadRequestError) as error:
        _require_authenticator(broker, error)
        raise
    return {"user_id": user_id, "is_superuser": is_superuser} if reply.data is None else reply.row


def update_user(broker: Broker, user_id: str, password: str, is_superuser: bool = False) -> Operation[Row]:
    """
    Set a user's password and superuser flag: ``PUT /authentication/{id}/users/{user_id}``.

    The flag is always sent, since EMQX takes a missing one as false.

    :raises EmqxNotFoundError: if there is no such user.
    """
    is_superuser = flag("is_superuser", is_superuser)
    body = {"password": password, "is_superuser": is_superuser}
    try:
        reply = yield Request("PUT", _users(broker, user_id), _namespace(broker), json=body)
    except EmqxNotFoundError as error:
        _require_authenticator(broker, error)
        raise
    return {"user_id": user_id, "is_superuser": is_superuser} if reply.data is None else reply.row


def delete_user(broker: Broker, user_id: str) -> Operation[bool | None]:
    """
    Delete one user: ``DELETE /authentication/{id}/users/{user_id}``.

    :return: ``True`` if it was there, ``False`` if not.
    """
    try:
        yield Request("DELETE", _users(broker, user_id), _namespace(broker))
    except EmqxNotFoundError as error:
        _require_authenticator(broker, error)
        return error.maybe_applied
    return True


def has_bulk_upsert(broker: Broker) -> bool:
    """
    Tell whether many users can be written in one request without a risk to those that exist.

    EMQX 5.5 and 5.6 delete every user named in an import that fails; older ones import files of hashes only. SCRAM
    keys cannot be imported at all.
    """
    return not broker.is_scram and (broker.serverless or broker.at_least(5, 7))


def upsert_user(broker: Broker, user: Row) -> Operation[bool]:
    """
    Create one user, or set password and flag of the one that exists.

    :return: ``True`` if created, ``False`` if updated.
    """
    user_id, password, is_superuser = user["user_id"], user["password"], bool(user.get("is_superuser"))
    try:
        yield from create_user(broker, user_id, password, is_superuser)
    except EmqxOutcomeUnknownError:
        # whoever made it, it is to have this password now
        yield from update_user(broker, user_id, password, is_superuser)
        return True
    except EmqxAlreadyExistsError:
        yield from update_user(broker, user_id, password, is_superuser)
        return False
    return True


def upsert_users(broker: Broker, users: Sequence[Row]) -> Operation[BulkResult]:
    """
    Write many users, new and existing ones: ``POST /authentication/{id}/import_users`` on EMQX 5.7 and newer.

    On older or unknown versions each user is one POST and, if it exists, one PUT. A refused import is halved until the
    refused rows are found; the others are written.

    :param users: rows of ``user_id``, ``is_superuser`` and ``password``, or ``password_hash`` and ``salt``.
    """
    one_each(users)
    if not has_bulk_upsert(broker):
        return (yield from _one_by_one(broker, users, upsert_user))
    refused: dict[int, str] = {}
    if broker.namespace and broker.at_least(6, 1, 4):
        refused = {index: _NO_SUPERUSER for index, user in enumerate(users) if user.get("is_superuser")}
    result = BulkResult(failed=dict(refused))
    for kind, field in (("plain", "password"), ("hash", "password_hash")):
        indexes = [index for index, user in enumerate(users) if field in user and index not in refused]
        if indexes:
            result.add((yield from _import(broker, users, indexes, kind)))
    return result


def create_users(broker: Broker, users: Sequence[Row]) -> Operation[BulkResult]:
    """
    Create many users and leave existing ones as they are: one ``POST …/users`` each.

    EMQX has no bulk request that spares existing users.
    """

    def create(broker: Broker, user: Row) -> Operation[bool]:
        yield from create_user(broker, user["user_id"], user["password"], bool(user.get("is_superuser")))
        return True

    one_each(users)
    return (yield from _one_by_one(broker, users, create))


def _one_by_one(broker: Broker, users: Sequence[Row], write: Any) -> Operation[BulkResult]:
    result = BulkResult(unchanged=None)
    for index, user in enumerate(users):
        if "password" not in user:
            needs = (
                "an authenticator other than SCRAM"
                if broker.is_scram
                else f"EMQX 5.7 or newer; this is {broker}"
            )
            result.failed[index] = f"a ready-made hash needs {needs}"
            continue
        try:
            created = yield from write(broker, user)
        except EmqxAlreadyExistsError:
            result.existing.append(index)
        except EmqxOutcomeUnknownError:
            result.unknown.append(index)
        except EmqxBadRequestError as error:
            result.failed[index] = error.reason or error.code
        else:
            result.add(BulkResult(1, int(created), int(not created), None))
    return result


def _import(broker: Broker, users: Sequence[Row], indexes: Sequence[int], kind: str) -> Operation[BulkResult]:
    rows = [users[index] for index in indexes]
    if broker.namespace:
        rows = [{**row, "namespace": broker.namespace} for row in rows]
    request = Request(
        "POST",
        _authenticator(broker, "import_users"),
        {"type": kind},
        body=_encode(rows).encode(),
        repeatable=True,
    )
    try:
        reply = yield request
    except EmqxNotFoundError as error:
        raise _no_authenticator(broker) from error
    except EmqxBadRequestError as error:
        if len(indexes) == 1:
            return BulkResult(failed={indexes[0]: error.reason or error.code})
        return (yield from _import_halves(broker, users, indexes, kind))
    counts = reply.data
    if not isinstance(counts, dict) or "total" not in counts:
        return BulkResult(len(indexes), None, None, None)
    created, updated, unchanged = (counts.get(name, 0) for name in ("success", "override", "skipped"))
    failed = counts.get("failed", 0)
    if created + updated + unchanged + failed != len(indexes):
        raise EmqxError(
            f"of {len(indexes)} users sent, the broker says it created {created}, replaced {updated}, left "
            f"{unchanged} unchanged and failed on {failed}: the sum does not match, so that no row's outcome is known",
            str(request),
        )
    if not failed:
        return BulkResult(len(indexes), created, updated, unchanged)
    if len(indexes) == 1:
        return BulkResult(failed={indexes[0]: "EMQX counts this user as failed and does not say why"})
    # the good ones are written: sending them once more finds which are not
    found = (yield from _import_halves(broker, users, indexes, kind)).failed
    if len(found) != failed:
        return BulkResult(len(indexes) - len(found), None, None, None, failed=found)
    return BulkResult(len(indexes) - failed, created, updated, unchanged, failed=found)


def _import_halves(
    broker: Broker, users: Sequence[Row], indexes: Sequence[int], kind: str
) -> Operation[BulkResult]:
    """Import each half by itself, so that the users who are refused are found."""
    middle = len(indexes) // 2
    result = yield from _import(broker, users, indexes[:middle], kind)
    result.add((yield from _import(broker, users, indexes[middle:], kind)))
    return result


def _users(broker: Broker, *user_id: str) -> str:
    return _authenticator(broker, "users", *user_id)


def _authenticator(broker: Broker, *parts: str) -> str:
    """
    Return a path below the authenticator.

    :raises EmqxConfigError: if its id, ``mechanism:backend``, says that its users are kept elsewhere: EMQX lists none.
    """
    backend = broker.authenticator.rpartition(":")[2]
    if backend != _BUILT_IN:
        raise _elsewhere(broker, backend)
    return path("authentication", broker.authenticator, *parts)


def _elsewhere(broker: Broker, backend: object) -> EmqxConfigError:
    return EmqxConfigError(
        f"authenticator {broker.authenticator!r} keeps its users in {backend}, not in EMQX's built-in database: manage "
        "them there, or name another one in the connection's field Authenticator"
    )


def _namespace(broker: Broker) -> dict[str, str] | None:
    return {"ns": broker.namespace} if broker.namespace else None


def _require_authenticator(broker: Broker, error: EmqxNotFoundError | EmqxBadRequestError) -> None:
    """A 404 (on POST a 400) may mean the authenticator, not the user: that is no "absent"."""
    if "uthenticator" in error.reason:
        raise _no_authenticator(broker) from error


def _no_authenticator(broker: Broker) -> EmqxConfigError:
    return EmqxConfigError(
        f"the broker has no authenticator {broker.authenticator!r}. Create it in EMQX (Access Control > "
        "Authentication), or name another one in the connection's field Authenticator"
    )

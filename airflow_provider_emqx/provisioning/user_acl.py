"""ACL rules that come with users: one set for all of them, or some in a column of the source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.acl import read_rules
from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.rows import AclRuleRow
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxUnsupportedError,
)
from airflow_provider_emqx.plans.file import REMOVE_RULES, SET_RULES, state_of

if TYPE_CHECKING:
    from airflow_provider_emqx.provisioning.chunks import User
    from airflow_provider_emqx.transport.session import Session


def read(given: object) -> list[dict[str, Any]]:
    """
    Read the ACL rules of one user.

    :param given: a list of ACL rules, or the same as JSON text.
    :raises EmqxConfigError: saying what is wrong.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise EmqxConfigError("acl is not JSON; expected a list of ACL rules") from None
    if not isinstance(given, list | tuple):
        raise EmqxConfigError("acl must be a list of ACL rules, each with topic and permission")
    try:
        return read_rules(given)
    except EmqxConfigError as error:
        raise EmqxConfigError(f"acl: {error.message}") from None


def ensure_for_all(hook: Session, rules: Sequence[Mapping[str, Any]]) -> bool:
    """
    Insert ACL rules before those that all clients have, unless they stand there already.

    :param rules: in order; ``${username}`` and ``${clientid}`` in topics are filled in by EMQX.
    :return: whether anything had to be changed.
    """
    wanted = read_rules(rules)
    if not would_ensure_for_all(hook, rules):
        return False
    hook.run(hook.api.acl.add("all", wanted, "first"))
    return True


def would_ensure_for_all(hook: Session, rules: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """
    Return the change that :func:`ensure_for_all` would make, if any.

    :param rules: in order.
    """
    wanted = read_rules(rules)
    there = hook.run(hook.api.acl.list("all"))
    return [] if there[: len(wanted)] == wanted else [change("all", there, wanted)]


def write(
    hook: Session, kind: str, users: Mapping[int, User], only_absent: bool
) -> tuple[dict[int, list[AclRuleRow]], set[int], dict[int, str]]:
    """
    Replace the ACL rules of users who are to be written next.

    :param kind: what the users are keyed by, ``"username"`` or ``"clientid"``.
    :param users: with the rules under ``acl``, by index.
    :param only_absent: leave the rules of users that exist as they are.
    :return: the former rules of each user whose rules were replaced; who was left alone; and why the rules of others
        are refused.
    :raises EmqxError: if the broker fails.
    """
    users_api, acl = hook.api.users, hook.api.acl

    def replace(user: User) -> Operation[list[AclRuleRow] | bool]:
        """Return the former rules, ``True`` if they are those wanted already, ``False`` if the user is left alone."""
        if only_absent and (yield from users_api.get(user["user_id"])) is not None:
            return False
        subject = kind, user["user_id"]
        before = yield from acl.list(subject)
        if before == user["acl"]:
            return True
        yield from acl.replace(subject, user["acl"])
        return before

    replaced: dict[int, list[AclRuleRow]] = {}
    there: set[int] = set()
    refused: dict[int, str] = {}
    failure: EmqxError | None = None
    for index, answer in zip(users, hook.run_many(map(replace, users.values())), strict=True):
        if isinstance(answer, EmqxBadRequestError | EmqxUnsupportedError):
            refused[index] = f"its ACL rules are refused, so the user is not written: {answer.message}"
        elif isinstance(answer, EmqxError):
            failure = failure or answer
        elif answer is False:
            there.add(index)
        elif answer is not True:
            replaced[index] = answer
    if failure is not None:
        raise failure
    return replaced, there, refused


def would_write(hook: Session, kind: str, users: Mapping[int, User]) -> dict[int, tuple[str, str, str]]:
    """
    Return the change of each user's rules that :func:`write` would make.

    :param kind: as of :func:`write`.
    :param users: the same; all of them may be written.
    :return: by index, of those whose rules would change.
    :raises EmqxError: if the broker fails.
    """
    found = hook.run_all(hook.api.acl.list((kind, user["user_id"])) for user in users.values())
    return {
        index: change(f"{kind}:{user['user_id']}", before, user["acl"])
        for (index, user), before in zip(users.items(), found, strict=True)
        if before != user["acl"]
    }


def change(name: str, before: Sequence[Any], wanted: Sequence[Any]) -> tuple[str, str, str]:
    """
    Return the change that puts rules in the place of others.

    :param name: of the subject.
    :param before: its rules.
    :param wanted: its rules then.
    :return: kind, id, and a digest of the rules that are replaced.
    """
    return SET_RULES if wanted else REMOVE_RULES, name, state_of(before)


def put_back(hook: Session, kind: str, users: Mapping[int, tuple[User, list[AclRuleRow]]]) -> dict[int, str]:
    """
    Restore the former ACL rules of users that could not be written.

    :param kind: as of :func:`write`.
    :param users: each with the former rules, by index.
    :return: the reason for each user for whom that failed, by index.
    """
    replace = hook.api.acl.replace
    answers = hook.run_many(replace((kind, user["user_id"]), before) for user, before in users.values())
    return {
        index: f"its ACL rules were replaced before, and the former ones could not be put back: {answer.message}"
        for index, answer in zip(users, answers, strict=True)
        if isinstance(answer, EmqxError)
    }

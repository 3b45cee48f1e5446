"""ACL rules that come with users: one set for all of them, or some in a column of the source."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.acl import read_rules
from airflow_provider_emqx.exceptions import (
    EmqxBadRequestError,
    EmqxConfigError,
    EmqxError,
    EmqxUnsupportedError,
)

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.provisioning.check import User


def read(given: object) -> list[dict[str, Any]]:
    """
    Read the rules of one user.

    :param given: a list of rules, or the same as JSON text.
    :raises EmqxConfigError: saying what is wrong.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise EmqxConfigError("acl is no JSON: it must be a list of rules") from None
    if not isinstance(given, list | tuple):
        raise EmqxConfigError("acl must be a list of rules, each with topic and permission")
    try:
        return read_rules(given)
    except EmqxConfigError as error:
        raise EmqxConfigError(f"acl: {error.message}") from None


def ensure_for_all(hook: EmqxHook, rules: Sequence[Mapping[str, Any]]) -> bool:
    """
    Put rules before those that all clients have, unless they stand there already.

    :param hook: of the broker.
    :param rules: in order; ``${username}`` and ``${clientid}`` in topics are filled in by EMQX.
    :return: whether anything had to be changed.
    """
    wanted = read_rules(rules)
    there = hook.list_acl_rules("all")
    if there[: len(wanted)] == wanted:
        return False
    hook.add_acl_rules("all", wanted, "first")
    return True


def write(hook: EmqxHook, kind: str, users: Sequence[tuple[int, User]]) -> dict[int, str]:
    """
    Replace the rules of users.

    :param hook: of the broker.
    :param kind: what the users are keyed by, ``"username"`` or ``"clientid"``.
    :param users: index and user, with the rules under ``acl``.
    :return: index of each user whose rules the broker refuses, with the reason.
    :raises EmqxError: if the broker fails.
    """
    set_rules: Callable[..., Any] = hook.api.auth.set_acl_rules
    answers = hook.run_many(set_rules(hook.broker, (kind, user["user_id"]), user["acl"]) for _, user in users)
    refused = {}
    failure: EmqxError | None = None
    for (index, _), answer in zip(users, answers, strict=True):
        if isinstance(answer, EmqxBadRequestError | EmqxUnsupportedError):
            refused[index] = f"the user is written, but not its ACL rules: {answer.message}"
        elif isinstance(answer, EmqxError):
            failure = failure or answer
    if failure is not None:
        raise failure
    return refused

"""Base class of the conditions, their outcome, and which errors a wait tolerates."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_emqx.api.area import Area
from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.api.v5.api import Api
from airflow_provider_emqx.exceptions import (
    EmqxConnectionError,
    EmqxRateLimitError,
    EmqxServerError,
)

#: rows that an event loop may be held for, which is about 10 ms: short ones, as ids or a few fields of each client, and
#: clients with all their fields
SHORT_ROWS, WHOLE_CLIENTS = 5_000, 2_000
#: the same of rows that are matched with patterns and kept as well as read, which takes more than twice the time
MATCHED_ROWS, MATCHED_CLIENTS = 2_000, 500
#: names that a line of the log or of an error has
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The outcome of one check.

    :param met: whether the condition holds.
    :param details: plain JSON: the task's result once the condition is met. ``missing`` may be long.
    :param text: the same in one line, for the log.
    """

    met: bool
    details: dict[str, Any] = field(default_factory=dict)
    text: str = ""


class Condition(ABC):
    """
    A condition to wait for, used by sensors, triggers and the evacuation operator.

    :raises EmqxConfigError: for invalid arguments.
    """

    #: name in a trigger's arguments
    kind: ClassVar[str]

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return the validated arguments as plain JSON, from which the same condition can be made."""

    def for_trigger(self) -> dict[str, Any]:
        """
        Return the parameters, if they are small enough for a trigger.

        :raises EmqxConfigError: if not.
        """
        return self.parameters()

    @abstractmethod
    def ask(self, api: Api, now: float) -> Operation[Outcome]:
        """
        Ask the broker whether the condition is met.

        :param now: seconds since 1970.
        :raises EmqxUnsupportedError: if the broker does not support it.
        """

    def loaded(self) -> Self:
        """Return the condition with the content of its files. Blocks."""
        return self

    @property
    def question(self) -> str:
        """A key: waits with the same question share their requests."""
        return json.dumps([self.kind, self.parameters()], sort_keys=True)


def is_transient(error: BaseException) -> bool:
    """Return whether a wait may continue after this error, because the next check may succeed."""
    if isinstance(error, EmqxConnectionError):
        return error.transient
    return isinstance(error, (EmqxRateLimitError, EmqxServerError))


def outlives(error: BaseException, failures: int, most: int | None) -> bool:
    """
    Return whether a wait continues after a failed check.

    :param error: of the check.
    :param failures: consecutive failed checks, this one included.
    :param most: how many to tolerate; ``None`` with ``silent_fail``, which tolerates all errors that are not final.
    """
    if most is None:
        return is_transient(error) or not isinstance(error, AirflowFailException)
    return is_transient(error) and failures <= most


def first_of(names: Sequence[str]) -> str:
    """
    Return names for one line of a log, which may be written in every check.

    :param names: any number.
    """
    return ", ".join([*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])])


def page_of(area: Area, most: int = SHORT_ROWS) -> int:
    """
    Return how many rows a page has that an event loop reads.

    :param area: that is listed.
    :param most: rows that the loop may be held for.
    """
    return min(most, area.page_limit)


def page_of_clients(api: Api, *, matched: bool = False) -> int:
    """
    Return the same of clients of whom a few fields are asked for, which brokers before 5.6 send whole.

    :param matched: whether each one is matched with patterns.
    """
    short, whole = (MATCHED_ROWS, MATCHED_CLIENTS) if matched else (SHORT_ROWS, WHOLE_CLIENTS)
    return page_of(api.clients, short if api.clients.sends_fields else whole)

"""What the hook's methods of every area stand on."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_emqx.api.base import Broker, Operation, Page, R
from airflow_provider_emqx.exceptions import EmqxError, EmqxOutcomeUnknownError

if TYPE_CHECKING:
    from airflow_provider_emqx.api.v5.api import Api
    from airflow_provider_emqx.client.settings import Settings
    from airflow_provider_emqx.client.stopping import Stop

T = TypeVar("T")
K = TypeVar("K")

#: up to so many operations the thread and the connections of run_many() cost more time than they save
FEW = 8

#: what became of one thing, besides what each operation is for: an error says why it was not done
FAILED = "failed"
#: perhaps done, perhaps not: the answer was lost, or the task was interrupted
UNKNOWN = "unknown"
#: left alone: it is in the broker under a name that no request can carry
UNADDRESSABLE = "unaddressable"


def told_as(error: BaseException) -> str:
    """
    Return the outcome of what an operation was to do when it ended with an error.

    :param error: one of ours, or the interruption of a task.
    """
    if isinstance(error, EmqxError) and not isinstance(error, EmqxOutcomeUnknownError):
        return UNKNOWN if error.maybe_applied else FAILED
    return UNKNOWN


class Area:
    """
    Base of the classes that hold the methods of one area each.

    :class:`~airflow_provider_emqx.hooks.emqx.EmqxHook` brings what is only declared here.
    """

    rate_limit: float | None
    retry_unsafe: bool
    stopping: Stop

    @property
    def settings(self) -> Settings:
        """The connection, read and checked."""
        raise NotImplementedError

    @property
    def broker(self) -> Broker:
        """What is known of the broker."""
        raise NotImplementedError

    @property
    def api(self) -> Api:
        """The broker's operations."""
        raise NotImplementedError

    def run(self, operation: Operation[T]) -> T:
        """Run an operation."""
        raise NotImplementedError

    def rows(self, operation: Operation[Page[R]]) -> Iterator[R]:
        """Walk a listing operation."""
        raise NotImplementedError

    def run_many(self, operations: Iterable[Operation[T]]) -> Generator[T | EmqxError]:
        """Run many operations, several at a time."""
        raise NotImplementedError

    def run_each(self, operations: Iterable[tuple[K, Operation[T]]]) -> Generator[tuple[K, T | EmqxError]]:
        """Run many operations, and yield the result of each as soon as it is there."""
        raise NotImplementedError

    def run_all(self, operations: Iterable[Operation[T]]) -> list[T]:
        """
        Run operations that must all succeed, several at a time if there are many.

        :param operations: any number of operations.
        :return: results in the order of the operations.
        :raises EmqxError: the first error; if there are many, the others have been tried as well.
        """
        waiting = list(operations)
        if len(waiting) <= FEW:
            return [self.run(operation) for operation in waiting]
        results = []
        failure: EmqxError | None = None
        for result in self.run_many(waiting):
            if isinstance(result, EmqxError):
                failure = failure or result
            else:
                results.append(result)
        if failure is not None:
            raise failure
        return results

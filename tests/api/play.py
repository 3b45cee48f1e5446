"""Runs an operation against a script of replies, without a broker."""

from __future__ import annotations

from typing import Any

from airflow_provider_emqx.api.base import Operation, Reply, Request


def play(operation: Operation[Any], *script: Reply | Exception) -> tuple[Any, list[Request]]:
    """
    Run an operation to its end, answering its requests one after the other.

    :param operation: what is tested.
    :param script: a reply, or the error that the driver would throw in, for each request in turn.
    :return: the result, and the requests made.
    """
    asked = []
    answers = iter(script)
    try:
        request = next(operation)
        while True:
            asked.append(request)
            answer = next(answers, None)
            assert answer is not None, f"an unexpected request: {request}"
            request = operation.throw(answer) if isinstance(answer, Exception) else operation.send(answer)
    except StopIteration as done:
        assert next(answers, None) is None, "the script was not played to its end"
        return done.value, asked

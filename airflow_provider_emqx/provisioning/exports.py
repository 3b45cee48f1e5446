"""Exports on the disk of a broker's node: made for a moment, and deleted again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_emqx.exceptions import EmqxError

if TYPE_CHECKING:
    from airflow_provider_emqx.client.session import Session

log = logging.getLogger(__name__)


@contextmanager
def exported(hook: Session) -> Iterator[bytes]:
    """
    Let the broker export its users, and delete the export from its disk again, whatever happens.

    It is never written to a disk here.

    :param hook: of the broker.
    :return: a context manager that gives the export.
    """
    backups = hook.api.backups
    # EMQX 4 exports everything, API secrets in clear too
    made = hook.run(backups.export() if hook.broker.is_v4 else backups.export(["builtin_authn"], []))
    try:
        yield hook.run(backups.download(made["filename"], made["node"]))
    finally:
        log.info("%s", discard(hook, made["filename"], made["node"]))


def discard(hook: Session, filename: str, node: str | None) -> str:
    """
    Delete an export that is of no more use, and say whether it is gone.

    :param hook: of the broker.
    :param filename: of the export.
    :param node: on whose disk it is.
    :return: a sentence.
    """
    try:
        if hook.run(hook.api.backups.delete(filename, node)):
            return f"The export {filename} was deleted again from the broker's disk"
        if all(
            (row["filename"], row["node"]) != (filename, node) for row in hook.rows(hook.api.backups.list())
        ):
            return f"The export {filename} is no longer on the broker's disk"
        why = "EMQX does not find it to delete it"
    except EmqxError as error:
        why = str(error)
    return f"The export {filename} stays on the disk of node {node} until it is deleted there: {why}"

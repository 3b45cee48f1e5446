"""Exports on the disk of a broker's node: made for a moment, and deleted again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_emqx.exceptions import EmqxError, EmqxNotFoundError

if TYPE_CHECKING:
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)


@contextmanager
def exported(hook: Session) -> Iterator[bytes]:
    """
    Export the broker's users, and delete the export from its disk, whatever happens.

    It is never written to a disk here.

    :return: a context manager that gives the export.
    :raises EmqxError: if the broker fails, or does not find what it has exported, as some builds of EMQX 4.
    """
    backups = hook.api.backups
    # EMQX 4 exports everything, API secrets in clear too
    made = hook.run(backups.export() if hook.broker.is_v4 else backups.export(["builtin_authn"], []))
    lost: EmqxNotFoundError | None = None
    try:
        try:
            content = hook.run(backups.download(made["filename"], made["node"]))
        except EmqxNotFoundError as error:
            lost = error
        else:
            yield content
    finally:
        left = take_away(hook, made["filename"], made["node"])
    if lost is not None:
        raise EmqxError(
            f"the broker exported {made['filename']} on node {made['node']} and cannot find it there. {left}. Run "
            "'emqx_ctl data export' on that node, and use the file in its data directory as a source"
        ) from lost


def take_away(hook: Session, filename: str, node: str | None) -> str:
    """
    Delete an export that is no longer needed, and log whether that failed: it contains secrets.

    :param filename: of the export.
    :param node: on whose disk it is.
    :return: the sentence that was logged.
    """
    gone, text = discard(hook, filename, node)
    log.log(logging.INFO if gone else logging.WARNING, "%s", text)
    return text


def discard(hook: Session, filename: str, node: str | None) -> tuple[bool, str]:
    """
    Delete an export that is of no more use.

    :param filename: of the export.
    :param node: on whose disk it is.
    :return: whether it is gone, and a sentence about it.
    """
    try:
        if hook.run(hook.api.backups.delete(filename, node)):
            return True, f"The export {filename} was deleted again from the broker's disk"
        if all(
            (row["filename"], row["node"]) != (filename, node) for row in hook.rows(hook.api.backups.list())
        ):
            return True, f"The export {filename} is no longer on the broker's disk"
        why = "EMQX does not find it to delete it"
    except EmqxError as error:
        why = str(error)
    return False, f"The export {filename} stays on the disk of node {node} until it is deleted there: {why}"

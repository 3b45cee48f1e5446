"""Client ids as they are awaited: given in place, or one per line in a file that every process can reach."""

from __future__ import annotations

import os
import re
from typing import Any

from airflow_provider_emqx.arguments import texts
from airflow_provider_emqx.conditions.base import Outcome
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxConnectionError, EmqxError
from airflow_provider_emqx.outcomes import MOST_LISTED
from airflow_provider_emqx.row_files import CLIENTIDS, written_whole

#: extensions of files that contain rows, and a pattern that distinguishes a row from an id
_ROWS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_ROW = re.compile(r"""[\[{"]|.*[,;\t]""")


def given(clientids: Any, path: Any, in_paths: bool = True) -> tuple[list[str], str]:
    """
    Check how client ids are given.

    :param clientids: one id, several, or the file's path as ``ObjectStoragePath``.
    :param path: the file's path as text, in place of ``clientids``.
    :param in_paths: whether each id must be able to stand in a path of the API.
    :return: the ids without duplicates, or the path; the other one is empty.
    :raises EmqxConfigError: if the list is empty, or contains anything but text.
    """
    if hasattr(clientids, "open"):
        clientids, path = None, clientids
    if (clientids is None) == (not path):
        raise EmqxConfigError("give either clientids or clientids_path, the file that holds them")
    return ([], str(path)) if path else (_checked(clientids, in_paths), "")


def _checked(clientids: Any, in_paths: bool) -> list[str]:
    ids = texts("clientids", clientids)
    if not ids:
        raise EmqxConfigError("clientids is empty; pass at least one client id")
    for clientid in ids:
        if in_paths and clientid in ("", ".", ".."):
            raise EmqxConfigError(f"{clientid!r} cannot be asked for as a client id in EMQX's HTTP API")
    return list(dict.fromkeys(ids))


def read_file(path: str, in_paths: bool = True) -> list[str]:
    """
    Read client ids, one per line; blank lines and repeated ids are passed over. Blocks.

    :param path: anything ``ObjectStoragePath`` can open: a local path, ``s3://bucket/fleet.txt``.
    :param in_paths: as of :func:`given`.
    :raises EmqxConfigError: if the file does not exist, it cannot be read, is not UTF-8 text, holds no id, or holds
        rows.
    :raises EmqxConnectionError: if the storage failed otherwise.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        # read whole: the files of Airflow 2 cannot be iterated over
        with ObjectStoragePath(_whole(path)).open("r", encoding="utf-8-sig") as file:
            ids = [line.strip() for line in file.read().split("\n") if line.strip()]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise EmqxConfigError(
            f"the file of client ids {path} cannot be read on this machine ({type(error).__name__}). A deferred wait "
            "reads it in the triggerer, other waits on the worker: put it on storage that all of them reach, "
            "as s3://bucket/fleet.txt or a shared mount"
        ) from None
    except (UnicodeDecodeError, ValueError, ImportError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise EmqxConfigError(f"the file of client ids {path} cannot be read: {why}") from None
    except TypeError as error:
        # of a universal_pathlib that this Airflow was not made for: it refuses every path
        raise EmqxConfigError(
            f"the file of client ids {path} cannot be read: {error} Airflow 2.11.0 and 3.0 need universal_pathlib<0.3"
        ) from error
    except Exception as error:
        # storage libraries raise what they like
        raise EmqxConnectionError(
            f"the file of client ids {path} could not be read: {type(error).__name__}"
        ) from error
    if not ids:
        raise EmqxConfigError(
            f"the file of client ids {path} is empty; it must contain at least one client id"
        )
    if path.lower().removesuffix(".gz").endswith(_ROWS) or any(map(_ROW.match, ids)):
        # no line is shown: a row may hold a password
        raise EmqxConfigError(
            f"the file of client ids {path} holds rows (CSV or JSON), not one client id per line: write the ids alone "
            "to a .txt file. Ids with a comma, a semicolon, a tab or braces are given as a list, in clientids"
        )
    if all(" " in line for line in ids):
        raise EmqxConfigError(
            f"every line of the file of client ids {path} holds a space, as if something followed the id: write the "
            "ids alone. Ids with spaces are given as a list, in clientids"
        )
    return _checked(ids, in_paths)


def _whole(path: str) -> str:
    """Return a local path from the root on: before Airflow 3.2 object storage looks for a relative one there."""
    return path if "://" in path else os.path.abspath(path)


def finish(outcome: Outcome, missing_path: str | None) -> dict[str, Any]:
    """
    Make the task's result of an outcome: past 1,000 missing ids are cut off, and go to a file if one is named. Blocks.

    :param outcome: of a condition that was met, or was not in time.
    :param missing_path: where to write all missing ids, one per line.
    :raises EmqxError: if they could not be written.
    """
    missing = outcome.details.get("missing", ())
    if len(missing) <= MOST_LISTED:
        return outcome.details
    details = {**outcome.details, "missing": missing[:MOST_LISTED]}
    if missing_path:
        try:
            with written_whole(missing_path, "file of missing client ids", CLIENTIDS, "text") as file:
                file.write({"clientid": clientid} for clientid in missing)
        except EmqxError as error:
            raise EmqxError(f"the condition is met, but {error}") from error
        details["missing_path"] = missing_path
    return details

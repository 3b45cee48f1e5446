"""Opens files for provisioning: local ones directly, all others through Airflow's ObjectStoragePath."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

Location = str | os.PathLike[str]


def locate(location: Location) -> str | ObjectStoragePath:
    """
    Tell where a file is.

    :param location: local path, URL, or ObjectStoragePath.
    :return: a local path as text, everything else as an ObjectStoragePath.
    :raises EmqxConfigError: if the file system of the URL is not known here.
    """
    if "://" not in str(location):
        return os.fspath(location)
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path = location if isinstance(location, ObjectStoragePath) else ObjectStoragePath(str(location))
        # asks for the library of this file system
        cast("Any", path).fs  # noqa: B018
    except (ImportError, ValueError) as error:
        raise EmqxConfigError(f"{str(location)!r} cannot be opened: {error}") from error
    return path


def open_to_read(location: Location) -> IO[bytes]:
    """
    Open a file.

    :param location: local path, URL, or ObjectStoragePath.
    :raises EmqxConfigError: if it is not there, or may not be read.
    :raises EmqxError: if opening fails otherwise.
    """
    place = locate(location)
    shown = repr(str(location))
    try:
        return (
            open(place, "rb") if isinstance(place, str) else cast("IO[bytes]", cast("Any", place).open("rb"))
        )
    except FileNotFoundError:
        raise EmqxConfigError(f"there is no file {shown}") from None
    except IsADirectoryError:
        raise EmqxConfigError(f"{shown} is a directory, not a file") from None
    except PermissionError:
        raise EmqxConfigError(f"{shown} may not be read by the user that runs the task") from None
    except OSError as error:
        raise EmqxError(f"{shown} cannot be opened: {error.strerror or type(error).__name__}") from error


def open_to_write(location: Location, what: str) -> IO[bytes]:
    """
    Open a file that only its owner may read, as far as that can be said; directories are made.

    :param location: local path, URL, or ObjectStoragePath.
    :param what: what it is, for the error.
    :raises EmqxConfigError: if it cannot be written.
    """
    place = locate(location)
    try:
        if not isinstance(place, str):
            return cast("IO[bytes]", cast("Any", place).open("wb"))
        os.makedirs(os.path.dirname(os.path.abspath(place)), exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # one that was there keeps its mode otherwise
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "wb")
    except OSError as error:
        raise EmqxConfigError(f"the {what} {str(location)!r} cannot be written: {error}") from error

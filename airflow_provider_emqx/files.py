"""Opens files: local ones directly, all others through Airflow's ObjectStoragePath."""

from __future__ import annotations

import glob
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast
from uuid import uuid4

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

Location: TypeAlias = "str | os.PathLike[str] | ObjectStoragePath"

#: what makes the file systems of URLs known to Airflow
_PROVIDERS = {
    "s3": "apache-airflow-providers-amazon[s3fs]",
    **dict.fromkeys(("gs", "gcs"), "apache-airflow-providers-google"),
    **dict.fromkeys(("abfs", "abfss", "adl"), "apache-airflow-providers-microsoft-azure"),
}


def is_location(given: object) -> bool:
    """
    Return whether something is the path or the URL of a file.

    :param given: what an operator was given.
    """
    # an ObjectStoragePath is a PathLike only where it is local
    return (isinstance(given, str | os.PathLike) or hasattr(given, "protocol")) and bool(str(given))


#: what stands for a template before it is rendered
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|/|~|\.\.?/|[A-Za-z]:[\\/]")
_RELATIVE = re.compile(r"[\w.*?\[\]#+@=-]*/[\w./*?\[\]#+@=-]*|[\w .*?\[\]#+@=()-]+\.\w{2,8}(?:\.\w{2,4})?")
#: a password or a signature in a URL
_CREDENTIALS = re.compile(r"://[^/@]*:[^/]*@|[?&][^/=]+=")


def is_plainly_location(given: object) -> bool:
    """
    Return whether something is the path or the URL of a file and nothing but that, so that it may be shown.

    Text that could as well be rows (CSV, JSON, a list that a template has turned into text), and a URL with a password
    or a signature in it, are not. A template counts as one word of the text around it.

    :param given: what an operator was given.
    """
    if not isinstance(given, str):
        return is_location(given) and not _CREDENTIALS.search(str(given))
    text = _TEMPLATE.sub("x", given)
    # rows have separators or quotes
    if re.search(r"""[,;|"'{}<>]|[^\S ]""", text) or _CREDENTIALS.search(text):
        return False
    return _ABSOLUTE.match(text) is not None or _RELATIVE.fullmatch(text) is not None


def shown(location: Location) -> str:
    """
    Return a path or URL as logs, errors and reports name it: without a password or a signature, and valid UTF-8.

    :param location: path, URL, or ObjectStoragePath. The name of a local file need not be UTF-8.
    """
    text = str(location).encode("utf-8", "backslashreplace").decode()
    if "://" not in text or not _CREDENTIALS.search(text):
        return text
    text = re.sub(r"://([^/@:]*):[^/@]*@", r"://\1:…@", text)
    return re.sub(r"([?&][^/=&]+=)[^&]*", r"\1…", text)


def locate(location: Location) -> str | ObjectStoragePath:
    """
    Resolve a location.

    :param location: local path, URL, or ObjectStoragePath.
    :return: a local path as text, everything else as an ObjectStoragePath.
    :raises EmqxConfigError: if the path is invalid, or the file system of the URL is unknown.
    """
    if "://" not in str(location):
        place = os.fspath(cast("str | os.PathLike[str]", location))
        try:
            possible = b"\0" not in os.fsencode(place)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise EmqxConfigError(
                f"{place!r} is not a path: it contains a character that is invalid in file names"
            )
        return place
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path = location if isinstance(location, ObjectStoragePath) else ObjectStoragePath(str(location))
        # asks for the library of this file system
        cast("Any", path).fs  # noqa: B018
    except (ImportError, ValueError) as error:
        provider = _PROVIDERS.get(str(location).partition("://")[0])
        missing = isinstance(error, ImportError) or "registered" in str(error)
        hint = f". Install {provider} on the workers" if provider and missing else ""
        access = "" if missing else _access(location)
        raise EmqxConfigError(f"{shown(location)!r} cannot be opened{access}: {error}{hint}") from error
    except TypeError as error:
        # of a universal_pathlib that this Airflow was not made for: it refuses every path
        raise EmqxConfigError(
            f"{shown(location)!r} cannot be opened: {error} Airflow 2.11.0 and 3.0 need universal_pathlib<0.3"
        ) from error
    return path


def exists(location: Location) -> bool:
    """
    Return whether a file exists.

    :param location: local path, URL, or ObjectStoragePath.
    :raises EmqxError: if the storage cannot be read.
    """
    return _is(location, os.path.exists, "exists")


def size_and_age(location: Location) -> tuple[int, float] | None:
    """
    Return the size of a file and its modification time.

    :param location: local path, URL, or ObjectStoragePath.
    :return: bytes and time, or ``None`` if they are unknown.
    """
    place = locate(location)
    try:
        with _os_errors():
            found = os.stat(place) if isinstance(place, str) else cast("Any", place).stat()
            return found.st_size, found.st_mtime
    except OSError:
        return None


def is_directory(location: Location) -> bool:
    """
    Return whether a place is a directory, or has files below it.

    :param location: local path, URL, or ObjectStoragePath.
    :raises EmqxError: if the storage cannot be read.
    """
    return _is(location, os.path.isdir, "is_dir")


def _is(location: Location, of_path: Callable[[str], bool], name: str) -> bool:
    place = locate(location)
    if isinstance(place, str):
        return of_path(place)
    try:
        with _os_errors():
            return bool(getattr(place, name)())
    except OSError as error:
        raise _not_opened(error, location) from error


def files_in(directory: Location) -> tuple[list[Location], list[Location]]:
    """
    List what stands right in a directory.

    :param directory: local path, URL, or ObjectStoragePath.
    :return: its files and its directories, each in the order of their names; none if the directory does not exist.
    :raises EmqxError: if it cannot be listed.
    """
    place: Any = locate(directory)
    local = isinstance(place, str)
    files: list[Location] = []
    others: list[Location] = []
    try:
        with _os_errors():
            found = [os.path.join(place, name) for name in os.listdir(place)] if local else place.iterdir()
            for one in sorted(found, key=str):
                (files if _is_file(one) else others).append(one)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise _not_opened(error, directory) from error
    return files, others


def files_like(pattern: str, directory: Location) -> list[Location]:
    """
    List the files whose path below a directory is like a shell pattern.

    :param pattern: of the part of the path below the directory; ``**`` is any number of directories.
    :param directory: local path, URL, or ObjectStoragePath, whose own name is not a pattern.
    :return: in the order of their names; none if the directory does not exist.
    :raises EmqxError: if it cannot be listed.
    """
    place: Any = locate(directory)
    try:
        with _os_errors():
            if isinstance(place, str):
                names = glob.glob(pattern, root_dir=place, recursive=True)
                found: list[Any] = [os.path.join(place, name) for name in names]
            else:
                base = place.path.rstrip("/")
                names = place.fs.glob(f"{glob.escape(base)}/{pattern}")
                found = [place.joinpath(name.removeprefix(base).lstrip("/")) for name in names]
            return sorted(filter(_is_file, found), key=str)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _not_opened(error, directory) from error


def _is_file(found: Any) -> bool:
    # a link that leads nowhere is a file that is missing, which opening it tells
    return not os.path.isdir(found) if isinstance(found, str) else bool(found.is_file())


def open_to_read(location: Location) -> IO[bytes]:
    """
    Open a file.

    :param location: local path, URL, or ObjectStoragePath.
    :raises EmqxConfigError: if it is not there, or may not be read.
    :raises EmqxError: if opening fails otherwise.
    """
    place = locate(location)
    try:
        return open(place, "rb") if isinstance(place, str) else _File.open(place, "rb")
    except OSError as error:
        raise _not_opened(error, location) from error


def open_to_write(location: Location, what: str) -> IO[bytes]:
    """
    Open a file that only its owner may read, as far as that can be said; directories are made.

    An object is there when the file is closed.

    :param location: local path, URL, or ObjectStoragePath.
    :param what: what it is, for the error.
    :raises EmqxError: if it cannot be written; also by ``write`` and ``close``.
    """
    return _create(_local(location), partial(_not_written, location, what))


def open_report(location: Location) -> IO[bytes]:
    """
    Open a report, having found out before anything is sent whether it can be written.

    :param location: as of :func:`open_to_write`.
    :raises EmqxError: the same.
    """
    if not isinstance(locate(location), str):
        # an object is written when it is closed
        open_to_write(location, "report").close()
    return open_to_write(location, "report")


@contextmanager
def replacing(location: Location, what: str) -> Iterator[IO[bytes]]:
    """
    Open a file that takes the place of an older one when it is whole.

    :param location: as of :func:`open_to_write`.
    :param what: the same.
    :return: a context manager; an error in it leaves the older file or object as it was.
    :raises EmqxError: the same.
    """
    place = _local(location)
    not_written = partial(_not_written, location, what)
    if not isinstance(place, str):
        # an object is there when it is closed, be it whole or not
        with tempfile.TemporaryFile() as whole:
            # whoever writes may close what it is given
            with open(os.dup(whole.fileno()), "wb") as local:
                yield local
            whole.seek(0)
            with _create(place, not_written) as file:
                shutil.copyfileobj(whole, file)
        return
    if os.path.exists(place) and not os.path.isfile(place):
        with _create(place, not_written) as file:
            yield file
        return
    # a link stays one
    target = os.path.realpath(place)
    part = os.path.join(os.path.dirname(target), f".emqx-{uuid4().hex}.part")
    try:
        with _create(part, not_written) as file:
            yield file
        try:
            os.replace(part, target)
        except OSError as error:
            raise not_written(error) from error
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def append(location: Location, data: bytes, what: str, mode: int = 0o600) -> bool:
    """
    Append to a local file, which is made if it is not there; directories are made.

    :param location: as of :func:`open_to_write`.
    :param data: what to append.
    :param what: what the file is, for the error.
    :param mode: of a new file.
    :return: ``False`` for an object, to which nothing can be appended.
    :raises EmqxError: if it cannot be written.
    """
    place = _local(location)
    if not isinstance(place, str):
        return False
    try:
        os.makedirs(os.path.dirname(os.path.abspath(place)), exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise _not_written(location, what, error) from error
    return True


def _local(location: Location) -> str | ObjectStoragePath:
    """Resolve a location; a local file given by its URL is as private as others."""
    place = locate(location)
    return str(place.path) if not isinstance(place, str) and place.protocol in ("file", "local") else place


def _create(place: str | ObjectStoragePath, not_written: Callable[[OSError], Exception]) -> IO[bytes]:
    try:
        if not isinstance(place, str):
            return _File.open(place, "wb", not_written)
        os.makedirs(os.path.dirname(os.path.abspath(place)), exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # one that was there keeps its mode otherwise; a device is everybody's
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)
        return cast("IO[bytes]", _File(open(descriptor, "wb"), not_written))
    except OSError as error:
        raise not_written(error) from error


def _not_written(location: Location, what: str, error: OSError) -> EmqxConfigError:
    return EmqxConfigError(
        f"the {what} {shown(location)!r} cannot be written{_access(location)}: {_why(error)}"
    )


class _File(io.RawIOBase):
    """
    A file of an object store, whose library has errors of its own; here they are all an OSError. Or a local one that is
    written, since a disk may be full.

    :param file: as ObjectStoragePath or ``open`` gives it.
    :param translate: makes another error of the OSError.
    """

    def __init__(self, file: Any, translate: Callable[[OSError], Exception] | None = None) -> None:
        self._file = file
        self._translate = translate

    @classmethod
    def open(
        cls, place: ObjectStoragePath, mode: str, translate: Callable[[OSError], Exception] | None = None
    ) -> IO[bytes]:
        with _os_errors():
            return cast("IO[bytes]", cls(cast("Any", place).open(mode), translate))

    def readable(self) -> bool:
        return bool(self._file.readable())

    def writable(self) -> bool:
        return bool(self._file.writable())

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        with _os_errors():
            return bytes(self._file.read(-1 if size is None else size))

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        return int(self._told(lambda: self._file.write(data)))

    def flush(self) -> None:
        # closing this one flushes once more
        if not self._file.closed:
            self._told(self._file.flush)

    def close(self) -> None:
        if not self.closed:
            try:
                self._told(self._file.close)
            finally:
                super().close()

    def _told(self, work: Callable[[], Any]) -> Any:
        try:
            with _os_errors():
                return work()
        except OSError as error:
            raise (self._translate(error) if self._translate else error) from error.__cause__


@contextmanager
def _os_errors() -> Iterator[None]:
    """Make an OSError of whatever the library of an object store raises."""
    try:
        yield
    except (OSError, EmqxError):
        raise
    except Exception as error:
        # its text may hold a token
        raise OSError(
            None, f"{type(error).__module__.partition('.')[0]} says {type(error).__name__}"
        ) from error


def _not_opened(error: OSError, location: Location) -> EmqxError:
    name = repr(shown(location))
    if isinstance(error, FileNotFoundError):
        relative = "://" not in name and not os.path.isabs(str(location))
        return EmqxConfigError(
            f"file {name} not found"
            + (f" in the task's working directory {os.getcwd()!r}" if relative else "")
        )
    if isinstance(error, IsADirectoryError):
        return EmqxConfigError(f"{name} is a directory, not a file")
    if isinstance(error, PermissionError) and "://" not in name:
        return EmqxConfigError(f"{name} may not be read by the user that runs the task")
    if isinstance(error, PermissionError):
        return EmqxConfigError(f"{name} may not be read{_access(location)}")
    return EmqxError(f"{name} cannot be opened{_access(location)}: {_why(error)}")


def _why(error: OSError) -> str:
    if error.strerror:
        return error.strerror
    if isinstance(error, FileNotFoundError):
        return "bucket or directory not found"
    return "access is denied" if isinstance(error, PermissionError) else type(error).__name__


def _access(location: Location) -> str:
    """Return the credentials used for a file; the part of the URL before @ is an Airflow connection."""
    scheme, _, rest = shown(location).partition("://")
    if not rest or scheme == "file":
        return ""
    name, at, _ = rest.partition("/")[0].rpartition("@")
    if at:
        return f" with the connection {name!r}"
    return f" without a connection (one can be named in the URL: {scheme}://CONNECTION@{rest.partition('/')[0]}/…)"

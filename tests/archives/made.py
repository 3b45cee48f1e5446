"""Archives and exports made for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_emqx.archives.archive import read_archive, write_archive
from airflow_provider_emqx.archives.tables import write_table
from airflow_provider_emqx.archives.terms import Atom

CONTRACT = Path(__file__).parents[1] / "contract"
ARCHIVES = {"5.8.9": "emqx-5.8.9-archive", "6.3.0": "emqx-6.3.0-beta.2-archive"}
META = b'edition = ce\nversion = "5.8.9"\n'
USER = ("user_id", "password_hash", "salt", "is_superuser")


def table(name: str, attributes: tuple[str, ...], records: list[Any]) -> bytes:
    """Make a table file."""
    file = io.BytesIO()
    header = (
        Atom("log_header"),
        Atom("backup_log"),
        list(b"1.2"),
        list(b"4.21.3"),
        Atom("emqx@127.0.0.1"),
        (1, 2, 3),
    )
    properties = [(Atom("attributes"), [Atom(one) for one in attributes])]
    write_table(file, header, (Atom("schema"), Atom(name), properties), records)
    return file.getvalue()


def users(rows: list[tuple[str, str, bytes]], group: str = "mqtt:global") -> bytes:
    """Make a table of users of id, hash and salt."""
    name = "emqx_authn_mnesia"
    records = [
        (Atom(name), (Atom(group), user_id.encode()), hashed.encode(), salt, False)
        for user_id, hashed, salt in rows
    ]
    return table(name, USER, records)


def tar(files: Mapping[str, bytes], root: str = "emqx-export-1", mode: str = "w:gz") -> bytes:
    """Pack files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(f"{root}/{name}" if root else name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def archive(files: Mapping[str, bytes]) -> bytes:
    """Make an archive of table files."""
    return tar({"META.hocon": META, **{f"mnesia/{name}": content for name, content in files.items()}})


def renamed(content: bytes, root: str) -> bytes:
    """Give an archive's one directory another name: it has to be called as the file is."""
    buffer = io.BytesIO()
    write_archive(buffer, root, read_archive(io.BytesIO(content)))
    return buffer.getvalue()

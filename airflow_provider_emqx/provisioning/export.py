"""Writes the broker's users to a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, cast

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.files import Location, replacing

if TYPE_CHECKING:
    from airflow_provider_emqx.client.session import Session

_NAMES = ("user_id", "is_superuser")
_BLOCK = 1_000


def check_name(target: Location) -> str:
    """
    Refuse a file of another form.

    :return: the name in lower case, without ``.gz``.
    """
    name = str(target).lower().removesuffix(".gz")
    if not name.endswith((".csv", ".jsonl", ".ndjson")):
        raise EmqxConfigError(f"path must end in .csv or .jsonl, each also with .gz, not as {str(target)!r}")
    return name


def export_users(hook: Session, target: Location, is_superuser: bool | None = None) -> dict[str, Any]:
    """
    List the users into a file.

    :param hook: of the broker.
    :param target: ``….csv`` or ``….jsonl``, each also with ``.gz``.
    :param is_superuser: only superusers, or only the others.
    :return: ``{"users", "superusers", "path", "listing_moved"}``.
    :raises EmqxConfigError: if the file cannot be written.
    """
    name = check_name(target)
    users = hook.rows(hook.api.users.list(is_superuser=is_superuser))
    # a broker that cannot be asked leaves the file of the last time alone
    first = list(islice(users, _BLOCK))
    count, superusers = 0, 0
    with (
        replacing(target, "export") as raw,
        _text(raw, zipped=str(target).lower().endswith(".gz")) as file,
    ):
        if name.endswith(".csv"):
            csv.writer(file).writerow(_NAMES)
        for block in _blocks(first, users):
            rows = [(user["user_id"], user.get("is_superuser")) for user in block]
            count += len(rows)
            superusers += sum(flag is True for _, flag in rows)
            if name.endswith(".csv"):
                csv.writer(file).writerows((one, str(flag or False).lower()) for one, flag in rows)
            else:
                file.writelines(
                    json.dumps(dict(zip(_NAMES, row, strict=True)), ensure_ascii=False) + "\n" for row in rows
                )
    tells = hook.broker.generation != "v4"
    return {
        "users": count,
        "superusers": superusers if tells else None,
        "path": str(target),
        "listing_moved": hook.listing_moved,
    }


def _blocks(first: list[Any], rest: Iterator[Any]) -> Iterable[list[Any]]:
    block = first
    while block:
        yield block
        block = list(islice(rest, _BLOCK))


def _text(raw: IO[bytes], zipped: bool) -> io.TextIOWrapper:
    plain = gzip.GzipFile(fileobj=raw, mode="wb") if zipped else raw
    return io.TextIOWrapper(cast("IO[bytes]", plain), encoding="utf-8", newline="")

"""Writes the broker's users to a file."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.files import Location
from airflow_provider_emqx.provisioning.blocks import ARCHIVE, EXPORT, Format
from airflow_provider_emqx.provisioning.exports import exported
from airflow_provider_emqx.provisioning.formats import Where
from airflow_provider_emqx.provisioning.moving import read_moved
from airflow_provider_emqx.provisioning.target import Target, hashing_of
from airflow_provider_emqx.row_files import USERS, USERS_WITH_HASHES, form_of, written_whole

if TYPE_CHECKING:
    from airflow_provider_emqx.results import ExportUsersResult, WrittenUsers
    from airflow_provider_emqx.transport.session import Session

log = logging.getLogger(__name__)

_BLOCK = 1_000


def export_users(
    hook: Session, target: Location, is_superuser: bool | None = None, with_hashes: bool = False
) -> ExportUsersResult:
    """
    Write the users to a file.

    :param target: ``….csv`` or ``….jsonl``, each also with ``.gz``.
    :param is_superuser: only superusers, or only the others.
    :param with_hashes: with their password hashes and salts, which EMQX tells in exports of its tables only.
    :return: ``{"users", "superusers", "output_path", "listing_moved", "left_out", "password_hash_algorithm"}``.
    :raises EmqxConfigError: if the file cannot be written, or what the broker exported is damaged.
    :raises EmqxError: if the broker fails.
    """
    form_of("output_path", target, packed=True)
    if not with_hashes:
        summary = _write(hook, target, USERS, hook.rows(hook.api.users.list(is_superuser=is_superuser)))
        return {
            **summary,
            "listing_moved": hook.listing_moved,
            "left_out": 0,
            "password_hash_algorithm": None,
        }
    algorithm, _ = hashing_of(hook)
    left_out: Counter[str] = Counter()
    with exported(hook) as content:
        rows = _with_hashes(hook, content, is_superuser, left_out)
        summary = _write(hook, target, USERS_WITH_HASHES, rows)
    for reason, count in left_out.most_common(10):
        log.warning("%s users are left out: each %s", f"{count:,}", reason)
    return {
        **summary,
        "listing_moved": False,
        "left_out": left_out.total(),
        "password_hash_algorithm": algorithm.settings() if algorithm else None,
    }


def _with_hashes(
    hook: Session, content: bytes, is_superuser: bool | None, left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    name = EXPORT if hook.broker.is_v4 else ARCHIVE
    # this broker has made the hashes, and needs not to take them
    how = Format(name=name, ids_only=True, target=Target(hook))
    for block in read_moved(
        name, lambda: nullcontext(io.BytesIO(content)), how, Where("the broker's export")
    ):
        left_out.update(bad.reason for bad in block.bad)
        for values in zip(*block.columns, strict=True):
            row = dict(zip(how.fields, values, strict=True))
            if row["password_hash"] is None:
                left_out["has a password in clear"] += 1
            elif is_superuser in (None, bool(row["is_superuser"])):
                yield row


def _write(hook: Session, target: Location, names: Sequence[str], users: Iterator[Any]) -> WrittenUsers:
    form = form_of("output_path", target, packed=True)
    # a broker that cannot be asked leaves the file of the last time alone
    block = list(islice(users, _BLOCK))
    count, superusers = 0, 0
    with written_whole(target, "export", names, form) as file:
        while block:
            count += len(block)
            superusers += sum(user.get("is_superuser") is True for user in block)
            if form == "csv":
                # whoever reads it knows no third value
                block = [{**user, "is_superuser": user.get("is_superuser") or False} for user in block]
            file.write(block)
            block = list(islice(users, _BLOCK))
    return {
        "users": count,
        "superusers": None if hook.broker.is_v4 else superusers,
        "output_path": str(target),
    }

"""Bans from files and lists: all rows are read and checked before anybody is banned."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple

from airflow_provider_emqx.api.bans import read_kind, read_until, remarks
from airflow_provider_emqx.api.filters import read_time
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.provisioning.blocks import Bad, Block, Format
from airflow_provider_emqx.provisioning.sources import Source


class Ban(NamedTuple):
    """
    A ban that is to be.

    :param kind: as :data:`~airflow_provider_emqx.choices.BanKind` has them.
    :param who: is banned.
    :param until: when it ends, ``None`` for never.
    :param reason: for the listing.
    :param by: for the listing.
    """

    kind: str
    who: str
    until: datetime | None
    reason: str
    by: str


class BansFormat(Format):
    """The format of a file of bans."""

    fields: ClassVar[tuple[str, ...]] = ("kind", "who", "until", "reason", "by")
    exact: ClassVar[tuple[str, ...]] = ("who",)
    what: ClassVar[str] = "bans"

    def needs(self, name: str, header: Sequence[str]) -> bool:
        """Return whether a source with this header needs a field."""
        return name == "who"


@dataclass(frozen=True)
class Defaults:
    """
    Values for rows without their own.

    :param kind: of the ban.
    :param until: when it ends: ``""`` where the rows have to say, ``None`` for never.
    :param reason: for the listing.
    :param by: for the listing.
    """

    kind: str
    until: datetime | str | None
    reason: str
    by: str


def read(source: Source, defaults: Defaults, now: datetime) -> tuple[list[Ban], list[Bad], int]:
    """
    Read all rows of a source.

    :param source: of the rows.
    :param defaults: for rows without values of their own.
    :param now: the present time.
    :return: the bans; the rows that cannot be bans; and how many are over, which are left out.
    :raises EmqxConfigError: if the source breaks off.
    """
    bans: dict[tuple[str, str], Ban] = {}
    rejected: list[Bad] = []
    over = 0
    with closing(source):
        for block in source.blocks:
            rejected += block.bad
            for line, row in _rows(block):
                try:
                    ban = _ban(row, defaults, now)
                except EmqxConfigError as error:
                    rejected.append(Bad(line, row["who"], error.message))
                    continue
                if ban is None:
                    over += 1
                elif (ban.kind, ban.who) in bans:
                    rejected.append(Bad(line, ban.who, "duplicate: an earlier row bans the same"))
                else:
                    bans[ban.kind, ban.who] = ban
    return list(bans.values()), sorted(rejected, key=attrgetter("line")), over


def _rows(block: Block) -> list[tuple[int, dict[str, Any]]]:
    return [
        (line, dict(zip(BansFormat.fields, values, strict=True)))
        for line, *values in zip(block.lines, *block.columns, strict=True)
    ]


def _ban(row: dict[str, Any], defaults: Defaults, now: datetime) -> Ban | None:
    """Check a row; ``None`` for a ban that is over."""
    given = {name: value for name, value in row.items() if value not in (None, "")}
    if not isinstance(given.get("who"), str):
        raise EmqxConfigError("who is missing, or no text")
    kind, who = read_kind(given.get("kind", defaults.kind), given["who"])
    until: Any = defaults.until
    if "until" in given:
        if _is_over(given["until"], now):
            return None
        until = read_until(given["until"], now)
    elif until == "":
        raise EmqxConfigError("until is missing, and neither until nor duration is given for all rows")
    told = remarks(given.get("reason", defaults.reason), given.get("by", defaults.by))
    return Ban(kind, who, until, told["reason"], told["by"])


def _is_over(until: Any, now: datetime) -> bool:
    try:
        return until != "infinity" and read_time(until) <= now
    except ValueError:
        # read_until says what is wrong with it
        return False

"""Bans, checked before anything is sent. Every ban says how long it lasts: the brokers' defaults differ widely."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from typing import Any, get_args

from airflow_provider_emqx.api.base import Row, path
from airflow_provider_emqx.api.filters import read_time
from airflow_provider_emqx.arguments import choice
from airflow_provider_emqx.choices import BanKind
from airflow_provider_emqx.exceptions import EmqxConfigError

#: by regular expression, and by network: EMQX 5.6 and newer
NEWER_KINDS = ("clientid_re", "username_re", "peerhost_net")
#: replaces "infinity" on brokers that do not support it: 2100-01-01
FOREVER = 4_102_444_800


def check_kind(kind: Any) -> None:
    """Refuse an unknown kind of ban."""
    choice("a ban's kind", kind, get_args(BanKind))


def remarks(reason: Any, by: Any) -> Row:
    """Check what the listing is to say of a ban; EMQX 4 crashes over anything but text."""
    for name, value in (("reason", reason), ("by", by)):
        if not isinstance(value, str):
            raise EmqxConfigError(f"{name} must be text, not {type(value).__name__}")
    return {"reason": reason, "by": by}


def read_kind(kind: Any, who: Any) -> tuple[str, str]:
    """
    Check what is banned.

    :param kind: ``clientid``, ``username``, ``peerhost``; since EMQX 5.6 also ``clientid_re``, ``username_re``,
        ``peerhost_net``.
    :param who: id, name, IP address, regular expression or network.
    :return: both, addresses in their usual spelling.
    :raises EmqxConfigError: for an unknown kind, a broken address, or a name that cannot stand in a path.
    """
    check_kind(kind)
    path(who)
    try:
        if kind == "peerhost":
            who = str(ipaddress.ip_address(who))
        elif kind == "peerhost_net":
            who = str(ipaddress.ip_network(who, strict=False))
    except ValueError:
        what = "IP address" if kind == "peerhost" else "network (as 10.0.0.0/8)"
        raise EmqxConfigError(f"{who[:80]!r} is not a valid {what}") from None
    return kind, who


def read_until(until: Any, now: datetime) -> datetime | None:
    """
    Read how long a ban lasts.

    :param until: RFC 3339 text or an aware ``datetime`` in the future, or ``"infinity"``.
    :param now: the present time.
    :return: the time, ``None`` for no end.
    :raises EmqxConfigError: for anything else; EMQX 4 would accept the past without a word.
    """
    if until == "infinity":
        return None
    try:
        time = read_time(until)
    except ValueError as error:
        raise EmqxConfigError(f"until must be 'infinity' or {error}, not {until!r}") from None
    if time <= now:
        raise EmqxConfigError(f"until lies in the past ({time.isoformat()}): the ban would never be in force")
    return time


def until_text(until: Any) -> str | None:
    """Write a ban's end as ``"infinity"`` or RFC 3339, from either generation's answer."""
    if isinstance(until, int):
        until = datetime.fromtimestamp(until, UTC).isoformat()
    if isinstance(until, str) and until != "infinity":
        return "infinity" if datetime.fromisoformat(until).timestamp() >= FOREVER else until
    return until  # type: ignore[no-any-return]

"""
Filters of listings: our names are v5's, unknown ones are refused, and every row is checked again.

Both generations ignore filters that they don't know and answer with everything; some versions leak rows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor
from typing import Any

from airflow_provider_emqx.api.base import R, is_utf8
from airflow_provider_emqx.api.names import matches, split_share, topic_filter, topic_name
from airflow_provider_emqx.arguments import boolean, choice, text, texts, whole, wrong
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.patterns import common_part, like

Wanted = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """
    One filter.

    :param field: the row's field that it looks at.
    :param read: makes the value to compare with of the filter's name for errors, and of what was given.
    :param keeps: tells whether a row's value passes.
    """

    field: str
    read: Callable[[str, Any], Any]
    keeps: Callable[[Any, Any], bool]


def read_filters(known: Mapping[str, Filter], given: Mapping[str, Any] | None) -> Wanted:
    """
    Check the filters of a listing; those that are ``None`` are left out.

    :param known: the filters of this listing by name.
    :param given: as the caller wrote them.
    :return: the values to compare with, by name.
    :raises EmqxConfigError: for a filter that does not exist, or a value that it cannot have.
    """
    wanted: Wanted = {}
    for name, value in (given or {}).items():
        if name not in known:
            raise EmqxConfigError(f"unknown filter {name!r}; expected one of {', '.join(sorted(known))}")
        if value is not None:
            wanted[name] = known[name].read(f"filter {name}", value)
    return wanted


def kept(rows: Iterable[R], known: Mapping[str, Filter], wanted: Wanted) -> list[R]:
    """Return the rows that pass every filter."""
    tests = [(known[name].field, known[name].keeps, value) for name, value in wanted.items()]
    return [row for row in rows if all(keeps(row.get(field), value) for field, keeps, value in tests)]


def shared_apart(wanted: Wanted) -> Wanted:
    """Ask for ``$share/group/filter`` by group and filter: brokers keep the two apart, and find it no other way."""
    group, plain = split_share(wanted.get("topic", ""))
    return wanted if group is None else {"share_group": group, **wanted, "topic": plain}


def read_fields(fields: str | Sequence[str] | None, key: str) -> list[str] | None:
    """
    Read the wish for a part of each row.

    :param fields: names, as a list or as text with commas; ``None`` for whole rows.
    :param key: the field that identifies a row, always included.
    """
    if fields is None:
        return None
    names = fields.split(",") if isinstance(fields, str) else list(fields)
    if not all(str(name).strip() for name in names):
        raise EmqxConfigError("fields must be names of a row's fields, as ['clientid', 'connected']")
    return list(dict.fromkeys([key, *(str(name).strip() for name in names)]))


def fields_looked_at(
    names: Sequence[str] | None, known: Mapping[str, Filter], wanted: Wanted
) -> tuple[str, ...] | None:
    """
    Return the fields of a row that are needed at all.

    :param names: those asked for, ``None`` for whole rows.
    :param known: the filters of this listing by name.
    :param wanted: those that each row is checked against.
    """
    if names is None:
        return None
    return tuple(dict.fromkeys([*names, *(known[name].field for name in wanted)]))


def read_time(value: Any) -> datetime:
    """
    Read a point in time: an aware ``datetime`` or RFC 3339 text.

    :raises ValueError: saying what is allowed.
    """
    allowed = "a time with its offset, as 2026-11-23T04:00:00Z"
    if isinstance(value, datetime):
        time = value
    else:
        try:
            time = datetime.fromisoformat(value if isinstance(value, str) else "")
        except ValueError:
            raise ValueError(allowed) from None
    if time.tzinfo is None:
        raise ValueError(allowed)
    return time.astimezone(UTC)


def rfc3339(time: datetime) -> str:
    """Write a time as v5 reads and writes it, in milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parts_of_names(wanted: Wanted) -> Wanted:
    """Replace patterns of names by what brokers can filter by: ``like_clientid``, a part of the name."""
    found: Wanted = {}
    for name, value in wanted.items():
        if not name.endswith("_pattern"):
            found[name] = value
        elif part := common_part(value):
            found[f"like_{name.removesuffix('_pattern')}"] = part
    return found


def whole_seconds(wanted: Wanted) -> Wanted:
    """Widen the times of filters to whole seconds: v4 knows no finer ones, in filters or in rows."""
    return {
        name: _to_second(value, ceil if name.startswith("lte_") else floor)
        if isinstance(value, datetime)
        else value
        for name, value in wanted.items()
    }


def _to_second(time: datetime, to_whole: Callable[[float], int]) -> datetime:
    return datetime.fromtimestamp(to_whole(time.timestamp()), UTC)


def _text(name: str, value: Any) -> str:
    if not is_utf8(text(name, value)):
        raise EmqxConfigError(f"{name} must be valid UTF-8, not text with a lone surrogate")
    return str(value)


def _texts(name: str, value: Any) -> frozenset[str]:
    found = texts(name, value)
    if not found:
        raise wrong(name, "text or a list of texts", None)
    return frozenset(_text(name, one) for one in found)


def _whole(at_least: int, at_most: int) -> Callable[[str, Any], int]:
    return lambda name, value: whole(name, value, at_least, at_most)


def _time(name: str, value: Any) -> datetime:
    try:
        return read_time(value)
    except ValueError as error:
        raise wrong(name, str(error), value) from None


def _address(name: str, value: Any) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise wrong(name, "an IPv4 or IPv6 address", value) from None


def _state(name: str, value: Any) -> str:
    return choice(name, value, ("connected", "idle", "disconnected"))


def _plain_filter(value: Any) -> str:
    if split_share(topic_filter(value))[0] is not None:
        raise EmqxConfigError("without $share/group/; share_group is the filter for a group")
    return str(value)


def _topic(check: Callable[[Any], str]) -> Callable[[str, Any], str]:
    def read(name: str, value: Any) -> str:
        try:
            return check(value)
        except EmqxConfigError as error:
            raise wrong(name, f"a topic ({error.message})", value) from None

    return read


def _same(value: Any, wanted: Any) -> bool:
    return bool(value == wanted)


def _same_address(value: Any, wanted: str) -> bool:
    try:
        return str(ipaddress.ip_address(value)) == wanted
    except ValueError:
        return False


def _one_of(value: Any, wanted: frozenset[str]) -> bool:
    return value in wanted


def _is_like(value: Any, wanted: str) -> bool:
    return like(wanted).fullmatch(value or "") is not None


def _at_least(value: Any, wanted: Any) -> bool:
    found = _comparable(value, wanted)
    return found is not None and bool(found >= wanted)


def _at_most(value: Any, wanted: Any) -> bool:
    found = _comparable(value, wanted)
    return found is not None and bool(found <= wanted)


def _comparable(value: Any, wanted: Any) -> Any:
    if not isinstance(wanted, datetime):
        return value if isinstance(value, (int, float)) else None
    try:
        return read_time(value)
    except ValueError:
        return None


def _is_connected(value: Any, wanted: str) -> bool:
    return (value is True) == (wanted == "connected")


def _matched_by(value: Any, wanted: str) -> bool:
    return isinstance(value, str) and matches(split_share(value)[1], wanted)


def _receives(value: Any, wanted: str) -> bool:
    return isinstance(value, str) and matches(wanted, split_share(value)[1])


def _in_group(value: Any, wanted: str) -> bool:
    return isinstance(value, str) and split_share(value)[0] == wanted


_NATURAL = _whole(0, 2**63)
CLIENT_FILTERS: dict[str, Filter] = {
    "clientid": Filter("clientid", _texts, _one_of),
    "username": Filter("username", _texts, _one_of),
    "clientid_pattern": Filter("clientid", _text, _is_like),
    "username_pattern": Filter("username", _text, _is_like),
    "node": Filter("node", _text, _same),
    "ip_address": Filter("ip_address", _address, _same_address),
    "conn_state": Filter("connected", _state, _is_connected),
    "clean_start": Filter("clean_start", boolean, _same),
    "proto_name": Filter("proto_name", _text, _same),
    "proto_ver": Filter("proto_ver", _whole(1, 255), _same),
    "zone": Filter("zone", _text, _same),
    "gte_created_at": Filter("created_at", _time, _at_least),
    "lte_created_at": Filter("created_at", _time, _at_most),
    "gte_connected_at": Filter("connected_at", _time, _at_least),
    "lte_connected_at": Filter("connected_at", _time, _at_most),
    "gte_disconnected_at": Filter("disconnected_at", _time, _at_least),
    "lte_disconnected_at": Filter("disconnected_at", _time, _at_most),
    "gte_mqueue_len": Filter("mqueue_len", _NATURAL, _at_least),
    "lte_mqueue_len": Filter("mqueue_len", _NATURAL, _at_most),
    "gte_mqueue_dropped": Filter("mqueue_dropped", _NATURAL, _at_least),
    "lte_mqueue_dropped": Filter("mqueue_dropped", _NATURAL, _at_most),
}
SUBSCRIPTION_FILTERS: dict[str, Filter] = {
    "clientid": Filter("clientid", _text, _same),
    "topic": Filter("topic", _text, _same),
    "qos": Filter("qos", _whole(0, 2), _same),
    "node": Filter("node", _text, _same),
    "share_group": Filter("topic", _text, _in_group),
    "match_topic": Filter("topic", _topic(_plain_filter), _matched_by),
    "receiving": Filter("topic", _topic(topic_name), _receives),
    "durable": Filter("durable", boolean, _same),
}
TOPIC_FILTERS: dict[str, Filter] = {
    "topic": Filter("topic", _text, _same),
    "node": Filter("node", _text, _same),
}

"""ACL rules from files and lists: rows are read, checked, gathered by subject, and written subject by subject."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.api.acl import read_rule, read_subject
from airflow_provider_emqx.api.base import Operation
from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.provisioning.files import open_to_read

if TYPE_CHECKING:
    from airflow_provider_emqx.hooks.emqx import EmqxHook

#: rejected rows that a result lists
SHOWN = 100

_SUBJECTS = ("username", "clientid")
_ALL = "all"
_RULE = ("topic", "permission", "action", "qos", "retain")
Rows = Iterator[tuple[int, Any]]


@dataclass
class Subject:
    """
    The rows of one username or client id, or of all clients.

    :param rules: checked, in order.
    :param lines: of its good rows.
    :param bad: whether one of its rows was rejected.
    """

    rules: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: bool = False


@dataclass
class AclPlan:
    """
    What is to be written.

    :param read: rows that the source gave.
    :param subjects: by kind and name.
    :param rejected: line and reason of each rejected row.
    :param with_rules: whether rules are set; otherwise they are deleted.
    """

    read: int = 0
    subjects: dict[tuple[str, str], Subject] = field(default_factory=dict)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    with_rules: bool = True


def read_source(source: Any) -> Rows:
    """
    Read rows with their lines (of a list: their positions), from 1.

    :param source: path or URL of a CSV, JSON or JSON Lines file, or an iterable of dicts.
    :raises EmqxConfigError: if it cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(source)
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise EmqxConfigError(f"source must be a path, a URL or a list of rows, not {type(source).__name__}")
    return enumerate(source, 1)


def plan(rows: Rows, with_rules: bool = True) -> AclPlan:
    """
    Check rows and gather them by subject.

    :param rows: with their lines.
    :param with_rules: whether rows must be rules; otherwise only their subjects count.
    """
    planned = AclPlan(with_rules=with_rules)
    for line, row in rows:
        planned.read += 1
        name = None
        try:
            name = _subject(row)
            _check_columns(row)
            rule = read_rule(_rule(row)) if with_rules else {}
        except EmqxConfigError as error:
            planned.rejected.append((line, error.message))
            if name is not None:
                planned.subjects.setdefault(name, Subject()).bad = True
            continue
        subject = planned.subjects.setdefault(name, Subject())
        subject.rules.append(rule)
        subject.lines.append(line)
    return planned


def provision(hook: EmqxHook, planned: AclPlan, dry_run: bool = False) -> dict[str, Any]:
    """
    Write a plan.

    :param hook: of the broker.
    :param planned: of the rows.
    :param dry_run: write nothing.
    :return: ``{"read", "written", "skipped", "rejected", "subjects", "rejected_rows"}``.
    :raises EmqxError: if the broker fails; subjects before that are done.
    """
    good = {name: subject for name, subject in planned.subjects.items() if not subject.bad}
    skipped = sum(len(subject.lines) for subject in planned.subjects.values() if subject.bad)
    rejected, written, done = list(planned.rejected), 0, 0
    operations = [] if dry_run else [_operation(hook, planned, name) for name in good]
    results = hook.run_many(operations) if operations else iter([True] * len(good))
    for subject, result in zip(good.values(), results, strict=True):
        if isinstance(result, EmqxConfigError):
            raise result
        if isinstance(result, EmqxError) and not _is_of_the_rows(result):
            raise result
        if isinstance(result, EmqxError):
            rejected += [(line, str(result)) for line in subject.lines]
        else:
            written += len(subject.lines)
            done += 1
    return {
        "read": planned.read,
        "written": written,
        "skipped": skipped,
        "rejected": len(rejected),
        "subjects": done,
        "rejected_rows": [{"line": line, "reason": reason} for line, reason in sorted(rejected)[:SHOWN]],
    }


def _is_of_the_rows(error: EmqxError) -> bool:
    from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxUnsupportedError

    return isinstance(error, (EmqxBadRequestError, EmqxUnsupportedError))


def _operation(hook: EmqxHook, planned: AclPlan, name: tuple[str, str]) -> Operation[Any]:
    auth = hook.api.auth
    if not planned.with_rules:
        return auth.delete_acl_rules(hook.broker, name)  # type: ignore[no-any-return]
    return auth.set_acl_rules(hook.broker, name, planned.subjects[name].rules)  # type: ignore[no-any-return]


def _subject(row: Any) -> tuple[str, str]:
    if not isinstance(row, Mapping):
        raise EmqxConfigError(f"a row must be an object, not {type(row).__name__}")
    named = [name for name in _SUBJECTS if row.get(name) not in (None, "")]
    everybody = _flag(row.get(_ALL, ""))
    if len(named) + everybody > 1:
        raise EmqxConfigError(
            "a rule is for a username, for a client id or for all clients, not for several of these"
        )
    if everybody:
        return read_subject("all")
    if not named:
        # an empty cell must not open the broker to everybody
        raise EmqxConfigError(
            "the row names no username and no clientid; one for all clients says so: all=true"
        )
    return read_subject({named[0]: row[named[0]]})


def _flag(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no", "none", ""):
        return False
    raise EmqxConfigError("all must be true or false")


def _check_columns(row: Mapping[Any, Any]) -> None:
    if None in row or any(value is None for value in row.values()):
        raise EmqxConfigError("the row has another number of columns than the header")
    known = (*_SUBJECTS, _ALL, *_RULE)
    unknown = [name for name in row if name not in known]
    if unknown:
        raise EmqxConfigError(f"there is no column {str(unknown[0])[:40]!r}; there are {', '.join(known)}")


def _rule(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _RULE if row.get(name) not in (None, "")}


def _read_file(source: str | os.PathLike[str]) -> Rows:
    name = str(source).lower().removesuffix(".gz")
    readers = {
        ".csv": _read_csv,
        ".json": _read_json,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
    }
    reader = readers.get(os.path.splitext(name)[1])
    if reader is None:
        raise EmqxConfigError(
            f"{source}: the name does not tell the format (.csv, .json, .jsonl, each also with .gz)"
        )
    with open_to_read(source) as raw:
        plain = gzip.GzipFile(fileobj=raw) if str(source).lower().endswith(".gz") else raw
        try:
            yield from reader(io.TextIOWrapper(plain, encoding="utf-8-sig", newline=""))
        except (ValueError, EOFError, OSError, csv.Error) as error:
            what = "is no UTF-8 text" if isinstance(error, UnicodeError) else f"cannot be read: {error}"
            raise EmqxConfigError(f"{source} {what}. Nothing was written") from None


def _read_csv(text: io.TextIOWrapper) -> Rows:
    reader = csv.DictReader(text, strict=True)
    for row in reader:
        yield reader.line_num, row


def _read_json(text: io.TextIOWrapper) -> Rows:
    rows = json.load(text)
    if not isinstance(rows, list):
        raise EmqxConfigError("the JSON document is no array")
    yield from enumerate(rows, 1)


def _read_json_lines(text: io.TextIOWrapper) -> Rows:
    for number, line in enumerate(text, 1):
        if line.strip():
            yield number, json.loads(line)

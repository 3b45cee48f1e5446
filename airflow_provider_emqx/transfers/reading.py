"""Reads rows of users from a database, block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from airflow_provider_emqx.exceptions import EmqxConfigError, EmqxError
from airflow_provider_emqx.provisioning.blocks import FIELDS, Block, Format


def read_sql(conn_id: str, sql: str, parameters: Any, how: Format, size: int) -> Iterator[Block]:
    """
    Run a query and give its rows.

    On PostgreSQL the cursor has a name, so that the database keeps the result and gives it out as it is asked for; most
    other drivers fetch the whole result at once.

    :param conn_id: connection of a database that has a common-sql hook.
    :param sql: one query.
    :param parameters: its parameters, as the database's driver wants them.
    :param how: its ``columns`` and ``ids_only`` count. Names are compared without regard to case.
    :param size: rows fetched at a time.
    :return: blocks of rows; the line of a row is its place in the result, from 1.
    :raises EmqxConfigError: if the connection is none of a database, or a column is missing.
    :raises EmqxError: if the database fails; what was read until then has been given out.
    """
    hook = _hook(conn_id)
    failure = ""
    try:
        with closing(hook.get_conn()) as connection, closing(_cursor(hook, connection)) as cursor:
            # SQLite's driver takes no None
            cursor.execute(sql) if parameters is None else cursor.execute(sql, parameters)
            rows = cursor.fetchmany(size)
            # a named cursor knows its columns after the first fetch
            header = [column[0] for column in cursor.description or ()]
            positions = _positions(header, how)
            read = 0
            while rows:
                if isinstance(rows[0], Mapping):
                    # a cursor that gives dicts
                    rows = [[row[name] for name in header] for row in rows]
                columns = tuple(
                    [None] * len(rows) if at is None else [row[at] for row in rows] for at in positions
                )
                yield Block(range(read + 1, read + len(rows) + 1), columns, [])
                read += len(rows)
                rows = cursor.fetchmany(size)
    except EmqxError:
        raise
    except Exception as error:
        # each driver has errors of its own
        failure = f"{type(error).__name__}: {_unquoted(str(error))}"
    if failure:
        # not while the driver's error is handled: it would be logged as well, with the value that it quotes
        raise EmqxError(f"reading users over the connection {conn_id!r} failed: {failure}")


def _unquoted(text: str) -> str:
    """Return the first line of a driver's error, without quoted parts, which may be a password."""
    lines = text.strip().splitlines()
    return re.sub(r"""['"`].*['"`]""", "…", " ".join(lines[:1]))[:300]


def _hook(conn_id: str) -> Any:
    from airflow.providers.common.compat.sdk import BaseHook

    try:
        from airflow.providers.common.sql.hooks.sql import DbApiHook
    except ImportError:
        raise EmqxConfigError(
            "reading from a database needs airflow-provider-emqx[sql] on the workers"
        ) from None
    connection = BaseHook.get_connection(conn_id)
    try:
        hook = connection.get_hook()
    except Exception as error:
        # an unknown type, such as "generic", or a provider that is not installed
        raise EmqxConfigError(
            f"the connection {conn_id!r} of type {connection.conn_type!r} has no hook here ({type(error).__name__}); "
            "expected a connection of a database, with its provider installed on the workers"
        ) from None
    if not isinstance(hook, DbApiHook):
        raise EmqxConfigError(f"the connection {conn_id!r} is of type {connection.conn_type!r}: no database")
    return hook


def _cursor(hook: Any, connection: Any) -> Any:
    if getattr(hook, "conn_type", "") == "postgres":
        return connection.cursor("emqx_provisioning")
    return connection.cursor()


def _positions(header: Sequence[str], how: Format) -> tuple[int | None, ...]:
    names = [name.lower() for name in header]
    wanted = {field: how.column(field).lower() for field in FIELDS}
    missing = [
        wanted[field]
        for field in FIELDS
        if wanted[field] not in names and (field in how.columns or how.needs(field, names))
    ]
    if missing:
        raise EmqxConfigError(
            f"the query gives no column {missing[0]!r}, only {', '.join(names) or 'none'}: name it with AS, or map "
            "it with columns="
        )
    twice = next((name for name in wanted.values() if names.count(name) > 1), None)
    if twice:
        raise EmqxConfigError(
            f"the query gives the column {twice!r} twice: name one of them otherwise, with AS"
        )
    return tuple(names.index(name) if name in names else None for name in wanted.values())

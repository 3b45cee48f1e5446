"""Transfers users from a database to the broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_emqx.arguments import mapping, whole
from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.hidden import HiddenField, plain
from airflow_provider_emqx.operators.auth import EmqxProvisionUsersOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_emqx.keywords import UsersKeywords
    from airflow_provider_emqx.provisioning.blocks import Format
    from airflow_provider_emqx.provisioning.sources import Source
    from airflow_provider_emqx.provisioning.target import Target


class SqlToEmqxUsersOperator(EmqxProvisionUsersOperator):
    """
    Create or update users in the broker's built-in database from a database query.

    It does what :class:`~airflow_provider_emqx.operators.auth.EmqxProvisionUsersOperator` does, with all its arguments
    but those about files. Rows are fetched as they are sent; on PostgreSQL the result stays in the database (a named
    cursor), most other drivers fetch it whole. Needs the extra ``sql`` and the provider of the database.

    :param sql: one query with the columns ``user_id`` and ``password`` (or ``password_hash`` and ``salt``), and
        ``is_superuser`` if wanted; names are compared without regard to case. Ids and passwords must be text: use
        ``CAST``; columns of type ``CHAR`` are padded with spaces: use ``TRIM``, or
        ``source_options={"strip": True}``. Templated; a name
        ending in ``.sql`` is a file.
    :param sql_conn_id: Airflow connection of the database.
    :param parameters: of the query, as the database's driver wants them.
    :param fetch_size: rows fetched at a time.
    :param columns: the query's own names, where they differ.
    :return: as of the other operator; ``line`` is a row's place in the result.
    :raises EmqxConfigError: if the query lacks a column, the connection is none of a database, or too many rows are
        rejected.
    :raises EmqxError: if database or broker fail; rows before that are done, and running again converges.
    """

    template_fields: Sequence[str] = (
        "sql",
        "sql_conn_id",
        "parameters",
        *(name for name in EmqxProvisionUsersOperator.template_fields if name not in ("source", "format")),
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **EmqxProvisionUsersOperator.template_fields_renderers,
        "sql": "sql",
    }

    # it may hold the key with which the query decrypts passwords
    parameters = HiddenField()

    def __init__(
        self,
        *,
        sql: str | XComArg,
        sql_conn_id: str | XComArg,
        parameters: Sequence[Any] | Mapping[str, Any] | XComArg | None = None,
        fetch_size: int = 1_000,
        **kwargs: Unpack[UsersKeywords],
    ) -> None:
        super().__init__(source="", **kwargs)
        self.sql: Any = sql
        self.sql_conn_id: Any = sql_conn_id
        self.parameters = parameters
        self.fetch_size = fetch_size

    def _format(self, target: Target | None = None) -> Format:
        others = sorted(set(mapping("source_options", self.source_options or None)) - {"strip"})
        if self.format or others:
            raise EmqxConfigError(
                f"{'format' if self.format else others[0]} is for files; a query takes columns, and the source option "
                "strip"
            )
        return super()._format(target)

    def _read(self, how: Format) -> Source:
        from airflow_provider_emqx.provisioning.blocks import trimmed
        from airflow_provider_emqx.provisioning.sources import Source
        from airflow_provider_emqx.transfers.reading import read_sql

        size = whole("fetch_size", self.fetch_size)
        return Source(
            trimmed(read_sql(self.sql_conn_id, self.sql, plain(self.parameters), how, size), how),
            again=lambda: self._read(how),
        )

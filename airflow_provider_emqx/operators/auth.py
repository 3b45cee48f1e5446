"""Operators for users of the built-in database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_emqx.provisioning.sources import Block


class InlineRows:
    """
    Rows that were given as a list, wrapped so that Airflow does not show them.

    Airflow stores every rendered template field in its database and shows it in its UI, passwords and all.

    :param rows: the list.
    """

    #: lets Airflow render templates in the list
    template_fields = ("rows",)

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def serialize(self) -> str:
        """Give what Airflow may store and show."""
        return f"{len(self.rows)} rows given in the DAG"

    def __repr__(self) -> str:
        return f"<{self.serialize()}>"


class EmqxProvisionUsersOperator(BaseOperator):
    """
    Make the rows of a file, or of a list, users of the broker's built-in database.

    Every row gets one outcome: ``written``, ``deleted``, ``skipped`` or ``rejected``; the sum is checked. A bad row is
    rejected with a reason, and the rows beside it are done. Running it again over the same source converges: nothing is
    lost and nothing doubled.

    Uses v5 ``POST /authentication/{id}/import_users`` on EMQX 5.7 and newer, single ``POST`` and ``PUT`` before; v4
    ``POST /auth_username`` or ``/auth_clientid`` with an array, then one ``PUT`` for each user that existed.

    :param source: path or URL of a file (whatever Airflow's ObjectStoragePath opens), or a list of dicts
        ``{"user_id", "password", "is_superuser"}``, also from XCom. XCom keeps passwords in clear in Airflow's
        database: prefer a file. A user whose row has no ``is_superuser`` is none.
    :param mode: ``"upsert"`` writes every row, new or not; ``"create"`` leaves existing users as they are
        (``skipped``); ``"delete"`` deletes the users named by ``user_id`` and needs no password. A user who appears
        between the look and the write of ``create`` is overwritten on EMQX 5.7 and newer.
    :param report: path or URL, ending in ``.jsonl`` or ``.csv``, of a file with one line per row that was skipped or
        rejected: id, line, outcome, reason. Never a password. A local file may be read by its owner only. Without it
        the first 100 rejected rows are in the log and in the returned dict.
    :param format: ``"csv"``, ``"json"`` (one array) or ``"jsonl"`` (one object per line); by default told by the
        source's suffix. Gzipped files are recognised by their content.
    :param columns: the source's own names, where they differ: ``{"user_id": "device", "password": "key"}``.
    :param delimiter: of CSV.
    :param encoding: of the file.
    :param on_rejected: ``"report"`` ends the task well with a warning; ``"fail"`` ends it as failed after the good rows
        are done. A source of which every row was rejected always fails.
    :param max_rejected: how many rejected rows are accepted before the task ends as failed, after the good rows are
        done: a count (``5``) or a share (``0.05``, ``"5%"``).
    :param dry_run: read and check everything, write nothing.
    :param user_id_type: ``"username"`` or ``"clientid"``: which users of EMQX 4 are meant. On EMQX 5 and newer the
        authenticator decides, and a value that differs from it is refused.
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: ``{"read", "written", "deleted", "skipped", "rejected", "created", "updated", "unchanged", "pruned",
        "seconds", "dry_run", "report", "rejected_rows"}``. ``created``, ``updated`` and ``unchanged`` are ``None``
        where the broker does not tell. It is pushed to XCom also when the task fails because of rejected rows or a
        source that breaks off.
    :raises EmqxConfigError: if the source cannot be read or too many rows are rejected.
    :raises EmqxError: if the broker fails; rows before that are done, and running again converges.
    """

    template_fields: Sequence[str] = (
        "source",
        "mode",
        "report",
        "format",
        "columns",
        "delimiter",
        "encoding",
        "on_rejected",
        "max_rejected",
        "dry_run",
        "user_id_type",
        "rate_limit",
        "emqx_conn_id",
    )
    ui_color = "#d5f0e3"

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | list[dict[str, Any]] | XComArg,
        mode: str = "upsert",
        report: str | os.PathLike[str] | None = None,
        format: str | None = None,
        columns: dict[str, str] | None = None,
        delimiter: str = ",",
        encoding: str = "utf-8",
        on_rejected: str = "report",
        max_rejected: float | str | None = None,
        dry_run: bool | str = False,
        user_id_type: str | None = None,
        rate_limit: float | str | None = None,
        emqx_conn_id: str = "emqx_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.mode = mode
        self.report = report
        self.format = format
        self.columns = columns
        self.delimiter = delimiter
        self.encoding = encoding
        self.on_rejected = on_rejected
        self.max_rejected = max_rejected
        self.dry_run = dry_run  # type: ignore[method-assign, assignment]
        self.user_id_type = user_id_type
        self.rate_limit = rate_limit
        self.emqx_conn_id = emqx_conn_id

    @property
    def source(self) -> Any:
        """Path, URL or rows; rows are wrapped so that Airflow does not show them."""
        # a fresh wrapper each time: rendering changes it in place, and a retry must find the templates again
        return InlineRows(self._source.rows) if isinstance(self._source, InlineRows) else self._source

    @source.setter
    def source(self, value: Any) -> None:
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        # Airflow looks into a plain list for the tasks whose results it waits for
        waits = any(XComArg.iter_xcom_references(value))
        self._source = InlineRows(value) if listed and not waits else value

    def execute(self, context: Context) -> dict[str, Any]:
        """Provision the source."""
        from airflow_provider_emqx.hooks.emqx import EmqxHook
        from airflow_provider_emqx.provisioning.task import Plan, provision

        plan = Plan(
            mode=self.mode,
            report=self.report or None,
            on_rejected=self.on_rejected,
            max_rejected=self.max_rejected,
            dry_run=boolean("dry_run", self.dry_run),
        )
        blocks = self._blocks()
        with EmqxHook(
            self.emqx_conn_id,
            user_id_type=self.user_id_type or None,
            rate_limit=number("rate_limit", self.rate_limit),
        ) as hook:
            return provision(hook, blocks, plan, lambda summary: _push(context, summary))

    def _blocks(self) -> Iterator[Block]:
        from airflow_provider_emqx.exceptions import EmqxConfigError
        from airflow_provider_emqx.provisioning.sources import Format, read_file, read_rows

        how = Format(
            name=self.format or None,
            columns=self.columns or {},
            required=("user_id",) if self.mode == "delete" else ("user_id", "password"),
            delimiter=self.delimiter,
            encoding=self.encoding,
        )
        source = self.source
        if isinstance(source, InlineRows):
            return read_rows(source.rows, how)
        if isinstance(source, str | os.PathLike) and str(source):
            return read_file(source, how)
        raise EmqxConfigError(f"source must be a path, a URL or a list of rows, not {type(source).__name__}")


def boolean(name: str, value: object) -> bool:
    """
    Read a flag, which a template gives as text.

    :param name: of the argument, for the error.
    :param value: ``True``, ``False``, or text as ``"true"`` and ``"0"``.
    """
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off", "", "none"):
        return False
    from airflow_provider_emqx.exceptions import EmqxConfigError

    raise EmqxConfigError(f"{name} must be true or false, not {value!r}")


def number(name: str, value: object) -> float | None:
    """
    Read a number above 0, which a template gives as text; empty is ``None``.

    :param name: of the argument, for the error.
    :param value: the number.
    """
    if value is None or value == "" or value == "None":
        return None
    from airflow_provider_emqx.exceptions import EmqxConfigError

    try:
        given = float(str(value))
    except ValueError:
        given = 0.0
    if not 0 < given < float("inf"):
        raise EmqxConfigError(f"{name} must be a number above 0, not {value!r}")
    return given


def _push(context: Context, summary: dict[str, Any]) -> None:
    """Store the summary of a task that fails, where the next one looks for it."""
    ti = context.get("ti")
    if ti is not None:
        ti.xcom_push(key="return_value", value=summary)

"""Base classes of the operators that act on the rows of a source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack
from urllib.parse import urlsplit

from airflow_provider_emqx.hidden import is_literal, plain
from airflow_provider_emqx.operators.affected import BaseActingOperator
from airflow_provider_emqx.operators.base import SourceField
from airflow_provider_emqx.operators.planning import BasePlanningOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.choices import OnRejected, Rendered, SourceFormat
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.keywords import PlannedActingKeywords, SourceKeywords, SourceOptions
    from airflow_provider_emqx.provisioning.blocks import Format
    from airflow_provider_emqx.provisioning.sources import Source
    from airflow_provider_emqx.provisioning.target import Target


#: keys of a result that an asset event has
_COUNTS = (
    "read",
    "written",
    "created",
    "updated",
    "unchanged",
    "skipped",
    "rejected",
    "deleted",
    "pruned",
    "subjects",
)


class BaseSourceOperator(BasePlanningOperator, BaseActingOperator):
    """
    Base class of the operators that read a source.

    :param format: ``"csv"``, ``"json"`` (an array, or one object after another), ``"jsonl"`` or ``"parquet"`` (needs
        the extra ``parquet``), by default inferred from the file extension; or an export of another broker, detected
        from its content: ``"emqx4-export"``, the JSON of EMQX 4.3 and 4.4, or ``"emqx-archive"``, the ``.tar.gz`` of
        EMQX 5 and 6 (what belongs to the connection's namespace). Files compressed with gzip, bz2, xz, or Zstandard
        (needs the extra ``parquet``) are detected from their content.
    :param columns: names of the source's columns, if they differ: ``{"user_id": "device"}``; for JSON also dotted,
        such as ``"auth.secret"``, for nested objects.
    :param source_options: further options for reading the source, a dict with any of ``delimiter``, ``quoting``,
        ``encoding``, ``rows`` and ``strip``: see :class:`~airflow_provider_emqx.keywords.SourceOptions`.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"columns": "json", "source_options": "json"}
    template_fields: Sequence[str] = (
        "source",
        "format",
        "columns",
        "source_options",
        "report_path",
        *BasePlanningOperator.template_fields,
    )

    source = SourceField()

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | XComArg | None,
        format: SourceFormat | Rendered | None = None,
        columns: dict[str, str] | str | XComArg | None = None,
        source_options: SourceOptions | str | XComArg | None = None,
        **kwargs: Unpack[PlannedActingKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.format: Any = format
        self.columns: Any = columns
        self.source_options: Any = source_options

    def _format(self, target: Target | None = None) -> Format:
        """Return the format of the source for its kind of rows."""
        raise NotImplementedError

    def _check_format(self) -> None:
        """Refuse an invalid description of the source, unless a part of it is known only when the task runs."""
        if all(is_literal(getattr(self, name)) for name in ("format", "columns", "source_options")):
            self._format()

    def _read(self, how: Format) -> Source:
        """Open the source."""
        from airflow_provider_emqx.provisioning.sources import read_source

        return read_source(plain(self.source), how)


class BaseProvisionOperator(BaseSourceOperator):
    """
    Base class of the operators that give each row of a source an outcome, and are judged by them.

    :param report_path: path or URL, ending in ``.jsonl`` or ``.csv``, of a file with one line per row that was
        skipped or rejected: id, line, outcome, reason. Never a password. Of a dry run it has every row. A local file
        may be read by its owner only. The first 100 rejected rows are also in the returned dict.
    :param on_rejected: with ``"report"`` the task succeeds with a warning; with ``"fail"`` it fails after the valid
        rows are done. It always fails if every row was rejected.
    :param max_rejected: number of rejected rows above which the task fails, after the valid rows are
        done: a count (``5``) or a share (``0.05``, ``"5%"``).
    """

    template_fields: Sequence[str] = (
        "mode",
        "on_rejected",
        "max_rejected",
        *BaseSourceOperator.template_fields,
    )

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | XComArg,
        mode: Any,
        on_rejected: OnRejected | Rendered = "report",
        max_rejected: float | str | XComArg | None = None,
        **kwargs: Unpack[SourceKeywords],
    ) -> None:
        super().__init__(source=source, **kwargs)
        self.mode = mode
        self.on_rejected: Any = on_rejected
        self.max_rejected: Any = max_rejected
        # what the run was about, once it is over
        self._assets: list[str] = []
        self._written = 0

    def _announce(
        self, context: Context, hook: EmqxHook, kind: str, scopes: Sequence[str], result: Mapping[str, Any]
    ) -> None:
        """Attach the counts of a run to the events of the task's outlets, and remember them for OpenLineage."""
        from airflow_provider_emqx.assets import announce, asset_uri

        host = urlsplit(hook.settings.origin).hostname or ""
        self._assets = [] if result["dry_run"] else [asset_uri(host, kind, scope) for scope in scopes or [""]]
        self._written = result["written"]
        counts = {name: result[name] for name in _COUNTS if result.get(name) is not None}
        announce(context, self.outlets, self._assets, {**counts, "dry_run": result["dry_run"]})

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """
        Return what OpenLineage is to know of the run: its source, and what it has changed at the broker.

        :param task_instance: not needed.
        :return: an ``OperatorLineage``, or ``None`` for a dry run.
        """
        from airflow_provider_emqx.assets import lineage

        return lineage(plain(self.source), self._assets, self._written) if self._assets else None

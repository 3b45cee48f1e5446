"""Operator for ACL rules; import it from ``airflow_provider_emqx.operators.auth``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.hidden import is_literal, plain
from airflow_provider_emqx.operators.base import BaseEmqxOperator, SourceField, keep_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.choices import AclMode, OnRejected, Rendered, SourceFormat
    from airflow_provider_emqx.keywords import EmqxOperatorKeywords, SourceOptions
    from airflow_provider_emqx.provisioning.acl import RulesFormat
    from airflow_provider_emqx.provisioning.target import Target
    from airflow_provider_emqx.results import ProvisionAclResult


class EmqxProvisionAclOperator(BaseEmqxOperator):
    """
    Set the ACL rules of users and clients from a file or a list.

    Rows of one username or client id, in their order, become all its rules; the first that matches decides. Rules of
    others stay unchanged. A subject with an invalid row stays unchanged, because a part of its rules could
    allow more than all of them; the others are done.

    Uses v5 ``PUT /authorization/sources/built_in_database/rules/users/{username}`` and so on; on EMQX 4 stale topics
    are deleted and the rules written one by one, so that for a moment only a part of them is in force.

    :param source: path or URL of a file (whatever Airflow's ObjectStoragePath opens), of a directory, or with shell
        patterns in it: then all those files are read, in the order of their names; or a list of dicts.
        Columns: ``username`` or ``clientid``, or ``all`` with ``true`` for all clients, ``topic``, ``permission``
        (``allow``, ``deny``), and optionally ``action`` (``publish``, ``subscribe``, ``all``), and on EMQX 5 ``qos``
        (as ``0,1``) and ``retain``, on 5.9 and newer what limits a rule to some clients (``username_re``,
        ``clientid_re``, ``ipaddr``, ``zone``, ``zone_re``, ``listener``, ``listener_re``). A row that says nobody is
        rejected, and so is any other column.
    :param mode: ``"set"`` replaces the rules of every subject named; ``"delete"`` deletes them, needing no rules.
    :param report_path: path or URL, ending in ``.jsonl`` or ``.csv``, of a file with one line per row that was
        skipped or rejected: id (as ``username:alice``), line, outcome, reason. Of a dry run it has every row. A local
        file may be read by its owner only. The first 100 rejected rows are also in the returned dict.
    :param format: ``"csv"``, ``"json"`` (an array, or one object after another), ``"jsonl"`` or ``"parquet"``, by
        default inferred from the file extension; or an export of another broker, detected from its content:
        ``"emqx4-export"``, the JSON of EMQX 4.3 and 4.4, or ``"emqx-archive"``, the ``.tar.gz`` of EMQX 5 and 6 (the
        rules of the connection's namespace). Files packed with gzip, bz2, xz or Zstandard are
        recognised by their content.
    :param columns: the source's own names, where they differ: ``{"clientid": "device"}``, of JSON also dotted:
        ``"device.id"``.
    :param source_options: further options for reading the source, a dict with any of ``delimiter``, ``quoting``,
        ``encoding``, ``rows`` and ``strip``: see :class:`~airflow_provider_emqx.keywords.SourceOptions`.
    :param on_rejected: ``"report"`` ends the task well with a warning, ``"fail"`` ends it as failed after the good
        subjects are done. If no row could be done, it always fails.
    :param max_rejected: how many rejected rows are accepted before the task ends as failed, after the good subjects are
        done: a count (``5``) or a share (``0.05``, ``"5%"``).
    :param dry_run: read and check everything, write nothing.
    :return: ``{"read", "written", "skipped", "rejected", "subjects", "dry_run", "report_path", "unread", "reasons",
        "guards", "rejected_rows": [{"id", "line", "outcome", "reason"}, …]}``: rows read; rows whose rules are in
        force (or deleted); rows of a subject that has a rejected one; rejected rows, the first 100 of them listed;
        subjects done; in ``unread`` the first 100 directories and files beside those of a directory that are not
        read. ``read`` is the sum of the next three. It is pushed to XCom also when the task fails.
    :raises EmqxConfigError: if the source cannot be read or rows were rejected, as ``on_rejected`` says.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"columns": "json", "source_options": "json"}
    template_fields: Sequence[str] = (
        "source",
        "mode",
        "report_path",
        "format",
        "columns",
        "source_options",
        "on_rejected",
        "max_rejected",
        "plan_only",
        *BaseEmqxOperator.template_fields,
    )

    source = SourceField()

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Iterable[dict[str, Any]] | XComArg,
        mode: AclMode | Rendered = "set",
        report_path: str | os.PathLike[str] | XComArg | None = None,
        format: SourceFormat | Rendered | None = None,
        columns: dict[str, str] | str | XComArg | None = None,
        source_options: SourceOptions | str | XComArg | None = None,
        on_rejected: OnRejected | Rendered = "report",
        max_rejected: float | str | XComArg | None = None,
        dry_run: bool | str | XComArg = False,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.mode: Any = mode
        self.report_path: Any = report_path
        self.format: Any = format
        self.columns: Any = columns
        self.source_options: Any = source_options
        self.on_rejected: Any = on_rejected
        self.max_rejected: Any = max_rejected
        self.plan_only = dry_run
        self.check_literals()

    def check_literals(self) -> None:
        """Refuse invalid arguments, except those that are known only when the task runs."""
        from airflow_provider_emqx.provisioning.acl import AclTerms

        names = ("mode", "report_path", "on_rejected", "max_rejected")
        known = {name: getattr(self, name) for name in names if is_literal(getattr(self, name))}
        AclTerms(**{**known, "report_path": known.get("report_path") or None})
        if all(is_literal(getattr(self, name)) for name in ("format", "columns", "source_options")):
            self._format()

    def _format(self, target: Target | None = None) -> RulesFormat:
        from airflow_provider_emqx.provisioning.acl import RulesFormat

        ids_only = self.mode == "delete"
        return RulesFormat.of(
            self.format, self.columns, self.source_options, ids_only=ids_only, target=target
        )

    def execute(self, context: Context) -> ProvisionAclResult:
        """Read, check, write."""
        from airflow_provider_emqx.provisioning.acl import AclTerms, provision
        from airflow_provider_emqx.provisioning.sources import read_source
        from airflow_provider_emqx.provisioning.target import Target

        terms = AclTerms(
            mode=self.mode,
            dry_run=boolean("dry_run", self.plan_only),
            report_path=self.report_path or None,
            on_rejected=self.on_rejected,
            max_rejected=self.max_rejected,
        )
        with self.hook() as hook:
            how = self._format(Target(hook))
            source = read_source(plain(self.source), how)
            return provision(hook, source, terms, lambda summary: keep_result(context, summary))

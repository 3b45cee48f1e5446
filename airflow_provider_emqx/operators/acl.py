"""Operator for ACL rules; import it from ``airflow_provider_emqx.operators.auth``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from airflow_provider_emqx.arguments import boolean
from airflow_provider_emqx.hidden import is_literal
from airflow_provider_emqx.operators.sourced import BaseProvisionOperator
from airflow_provider_emqx.plans.job import Job
from airflow_provider_emqx.results import keep_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.choices import AclMode, Rendered
    from airflow_provider_emqx.keywords import ProvisionKeywords
    from airflow_provider_emqx.provisioning.acl import RulesFormat
    from airflow_provider_emqx.provisioning.target import Target
    from airflow_provider_emqx.results import ProvisionAclResult


class EmqxProvisionAclOperator(BaseProvisionOperator):
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
    :return: ``{"read", "written", "skipped", "rejected", "subjects", "dry_run", "report_path", "plan", "unread",
        "reasons", "guards", "rejected_rows": [{"id", "line", "outcome", "reason"}, …]}``: rows read; rows whose rules
        are in force (or deleted); rows of a subject that has a rejected one; rejected rows, the first 100 of them
        listed; subjects done; in ``unread`` the first 100 directories and files beside those of a directory that are
        not read. ``read`` is the sum of the next three. It is pushed to XCom also when the task fails.
    :raises EmqxConfigError: if the source cannot be read or rows were rejected, as ``on_rejected`` says.
    """

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | XComArg,
        mode: AclMode | Rendered = "set",
        **kwargs: Unpack[ProvisionKeywords],
    ) -> None:
        super().__init__(source=source, mode=mode, **kwargs)
        self.check_literals()

    def check_literals(self) -> None:
        """Refuse invalid arguments, except those that are known only when the task runs."""
        from airflow_provider_emqx.provisioning.acl import AclTerms

        names = ("mode", "report_path", "on_rejected", "max_rejected")
        known = {name: getattr(self, name) for name in names if is_literal(getattr(self, name))}
        AclTerms(**{**known, "report_path": known.get("report_path") or None})
        self._check_format()

    def _format(self, target: Target | None = None) -> RulesFormat:
        from airflow_provider_emqx.provisioning.acl import RulesFormat

        ids_only = self.mode == "delete"
        return RulesFormat.of(
            self.format, self.columns, self.source_options, ids_only=ids_only, target=target
        )

    def dashboard_page(self) -> str:
        """Return the page of the ACL rules."""
        return "authorization/detail/built_in_database?tab=users"

    def execute(self, context: Context) -> ProvisionAclResult:
        """Read, check, write."""
        from airflow_provider_emqx.provisioning.acl import AclTerms, provision
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
            source = self._read(how)
            options = {**terms.options(), **how.options()}
            job = Job(self.asked(), hook, "acl_rules", options, source.names())
            result = provision(hook, source, terms, lambda summary: keep_result(context, summary), job)
            self._announce(context, hook, "acl", [], result)
        return result

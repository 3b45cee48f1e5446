"""Operator for ACL rules; import it from ``airflow_provider_emqx.operators.auth``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.exceptions import EmqxConfigError
from airflow_provider_emqx.operators.base import BaseEmqxOperator, boolean, keep_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class EmqxProvisionAclOperator(BaseEmqxOperator):
    """
    Make the rows of a file, or of a list, the ACL rules of users and clients.

    Rows of one username or client id, in their order, become all its rules; the first that matches decides. Rules of
    others are left alone. A subject with a row that cannot be right is left as it is, because a part of its rules could
    allow more than all of them; the others are done.

    Uses v5 ``PUT /authorization/sources/built_in_database/rules/users/{username}`` and so on; on EMQX 4 stale topics
    are deleted and the rules written one by one, so that for a moment only a part of them is in force.

    :param source: path or URL of a ``.csv``, ``.json`` (one array) or ``.jsonl`` file, each also gzipped (``.gz``), or
        a list of dicts (templated). Columns: ``username`` or ``clientid``, or ``all`` with ``true`` for all clients,
        ``topic``, ``permission`` (``allow``, ``deny``), and optionally ``action`` (``publish``, ``subscribe``,
        ``all``), and on EMQX 5 ``qos`` (as ``0,1``) and ``retain``. A row that says nobody is rejected.
    :param mode: ``"set"`` replaces the rules of every subject named; ``"delete"`` deletes them, needing no rules
        (templated).
    :param on_rejected: ``"report"`` ends the task well with a warning, ``"fail"`` ends it as failed after the good
        subjects are done (templated). If every row was rejected, it always fails.
    :param dry_run: read and check everything, write nothing (templated).
    :param rate_limit: requests per second at most, in place of the connection's.
    :param emqx_conn_id: the Airflow connection.
    :return: ``{"read", "written", "skipped", "rejected", "subjects", "dry_run", "rejected_rows": [{"line", "reason"},
        …]}``: rows read; rows whose rules are in force (or deleted); rows of a subject that has a rejected one;
        rejected rows, the first 100 of them listed; subjects done. ``read`` is the sum of the next three.
    :raises EmqxConfigError: if the source cannot be read or rows were rejected, as ``on_rejected`` says.
    """

    template_fields: Sequence[str] = (
        "source",
        "mode",
        "on_rejected",
        "dry_run",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Iterable[dict[str, Any]] | XComArg,
        mode: str = "set",
        on_rejected: str = "report",
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.mode = mode
        self.on_rejected = on_rejected
        self.dry_run = dry_run  # type: ignore[method-assign, assignment]

    def execute(self, context: Context) -> dict[str, Any]:
        """Read, check, write."""
        from airflow_provider_emqx.provisioning.acl import plan, provision, read_source

        if self.mode not in ("set", "delete"):
            raise EmqxConfigError(f"mode must be 'set' or 'delete', not {self.mode!r}")
        if self.on_rejected not in ("report", "fail"):
            raise EmqxConfigError(f"on_rejected must be 'report' or 'fail', not {self.on_rejected!r}")
        dry_run = boolean("dry_run", self.dry_run)
        planned = plan(read_source(self.source), with_rules=self.mode == "set")
        with self.hook() as hook:
            summary = {**provision(hook, planned, dry_run), "dry_run": dry_run}
        self.log.info(
            "%s rows read: %s written, %s skipped, %s rejected; %s subjects",
            *(f"{summary[name]:,}" for name in ("read", "written", "skipped", "rejected", "subjects")),
        )
        if summary["rejected"]:
            for row in summary["rejected_rows"]:
                self.log.warning("Rejected: line %s: %s", row["line"], row["reason"])
            if self.on_rejected == "fail" or not summary["written"]:
                keep_result(context, summary)
                raise EmqxConfigError(f"{summary['rejected']:,} of {summary['read']:,} rows were rejected")
        return summary

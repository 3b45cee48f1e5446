"""Base class of the operators that write plans and carry them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_emqx.hidden import is_literal
from airflow_provider_emqx.operators.base import BaseEmqxOperator
from airflow_provider_emqx.plans.job import Asked, Job

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_emqx.hooks.emqx import EmqxHook

#: template fields that do not decide what is done: where the report is, and what is compared by its content
_NO_OPTIONS = ("report_path", "source", "backup_path")


class BasePlanningOperator(BaseEmqxOperator):
    """
    Base class of the operators that can say what they would do, and do exactly that.

    :param dry_run: read and check everything, change nothing. The result and the report are those that a run would
        have.
    :param plan_path: path or URL of a plan: a JSON Lines file with every change by kind and id, never a secret; packed
        if its name ends in ``.gz``. With ``dry_run`` it is written, readable by its owner only if it is local. Without,
        exactly this plan is carried out: if source, broker or options have changed in what it depends on, the task
        fails before the first change and says what and how many. How far it has come is written to the same path with
        ``.progress`` after it, so that a retry goes on with the same plan.
    :param plan_max_age: seconds, or a ``timedelta``, after which the plan is no longer carried out.
    """

    template_fields: Sequence[str] = (
        "plan_only",
        "plan_path",
        "plan_max_age",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        dry_run: bool | str | XComArg = False,
        plan_path: str | os.PathLike[str] | XComArg | None = None,
        plan_max_age: float | str | timedelta | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # BaseOperator has a method dry_run()
        self.plan_only = dry_run
        self.plan_path: Any = plan_path
        self.plan_max_age = plan_max_age
        if all(map(is_literal, (dry_run, plan_path, plan_max_age))):
            self.asked()

    def asked(self) -> Asked:
        """
        Return what is to be done with a plan.

        :raises EmqxConfigError: for invalid arguments.
        """
        return Asked.of(self.plan_path, self.plan_only, self.plan_max_age)

    def job(self, hook: EmqxHook, name: str, sources: Sequence[str] = (), **more: Any) -> Job:
        """
        Return the job; use it in a ``with`` statement. Its options are the operator's arguments.

        :param name: of the job, as ``"kick"``.
        :param sources: names of the files that it reads.
        :param more: what decides besides what it does.
        """
        names = set(self.template_fields).difference(BasePlanningOperator.template_fields, _NO_OPTIONS)
        options = {name: getattr(self, name) for name in sorted(names)}
        return Job(self.asked(), hook, name, {**options, **more}, sources)

"""
The arguments that operators and sensors hand on, for type checkers: a misspelt one is an error there.

Of Airflow's own all that any supported version takes are here; one that the installed Airflow lacks it refuses itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, MutableMapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, TaskGroup, XComArg

    from airflow_provider_emqx.choices import (
        Bulk,
        Comparison,
        OnRejected,
        Quoting,
        Rendered,
        SourceFormat,
        UserIdType,
        UsersMode,
    )

Callback = Callable[[Any], None]
Callbacks = Callback | list[Any] | Collection[Any] | None


class OperatorKeywords(TypedDict, total=False):
    """Arguments of every operator of Airflow."""

    task_id: Required[str]
    owner: str
    email: str | Sequence[str] | None
    email_on_retry: bool
    email_on_failure: bool
    retries: int | None
    retry_delay: timedelta | float
    retry_exponential_backoff: bool | float
    max_retry_delay: timedelta | float | None
    retry_policy: Any  #: Airflow 3.3 and newer
    start_date: datetime | None
    end_date: datetime | None
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    dag: DAG | None
    params: MutableMapping[str, Any] | None
    default_args: dict[str, Any] | None
    priority_weight: int
    weight_rule: Any
    queue: str
    pool: str | None
    pool_slots: int
    sla: timedelta | None
    execution_timeout: timedelta | None
    on_execute_callback: Callbacks
    on_failure_callback: Any
    on_success_callback: Callbacks
    on_retry_callback: Any
    on_skipped_callback: Callbacks
    pre_execute: Callback | None
    post_execute: Callable[[Any, Any], None] | None
    trigger_rule: str
    resources: dict[str, Any] | None
    run_as_user: str | None
    task_concurrency: int | None  #: Airflow 2 only
    map_index_template: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    executor: str | None
    executor_config: dict[str, Any] | None
    do_xcom_push: bool
    multiple_outputs: bool
    inlets: Any
    outlets: Any
    task_group: TaskGroup | None
    doc: str | None
    doc_md: str | None
    doc_json: str | None
    doc_yaml: str | None
    doc_rst: str | None
    task_display_name: str | None
    logger_name: str | None
    allow_nested_operators: bool
    render_template_as_native_obj: bool | None  #: Airflow 3 only


class SensorKeywords(OperatorKeywords, total=False):
    """Arguments of every sensor of Airflow."""

    poke_interval: timedelta | float
    timeout: timedelta | float
    soft_fail: bool
    mode: Literal["poke", "reschedule"]
    exponential_backoff: bool
    max_wait: timedelta | float | None
    silent_fail: bool
    never_fail: bool


class EmqxOperatorKeywords(OperatorKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.operators.base.BaseEmqxOperator`."""

    emqx_conn_id: str | XComArg
    rate_limit: float | str | XComArg | None


class ActingKeywords(EmqxOperatorKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.operators.affected.BaseActingOperator`."""

    report_path: str | os.PathLike[str] | XComArg | None


class PlanningKeywords(EmqxOperatorKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.operators.planning.BasePlanningOperator`."""

    dry_run: bool | str | XComArg
    plan_path: str | os.PathLike[str] | XComArg | None
    plan_max_age: float | str | timedelta | XComArg | None


class PlannedActingKeywords(ActingKeywords, PlanningKeywords, total=False):
    """Arguments of operators that act on many objects, as a plan may say."""


class SelectingKeywords(PlannedActingKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.operators.affected.BaseSelectingOperator`."""

    exclude: str | Sequence[str] | XComArg | None
    max_affected: float | str | XComArg | None


class EmqxSensorKeywords(SensorKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.sensors.base.BaseEmqxSensor`."""

    emqx_conn_id: str | XComArg
    max_failures: int
    deferrable: bool | None


class ThresholdKeywords(EmqxSensorKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.sensors.base.BaseThresholdSensor` besides the metric."""

    threshold: Required[float | str | XComArg]
    comparison: Comparison | Rendered
    baseline: float | str | XComArg | None


class ClientsKeywords(EmqxSensorKeywords, total=False):
    """Arguments of the sensors that wait for clients."""

    clientids: str | Sequence[str] | ObjectStoragePath | XComArg | None
    clientids_path: str | XComArg | None
    quorum: str | int | XComArg
    missing_path: str | XComArg | None


class SourceOptions(TypedDict, total=False):
    """
    Options that say how to read a source, besides its format and the names of its columns.

    :param delimiter: of CSV, one character. Default: ``","``.
    :param quoting: of CSV: ``"standard"``, where a field in ``"`` may hold delimiters and line breaks, or ``"none"``,
        for writers that do not quote: ``"`` is an ordinary character. Default: ``"standard"``.
    :param encoding: of text; a byte order mark is accepted in UTF-8. Default: ``"utf-8"``.
    :param rows: of JSON: dotted name of the array in an object, as ``"data.items"``.
    :param strip: ``True`` takes white space off around all texts, ``False`` keeps it. By default rows with white space
        around a name or a password are rejected, since nobody can tell which is meant.
    """

    delimiter: str
    quoting: Quoting
    encoding: str
    rows: str
    strip: bool | str | None


class QueryKeywords(PlannedActingKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.operators.sourced.BaseSourceOperator` that are not about files."""

    columns: dict[str, str] | str | XComArg | None
    source_options: SourceOptions | str | XComArg | None


class SourceKeywords(QueryKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.operators.sourced.BaseSourceOperator` besides the source."""

    format: SourceFormat | Rendered | None


class ProvisionKeywords(SourceKeywords, total=False):
    """Arguments of :class:`~airflow_provider_emqx.operators.sourced.BaseProvisionOperator` besides source and mode."""

    on_rejected: OnRejected | Rendered
    max_rejected: float | str | XComArg | None


class UsersKeywords(QueryKeywords, total=False):
    """Arguments of the operators that provision users, besides the source and its format."""

    mode: UsersMode | Rendered
    on_rejected: OnRejected | Rendered
    max_rejected: float | str | XComArg | None
    scope: str | list[str] | XComArg | None
    protect: str | list[str] | XComArg | None
    max_deletes: float | str | XComArg | None
    hash_passwords: bool | str | XComArg
    pepper_conn_id: str | XComArg | None
    state_path: str | os.PathLike[str] | XComArg | None
    shard: tuple[int, int] | list[int] | str | XComArg | None
    acl_rules: list[dict[str, Any]] | XComArg | None
    bulk: Bulk | Rendered | None
    user_id_type: UserIdType | Rendered | None

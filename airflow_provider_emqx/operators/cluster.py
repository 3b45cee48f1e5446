"""Operators for the cluster: backups, alarms, metrics, the rule engine, evacuation, and any other request."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Unpack, cast, get_args
from urllib.parse import urlencode

from airflow.providers.common.compat.sdk import TaskDeferred, conf

from airflow_provider_emqx.arguments import (
    boolean,
    choice,
    mapping,
    optional,
    positive,
    span,
    texts,
    whole,
)
from airflow_provider_emqx.choices import RuleKind, RuleState, Section
from airflow_provider_emqx.conditions.cluster import NodeEvacuated
from airflow_provider_emqx.exceptions import EmqxBadRequestError, EmqxConfigError, EmqxError, EmqxTimeoutError
from airflow_provider_emqx.files import shown
from airflow_provider_emqx.hidden import HiddenField, plain
from airflow_provider_emqx.operators.base import (
    BaseEmqxOperator,
    told_on_failure,
)
from airflow_provider_emqx.operators.planning import BasePlanningOperator
from airflow_provider_emqx.plans.file import DELETE, DELETE_ON_BROKER, IMPORT

if TYPE_CHECKING:
    import os

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_emqx.api.rows import BackupRow
    from airflow_provider_emqx.choices import Method, Rendered, RuleKind, RuleState, Section
    from airflow_provider_emqx.conditions.base import Outcome
    from airflow_provider_emqx.hooks.emqx import EmqxHook
    from airflow_provider_emqx.keywords import EmqxOperatorKeywords, PlanningKeywords
    from airflow_provider_emqx.operators.backup_store import Store
    from airflow_provider_emqx.plans.job import Job
    from airflow_provider_emqx.results import (
        BackupResult,
        ClearAlarmsResult,
        EvacuateNodeResult,
        MetricsSnapshot,
        RestoreResult,
        RuleStateResult,
    )


class EmqxBackupOperator(BasePlanningOperator):
    """
    Take a backup of the broker's configuration and built-in databases into a directory or an object store.

    v5 (EMQX 5.4 and newer) ``POST /data/export``, ``GET /data/files/{filename}``; v4 ``POST /data/export``,
    ``GET /data/file/{filename}``. The file is checked (its size, and that it is a complete archive or document),
    written and read again, before any older one is deleted. If it cannot be stored, it is deleted again from the
    broker's disk. On EMQX 4 a file that is listed already is read first, since some builds do not find their files.

    A backup holds password hashes and, as the configuration does, secrets in clear: the place must be safe. A local
    file is for its owner only.

    :param backup_dir: directory: path or URL that Airflow's ObjectStoragePath knows, as
        ``s3://aws_default@bucket/emqx``. One directory per broker: ``keep`` counts what lies in it.
    :param table_sets: of EMQX 5 and newer: which tables, as ``["builtin_authn", "builtin_authz", "banned"]``;
        ``None`` for all, ``[]`` for none.
    :param root_keys: of EMQX 5 and newer: which parts of the configuration, as ``["authentication",
        "rule_engine"]``; ``None`` for all, ``[]`` for none.
    :param keep: how many backups stay in the directory, the newest ones; ``None`` for all.
    :param keep_on_broker: how many backups stay on the broker's disks, the newest ones; ``None`` for all.
    :return: ``{"backup_path", "filename", "node", "size", "sha256", "deleted": [path, …], "deleted_on_broker":
        [filename, …], "dry_run", "plan"}``. A dry run takes no backup, and returns what would be deleted.
    :raises EmqxError: if what was downloaded is not what the broker exported, or the broker does not find what it
        exported; no older backup is deleted.
    """

    template_fields: Sequence[str] = (
        "backup_dir",
        "table_sets",
        "root_keys",
        "keep",
        "keep_on_broker",
        *BasePlanningOperator.template_fields,
    )

    def __init__(
        self,
        *,
        backup_dir: str | os.PathLike[str] | XComArg,
        table_sets: Sequence[str] | str | XComArg | None = None,
        root_keys: Sequence[str] | str | XComArg | None = None,
        keep: int | str | XComArg | None = None,
        keep_on_broker: int | str | XComArg | None = None,
        **kwargs: Unpack[PlanningKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.backup_dir: Any = backup_dir
        self.table_sets = table_sets
        self.root_keys = root_keys
        self.keep = keep
        self.keep_on_broker = keep_on_broker
        self.check_literals()

    def check(self) -> None:
        """Refuse a missing directory and invalid counts."""
        if not str(self.backup_dir):
            raise EmqxConfigError(
                "backup_dir is empty; give a directory or a URL as s3://aws_default@bucket/emqx"
            )
        optional(whole, "keep", self.keep)
        optional(whole, "keep_on_broker", self.keep_on_broker)
        self._parts()

    def execute(self, context: Context) -> BackupResult:
        """Export, download, check and write a backup, and delete old ones."""
        from airflow_provider_emqx.operators.backup_store import Store, take

        self.check()
        keep, keep_on_broker = (
            optional(whole, "keep", self.keep),
            optional(whole, "keep_on_broker", self.keep_on_broker),
        )
        store = Store(self.backup_dir)
        dry_run = boolean("dry_run", self.plan_only)
        result: BackupResult = {
            "backup_path": None,
            "filename": None,
            "node": None,
            "size": None,
            "sha256": None,
            "deleted": [],
            "deleted_on_broker": [],
            "dry_run": dry_run,
            "plan": None,
        }
        with (
            self.hook() as hook,
            told_on_failure(context, lambda: result if result["filename"] else None),
            self.job(hook, "backup") as job,
        ):
            if job.is_finished:
                return {**result, "plan": job.result()}
            old, rows = self._old(hook, job, store, keep, keep_on_broker)
            job.add((DELETE, name, "") for name in old)
            job.add((DELETE_ON_BROKER, name, "") for name in rows)
            job.settle({"keep": keep, "keep_on_broker": keep_on_broker})
            if dry_run:
                result["deleted"], result["deleted_on_broker"] = (
                    old,
                    [row["filename"] for row in rows.values()],
                )
            else:
                # from here on there is one more, so that a retry finds others to be too many
                job.begin(DELETE, old)
                job.begin(DELETE_ON_BROKER, rows)
                written = take(hook, store, *self._parts())
                self.log.info("Wrote %s, %d bytes", written["backup_path"], written["size"])
                result = {**result, **written}
                self._prune(hook, job, store, old, rows, result)
                job.finish()
            result["plan"] = job.result()
            return result

    @staticmethod
    def _old(
        hook: EmqxHook, job: Job, store: Store, keep: int | None, keep_on_broker: int | None
    ) -> tuple[list[str], dict[str, BackupRow]]:
        """Return which backups are too many once another one is made: there, and on the broker by their ids."""
        listed = [] if keep_on_broker is None else list(hook.list_backups())
        listed.sort(key=lambda row: (row["created_at"] or "", row["filename"]))
        rows = {f"{row['node']}/{row['filename']}": row for row in listed}
        old = store.old(keep)
        if job.account is not None and job.account.before.begun:
            # an earlier attempt may have made some
            names = store.old(1) if keep is not None else []
            return (
                [name for name in names if job.account.kind(name)],
                {name: row for name, row in rows.items() if job.account.kind(name, DELETE_ON_BROKER)},
            )
        too_many = max(0, len(rows) - (keep_on_broker or 0) + 1)
        return old, dict(list(rows.items())[:too_many])

    def _prune(
        self,
        hook: EmqxHook,
        job: Job,
        store: Store,
        old: list[str],
        rows: dict[str, BackupRow],
        result: BackupResult,
    ) -> None:
        deleted, on_broker = result["deleted"], result["deleted_on_broker"]
        try:
            for name in old:
                if name != result["filename"]:
                    deleted.append(store.delete(name))
                job.check_off(DELETE, [name])
            for name, row in rows.items():
                if hook.delete_backup(row["filename"], row["node"]):
                    on_broker.append(row["filename"])
                job.check_off(DELETE_ON_BROKER, [name])
        finally:
            self.log.info("Older backups deleted: %d there, %d on the broker", len(deleted), len(on_broker))

    def _parts(self) -> tuple[list[str] | None, list[str] | None]:
        tables = None if self.table_sets is None else texts("table_sets", self.table_sets)
        keys = None if self.root_keys is None else texts("root_keys", self.root_keys)
        return tables, keys


class EmqxRestoreOperator(BasePlanningOperator):
    """
    Import a backup into the same broker or another one.

    The operator reads the whole file first, because EMQX imports incomplete tables without an error, and logs and
    returns what the file contains. Then it uploads the file under a unique name, imports it, and deletes it from the
    broker's disk, also if the import fails.

    v5 (EMQX 5.4 and newer) ``POST /data/files``, ``POST /data/import``, ``DELETE /data/files/{filename}``; v4
    ``POST /data/file``, ``POST /data/import``, ``DELETE /data/file/{filename}``.

    An import overwrites what the backup contains and keeps everything else. EMQX accepts archives of its own and of
    older versions; the open source edition does not accept archives of EMQX Enterprise. Archives with dashboard users
    or API keys cannot be imported with an API key.

    :param backup_path: path or URL of the backup (whatever Airflow's ObjectStoragePath opens): the ``.tar.gz`` of EMQX
        5 and 6, or the JSON of EMQX 4. The file is read into memory.
    :return: ``{"backup_path", "version", "edition", "tables": {name: records}, "configuration", "files", "node",
        "dry_run", "plan"}``.
    :raises EmqxConfigError: if the file is not a backup, is incomplete or damaged; nothing is sent.
    :raises EmqxBadRequestError: if the broker refuses the backup or a part of it; other parts may be in force.
    :raises EmqxOutcomeUnknownError: if the broker's response was lost and the import could not be repeated.
    """

    template_fields: Sequence[str] = ("backup_path", *BasePlanningOperator.template_fields)

    def __init__(
        self,
        *,
        backup_path: str | os.PathLike[str] | XComArg,
        **kwargs: Unpack[PlanningKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.backup_path: Any = backup_path
        self.check_literals()

    def check(self) -> None:
        """Refuse no file."""
        if not str(self.backup_path):
            raise EmqxConfigError("backup_path is empty; give the path or URL of a backup")

    def execute(self, context: Context) -> RestoreResult:
        """Check, upload, import, delete."""
        from airflow_provider_emqx.operators.restoring import look, restore
        from airflow_provider_emqx.provisioning.same import told

        self.check()
        dry_run = boolean("dry_run", self.plan_only)
        content, contents = look(self.backup_path)
        names = [name for name, count in contents["tables"].items() if count]
        names += ["configuration"] if contents["configuration"] else []
        node, plan = None, None
        if self.plan_path is not None or not dry_run:
            digest = hashlib.sha256(content).digest()
            with (
                self.hook() as hook,
                self.job(hook, "restore", [shown(self.backup_path)], version=str(hook.broker)) as job,
            ):
                if not job.is_finished:
                    job.add((IMPORT, name, "") for name in names)
                    job.settle({"contents": contents}, partial(told, digest))
                    if not dry_run:
                        job.begin(IMPORT, names)
                        node = restore(hook, content)
                        job.check_off(IMPORT, names)
                        job.finish()
            plan = job.result()
        self.log.info("%s", f"Imported on node {node}" if node else "Nothing was imported")
        return {
            "backup_path": str(self.backup_path),
            **contents,
            "node": node,
            "dry_run": dry_run,
            "plan": plan,
        }


class EmqxClearAlarmsOperator(BaseEmqxOperator):
    """
    Deactivate active alarms, and delete the history of past ones.

    v5 ``POST /alarms/force_deactivate`` (EMQX 5.8.8 and newer), ``DELETE /alarms``; v4 ``POST`` and
    ``DELETE /alarms/deactivated``.

    :param deactivate: names of active alarms to end, ``"*"`` for all. An alarm whose cause persists comes
        back.
    :param history: delete the history.
    :return: ``{"deactivated": [name, …], "not_active": [name, …], "active": [name, …], "history_cleared"}``; ``active``
        are those that are active afterwards.
    """

    template_fields: Sequence[str] = ("deactivate", "history", *BaseEmqxOperator.template_fields)

    def __init__(
        self,
        *,
        deactivate: str | Sequence[str] | XComArg | None = None,
        history: bool | str | XComArg = True,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.deactivate = deactivate
        self.history = history
        self.check_literals()

    def check(self) -> None:
        """Refuse names other than text, and flags that are neither true nor false."""
        optional(texts, "deactivate", self.deactivate)
        boolean("history", self.history)

    def execute(self, context: Context) -> ClearAlarmsResult:
        """End alarms, then delete the history."""
        names = optional(texts, "deactivate", self.deactivate) or []
        clear = boolean("history", self.history)
        result: ClearAlarmsResult = {
            "deactivated": [],
            "not_active": [],
            "active": [],
            "history_cleared": False,
        }
        with self.hook() as hook, told_on_failure(context, lambda: result):
            if names == ["*"]:
                names = sorted({row["name"] for row in hook.list_alarms()})
            for name in names:
                result["deactivated" if hook.deactivate_alarm(name) else "not_active"].append(name)
            if clear:
                hook.clear_alarms()
                result["history_cleared"] = True
            result["active"] = sorted({row["name"] for row in hook.list_alarms()})
        self.log.info(
            "Alarms ended: %s; history %s; active now: %s",
            ", ".join(result["deactivated"]) or "none",
            "deleted" if clear else "kept",
            ", ".join(result["active"]) or "none",
        )
        return result


class EmqxMetricsSnapshotOperator(BaseEmqxOperator):
    """
    Read the broker's figures, and append them with the time to a file, so that a DAG builds a history.

    v4 and v5 ``GET /stats``, ``GET /metrics``; v5 ``GET /monitor_current``, ``GET /mqtt/topic_metrics``; v4
    ``GET /topic-metrics``.

    :param sections: which figures: any of ``"stats"``, ``"metrics"``, ``"rates"`` (EMQX 5), ``"topic_metrics"``.
    :param metrics: only these figures, written as they come out: ``stats.live_connections.count``,
        ``metrics.messages.received``, ``rates.received_msg_rate``, ``topic_metrics.<topic>.messages.in.count``. One
        that the broker does not have is ``None``.
    :param output_path: path or URL of a ``.jsonl`` or ``.csv`` file to append to; ``None`` for none. One
        writer at a time. An object store cannot append: there the file is read and written again.
    :param node: of one node; ``None`` for the whole cluster; not for ``topic_metrics``.
    :return: ``{"time": …, figure: value, …}``.
    """

    template_fields: Sequence[str] = (
        "sections",
        "metrics",
        "output_path",
        "node",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        sections: Section | Sequence[Section] | Rendered = ("stats", "metrics"),
        metrics: str | Sequence[str] | XComArg | None = None,
        output_path: str | os.PathLike[str] | XComArg | None = None,
        node: str | XComArg | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.sections = sections
        self.metrics = metrics
        self.output_path: Any = output_path
        self.node: Any = node
        self.check_literals()

    def check(self) -> None:
        """Refuse sections that no broker has, and a file of another form."""
        from airflow_provider_emqx.row_files import form_of

        sections = texts("sections", self.sections)
        known = get_args(Section)
        unknown = [section for section in sections if section not in known]
        if unknown or not sections:
            raise EmqxConfigError(f"sections must be any of {', '.join(known)}, not {unknown or sections!r}")
        optional(texts, "metrics", self.metrics)
        if self.output_path:
            form_of("output_path", self.output_path)

    def execute(self, context: Context) -> MetricsSnapshot:
        """Read, append."""
        from airflow_provider_emqx.row_files import append_figures

        self.check()
        sections = texts("sections", self.sections)
        metrics = optional(texts, "metrics", self.metrics) or []
        row: MetricsSnapshot = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        with self.hook() as hook:
            for section in sections:
                row.update(self._figures(hook, section))
        if absent := [name for name in metrics if name not in row]:
            self.log.warning("Metrics unknown to the broker: %s", ", ".join(absent))
        if metrics:
            row = {"time": row["time"], **{name: row.get(name) for name in metrics}}
        if self.output_path:
            append_figures(self.output_path, row)
        place = f"appended to {self.output_path}" if self.output_path else "read"
        self.log.info("%d figures %s", len(row) - 1, place)
        return row

    def _figures(self, hook: EmqxHook, section: str) -> dict[str, Any]:
        if section == "topic_metrics":
            return {
                f"topic_metrics.{topic['topic']}.{name}": value
                for topic in hook.list_topic_metrics()
                for name, value in topic["metrics"].items()
            }
        figures = getattr(hook, f"get_{section}")(self.node or None)
        return {f"{section}.{name}": value for name, value in figures.items() if name != "node"}


class EmqxSetRuleStateOperator(BaseEmqxOperator):
    """
    Enable, disable or restart rules of the rule engine, actions, sources or connectors.

    v4 and v5 ``PUT /rules/{id}``; EMQX 5.4 and newer ``PUT /actions/{id}/enable/{true|false}``,
    ``POST /actions/{id}/start``, the same for sources and connectors; v4 ``POST /resources/{id}`` (restart only).

    :param names: id of one or several: rules as ``my_rule``, all others as ``http:my_hook``.
    :param state: ``"enabled"``, ``"disabled"``, or ``"restarted"``: connected anew, not for rules.
    :param kind: ``"rule"``, ``"action"``, ``"source"`` or ``"connector"``.
    :return: per id ``{"enable", "status"}`` as the broker has it afterwards.
    :raises EmqxNotFoundError: if one is not there; those before it are done.
    :raises EmqxError: if one is not in the state afterwards.
    """

    template_fields: Sequence[str] = ("names", "state", "kind", *BaseEmqxOperator.template_fields)

    def __init__(
        self,
        *,
        names: str | Sequence[str] | XComArg,
        state: RuleState | Rendered = "enabled",
        kind: RuleKind | Rendered = "rule",
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.names = names
        self.state = state
        self.kind: Any = kind
        self.check_literals()

    def check(self) -> None:
        """Refuse an unknown state, and one that the kind does not support."""
        choice("state", self.state, get_args(RuleState))
        choice("kind", self.kind, get_args(RuleKind))
        if self.kind == "rule" and self.state == "restarted":
            raise EmqxConfigError("a rule cannot be restarted; restart its action or connector")

    def dashboard_page(self) -> str:
        """Return the page of the rules, filtered by the id of a single one."""
        return _rules_page(self.names) if self.kind == "rule" else ""

    def execute(self, context: Context) -> dict[str, RuleStateResult]:
        """Set the state, then look."""
        from airflow_provider_emqx.api.base import path

        self.check()
        names = texts("names", self.names)
        for name in names:
            path(name)
        found: dict[str, RuleStateResult] = {}
        with self.hook() as hook, told_on_failure(context, lambda: found):
            for name in names:
                found[name] = self._set(hook, name)
        return found

    def _set(self, hook: EmqxHook, name: str) -> RuleStateResult:
        wanted = self.state == "enabled"
        if self.kind == "rule":
            found = hook.set_rule_enabled(name, wanted)
        elif self.state == "restarted":
            hook.restart_integration(self.kind, name)
            found = hook.get_integration(self.kind, name) or {}
        else:
            hook.set_integration_enabled(self.kind, name, wanted)
            found = hook.get_integration(self.kind, name) or {}
        if self.state != "restarted" and found.get("enable") is not wanted:
            raise EmqxError(
                f"{self.kind} {name!r} is not {self.state} afterwards: another program changed it"
            )
        self.log.info("%s %r: %s, status %s", self.kind, name, self.state, found.get("status"))
        return {"enable": found.get("enable"), "status": found.get("status")}


class EmqxEvacuateNodeOperator(BaseEmqxOperator):
    """
    Move all clients and sessions away from a node, as before its upgrade, and wait until it is empty.

    ``POST /load_rebalance/{node}/evacuation/start``, ``GET /load_rebalance/global_status``; EMQX Enterprise, and EMQX
    5.9 and newer. The node takes no clients until it is restarted or the evacuation is stopped. If the task fails,
    times out or is stopped in Airflow, the evacuation is stopped; a worker that dies cannot do that, and a deferred
    task that is marked failed or cleared has no worker. A retry waits for the evacuation that is under way.

    :param node: the node, as ``emqx@10.0.0.1``.
    :param settings: any of ``conn_evict_rate``, ``sess_evict_rate`` (per second), ``wait_takeover``,
        ``wait_health_check`` (as ``"60s"``; EMQX 5 and newer), ``redirect_to``, ``migrate_to`` (list of nodes).
    :param poll_interval: seconds between two checks.
    :param timeout: seconds, or a ``timedelta``, after which it is given up.
    :param stop_when_empty: stop the evacuation at the end, so that clients may come back.
    :param deferrable: wait in the triggerer, without a worker slot. Default: ``[operators] default_deferrable``.
    :return: ``{"node", "state", "connected", "sessions", "seconds", "stopped"}``: what was left in the last check, the
        same as of :class:`~airflow_provider_emqx.sensors.cluster.EmqxNodeEvacuatedSensor`.
    :raises EmqxTimeoutError: if the node is not empty in time; the evacuation is stopped.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {"settings": "json"}
    template_fields: Sequence[str] = (
        "node",
        "settings",
        "poll_interval",
        "timeout",
        "stop_when_empty",
        *BaseEmqxOperator.template_fields,
    )

    def __init__(
        self,
        *,
        node: str | XComArg,
        settings: Mapping[str, Any] | str | XComArg | None = None,
        poll_interval: float | str | XComArg = 10.0,
        timeout: float | str | timedelta | XComArg = 3_600.0,
        stop_when_empty: bool | str | XComArg = False,
        deferrable: bool | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.node: Any = node
        self.settings = settings
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.stop_when_empty = stop_when_empty
        self._started = False
        self.check_literals()

    def check(self) -> None:
        """Refuse invalid names of nodes, unknown settings and invalid times."""
        from airflow_provider_emqx.api.base import path
        from airflow_provider_emqx.api.rebalance import EVACUATION, options

        path(self.node)
        options(mapping("settings", self.settings), EVACUATION)
        positive("poll_interval", self.poll_interval)
        span("timeout", self.timeout)
        boolean("stop_when_empty", self.stop_when_empty)

    def execute(self, context: Context) -> EvacuateNodeResult:
        """Start, wait, and stop the evacuation after a failure."""
        self.check()
        limit = span("timeout", self.timeout)
        begun = time.time()
        with self.hook() as hook:
            self._start(hook)
            try:
                outcome = self._look(hook)
                if not outcome.met and self.deferrable:
                    self._defer(begun, limit)
                while not outcome.met:
                    if time.time() - begun >= limit:
                        raise self._too_long(limit, outcome.text)
                    hook.stopping.sleep(min(self._pause, limit))
                    outcome = self._look(hook)
            except TaskDeferred:
                raise
            except BaseException:
                self._stop()
                raise
        return self._end(begun, outcome.details)

    def _defer(self, begun: float, limit: float) -> NoReturn:
        from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger

        condition = NodeEvacuated(self.node, started=True)
        self.defer(
            trigger=EmqxConditionTrigger(
                kind=condition.kind,
                parameters=condition.for_trigger(),
                emqx_conn_id=self.emqx_conn_id,
                poll_interval=self._pause,
                deadline=begun + limit,
            ),
            method_name="execute_complete",
            kwargs={"begun": begun},
        )

    def execute_complete(
        self, context: Context, event: Mapping[str, Any] | None = None, begun: float = 0.0
    ) -> EvacuateNodeResult:
        """
        Resume after the deferral.

        :param event: what :class:`~airflow_provider_emqx.triggers.emqx.EmqxConditionTrigger` has sent.
        :param begun: when the evacuation was started, in seconds since 1970.
        :return: as :meth:`execute`.
        """
        from airflow_provider_emqx.triggers.emqx import error_of

        self._started = True
        event = event or {}
        if event.get("status") == "met":
            self.log.info("Node %s", event["text"])
            return self._end(begun, event["details"])
        self._stop()
        if event.get("status") == "timeout":
            raise self._too_long(span("timeout", self.timeout), event["text"])
        raise error_of(event)

    def _end(self, begun: float, details: Mapping[str, Any]) -> EvacuateNodeResult:
        stop = boolean("stop_when_empty", self.stop_when_empty)
        if stop:
            with self.hook() as hook:
                hook.stop_evacuation(self.node)
            self._started = False
        result = {**details, "seconds": round(time.time() - begun, 1), "stopped": stop}
        return cast("EvacuateNodeResult", result)

    def _too_long(self, limit: float, last: str) -> EmqxTimeoutError:
        return EmqxTimeoutError(f"node {self.node} is not empty after {limit:g} s: {last}")

    @property
    def _pause(self) -> float:
        return positive("poll_interval", self.poll_interval)

    def on_kill(self) -> None:
        """Stop the evacuation, and the wait for it."""
        super().on_kill()
        self._stop()

    def _start(self, hook: EmqxHook) -> None:
        settings = mapping("settings", self.settings)
        others = [
            row["node"]
            for row in hook.list_nodes()
            if row["node"] != self.node and row.get("node_status") == "running"
        ]
        if not others:
            self.log.warning(
                "Node %s is the only one that runs: no other node can take its sessions, so that they stay until they "
                "expire",
                self.node,
            )
        try:
            hook.run(hook.api.rebalance.start_evacuation(self.node, settings))
        except EmqxBadRequestError as error:
            if "already" not in error.reason:
                raise
            self.log.info("Node %s is being evacuated already", self.node)
        self._started = True

    def _look(self, hook: EmqxHook) -> Outcome:
        """Check as the sensor does."""
        outcome = hook.run(NodeEvacuated(self.node, started=True).ask(hook.api, time.time()))
        self.log.info("Node %s", outcome.text)
        return outcome

    def _stop(self) -> None:
        # a killed task comes here twice: from on_kill, and from what it raises in execute
        if not self._started:
            return
        self._started = False
        from airflow_provider_emqx.hooks.emqx import EmqxHook

        try:
            # the hook that waits sends nothing more
            with EmqxHook(self.emqx_conn_id) as hook:
                hook.stop_evacuation(self.node)
        except EmqxError as error:
            self.log.error("The evacuation of node %s could not be stopped. %s", self.node, error)
        else:
            self.log.warning("The evacuation of node %s has been stopped", self.node)


class EmqxApiOperator(BaseEmqxOperator):
    """
    Send any request to the broker's management API, with the connection's authentication, retries and errors.

    For what has no operator of its own: gateways, EMQX Cloud v4's shadow service, …

    :param method: HTTP method.
    :param path: below the API's base path, as ``/gateways``; ids in it percent-encoded.
    :param query: query parameters. Airflow neither stores nor shows them.
    :param json: body. Airflow neither stores nor shows it.
    :param idempotent: whether sending it twice does no harm, so that it may be repeated after a lost answer; by default
        everything but POST.
    :return: the answer's content, without EMQX 4's ``code``; ``{"data", "meta"}`` where it is a page. XCom keeps it in
        clear: set ``do_xcom_push=False`` if it holds secrets.
    :raises EmqxConfigError: for a path with empty or dot segments, which the broker would take for another one.
    :raises EmqxOutcomeUnknownError: if the answer to a POST was lost and ``idempotent`` is not set.
    """

    template_fields: Sequence[str] = (
        "method",
        "path",
        "query",
        "json",
        "idempotent",
        *BaseEmqxOperator.template_fields,
    )

    query = HiddenField()
    json = HiddenField()

    def __init__(
        self,
        *,
        method: Method | Rendered = "GET",
        path: str | XComArg,
        query: Mapping[str, Any] | str | XComArg | None = None,
        json: Any = None,
        idempotent: bool | str | XComArg | None = None,
        **kwargs: Unpack[EmqxOperatorKeywords],
    ) -> None:
        super().__init__(**kwargs)
        self.method: Any = method
        self.path: Any = path
        self.query = query
        self.json = json
        self.idempotent = idempotent
        self.check_literals()

    def check(self) -> None:
        """Refuse a method or a path that would reach something else."""
        from airflow_provider_emqx.api.raw import check_method, check_path

        check_method(str(self.method).upper())
        check_path(self.path)
        mapping("query", plain(self.query))
        optional(boolean, "idempotent", self.idempotent)

    def execute(self, context: Context) -> Any:
        """Send it."""
        query = mapping("query", plain(self.query))
        idempotent = optional(boolean, "idempotent", self.idempotent)
        with self.hook() as hook:
            answer = hook.request(self.method, self.path, query, plain(self.json), idempotent)
        self.log.info("%s %s: done", self.method, self.path)
        return answer


def _rules_page(names: Any) -> str:
    found = texts("names", names)
    return f"rule/rules?{urlencode({'like_id': found[0]})}" if len(found) == 1 else "rule/rules"

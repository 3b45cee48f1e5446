"""Every operator, sensor, trigger and notifier at work, with planted secrets wherever one can be given."""

from __future__ import annotations

import base64
import importlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseNotifier, BaseOperator, BaseOperatorLink
from airflow.triggers.base import BaseTrigger

from airflow_provider_emqx.commands.order import Order
from airflow_provider_emqx.commands.record import SENT, Record, Row
from airflow_provider_emqx.conditions.messages import MessageArrived
from airflow_provider_emqx.get_provider_info import get_provider_info
from airflow_provider_emqx.notifications.emqx import EmqxPublishNotifier
from airflow_provider_emqx.operators import auth, clients, cluster, commands, topics
from airflow_provider_emqx.sensors import clients as client_sensors
from airflow_provider_emqx.sensors import cluster as cluster_sensors
from airflow_provider_emqx.sensors import messages as message_sensors
from airflow_provider_emqx.sensors import topics as topic_sensors
from airflow_provider_emqx.testing import FakeEmqx
from airflow_provider_emqx.transfers.sql_to_emqx import SqlToEmqxUsersOperator
from airflow_provider_emqx.triggers.commands import EmqxCommandTrigger
from airflow_provider_emqx.triggers.emqx import EmqxConditionTrigger, EmqxEventTrigger
from airflow_provider_emqx.triggers.messages import EmqxMessageArrivedTrigger, EmqxMessageTrigger
from tests.archives.made import archive, users
from tests.secrets.planted import HASH, PASSWORD, PAYLOAD, PEPPER, SALT, SHORT

NODES = ["emqx@n1", "emqx@n2"]
#: templates that cannot be rendered, with a secret beside them
NO_VARIABLE = "{{ nothing.there }}"
NO_TEMPLATE = "{% if"
ROWS = [
    {"user_id": "row-1", "password": PASSWORD},
    {"user_id": "row-2", "password": SHORT},
    {"user_id": "", "password": PASSWORD},
    {"user_id": {"password": PASSWORD}, "password": PASSWORD},
    {"user_id": "row-3", "password": [PASSWORD]},
]


def public_classes() -> set[type]:
    """Every class of this provider that Airflow is told of and a DAG can use."""
    info = get_provider_info()
    modules = [
        name
        for kind in ("operators", "sensors", "triggers")
        for integration in info[kind]
        for name in integration["python-modules"]
    ]
    modules += [transfer["python-module"] for transfer in info["transfers"]]
    paths = [*info["notifications"], *info["extra-links"]]
    found = {
        getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in paths
    }
    kinds = (BaseOperator, BaseTrigger, BaseNotifier, BaseOperatorLink)
    for name in modules:
        found |= {
            one
            for one in vars(importlib.import_module(name)).values()
            if isinstance(one, type)
            and issubclass(one, kinds)
            and one.__module__.startswith("airflow_provider_emqx.")
            and one.__name__.startswith("Emqx" if "transfers" not in name else "Sql")
        }
    return found


def sources(folder: Path) -> dict[str, str]:
    """
    Write files of users: a good one, and some that break in every way.

    :param folder: for them; it holds passwords, and is not searched.
    """
    folder.mkdir(exist_ok=True)
    quoted = PASSWORD.replace('"', '""')
    listed = json.dumps({"user_id": "json-1", "password": PASSWORD})
    texts = {
        "good.csv": f'user_id,password\ngood-1,"{quoted}"\ngood-2,{SHORT}\n,"{quoted}"\ngood-1,"{quoted}"\n',
        "flag.csv": f'user_id,password,is_superuser\nflag-1,x,"{quoted}"\n',
        "hashes.csv": f"user_id,password_hash,salt\nhash-1,{HASH},{SALT}\nhash-2,{HASH}0,{SALT}\n",
        "no_header.csv": f'good-1,"{quoted}"\ngood-2,"{quoted}"\n',
        "open_quote.csv": f'user_id,password\ngood-1,"{quoted}\ngood-2,x\n',
        "broken.json": f"[{listed}, {listed[:-3]}",
        "deep.json": "[" * 100_000 + PASSWORD,
        "broken.jsonl": f"{listed}\n{listed[:-3]}\n[{json.dumps(PASSWORD)}]\n",
        "acl.csv": f'user_id,password,acl\nacl-1,"{quoted}","{quoted}"\n',
    }
    stored = base64.b64encode(b"salt" + HASH.encode()).decode()
    export = {
        "version": "4.4",
        "apps": [{"id": "app", "secret": PASSWORD}],
        "auth_mnesia": [{"login": "moved-1", "type": "username", "password": stored, "created_at": 1}],
    }
    texts["export.json"] = json.dumps(export)
    texts["cut_export.json"] = json.dumps(export)[:-2]
    for name, text in texts.items():
        (folder / name).write_text(text)
    content = archive({"emqx_authn_mnesia": users([("moved-1", HASH, SALT.encode())])})
    (folder / "archive.tar.gz").write_bytes(content)
    (folder / "cut_archive.tar.gz").write_bytes(content[:-20])
    latin = f'user_id,password\ngood-1,"{quoted}"\n'.encode("latin-1")
    (folder / "latin.csv").write_bytes(latin)
    (folder / "cut.csv.gz").write_bytes(b"\x1f\x8b" + latin)
    (folder / "no.parquet").write_bytes(b"PAR1" + latin)
    with closing(sqlite3.connect(folder / "users.db")) as database:
        for table in ("users", "broken"):
            database.execute(f"DROP TABLE IF EXISTS {table}")
            database.execute(f"CREATE TABLE {table} (user_id TEXT, password TEXT)")
            database.execute(f"INSERT INTO {table} VALUES ('query-1', ?)", (PASSWORD,))
        # the driver's own error quotes what is no UTF-8
        database.execute(
            "INSERT INTO broken VALUES ('query-2', CAST(? AS TEXT))", (PASSWORD.encode("latin-1"),)
        )
        database.commit()
    others = ("latin.csv", "cut.csv.gz", "no.parquet", "archive.tar.gz", "cut_archive.tar.gz")
    return {name: str(folder / name) for name in (*texts, *others)}


def connections(folder: Path) -> dict[str, str]:
    """Airflow's connections besides the broker's own, as the environment has them."""
    return {
        "AIRFLOW_CONN_PEPPER": json.dumps({"conn_type": "generic", "password": PEPPER}),
        "AIRFLOW_CONN_USERS_DB": json.dumps(
            {"conn_type": "sqlite", "host": str(folder / "given" / "users.db")}
        ),
        "AIRFLOW_VAR_COMMAND": PAYLOAD,
    }


def furnish(broker: FakeEmqx) -> None:
    """Put something into a broker for each task to work on."""
    broker.connect_many(["dev-1", "dev-2"], username="alice")
    broker.connect("dev-3", on_message=lambda message: broker.reply(message, PAYLOAD, clientid="dev-3"))
    broker.subscribe("dev-3", "devices/dev-3/command", 1)
    broker.subscribe("dev-1", "t/#")
    broker.publish("state/1", PAYLOAD, retain=True)
    broker.add_rule("r1", 'SELECT * FROM "t/#"')
    broker.raise_alarm("high_cpu_usage")


def operators(folder: Path, files: dict[str, str], v4: bool, deferrable: bool) -> None:
    """Add each operator, as it is meant."""
    path = "/auth_username" if v4 else "/authentication/password_based%3Abuilt_in_database/users"
    body = {"username" if v4 else "user_id": "api-1", "password": PASSWORD}
    notify = EmqxPublishNotifier(topic="failed", payload={"pin": PAYLOAD, "run": "{{ run_id }}"})
    messages = [{"topic": "t/1", "payload": PAYLOAD}, {"topic": "t/1", "payload": "{{ var.value.command }}"}]
    auth.EmqxProvisionUsersOperator(task_id="rows", source=ROWS)
    auth.EmqxProvisionUsersOperator(
        task_id="file",
        source=files["good.csv"],
        report_path=f"{folder}/file.jsonl",
        on_failure_callback=notify,
    )
    auth.EmqxProvisionUsersOperator(
        task_id="remembered",
        source=files["good.csv"],
        report_path=f"{folder}/remembered.csv",
        state_path=f"{folder}/state",
        pepper_conn_id="pepper",
        hash_passwords=not v4,
    )
    if not v4:
        auth.EmqxProvisionUsersOperator(
            task_id="archive_of_users",
            source=files["good.csv"],
            report_path=f"{folder}/archive.jsonl",
            bulk="archive",
            pepper_conn_id="pepper",
        )
    auth.EmqxProvisionUsersOperator.partial(task_id="mapped", mode="upsert").expand(
        source=[files["good.csv"], files["good.csv"]]
    )
    SqlToEmqxUsersOperator(
        task_id="query",
        sql="SELECT user_id, password FROM users",
        sql_conn_id="users_db",
        report_path=f"{folder}/query.jsonl",
    )
    auth.EmqxExportUsersOperator(task_id="export", output_path=f"{folder}/export.csv")
    auth.EmqxProvisionAclOperator(
        task_id="acl", source=[{"username": "alice", "topic": "a", "permission": "allow"}]
    )
    auth.EmqxBanOperator(task_id="ban", who="nobody", duration=60, kick=True)
    auth.EmqxUnbanOperator(task_id="unban", by="airflow", report_path=f"{folder}/unban.jsonl")
    clients.EmqxListClientsOperator(task_id="clients", output_path=f"{folder}/clients.jsonl")
    clients.EmqxKickClientsOperator(task_id="kick", clientids="dev-2", report_path=f"{folder}/kick.jsonl")
    clients.EmqxSubscribeOperator(task_id="subscribe", clientids="dev-1", topics="t/2")
    clients.EmqxUnsubscribeOperator(task_id="unsubscribe", clientids="dev-1", topics="t/2")
    commands.EmqxCommandOperator(
        task_id="command",
        clientids="dev-3",
        payload={"pin": PAYLOAD},
        report_path=f"{folder}/command.jsonl",
        timeout=20,
        deferrable=deferrable,
    )
    topics.EmqxPublishOperator(task_id="publish", topic="t/1", payload=PAYLOAD, on_failure_callback=notify)
    topics.EmqxPublishOperator(task_id="messages", messages=messages)
    # a literal given to partial() or expand() would be in the serialised DAG, before there is an operator
    topics.EmqxPublishOperator.partial(task_id="mapped_publish", payload="{{ var.value.command }}").expand(
        topic=["t/1", "t/2"]
    )
    topics.EmqxClearRetainedOperator(task_id="clear", topics="state/2", report_path=f"{folder}/clear.jsonl")
    topics.EmqxTopicMetricsOperator(task_id="measure", action="register", topics="t/1")
    topics.EmqxListSubscriptionsOperator(task_id="subscriptions", output_path=f"{folder}/subscriptions.jsonl")
    # password hashes are what a backup is: the file is left out of the search
    cluster.EmqxBackupOperator(task_id="backup", backup_dir=f"{folder}/backups")
    cluster.EmqxRestoreOperator(
        task_id="restore", backup_path=files["export.json" if v4 else "archive.tar.gz"]
    )
    cluster.EmqxClearAlarmsOperator(task_id="alarms", deactivate=None)
    cluster.EmqxMetricsSnapshotOperator(task_id="figures", output_path=f"{folder}/figures.csv")
    cluster.EmqxSetRuleStateOperator(task_id="rule", names="r1", state="disabled")
    waits = {} if v4 else {"wait_health_check": "1s", "wait_takeover": "1s"}
    cluster.EmqxEvacuateNodeOperator(
        task_id="evacuate",
        node=NODES[1],
        poll_interval=0.1,
        timeout=20,
        settings={"conn_evict_rate": 9, **waits},
    )
    cluster.EmqxApiOperator(task_id="request", method="POST", path=path, json=body, do_xcom_push=False)


def sensors(v4: bool, **how: Any) -> None:
    """Add each sensor: a wait that is over at once, and with ``deferrable`` one that is never over."""
    waits: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
        (client_sensors.EmqxClientOnlineSensor, {"clientids": "dev-1"}, {"clientids": "nobody"}),
        (client_sensors.EmqxClientOfflineSensor, {"clientids": "nobody"}, {"clientids": "dev-1"}),
        (topic_sensors.EmqxSubscriptionSensor, {"topic": "t/1"}, {"topic": "x"}),
        (
            topic_sensors.EmqxTopicMetricSensor,
            {"topic": "t/1", "threshold": 0},
            {"topic": "t/1", "threshold": 9e9},
        ),
        (cluster_sensors.EmqxClusterHealthSensor, {}, {"no_alarms": "high_cpu_usage"}),
        (
            cluster_sensors.EmqxMetricSensor,
            {"metric": "live_connections.count" if not v4 else "connections.count", "threshold": 0},
            {"metric": "messages.received", "threshold": 9e9},
        ),
        (cluster_sensors.EmqxRuleHealthSensor, {"rule_id": "r2"}, {"rule_id": "absent"}),
        (cluster_sensors.EmqxNodeEvacuatedSensor, {"node": NODES[1]}, {"node": NODES[0]}),
        (
            topic_sensors.EmqxRetainedMessageSensor,
            {"topic": "state/1", "payload": PAYLOAD},
            {"topic": "state/1", "json_field": "pin", "json_value": "{{ var.value.command }}"},
        ),
        (
            message_sensors.EmqxMessageSensor,
            {"topic": "state/1", "payload": PAYLOAD, "retained": True},
            {"topic": "state/1", "json_field": "pin", "json_value": "{{ var.value.command }}"},
        ),
    ]
    deferrable = how.get("deferrable", False)
    for sensor, met, never in waits:
        sensor(task_id=f"wait_{sensor.__name__}", **(never if deferrable else met), **how)


def failures(files: dict[str, str]) -> None:
    """Add tasks that fail whatever the broker does: templates, sources, arguments."""
    for name, file in files.items():
        if name not in ("good.csv", "archive.tar.gz"):
            auth.EmqxProvisionUsersOperator(task_id=f"bad_{name}", source=file, on_rejected="fail")
    SqlToEmqxUsersOperator(
        task_id="bad_query", sql="SELECT user_id, password FROM broken", sql_conn_id="users_db"
    )
    broken = {"undefined": {"pin": PAYLOAD, "x": NO_VARIABLE}, "syntax": f"{PAYLOAD} {NO_TEMPLATE}"}
    for kind, value in broken.items():
        notify = EmqxPublishNotifier(topic="failed", payload=value)
        row = {
            "user_id": "row-1",
            "password": f"{PASSWORD} {NO_VARIABLE if kind == 'undefined' else NO_TEMPLATE}",
        }
        topics.EmqxPublishOperator(
            task_id=f"bad_payload_{kind}", topic="t/1", payload=value, on_failure_callback=notify
        )
        topics.EmqxPublishOperator(
            task_id=f"bad_messages_{kind}", messages=[{"topic": "t", "payload": value}]
        )
        auth.EmqxProvisionUsersOperator(task_id=f"bad_rows_{kind}", source=[row])
        cluster.EmqxApiOperator(task_id=f"bad_request_{kind}", method="POST", path="/publish", json=value)
        for wait in (topic_sensors.EmqxRetainedMessageSensor, message_sensors.EmqxMessageSensor):
            wait(
                task_id=f"bad_{wait.__name__}_{kind}",
                topic="t",
                payload=value,
                poke_interval=0.1,
                timeout=0.3,
            )
    late = "{{ 't' }}"  # what shows when the DAG is parsed makes no task
    topics.EmqxPublishOperator(task_id="bad_topic", topic="{{ 't/#' }}", payload=PAYLOAD)
    topics.EmqxPublishOperator(task_id="bad_type", topic=late, payload={1, PAYLOAD})  # no JSON
    topics.EmqxPublishOperator(
        task_id="bad_twice", topic=late, payload=PAYLOAD, messages=[{"payload": PAYLOAD}]
    )


def triggers(folder: Path) -> Iterator[BaseTrigger]:
    """
    Each kind of watcher, and waits that are never over.

    :param folder: for the files that they read and write.
    """
    common: dict[str, Any] = {"poll_interval": 0.1}
    yield EmqxEventTrigger(event="client_online", **common)
    yield EmqxEventTrigger(event="client_offline", **common)
    yield EmqxEventTrigger(event="alarm_activated", **common)
    condition: dict[str, Any] = {"kind": "clients_online", "parameters": {"clientids": ["dev-1"]}}
    yield EmqxEventTrigger(event="condition_met", **condition, **common)
    condition["parameters"] = {"clientids": ["nobody"]}
    yield EmqxConditionTrigger(**condition, **common, max_failures=0)
    order = Order("abc", "devices/{clientid}/command", "devices/{clientid}/reply")
    record = Record(order.command, folder / "waiting.jsonl")
    record.tell([Row("nobody", SENT, 1, 0.0)])
    yield EmqxCommandTrigger(
        order=order.to_json(),
        report_path=str(record.report_path),
        enough=1,
        deadline=datetime.now(UTC).timestamp() + 60,
    )
    awaited = MessageArrived("state/1", payload=PAYLOAD).parameters()
    deadline = datetime.now(UTC).timestamp() + 60
    yield EmqxMessageArrivedTrigger(clientid="waiting", parameters=awaited, deadline=deadline)
    yield EmqxMessageTrigger(topic="state/1", payload=PAYLOAD, retained=True)


def start(name: str) -> DAG:
    """Make an empty DAG whose tasks are tried twice."""
    again = {"retries": 1, "retry_delay": timedelta(0)}
    return DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args=again)


def dag_of(name: str, folder: Path, v4: bool, **waiting: Any) -> DAG:
    """
    Make a DAG of all of them.

    :param name: of the DAG.
    :param folder: for the files that they read and write.
    :param v4: whether the broker is EMQX 4.
    :param waiting: arguments of the sensors.
    """
    with start(name) as dag:
        operators(folder, sources(folder / "given"), v4, waiting.get("deferrable", False))
        sensors(v4, poke_interval=0.1, **waiting)
    return dag


def failing_dag(name: str, folder: Path) -> DAG:
    """
    Make a DAG of what fails by itself.

    :param name: of the DAG.
    :param folder: for the files that the tasks read.
    """
    with start(name) as dag:
        failures(sources(folder / "given"))
    return dag


def callbacks(task: Any) -> list[Any]:
    """What a task calls when it fails; one callback is no list on Airflow 2."""
    found = getattr(task, "on_failure_callback", None) or []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def classes_that_run(folder: Path) -> set[type]:
    """Every class that the tests of this folder run."""
    tasks = dag_of("all", folder, v4=False).tasks
    found = {getattr(task, "operator_class", None) or type(task) for task in tasks}
    found |= {type(callback) for task in tasks for callback in callbacks(task)}
    found |= {type(link) for task in tasks for link in task.operator_extra_links}
    return found | {type(trigger) for trigger in triggers(folder)}

"""
The broker of ``make ui``: a FakeEmqx with all that the example DAGs need when they run with their own parameters.

Its devices live: every minute another sensor connects, all measure, whoever gets a command answers it over MQTT.
Files for the DAGs are written to the working directory.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import signal
import threading
from typing import Any

from airflow_provider_emqx.testing import FakeEmqx

DAY = 86_400
#: the scope of the example DAGs: names that no fleet of one's own has
SCOPE = "example-sensor-"
#: as EMQX 4.4 hashes, whose export the new broker is to take
ALGORITHM = {"name": "sha256", "salt_position": "prefix"}
NODES = ["emqx@10.0.0.1", "emqx@10.0.0.2"]
DEVICES = [f"example-device-{number}" for number in range(1, 21)]
USERS = [f"{SCOPE}{number}" for number in range(1, 2_001)]
#: they connect one after another, a minute between them, and then anew
SENSORS = USERS[:50]
#: users and clients that the file of devices no longer names
RETIRED = [f"{SCOPE}{number}" for number in (2001, 2002, 2003)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default="5.8.9")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mqtt-port", type=int, default=0)
    parser.add_argument("--key", default="key")
    parser.add_argument("--secret", default="secret")
    parser.add_argument("--files-only", action="store_true", help="write the files and start no broker")
    arguments = parser.parse_args()
    write_files()
    if arguments.files_only:
        return
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    # evacuating a node needs Enterprise
    broker = FakeEmqx(
        arguments.version,
        port=arguments.port,
        mqtt_port=arguments.mqtt_port,
        key=arguments.key,
        secret=arguments.secret,
        nodes=NODES,
        edition="Enterprise",
        password_hash_algorithm=ALGORITHM,
        log_requests=False,
    )
    furnish(broker)
    with broker:
        print(broker.url, flush=True)
        second = 0
        while not ended.wait(1):
            live(broker, second)
            second += 1


def write_files() -> None:
    """Write what the DAGs read: devices, with a few rows that cannot be right, rules, and the ids of a fleet."""
    rows = [f"{user},pw-of-{user}" for user in USERS]
    for place, bad in ((300, "..,pw"), (900, f"{SCOPE}7,second-row"), (1500, f"{SCOPE}no-password,")):
        rows.insert(place, bad)
    rules = [
        "username,topic,permission,action",
        "example-alice,site/7/#,allow,subscribe",
        "example-alice,#,deny,all",
        f"{SCOPE}1,sensors/all,allow,publish",
    ]
    files = {
        "devices.csv": ["user_id,password", *rows],
        "acl.csv": rules,
        "export.json": [json.dumps(export())],
        # the fleet is complete when the fifth sensor has come
        "fleet.txt": [*DEVICES, *SENSORS[:5]],
    }
    for name, lines in files.items():
        with open(name, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def export() -> dict[str, Any]:
    """Make what an EMQX 4.4 with ten devices would export."""
    users = []
    for number in range(1, 11):
        salt, password = f"s{number:03}".encode(), f"pw-of-{number}".encode()
        stored = salt + hashlib.sha256(salt + password).hexdigest().encode()
        login, secret = f"{SCOPE}moved-{number}", base64.b64encode(stored).decode()
        users.append({"login": login, "type": "username", "password": secret, "created_at": number})
    rule = {"type": "all", "topic": "site/%u/#", "action": "pubsub", "access": "allow", "created_at": 1}
    ban = {
        "who": {"clientid": "example-device-666"},
        "by": "ops",
        "reason": "stolen",
        "at": 1,
        "until": 4102444800,
    }
    return {
        "version": "4.4",
        "blacklist": [ban],
        "auth_mnesia": users,
        "acl_mnesia": [rule],
        "date": "2026-11-28",
    }


def furnish(broker: FakeEmqx) -> None:
    """Connect who is there from the beginning, and leave behind what a broker collects in its life."""
    broker.advance(-40 * DAY)
    for gone in ("example-device-lost", "gateway-1"):
        broker.connect(gone, clean_start=False, session_expiry=365 * DAY)
        broker.disconnect(gone)
    broker.publish("old/state", "nobody needs this", retain=True)
    broker.advance(40 * DAY)
    broker.raise_alarm("high_cpu_usage", "86% cpu usage", {"usage": "86%"})
    broker.end_alarm("high_cpu_usage")
    for user in (*USERS[:1_990], *RETIRED):
        broker.add_user(user, "pw")
    for device in (*DEVICES, *RETIRED):
        come(broker, device, connected_at=broker.now() - 3600)


def live(broker: FakeEmqx, second: int) -> None:
    """Let a second pass in the life of the devices."""
    if second % 60 == 0:
        sensor = SENSORS[second // 60 % len(SENSORS)]
        broker.connect(sensor, username=sensor)
        broker.subscribe(sensor, f"settings/{sensor}", 1)
        broker.publish("gateways/example-1/temperature", '{"temperature": 95}', qos=1)
    broker.publish("sensors/all", '{"temperature": 21}')
    for device in DEVICES:
        # whoever was kicked comes back after a moment, if the broker lets it
        if device not in broker.clients and (second % 10 or not come(broker, device)):
            continue
        broker.forget_received(device)


def come(broker: FakeEmqx, device: str, **options: Any) -> bool:
    """Connect a device that carries out commands, and says so after a second or two."""

    def answer(message: Any) -> None:
        if message.topic.endswith("/command"):
            broker.reply(message, '{"updated": true}', clientid=device, seconds=1 + len(device) % 2)
        elif message.topic.endswith("/job"):
            done = json.dumps({"done": json.loads(message.payload)["run"]})
            broker.publish(f"devices/{device}/state", done, qos=1, retain=True)

    let_in = broker.connect(device, username=device, on_message=answer, **options)
    if let_in:
        for topic in (f"cmd/{device}", f"devices/{device}/command", f"devices/{device}/job"):
            broker.subscribe(device, topic, 1)
    return let_in


if __name__ == "__main__":
    main()

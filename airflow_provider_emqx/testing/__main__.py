"""``python -m airflow_provider_emqx.testing``: FakeEmqx as a process of its own."""

from __future__ import annotations

import argparse
import signal
import threading

from airflow_provider_emqx.testing.broker import FakeEmqx
from airflow_provider_emqx.testing.pace import PACE_V4, PACE_V5


def parse_pace(text: str) -> tuple[float, float]:
    """Read ``v4``, ``v5`` or ``ROWS,CALLS``.

    :param text: Value of ``--pace``.
    """
    presets = {"v4": PACE_V4, "v5": PACE_V5}
    if text in presets:
        return presets[text]
    try:
        rows, calls = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError('must be "v4", "v5" or "ROWS,CALLS" per second') from None
    return rows, calls


def main() -> None:
    """Serve until the process receives a signal to end."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_emqx.testing", description=__doc__)
    parser.add_argument("--version", default="5.8.9", help='EMQX version, or "serverless"')
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--mqtt-port", type=int, default=0, help="TCP port for MQTT clients, in the same way")
    parser.add_argument("--key", default="key", help="API key (4.4: AppID)")
    parser.add_argument("--secret", default="secret", help="API secret")
    parser.add_argument("--user-id-type", default="username", choices=["username", "clientid"])
    parser.add_argument("--pace", type=parse_pace, help='"v4" or "v5": as slow as measured; or "ROWS,CALLS"')
    parser.add_argument("--users", type=int, default=0, help="create so many users user-0000000, …")
    parser.add_argument("--clients", type=int, default=0, help="connect so many devices device-0000000, …")
    parser.add_argument(
        "--answer",
        action="store_true",
        help='let them answer commands: subscribe to devices/ID/command, reply {"ok": true}',
    )
    arguments = parser.parse_args()
    try:
        broker = FakeEmqx(
            arguments.version,
            key=arguments.key,
            secret=arguments.secret,
            port=arguments.port,
            mqtt_port=arguments.mqtt_port,
            pace=arguments.pace,
            user_id_type=arguments.user_id_type,
            log_requests=False,
        )
    except ValueError as error:
        parser.error(str(error))
    for number in range(arguments.users):
        broker.add_user(f"user-{number:07d}", f"password-{number:07d}")
    devices = [f"device-{number:07d}" for number in range(arguments.clients)]
    answer = (lambda message: broker.reply(message, '{"ok": true}')) if arguments.answer else None
    broker.connect_many(devices, on_message=answer)
    for device in devices if arguments.answer else ():
        broker.subscribe(device, f"devices/{device}/command", 1)
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    with broker:
        print(broker.url, broker.mqtt_url, sep="\n", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()

"""Mosquitto on a free port of loopback, to which the double's MQTT is held."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

#: where Debian has it, beside the PATH of most people
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


@contextmanager
def mosquitto(directory: Path) -> Iterator[str]:
    """Start it, and give its address; nobody may publish below ``forbidden/``."""
    program = shutil.which("mosquitto", path=_PATH)
    if program is None:
        pytest.skip("mosquitto is not installed")
    (directory / "acl").write_text("topic readwrite #\ntopic deny forbidden/#\n")
    # its user must be able to read the file when it is started by root
    (directory / "acl").chmod(0o644)
    for _ in range(5):
        port = _free_port()
        (directory / "conf").write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"
            f"acl_file {directory}/acl\nmax_queued_messages 1000\n"
        )
        process = subprocess.Popen(
            [program, "-c", str(directory / "conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            if _answers(process, port):
                yield f"mqtt://127.0.0.1:{port}"
                return
        finally:
            process.terminate()
            process.wait()
    pytest.fail("mosquitto did not start")


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the port is open; another program may have taken it meanwhile."""
    while process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    return False

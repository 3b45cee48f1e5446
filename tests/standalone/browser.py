"""A browser without a window, driven by the Chrome DevTools protocol."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

#: names of the program in Debian and elsewhere
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


class Refused(Exception):
    """The browser did not do what it was asked."""


class Browser:
    """
    A page of a browser of its own, with no cookies but those that it gets.

    :param program: Chromium or Chrome.
    :param home: for its profile.
    :param size: of the page, in pixels.
    """

    def __init__(self, program: str, home: Path, size: tuple[int, int] = (1_180, 900)) -> None:
        self._size = size
        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--no-proxy-server",
                "--remote-debugging-port=0",
                f"--user-data-dir={home}",
                f"--window-size={size[0]},{size[1]}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._opened = ExitStack()
        self._numbers = iter(range(1, 10**9))
        port, path = _wait(lambda: _port(home / "DevToolsActivePort"), 60)
        address = f"ws://127.0.0.1:{port}{path}"
        self._socket: ClientConnection = self._opened.enter_context(
            connect(address, max_size=None, proxy=None, open_timeout=60)
        )
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")

    def close(self) -> None:
        self._opened.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=120))
            if answer.get("id") == number:
                if "error" in answer:
                    raise Refused(answer["error"]["message"])
                return answer["result"]

    def open(self, url: str) -> None:
        """Open an address."""
        self._call("Page.navigate", url=url)

    def forget(self) -> None:
        """Log out: delete all cookies and leave the page."""
        self._call("Storage.clearCookies")
        self.open("about:blank")

    def ask(self, script: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Wait until an expression is true in the page, and return its value; a page that is loading has none."""

        def found() -> Any:
            # an element cannot be sent: that it is there is enough
            expression = f"(found => found instanceof Node || found)({script})"
            try:
                answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
            except Refused:
                return None  # the page has just been left
            return answer["result"].get("value") if "exceptionDetails" not in answer else None

        return _wait(found, seconds, lambda: f"{script}\n{self.text()[:2_000]}")

    def text(self) -> str:
        """Return what the page says."""
        return str(self.ask("document.body ? document.body.innerText : ''"))

    def write(self, selector: str, text: str) -> None:
        """Write into a field, as a person does."""
        self.ask(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)

    def press(self, selector: str) -> None:
        """Click on something."""
        self.ask(f"document.querySelector({json.dumps(selector)}).click()")

    def picture(self, path: Path, height: int | None = None) -> None:
        """
        Write a picture of the page.

        :param path: a PNG file.
        :param height: of the page; ``None`` for all of it.
        """
        whole = height or int(self.ask("document.documentElement.scrollHeight"))
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=self._size[0],
            height=whole,
            deviceScaleFactor=1,
            mobile=False,
        )
        taken = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(taken["data"]))
        self._call("Emulation.clearDeviceMetricsOverride")


def _port(file: Path) -> tuple[str, str] | None:
    lines = file.read_text().split() if file.exists() else []
    return (lines[0], lines[1]) if len(lines) == 2 else None


def _wait(found: Any, seconds: float, tell: Any = str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {tell()}")

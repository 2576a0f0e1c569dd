"""A headless Chromium, spoken to through its DevTools protocol: what a page shows and loads.

Takes a picture of a page, too: python tests/headless_browser.py URL picture.png
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0",
    # No name but this machine's is found: a page that needs the network shows it.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
WIDTH, HEIGHT = 1440, 820


def find_chromium() -> str | None:
    """Path of Chromium or Chrome; None: there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class HeadlessBrowser:
    """One page of a browser; use it as a context."""

    def __init__(self, url: str) -> None:
        chromium = find_chromium()
        assert chromium is not None
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [chromium, *_OPTIONS, f"--user-data-dir={self._folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._events: list[dict[str, Any]] = []
        self._count = 0
        self._session: str | None = None
        try:
            self._socket = connect(self._address(), max_size=None, compression=None)
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Network", "Page", "Runtime"):
                self._call(f"{domain}.enable")
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            self._call("Emulation.setDeviceMetricsOverride", **size)
            self._call("Page.navigate", url=url)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> HeadlessBrowser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._end()

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < end, f"{script} is not true on: {self.text()}"
            time.sleep(0.1)

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def loaded(self) -> list[str]:
        """Addresses of all that the page asked for, web sockets included."""
        self.evaluate("0")  # collects what has been reported
        found = []
        for event in self._events:
            if event["method"] == "Network.requestWillBeSent":
                found.append(event["params"]["request"]["url"])
            elif event["method"] == "Network.webSocketCreated":
                found.append(event["params"]["url"])
        return found

    def errors(self) -> list[str]:
        """Scripts' errors that nothing caught."""
        self.evaluate("0")
        thrown = [e for e in self._events if e["method"] == "Runtime.exceptionThrown"]
        return [json.dumps(event["params"]["exceptionDetails"]) for event in thrown]

    def _address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                return found[1]
        raise RuntimeError("Chromium did not start")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._folder.cleanup()


CLOSE_NOTES = "document.querySelectorAll('.mantine-Notification-closeButton').forEach(b=>b.click())"
"""viser says that WebGL is slow without a GPU."""


if __name__ == "__main__":
    with HeadlessBrowser(sys.argv[1]) as browser:
        browser.wait_for("document.querySelector('img') !== null")
        time.sleep(12)  # the 3D view fades in
        browser.evaluate(CLOSE_NOTES)
        time.sleep(1)
        png = browser.picture()
    Path(sys.argv[2]).write_bytes(png)

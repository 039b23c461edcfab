"""A headless Chromium, driven by its own debugging protocol: open a page, look at it, press keys."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-first-run")


def found() -> str | None:
    """Path of a browser on this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page of a browser of its own.

    Args:
        folder: For the browser's profile.
        size: Width and height of the page.
    """

    def __init__(self, folder: Path, *, size: tuple[int, int] = (900, 640)) -> None:
        self.folder, self.size, self._numbers = folder, size, itertools.count(1)

    def __enter__(self) -> Chromium:
        from websockets.sync.client import connect

        path = found()
        assert path
        own = (f"--user-data-dir={self.folder}", f"--window-size={self.size[0]},{self.size[1]}", "--remote-debugging-port=0", "about:blank")
        self._process = subprocess.Popen([path, *_FLAGS, *own], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = self.folder / "DevToolsActivePort"
        self._until(lambda: told.is_file() and told.read_text().count("\n") >= 1, "the browser did not start")
        port = told.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=None, origin=None)
        self.requested: list[str] = []
        self.call("Network.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; requests that the page made meanwhile are noted in ``requested``."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("method") in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                self.requested.append(message["params"].get("url") or message["params"]["request"]["url"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def script(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def open(self, url: str, *, until: str) -> None:
        """Go to ``url`` and wait for a true expression."""
        self.call("Page.navigate", url=url)
        self._until(lambda: self.script(until), f"{url} never came to: {until}")

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the page."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def press(self, key: str, *, times: int = 1) -> None:
        """A key on whatever has the focus."""
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"ArrowRight": 39, "ArrowLeft": 37}.get(key, 0))

    def _until(self, holds: Any, said: str, *, seconds: float = 40.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, said
            time.sleep(0.2)

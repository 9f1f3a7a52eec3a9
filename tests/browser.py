"""A real browser for tests, spoken to over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on PATH, so no page can be opened")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)

KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowRight": 39, "ArrowDown": 40, "Delete": 46,
}  # fmt: skip

CONTRAST = """
(() => {
  const pen = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
  const seen = (...layers) => {
    for (const layer of layers) { pen.fillStyle = layer; pen.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  return [...document.querySelectorAll(%s)].map((node) => {
    const [edge, ground] = [seen(paper, getComputedStyle(node).borderTopColor), seen(paper)];
    return (Math.max(edge, ground) + 0.05) / (Math.min(edge, ground) + 0.05);
  });
})()
"""


class Browser:
    """One tab of a headless browser, spoken to over the DevTools protocol."""

    def __init__(self) -> None:
        import websocket

        assert BROWSER is not None
        self.profile = Path(tempfile.mkdtemp(prefix="seewhy-browser-"))
        self.process = subprocess.Popen(
            [BROWSER, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self._port()
        self.socket = websocket.create_connection(self._page(port), timeout=30)
        self.ids = itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a headless window has no focus to give

    def _port(self) -> int:
        file = self.profile / "DevToolsActivePort"
        for _ in range(300):
            if file.exists() and (text := file.read_text().split()):
                return int(text[0])
            time.sleep(0.1)
        raise RuntimeError("the browser did not open its debugging port")

    def _page(self, port: int) -> str:
        from urllib.request import urlopen

        for _ in range(100):
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.1)
        raise RuntimeError("the browser opened no page")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(parameters["exceptionDetails"]["text"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(parameters["args"]))
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])

    def open(self, page: Path | str, width: int, dark: bool = False) -> None:
        url = page if isinstance(page, str) else page.as_uri()
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        for _ in range(200):
            if self.run(f"document.readyState === 'complete' && location.href === {json.dumps(url)}"):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{url} did not finish loading")

    def run(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def edges(self, selector: str) -> list[float]:
        """Contrast of the edges of what is found with the page behind them; WCAG 1.4.11 asks for 3."""
        return [float(value) for value in self.run(CONTRAST % json.dumps(selector))]

    def press(self, key: str, shift: bool = False) -> None:
        sign = {"text": "\r"} if key == "Enter" else {}  # without it no button is pressed
        for kind in ("keyDown" if sign else "rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                **(sign if kind == "keyDown" else {}),
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=KEYS[key],
                modifiers=8 if shift else 0,
            )

    def picture(self) -> bytes:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


def until(tab: Browser, what: str, seconds: float = 60) -> None:
    """Wait for something on a page to be so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if tab.run(what):
                return
        except RuntimeError:  # between two pages
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")

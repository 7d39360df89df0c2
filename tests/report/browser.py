"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import aiohttp

NONE = (
    "no Chromium here: `apt-get install chromium` (or chromium-browser, google-chrome), or name one with CHROMIUM=PATH"
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
_START_S = 60
_REPLY_S = 60


def find_browser() -> str | None:
    """The browser's path; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One tab. What happens in it is kept in ``events`` as the protocol tells it.

    Args:
        program: the browser's path.
        profile: an empty folder for its files.
    """

    def __init__(self, program: str, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._sent = 0
        self._loop = asyncio.new_event_loop()
        command = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._do(self._connect(self._port(profile)))
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        if hasattr(self, "_session"):
            self._do(self._session.close())
        self._loop.close()
        self._process.kill()
        self._process.wait()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and return its result."""
        return self._do(self._call(method, params))

    def open(self, url: str) -> None:
        """Load a page and wait until it is there; ``events`` begins anew. Another fragment alone loads nothing."""
        self.events.clear()
        loads = "loaderId" in self.call("Page.navigate", url=url)
        deadline = time.monotonic() + _REPLY_S
        while loads and not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < deadline, f"never loaded: {url}"
            self.evaluate("1")
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + _REPLY_S
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.02)

    def press(self, key: str, code: int) -> None:
        """Press a key, as a user does."""
        text = {"Enter": "\r", " ": " "}.get(key)
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        """Give the page a screen of this size, in its own pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Save what is on the screen, or the whole page, as a PNG file."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    @property
    def errors(self) -> list[str]:
        """What was written to the console, and exceptions that nobody caught."""
        self.evaluate("1")  # what was reported before comes before its result
        kept = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event) for event in self.events if event["method"] in kept]

    @property
    def requests(self) -> list[str]:
        """The addresses that were asked for, the page's own among them."""
        self.evaluate("1")
        asked = (event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [params["request"]["url"] for params in asked]

    def _port(self, profile: Path) -> int:
        told = profile / "DevToolsActivePort"
        deadline = time.monotonic() + _START_S
        while not (told.exists() and told.read_text().count("\n")):
            assert self._process.poll() is None, f"the browser ended with {self._process.returncode}"
            assert time.monotonic() < deadline, "the browser does not start"
            time.sleep(0.05)
        return int(told.read_text().split("\n")[0])

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            tabs = await reply.json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self._socket = await self._session.ws_connect(address, max_msg_size=0)

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._sent += 1
        await self._socket.send_json({"id": self._sent, "method": method, "params": params})
        async with asyncio.timeout(_REPLY_S):
            while True:
                message = await self._socket.receive_json()
                if message.get("id") != self._sent:
                    self.events.append(message)
                elif "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                else:
                    return message["result"]

    def _do(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

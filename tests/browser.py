"""Chromium without a screen, asked over its DevTools pipe: no driver and no other package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-pipe"
).split()


class Browser:
    """One tab of a browser of its own, while entered.

    Args:
        profile: a fresh folder.
    """

    def __init__(self, profile: Path) -> None:
        # The browser reads descriptor 3 and writes 4.
        there, self._requests = os.pipe()
        self._replies, back = os.pipe()

        def connect() -> None:
            # Copies first: one may have the number that the other is to get.
            ends = [os.dup(there), os.dup(back)]
            for end, number in zip(ends, (3, 4)):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
        )
        os.close(there)
        os.close(back)
        self._buffer = b""
        self._number = 0
        self._session: Optional[str] = None
        self.errors: List[str] = []

    def __enter__(self) -> Browser:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._requests)
        os.close(self._replies)

    def ask(self, method: str, **params: Any) -> Dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._requests, json.dumps(request).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, event: Dict[str, Any]) -> None:
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(str(event["params"])[:300])

    def _read(self) -> Dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._replies, 1 << 16)
            assert more, "the browser has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        """Shows a file as a screen of this width does, a telephone's below 600."""
        scale, mobile = 1, width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 844, "deviceScaleFactor": scale, "mobile": mobile},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while self.value("document.readyState") != "complete":
            pass

    def value(self, expression: str) -> Any:
        """Of an expression in the page's JavaScript."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key, down and up."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            words = {"key": key, "windowsVirtualKeyCode": code}
            if kind == "char" and key != "Enter":
                continue
            self.ask("Input.dispatchKeyEvent", type=kind, text="\r" * (kind == "char"), **words)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page, or of its first screen."""
        given: Dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            given["clip"] = {
                "x": 0,
                "y": 0,
                "scale": 1,
                **{k: size[k] for k in ("width", "height")},
            }
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", **given)["data"]))

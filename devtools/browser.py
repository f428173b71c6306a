"""A headless Chromium, driven over a pipe with the DevTools protocol: no port, no driver program.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools import fetch_chromium

_AXE = Path(__file__).parents[1] / ".tools/axe/node_modules/axe-core/axe.min.js"
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe", "about:blank"),
)


class BrowserFailedError(RuntimeError):
    """Chromium ended, or refused a command."""


@dataclass
class Tab:
    """A page in the browser: what it requested and what it wrote to the console."""

    _pipe: "_Pipe"
    _session: str
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Load a page, and wait until it and everything that it names is loaded."""
        self.requests.clear()
        self.messages.clear()
        self.send("Page.navigate", url=url)
        while self._next()["method"] != "Page.loadEventFired":
            pass
        # A promise later: what the page does first thing after its load has been reported.
        self.evaluate("new Promise(done => setTimeout(done, 100))")

    def show_as(self, *, width: int, height: int = 1000, dark: bool = False) -> None:
        """Set the size of the window in CSS pixels, and the colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise BrowserFailedError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def violations(self) -> list[dict[str, Any]]:
        """Return what axe finds wrong with the page for people who cannot see or use a mouse."""
        if not _AXE.is_file():
            raise FileNotFoundError(f"cannot find {_AXE}: run `make test`, which downloads it")
        self.evaluate(f"{_AXE.read_text()}; undefined")
        found = self.evaluate("axe.run(document).then(results => results.violations)")
        assert isinstance(found, list)
        return found

    def picture(self, path: Path, *, most: int = 12_000) -> None:
        """Write a picture of the whole page, or of its first `most` pixels, as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {**size, "height": min(size["height"], most), "scale": 1}
        taken = self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def pdf(self) -> bytes:
        """Return the printed page."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        number = self._pipe.send(method, parameters, self._session)
        while True:
            message = self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserFailedError(f"{method}: {message['error']}")
                result = message["result"]
                assert isinstance(result, dict)
                return result

    def _next(self) -> dict[str, Any]:
        message = self._pipe.receive()
        message.setdefault("method", "")
        parameters = message.get("params", {})
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.messages.append(parameters["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.messages.append(json.dumps(parameters))
        return message


@contextmanager
def browser() -> Iterator[Tab]:
    """Start Chromium with an empty profile and one tab; end it afterwards."""
    chromium = fetch_chromium.find()
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        process, pipe = _start(chromium.path, chromium.environment, Path(profile))
        try:
            yield _attach(pipe)
        finally:
            process.kill()
            process.wait()
            pipe.close()


def _start(
    program: Path, environment: Mapping[str, str], profile: Path
) -> "tuple[subprocess.Popen[bytes], _Pipe]":
    read_commands, commands = os.pipe()
    events, write_events = os.pipe()
    # Chromium reads commands from descriptor 3 and writes to 4, which the shell arranges.
    script = f'exec 3<&{read_commands} 4>&{write_events}; exec "$@"'
    log = (profile / "stderr").open("wb")
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", program, f"--user-data-dir={profile}", *_FLAGS],
        env={"PATH": os.environ["PATH"], "HOME": str(profile), **environment},
        pass_fds=(read_commands, write_events),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    log.close()
    os.close(read_commands)
    os.close(write_events)
    return process, _Pipe(commands, events, profile / "stderr")


def _attach(pipe: "_Pipe") -> Tab:
    root = Tab(pipe, "")
    targets = root.send("Target.getTargets")["targetInfos"]
    (page,) = [t["targetId"] for t in targets if t["type"] == "page"]
    session = root.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
    tab = Tab(pipe, session)
    for domain in ("Page", "Network", "Log", "Runtime"):
        tab.send(f"{domain}.enable")
    return tab


class _Pipe:
    """Messages to and from Chromium, each one JSON and a zero byte."""

    def __init__(self, commands: int, events: int, log: Path) -> None:
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._events = os.fdopen(events, "rb", buffering=0)
        self._log = log
        self._rest = b""
        self._sent = 0

    def send(self, method: str, parameters: Mapping[str, Any], session: str) -> int:
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._commands.write(json.dumps(message).encode() + b"\0")
        return self._sent

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = self._events.read(1 << 16)
            if not data:
                log = self._log.read_text(errors="replace")[-2000:]
                raise BrowserFailedError(f"Chromium has ended: {log}")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        assert isinstance(message, dict)
        return message

    def close(self) -> None:
        self._commands.close()
        self._events.close()

"""A page in headless Chromium, driven through its debugging pipe: what it asks for, complains of and paints."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import running_process

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
COMPLAINTS = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
TOO_WIDE = """[...document.querySelectorAll("body *")].filter(
    (e) => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > innerWidth + 1
).map((e) => e.outerHTML.slice(0, 120))"""


@dataclass
class Painted:
    """What became of one page at one width."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    width: int = 0
    """Of its content; more than was asked for is an overflow."""
    too_wide: list[str] = field(default_factory=list)
    """Elements that reach over the right edge, outside of what scrolls."""
    png: bytes = b""


class Pipe:
    """Chromium's debugging protocol: JSON messages, each with a NUL after it."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = os.fdopen(reader, "rb"), os.fdopen(writer, "wb")
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        self.sent = 0

    def read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self.reader.read(1)) != b"\0":
            if not byte:
                raise EOFError("Chromium has ended")
            text += byte
        message: dict[str, Any] = json.loads(text)
        return message

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.sent += 1
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": self.sent, "method": method, "params": parameters, **session}
        self.writer.write(json.dumps(message).encode() + b"\0")
        self.writer.flush()
        while (answer := self.read()).get("id") != self.sent:
            self.events.append(answer)
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self.events.append(self.read())

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")


@contextmanager
def browser() -> Iterator[Pipe]:
    (commands_out, commands_in), (answers_out, answers_in) = os.pipe(), os.pipe()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", *QUIET)
        chromium = [str(CHROMIUM), *flags, f"--user-data-dir={profile}"]
        # It reads commands from descriptor 3 and answers on 4.
        command = ["bash", "-c", f'exec "$@" 3<&{commands_out} 4>&{answers_in}', "bash", *chromium]
        with running_process(command, pass_fds=(commands_out, answers_in), stderr=subprocess.DEVNULL) as process:
            os.close(commands_out)
            os.close(answers_in)
            watchdog = threading.Timer(120, process.kill)
            watchdog.start()
            pipe = Pipe(answers_out, commands_in)
            try:
                with pipe.reader, pipe.writer:
                    yield pipe
            finally:
                watchdog.cancel()


def painted(page: Path, *, width: int, dark: bool = False) -> Painted:
    """The page, loaded at a width as a phone or a desktop would, with every fold open."""
    with browser() as pipe:
        target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
        pipe.session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            pipe.call(f"{domain}.enable")
        pipe.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        pipe.call("Emulation.setEmulatedMedia", features=[scheme])
        pipe.events.clear()
        pipe.call("Page.navigate", url=page.resolve().as_uri())
        pipe.wait_for("Page.loadEventFired")
        pipe.value("document.querySelectorAll('details').forEach((fold) => { fold.open = true })")
        seen = Painted(width=pipe.value("document.documentElement.scrollWidth"), too_wide=pipe.value(TOO_WIDE))
        shot = pipe.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        seen.png = base64.b64decode(shot["data"])
        for event in pipe.events:
            if event["method"] == "Network.requestWillBeSent":
                seen.requests.append(event["params"]["request"]["url"])
            if event["method"] in COMPLAINTS:
                seen.complaints.append(json.dumps(event["params"]))
        return seen

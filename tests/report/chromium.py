"""A headless Chromium spoken to over its own pipes (DevTools protocol), so that pages are tested as they are read.

Browser   one process with one page; `problems` is every console error, exception, dialog and refused request
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 60  # seconds for one answer: a loaded machine starts a browser slowly


class Browser:
    def __init__(self, folder: Path) -> None:
        assert PROGRAM
        here, there = _pipe(), _pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars"
        arguments = [PROGRAM, *flags.split(), "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        quiet = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((here[0], 3), (there[1], 4), (quiet, 1), (quiet, 2))]
        self.pid = os.posix_spawn(PROGRAM, arguments, os.environ, file_actions=actions, setpgroup=0)
        for fd in (here[0], there[1], quiet):
            os.close(fd)
        self._to, self._from = here[1], there[0]
        self._unread, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, *, width: int, dark: bool = False, media: str = "") -> None:
        """The page as a window of `width` pixels shows it; `media` "print" as paper would."""
        self.events.clear()
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, which the page's own policy doesn't bind."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """A mouse's press and release in the middle of the element."""
        script = """(() => {{
            const e = document.querySelector({});
            e.scrollIntoView({{block: "center", behavior: "instant"}});
            const b = e.getBoundingClientRect();
            return [b.x + b.width / 2, b.y + b.height / 2];
        }})()"""
        x, y = self.run(script.format(json.dumps(selector)))
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, text: str = "", code: int = 0) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, top: int = 0, height: int = 0) -> None:
        width, whole = self.run("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": min(height or whole, whole - top), "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    @property
    def problems(self) -> list[str]:
        found = []
        self.run("0")  # what happened before this is on the way
        for event in self.events:
            method, about = event["method"], event["params"]
            bad_log = method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning")
            bad_call = method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert")
            asked = method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:"))
            thrown = method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening", "Network.loadingFailed")
            if bad_log or bad_call or asked or thrown:
                found.append(f"{method}: {json.dumps(about)[:300]}")
        return found

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._to)
        os.close(self._from)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0, end - time.monotonic()))
            block = os.read(self._from, 1 << 20) if ready else b""
            if not block:
                raise TimeoutError("Chromium doesn't answer")
            self._unread += block
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    window = Browser(folder)
    try:
        yield window
    finally:
        window.close()


def _pipe() -> tuple[int, int]:
    """Both ends above 9: 3 and 4 are where Chromium looks."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]

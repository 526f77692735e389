"""The harness's side of child.py: runs that start in milliseconds and can be struck at a chosen moment.

Server   start(argv) -> Trial, start(argv, gate=place) -> one that stands there; call("module:function", ...) -> JSON
Trial    a run under way: its phases as they come, signals for it, how it ended
Ended    exit code, seconds, output
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from robustness.faulty.phases import PHASES, STEP, Interval, timeline
from robustness.faulty.shim import NO_FAULT, Fault, build

TESTS = Path(__file__).parents[2]
AT_MOST = 120.0  # seconds, after which a run counts as hung


class Ended(NamedTuple):
    """code: negative for the signal that ended it; steps: outer steps that began; hung: it had to be ended."""

    code: int
    seconds: float
    out: str
    err: str
    steps: int
    hung: bool = False

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.err


class Trial:
    """marks: (phase, seconds after the start); steps: outer steps that began."""

    def __init__(self, server: "Server", pid: int, line: socket.socket) -> None:
        self.server, self.pid, self.line = server, pid, line
        self.started = time.monotonic()
        self.marks: list[tuple[str, float]] = []
        self.steps, self.over = 0, False

    def reach(self, place: Interval) -> bool:
        """Waits until the run stands at its gate, which is this place; False where it ended first."""
        while not self.over and sum(phase == place.phase for phase, _ in self.marks) <= place.occurrence:
            if not self._listen(AT_MOST):
                return False
        return not self.over

    def pause(self, seconds: float) -> bool:
        """False where the run ended meanwhile."""
        until = time.monotonic() + seconds
        while not self.over and (left := until - time.monotonic()) > 0:
            self._listen(left)
        return not self.over

    def release(self) -> None:
        with suppress(OSError):  # it has ended
            self.line.send(b"\0")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)  # a pid that nobody has waited for yet is still its own

    def ended(self) -> Ended:
        """Waits for the end; a run that hangs is ended."""
        hung = False
        while not self.over:
            if not self._listen(AT_MOST):
                hung = not self.over
                self.signal(signal.SIGKILL)
        seconds = time.monotonic() - self.started
        self.line.close()
        code = self.server.ask({"wait": self.pid})
        texts = [Path(path).read_text(errors="replace") for path in self.server.outputs]
        return Ended(code, seconds, *texts, self.steps, hung)

    @property
    def phase(self) -> str:
        """The last that it told of."""
        while not self.over and self._listen(0):
            pass
        return self.marks[-1][0] if self.marks else PHASES[0]

    def intervals(self) -> list[Interval]:
        return timeline(self.marks, time.monotonic() - self.started)

    def _listen(self, seconds: float) -> bool:
        """Whether anything came."""
        if not select.select([self.line], [], [], seconds)[0]:
            return False
        told, now = self._told(), time.monotonic() - self.started
        self.over = not told
        self.steps += told.count(STEP)
        self.marks += [(PHASES[byte], now) for byte in told if byte != STEP]
        return True

    def _told(self) -> bytes:
        try:
            return self.line.recv(4096)
        except ConnectionResetError:  # it ended, and had not read what releases it
            return b""


class Server:
    """A context. folder: for outputs, logs and the library; the runs' own folders are elsewhere."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / "calls"
        self.outputs = str(folder / "out"), str(folder / "err")
        self.line, theirs = socket.socketpair()
        paths = [*map(str, (TESTS, TESTS.parent / "benchmarks")), os.environ.get("PYTHONPATH", "")]
        own = {"LD_PRELOAD": str(build(folder)), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "robustness.faulty.child", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, **own, **environment})
        theirs.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()
        self.process.wait()

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> Any:
        socket.send_fds(self.line, [json.dumps(request).encode()], list(descriptors))
        answer = b""
        while not answer.endswith(b"\n"):
            part = self.line.recv(2**16)
            if not part:
                raise RuntimeError("the process that forks runs has ended")
            answer += part
        return json.loads(answer)

    def start(self, argv: Sequence[str], *, gate: Interval | None = None, **options: Any) -> Trial:
        """options: of a request to the child, but for those that are None."""
        request = {"run": list(argv), "out": self.outputs[0], "err": self.outputs[1]}
        if gate:
            request["gate"] = [gate.phase, gate.occurrence]
        return self._started(request | {name: value for name, value in options.items() if value is not None})

    def import_all_of(self, modules: Path) -> None:
        """What a run has imported, so that later ones find it there."""
        self.ask({"import": json.loads(modules.read_text())})

    def watched(self, under: Path, fault: Fault = NO_FAULT, *, with_data: bool = False) -> dict[str, Any]:
        """`shim` of a start: calls below `under` are logged to self.log."""
        return {"under": str(under), "log": str(self.log), "fault": fault, "with_data": with_data}

    def call(self, function: str, *arguments: Any) -> Any:
        """Its JSON. Raises RuntimeError with what it printed where it failed."""
        answer = self.folder / "answer"
        request = {"call": function, "arguments": arguments, "answer": str(answer)}
        ended = self._started(request | {"out": self.outputs[0], "err": self.outputs[1]}).ended()
        if ended.code:
            raise RuntimeError(f"{function} ended with {ended.code}:\n{ended.err}")
        return json.loads(answer.read_text(encoding="utf-8"))

    def _started(self, request: dict[str, Any]) -> Trial:
        ours, theirs = socket.socketpair()
        pid = self.ask(request, [theirs.fileno()])
        theirs.close()
        return Trial(self, pid, ours)

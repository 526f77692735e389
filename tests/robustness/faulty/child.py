"""A process that has imported everything and forks a child for each run: python -m robustness.faulty.child DESCRIPTOR

It answers one request at a time on a socket, each one line of JSON:

{"run": argv, ...}    forks; the child is the command line with these arguments. Answer: its pid
    out, err          files for its output
    observe           a line came with the request: the child tells on it which phase it is in
    gate              [phase, occurrence]: the child stands there until a byte comes on that line
    shim              arguments of `shim.arm`
    traced            the child waits until somebody traces it
    modules           a file for the names of all modules that were imported at the end
{"call": "module:function", "arguments": [...], "answer": file}    the same for a function, whose JSON goes to the file
{"wait": pid}         answer: its exit code, negative for the signal that ended it
{"import": modules}   imports what a run imports late. Answer: how many

A child has a signal's default actions, its own output, and one thread; it ends without running this process's exits.
"""

import atexit
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustness.faulty import phases, shim

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def serve(line: socket.socket) -> None:
    import torch

    torch.set_num_threads(1)
    for module in ("innerloop.cli", "innerloop.runs.meta_train", "transformers", "peft"):
        importlib.import_module(module)
    while True:
        text, descriptors, _, _ = socket.recv_fds(line, 2**20, 1)
        if not text:
            return
        request = json.loads(text)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif "import" in request:
            answer = sum(_imported(name) for name in request["import"])
        else:
            answer = _forked(line, request, descriptors)
        line.sendall(json.dumps(answer).encode() + b"\n")


def _imported(name: str) -> bool:
    if name in sys.modules:
        return False
    with suppress(Exception):  # some modules are not there to be imported by name
        importlib.import_module(name)
        return True
    return False


def _forked(line: socket.socket, request: dict[str, Any], descriptors: list[int]) -> int:
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    code = 70  # of this module itself
    try:
        line.close()
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        _redirect(request["out"], request["err"])
        if "shim" in request:
            shim.arm(**{**request["shim"], "fault": shim.Fault(*request["shim"]["fault"])})
        for told in descriptors:
            os.set_inheritable(told, False)
            phases.observe(told, tuple(request["gate"]) if "gate" in request else None)
        while "traced" in request and "TracerPid:\t0" in Path("/proc/self/status").read_text():
            time.sleep(0.01)
        code = _ended(lambda: _command(request["run"]) if "run" in request else _call(request))
        if "modules" in request:
            Path(request["modules"]).write_text(json.dumps(list(sys.modules)))
    except Exception:
        traceback.print_exc()  # such as a function to observe that is no longer where it was
    finally:
        os._exit(code)


def _redirect(out: str, err: str) -> None:
    for number, path in enumerate((os.devnull, out, err)):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)


def _command(argv: list[str]) -> None:
    from innerloop.cli import main

    sys.argv = ["innerloop", *argv]
    main()


def _call(request: dict[str, Any]) -> None:
    module, function = request["call"].split(":")
    answer = getattr(importlib.import_module(module), function)(*request["arguments"])
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def _ended(work: Callable[[], None]) -> int:
    """What the interpreter would end with."""
    code = 0
    try:
        work()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        atexit._run_exitfuncs()  # pyright: ignore[reportAttributeAccessIssue]
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:
        code = 130
    except OSError:
        code = 120
    return code


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

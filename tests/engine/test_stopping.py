"""A signal drops the piece at hand and nothing else: what is held ends first, what was swallowed is raised later."""

# ruff: noqa: PT012 (how far a block came is what these tests are about)

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from innerloop.engine.stopping import SIGNALS, Stopped, held, raise_if_stopped, stoppable
from innerloop.errors import ResumableError


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_raised_where_the_program_is(number: int) -> None:
    after: list[str] = []
    with stoppable(), pytest.raises(Stopped, match=signal.Signals(number).name):
        send(number)
        after.append("not reached")
    assert not after


def test_it_passes_by_whoever_catches_errors() -> None:
    caught: list[Exception] = []
    with stoppable(), pytest.raises(KeyboardInterrupt):
        try:
            send(signal.SIGTERM)
        except Exception as error:
            caught.append(error)
    assert not caught


def test_what_is_held_ends_first() -> None:
    done: list[str] = []
    with stoppable(), pytest.raises(Stopped):
        with held():
            with held():
                send(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("not reached")
    assert done == ["inner", "outer"]


def test_saving_after_a_stop_is_not_stopped_again() -> None:
    saved: list[str] = []
    with stoppable(), suppress(Stopped):
        try:
            send(signal.SIGTERM)
        except Stopped:
            with held():
                saved.append("checkpoint")
            raise
    assert saved == ["checkpoint"]


def test_what_a_destructor_swallowed_is_raised_at_the_next_look() -> None:
    class Swallows:
        def __del__(self) -> None:
            with suppress(KeyboardInterrupt):
                send(signal.SIGTERM)

    with stoppable(), pytest.raises(Stopped, match="SIGTERM"):
        raise_if_stopped()
        Swallows()
        raise_if_stopped()


def test_a_destructor_that_is_stopped_says_nothing_and_one_that_fails_does() -> None:
    script = (
        "import os, signal; from innerloop.engine.stopping import raise_if_stopped, stoppable\n"
        "class Stops:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGTERM)\n"
        "class Fails:\n"
        "    def __del__(self): raise ValueError('zork')\n"
        "with stoppable():\n"
        "    Stops(); Fails()\n"
        "    try: raise_if_stopped()\n"
        "    except KeyboardInterrupt: print('stopped')\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (0, "stopped\n")
    assert "zork" in child.stderr
    assert "Stopped" not in child.stderr


def test_a_process_that_takes_itself_down_is_not_disturbed() -> None:
    script = (
        "import atexit, os, signal\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"  # called last: later ones go first
        "from innerloop.engine.stopping import stoppable\n"
        "with stoppable(second_ends=True): pass\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    control = script.replace("second_ends=True", "second_ends=False")
    assert subprocess.run([sys.executable, "-c", control], check=False).returncode == -signal.SIGTERM


def test_outside_nothing_is_changed() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stoppable():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        with stoppable():
            pass
        assert [signal.getsignal(number) for number in SIGNALS] != before, "the outer block's end is the end"
    assert [signal.getsignal(number) for number in SIGNALS] == before
    raise_if_stopped()


def test_a_new_block_knows_of_no_earlier_signal() -> None:
    with suppress(Stopped), stoppable():
        send(signal.SIGTERM)
    with stoppable():
        raise_if_stopped()


def test_other_threads_are_left_alone() -> None:
    found: list[object] = []

    def look() -> None:
        with stoppable():
            found.append(signal.getsignal(signal.SIGTERM))

    before: Callable[..., object] | int | None = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("second_ends", [True, False])
def test_a_second_signal_ends_the_process_where_that_is_asked_for(second_ends: bool) -> None:
    script = (
        "import os, signal; from innerloop.engine.stopping import held, stoppable\n"
        f"with stoppable(second_ends={second_ends}):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except KeyboardInterrupt:\n"
        "        with held():\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            print('saved', flush=True)\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (child.returncode == ResumableError.exit_code, "saved" in child.stdout) == (second_ends, not second_ends)

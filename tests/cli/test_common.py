"""What the verbs share: a document or lines, how a signal ends them, and when garbage is looked for."""

import gc
import json

import pytest

from innerloop.cli.common import resumable, say, uncollected
from innerloop.errors import ResumableError


def test_programs_get_one_document_and_people_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say({"a": [1, None]}, "a is 1\nand nothing", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": [1, None]}
    say({"a": [1, None]}, "a is 1\nand nothing", as_json=False)
    assert capsys.readouterr().out == "a is 1\nand nothing\n"


def test_a_signal_ends_a_verb_with_where_it_was_and_what_goes_on() -> None:
    with (
        pytest.raises(ResumableError, match=r"^stopped by SIGTERM at step 3: the same command$") as stopped,
        resumable("the same command", lambda: " at step 3"),
    ):
        raise KeyboardInterrupt("SIGTERM")
    assert stopped.value.exit_code == 75
    with pytest.raises(ValueError, match="else"), resumable("the same command"):
        raise ValueError("else")


def test_no_garbage_is_looked_for_meanwhile_and_what_was_made_stays() -> None:
    try:
        with uncollected():
            assert not gc.isenabled()
            before = gc.get_freeze_count()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
        gc.enable()

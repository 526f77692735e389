"""Answers to a file of prompts, and a conversation in a real terminal."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from innerloop.runs.reloading import load_run
from record_files import write
from small_runs import SUPPORT, Cli, Runs

PROMPTS = ["eve 1:", "eve +2:"]


@pytest.fixture
def trained(runs: Runs) -> Path:
    return runs("fomaml-lora").folder


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return write(tmp_path / "eve.jsonl", *SUPPORT)


def test_answers_are_those_of_the_adapted_values(cli: Cli, trained: Path, examples: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("\n".join([PROMPTS[0], "", PROMPTS[1]]) + "\n")
    output = tmp_path / "answers.jsonl"
    how = ["--examples", examples, "--output", output, "--max-new-tokens", "5"]
    assert cli("generate", trained, tmp_path / "asked.txt", *how).code == 0
    pairs = [json.loads(line) for line in output.read_text().splitlines()]
    expected = load_run(trained).adapt(examples).generate(PROMPTS, max_new_tokens=5)
    assert pairs == [{"prompt": prompt, "answer": answer} for prompt, answer in zip(PROMPTS, expected, strict=True)]
    assert cli("generate", trained, tmp_path / "asked.txt", *how).code == 2  # nothing is overwritten


def test_without_examples_the_values_are_the_shared_ones(cli: Cli, trained: Path, tmp_path: Path) -> None:
    asked = write(tmp_path / "asked.jsonl", {"prompt": PROMPTS[0]})
    (found,) = json.loads(cli("generate", trained, asked, "--max-new-tokens", "5", "--json").out)
    (expected,) = load_run(trained).unadapted.generate([{"prompt": PROMPTS[0]}], max_new_tokens=5)
    assert found == {"prompt": {"prompt": PROMPTS[0]}, "answer": expected}


def test_what_can_not_be_asked_ends_with_2(cli: Cli, trained: Path, tmp_path: Path) -> None:
    for name, text in (("empty.txt", "\n \n"), ("broken.jsonl", "{"), ("number.jsonl", "3\n")):
        (tmp_path / name).write_text(text)
        assert cli("generate", trained, tmp_path / name).code == 2
    assert cli("generate", trained, tmp_path / "gone.txt").code == 2
    assert cli("generate", tmp_path, tmp_path / "number.jsonl").code == 2
    assert cli("chat", trained, "--examples", tmp_path / "gone.jsonl").code == 2


def test_a_terminal_is_answered_line_by_line(trained: Path, examples: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "innerloop", "chat", str(trained), "--examples", str(examples)]
    with subprocess.Popen([*command, "--max-new-tokens", "3"], stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        said = _read_until(ours, "\n> ")
        assert "Ctrl-D ends it" in said
        os.write(ours, f"{PROMPTS[0]}\n".encode())
        (expected,) = load_run(trained).adapt(examples).generate(PROMPTS[:1], max_new_tokens=3)
        assert expected.strip() in _read_until(ours, "\n> ")
        os.write(ours, b"/new\n")
        _read_until(ours, "> ")
        os.write(ours, b"\n")
        assert child.wait(60) == 0
        os.close(ours)


def _read_until(terminal: int, end: str) -> str:
    said = ""
    while not said.replace("\r", "").endswith(end):
        said += os.read(terminal, 4096).decode()
    return said

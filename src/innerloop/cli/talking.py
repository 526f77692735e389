"""The verbs that ask what was learned: answers to a file of prompts, and a conversation in the terminal.

generate   a file of prompts -> their answers
chat       one prompt after the other, typed
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innerloop.cli.common import Json, Run, say, uncollected
from innerloop.errors import Fault, UserError
from innerloop.progress import Busy, busy

if TYPE_CHECKING:
    from innerloop.runs.adapted import Adapted

TOGETHER = 16  # prompts that are answered at a time
HELP = "an empty line or Ctrl-D ends it; /new begins a new conversation"

Examples = Annotated[Path | None, typer.Option(help="Examples to adapt to first; by default none.")]
Base = Annotated[str | None, typer.Option(help="Where the run's base model is now, if it was moved.")]
Longest = Annotated[int, typer.Option(min=1, help="The most tokens that an answer may have.")]


def generate(
    run: Run,
    prompts: Annotated[Path, typer.Argument(help="JSONL records without answers, or text with one prompt per line.")],
    examples: Examples = None,
    output: Annotated[
        Path | None, typer.Option(help="JSONL file for the answers; by default they are printed.")
    ] = None,
    max_new_tokens: Longest = 64,
    base: Base = None,
    json_: Json = False,
) -> None:
    """Answer a file of prompts."""
    if output and output.exists():
        raise UserError(Fault("this file is there already", "--output", str(output), "another name"))
    asked = _prompts(prompts)
    with busy(f"reading {run}") as now, uncollected():
        adapted, answers = _adapted(run, examples, base, now), list[str]()
        for start in range(0, len(asked), TOGETHER):
            now.say("answering", start, len(asked))
            answers += adapted.generate(asked[start : start + TOGETHER], max_new_tokens=max_new_tokens)
    pairs = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(asked, answers, strict=True)]
    if output:
        from innerloop.files import write_text

        write_text(output, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
        say({"written": str(output), "answers": len(pairs)}, f"wrote {output}: {len(pairs)} answers", as_json=json_)
    else:
        say(pairs, "\n".join(f"{pair['prompt']!r} -> {pair['answer']!r}" for pair in pairs), as_json=json_)


def chat(run: Run, examples: Examples = None, max_new_tokens: Longest = 256, base: Base = None) -> None:
    """Chat with a run's model, adapted to some examples: your text is put into their form."""
    with busy(f"reading {run}") as now, uncollected():
        adapted = _adapted(run, examples, base, now)
    turns, talks = list[dict[str, str]](), adapted.form in ("messages", None)
    print(f"{adapted.learned!r}\n{HELP}")
    for typed in _typed():
        if typed == "/new":
            turns.clear()
            continue
        asked = [*turns, {"role": "user", "content": typed}]
        (answer,) = adapted.generate([asked if talks else typed], max_new_tokens=max_new_tokens)
        print(answer, flush=True)
        turns = [*asked, {"role": "assistant", "content": answer}]


def _adapted(run: Path, examples: Path | None, base: str | None, now: Busy) -> "Adapted":
    from innerloop.artifacts.finished import finished
    from innerloop.runs.reloading import load_run

    if examples and not examples.exists():
        raise UserError(Fault("there is no such file", str(examples)))
    finished(run)
    now.say("loading the model")
    learned = load_run(run, base=base)
    if examples is None:
        return learned.unadapted
    now.say("adapting")
    return learned.adapt(examples)


def _prompts(path: Path) -> Sequence[Any]:
    """A record per line of JSONL, else each line that isn't empty. Raises UserError for what can't be read."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        found = [json.loads(line) for line in lines] if path.suffix == ".jsonl" else lines
    except OSError as error:
        raise UserError(Fault(f"can't be read: {error.strerror}", str(path))) from None
    except (ValueError, RecursionError) as error:
        raise UserError(Fault(f"not JSONL: {error}", str(path))) from None
    if not found:
        raise UserError(Fault("no prompt", str(path), expected="a prompt per line"))
    return found


def _typed() -> Iterator[str]:
    """What is typed, line by line."""
    while True:
        print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        yield line.strip()

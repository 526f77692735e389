"""innerloop beside other ways to take the same step: SmolLM2-135M, float32, LoRA r=16 on all linears, this machine.

    python benchmarks/race.py --gsm8k FOLDER --output benchmarks/results/race.json    (an hour on two cores)
    python benchmarks/race.py --table                                                 (of that file)

A meta-step is fomaml-lora's: 8 tasks x (3 + 1) passes x 4 examples of at most 64 tokens, SGD inside, AdamW outside, no
clipping. A step of `lora` has 8 examples of GSM8K (FOLDER has its train.jsonl), at most 512 tokens. innerloop runs as a
user's run does (ours.py); the others are in contenders.py and trainers.py, and every one pads the examples of a task
to their longest. What can't be imported is left out and says so: `pip install torchopt trl`, and for learn2learn's
MAML class its unpacked source archive on PYTHONPATH, as the package doesn't build any more.

mixed lengths   the examples of a task are drawn from hidden-rules and math-science, as many from each
2 of its tasks  a step of 2 tasks, and the slower contenders too
equal lengths   64 random tokens each, a quarter of them scored
trunk, last-8   LoRA on the last 8 layers, hidden states below them cached and warm; lengths as in the first row
trunk, last-4   and on the last 4
lora, GSM8K     no meta-learning: one adapter

A contender is timed only after it gave innerloop's loss and outer gradient on the same batch: to 1e-5, relative, the
gradient's difference by its norm. TRL's softmax is finer than torch's, whose own rounding moves the gradient of a batch
of GSM8K by 2e-4: for that check innerloop's is as fine. Then all take turns on the same batches, in one process:
innerloop, one contender, the next; innerloop again. Medians are compared; beside their ratio are the least and the
greatest of a turn's. The file is written after each turn.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from contenders import FastWeights, Learn2learn, LossAndGradient, Naive, TorchOpt, gap, rows_of
from ours import LORA, META, Ours, Racer, equal, gsm8k, lengths, meta_tasks, mixed, session
from ours import MODEL as NAME
from record import header

from innerloop.data.encoding import EncodedTask
from innerloop.files import write_text
from innerloop.loading.models import LoadedModel, load

RESULT = Path(__file__).parent / "results" / "race.json"
TOLERANCE = 1e-5
NAIVE, FUNCTIONAL, UNCACHED, ALL_LAYERS, TRL = (
    "clone for each task",
    "functional_call",
    "innerloop, no cache",
    "innerloop, all layers",
    "TRL SFTTrainer",
)
METALEARNERS: dict[str, Callable[..., Racer]] = {
    NAIVE: Naive,
    FUNCTIONAL: FastWeights,
    "TorchOpt": TorchOpt,
    "learn2learn": Learn2learn,
}
TWO = {name: METALEARNERS[name] for name in (NAIVE, FUNCTIONAL)}  # the fastest: a step of 8 tasks takes a minute
AT_LEAST = {  # (row, contender) -> how many times as fast innerloop is to be; elsewhere it is not to be slower
    ("mixed lengths", NAIVE): 2.0,
    ("mixed lengths", FUNCTIONAL): 1.5,
    ("equal lengths", NAIVE): 1.5,
    ("equal lengths", FUNCTIONAL): 1.3,
    ("trunk, last-8", UNCACHED): 1.8,
    ("trunk, last-8", NAIVE): 3.2,
    ("trunk, last-4", UNCACHED): 2.5,
    ("trunk, last-4", NAIVE): 4.5,
    ("trunk, last-4", ALL_LAYERS): 3.0,
    ("lora, GSM8K", "transformers Trainer"): 1.2,
    ("lora, GSM8K", TRL): 1.2,
}


class UnequalError(Exception):
    """A contender that does not take the same step: it isn't timed."""


class Row(NamedTuple):
    """others: what makes each; unlike: those among them that train other values, so that no gradient is compared;
    finer: whose softmax is finer than torch's."""

    ours: Ours
    data: dict[str, Any]
    others: dict[str, Callable[[], Racer]]
    unlike: tuple[str, ...] = ()
    finer: tuple[str, ...] = ()


def same(ours: LossAndGradient, theirs: LossAndGradient) -> dict[str, float]:
    """How far the two are apart. Raises UnequalError."""
    found = gap(ours, theirs)
    if not max(found.values()) <= TOLERANCE:
        raise UnequalError(f"another loss or gradient than innerloop's: {found}")
    return found


def compete(row: Row, *, repeats: int, keep: Callable[[dict[str, Any]], None]) -> None:
    """`keep` is given name -> result after the checks and after each turn."""
    found: dict[str, Any] = {}
    racers: dict[str, Racer] = {}
    references: dict[bool, LossAndGradient] = {}
    for name, make in row.others.items():
        try:
            racer = make()
            gradient = racer.gradient(0)  # also a pass before it is timed
            finer = name in row.finer
            if finer not in references:
                references[finer] = row.ours.gradient(0, finer=finer)
            found[name] = {
                "gap": None if name in row.unlike else same(references[finer], gradient),
                "note": racer.note,
            }
            racers[name] = racer
        except Exception as error:  # of somebody else's code: said in the table, and the others go on
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    keep(found)
    own: list[float] = []
    for index in range(repeats):
        own.append(row.ours.seconds(index))
        for name, racer in racers.items():
            found[name].setdefault("seconds", []).append(racer.seconds(index))
            found[name] |= compared(own, found[name]["seconds"])
        keep(found)


def compared(own: list[float], other: list[float]) -> dict[str, Any]:
    ratios = [theirs / ours for ours, theirs in zip(own, other, strict=True)]
    return {
        "ours": list(own),
        "ratio": statistics.median(other) / statistics.median(own),
        "least": min(ratios),
        "greatest": max(ratios),
    }


def meta_row(ours: Ours, kinds: dict[str, Callable[..., Racer]], repeats: int) -> Row:
    batches = [ours.batches[index] for index in range(repeats)]
    rounds = [meta_tasks(batch) for batch in batches]

    def maker(kind: Callable[..., Racer]) -> Callable[[], Racer]:
        return lambda: ours.contender(kind, rounds, META)

    data = lengths(batches, tasks_per_forward=ours.trainer.tasks_per_forward)
    return Row(ours, data, {name: maker(kind) for name, kind in kinds.items()})


def trunk_row(model: LoadedModel, tasks: list[EncodedTask], layers: str, repeats: int) -> Row:
    ours = Ours(session(model, tasks, layers=layers, trunk_cache=True))
    for index in range(repeats):
        ours.gradient(index)  # fills the cache
    row = meta_row(ours, {NAIVE: Naive}, repeats)
    more: dict[str, Callable[[], Racer]] = {
        UNCACHED: lambda: Ours(session(model, tasks, layers=layers)),
        ALL_LAYERS: lambda: Ours(session(model, tasks)),
    }
    return row._replace(others=row.others | more, unlike=(ALL_LAYERS,))


def lora_row(model: LoadedModel, folder: Path, repeats: int) -> Row:
    from trainers import HuggingFace, Trl

    ours = Ours(gsm8k(model, folder), steps=LORA.steps)
    batches = [ours.batches[index] for index in range(repeats * LORA.steps)]
    rounds = [rows for batch in batches for rows in rows_of(batch.batches[0])]

    def maker(kind: Callable[..., Racer]) -> Callable[[], Racer]:
        return lambda: ours.contender(lambda *a, **o: kind(*a, **o, tokenizer=model.tokenizer), rounds, LORA)

    data = lengths(batches, tasks_per_forward=None)
    return Row(ours, data, {"transformers Trainer": maker(HuggingFace), TRL: maker(Trl)}, finer=(TRL,))


ROWS: dict[str, Callable[[LoadedModel, int, Path | None], Row]] = {
    "mixed lengths": lambda model, n, _: meta_row(Ours(session(model, mixed(model))), TWO, n),
    "2 of its tasks": lambda model, n, _: meta_row(Ours(session(model, mixed(model), tasks=2)), METALEARNERS, n),
    "equal lengths": lambda model, n, _: meta_row(Ours(session(model, equal(model))), TWO, n),
    "trunk, last-8": lambda model, n, _: trunk_row(model, mixed(model), "last-8", n),
    "trunk, last-4": lambda model, n, _: trunk_row(model, mixed(model), "last-4", n),
    "lora, GSM8K": lambda model, n, folder: lora_row(model, cast(Path, folder), n),
}


def race(name: str, row: Row, environment: dict[str, Any], repeats: int, keep: Callable[[Any], None]) -> None:
    """`keep` is given the row as far as it is known."""
    facts = {"environment": environment, "threads": torch.get_num_threads(), "ours": row.ours.note, "data": row.data}
    found: dict[str, Any] = {}

    def keep_row(results: dict[str, Any]) -> None:
        found.update(results)
        keep(facts | {"contenders": found})

    print(f"\n{name}: {row.ours.note}, {json.dumps(row.data)}", flush=True)
    compete(row, repeats=repeats, keep=keep_row)
    for contender, result in found.items():
        print(f"  {contender:22} {_said(result)}", flush=True)


def _said(result: dict[str, Any]) -> str:
    if "error" in result:
        return result["error"]
    own, other = (statistics.median(result[side]) for side in ("ours", "seconds"))
    return (
        f"{other:6.2f} s, ours {own:6.2f} s: {result['ratio']:.2f}x ({result['least']:.2f} to {result['greatest']:.2f})"
    )


def race_table(results: dict[str, Any]) -> list[str]:
    """Markdown lines: every pair, wins and losses alike."""
    lines = [
        "| row | against | theirs, s | ours, s | ratio | least to greatest | aim |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, found in results["rows"].items():
        for contender, result in found["contenders"].items():
            aim = f"{AT_LEAST.get((name, contender), 1.0):g}x"
            if "ratio" not in result:
                lines.append(
                    f"| {name} | {contender} | | | not raced: {result.get('error', 'no turn yet')} | | {aim} |"
                )
                continue
            own, other = (statistics.median(result[side]) for side in ("ours", "seconds"))
            span = f"{result['least']:.2f} to {result['greatest']:.2f}"
            lines.append(
                f"| {name} | {contender} | {other:.2f} | {own:.2f} | {result['ratio']:.2f}x | {span} | {aim} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="rows of it that are not raced again stay")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gsm8k", type=Path, help="a folder with GSM8K's train.jsonl; else that row is left out")
    parser.add_argument("--table", action="store_true", help=f"only print the table of --output, or of {RESULT.name}")
    options = parser.parse_args()
    if options.table:
        print("\n".join(race_table(json.loads((options.output or RESULT).read_text()))))
        return
    rows = json.loads(options.output.read_text())["rows"] if options.output and options.output.exists() else {}
    model = load(NAME)
    environment = header(model)  # once: the file that is written may be one of the commit's

    def keep(found: dict[str, Any]) -> None:
        rows[name] = found
        if options.output:
            whole = {"rows": {key: rows[key] for key in ROWS if key in rows}}
            write_text(options.output, json.dumps(whole, indent=2) + "\n")

    for name in options.rows:
        if name == "lora, GSM8K" and options.gsm8k is None:
            print(f"\n{name}: left out, for want of --gsm8k FOLDER")
            continue
        race(name, ROWS[name](model, options.repeats, options.gsm8k), environment, options.repeats, keep)


if __name__ == "__main__":
    main()

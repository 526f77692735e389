"""What 8 examples buy on tasks that training never saw: Std LoRA, joint LoRA and META-LORA, adapted in every way.

    python examples/demo.py [--seed 7] [--output runs/demo] [--json results.json]

META-LORA and joint LoRA are trained on equally many tokens; Std LoRA starts from the base model. Then every one of the
three meets each held-out task with the same 8 examples, in four ways:

    no step      as it stands; for Std LoRA that is the base model, whose answer may end at a blank line
    META-LORA's  the inner loop that META-LORA was trained for
    tuned        learning rate and number of steps chosen for each arm on validation tasks, from one grid
    in context   the 8 examples in the prompt, no step
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from innerloop.config.loading import RunConfig, load_config
from innerloop.engine.session import Session, prepare
from innerloop.evaluation.in_context import in_context_task
from innerloop.evaluation.kshot import (
    Grid,
    TaskScore,
    adapt_and_score,
    choose,
    draw_support,
    mean_correct,
    mean_nats,
)
from innerloop.files import write_text
from innerloop.learning.inner_loop import InnerLoop
from innerloop.runs.header import header_of
from innerloop.runs.learned import Learned
from innerloop.runs.meta_train import meta_train

CONFIG = Path(__file__).with_name("demo.yaml")
SHOTS = 8
GRID = Grid(lrs=(3e-3, 1e-2), steps=(3, 10))
STD, JOINT, META = "Std LoRA", "joint LoRA", "META-LORA"
NO_STEP, OWN, TUNED, IN_CONTEXT = "no step", "META-LORA's", "tuned", "in context"
MEASURED = "benchmarks/results/demo.json"


class Cell(NamedTuple):
    """One arm under one adaptation: the steps it took, and its score on each held-out task."""

    inner: InnerLoop
    scores: list[TaskScore]


Cells = dict[tuple[str, str], Cell]  # (arm, adaptation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="numbered if it is taken")
    parser.add_argument("--json", type=Path, help="write the table as JSON, too")
    options = parser.parse_args()
    console, started = Console(), time.perf_counter()
    console.print("loading SmolLM2-135M (the first time, its weights are unpacked: half a minute)", highlight=False)
    folder = free_folder(options.output)
    config = load_config(CONFIG, [f"seed={options.seed}", f"output_dir={folder}"])
    session = prepare(config)
    console.print("\n".join(header_of(session).lines()), highlight=False)
    cells = run(session, joint_config(config, session), console)
    seconds = time.perf_counter() - started
    result = {"seed": options.seed, "seconds": round(seconds, 1), **as_json(cells)}
    for place in filter(None, (folder / "demo.json", options.json)):
        write_text(place, json.dumps(result, indent=2) + "\n")
    show(console, cells)
    console.print(
        f"{seconds / 60:.1f} minutes. The adapter (PEFT format), manifest.json and metrics.jsonl are in {folder}/"
    )


def run(session: Session, joint: RunConfig, console: Console) -> Cells:
    """Train both shared LoRAs, adapt all three in every way, score the held-out tasks; one bar over all of it."""
    model, store, encoder, section = session.model, session.store, session.encoder, session.config.method.inner
    assert section is not None
    seed, held_out, own = session.config.seed, session.held_out, section.build()
    supports = [draw_support(task, SHOTS, seed=seed) for task in held_out]
    prompted = [in_context_task(task, support, encoder) for task, support in zip(held_out, supports, strict=True)]
    bare = [in_context_task(task, (), encoder) for task in held_out]
    no_support = [()] * len(held_out)
    with bar(console) as progress:
        task = progress.add_task("", total=work_in_tokens(session, sum(map(tokens, prompted))))

        def spent(count: int) -> None:
            progress.advance(task, count)

        def doing(what: str) -> None:
            progress.update(task, description=what)

        def trained(arm: str, config: RunConfig) -> Learned:
            doing(f"training {arm}")
            return meta_train(config, model=model, store=store, on_step=lambda _, metrics: spent(metrics.tokens))

        spaces = {STD: session.space()}
        spaces[META] = trained(META, session.config).space  # first: the joint run's folder lies inside this one's
        spaces[JOINT] = trained(JOINT, joint).space
        cells: Cells = {}
        for arm in (STD, JOINT, META):
            space = spaces[arm]
            doing(f"choosing for {arm}")
            best = choose(space, own, GRID, session.validation, k=SHOTS, seed=seed, on_pass=spent)
            doing(f"adapting {arm}")
            for name, inner in ((OWN, own), (TUNED, best)):
                found = adapt_and_score(space, inner, supports, held_out, after=(inner.steps,), on_pass=spent)
                cells[arm, name] = Cell(inner, found[inner.steps])
            doing(f"asking {arm}")
            # The base model was never shown an end token: its answer may end at a blank line.
            for name, tasks in ((NO_STEP, bare if arm == STD else held_out), (IN_CONTEXT, prompted)):
                found = adapt_and_score(space, own, no_support, tasks, after=(0,), on_pass=spent)
                cells[arm, name] = Cell(replace(own, steps=0), found[0])
        progress.update(task, total=1, completed=1, description="done")
    return cells


def joint_config(config: RunConfig, session: Session) -> RunConfig:
    """joint-lora on the same tasks, LoRA and outer loop, for as many steps as META-LORA's tokens give."""
    given = config.resolved()
    outer = {key: value for key, value in given["outer"].items() if key != "joint_steps"}  # which it has nothing but
    method = {"name": "joint-lora", "lora": given["method"]["lora"]}
    given |= {"method": method, "output_dir": f"{config.output_dir}/joint-lora", "outer": outer}
    ratio = header_of(session).tokens_per_step / header_of(replace(session, config=load_config(given))).tokens_per_step
    return load_config(given | {"outer": outer | {"steps": round(config.outer.steps * ratio)}})


def work_in_tokens(session: Session, in_context: int) -> int:
    """About how many tokens go through the model in all, for the time left."""
    tokens_per_step, config = header_of(session).tokens_per_step, session.config
    support = tokens_per_step / config.outer.tasks_per_step / 4  # one task's batch
    validation, held_out = len(session.validation) * support, sum(map(tokens, session.held_out))
    choosing = len(GRID.lrs) * validation * (max(GRID.steps) + 2 * len(GRID.steps))
    adapting = len(session.held_out) * support * (3 + max(GRID.steps)) + 4 * held_out
    return int(2 * config.outer.steps * tokens_per_step + 3 * (choosing + adapting + in_context))


def tokens(task: Any) -> int:
    """Tokens of a task's test examples."""
    return sum(len(example.tokens) for example in task.test)


def bar(console: Console) -> Progress:
    text, left = TextColumn("{task.description}"), TimeRemainingColumn()
    return Progress(text, BarColumn(), TimeElapsedColumn(), TextColumn("time left"), left, console=console)


def free_folder(wanted: Path) -> Path:
    """`wanted`, or `wanted-2`, ...: no earlier result is overwritten."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def as_json(cells: Cells) -> dict[str, Any]:
    """A row for each arm and adaptation, its means, and each held-out task's own."""
    return {
        "shots": SHOTS,
        "cells": [
            {
                "arm": arm,
                "adaptation": adaptation,
                "steps": cell.inner.steps,
                "lr": cell.inner.optimizer.lr if cell.inner.steps else None,
                "nats": mean_nats(cell.scores),
                "exact": mean_correct(cell.scores),
                "tasks": {
                    score.task: {
                        "nats": score.mean_nats,
                        "stop_nats": fmean(score.stop_nats),
                        "exact": score.mean_correct,
                    }
                    for score in cell.scores
                },
            }
            for (arm, adaptation), cell in cells.items()
        ],
    }


def show(console: Console, cells: Cells) -> None:
    """Every arm under every adaptation, both metrics."""
    tasks = len(next(iter(cells.values())).scores)
    title = f"{tasks} unseen tasks, {SHOTS} examples each: loss per answer token (nats), exact answers"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("adapted", no_wrap=True)
    arms = list(dict.fromkeys(arm for arm, _ in cells))
    for arm in arms:
        table.add_column(arm, justify="right", no_wrap=True)
    for adaptation in (NO_STEP, OWN, TUNED, IN_CONTEXT):
        table.add_row(adaptation, *(summary(cells[arm, adaptation]) for arm in arms))
    console.print(table)
    chosen = {arm: cells[arm, TUNED].inner for arm in arms}
    says = ", ".join(f"{arm} {inner.steps} steps at {inner.optimizer.lr:g}" for arm, inner in chosen.items())
    console.print(f"tuned on validation tasks: {says}", highlight=False)
    console.print("Std LoRA without a step is the base model.", highlight=False)
    console.print(
        f"One training seed: these are the scores of these trained values, no verdict about a method. {MEASURED} has "
        "three.",
        highlight=False,
    )


def summary(cell: Cell) -> str:
    return f"{mean_nats(cell.scores):.2f} {mean_correct(cell.scores):4.0%}"


if __name__ == "__main__":
    main()

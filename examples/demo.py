"""What 8 examples buy on tasks that training never saw: base model, Std LoRA, joint LoRA, META-LORA.

    python examples/demo.py [--seed 7] [--output runs/demo] [--json results.json]

META-LORA and joint LoRA go through equally many tokens. Then every arm adapts to each held-out task from the same
8 examples, twice: Std LoRA and META-LORA by META-LORA's own inner loop (equal adaptation), and all three LoRAs
by what validation tasks chose for each of them from one grid (tuned).
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from innerloop.evaluation.kshot import (
    Grid,
    TaskScore,
    adapt_and_score,
    choose,
    draw_support,
    mean_correct,
    mean_nats,
)
from innerloop.learned import Learned
from innerloop.learning.inner_loop import InnerLoop
from innerloop.meta_training import meta_train
from innerloop.runs.config import RunConfig, load_config
from innerloop.runs.journal import write_text
from innerloop.runs.preparation import Session, prepare
from innerloop.runs.training import plan

CONFIG = Path(__file__).with_name("demo.yaml")
SHOTS = 8
GRID = Grid(lrs=(3e-3, 1e-2), steps=(3, 10))
STD, JOINT, META = "Std LoRA", "joint LoRA", "META-LORA"
BASE, TUNED = "base model", "{} tuned"


@dataclass(frozen=True)
class Arm:
    """One column of the table: how it adapts (None = not at all), and its score on each held-out task."""

    inner: InnerLoop | None
    scores: list[TaskScore]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="numbered if it is taken")
    parser.add_argument("--json", type=Path, help="write the table as JSON, too")
    options = parser.parse_args()
    console, started = Console(), time.perf_counter()
    folder = free_folder(options.output)
    config = load_config(CONFIG, [f"seed={options.seed}", f"output_dir={folder}"])
    console.print("loading SmolLM2-135M (the first time, its weights are unpacked: half a minute)", highlight=False)
    session = prepare(config)
    console.print("\n".join(plan(session).lines()), highlight=False)
    arms = run(session, joint_config(config, session), console)
    seconds = time.perf_counter() - started
    result = {"seed": options.seed, "seconds": round(seconds, 1), **as_json(arms)}
    write_text(folder / "demo.json", json.dumps(result, indent=2) + "\n")
    if options.json:
        write_text(options.json, json.dumps(result, indent=2) + "\n")
    show(console, arms)
    console.print(
        f"{seconds / 60:.1f} minutes. The adapter (PEFT format), manifest.json and metrics.jsonl are in {folder}/"
    )


def run(session: Session, joint: RunConfig, console: Console) -> dict[str, Arm]:
    """Train both shared LoRAs, choose the adaptations, score the held-out tasks; one bar over all of it."""
    model, store = session.model, session.store
    with bar(console) as progress:
        total = work_in_tokens(session)
        task = progress.add_task("", total=total)

        def spent(tokens: int) -> None:
            progress.advance(task, tokens)

        def trained(what: str, config: RunConfig) -> Learned:
            progress.update(task, description=f"training {what}")
            return meta_train(config, model=model, store=store, on_step=lambda _, metrics: spent(metrics.tokens))

        spaces = {STD: session.space()}
        spaces[META] = trained(META, session.config).space  # first: the joint run's folder lies inside this one's
        spaces[JOINT] = trained(JOINT, joint).space
        section, seed = session.config.method.inner, session.config.seed
        assert section is not None
        own, held_out = section.build(), session.held_out
        supports = [draw_support(unseen, SHOTS, seed=seed) for unseen in held_out]

        def adapted(name: str, inner: InnerLoop, after: int) -> list[TaskScore]:
            progress.update(task, description=f"adapting {name}")
            space = spaces[name]
            return adapt_and_score(space, inner, supports, held_out, after=(after,), on_pass=spent)[after]

        arms = {BASE: Arm(None, adapted(STD, own, 0))}
        arms |= {name: Arm(own, adapted(name, own, own.steps)) for name in (STD, META)}
        for name, space in spaces.items():
            progress.update(task, description=f"choosing for {name}")
            best = choose(space, own, GRID, session.validation, k=SHOTS, seed=seed, on_pass=spent)
            arms[TUNED.format(name)] = Arm(best, adapted(name, best, best.steps))
        progress.update(task, completed=total, description="done")
    return arms


def joint_config(config: RunConfig, session: Session) -> RunConfig:
    """joint-lora on the same tasks, LoRA and outer loop, for as many steps as META-LORA's tokens give."""
    given = config.resolved()
    method = {"name": "joint-lora", "lora": given["method"]["lora"]}
    folder = f"{config.output_dir}/joint-lora"
    joint = load_config(given | {"method": method, "output_dir": folder})
    ratio = plan(session).tokens_a_step / plan(replace(session, config=joint)).tokens_a_step
    steps = round(config.outer.steps * ratio)
    return load_config(given | {"method": method, "output_dir": folder, "outer": given["outer"] | {"steps": steps}})


def work_in_tokens(session: Session) -> int:
    """About how many tokens go through the model in all, for the time left."""
    tokens_a_step, config = plan(session).tokens_a_step, session.config
    a_pass = tokens_a_step / config.outer.tasks_per_step / 4  # one task's batch
    validation, held_out = len(session.validation) * a_pass, len(session.held_out) * a_pass
    choosing = 3 * len(GRID.lrs) * validation * (max(GRID.steps) + 2 * len(GRID.steps))
    adapting = held_out * (3 * max(GRID.steps) + 2 * 3 + 2 * 6)
    return int(2 * config.outer.steps * tokens_a_step + choosing + adapting)


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


def as_json(arms: Mapping[str, Arm]) -> dict[str, Any]:
    def adaptation(inner: InnerLoop | None) -> dict[str, float]:
        return {"steps": inner.steps, "lr": inner.optimizer.lr} if inner else {}

    tuned = TUNED.format(META)
    pairs = [(META, STD), (tuned, TUNED.format(STD)), (tuned, TUNED.format(JOINT))]
    return {
        "shots": SHOTS,
        "adaptation": {name: adaptation(arm.inner) for name, arm in arms.items()},
        "nats": {name: mean_nats(arm.scores) for name, arm in arms.items()},
        "exact": {name: mean_correct(arm.scores) for name, arm in arms.items()},
        "tasks_won": {f"{one} over {other}": wins(arms[one], arms[other]) for one, other in pairs},
        "tasks": {
            name: {score.task: [score.mean_nats, score.mean_correct] for score in arm.scores}
            for name, arm in arms.items()
        },
    }


def wins(one: Arm, other: Arm) -> int:
    """Tasks on which `one` has the lower NLL."""
    return sum(a.mean_nats < b.mean_nats for a, b in zip(one.scores, other.scores, strict=True))


def show(console: Console, arms: Mapping[str, Arm]) -> None:
    after = f"after {SHOTS} examples of an unseen task"
    nats = table(f"Nats an answer token {after} (lower is better)", arms)
    exact = table(f"Exact answers {after}", arms)
    for rows in zip(*(arm.scores for arm in arms.values()), strict=True):
        nats.add_row(rows[0].task, *(f"{row.mean_nats:.2f}" for row in rows))
        exact.add_row(rows[0].task, *(f"{row.mean_correct:.0%}" for row in rows))
    for part in (nats, exact):
        part.add_section()
    nats.add_row("mean", *(f"{mean_nats(arm.scores):.2f}" for arm in arms.values()))
    exact.add_row("mean", *(f"{mean_correct(arm.scores):.0%}" for arm in arms.values()))
    inners = [arm.inner for arm in arms.values()]
    nats.add_row("steps", *(str(inner.steps) if inner else "" for inner in inners))
    nats.add_row("lr", *(f"{inner.optimizer.lr:g}" if inner else "" for inner in inners))
    console.print(nats, exact)
    tasks = len(arms[META].scores)
    for pair, won in as_json(arms)["tasks_won"].items():
        console.print(f"{pair}: the lower NLL on {won} of {tasks} tasks", highlight=False)


def table(title: str, arms: Mapping[str, Arm]) -> Table:
    empty = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1))
    empty.add_column("unseen task", no_wrap=True)
    for name in arms:
        empty.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    return empty


if __name__ == "__main__":
    main()

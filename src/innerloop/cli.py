"""The command line: each verb is a few lines over the library.

train, check, plan, adapt, eval, compare, report, export, methods. Exit codes: 0 done, 1 failed, 2 usage, config or
data, 3 a check failed, 75 stopped by a signal or a full disk. With --json, standard output is one JSON document.
Everything heavy is imported inside the verbs, so that --help answers at once.
"""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from innerloop.errors import Fault, ResumableError, RunError, UserError
from innerloop.progress import stage_bars, step_bars
from innerloop.runs.stopping import stoppable

if TYPE_CHECKING:
    from innerloop.planning.forecast import Forecast
    from innerloop.runs.resuming import Begun
    from innerloop.runs.training import Plan

CHECK_FAILED = 3
INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt in a verb
TOLERANCE = 1e-4  # of a float32 logit, between our forward and PEFT's

app = typer.Typer(
    help="Meta-fine-tune language models: many small tasks in, an initialization that adapts in a few steps out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[Path, typer.Argument(help="The run's YAML file.")]
Run = Annotated[Path, typer.Argument(help="The output_dir of a finished run.")]
Sets = Annotated[list[str], typer.Option("--set", help="Override a key: --set method.inner.steps=5. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is imported and loaded stays: looking through it for garbage takes a tenth of the time to a first answer."""
    gc.disable()
    try:
        yield
    finally:
        _collected_from_here()


def _collected_from_here() -> None:
    gc.freeze()  # nor is it looked through later, when the process ends
    gc.enable()


@contextmanager
def _resumable(go_on: str) -> Iterator[None]:
    """A signal that asks the command to stop ends it with what goes on with it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise ResumableError(f"stopped by {stop}: {go_on}") from None


@app.command()
def train(
    config: Config,
    set_: Sets = [],  # noqa: B006 (typer reads it, nothing writes it)
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, and stop.")] = False,
    resume: Annotated[
        Literal["auto"] | None, typer.Option(help="auto: go on with what an earlier start left; else begin.")
    ] = None,
    allow_change: Annotated[
        list[str], typer.Option(help="A key, or model, data or tokenizer, that may differ from that start. Repeatable.")
    ] = [],  # noqa: B006
    json_: Json = False,
) -> None:
    """Train an initialization and write it to the config's output_dir."""
    if allow_change and not resume:
        raise UserError(Fault("read only with --resume auto", "--allow-change", ", ".join(allow_change)))
    with _resumable("the same command with --resume auto goes on from there"), _uncollected():
        _train(config, set_, dry_run=dry_run, resume=resume is not None, allow_change=allow_change, json_=json_)


def _train(config: Path, set_: list[str], *, dry_run: bool, resume: bool, allow_change: list[str], json_: bool) -> None:
    from innerloop.meta_training import is_done, meta_train
    from innerloop.planning.outcome import beside
    from innerloop.runs.config import load_config
    from innerloop.runs.preparation import prepare
    from innerloop.runs.training import plan

    settings = load_config(config, set_)
    folder, said = settings.output_dir, dict[str, Any]()
    if resume and is_done(settings):
        _say({"output_dir": str(folder), "done": True}, f"{folder} is done already", as_json=json_)
        return

    def on_resume(begun: "Begun") -> None:
        said["resumed"] = begun.host()["restarts"][-1]
        if not json_:
            print("\n".join([*begun.lines(), ""]), flush=True)

    def on_plan(what: "Plan") -> None:
        said["plan"] = what.facts()
        if not json_:
            print("\n".join(what.lines()), flush=True)

    def on_forecast(expected: "Forecast") -> None:
        _collected_from_here()
        said["forecast"] = expected.facts()
        if not json_:
            print("\n".join(["", *expected.cost(), ""]), flush=True)

    if dry_run:
        on_plan(plan(prepare(settings)))
    else:
        told = {"on_resume": on_resume, "on_plan": on_plan, "on_forecast": on_forecast}
        with step_bars(settings.outer.steps) as on_step:
            meta_train(settings, resume=resume, allow_change=allow_change, **told, on_step=on_step)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        said |= {"output_dir": str(folder), "measured": manifest["host"].get("measured")}
        if not json_:
            taken = beside(manifest) if said["measured"] else []  # else Python began it, without a forecast
            print("\n".join([*taken, f"wrote {folder}: {_contents(folder)}"]))
    if json_:
        print(json.dumps(said))


@app.command()
def check(config: Config, set_: Sets = [], json_: Json = False) -> None:  # noqa: B006
    """Check a config, its data and its model; every fault in one message."""
    from innerloop.runs.config import load_config
    from innerloop.runs.preparation import prepare
    from innerloop.runs.training import plan

    what = plan(prepare(load_config(config, set_)))
    _say({"ok": True, "plan": what.facts()}, "\n".join([*what.lines(), "no faults"]), as_json=json_)


@app.command("plan")
def plan_(
    config: Config,
    set_: Sets = [],  # noqa: B006
    budget: Annotated[str | None, typer.Option(help="Device memory to fit in: 24GB, 24GiB.")] = None,
    device: Annotated[str | None, typer.Option(help="h200, a100-80, a100-40, rtx4090, cpu; else the run's.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Devices that share the tasks of a step.")] = 1,
    json_: Json = False,
) -> None:
    """Predict a run's memory, time and disk without its weights; with a budget, find a setting that fits."""
    with _uncollected():
        from innerloop.planning.budget import parse_size, plan
        from innerloop.planning.devices import chosen
        from innerloop.runs.config import load_config

        settings = load_config(config, set_)
        limit = None if budget is None else parse_size(budget)
        answer = plan(settings, chosen(device, model_device=settings.model.device), budget=limit, gpus=gpus)
    _say(answer.facts(), "\n".join(answer.lines()), as_json=json_)
    if not answer.fits:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def adapt(
    run: Run,
    examples: Annotated[Path, typer.Argument(help="The new task's examples: JSONL, CSV, Parquet or JSON.")],
    output: Annotated[Path | None, typer.Option(help="Where the adapted adapter or model goes.")] = None,
    prompt: Annotated[list[str], typer.Option(help="Answer this prompt after adapting. Repeatable.")] = [],  # noqa: B006
    steps: Annotated[int | None, typer.Option(min=1, help="Inner steps; by default the run's own number.")] = None,
    json_: Json = False,
) -> None:
    """Adapt a run's initialization to a new task."""
    from innerloop.learned import load_run

    learned = load_run(run)
    adapted = learned.adapt(examples, steps=steps)
    answers = adapted.generate(prompt) if prompt else []
    if output:
        adapted.save_pretrained(output)
    nats, exact = adapted.score(examples)
    inner = learned.inner
    said = {
        "steps": len(adapted.losses),
        "optimizer": type(inner.optimizer).__name__.lower(),
        "lr": inner.optimizer.lr,
        "support_loss": [*adapted.losses, nats],
        "support_exact": exact,
        "answers": dict(zip(prompt, answers, strict=True)),
        "output": str(output) if output else None,
    }
    lines = [
        f"adapted in {said['steps']} steps of {said['optimizer']}, lr {inner.optimizer.lr}",
        f"support loss {adapted.losses[0]:.3f} -> {nats:.3f} nats a token; {exact:.0%} of its answers exact",
        *(f"{asked!r} -> {answer!r}" for asked, answer in zip(prompt, answers, strict=True)),
        *([f"wrote {output}"] if output else []),
    ]
    _say(said, "\n".join(lines), as_json=json_)


@app.command("eval")
def evaluate(
    run: Run,
    k: Annotated[list[int], typer.Option(help="Support examples. Repeatable.")] = [0, 5, 10, 25, 50],  # noqa: B006
    draws: Annotated[int, typer.Option(min=1, help="Draws of the support examples.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of a generated answer.")] = 64,
    json_: Json = False,
) -> None:
    """Adapt a run to k examples of each task that it held out, and score the task's test examples."""
    from innerloop.comparison.evaluate import evaluate, lines, protocol_of
    from innerloop.learned import load_run

    learned = load_run(run)
    protocol = protocol_of(learned, k=k, draws=draws, max_new_tokens=max_new_tokens)
    with _resumable("what was scored is kept, and the same command goes on from there"), stage_bars() as say:
        found = evaluate(learned, protocol, lambda stage, done, total: say(stage, "", done, total))
    _say(found, "\n".join(lines(found)), as_json=json_)


@app.command()
def compare(
    matrix: Annotated[Path, typer.Argument(help="The matrix: arms, budgets, seeds, tasks.")],
    output: Annotated[Path, typer.Option(help="The comparison's folder; one that was begun goes on.")],
    json_: Json = False,
) -> None:
    """Run every arm of a matrix, score all of them on the same examples, and write the report."""
    from innerloop.comparison.compare import begin, compare, spoken
    from innerloop.outputs.report import write_report

    begun = begin(matrix, output)
    if not json_:
        print("\n".join(begun.lines()), flush=True)
    with _resumable("what was measured is kept, and the same command goes on from there"), stage_bars() as say:
        results = compare(
            begun, output, lambda at: say(at.cell, f"{at.number}/{at.cells} {at.stage}", at.done, at.total)
        )
    page = write_report(output, results)[0]
    _say(results, "\n".join([*spoken(results), f"wrote {page}"]), as_json=json_)
    if any(row["status"] == "failed" for row in results["rows"]):
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a comparison.")],
    json_: Json = False,
) -> None:
    """Write a comparison's page, figures and tables, as far as it has come."""
    from innerloop.comparison.compare import read_results
    from innerloop.outputs.report import write_report

    written = [str(path) for path in write_report(folder, read_results(folder))]
    _say({"written": written}, "\n".join(f"wrote {path}" for path in written), as_json=json_)


@app.command()
def export(
    run: Run,
    output: Annotated[Path | None, typer.Option(help="Write another copy here.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Reload with PEFT alone and compare logits.")] = False,
    json_: Json = False,
) -> None:
    """Write a run's adapter or model, and check that PEFT alone reads the same from it."""
    from innerloop.data.tasks import Example
    from innerloop.learned import load_run

    learned = load_run(run)
    folder = output or learned.exported
    if output:
        learned.save_pretrained(output)
    said: dict[str, Any] = {"folder": str(folder)}
    if check:
        exact = load_run(run, dtype="float32")  # in fewer bits, two sound forwards differ by more than damage does
        said["largest_logit_difference"] = exact.check(folder, [Example("The quick brown fox", " jumps")])
    _say(said, "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in said.items()), as_json=json_)
    if check and not said["largest_logit_difference"] <= TOLERANCE:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def methods(json_: Json = False) -> None:
    """What each method trains, and how."""
    from innerloop.learning.methods import METHODS

    rows = [
        {
            "method": name,
            "algorithm": row.title,
            "trains": "all parameters" if row.trains == "all" else "LoRA",
        }
        for name, row in METHODS.items()
    ]
    table = "\n".join(f"{row['method']:14}{row['trains']:16}{row['algorithm']}" for row in rows)
    _say(rows, table, as_json=json_)


def main() -> None:
    """The `innerloop` command: errors become a message and an exit code, never a traceback."""
    with stoppable(second_ends=True):
        try:
            app()
        except (UserError, RunError) as error:
            _end(str(error), error.exit_code)
        except KeyboardInterrupt:  # before a verb began
            _end("stopped", ResumableError.exit_code)
        except SystemExit as end:
            if end.code != INTERRUPTED:
                raise
            _end("stopped", ResumableError.exit_code)


def _end(said: str, code: int) -> None:
    print(f"error: {said}", file=sys.stderr)
    sys.exit(code)


def _say(data: Any, text: str, *, as_json: bool) -> None:
    print(json.dumps(data) if as_json else text)


def _contents(folder: Path) -> str:
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return ", ".join(sorted(path.name + "/" * path.is_dir() for path in shown))

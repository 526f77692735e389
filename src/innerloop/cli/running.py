"""The verbs of a run: train it, check it, plan it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from innerloop.cli.common import CHECK_FAILED, Config, Json, Sets, collected_from_here, resumable, say, uncollected
from innerloop.errors import Fault, UserError
from innerloop.progress import step_bars

if TYPE_CHECKING:
    from innerloop.planning.forecast import Forecast
    from innerloop.runs.resuming import Begun
    from innerloop.runs.training import Plan


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
    with resumable("the same command with --resume auto goes on from there"), uncollected():
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
        say({"output_dir": str(folder), "done": True}, f"{folder} is done already", as_json=json_)
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
        collected_from_here()
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


def check(config: Config, set_: Sets = [], json_: Json = False) -> None:  # noqa: B006
    """Check a config, its data and its model; every fault in one message."""
    from innerloop.runs.config import load_config
    from innerloop.runs.inspection import shown
    from innerloop.runs.preparation import prepare
    from innerloop.runs.training import plan

    session = prepare(load_config(config, set_))
    what, example = plan(session), shown(session.train, session.model.tokenizer)
    said = {"ok": True, "plan": what.facts(), "example": example._asdict()}
    say(said, "\n".join([*what.lines(), *example.lines(), "no faults"]), as_json=json_)


def plan(
    config: Config,
    set_: Sets = [],  # noqa: B006
    budget: Annotated[str | None, typer.Option(help="Device memory to fit in: 24GB, 24GiB.")] = None,
    device: Annotated[str | None, typer.Option(help="h200, a100-80, a100-40, rtx4090, cpu; else the run's.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Devices that share the tasks of a step.")] = 1,
    json_: Json = False,
) -> None:
    """Predict a run's memory, time and disk without its weights; with a budget, find a setting that fits."""
    with uncollected():
        from innerloop.planning.budget import parse_size
        from innerloop.planning.budget import plan as fitted
        from innerloop.planning.devices import chosen
        from innerloop.runs.config import load_config

        settings = load_config(config, set_)
        limit = None if budget is None else parse_size(budget)
        answer = fitted(settings, chosen(device, model_device=settings.model.device), budget=limit, gpus=gpus)
    say(answer.facts(), "\n".join(answer.lines()), as_json=json_)
    if not answer.fits:
        raise typer.Exit(CHECK_FAILED)


def _contents(folder: Path) -> str:
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return ", ".join(sorted(path.name + "/" * path.is_dir() for path in shown))

"""The verbs of a run: begin with its data, train it, check it, plan it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from innerloop.cli.common import (
    CHECK_FAILED,
    Config,
    Json,
    Sets,
    collected_from_here,
    columns_of,
    resumable,
    say,
    uncollected,
)
from innerloop.errors import Fault, UserError
from innerloop.progress import Busy, busy

if TYPE_CHECKING:
    from innerloop.engine.metrics import Metrics
    from innerloop.planning.forecast import Forecast
    from innerloop.runs.header import Header


def init(
    folder: Annotated[
        Path, typer.Argument(help="Your data: a folder with a file per task, or one file with a column task.")
    ],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("run.yaml"),
    model: Annotated[
        str | None, typer.Option(help="A hub id, folder or packaged model; by default a small packaged one.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="One of `innerloop methods`; by default meta-lora.")] = None,
    column: Annotated[
        list[str], typer.Option(help="Our field's name for a column: --column question=Question. Repeatable.")
    ] = [],  # noqa: B006
    json_: Json = False,
) -> None:
    """Look at your data and write a config for a first run of under three minutes. Nothing is overwritten."""
    if output.exists():
        raise UserError(
            Fault("this file is there already", "--output", str(output), "another name; nothing is overwritten")
        )
    with busy(f"reading {folder}") as now, uncollected():
        from innerloop.files import write_text
        from innerloop.planning.first_config import METHOD, MODEL, first_config

        how = {"model": model or MODEL, "method": method or METHOD, "columns": columns_of(column)}
        found = first_config(folder, **how, say=now.say)
        write_text(output, found.text)
    lines = [*found.lines, f"wrote    {output}", f"next     innerloop train {output}"]
    say({"written": str(output), "config": found.text, "chosen": list(found.lines)}, "\n".join(lines), as_json=json_)


def train(
    config: Config,
    set_: Sets = [],  # noqa: B006 (typer reads it, nothing writes it)
    resume: Annotated[
        Literal["auto"] | None, typer.Option(help="auto: continue an earlier start in output_dir, if there is one.")
    ] = None,
    allow_change: Annotated[
        list[str],
        typer.Option(help="A key, or model, data, tokenizer, that may differ from the earlier start. Repeatable."),
    ] = [],  # noqa: B006
    json_: Json = False,
) -> None:
    """Train an initialization and write it to the config's output_dir."""
    if allow_change and not resume:
        raise UserError(Fault("read only with --resume auto", "--allow-change", ", ".join(allow_change)))
    go_on = "the same command with --resume auto goes on from there"
    with busy(f"reading {config}") as now, resumable(go_on, now.where), uncollected():
        ended = _train(config, set_, now, resume is not None, allow_change, json_)
    say(*ended, as_json=json_)


def _train(
    config: Path, set_: list[str], now: Busy, resume: bool, allow_change: list[str], json_: bool
) -> tuple[dict[str, Any], str]:
    """What is said at the end, for programs and for people."""
    from innerloop.artifacts.listing import how_it_ended
    from innerloop.config.loading import load_config
    from innerloop.engine.groundwork import checked
    from innerloop.planning.forecaster import Forecaster
    from innerloop.planning.outcome import beside
    from innerloop.runs.meta_train import is_done, meta_train

    said = dict[str, Any]()
    if resume:
        settings = what = load_config(config, set_)
        if is_done(settings):
            return {"output_dir": str(settings.output_dir), "done": True}, f"{settings.output_dir} is done already"
    else:
        what = checked(config, set_, fresh=True, say=now.say)
        settings = what.config
    steps, folder = settings.outer.steps, settings.output_dir

    def tell(key: str, value: Any, *lines: str) -> None:
        said[key] = value
        if not json_:
            now.print(*lines)

    def on_header(header: "Header") -> None:
        collected_from_here()
        tell("plan", header.facts(), *header.lines())

    def on_forecast(expected: "Forecast") -> None:
        tell("forecast", expected.facts(), "", *expected.cost(), "")

    def on_step(name: str, metrics: "Metrics") -> None:
        now.step(name, metrics, steps)

    meta_train(
        what,
        resume=resume,
        allow_change=allow_change,
        on_stage=now.say,
        on_resume=lambda earlier: tell("resumed", earlier.host()["restarts"][-1], *earlier.lines(), ""),
        on_header=on_header,
        on_step=on_step,
        on_evaluation=now.evaluated,
        forecaster=Forecaster(on_forecast, say=now.say),
    )
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    said |= {"output_dir": str(folder), "measured": manifest["host"].get("measured")}
    taken = beside(manifest) if said["measured"] else []  # else it was too short for a forecast
    said |= {key: manifest[key] for key in ("validation", "stopped_after", "stopped_by") if key in manifest}
    wrote, next_ = f"wrote {folder}: {_contents(folder)}", f"next  innerloop report {folder}"
    return said, "\n".join([*taken, *how_it_ended(manifest), wrote, next_])


def check(config: Config, set_: Sets = [], json_: Json = False) -> None:  # noqa: B006
    """Check a config, its data, folder and model, and report every fault at once."""
    with busy(f"checking {config}") as now, uncollected():
        from innerloop.engine.groundwork import checked
        from innerloop.engine.inspection import shown
        from innerloop.engine.session import prepare
        from innerloop.runs.header import header_of
        from innerloop.runs.starting import started

        ground = checked(config, set_, fresh=True, say=now.say)
        session = started(prepare(ground.config, ground=ground, say=now.say))
        header, example = header_of(session), shown(session.train, session.model.tokenizer)
    said = {"ok": True, "plan": header.facts(), "example": example._asdict()}
    say(said, "\n".join([*header.lines(), *example.lines(), "no faults"]), as_json=json_)


def plan(
    config: Config,
    set_: Sets = [],  # noqa: B006
    budget: Annotated[str | None, typer.Option(help="Device memory to fit in: 24GB, 24GiB.")] = None,
    device: Annotated[
        str | None, typer.Option(help="h200, a100-80, a100-40, rtx4090, cpu; by default the run's.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of devices; only 1 is supported so far.")] = 1,
    json_: Json = False,
) -> None:
    """Predict a run's memory, time and disk without its weights; with a budget, find a setting that fits."""
    if gpus > 1:
        raise UserError(Fault("a run takes one device: no command could run what was planned", "--gpus", gpus, "1"))
    with busy(f"reading {config}") as now, uncollected():
        from innerloop.engine.groundwork import checked
        from innerloop.planning import budget as planning
        from innerloop.planning.devices import chosen

        limit = None if budget is None else planning.parse_size(budget)
        ground = checked(config, set_, fresh=True, away=True, say=now.say)
        place = chosen(device, model_device=ground.config.model.device)
        now.say("tracing a step")
        answer = planning.plan(ground.config, place, budget=limit, ground=ground)
    say(answer.facts(), "\n".join(answer.lines()), as_json=json_)
    if not answer.fits:
        raise typer.Exit(CHECK_FAILED)


def _contents(folder: Path) -> str:
    shown = (path for path in folder.iterdir() if not path.name.startswith("."))
    return ", ".join(sorted(path.name + "/" * path.is_dir() for path in shown))

"""The verbs that look and change nothing: runs on disk, recipes, what a model reads, this machine.

runs      ls, show, diff
recipes   ls, cp
preview   examples as the model reads them
env       versions, devices and extras: what to paste into a report
schema    the JSON schema of a run's YAML file, for editors
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop.cli.common import Config, Json, Sets, say, uncollected
from innerloop.progress import busy

runs = typer.Typer(no_args_is_help=True, help="List, show and compare runs on disk.")
recipes = typer.Typer(no_args_is_help=True, help="List and copy the recipes that come with innerloop.")

Folder = Annotated[Path, typer.Argument(help="The output_dir of a run.")]


@runs.command("ls")
def runs_ls(
    folder: Annotated[Path, typer.Argument(help="Folder to look for runs in.")] = Path("runs"), json_: Json = False
) -> None:
    """List the runs below a folder, the newest first."""
    from innerloop.artifacts.listing import list_runs, table

    found = list_runs(folder)
    say([run.facts() for run in found], table(found) if found else f"no runs below {folder}", as_json=json_)


@runs.command("show")
def runs_show(folder: Folder, json_: Json = False) -> None:
    """Show what a run was, whether it learns, what it took, and its settings."""
    from innerloop.artifacts.listing import how_it_ended, list_runs
    from innerloop.config.document import to_yaml
    from innerloop.config.output_dir import read_manifest
    from innerloop.errors import Fault, UserError
    from innerloop.report.run_record import read_run
    from innerloop.report.terminal import run_lines

    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(Fault("no manifest.json here", str(folder), expected="the output_dir of a run"))
    (run,) = list_runs(folder)
    lines = [*run_lines(read_run(folder)), *how_it_ended(manifest)]
    text = "\n".join([*lines, "", to_yaml(manifest["config"]).rstrip()])
    ended = {key: manifest.get(key) for key in ("validation", "stopped_after", "stopped_by")}
    say({**run.facts(), "ended": ended, "config": manifest["config"]}, text, as_json=json_)


@runs.command("diff")
def runs_diff(
    one: Folder, other: Annotated[Path, typer.Argument(help="Another run's output_dir.")], json_: Json = False
) -> None:
    """Show the settings in which two runs differ, and what each came to."""
    from innerloop.artifacts.listing import differences, list_runs, table
    from innerloop.config.schema import ABSENT

    found = differences(one, other)
    said = {key: {"one": left, "other": right} for key, (left, right) in found.items()}
    said = {
        key: {name: None if value is ABSENT else value for name, value in pair.items()} for key, pair in said.items()
    }
    shown = {
        key: ["not read" if value is ABSENT else json.dumps(value) for value in pair] for key, pair in found.items()
    }
    width = max((len(key) for key in found), default=0)
    lines = [f"{key:{width}}  {left} -> {right}" for key, (left, right) in shown.items()] or ["the same settings"]
    both = table([run for folder in (one, other) for run in list_runs(folder)])
    say(said, "\n".join([*lines, "", both]), as_json=json_)


@recipes.command("ls")
def recipes_ls(json_: Json = False) -> None:
    """List the recipes, with the sentence that each begins with."""
    from innerloop.recipes import recipes as all_recipes

    found = all_recipes()
    width = max(map(len, found))
    say(found, "\n".join(f"{name:{width}}  {about}" for name, about in found.items()), as_json=json_)


@recipes.command("cp")
def recipes_cp(
    name: Annotated[str, typer.Argument(help="A recipe's name, from recipes ls.")],
    to: Annotated[Path, typer.Argument(help="The file, or a folder to put it in.")] = Path(),
    json_: Json = False,
) -> None:
    """Copy a recipe, to change it and train with it. Nothing is overwritten."""
    from innerloop.recipes import copy_recipe

    written = copy_recipe(name, to)
    say({"written": str(written)}, f"wrote {written}", as_json=json_)


def preview(
    config: Config,
    set_: Sets = [],  # noqa: B006
    show: Annotated[int, typer.Option(min=1, help="Examples of each task.")] = 1,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks.")] = 3,
    json_: Json = False,
) -> None:
    """Show examples as the model reads them; a terminal shows the scored part in colour."""
    with busy(f"reading {config}") as now, uncollected():
        from innerloop.engine.groundwork import checked
        from innerloop.engine.inspection import shown_all

        ground = checked(config, set_, say=now.say)
        assert ground.tokenizer is not None
        found = list(shown_all(ground.train, ground.tokenizer, tasks=tasks, examples=show))
    if json_:
        print(json.dumps([each._asdict() for each in found]))
        return
    for where, read, scored in (each.painted() for each in found):
        typer.secho(where, bold=True)
        typer.echo(read, nl=False)
        typer.secho(scored, fg=typer.colors.GREEN, underline=True)
        typer.echo()


def env(json_: Json = False) -> None:
    """Print versions, devices and extras, to paste into a bug report."""
    from innerloop.files import cache_folder
    from innerloop.machine import environment, extras

    facts: dict[str, Any] = {**environment(), "cache": str(cache_folder()), "extras": extras()}
    packages, given = facts.pop("packages"), facts["extras"]
    rows = {**packages, **{key: value for key, value in facts.items() if key != "extras"}}
    rows |= {
        f"extra {name}": "installed" if not missing else f"without {', '.join(missing)}"
        for name, missing in given.items()
    }
    width = max(map(len, rows))
    text = "\n".join(f"{key:{width}}  {value if value is not None else 'none'}" for key, value in rows.items())
    say({**facts, "packages": packages}, text, as_json=json_)


def schema() -> None:
    """Print the JSON schema of a run's YAML file, for an editor that completes and checks it."""
    from innerloop.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))

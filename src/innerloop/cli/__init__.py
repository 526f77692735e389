"""The command line: each verb is a few lines over the library.

Exit codes: 0 done, 1 failed, 2 usage, config or data, 3 a check failed, 75 stopped by a signal or a full disk. With
--json, standard output is one JSON document.
Everything heavy is imported inside the verbs, so that --help answers at once.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from innerloop.cli.common import Json, say
from innerloop.cli.comparing import compare, report
from innerloop.cli.looking import env, preview, recipes, runs, schema
from innerloop.cli.running import check, init, plan, train
from innerloop.cli.talking import chat, generate
from innerloop.cli.using import adapt, evaluate, export
from innerloop.engine.stopping import stoppable
from innerloop.errors import ResumableError, RunError, UserError
from innerloop.progress import wrapped

_PYTHONS = warnings.formatwarning
INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt in a verb

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def methods(json_: Json = False) -> None:
    """List the methods: what each trains, and how."""
    from innerloop.learning.installed import install
    from innerloop.learning.methods import METHODS

    for fault in install().values():
        print(wrapped(f"not usable: {fault}", sys.stderr), file=sys.stderr)
    rows = [
        {
            "method": name,
            "algorithm": row.title,
            "trains": row.space.title,
        }
        for name, row in METHODS.items()
    ]
    width = max(len(name) for name in METHODS) + 2
    table = "\n".join(f"{row['method']:{width}}{row['trains']:16}{row['algorithm']}" for row in rows)
    say(rows, table, as_json=json_)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"innerloop {version('innerloop')}")
        raise typer.Exit


@app.callback()
def innerloop(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Meta-fine-tune language models: many small tasks in, an initialization that adapts in a few steps out."""


app.command()(init)
app.command()(train)
app.command()(check)
app.command()(plan)
app.command()(adapt)
app.command()(generate)
app.command()(chat)
app.command("eval")(evaluate)
app.command()(compare)
app.command()(report)
app.command()(export)
app.command()(methods)
app.command()(preview)
app.add_typer(runs, name="runs")
app.add_typer(recipes, name="recipes")
app.command()(env)
app.command()(schema)


def main() -> None:
    """The `innerloop` command: errors become a message and an exit code, never a traceback."""
    warnings.formatwarning = _in_words
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


def _in_words(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours without the line of ours that gave it; any other as Python has it."""
    if Path(__file__).parents[1] in Path(filename).parents:
        return wrapped(f"warning: {message}", sys.stderr) + "\n"
    return _PYTHONS(message, category, filename, lineno, line)


def _end(said: str, code: int) -> None:
    print(wrapped(f"error: {said}", sys.stderr), file=sys.stderr)
    sys.exit(code)

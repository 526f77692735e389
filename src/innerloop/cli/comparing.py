"""The verbs of a comparison and of a run's page: run it, write its report."""

from pathlib import Path
from typing import Annotated

import typer

from innerloop.cli.common import Json, resumable, say, uncollected
from innerloop.progress import busy


def compare(
    matrix: Annotated[Path, typer.Argument(help="The matrix: arms, budgets, seeds, tasks; or a run, with --arms.")],
    output: Annotated[Path, typer.Option(help="The comparison's folder; one begun there is continued.")],
    arms: Annotated[
        str | None,
        typer.Option(
            help="Methods to compare the run's settings under, such as lora,joint-lora,meta-lora; the base model and "
            "in-context examples stand beside them."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="With --arms: how many training seeds, or a list such as 1,2,3; by default the run's own."),
    ] = None,
    json_: Json = False,
) -> None:
    """Run every arm of a matrix, score all of them on the same examples, and write the report.

    With --arms, the matrix is that of a run's config: each method with the run's settings, for the run's own tokens.
    """
    go_on = "what was measured is kept, and the same command goes on from there"
    with busy(f"reading {matrix}") as now, resumable(go_on, now.where):
        with uncollected():
            from innerloop.comparison.arms import asked_for
            from innerloop.comparison.compare import begin, compare
            from innerloop.comparison.matrix import day_of
            from innerloop.report.front import answer_lines
            from innerloop.report.report import write_report

            derived = asked_for(matrix, arms, seeds, day=day_of(output), say=now.say)
            begun = begin(matrix, output, now.say, derived=derived)
        if not json_:
            now.print(*begun.lines(), *(derived.lines if derived else ()))
        results = compare(begun, output, lambda at: now.say(at.words(), at.done, at.total))
        now.say("writing the report")
        page = write_report(output, results)[0]
    say(results.contents(), "\n".join([*answer_lines(results), f"wrote {page}"]), as_json=json_)
    if any(row.status == "failed" for row in results.rows):
        raise typer.Exit(1)


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a comparison, or the output_dir of a run.")],
    json_: Json = False,
) -> None:
    """Write the page of a comparison, from the cells finished so far, or of a run as far as it has come."""
    with busy(f"reading {folder}"):
        from innerloop.comparison.compare import read_results
        from innerloop.files import MANIFEST
        from innerloop.report.report import write_report
        from innerloop.report.run_page import write_run_report

        is_run = (folder / MANIFEST).is_file()
        paths = [write_run_report(folder)] if is_run else write_report(folder, read_results(folder))
    written = [str(path) for path in paths]
    beside = f" and {len(written) - 1} files beside it" if len(written) > 1 else ""
    say({"written": written}, f"wrote {written[0]}{beside}", as_json=json_)

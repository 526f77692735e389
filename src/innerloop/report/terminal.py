"""A comparison of one run, and a run, as lines for a terminal.

run_lines  how far a run came, and the sentences of its page
one_run   its scores with what they took, and what they speak of
lined_up  a table in columns of one width
"""

from innerloop.report.page import Table, TableCell
from innerloop.report.run_page import facts, sentences
from innerloop.report.run_record import RunRecord
from innerloop.report.tables_adaptation import one_arm
from innerloop.report.words import printable
from innerloop.results.schema import Results

LEGEND = (
    "nats per answer token: the mean of an answer, then of a task's answers (training's loss is one mean over all "
    "scored tokens of a task, those that end an answer among them)",
    "gap: test nats minus support nats",
)


def run_lines(run: RunRecord) -> list[str]:
    told = ["".join(span.text for span in prose.spans) for prose in sentences(run)]
    warnings = [f"warning: {warning}" for warning in run.manifest.plan.warnings]
    ended = [run.manifest.reason] if run.manifest.reason else []
    return [", ".join([run.name, *facts(run)]), *ended, *told, *warnings]


def one_run(results: Results) -> list[str]:
    read = printable(results)
    arm = read.rows[0]
    counts = [score.cut for score in read.scores if score.cut]
    cut, answers = (sum(each) for each in zip(*counts, strict=True)) if counts else (0, 0)
    notes = [f"{cut} of {answers} answers were cut off before they ended"] if cut else []
    return [*lined_up(one_arm(read, arm.budget, arm.arm)), *notes, *LEGEND, *read.notes]


def lined_up(table: Table) -> list[str]:
    lines = [list(table.columns), *([_text(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)
    return [line.rstrip() for line in padded]


def _text(cell: TableCell) -> str:
    return " ".join([cell.text, *cell.detail])

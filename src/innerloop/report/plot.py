"""The course of a run as one figure, for a notebook or a file.

plot   a run's folder -> Plot
Plot   save(path); a notebook shows it
"""

from dataclasses import dataclass
from pathlib import Path

from innerloop.errors import Fault, UserError
from innerloop.files import write_whole
from innerloop.report.figure_style import style
from innerloop.report.figures_run import course
from innerloop.report.page import Figure
from innerloop.report.report import require_report
from innerloop.report.run_record import read_run


@dataclass(frozen=True, repr=False)
class Plot:
    figure: Figure

    def __repr__(self) -> str:
        return f"Plot({self.figure.alt})"

    def _repr_png_(self) -> bytes:
        return self.figure.png

    def save(self, path: str | Path) -> None:
        """As PNG or SVG, by its name. Raises UserError for another kind, and where it can't be written."""
        contents = {".png": self.figure.png, ".svg": self.figure.svg.encode()}
        path = Path(path)
        if path.suffix.lower() not in contents:
            raise UserError(Fault("not a kind of picture", "path", str(path), "a name that ends in .png or .svg"))
        try:
            write_whole(path, contents[path.suffix.lower()])
        except OSError as error:
            raise UserError(Fault(f"can't be written: {error.strerror}", "path", str(path))) from error


def plot(folder: Path) -> Plot:
    """Raises UserError for a folder that holds no run, or no step, and where the extra `report` isn't installed."""
    require_report()
    run = read_run(folder)
    with style():
        figure = course(run.steps, run.evaluations)
    if figure is None:
        raise UserError(Fault("no step was measured", str(folder), expected="the folder of a run that has begun"))
    return Plot(figure)

"""How every figure looks: one colour, marker and line for each arm, and files that are the same in every run.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart, with grey for the untrained base and
yellow, pale on paper, kept for methods that this table doesn't know. Marker and line tell the arms apart in grey.

Look           colour, marker, line style, and whether the marker is hollow
looks          arm -> Look, for all arms of a comparison
style          the settings of matplotlib in which figures are made
new_figure     a figure and its axes, a phone's width
add_legend     the arms below the axes
render         figure -> SVG text and PNG bytes
marker_path    an arm's marker as an SVG path, for the keys on the page
"""

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER, LINE, MUTED = "#000000", "#ffffff", "#d9d9d9", "#595959"
THEMED = {INK: "--ink", PAPER: "--paper", LINE: "--line", MUTED: "--muted"}  # the page's own names for them
ORANGE, SKY, GREEN, YELLOW = "#e69f00", "#56b4e9", "#009e73", "#f0e442"
BLUE, VERMILLION, PURPLE, GREY = "#0072b2", "#d55e00", "#cc79a7", "#8a8a8a"
WIDTH, DPI = 4.0, 180  # inches: as wide as a phone, where its text is 10 pixels high

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",  # text stays text: it can be searched, and follows the page's colours
    "svg.hashsalt": "innerloop",
    "text.parse_math": False,  # a task may be called $x$
}


class Look(NamedTuple):
    color: str
    marker: str
    line: Any = "-"
    hollow: bool = False


_DASH, _DOT, _MIXED = (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5))
_KNOWN = {
    "base": Look(GREY, "X", _DOT),
    "in-context": Look(SKY, "P", _DASH),
    "lora": Look(ORANGE, "s", _MIXED),
    "joint-lora": Look(INK, "o"),
    "in-context-lora": Look(SKY, "P"),
    "reptile-lora": Look(GREEN, "v"),
    "fomaml-lora": Look(BLUE, "^"),
    "meta-lora": Look(VERMILLION, "D"),
    "maml-lora": Look(PURPLE, "p"),
    "joint": Look(INK, "o", _DASH, hollow=True),
    "reptile": Look(GREEN, "v", _DASH, hollow=True),
    "fomaml": Look(BLUE, "^", _DASH, hollow=True),
    "maml": Look(PURPLE, "p", _DASH, hollow=True),
}
_OTHERS = tuple(Look(YELLOW, marker, line) for line in ("-", _DASH, _DOT) for marker in "*h<>8d")


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """The same arm looks the same wherever it is; arms that the table doesn't know take the spare looks by name."""
    names = set(arms)
    spare = {arm: _OTHERS[index % len(_OTHERS)] for index, arm in enumerate(sorted(names - _KNOWN.keys()))}
    return {arm: spare.get(arm) or _KNOWN[arm] for arm in names}


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and the settings above, whatever the user's own are; restored after."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, _SETTINGS))
        yield


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> "tuple[Figure, list[Axes]]":
    """height in inches; the axes in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def marks(look: Look) -> dict[str, Any]:
    """A thin edge in ink keeps the paler colours visible on paper."""
    if look.hollow:
        return {"marker": look.marker, "markerfacecolor": PAPER, "markeredgecolor": look.color, "markeredgewidth": 1.3}
    return {"marker": look.marker, "markerfacecolor": look.color, "markeredgecolor": INK, "markeredgewidth": 0.5}


def add_legend(figure: "Figure", arms: Mapping[str, Look], extra: Sequence[Any] = ()) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=arm, color=look.color, linestyle=look.line, **marks(look)) for arm, look in arms.items()
    ]
    handles += extra
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = 3 if longest <= 14 else 2 if longest <= 24 else 1
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.8, columnspacing=1.2)


def render(figure: "Figure") -> tuple[str, bytes]:
    """Both hold no date and no random ids: the same numbers give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text, image = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():  # a glyph that the font lacks is a box in the PNG; a browser has more fonts
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasAgg(figure).print_png(image, metadata={"Software": None})  # savefig would draw twice
        figure.set_layout_engine("none")  # what the first drawing placed stays there
        FigureCanvasSVG(figure).print_svg(text, metadata=nothing)
    return text.getvalue(), image.getvalue()


def marker_path(look: Look) -> str:
    """The `d` of a path in a box of -0.5 to 0.5, y downwards."""
    from matplotlib.markers import MarkerStyle

    marker = MarkerStyle(look.marker)
    path = marker.get_path().transformed(marker.get_transform())
    letters = {path.MOVETO: "M", path.LINETO: "L", path.CURVE3: "Q", path.CURVE4: "C", path.CLOSEPOLY: "Z"}
    pieces: list[str] = []
    for points, code in path.iter_segments(simplify=False):
        numbers = "" if letters[code] == "Z" else " ".join(f"{x:.3f} {-y:.3f}" for x, y in points.reshape(-1, 2))
        pieces.append(letters[code] + numbers)
    return "".join(pieces)

"""What a report is made of before it is HTML or Markdown, and how its numbers are written.

Span      a piece of a sentence, with a mark
Prose     a paragraph
TableCell      one value of a table: text, what it sorts by, a second line, a mark
Table     columns and rows of cells
Figure    a drawing as SVG and PNG, with words for those who can't see it
Listing   a file or command, folded away
Asked, Reply   a question, the right answer, and what was answered
PageSection   a heading and its blocks

Marks: "predicted", "better", "worse", "null" (no detectable difference), "failed", "strong", or "".
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

NOTHING = "–"
PREDICTED = "≈ "


class Span(NamedTuple):
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Prose:
    """style: "" plain, "lede", "item" (of a list), "note" or "warning"; arm: whose key stands before it."""

    spans: tuple[Span, ...]
    style: str = ""
    arm: str = ""
    kind: str = field(default="prose", init=False)


class TableCell(NamedTuple):
    """value: a number or text to sort by, None sorts last; detail: further lines; tag: a verdict, marked by `mark`."""

    text: str
    value: float | str | None = None
    detail: tuple[str, ...] = ()
    mark: str = ""
    tag: str = ""
    arm: str = ""


@dataclass(frozen=True)
class Table:
    """The first column names the row. caption: what the figures are of, and their budget; wide: needs a whole page."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    wide: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """name: of its files; place: part of the page, budget, adaptation; svg: a whole document."""

    name: str
    place: tuple[str, str, str]
    title: str
    caption: str
    alt: str
    svg: str = ""
    png: bytes = b""
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True)
class Listing:
    """text: of a file, as it was read; command: that uses it."""

    title: str
    command: str
    text: str
    kind: str = field(default="listing", init=False)


class Reply(NamedTuple):
    """who: an arm, whose key stands before it, or anything else that answered."""

    who: str
    text: str
    is_right: bool


@dataclass(frozen=True)
class Asked:
    task: str
    prompt: str
    right: str
    replies: Sequence[Reply]
    kind: str = field(default="asked", init=False)


@dataclass(frozen=True)
class Heading:
    title: str
    kind: str = field(default="heading", init=False)


Block = Prose | Table | Figure | Listing | Asked | Heading


@dataclass(frozen=True)
class PageSection:
    """Blocks under a heading. name: its anchor; folded: only its heading is seen until somebody opens it."""

    name: str
    title: str
    blocks: list[Block]
    folded: bool = True


def say(*pieces: str | Span, style: str = "", arm: str = "") -> Prose:
    return Prose(tuple(piece if isinstance(piece, Span) else Span(piece) for piece in pieces), style, arm)


def cell(value: Any, shown: str | None = None, *, detail: tuple[str, ...] = (), mark: str = "") -> TableCell:
    """A number or a text, or a dash where there is none; a predicted one begins with ≈."""
    if value is None or value == "":
        return TableCell(NOTHING)
    text = str(value) if shown is None else shown
    return TableCell(PREDICTED + text if mark == "predicted" else text, value, detail, mark)


def whole(value: float | None) -> str:
    """1234567.2 -> "1,234,567"."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def number(value: float | None) -> str:
    """60.0 -> "60", 3.75 -> "3.75"."""
    return NOTHING if value is None else whole(value) if float(value).is_integer() else short(value)


def short(value: float) -> str:
    """At most three digits: 1234567 -> "1.23 M", 0.5 -> "0.5", 0 -> "0"."""
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == ' k' else size):.3g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size(value: float | None) -> str:
    """Bytes: 1234567 -> "1.2 MiB"."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 1 << power:
            return (
                f"{value / (1 << power):.3g} {unit}" if value < 1000 << power else f"{value / (1 << power):,.0f} {unit}"
            )
    return f"{value:.0f} B"


def chance(p: float | None) -> str:
    """A p-value: "0.012", "< 0.001"."""
    if p is None or not math.isfinite(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def counted(count: int, noun: str) -> str:
    """(1, "task") -> "1 task"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def glued(text: str) -> str:
    """ "k = 8", "p < 0.001" and "95 %" stay on one line."""
    return re.sub(
        r"(?<=\b[kp]) ([=<]) (?=\d)|(?<=\d) (%)", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text
    )


def shortened(text: str, limit: int) -> str:
    """On one line, at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
